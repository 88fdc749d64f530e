// Classifies a sequence from a file or standard input with a .tflite file that `t2aux export` made.

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <climits>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <initializer_list>
#include <memory>
#include <string>
#include <type_traits>
#include <vector>

#include "classifier.h"

namespace {

using t2aux::Classifier;
using t2aux::Preprocessing;
using t2aux::State;
using t2aux::Status;
using t2aux::Text;

constexpr char kUsage[] =
    "usage: classify [options] MODEL.tflite [SEQUENCE], or ... MODEL.tflite < SEQUENCE\n"
    "\n"
    "Prints the number of steps read and a probability for each class. MODEL.tflite is\n"
    "classifier.tflite or classifier_stream.tflite of an export, in any variant, with the "
    "export's\n"
    "metadata.json beside it. The streaming file reads sequences of any length in constant "
    "memory.\n"
    "A sequence is cut at metadata.json's max_length. Options may be anywhere, but not after --.\n"
    "\n"
    "  --input=text   numbers with white space or commas between them (the default)\n"
    "  --input=raw    little-endian float32 for real values, int32 for ids\n"
    "  --input=bytes  uint8 pixels, which are scaled to [0, 1]; or a text in UTF-8\n"
    "  --segment=N    steps that the streaming file reads at once (28)\n"
    "  --every        print after each segment, not only at the end\n"
    "  --verbose      let LiteRT note what it does on stderr\n";

constexpr long kMaxSegment = 1 << 20;
// Steps of a whole sequence are all in memory.
constexpr size_t kMaxValues = size_t{1} << 26;

enum class Format { kText, kRaw, kBytes };

struct Options {
  std::string model;
  std::string input;  // Empty: standard input.
  Format format = Format::kText;
  long segment = 28;
  bool segment_given = false;
  bool every = false;
  bool verbose = false;
  bool help = false;
};

// Reads the values of a sequence from a file.
template <typename T>
class Values {
 public:
  // Both must stay while this is used.
  Values(FILE* file, Format format, const Classifier& classifier)
      : file_(file), format_(format), text_(classifier.preprocessing(), file) {
    const int64_t most = classifier.preprocessing().max_length;
    if (most > 0 && static_cast<uint64_t>(most) < left_ / classifier.channels()) {
      left_ = static_cast<size_t>(most) * classifier.channels();
    }
  }

  // Reads up to `count` values; fewer only at the end of the file, or where the sequence is cut.
  Status Read(size_t count, std::vector<T>* values) {
    values->clear();
    bool found = true;
    while (found && left_ > 0 && values->size() < count) {
      T value;
      Status status = Next(&value, &found);
      if (!status.ok()) return status;
      if (found) {
        values->push_back(value);
        --left_;
      }
    }
    return Status();
  }

  // After all was read: whether the file has more, which is cut.
  Status ReadBeyond(bool* more) {
    T value;
    Status status = Next(&value, more);
    // A visible character may come after the cut.
    bool found = *more;
    while (status.ok() && found && IsText() && !text_.visible()) status = Next(&value, &found);
    return status;
  }

 private:
  bool IsText() const { return std::is_integral_v<T> && format_ == Format::kBytes; }

  Status Next(T* value, bool* found) {
    Status status;
    if (format_ == Format::kText) {
      status = ReadNumber(value, found);
    } else if constexpr (std::is_integral_v<T>) {
      status = IsText() ? text_.Next(value, found) : Decode(value, found);
    } else {
      status = Decode(value, found);
    }
    if (std::ferror(file_)) {
      return Status::Error(std::string("Can't read the input (") + std::strerror(errno) + ").");
    }
    return status;
  }

  static bool Separates(int c) { return c == ',' || c == ' ' || (c >= '\t' && c <= '\r'); }

