// The ops that run an LSTM over a sequence, and its gradient.

#ifndef T2AUX_KERNELS_LSTM_OPS_H_
#define T2AUX_KERNELS_LSTM_OPS_H_

#include "backward.h"
#include "forward.h"
#include "op_support.h"
#include "tensorflow/core/framework/op_kernel.h"

namespace t2aux {

// What the forward and the backward op have in common: x, input_kernel, recurrent_kernel, h0, c0,
// first, last, positions.
struct Inputs {
  const tf::Tensor& x;
  const tf::Tensor& input_kernel;
  const tf::Tensor& recurrent_kernel;
  const tf::Tensor& h0;
  const tf::Tensor& c0;
  const tf::Tensor& first;
  const tf::Tensor& last;
  const tf::Tensor& positions;
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
        positions(c->input(h0_at + 4)),
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
    return check_positions(positions, steps);
  }

  Problem problem(const Positions* sorted) const {
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
    q.positions = sorted;
    return q;
  }
};

class LstmOp : public tf::OpKernel {
 public:
  explicit LstmOp(tf::OpKernelConstruction* c) : OpKernel(c) {
    OP_REQUIRES_OK(c, c->GetAttr("outputs", &outputs_));
    OP_REQUIRES_OK(c, c->GetAttr("save", &save_));
    OP_REQUIRES_OK(c, get_precision(c, bfloat16_));
  }

  void Compute(tf::OpKernelContext* c) override {
    Inputs in(c, 0, 1, 3, 4);
    OP_REQUIRES_OK(c, in.check());
    const tf::Tensor& bias = c->input(2);
    OP_REQUIRES(c, bias.NumElements() == 0 || bias.NumElements() == 4 * in.hidden,
                invalid("bias must be [4H] or [0], but is ", bias.shape().DebugString()));
    const int64_t positions = in.positions.NumElements();
    tf::Tensor *h_at, *c_at;
    OP_REQUIRES_OK(c, c->allocate_output(0, {positions, in.batch, in.hidden}, &h_at));
    OP_REQUIRES_OK(c, c->allocate_output(1, {positions, in.batch, in.hidden}, &c_at));
    guarded(c, bfloat16_, [&](auto operand) {
      using Operand = decltype(operand);
      tf::Tensor outputs = make_tensor({outputs_ ? in.steps : 0, in.batch, in.hidden});
      tf::Tensor saved = make_tensor({save_ ? saved_size(in.steps, in.batch, in.hidden) : 0});
      c->set_output(2, outputs);
      c->set_output(3, saved);
      if (in.batch == 0) return;
      Pool pool = pool_of(c);
      Positions sorted(ints(in.positions), positions);
      Cells cells = pack<Operand>(floats(in.input_kernel), in.inputs, in.vocabulary, floats(bias),
                                  floats(in.recurrent_kernel), in.hidden, pool);
      ForwardResult out;
      out.h_at = h_at->flat<float>().data();
      out.c_at = c_at->flat<float>().data();
      if (outputs_) out.outputs = outputs.flat<float>().data();
      if (save_) out.saved = saved.flat<float>().data();
      Problem q = in.problem(&sorted);
      // What comes after the last mark is not used.
      if (!outputs_ && !save_) q.steps = positions ? sorted.position.back() : 0;
      forward<Operand>(cells, q, out, pool);
    });
  }

 private:
  bool outputs_;
  bool save_;
  bool bfloat16_;
};

class LstmGradOp : public tf::OpKernel {
 public:
  explicit LstmGradOp(tf::OpKernelConstruction* c) : OpKernel(c) {
    OP_REQUIRES_OK(c, c->GetAttr("outputs", &outputs_));
    OP_REQUIRES_OK(c, c->GetAttr("input_gradient", &input_gradient_));
    OP_REQUIRES_OK(c, get_precision(c, bfloat16_));
  }

  void Compute(tf::OpKernelContext* c) override {
    Inputs in(c, 0, 1, 2, 3);
    OP_REQUIRES_OK(c, in.check());
    const tf::Tensor& saved = c->input(8);
    const tf::Tensor &d_h = c->input(9), &d_c = c->input(10), &d_outputs = c->input(11);
    const int64_t positions = in.positions.NumElements();
    OP_REQUIRES(c, saved.NumElements() == saved_size(in.steps, in.batch, in.hidden),
                invalid("the forward op saved nothing for a gradient: call it with save=True"));
    const tf::TensorShape at({positions, in.batch, in.hidden});
    OP_REQUIRES(c, d_h.shape() == at && d_c.shape() == at,
                invalid("gradients of the marked states must be ", at.DebugString()));
    OP_REQUIRES(c,
                !outputs_ || d_outputs.shape() == tf::TensorShape({in.steps, in.batch, in.hidden}),
                invalid("the gradient of the outputs has shape ", d_outputs.shape().DebugString()));
    tf::Tensor* to[6];
    const bool input_gradient = input_gradient_ && !in.ids;
    tf::TensorShape x_shape =
        input_gradient ? in.x.shape() : tf::TensorShape({0, in.batch, in.inputs});
    OP_REQUIRES_OK(c, c->allocate_output(1, in.input_kernel.shape(), &to[1]));
    OP_REQUIRES_OK(c, c->allocate_output(2, {4 * in.hidden}, &to[2]));
    OP_REQUIRES_OK(c, c->allocate_output(3, in.recurrent_kernel.shape(), &to[3]));
    OP_REQUIRES_OK(c, c->allocate_output(4, in.h0.shape(), &to[4]));
    OP_REQUIRES_OK(c, c->allocate_output(5, in.c0.shape(), &to[5]));
    if (in.batch == 0) {
      // No sequence, no gradient.
      c->set_output(0, tf::Tensor(tf::DT_FLOAT, x_shape));
      for (int i = 1; i < 4; ++i) to[i]->flat<float>().setZero();
      return;
    }
    guarded(c, bfloat16_, [&](auto operand) {
      using Operand = decltype(operand);
      Pool pool = pool_of(c);
      Positions sorted(ints(in.positions), positions);
      Cells shape;
      shape.hidden = in.hidden;
      shape.inputs = in.inputs;
      shape.panels = panels_of(in.hidden);
      shape.padded = shape.panels * VEC;
      Transposed weights =
          transpose<Operand>(floats(in.input_kernel), input_gradient ? in.inputs : 0,
                             floats(in.recurrent_kernel), in.hidden, pool);
      GradientTensors g;
      if (outputs_) g.outputs = floats(d_outputs);
      g.h_at = floats(d_h);
      g.c_at = floats(d_c);
      g.saved = floats(saved);
      tf::Tensor d_x = make_tensor(x_shape);
      c->set_output(0, d_x);
      if (input_gradient) g.x = d_x.flat<float>().data();
      g.h0 = to[4]->flat<float>().data();
      g.c0 = to[5]->flat<float>().data();
      WeightGradients into{to[1]->flat<float>().data(), to[2]->flat<float>().data(),
                           to[3]->flat<float>().data()};
      backward<Operand>(shape, weights, in.vocabulary, in.problem(&sorted), g, into, pool);
    });
  }

 private:
  bool outputs_;
  bool input_gradient_;
  bool bfloat16_;
};

}  // namespace t2aux

#endif  // T2AUX_KERNELS_LSTM_OPS_H_
