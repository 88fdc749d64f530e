#include "classifier.h"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <type_traits>

#include "litert_api.h"
#include "sha256.h"

namespace t2aux {
namespace {

constexpr char kMending[] = ": copy it again from the export, or export again.";
constexpr char kMetadata[] = "metadata.json";
constexpr char kWhole[] =
    "The file is for whole sequences: give classifier_stream.tflite of the export.";
// A step's values and the steps of a call are LiteRT's ints.
constexpr size_t kMostValues = size_t{1} << 28;

// Owns what LiteRT made.
template <auto destroy>
struct Destroy {
  template <typename T>
  void operator()(T* made) const {
    destroy(made);
  }
};
template <typename Handle, auto destroy>
using Owned = std::unique_ptr<std::remove_pointer_t<Handle>, Destroy<destroy>>;

using OwnedEnvironment = Owned<LiteRtEnvironment, LiteRtDestroyEnvironment>;
using OwnedModel = Owned<LiteRtModel, LiteRtDestroyModel>;
using OwnedOptions = Owned<LiteRtOptions, LiteRtDestroyOptions>;
using OwnedCompiledModel = Owned<LiteRtCompiledModel, LiteRtDestroyCompiledModel>;
using OwnedBuffer = Owned<LiteRtTensorBuffer, LiteRtDestroyTensorBuffer>;

// An input or an output.
struct Tensor {
  std::string name;
  LiteRtRankedTensorType type;
  OwnedBuffer buffer;

  int rank() const { return type.layout.rank; }
  int dimension(int i) const { return type.layout.dimensions[i]; }
  // Whether it is [1, size] float32; any size of at least 1.
  bool IsRow() const {
    return type.element_type == kLiteRtElementTypeFloat32 && rank() == 2 && dimension(0) == 1 &&
           dimension(1) > 0;
  }
};

using NameOf = LiteRtStatus (*)(LiteRtSignature, LiteRtParamIndex, const char**);
using TensorOf = LiteRtStatus (*)(LiteRtSignature, const char*, LiteRtTensor*);

// Reads what the inputs, or the outputs, of a signature are; false where that fails.
bool Describe(LiteRtSignature signature, LiteRtParamIndex count, NameOf name_of, TensorOf tensor_of,
              std::vector<Tensor>* tensors) {
  for (LiteRtParamIndex i = 0; i < count; ++i) {
    const char* name = nullptr;
    LiteRtTensor tensor = nullptr;
    Tensor described = {};
    if (name_of(signature, i, &name) != kLiteRtStatusOk ||
        tensor_of(signature, name, &tensor) != kLiteRtStatusOk ||
        LiteRtGetRankedTensorType(tensor, &described.type) != kLiteRtStatusOk) {
      return false;
    }
    described.name = name;
    tensors->push_back(std::move(described));
  }
  return true;
}

// Where a tensor is among others; -1 for nowhere.
int Place(const std::vector<Tensor>& tensors, const char* name) {
  for (size_t i = 0; i < tensors.size(); ++i) {
    if (tensors[i].name == name) return static_cast<int>(i);
  }
  return -1;
}

Status ReadFile(const std::string& path, const std::string& missing, std::string* content) {
  std::unique_ptr<FILE, int (*)(FILE*)> file(std::fopen(path.c_str(), "rb"), std::fclose);
  if (!file) {
    if (errno == ENOENT) return Status::Error("There is no " + path + ": " + missing);
    return Status::Error("Can't read " + path + " (" + std::strerror(errno) + ").");
  }
  content->clear();
  char block[1 << 14];
  while (size_t count = std::fread(block, 1, sizeof(block), file.get())) {
    content->append(block, count);
  }
  if (std::ferror(file.get())) {
    return Status::Error("Can't read " + path + " (" + std::strerror(errno) + ").");
  }
  return Status();
}

// Reads a .tflite file, holds it against metadata.json, and reads the preprocessing there.
Status ReadModel(const std::string& path, std::string* content, Preprocessing* preprocessing) {
  Status read = ReadFile(path, "check the path.", content);
  if (!read.ok()) return read;
  if (content->empty()) return Status::Error(path + " is empty" + kMending);
  // Bytes 4 to 7 tell what is in a flatbuffer.
  if (content->size() < 8 || content->compare(4, 4, "TFL3") != 0) {
    return Status::Error(path + " is damaged or not a TensorFlow Lite file" + kMending);
  }
  const std::string beside = path.substr(0, path.find_last_of('/') + 1) + kMetadata;
  std::string metadata;
  read =
      ReadFile(beside, "copy it there from the export; it tells a damaged model from a whole one.",
               &metadata);
  if (!read.ok()) return read;
  // Wherever it stands there: the file may have been renamed.
  if (metadata.find("\"" + Sha256(*content) + "\"") == std::string::npos) {
    return Status::Error(path + " is damaged, or not a file that the " + kMetadata +
                         " beside it describes" + kMending);
  }
  return ReadPreprocessing(beside, metadata, preprocessing);
}

}  // namespace

class Classifier::Model {
 public:
  static Status Load(const std::string& path, bool verbose, std::unique_ptr<Model>* made);

