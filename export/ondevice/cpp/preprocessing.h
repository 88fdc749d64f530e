// How a text becomes the ids that a classifier reads, by the export's metadata.json.

#ifndef T2AUX_ONDEVICE_PREPROCESSING_H_
#define T2AUX_ONDEVICE_PREPROCESSING_H_

#include <cstdint>
#include <cstdio>
#include <deque>
#include <string>
#include <unordered_map>

#include "status.h"

namespace t2aux {

// The parts of metadata.json's entry `preprocessing` that are needed here.
struct Preprocessing {
  enum class Tokens { kNone, kBytes, kCharacters };

  // What a step of a text is; none if the classifier does not read text, or metadata.json does not
  // say.
  Tokens tokens = Tokens::kNone;
  // The ids of characters, by code point; other characters have id 0.
  std::unordered_map<uint32_t, int32_t> vocabulary;
  // Steps after which a sequence is cut; 0 for none.
  int64_t max_length = 0;
};

// Reads the content of the metadata.json at `path`. Without an entry `preprocessing`, nothing
// changes.
Status ReadPreprocessing(const std::string& path, const std::string& content,
                         Preprocessing* preprocessing);

// Reads a text in UTF-8 as a stream of ids, the same as t2aux_ondevice's of a .txt file. A byte
// order mark and a line break at the end are left out.
class Text {
 public:
  // Both must stay while this is used.
  Text(const Preprocessing& preprocessing, FILE* file)
      : preprocessing_(preprocessing), file_(file) {}

  // Gives the next id; `found` is false after the end. A text without a visible character is an
  // error.
  Status Next(int32_t* id, bool* found);
  // Whether a character that is not white space was read.
  bool visible() const { return visible_; }

 private:
  int Byte();
  void LookAhead();
  Status Character(std::string* bytes, uint32_t* code);

  const Preprocessing& preprocessing_;
  FILE* file_;
  // What was read ahead: a line break and what follows it.
  std::string ahead_;
  bool ended_ = false, begun_ = false, visible_ = false;
  // The remaining ids of a character.
  std::deque<int32_t> ids_;
};

}  // namespace t2aux

#endif  // T2AUX_ONDEVICE_PREPROCESSING_H_