  Status ReadNumber(T* value, bool* found) {
    char text[kLongestNumber + 1];
    size_t size = 0;
    int c;
    do {
      c = std::getc(file_);
      // An empty cell of a table would shift all later values.
      if (c == ',' && wants_value_) return Missing();
      if (c == ',' || c == '\n') wants_value_ = true;
    } while (Separates(c));
    for (; c != EOF && !Separates(c); c = std::getc(file_)) {
      if (size == kLongestNumber) return NoNumber(std::string(text, size) + "...");
      text[size++] = static_cast<char>(c);
    }
    *found = size > 0;
    if (!*found) return Status();
    wants_value_ = c == ',' || c == '\n';
    text[size] = '\0';
    char* end;
    if constexpr (std::is_integral_v<T>) {
      errno = 0;
      const long long number = std::strtoll(text, &end, 10);
      if (end != text + size) return NoNumber(std::string(text, size));
      if (errno || number < INT32_MIN || number > INT32_MAX) {
        return Status::Error(std::string("The sequence holds the id ") + text +
                             ", which is none of the vocabulary.");
      }
      *value = static_cast<T>(number);
    } else {
      *value = std::strtof(text, &end);  // Infinite if it is too large, which is refused.
      if (end != text + size) return NoNumber(std::string(text, size));
    }
    return Status();
  }

  Status Missing() const {
    return Status::Error(std::string("The input holds a comma without ") +
                         (std::is_integral_v<T> ? "an id" : "a number") +
                         " before it: fill in the missing value.");
  }

  Status NoNumber(const std::string& text) const {
    std::string shown;
    for (unsigned char c : text) shown += c >= ' ' && c < 127 ? static_cast<char>(c) : '?';
    return Status::Error("The input holds \"" + shown + "\" where " +
                         (std::is_integral_v<T> ? "an id" : "a number") +
                         " belongs: correct it, or name its format by --input.");
  }

  // One value of binary input.
  Status Decode(T* value, bool* found) {
    unsigned char bytes[4];
    const size_t wanted = format_ == Format::kBytes ? 1 : 4;
    const size_t count = std::fread(bytes, 1, wanted, file_);
    *found = count == wanted;
    if (!*found) {
      return count == 0 || std::ferror(file_)
                 ? Status()
                 : Status::Error("The input ends within a value: it is cut, or of another type.");
    }
    if (format_ == Format::kBytes) {
      *value = static_cast<T>(bytes[0] / 255.0f);
    } else {
      const uint32_t bits = uint32_t{bytes[0]} | uint32_t{bytes[1]} << 8 |
                            uint32_t{bytes[2]} << 16 | uint32_t{bytes[3]} << 24;
      std::memcpy(value, &bits, sizeof(bits));
    }
    return Status();
  }

  static constexpr size_t kLongestNumber = 60;

