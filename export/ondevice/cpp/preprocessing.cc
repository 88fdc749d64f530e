#include "preprocessing.h"

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <vector>

namespace t2aux {
namespace {

constexpr uint32_t kByteOrderMark = 0xfeff;

bool IsSurrogate(uint32_t code) { return code >= 0xd800 && code < 0xe000; }

// Reads the rest of a character in UTF-8 whose first byte is `lead`; `next` gives bytes, or EOF.
// False if it is invalid.
template <typename Next>
bool DecodeUtf8(int lead, Next next, uint32_t* code) {
  constexpr uint32_t kLeast[] = {0, 0x80, 0x800, 0x10000};
  const int more = lead < 0x80 ? 0 : lead < 0xc0 ? -1 : lead < 0xe0 ? 1 : lead < 0xf0 ? 2 : 3;
  if (more < 0 || lead > 0xf4) return false;
  *code = more == 0 ? lead : lead & (0x3f >> more);
  for (int i = 0; i < more; ++i) {
    const int byte = next();
    if (byte == EOF || (byte & 0xc0) != 0x80) return false;
    *code = *code << 6 | (byte & 0x3f);
  }
  return *code >= kLeast[more] && *code <= 0x10ffff && !IsSurrogate(*code);
}

// White space as in Python's str.isspace.
bool IsSpace(uint32_t code) {
  return (code >= 0x09 && code <= 0x0d) || (code >= 0x1c && code <= 0x20) || code == 0x85 ||
         code == 0xa0 || code == 0x1680 || (code >= 0x2000 && code <= 0x200a) || code == 0x2028 ||
         code == 0x2029 || code == 0x202f || code == 0x205f || code == 0x3000;
}

// Reads JSON from its beginning on. Every function reads one value, and is false if that is of
// another kind.
class Json {
 public:
  explicit Json(const std::string& text) : text_(text) {}

  // `read(name)` must read the value of each member.
  template <typename Read>
  bool Object(Read read) {
    return Nested('{', '}', [&] {
      std::u32string name;
      return String(&name) && Take(':') && read(name);
    });
  }

  // `read()` must read each element.
  template <typename Read>
  bool Array(Read read) {
    return Nested('[', ']', read);
  }

  bool String(std::u32string* value) {
    if (!Take('"')) return false;
    value->clear();
    for (int c = Byte(); c != '"'; c = Byte()) {
      uint32_t code;
      if (c < ' ' || !(c == '\\' ? Escaped(&code) : DecodeUtf8(c, [&] { return Byte(); }, &code))) {
        return false;
      }
      value->push_back(code);
    }
    return true;
  }

  // A whole number from 0 on, or null, which is 0.
  bool NumberOrNull(int64_t* value) {
    *value = 0;
    const std::string word = Word();
    if (word == "null") return true;
    errno = 0;
    char* end;
    *value = std::strtoll(word.c_str(), &end, 10);
    return !word.empty() && *end == '\0' && *value >= 0 && errno == 0;
  }

  bool IsNull() {
    const size_t before = at_;
    if (Word() == "null") return true;
    at_ = before;
    return false;
  }

  // A value of any kind.
  bool Skip() {
    std::u32string ignored;
    switch (Peek()) {
      case '{':
        return Object([&](const std::u32string&) { return Skip(); });
      case '[':
        return Array([&] { return Skip(); });
      case '"':
        return String(&ignored);
      default:
        return !Word().empty();
    }
  }

  bool AtEnd() { return Peek() == EOF; }

 private:
  // Deeper ones would overflow the stack.
  static constexpr int kDeepest = 100;

  int Byte() { return at_ < text_.size() ? static_cast<unsigned char>(text_[at_++]) : EOF; }

  // The next byte after white space.
  int Peek() {
    at_ = std::min(text_.find_first_not_of(" \t\r\n", at_), text_.size());
    return at_ < text_.size() ? static_cast<unsigned char>(text_[at_]) : EOF;
  }

  bool Take(char c) {
    if (Peek() != c) return false;
    ++at_;
    return true;
  }

  template <typename Read>
  bool Nested(char begin, char end, Read read) {
    if (depth_ == kDeepest || !Take(begin)) return false;
    ++depth_;
    bool ok = true;
    if (Peek() != end) {
      do {
        ok = read();
      } while (ok && Take(','));
    }
    --depth_;
    return ok && Take(end);
  }

  // A number, true, false or null.
  std::string Word() {
    Peek();
    const size_t begin = at_;
    while (at_ < text_.size() && (std::isalnum(static_cast<unsigned char>(text_[at_])) ||
                                  text_[at_] == '+' || text_[at_] == '-' || text_[at_] == '.')) {
      ++at_;
    }
    return text_.substr(begin, at_ - begin);
  }

  // What follows a backslash.
  bool Escaped(uint32_t* code) {
    const int c = Byte();
    if (c == 'u') return Hexadecimal(code) && Paired(code);
    constexpr char kNames[] = "\"\\/bfnrt", kMeant[] = "\"\\/\b\f\n\r\t";
    const char* found = c > 0 ? std::strchr(kNames, c) : nullptr;
    if (found) *code = kMeant[found - kNames];
    return found != nullptr;
  }

