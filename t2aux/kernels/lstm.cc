// The LSTM's custom ops for TensorFlow on a CPU; the computations are in the headers.

#include <sys/mman.h>

#include <mutex>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "backward.h"
#include "decode.h"
#include "forward.h"
#include "tensorflow/core/framework/common_shape_fns.h"
#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/framework/shape_inference.h"

namespace t2aux {
namespace {

namespace tf = tensorflow;
using tf::shape_inference::DimensionHandle;
using tf::shape_inference::InferenceContext;
using tf::shape_inference::ShapeHandle;

// Memory for saved activations. A training step wants the same few hundred MiB again and again, and
// fetching them from the system page by page, cleared, adds 0.7 of the step's own time (B 128, T
// 784, H 128): what is given back is kept for the next step. Where nothing kept is large enough,
// all that is kept goes back to the system first, so this never holds more than was in use at once.
class Memory {
 public:
  static Memory& get() {
    static Memory* memory = new Memory();
    return *memory;
  }

  struct Piece {
    void* data;
    size_t bytes;
  };

  Piece take(size_t bytes) {
    std::lock_guard<std::mutex> lock(mutex_);
    auto best = kept_.end();
    for (auto it = kept_.begin(); it != kept_.end(); ++it) {
      if (it->bytes >= bytes && (best == kept_.end() || it->bytes < best->bytes)) best = it;
    }
    if (best != kept_.end()) {
      Piece piece = *best;
      kept_.erase(best);
      return piece;
    }
    for (const Piece& piece : kept_) munmap(piece.data, piece.bytes);
    kept_.clear();
    constexpr size_t kHuge = size_t{2} << 20;
    bytes = (std::max<size_t>(bytes, 1) + kHuge - 1) / kHuge * kHuge;
    void* data = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (data == MAP_FAILED) throw std::bad_alloc();
#ifdef MADV_HUGEPAGE
    madvise(data, bytes, MADV_HUGEPAGE);
#endif
    return {data, bytes};
  }

  void give_back(Piece piece) {
    std::lock_guard<std::mutex> lock(mutex_);
    kept_.push_back(piece);
  }

 private:
  std::mutex mutex_;
  std::vector<Piece> kept_;
};

class SavedBuffer : public tf::TensorBuffer {
 public:
  explicit SavedBuffer(Memory::Piece piece) : TensorBuffer(piece.data), piece_(piece) {}
  ~SavedBuffer() override { Memory::get().give_back(piece_); }
  size_t size() const override { return piece_.bytes; }
  tf::TensorBuffer* root_buffer() override { return this; }
  void FillAllocationDescription(tf::AllocationDescription*) const override {}

