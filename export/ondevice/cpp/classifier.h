// Classifies sequences with a .tflite file that `t2aux export` made, through LiteRT's C API.

#ifndef T2AUX_ONDEVICE_CLASSIFIER_H_
#define T2AUX_ONDEVICE_CLASSIFIER_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "preprocessing.h"
#include "status.h"

namespace t2aux {

// The state after the steps that a classifier has read.
struct State {
  // One for each input of the file but the segment, in its order: h and c of an LSTM, h of a GRU.
  std::vector<std::vector<float>> tensors;
  int64_t steps = 0;
};

// A classifier in the whole-sequence form (classifier.tflite) or the streaming form
// (classifier_stream.tflite), in any variant. Not to be used by two threads at once; several
// sequences may be read in turns, each with its own state.
class Classifier {
 public:
  // Loads a file. The export's metadata.json must lie beside it: it holds the file's SHA-256, and
  // LiteRT may crash on a damaged file. Where `verbose`, LiteRT logs to stderr.
  static Status Load(const std::string& path, bool verbose,
                     std::unique_ptr<Classifier>* classifier);
  ~Classifier();
  Classifier(const Classifier&) = delete;
  Classifier& operator=(const Classifier&) = delete;

  // Whether a sequence may come in segments.
  bool streams() const;
  // Whether a step is an id, int32, rather than `channels()` values, float32.
  bool reads_ids() const;
  // Values of a step; 1 for ids.
  int channels() const;
  // Steps of every sequence; 0 where it may be any number, as it always may in segments.
  int length() const;
  int classes() const;
  // The preprocessing in metadata.json.
  const Preprocessing& preprocessing() const;

  // Classifies a whole sequence: its steps one after the other, `channels()` values each, as the
  // network reads them (pixels in [0, 1]). Gives a probability for each class, in the order of
  // metadata.json's. An error leaves `probabilities` as they were.
  Status Classify(const std::vector<float>& sequence, std::vector<float>* probabilities);
  Status Classify(const std::vector<int32_t>& sequence, std::vector<float>* probabilities);

  // The state before the first step.
  State InitialState() const;
  // Reads the next steps of a sequence, any number of them. Gives the probabilities so far. In the
  // streaming form only. An error leaves the state as it was, too.
  Status Step(const std::vector<float>& segment, State* state, std::vector<float>* probabilities);
  Status Step(const std::vector<int32_t>& segment, State* state, std::vector<float>* probabilities);

 private:
  class Model;

  explicit Classifier(std::unique_ptr<Model> model);

  std::unique_ptr<Model> model_;
};

}  // namespace t2aux

#endif  // T2AUX_ONDEVICE_CLASSIFIER_H_