  bool Hexadecimal(uint32_t* code) {
    const std::string digits = text_.substr(std::min(at_, text_.size()), 4);
    if (digits.size() != 4 || digits.find_first_not_of("0123456789abcdefABCDEF") != digits.npos) {
      return false;
    }
    at_ += 4;
    *code = std::strtoul(digits.c_str(), nullptr, 16);
    return true;
  }

  // Takes the second half of a character that JSON writes as two.
  bool Paired(uint32_t* code) {
    if (*code >= 0xd800 && *code < 0xdc00 && text_.compare(at_, 2, "\\u") == 0) {
      const size_t before = at_;
      uint32_t low;
      at_ += 2;
      if (!Hexadecimal(&low)) return false;
      if (low >= 0xdc00 && low < 0xe000) {
        *code = 0x10000 + ((*code - 0xd800) << 10) + (low - 0xdc00);
      } else {
        at_ = before;
      }
    }
    return true;
  }

  const std::string& text_;
  size_t at_ = 0;
  int depth_ = 0;
};

struct Entries {
  std::u32string tokens;
  std::vector<std::u32string> vocabulary;
  int64_t max_length = 0;
};

bool ReadEntries(Json* json, Entries* entries) {
  return json->Object([&](const std::u32string& name) {
    if (name == U"max_length") return json->NumberOrNull(&entries->max_length);
    if (name == U"tokens") return json->IsNull() || json->String(&entries->tokens);
    if (name != U"vocabulary") return json->Skip();
    return json->IsNull() || json->Array([&] {
      entries->vocabulary.emplace_back();
      return json->String(&entries->vocabulary.back());
    });
  });
}

}  // namespace

Status ReadPreprocessing(const std::string& path, const std::string& content,
                         Preprocessing* preprocessing) {
  Json json(content);
  Entries entries;
  const bool whole = json.Object([&](const std::u32string& name) {
    return name == U"preprocessing" ? ReadEntries(&json, &entries) : json.Skip();
  });
  if (!whole || !json.AtEnd()) {
    return Status::Error(path +
                         " is damaged: it is not JSON with an export's entries; copy it again "
                         "from the export.");
  }
  const bool characters = entries.tokens == U"characters";
  bool fits = characters != entries.vocabulary.empty();
  fits &= characters || entries.tokens == U"bytes" || entries.tokens.empty();
  preprocessing->vocabulary.clear();
  for (const std::u32string& character : entries.vocabulary) {
    const int32_t id = static_cast<int32_t>(preprocessing->vocabulary.size());
    fits &= character.size() == 1 && preprocessing->vocabulary.emplace(character[0], id).second;
    if (!fits) break;
  }
  if (!fits) {
    return Status::Error(path +
                         " is damaged in its entry `preprocessing`: its tokens and its "
                         "vocabulary don't agree; copy it again from the export.");
  }
  using Tokens = Preprocessing::Tokens;
  preprocessing->tokens = characters               ? Tokens::kCharacters
                          : entries.tokens.empty() ? Tokens::kNone
                                                   : Tokens::kBytes;
  preprocessing->max_length = entries.max_length;
  return Status();
}

Status Text::Next(int32_t* id, bool* found) {
  if (ids_.empty()) {
    std::string bytes;
    uint32_t code = 0;
    Status status = Character(&bytes, &code);
    if (status.ok() && !begun_ && code == kByteOrderMark) status = Character(&bytes, &code);
    begun_ = true;
    if (!status.ok()) return status;
    *found = !bytes.empty();
    if (!*found) {
      return visible_ || std::ferror(file_)
                 ? Status()
                 : Status::Error("The text is empty: give at least one visible character.");
    }
    if (code == 0) {
      return Status::Error("The input is not a text in UTF-8 (it holds NUL bytes): convert it.");
    }
    visible_ = visible_ || !IsSpace(code);
    if (preprocessing_.tokens == Preprocessing::Tokens::kBytes) {
      for (unsigned char byte : bytes) ids_.push_back(byte);
    } else {
      const auto found = preprocessing_.vocabulary.find(code);
      ids_.push_back(found == preprocessing_.vocabulary.end() ? 0 : found->second);
    }
  }
  *found = true;
  *id = ids_.front();
  ids_.pop_front();
  return Status();
}

// Reads a character; no bytes at the end.
Status Text::Character(std::string* bytes, uint32_t* code) {
  bytes->clear();
  const auto next = [&] {
    const int byte = Byte();
    if (byte != EOF) bytes->push_back(static_cast<char>(byte));
    return byte;
  };
  const int lead = next();
  if (lead == EOF || DecodeUtf8(lead, next, code) || std::ferror(file_)) return Status();
  return Status::Error("The input is not a text in UTF-8: convert it.");
}

// The next byte; EOF at the end of the text, before a last line break.
int Text::Byte() {
  if (ahead_.empty()) LookAhead();
  if (ahead_ == "\n" || ahead_ == "\r") LookAhead();
  if (ahead_ == "\r\n") LookAhead();
  if (ended_ && (ahead_.empty() || ahead_ == "\n" || ahead_ == "\r" || ahead_ == "\r\n")) {
    return EOF;
  }
  const int byte = static_cast<unsigned char>(ahead_[0]);
  ahead_.erase(0, 1);
  return byte;
}

void Text::LookAhead() {
  const int c = ended_ ? EOF : std::getc(file_);
  if (c == EOF) {
    ended_ = true;
  } else {
    ahead_.push_back(static_cast<char>(c));
  }
}

}  // namespace t2aux
