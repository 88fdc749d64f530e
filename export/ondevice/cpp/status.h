// The result of an operation that may fail.

#ifndef T2AUX_ONDEVICE_STATUS_H_
#define T2AUX_ONDEVICE_STATUS_H_

#include <string>
#include <utility>

namespace t2aux {

// An error, as one sentence; or success.
class [[nodiscard]] Status {
 public:
  Status() = default;
  static Status Error(std::string sentence) { return Status(std::move(sentence)); }

  bool ok() const { return sentence_.empty(); }
  const std::string& sentence() const { return sentence_; }

 private:
  explicit Status(std::string sentence) : sentence_(std::move(sentence)) {}

  std::string sentence_;
};

}  // namespace t2aux

#endif  // T2AUX_ONDEVICE_STATUS_H_