  bool streams() const { return h_ >= 0; }
  const Tensor& tokens() const { return inputs_[tokens_]; }
  bool reads_ids() const { return tokens().type.element_type == kLiteRtElementTypeInt32; }
  int channels() const { return reads_ids() ? 1 : tokens().dimension(2); }
  int length() const { return steps_vary_ ? 0 : tokens().dimension(1); }
  int classes() const { return outputs_[probabilities_].dimension(1); }
  int hidden() const { return inputs_[h_].dimension(1); }
  const Preprocessing& preprocessing() const { return preprocessing_; }

  template <typename T>
  Status Run(const std::vector<T>& values, State* state, std::vector<float>* probabilities);

 private:
  Status Init(const std::string& path, bool verbose);
  Status ReadSignature();
  Status Allocate(Tensor* tensor);
  Status Resize(int steps);
  template <typename T>
  Status Check(const std::vector<T>& values, const State* state) const;
  Status Write(const Tensor& tensor, const void* values);
  Status Read(const Tensor& tensor, std::vector<float>* values);
  // LiteRT 2.3 can't load such a file: "Variable tensors not yet supported."
  Status Stateful() const {
    return Status::Error(path_ +
                         " keeps its state itself, which LiteRT's C API does not support: give "
                         "classifier_stream.tflite of the export.");
  }
  Status Failed(const char* what, LiteRtStatus status) const {
    return Status::Error("LiteRT can't " + std::string(what) + " " + path_ + " (status " +
                         std::to_string(status) + ")" + kMending);
  }