  FILE* file_;
  Format format_;
  Text text_;
  // Values until the sequence is cut.
  size_t left_ = SIZE_MAX;
  // Whether a value must come before the next comma: at the beginning of a line, and after a comma.
  bool wants_value_ = true;
};

Status Print(int64_t steps, const std::vector<float>& probabilities) {
  std::printf("%lld", static_cast<long long>(steps));
  for (float p : probabilities) std::printf(" %.7f", p);
  std::printf("\n");
  if (std::fflush(stdout) != 0) {
    return Status::Error(std::string("Can't write the answer (") + std::strerror(errno) + ").");
  }
  return Status();
}

template <typename T>
Status ClassifyWhole(Classifier* classifier, Values<T> input, bool* cut) {
  std::vector<T> sequence;
  // One more than a sequence has, so that a longer one is noticed.
  const size_t most =
      classifier->length() ? size_t(classifier->length()) * classifier->channels() : kMaxValues;
  Status status = input.Read(most + 1, &sequence);
  if (!status.ok()) return status;
  if (sequence.size() > most) {
    return Status::Error(classifier->length() ? "The sequence is longer than the " +
                                                    std::to_string(classifier->length()) +
                                                    " steps that the classifier reads."
                                              : "The sequence is too long to be read at once: give "
                                                "classifier_stream.tflite of the export.");
  }
  status = input.ReadBeyond(cut);
  if (!status.ok()) return status;
  std::vector<float> probabilities;
  status = classifier->Classify(sequence, &probabilities);
  if (!status.ok()) return status;
  return Print(static_cast<int64_t>(sequence.size()) / classifier->channels(), probabilities);
}

template <typename T>
Status ClassifyStream(Classifier* classifier, Values<T> input, size_t segment, bool every,
                      bool* cut) {
  State state = classifier->InitialState();
  std::vector<T> values;
  std::vector<float> probabilities;
  const size_t count = segment * classifier->channels();
  do {
    Status status = input.Read(count, &values);
    // A sequence may end with a segment, but it has at least one.
    if (status.ok() && values.empty() && state.steps > 0) break;
    if (status.ok()) status = classifier->Step(values, &state, &probabilities);
    if (status.ok() && every) status = Print(state.steps, probabilities);
    if (!status.ok()) return status;
  } while (values.size() == count);
  Status status = input.ReadBeyond(cut);
  return every || !status.ok() ? status : Print(state.steps, probabilities);
}

template <typename T>
Status ClassifyInput(Classifier* classifier, const Options& options, FILE* file, bool* cut) {
  Values<T> input(file, options.format, *classifier);
  return classifier->streams()
             ? ClassifyStream<T>(classifier, input, options.segment, options.every, cut)
             : ClassifyWhole<T>(classifier, input, cut);
}

// Whether a file's suffix is of a file with many texts, or without any.
bool IsNoText(const std::string& name) {
  const size_t dot = name.find_last_of("./");
  if (dot == std::string::npos || name[dot] == '/') return false;
  std::string suffix = name.substr(dot + 1);
  for (char& c : suffix) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  for (const char* other : {"csv", "tsv", "json", "jsonl", "parquet", "xlsx", "ods", "zip", "tar",
                            "gz", "tgz", "bz2", "xz", "npz", "npy", "pdf", "docx", "odt"}) {
    if (suffix == other) return true;
  }
  return false;
}

// Classifies, and writes remarks to `notes`.
Status Run(const Options& options, FILE* notes) {
  std::unique_ptr<Classifier> classifier;
  Status status = Classifier::Load(options.model, options.verbose, &classifier);
  if (!status.ok()) return status;
  if (!classifier->streams() && (options.every || options.segment_given)) {
    return Status::Error(options.model +
                         " is for whole sequences: leave --segment and --every out, or give "
                         "classifier_stream.tflite of the export.");
  }
  const Preprocessing& preprocessing = classifier->preprocessing();
  if (classifier->reads_ids() && options.format == Format::kBytes &&
      preprocessing.tokens == Preprocessing::Tokens::kNone) {
    return Status::Error("The metadata.json beside " + options.model +
                         " does not say how a text becomes ids: copy it again from the export, or "
                         "give the ids.");
  }
  if (classifier->reads_ids() && options.format == Format::kBytes && IsNoText(options.input)) {
    return Status::Error(options.input +
                         " is a table, an archive or a document: give one text, in UTF-8.");
  }
  FILE* file = options.input.empty() ? stdin : std::fopen(options.input.c_str(), "rb");
  if (!file) {
    return Status::Error("Can't read " + options.input + " (" + std::strerror(errno) + ").");
  }
  bool cut = false;
  status = classifier->reads_ids() ? ClassifyInput<int32_t>(classifier.get(), options, file, &cut)
                                   : ClassifyInput<float>(classifier.get(), options, file, &cut);
  if (file != stdin) std::fclose(file);
  if (status.ok() && cut) {
    std::fprintf(notes, "classify: the input was cut after %lld steps, the classifier's longest.\n",
                 static_cast<long long>(preprocessing.max_length));
  }
  return status;
}

// The edit distance of two words.
size_t Distance(const std::string& a, const std::string& b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t changed = diagonal + (a[i - 1] != b[j - 1]);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, changed});
    }
  }
  return row[b.size()];
}

