// The op that runs stacked LSTM layers and a head on the tokens that they make themselves.

#ifndef T2AUX_KERNELS_DECODE_OP_H_
#define T2AUX_KERNELS_DECODE_OP_H_

#include <vector>

#include "decode.h"
#include "op_support.h"
#include "tensorflow/core/framework/op_kernel.h"

namespace t2aux {

class LstmDecodeOp : public tf::OpKernel {
 public:
  explicit LstmDecodeOp(tf::OpKernelConstruction* c) : OpKernel(c) {
    OP_REQUIRES_OK(c, get_precision(c, bfloat16_));
  }

  void Compute(tf::OpKernelContext* c) override {
    const tf::Tensor &given = c->input(0), &previous = c->input(1), &use_sampled = c->input(2),
                     &uniforms = c->input(3);
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
    OP_REQUIRES(
        c, previous.shape() == one && use_sampled.shape() == tf::TensorShape({steps, batch}),
        invalid("previous or use_sampled does not fit given ", given.shape().DebugString()));
    OP_REQUIRES(c, !ids || uniforms.shape() == use_sampled.shape(),
                invalid("uniforms must be [T, B] where tokens are ids"));
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
    guarded(c, bfloat16_, [&](auto operand) {
      using Operand = decltype(operand);
      Pool pool = pool_of(c);
      Decoder d;
      DecoderResult out;
      std::vector<Cells> cells;
      for (int k = 0; k < layers; ++k) {
        const int H = recurrents[k].dim_size(0), D = kernels[k].dim_size(0);
        const bool table = ids && k == 0;
        cells.push_back(pack<Operand>(floats(kernels[k]), table ? 0 : D, table ? D : 0,
                                      floats(biases[k]), floats(recurrents[k]), H, pool));
        tf::Tensor* to;
        tf::Tensor all = make_tensor({steps, batch, H});
        outputs.set(k, all);
        out.outputs.push_back(all.flat<float>().data());
        OP_REQUIRES_OK(c, h.allocate(k, {batch, H}, &to));
        out.h.push_back(to->flat<float>().data());
        OP_REQUIRES_OK(c, cs.allocate(k, {batch, H}, &to));
        out.c.push_back(to->flat<float>().data());
        tf::Tensor kept = make_tensor({saved_size(steps, batch, H)});
        saved.set(k, kept);
        out.saved.push_back(kept.flat<float>().data());
        d.h0.push_back(floats(h0[k]));
        d.c0.push_back(floats(c0[k]));
      }
      for (const Cells& one : cells) d.layers.push_back(&one);
      PackedHead packed = pack_head<Operand>(floats(*head[0]), floats(*head[1]), floats(*head[2]),
                                             floats(*head[3]), below, F, token_size);
      d.head = &packed;
      d.steps = steps;
      d.batch = batch;
      d.channels = channels;
      d.use_sampled = reinterpret_cast<const unsigned char*>(use_sampled.flat<bool>().data());
      d.uniforms = floats(uniforms);
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
      if (batch > 0) decode<Operand>(d, out, pool);
    });
  }

 private:
  bool bfloat16_;
};

}  // namespace t2aux

#endif  // T2AUX_KERNELS_DECODE_OP_H_