  // In the order in which they are made: the later need the earlier.
  std::string path_, content_;
  Preprocessing preprocessing_;
  OwnedEnvironment environment_;
  OwnedModel model_;
  OwnedCompiledModel compiled_;
  // In the signature's order, with the places of those that are known by name; -1 for none.
  std::vector<Tensor> inputs_, outputs_;
  int tokens_ = -1, h_ = -1, c_ = -1, new_h_ = -1, new_c_ = -1, probabilities_ = -1;
  bool steps_vary_ = false;
};

Status Classifier::Model::Load(const std::string& path, bool verbose,
                               std::unique_ptr<Model>* made) {
  auto model = std::make_unique<Model>();
  Status status = model->Init(path, verbose);
  if (status.ok()) *made = std::move(model);
  return status;
}

Status Classifier::Model::Init(const std::string& path, bool verbose) {
  path_ = path;
  Status status = ReadModel(path, &content_, &preprocessing_);
  if (!status.ok()) return status;

  LiteRtEnvOption env[2] = {};
  // Or it would look for a GPU's library, too.
  env[0].tag = kLiteRtEnvOptionTagAutoRegisterAccelerators;
  env[0].value.type = kLiteRtAnyTypeInt;
  env[0].value.int_value = kLiteRtHwAcceleratorCpu;
  env[1].tag = kLiteRtEnvOptionTagMinLoggerSeverity;
  env[1].value.type = kLiteRtAnyTypeInt;
  env[1].value.int_value = verbose ? 0 : 4;
  LiteRtEnvironment environment = nullptr;
  LiteRtStatus code = LiteRtCreateEnvironment(2, env, &environment);
  if (code != kLiteRtStatusOk) return Failed("begin for", code);
  environment_.reset(environment);

  LiteRtModel model = nullptr;
  code = LiteRtCreateModelFromBuffer(environment, content_.data(), content_.size(), &model);
  if (code == kLiteRtStatusErrorUnsupported) return Stateful();
  if (code != kLiteRtStatusOk) return Failed("load", code);
  model_.reset(model);
  status = ReadSignature();
  if (!status.ok()) return status;

  LiteRtOptions options = nullptr;
  code = LiteRtCreateOptions(&options);
  if (code != kLiteRtStatusOk) return Failed("begin for", code);
  OwnedOptions owned_options(options);
  code = LiteRtSetOptionsHardwareAccelerators(options, kLiteRtHwAcceleratorCpu);
  if (code != kLiteRtStatusOk) return Failed("begin for", code);
  LiteRtCompiledModel compiled = nullptr;
  code = LiteRtCreateCompiledModel(environment, model, options, &compiled);
  if (code != kLiteRtStatusOk) return Failed("run", code);
  compiled_.reset(compiled);

  for (std::vector<Tensor>* tensors : {&inputs_, &outputs_}) {
    for (Tensor& tensor : *tensors) {
      const bool later = &tensor == &tokens() && steps_vary_;
      if (!later) status = Allocate(&tensor);
      if (!status.ok()) return status;
    }
  }
  return Status();
}

Status Classifier::Model::ReadSignature() {
  const Status strange = Status::Error(path_ + " is no classifier that t2aux exported" + kMending);
  LiteRtParamIndex signatures = 0, inputs = 0, outputs = 0;
  LiteRtSignature signature = nullptr;
  if (LiteRtGetNumModelSignatures(model_.get(), &signatures) != kLiteRtStatusOk ||
      signatures != 1 || LiteRtGetModelSignature(model_.get(), 0, &signature) != kLiteRtStatusOk ||
      LiteRtGetNumSignatureInputs(signature, &inputs) != kLiteRtStatusOk ||
      LiteRtGetNumSignatureOutputs(signature, &outputs) != kLiteRtStatusOk ||
      !Describe(signature, inputs, LiteRtGetSignatureInputName, LiteRtGetSignatureInputTensor,
                &inputs_) ||
      !Describe(signature, outputs, LiteRtGetSignatureOutputName, LiteRtGetSignatureOutputTensor,
                &outputs_)) {
    return strange;
  }
  tokens_ = std::max(Place(inputs_, "inputs"), Place(inputs_, "segment"));
  h_ = Place(inputs_, "h");
  c_ = Place(inputs_, "c");
  new_h_ = Place(outputs_, "h");
  new_c_ = Place(outputs_, "c");
  probabilities_ = Place(outputs_, "probabilities");
  if (tokens_ < 0 || probabilities_ < 0 || !outputs_[probabilities_].IsRow()) return strange;
  if (tokens().name == "segment" && inputs == 1) return Stateful();
  const bool whole = tokens().name == "inputs" && inputs == 1 && outputs == 1;
  const bool stream = tokens().name == "segment" && inputs == 3 && outputs == 3 && h_ >= 0 &&
                      c_ >= 0 && new_h_ >= 0 && new_c_ >= 0;
  if (!whole && !stream) return strange;
  if (stream) {
    for (const Tensor* row : {&inputs_[h_], &inputs_[c_], &outputs_[new_h_], &outputs_[new_c_]}) {
      if (!row->IsRow() || row->dimension(1) != hidden()) return strange;
    }
  }
  const bool ids = reads_ids() && tokens().rank() == 2;
  const bool real = tokens().type.element_type == kLiteRtElementTypeFloat32 &&
                    tokens().rank() == 3 && tokens().dimension(2) > 0;
  if ((!ids && !real) || tokens().dimension(0) != 1) return strange;
  steps_vary_ = tokens().dimension(1) < 0;
  return whole || steps_vary_ ? Status() : strange;
}

// Makes the buffer of a tensor whose dimensions are all known.
Status Classifier::Model::Allocate(Tensor* tensor) {
  size_t bytes = sizeof(float);  // All tensors are float32 or int32.
  for (int i = 0; i < tensor->rank(); ++i) bytes *= tensor->dimension(i);
  LiteRtTensorBuffer buffer = nullptr;
  const LiteRtStatus code = LiteRtCreateManagedTensorBuffer(
      environment_.get(), kLiteRtTensorBufferTypeHostMemory, &tensor->type, bytes, &buffer);
  if (code != kLiteRtStatusOk) return Failed("find the memory for", code);
  tensor->buffer.reset(buffer);
  return Status();
}

// Makes the model read so many steps at once.
Status Classifier::Model::Resize(int steps) {
  Tensor& tokens = inputs_[tokens_];
  if (tokens.buffer && tokens.dimension(1) == steps) return Status();
  tokens.buffer.reset();
  tokens.type.layout.dimensions[1] = steps;
  const LiteRtStatus code = LiteRtCompiledModelResizeInputTensor(
      compiled_.get(), 0, tokens_, tokens.type.layout.dimensions, tokens.rank());
  if (code != kLiteRtStatusOk) return Failed("resize the input of", code);
  return Allocate(&tokens);
}

template <typename T>
Status Classifier::Model::Check(const std::vector<T>& values, const State* state) const {
  const size_t channels = this->channels();
  const std::string step = channels == 1 ? "1 value" : std::to_string(channels) + " values";
  if (std::is_integral_v<T> != reads_ids()) {
    return Status::Error(reads_ids() ? "The classifier reads ids: give integers."
                                     : "The classifier reads real numbers: give float32.");
  }
  if (values.empty()) return Status::Error("The sequence is empty: give at least one step.");
  if (values.size() % channels != 0) {
    return Status::Error("The sequence ends within a step: it has " +
                         std::to_string(values.size()) + " values, and a step has " + step + ".");
  }
  if (values.size() > kMostValues) {
    return Status::Error(
        "The sequence is too long to be read at once: give it in segments, to "
        "classifier_stream.tflite of the export.");
  }
  if (length() != 0 && values.size() / channels != static_cast<size_t>(length())) {
    return Status::Error("The sequence has " + std::to_string(values.size() / channels) +
                         " steps where the classifier reads " + std::to_string(length()) + ".");
  }
  const int64_t before = state ? state->steps : 0;
  for (size_t i = 0; i < values.size(); ++i) {
    if constexpr (std::is_floating_point_v<T>) {
      if (!std::isfinite(values[i])) {
        return Status::Error("The sequence holds NaN or an infinite value at step " +
                             std::to_string(before + static_cast<int64_t>(i / channels)) +
                             " (counted from 0): correct the data.");
      }
    } else if (values[i] < 0) {
      return Status::Error("The sequence holds the id " + std::to_string(values[i]) + " at step " +
                           std::to_string(before + static_cast<int64_t>(i)) +
                           " (counted from 0): ids begin at 0.");
    }
  }
  if (state && (state->h.size() != static_cast<size_t>(hidden()) ||
                state->c.size() != static_cast<size_t>(hidden()))) {
    return Status::Error("The state is none of this classifier: begin with InitialState().");
  }
  return Status();
}

template <typename T>
Status Classifier::Model::Run(const std::vector<T>& values, State* state,
                              std::vector<float>* probabilities) {
  static_assert(sizeof(T) == 4, "float32 or int32");
  Status status = Check(values, state);
  if (!status.ok()) return status;
  const int steps = static_cast<int>(values.size() / channels());
  if (steps_vary_) status = Resize(steps);
  if (status.ok()) status = Write(tokens(), values.data());
  if (status.ok() && state) status = Write(inputs_[h_], state->h.data());
  if (status.ok() && state) status = Write(inputs_[c_], state->c.data());
  if (!status.ok()) return status;

  LiteRtTensorBuffer in[3], out[3];
  for (size_t i = 0; i < inputs_.size(); ++i) in[i] = inputs_[i].buffer.get();
  for (size_t i = 0; i < outputs_.size(); ++i) out[i] = outputs_[i].buffer.get();
  const LiteRtStatus code =
      LiteRtRunCompiledModel(compiled_.get(), 0, inputs_.size(), in, outputs_.size(), out);
  if (code != kLiteRtStatusOk) {
    if (!reads_ids()) return Failed("run", code);
    return Status::Error("LiteRT can't run " + path_ + " on these ids (status " +
                         std::to_string(code) + "): each must be in the vocabulary.");
  }

  std::vector<float> answer;
  State next;
  status = Read(outputs_[probabilities_], &answer);
  if (status.ok() && state) status = Read(outputs_[new_h_], &next.h);
  if (status.ok() && state) status = Read(outputs_[new_c_], &next.c);
  if (!status.ok()) return status;
  for (float p : answer) {
    if (!std::isfinite(p)) {
      return Status::Error(path_ + " answers with NaN: its weights are damaged, or diverged.");
    }
  }
  if (state) {
    next.steps = state->steps + steps;
    *state = std::move(next);
  }
  *probabilities = std::move(answer);
  return Status();
}

Status Classifier::Model::Write(const Tensor& tensor, const void* values) {
  size_t bytes = sizeof(float);
  for (int i = 0; i < tensor.rank(); ++i) bytes *= tensor.dimension(i);
  void* memory = nullptr;
  LiteRtStatus code =
      LiteRtLockTensorBuffer(tensor.buffer.get(), &memory, kLiteRtTensorBufferLockModeWrite);
  if (code != kLiteRtStatusOk) return Failed("give an input to", code);
  std::memcpy(memory, values, bytes);
  code = LiteRtUnlockTensorBuffer(tensor.buffer.get());
  return code == kLiteRtStatusOk ? Status() : Failed("give an input to", code);
}

Status Classifier::Model::Read(const Tensor& tensor, std::vector<float>* values) {
  void* memory = nullptr;
  LiteRtStatus code =
      LiteRtLockTensorBuffer(tensor.buffer.get(), &memory, kLiteRtTensorBufferLockModeRead);
  if (code != kLiteRtStatusOk) return Failed("take an output of", code);
  const auto* begin = static_cast<const float*>(memory);
  values->assign(begin, begin + tensor.dimension(1));
  code = LiteRtUnlockTensorBuffer(tensor.buffer.get());
  return code == kLiteRtStatusOk ? Status() : Failed("take an output of", code);
}

Classifier::Classifier(std::unique_ptr<Model> model) : model_(std::move(model)) {}
Classifier::~Classifier() = default;

Status Classifier::Load(const std::string& path, bool verbose,
                        std::unique_ptr<Classifier>* classifier) {
  std::unique_ptr<Model> model;
  Status status = Model::Load(path, verbose, &model);
  if (status.ok()) classifier->reset(new Classifier(std::move(model)));
  return status;
}

bool Classifier::streams() const { return model_->streams(); }
bool Classifier::reads_ids() const { return model_->reads_ids(); }
int Classifier::channels() const { return model_->channels(); }
int Classifier::length() const { return model_->length(); }
int Classifier::classes() const { return model_->classes(); }
const Preprocessing& Classifier::preprocessing() const { return model_->preprocessing(); }

State Classifier::InitialState() const {
  State state;
  if (streams()) {
    state.h.assign(model_->hidden(), 0.0f);
    state.c = state.h;
  }
  return state;
}

Status Classifier::Classify(const std::vector<float>& sequence, std::vector<float>* probabilities) {
  State state = InitialState();
  return model_->Run(sequence, streams() ? &state : nullptr, probabilities);
}

Status Classifier::Classify(const std::vector<int32_t>& sequence,
                            std::vector<float>* probabilities) {
  State state = InitialState();
  return model_->Run(sequence, streams() ? &state : nullptr, probabilities);
}

Status Classifier::Step(const std::vector<float>& segment, State* state,
                        std::vector<float>* probabilities) {
  return streams() ? model_->Run(segment, state, probabilities) : Status::Error(kWhole);
}

Status Classifier::Step(const std::vector<int32_t>& segment, State* state,
                        std::vector<float>* probabilities) {
  return streams() ? model_->Run(segment, state, probabilities) : Status::Error(kWhole);
}

}  // namespace t2aux
