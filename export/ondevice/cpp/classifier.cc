#include "classifier.h"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <type_traits>
#include <utility>

#include "litert_api.h"
#include "sha256.h"

namespace t2aux {
namespace {

constexpr char kRepair[] = ": copy it again from the export, or export again.";
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
  // How many values it holds; 0 where a dimension is not known.
  size_t size() const {
    size_t size = 1;
    for (int i = 0; i < rank(); ++i) size *= std::max(dimension(i), 0);
    return size;
  }
  // Whether it is [1, ...] float32, of at least one value.
  bool IsRow() const {
    return type.element_type == kLiteRtElementTypeFloat32 && dimension(0) == 1 && size() > 0;
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

// A tensor's index among others; -1 for none.
int Place(const std::vector<Tensor>& tensors, const std::string& name) {
  for (size_t i = 0; i < tensors.size(); ++i) {
    if (tensors[i].name == name) return static_cast<int>(i);
  }
  return -1;
}

Status ReadFile(const std::string& path, const std::string& missing, std::string* content) {
  std::unique_ptr<FILE, int (*)(FILE*)> file(std::fopen(path.c_str(), "rb"), std::fclose);
  if (!file) {
    if (errno == ENOENT) return Status::Error("Can't find " + path + ": " + missing);
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

// Reads a .tflite file, checks it against metadata.json, and reads the preprocessing from that.
Status ReadModel(const std::string& path, std::string* content, Preprocessing* preprocessing) {
  Status read = ReadFile(path, "check the path.", content);
  if (!read.ok()) return read;
  if (content->empty()) return Status::Error(path + " is empty" + kRepair);
  // Bytes 4 to 7 are a flatbuffer's identifier.
  if (content->size() < 8 || content->compare(4, 4, "TFL3") != 0) {
    return Status::Error(path + " is damaged or not a TensorFlow Lite file" + kRepair);
  }
  const std::string beside = path.substr(0, path.find_last_of('/') + 1) + kMetadata;
  std::string metadata;
  read =
      ReadFile(beside, "copy it there from the export; it has the model's SHA-256.",
               &metadata);
  if (!read.ok()) return read;
  // In any entry: the file may have been renamed.
  if (metadata.find("\"" + Sha256(*content) + "\"") == std::string::npos) {
    return Status::Error(path + " is damaged, or not a file that the " + kMetadata +
                         " beside it describes" + kRepair);
  }
  return ReadPreprocessing(beside, metadata, preprocessing);
}

}  // namespace

class Classifier::Model {
 public:
  static Status Load(const std::string& path, bool verbose, std::unique_ptr<Model>* made);

  bool streams() const { return !state_.empty(); }
  const Tensor& tokens() const { return inputs_[tokens_]; }
  bool reads_ids() const { return tokens().type.element_type == kLiteRtElementTypeInt32; }
  int channels() const { return reads_ids() ? 1 : tokens().dimension(2); }
  int length() const { return steps_vary_ ? 0 : tokens().dimension(1); }
  int classes() const { return static_cast<int>(outputs_[probabilities_].size()); }
  State InitialState() const;
  const Preprocessing& preprocessing() const { return preprocessing_; }

  template <typename T>
  Status Run(const std::vector<T>& values, State* state, std::vector<float>* probabilities);

 private:
  Status Init(const std::string& path, bool verbose);
  Status ReadSignature();
  Status Allocate(Tensor* tensor);
  Status Resize(int steps);
  template <typename T>
  Status Check(const std::vector<T>& values, const State& state) const;
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
                         std::to_string(status) + ")" + kRepair);
  }

  // In the order of creation: the later need the earlier.
  std::string path_, content_;
  Preprocessing preprocessing_;
  OwnedEnvironment environment_;
  OwnedModel model_;
  OwnedCompiledModel compiled_;
  // In the signature's order, with the indices of those that are known by name; -1 for none.
  std::vector<Tensor> inputs_, outputs_;
  int tokens_ = -1, probabilities_ = -1;
  std::vector<std::pair<int, int>> state_;  // Among the inputs and the outputs.
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
  // Otherwise it would also look for a GPU's library.
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
      if (&tensor != &tokens() || !steps_vary_) status = Allocate(&tensor);
      if (!status.ok()) return status;
    }
  }
  return Status();
}

Status Classifier::Model::ReadSignature() {
  const Status strange = Status::Error(path_ + " is not a classifier that t2aux exported" + kRepair);
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
  probabilities_ = Place(outputs_, "probabilities");
  if (tokens_ < 0 || probabilities_ < 0 || !outputs_[probabilities_].IsRow()) return strange;
  const bool whole = tokens().name == "inputs";
  if (!whole && inputs == 1) return Stateful();
  // The other inputs are the state, and so are the outputs of their names.
  for (int in = 0; in < static_cast<int>(inputs_.size()); ++in) {
    if (in == tokens_) continue;
    const int out = Place(outputs_, inputs_[in].name);
    if (whole || out < 0 || out == probabilities_ || !inputs_[in].IsRow() ||
        !outputs_[out].IsRow() || inputs_[in].size() != outputs_[out].size()) {
      return strange;
    }
    state_.emplace_back(in, out);
  }
  if (outputs_.size() != state_.size() + 1) return strange;
  const bool ids = reads_ids() && tokens().rank() == 2;
  const bool real = tokens().type.element_type == kLiteRtElementTypeFloat32 &&
                    tokens().rank() == 3 && tokens().dimension(2) > 0;
  if ((!ids && !real) || tokens().dimension(0) != 1) return strange;
  steps_vary_ = tokens().dimension(1) < 0;
  return whole || steps_vary_ ? Status() : strange;
}

