// The LSTM's custom ops for TensorFlow on a CPU: their names, inputs, outputs and shapes. What they
// do is in the headers.

#include <vector>

#include "absl/status/status.h"
#include "decode_op.h"
#include "lstm_ops.h"
#include "tensorflow/core/framework/common_shape_fns.h"
#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/framework/shape_inference.h"

namespace t2aux {
namespace {

using tf::shape_inference::DimensionHandle;
using tf::shape_inference::InferenceContext;
using tf::shape_inference::ShapeHandle;

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
    .Input("positions: int32")
    .Attr("T: {float, int32}")
    .Attr("outputs: bool")
    .Attr("save: bool")
    .Attr("input_gradient: bool")
    .Attr("precision: {'float32', 'bfloat16'} = 'float32'")
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
    .Input("positions: int32")
    .Input("saved: float")
    .Input("d_h_at: float")
    .Input("d_c_at: float")
    .Input("d_all_h: float")
    .Attr("T: {float, int32}")
    .Attr("outputs: bool")
    .Attr("input_gradient: bool")
    .Attr("precision: {'float32', 'bfloat16'} = 'float32'")
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
    .Input("use_sampled: bool")
    .Input("uniforms: float")
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
    .Attr("precision: {'float32', 'bfloat16'} = 'float32'")
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

// Whether products of bfloat16 are instructions of the processor.
extern "C" bool t2aux_has_bfloat16() { return t2aux::Bfloat16::kNative; }

// Whether they are computed by AMX.
extern "C" bool t2aux_uses_amx() { return t2aux::amx::enabled(); }
