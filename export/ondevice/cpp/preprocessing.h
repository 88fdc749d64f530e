// How a text becomes the ids that a classifier reads, as the export's metadata.json tells it.

#ifndef T2AUX_ONDEVICE_PREPROCESSING_H_
#define T2AUX_ONDEVICE_PREPROCESSING_H_

#include <cstdint>
#include <cstdio>
#include <deque>
#include <string>
#include <unordered_map>

#include "status.h"

namespace t2aux {

// What metadata.json says in its entry `preprocessing`, as far as it is needed here.
struct Preprocessing {
  enum class Tokens { kNone, kBytes, kCharacters };

  // What a step of a text is; none where the classifier reads no text, or metadata.json does not
  // tell.
  Tokens tokens = Tokens::kNone;
  // The ids of characters, by code point; what is not there has id 0.
  std::unordered_map<uint32_t, int32_t> vocabulary;
  // Steps after which a sequence is cut; 0 for none.
  int64_t max_length = 0;
};

// Reads the content of the metadata.json at `path`. Where it has no entry `preprocessing`, all
// stays as it was.
Status ReadPreprocessing(const std::string& path, const std::string& content,
                         Preprocessing* preprocessing);

// Reads a text in UTF-8 as ids, as it comes in: what t2aux_ondevice makes of a .txt file. A byte
// order mark before it and a line break at its end are no part of it.
class Text {
 public:
  // Both must stay while this is used.
  Text(const Preprocessing& preprocessing, FILE* file)
      : preprocessing_(preprocessing), file_(file) {}

  // Gives the next id; none are `there` after the end. A text without a visible character is an
  // error.
  Status Next(int32_t* id, bool* there);
  // Whether a character that is no white space has come.
  bool visible() const { return visible_; }

 private:
  int Byte();
  void LookAhead();
  Status Character(std::string* bytes, uint32_t* code);

  const Preprocessing& preprocessing_;
  FILE* file_;
  // What was read beyond the byte that is to be given: a line break and what follows it.
  std::string ahead_;
  bool ended_ = false, begun_ = false, visible_ = false;
  // The ids of a character that are yet to be given.
  std::deque<int32_t> ids_;
};

}  // namespace t2aux

#endif  // T2AUX_ONDEVICE_PREPROCESSING_H_