 private:
  Memory::Piece piece_;
};

tf::Tensor saved_tensor(int64_t floats) {
  // Small ones are not worth the system's call.
  if (!is_large(floats)) return tf::Tensor(tf::DT_FLOAT, tf::TensorShape({floats}));
  tf::core::RefCountPtr<tf::TensorBuffer> buffer(
      new SavedBuffer(Memory::get().take(floats * sizeof(float))));
  return tf::Tensor(tf::DT_FLOAT, tf::TensorShape({floats}), std::move(buffer));
}

Pool pool_of(tf::OpKernelContext* context) {
  auto* workers = context->device()->tensorflow_cpu_worker_threads();
  Pool pool;
  pool.threads = workers->num_threads;
  pool.run = [workers](int count, const std::function<void(int)>& work) {
    using Threads = tf::thread::ThreadPool;
    if (count == 1) return work(0);
    // An exception must not leave a thread of TensorFlow's.
    std::atomic<bool> no_memory{false};
    workers->workers->ParallelFor(
        count, Threads::SchedulingParams(Threads::SchedulingStrategy::kFixedBlockSize, {}, 1),
        [&](int64_t begin, int64_t end) {
          for (int64_t i = begin; i < end; ++i) {
            try {
              work(static_cast<int>(i));
            } catch (const std::bad_alloc&) {
              no_memory = true;
            }
          }
        });
    if (no_memory) throw std::bad_alloc();
  };
  return pool;
}

template <class... Parts>
absl::Status invalid(const Parts&... parts) {
  return absl::InvalidArgumentError(absl::StrCat(parts...));
}

const float* floats(const tf::Tensor& t) {
  return t.NumElements() ? t.flat<float>().data() : nullptr;
}

const int32_t* ints(const tf::Tensor& t) {
  return t.NumElements() ? t.flat<int32_t>().data() : nullptr;
}

// Runs `compute`; memory that is not there is TensorFlow's error of that name.
template <class F>
void guarded(tf::OpKernelContext* context, F compute) {
  try {
    compute();
  } catch (const std::bad_alloc&) {
    context->CtxFailure(
        absl::ResourceExhaustedError("the LSTM kernel could not get the memory it needs"));
  }
}

absl::Status check_ids(const tf::Tensor& ids, int64_t vocabulary) {
  auto flat = ids.flat<int32_t>();
  for (int64_t i = 0; i < flat.size(); ++i) {
    if (flat(i) < 0 || flat(i) >= vocabulary) {
      return invalid("token id ", flat(i), " is not in [0, ", vocabulary, ")");
    }
  }
  return absl::OkStatus();
}

absl::Status check_marks(const tf::Tensor& marks, int64_t steps) {
  auto flat = marks.flat<int32_t>();
  for (int64_t i = 0; i < flat.size(); ++i) {
    if (flat(i) < 0 || flat(i) > steps) {
      return invalid("mark ", flat(i), " is not in [0, ", steps, "]");
    }
  }
  return absl::OkStatus();
}

// What the forward and the backward op have in common: x, input_kernel, recurrent_kernel, h0, c0,
// first, last, marks.
struct Inputs {
  const tf::Tensor& x;
  const tf::Tensor& input_kernel;
  const tf::Tensor& recurrent_kernel;
  const tf::Tensor& h0;
  const tf::Tensor& c0;
  const tf::Tensor& first;
  const tf::Tensor& last;
  const tf::Tensor& marks;
  bool ids;
  int steps, batch, hidden, inputs, vocabulary;

  Inputs(tf::OpKernelContext* c, int x_at, int kernel_at, int recurrent_at, int h0_at)
      : x(c->input(x_at)),
        input_kernel(c->input(kernel_at)),
        recurrent_kernel(c->input(recurrent_at)),
        h0(c->input(h0_at)),
        c0(c->input(h0_at + 1)),
        first(c->input(h0_at + 2)),
        last(c->input(h0_at + 3)),
        marks(c->input(h0_at + 4)),
        ids(x.dtype() == tf::DT_INT32) {}

  absl::Status check() {
    if (x.dims() != (ids ? 2 : 3)) {
      return invalid("x must be [T, B, D] floats or [T, B] ids, but is ", x.shape().DebugString());
    }
    if (recurrent_kernel.dims() != 2 ||
        recurrent_kernel.dim_size(1) != 4 * recurrent_kernel.dim_size(0)) {
      return invalid("recurrent_kernel must be [H, 4H], but is ",
                     recurrent_kernel.shape().DebugString());
    }
    steps = x.dim_size(0);
    batch = x.dim_size(1);
    hidden = recurrent_kernel.dim_size(0);
    if (hidden == 0) return invalid("recurrent_kernel must have at least one cell");
    inputs = ids ? 0 : x.dim_size(2);
    vocabulary = ids ? input_kernel.dim_size(0) : 0;
    if (input_kernel.dims() != 2 || input_kernel.dim_size(1) != 4 * hidden ||
        (!ids && input_kernel.dim_size(0) != inputs)) {
      return invalid("input_kernel must be [D, 4H] or a table [V, 4H], but is ",
                     input_kernel.shape().DebugString(), " with x ", x.shape().DebugString(),
                     " and H ", hidden);
    }
    for (const tf::Tensor* state : {&h0, &c0}) {
      if (state->shape() != tf::TensorShape({batch, hidden})) {
        return invalid("an initial state must be [", batch, ", ", hidden, "], but is ",
                       state->shape().DebugString());
      }
    }
    for (const tf::Tensor* bound : {&first, &last}) {
      if (bound->NumElements() != 0 && bound->shape() != tf::TensorShape({batch})) {
        return invalid("first and last must be [", batch, "] or [0], but one is ",
                       bound->shape().DebugString());
      }
    }
    if (ids) TF_RETURN_IF_ERROR(check_ids(x, vocabulary));
    return check_marks(marks, steps);
  }