Status UnknownOption(const std::string& name) {
  std::string nearest;
  size_t least = 4;
  for (const char* known : {"--input", "--segment", "--every", "--verbose", "--help"}) {
    const size_t distance = Distance(name, known);
    if (distance < least) {
      least = distance;
      nearest = known;
    }
  }
  return Status::Error("Unknown option " + name +
                       (nearest.empty() ? ": --help lists the options."
                                        : ": did you mean " + nearest + "?"));
}

Status ParseInput(const std::string& value, Options* options) {
  if (value == "text") {
    options->format = Format::kText;
  } else if (value == "raw") {
    options->format = Format::kRaw;
  } else if (value == "bytes") {
    options->format = Format::kBytes;
  } else {
    return Status::Error("--input is '" + value + "': give text, raw or bytes.");
  }
  return Status();
}

Status ParseSegment(const std::string& value, Options* options) {
  char* end;
  options->segment = std::strtol(value.c_str(), &end, 10);
  options->segment_given = true;
  if (value.empty() || *end != '\0' || options->segment < 1 ||
      options->segment > kMaxSegment) {
    return Status::Error("--segment is '" + value + "': give a whole number from 1 to " +
                         std::to_string(kMaxSegment) + ".");
  }
  return Status();
}

// Reads the command line: options before, between and after the model and the input.
Status Parse(int count, char** arguments, Options* options) {
  std::vector<std::string> files;
  bool ended = false;
  for (int i = 1; i < count; ++i) {
    const std::string argument = arguments[i];
    if (ended || argument.empty() || argument[0] != '-') {
      files.push_back(argument);
      continue;
    }
    const size_t equals = argument.find('=');
    const std::string name = argument.substr(0, equals);
    if (name == "--input" || name == "--segment") {
      if (equals == std::string::npos && i + 1 == count) {
        return Status::Error(name + " has no value: write " + name + "=VALUE.");
      }
      const std::string value =
          equals == std::string::npos ? arguments[++i] : argument.substr(equals + 1);
      Status status =
          name == "--input" ? ParseInput(value, options) : ParseSegment(value, options);
      if (!status.ok()) return status;
    } else if (argument == "--") {
      ended = true;
    } else if (argument == "--every") {
      options->every = true;
    } else if (argument == "--verbose") {
      options->verbose = true;
    } else if (argument == "--help" || argument == "-h") {
      options->help = true;
    } else if (name == "--every" || name == "--verbose" || name == "--help") {
      return Status::Error(name + " takes no value: write it without =.");
    } else {
      return UnknownOption(name);
    }
  }
  if (options->help) return Status();
  if (files.empty() || files[0].empty()) {
    return Status::Error("Give a model, a .tflite file: --help says more.");
  }
  if (files.size() > 2) {
    return Status::Error("Give one model and one sequence, and not also " + files[2] + ".");
  }
  options->model = files[0];
  if (files.size() == 2) {
    options->input = files[1];
    if (options->input.empty()) return Status::Error("The sequence's file has an empty name.");
  }
  return Status();
}

// Hides what LiteRT writes to stderr; returns a file that still writes to it.
FILE* QuietStderr() {
  const int kept = dup(STDERR_FILENO);
  const int nowhere = open("/dev/null", O_WRONLY);
  FILE* errors = kept < 0 ? nullptr : fdopen(kept, "w");
  if (!errors || nowhere < 0) return stderr;
  dup2(nowhere, STDERR_FILENO);
  close(nowhere);
  return errors;
}

}  // namespace

int main(int count, char** arguments) {
  Options options;
  const Status parsed = Parse(count, arguments, &options);
  if (!parsed.ok()) {
    std::fprintf(stderr, "classify: error: %s\n", parsed.sentence().c_str());
    return 2;
  }
  if (options.help) {
    std::fputs(kUsage, stdout);
    return 0;
  }
  FILE* errors = options.verbose ? stderr : QuietStderr();
  const Status status = Run(options, errors);
  if (!status.ok()) std::fprintf(errors, "classify: error: %s\n", status.sentence().c_str());
  return status.ok() ? 0 : 1;
}