// Makes the buffer of a tensor whose dimensions are all known.
Status Classifier::Model::Allocate(Tensor* tensor) {
  const size_t bytes = sizeof(float) * tensor->size();  // All tensors are float32 or int32.
  LiteRtTensorBuffer buffer = nullptr;
  const LiteRtStatus code = LiteRtCreateManagedTensorBuffer(
      environment_.get(), kLiteRtTensorBufferTypeHostMemory, &tensor->type, bytes, &buffer);
  if (code != kLiteRtStatusOk) return Failed("find the memory for", code);
  tensor->buffer.reset(buffer);
  return Status();
}

// Resizes the model's input to so many steps.
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
Status Classifier::Model::Check(const std::vector<T>& values, const State& state) const {
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
  for (size_t i = 0; i < values.size(); ++i) {
    if constexpr (std::is_floating_point_v<T>) {
      if (!std::isfinite(values[i])) {
        return Status::Error("The sequence holds NaN or an infinite value at step " +
                             std::to_string(state.steps + static_cast<int64_t>(i / channels)) +
                             " (counted from 0): correct the data.");
      }
    } else if (values[i] < 0) {
      return Status::Error("The sequence holds the id " + std::to_string(values[i]) + " at step " +
                           std::to_string(state.steps + static_cast<int64_t>(i)) +
                           " (counted from 0): ids begin at 0.");
    }
  }
  bool own = state.tensors.size() == state_.size();
  for (size_t i = 0; own && i < state_.size(); ++i) {
    own = state.tensors[i].size() == inputs_[state_[i].first].size();
  }
  if (own) return Status();
  return Status::Error("The state is not one of this classifier's: begin with InitialState().");
}

template <typename T>
Status Classifier::Model::Run(const std::vector<T>& values, State* state,
                              std::vector<float>* probabilities) {
  static_assert(sizeof(T) == 4, "float32 or int32");
  Status status = Check(values, *state);
  if (!status.ok()) return status;
  const int steps = static_cast<int>(values.size() / channels());
  if (steps_vary_) status = Resize(steps);
  if (status.ok()) status = Write(tokens(), values.data());
  for (size_t i = 0; status.ok() && i < state_.size(); ++i) {
    status = Write(inputs_[state_[i].first], state->tensors[i].data());
  }
  if (!status.ok()) return status;

  std::vector<LiteRtTensorBuffer> in, out;
  for (const Tensor& tensor : inputs_) in.push_back(tensor.buffer.get());
  for (const Tensor& tensor : outputs_) out.push_back(tensor.buffer.get());
  const LiteRtStatus code =
      LiteRtRunCompiledModel(compiled_.get(), 0, in.size(), in.data(), out.size(), out.data());
  if (code != kLiteRtStatusOk) {
    if (!reads_ids()) return Failed("run", code);
    return Status::Error("LiteRT can't run " + path_ + " on these ids (status " +
                         std::to_string(code) + "): each must be in the vocabulary.");
  }

  std::vector<float> answer;
  State next = InitialState();
  status = Read(outputs_[probabilities_], &answer);
  for (size_t i = 0; status.ok() && i < state_.size(); ++i) {
    status = Read(outputs_[state_[i].second], &next.tensors[i]);
  }
  if (!status.ok()) return status;
  for (float p : answer) {
    if (!std::isfinite(p)) {
      return Status::Error(path_ + " answers with NaN: its weights are damaged, or diverged.");
    }
  }
  next.steps = state->steps + steps;
  *state = std::move(next);
  *probabilities = std::move(answer);
  return Status();
}

State Classifier::Model::InitialState() const {
  State state;
  for (auto [in, out] : state_) state.tensors.emplace_back(inputs_[in].size(), 0.0f);
  return state;
}

Status Classifier::Model::Write(const Tensor& tensor, const void* values) {
  void* memory = nullptr;
  LiteRtStatus code =
      LiteRtLockTensorBuffer(tensor.buffer.get(), &memory, kLiteRtTensorBufferLockModeWrite);
  if (code != kLiteRtStatusOk) return Failed("give an input to", code);
  std::memcpy(memory, values, sizeof(float) * tensor.size());
  code = LiteRtUnlockTensorBuffer(tensor.buffer.get());
  return code == kLiteRtStatusOk ? Status() : Failed("give an input to", code);
}

Status Classifier::Model::Read(const Tensor& tensor, std::vector<float>* values) {
  void* memory = nullptr;
  LiteRtStatus code =
      LiteRtLockTensorBuffer(tensor.buffer.get(), &memory, kLiteRtTensorBufferLockModeRead);
  if (code != kLiteRtStatusOk) return Failed("take an output of", code);
  const auto* begin = static_cast<const float*>(memory);
  values->assign(begin, begin + tensor.size());
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

State Classifier::InitialState() const { return model_->InitialState(); }

Status Classifier::Classify(const std::vector<float>& sequence, std::vector<float>* probabilities) {
  State state = InitialState();
  return model_->Run(sequence, &state, probabilities);
}

Status Classifier::Classify(const std::vector<int32_t>& sequence,
                            std::vector<float>* probabilities) {
  State state = InitialState();
  return model_->Run(sequence, &state, probabilities);
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