  Problem problem(const Marks* sorted) const {
    Problem q;
    q.steps = steps;
    q.batch = batch;
    if (ids) {
      q.ids = ints(x);
    } else {
      q.x = floats(x);
    }
    q.h0 = floats(h0);
    q.c0 = floats(c0);
    q.first = ints(first);
    q.last = ints(last);
    q.marks = sorted;
    return q;
  }
};

class LstmOp : public tf::OpKernel {
 public:
  explicit LstmOp(tf::OpKernelConstruction* c) : OpKernel(c) {
    OP_REQUIRES_OK(c, c->GetAttr("outputs", &outputs_));
    OP_REQUIRES_OK(c, c->GetAttr("save", &save_));
  }

  void Compute(tf::OpKernelContext* c) override {
    Inputs in(c, 0, 1, 3, 4);
    OP_REQUIRES_OK(c, in.check());
    const tf::Tensor& bias = c->input(2);
    OP_REQUIRES(c, bias.NumElements() == 0 || bias.NumElements() == 4 * in.hidden,
                invalid("bias must be [4H] or [0], but is ", bias.shape().DebugString()));
    const int64_t marks = in.marks.NumElements();
    tf::Tensor *h_at, *c_at, *outputs;
    OP_REQUIRES_OK(c, c->allocate_output(0, {marks, in.batch, in.hidden}, &h_at));
    OP_REQUIRES_OK(c, c->allocate_output(1, {marks, in.batch, in.hidden}, &c_at));
    OP_REQUIRES_OK(c,
                   c->allocate_output(2, {outputs_ ? in.steps : 0, in.batch, in.hidden}, &outputs));
    guarded(c, [&] {
      tf::Tensor saved = saved_tensor(save_ ? saved_size(in.steps, in.batch, in.hidden) : 0);
      c->set_output(3, saved);
      if (in.batch == 0) return;
      Pool pool = pool_of(c);
      Marks sorted(ints(in.marks), marks);
      Cells cells = pack(floats(in.input_kernel), in.inputs, in.vocabulary, floats(bias),
                         floats(in.recurrent_kernel), in.hidden, pool);
      ForwardResult out;
      out.h_at = h_at->flat<float>().data();
      out.c_at = c_at->flat<float>().data();
      if (outputs_) out.outputs = outputs->flat<float>().data();
      if (save_) out.saved = saved.flat<float>().data();
      Problem q = in.problem(&sorted);
      // Nobody asks for what comes after the last mark.
      if (!outputs_ && !save_) q.steps = marks ? sorted.position.back() : 0;
      forward(cells, q, out, pool);
    });
  }

 private:
  bool outputs_;
  bool save_;
};

class LstmGradOp : public tf::OpKernel {
 public:
  explicit LstmGradOp(tf::OpKernelConstruction* c) : OpKernel(c) {
    OP_REQUIRES_OK(c, c->GetAttr("outputs", &outputs_));
    OP_REQUIRES_OK(c, c->GetAttr("input_gradient", &input_gradient_));
  }

  void Compute(tf::OpKernelContext* c) override {
    Inputs in(c, 0, 1, 2, 3);
    OP_REQUIRES_OK(c, in.check());
    const tf::Tensor& saved = c->input(8);
    const tf::Tensor &d_h = c->input(9), &d_c = c->input(10), &d_outputs = c->input(11);
    const int64_t marks = in.marks.NumElements();
    OP_REQUIRES(c, saved.NumElements() == saved_size(in.steps, in.batch, in.hidden),
                invalid("the forward op saved nothing for a gradient: call it with save=True"));
    const tf::TensorShape at({marks, in.batch, in.hidden});
    OP_REQUIRES(c, d_h.shape() == at && d_c.shape() == at,
                invalid("gradients of the marked states must be ", at.DebugString()));
    OP_REQUIRES(c,
                !outputs_ || d_outputs.shape() == tf::TensorShape({in.steps, in.batch, in.hidden}),
                invalid("the gradient of the outputs has shape ", d_outputs.shape().DebugString()));
    tf::Tensor* to[6];
    const bool input_gradient = input_gradient_ && !in.ids;
    tf::TensorShape x_shape =
        input_gradient ? in.x.shape() : tf::TensorShape({0, in.batch, in.inputs});
    OP_REQUIRES_OK(c, c->allocate_output(0, x_shape, &to[0]));
    OP_REQUIRES_OK(c, c->allocate_output(1, in.input_kernel.shape(), &to[1]));
    OP_REQUIRES_OK(c, c->allocate_output(2, {4 * in.hidden}, &to[2]));
    OP_REQUIRES_OK(c, c->allocate_output(3, in.recurrent_kernel.shape(), &to[3]));
    OP_REQUIRES_OK(c, c->allocate_output(4, in.h0.shape(), &to[4]));
    OP_REQUIRES_OK(c, c->allocate_output(5, in.c0.shape(), &to[5]));
    if (in.batch == 0) {
      // No sequence, no gradient.
      for (int i = 1; i < 4; ++i) to[i]->flat<float>().setZero();
      return;
    }
    guarded(c, [&] {
      Pool pool = pool_of(c);
      Marks sorted(ints(in.marks), marks);
      Cells shape;
      shape.hidden = in.hidden;
      shape.inputs = in.inputs;
      shape.panels = panels_of(in.hidden);
      shape.padded = shape.panels * VEC;
      Transposed weights = transpose(floats(in.input_kernel), input_gradient ? in.inputs : 0,
                                     floats(in.recurrent_kernel), in.hidden, pool);
      GradientTensors g;
      if (outputs_) g.outputs = floats(d_outputs);
      g.h_at = floats(d_h);
      g.c_at = floats(d_c);
      g.saved = floats(saved);
      if (input_gradient) g.x = to[0]->flat<float>().data();
      g.h0 = to[4]->flat<float>().data();
      g.c0 = to[5]->flat<float>().data();
      WeightGradients into{to[1]->flat<float>().data(), to[2]->flat<float>().data(),
                           to[3]->flat<float>().data()};
      backward(shape, weights, in.vocabulary, in.problem(&sorted), g, into, pool);
    });
  }

 private:
  bool outputs_;
  bool input_gradient_;
};

class LstmDecodeOp : public tf::OpKernel {
 public:
  explicit LstmDecodeOp(tf::OpKernelConstruction* c) : OpKernel(c) {}

  void Compute(tf::OpKernelContext* c) override {
    const tf::Tensor &given = c->input(0), &previous = c->input(1), &own = c->input(2),
                     &draws = c->input(3);
    const tf::Tensor* head[4];
    for (int i = 0; i < 4; ++i) head[i] = &c->input(4 + i);
    tf::OpInputList kernels, biases, recurrents, h0, c0;
    OP_REQUIRES_OK(c, c->input_list("kernels", &kernels));
    OP_REQUIRES_OK(c, c->input_list("biases", &biases));
    OP_REQUIRES_OK(c, c->input_list("recurrent_kernels", &recurrents));
    OP_REQUIRES_OK(c, c->input_list("h0", &h0));
    OP_REQUIRES_OK(c, c->input_list("c0", &c0));
    const int layers = kernels.size();
    const bool ids = given.dtype() == tf::DT_INT32;
    OP_REQUIRES(c, given.dims() == (ids ? 2 : 3),
                invalid("given must be [T, B, C] floats or [T, B] ids"));
    const int steps = given.dim_size(0), batch = given.dim_size(1);
    const int channels = ids ? 0 : given.dim_size(2);
    OP_REQUIRES(c, steps > 0, invalid("given must have at least one step"));
    tf::TensorShape one = given.shape();
    one.RemoveDim(0);
    OP_REQUIRES(c, previous.shape() == one && own.shape() == tf::TensorShape({steps, batch}),
                invalid("previous or own does not fit given ", given.shape().DebugString()));
    OP_REQUIRES(c, !ids || draws.shape() == own.shape(),
                invalid("draws must be [T, B] where tokens are ids"));
    if (ids) {
      OP_REQUIRES_OK(c, check_ids(given, kernels[0].dim_size(0)));
      OP_REQUIRES_OK(c, check_ids(previous, kernels[0].dim_size(0)));
    }
    int below = channels;
    for (int k = 0; k < layers; ++k) {
      const int H = recurrents[k].dim_size(0);
      const bool fits =
          recurrents[k].shape() == tf::TensorShape({H, 4 * H}) && kernels[k].dims() == 2 &&
          kernels[k].dim_size(1) == 4 * H && ((ids && k == 0) || kernels[k].dim_size(0) == below) &&
          (biases[k].NumElements() == 4 * H || biases[k].NumElements() == 0) &&
          h0[k].shape() == tf::TensorShape({batch, H}) && c0[k].shape() == h0[k].shape();
      OP_REQUIRES(c, fits, invalid("the shapes of layer ", k, " do not fit"));
      below = H;
    }
    const int token_size = ids ? kernels[0].dim_size(0) : channels;
    const int F = head[0]->dim_size(1);
    OP_REQUIRES(c,
                head[0]->shape() == tf::TensorShape({below, F}) && head[1]->NumElements() == F &&
                    head[2]->shape() == tf::TensorShape({F, token_size}) &&
                    head[3]->NumElements() == token_size,
                invalid("the head's shapes do not fit"));

    tf::Tensor *fed, *last;
    OP_REQUIRES_OK(c, c->allocate_output(0, given.shape(), &fed));
    OP_REQUIRES_OK(c, c->allocate_output(1, previous.shape(), &last));
    tf::OpOutputList outputs, h, cs, saved;
    OP_REQUIRES_OK(c, c->output_list("outputs", &outputs));
    OP_REQUIRES_OK(c, c->output_list("h", &h));
    OP_REQUIRES_OK(c, c->output_list("c", &cs));
    OP_REQUIRES_OK(c, c->output_list("saved", &saved));
    guarded(c, [&] {
      Pool pool = pool_of(c);
      Decoder d;
      DecoderResult out;
      std::vector<Cells> cells;
      for (int k = 0; k < layers; ++k) {
        const int H = recurrents[k].dim_size(0), D = kernels[k].dim_size(0);
        const bool table = ids && k == 0;
        cells.push_back(pack(floats(kernels[k]), table ? 0 : D, table ? D : 0, floats(biases[k]),
                             floats(recurrents[k]), H, pool));
        tf::Tensor* to;
        OP_REQUIRES_OK(c, outputs.allocate(k, {steps, batch, H}, &to));
        out.outputs.push_back(to->flat<float>().data());
        OP_REQUIRES_OK(c, h.allocate(k, {batch, H}, &to));
        out.h.push_back(to->flat<float>().data());
        OP_REQUIRES_OK(c, cs.allocate(k, {batch, H}, &to));
        out.c.push_back(to->flat<float>().data());
        tf::Tensor kept = saved_tensor(saved_size(steps, batch, H));
        saved.set(k, kept);
        out.saved.push_back(kept.flat<float>().data());
        d.h0.push_back(floats(h0[k]));
        d.c0.push_back(floats(c0[k]));
      }
      for (const Cells& one : cells) d.layers.push_back(&one);
      PackedHead packed = pack_head(floats(*head[0]), floats(*head[1]), floats(*head[2]),
                                    floats(*head[3]), below, F, token_size);
      d.head = &packed;
      d.steps = steps;
      d.batch = batch;
      d.channels = channels;
      d.own = reinterpret_cast<const unsigned char*>(own.flat<bool>().data());
      d.draws = floats(draws);
      if (ids) {
        d.given_ids = ints(given);
        d.previous_ids = ints(previous);
        out.fed_ids = fed->flat<int32_t>().data();
        out.last_ids = last->flat<int32_t>().data();
      } else {
        d.given_x = floats(given);
        d.previous_x = floats(previous);
        out.fed_x = fed->flat<float>().data();
        out.last_x = last->flat<float>().data();
      }
      if (batch > 0) decode(d, out, pool);
    });
  }
};

absl::Status lstm_shapes(InferenceContext* c) {
  ShapeHandle h0;
  TF_RETURN_IF_ERROR(c->WithRank(c->input(4), 2, &h0));
  DimensionHandle batch = c->Dim(h0, 0), hidden = c->Dim(h0, 1);
  ShapeHandle at = c->MakeShape({c->NumElements(c->input(8)), batch, hidden});
  c->set_output(0, at);
  c->set_output(1, at);
  bool outputs;
  TF_RETURN_IF_ERROR(c->GetAttr("outputs", &outputs));
  c->set_output(2, c->MakeShape({outputs ? c->Dim(c->input(0), 0) : c->MakeDim(0), batch, hidden}));
  c->set_output(3, c->UnknownShapeOfRank(1));
  return absl::OkStatus();
}

absl::Status lstm_grad_shapes(InferenceContext* c) {
  bool wanted;
  TF_RETURN_IF_ERROR(c->GetAttr("input_gradient", &wanted));
  c->set_output(0, wanted ? c->input(0) : c->UnknownShape());
  c->set_output(1, c->input(1));
  DimensionHandle gates;
  TF_RETURN_IF_ERROR(c->Multiply(c->Dim(c->input(2), 0), 4, &gates));
  c->set_output(2, c->Vector(gates));
  for (int i = 3; i < 6; ++i) c->set_output(i, c->input(i - 1));
  return absl::OkStatus();
}

absl::Status decode_shapes(InferenceContext* c) {
  c->set_output(0, c->input(0));
  c->set_output(1, c->input(1));
  int layers;
  TF_RETURN_IF_ERROR(c->GetAttr("layers", &layers));
  std::vector<ShapeHandle> h0, outputs, saved(layers, c->UnknownShapeOfRank(1));
  TF_RETURN_IF_ERROR(c->input("h0", &h0));
  for (const ShapeHandle& state : h0) {
    ShapeHandle both;
    TF_RETURN_IF_ERROR(c->Concatenate(c->Vector(c->Dim(c->input(0), 0)), state, &both));
    outputs.push_back(both);
  }
  TF_RETURN_IF_ERROR(c->set_output("outputs", outputs));
  TF_RETURN_IF_ERROR(c->set_output("h", h0));
  TF_RETURN_IF_ERROR(c->set_output("c", h0));
  return c->set_output("saved", saved);
}

REGISTER_OP("T2auxLstm")
    .Input("x: T")
    .Input("input_kernel: float")
    .Input("bias: float")
    .Input("recurrent_kernel: float")
    .Input("h0: float")
    .Input("c0: float")
    .Input("first: int32")
    .Input("last: int32")
    .Input("marks: int32")
    .Attr("T: {float, int32}")
    .Attr("outputs: bool")
    .Attr("save: bool")
    .Attr("input_gradient: bool")
    .Output("h_at: float")
    .Output("c_at: float")
    .Output("all_h: float")
    .Output("saved: float")
    .SetShapeFn(lstm_shapes);

REGISTER_OP("T2auxLstmGrad")
    .Input("x: T")
    .Input("input_kernel: float")
    .Input("recurrent_kernel: float")
    .Input("h0: float")
    .Input("c0: float")
    .Input("first: int32")
    .Input("last: int32")
    .Input("marks: int32")
    .Input("saved: float")
    .Input("d_h_at: float")
    .Input("d_c_at: float")
    .Input("d_all_h: float")
    .Attr("T: {float, int32}")
    .Attr("outputs: bool")
    .Attr("input_gradient: bool")
    .Output("d_x: float")
    .Output("d_input_kernel: float")
    .Output("d_bias: float")
    .Output("d_recurrent_kernel: float")
    .Output("d_h0: float")
    .Output("d_c0: float")
    .SetShapeFn(lstm_grad_shapes);

REGISTER_OP("T2auxLstmDecode")
    .Input("given: T")
    .Input("previous: T")
    .Input("own: bool")
    .Input("draws: float")
    .Input("head_hidden_kernel: float")
    .Input("head_hidden_bias: float")
    .Input("head_output_kernel: float")
    .Input("head_output_bias: float")
    .Input("kernels: layers * float")
    .Input("biases: layers * float")
    .Input("recurrent_kernels: layers * float")
    .Input("h0: layers * float")
    .Input("c0: layers * float")
    .Attr("T: {float, int32}")
    .Attr("layers: int >= 1")
    .Output("fed: T")
    .Output("last: T")
    .Output("outputs: layers * float")
    .Output("h: layers * float")
    .Output("c: layers * float")
    .Output("saved: layers * float")
    .SetShapeFn(decode_shapes);

REGISTER_KERNEL_BUILDER(Name("T2auxLstm").Device(tf::DEVICE_CPU), LstmOp);
REGISTER_KERNEL_BUILDER(Name("T2auxLstmGrad").Device(tf::DEVICE_CPU), LstmGradOp);
REGISTER_KERNEL_BUILDER(Name("T2auxLstmDecode").Device(tf::DEVICE_CPU), LstmDecodeOp);

}  // namespace
}  // namespace t2aux
