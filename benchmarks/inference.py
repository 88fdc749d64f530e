r"""Compares the inference time of our artefacts with ONNX Runtime and torch, with the same weights.

The network is an LSTM of 128 cells with its head, over pixels, with random weights. Single
sequences run in one thread, as on a device, and are timed by the thread's own clock, so that other
programs on the machine have little influence; batches run on all cores and are timed by the wall
clock. The wall clock is also used for the SavedModel, which TensorFlow runs in its own threads, and
for `t2aux serve` over gRPC, which runs with default settings except for the number of threads. All
of them take turns within each repetition. ONNX Runtime and torch are installed by the extra
`benchmarks`.

  python -m benchmarks.inference                          # all four sizes
  python -m benchmarks.inference --batches=1 --lengths=784 --repeat=100
  python -m benchmarks.inference --output=results/inference.json
"""

from __future__ import annotations

import os

# Set before TensorFlow is imported: libraries that busy-wait would take each other's cores.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import contextlib
import pathlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator

import numpy as np
import tensorflow as tf
from absl import app, flags, logging

from benchmarks.common import Size, classifier
from benchmarks.server import NAME, serving
from t2aux import files, text_tables
from t2aux.export import saved_model, tflite
from t2aux.export.stateless import StatelessClassifier
from t2aux.export.variants import VARIANTS
from t2aux.training.model import SequenceClassifier

_BATCHES = flags.DEFINE_multi_integer("batches", [1, 128], "Batch sizes.")
_LENGTHS = flags.DEFINE_multi_integer("lengths", [784, 16384], "Lengths T.")
_REPEAT = flags.DEFINE_integer("repeat", 30, "Repetitions at T 784; fewer at longer ones.")
_OUTPUT = flags.DEFINE_string("output", None, "A JSON file for the numbers.")

_PEER = "ONNX Runtime"
_SAVED_MODEL = "SavedModel"
_SERVED = "t2aux serve, gRPC"
Run = Callable[[], np.ndarray]


def _calibration(size: Size) -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    return list(rng.random((4, size.length, size.channels)).astype(np.float32))


def tflite_runs(network: SequenceClassifier, inputs: np.ndarray, size: Size) -> Iterator[tuple]:
    """Our `.tflite` files in LiteRT, one thread: name, function, bytes."""
    from ai_edge_litert.interpreter import Interpreter

    for name, variant in VARIANTS.items():
        for form in variant.forms:
            if form == "stream":
                continue
            content = tflite.convert(
                network, form, variant, segment=size.length, calibration=_calibration(size)
            )
            interpreter = Interpreter(model_content=content, num_threads=1)
            interpreter.allocate_tensors()
            runner = interpreter.get_signature_runner()
            stateful = form == "stateful"

            def run(
                interpreter: Interpreter = interpreter,
                runner: Callable = runner,
                stateful: bool = stateful,
            ) -> np.ndarray:
                if stateful:
                    interpreter.reset_all_variables()
                    return runner(segment=inputs)["probabilities"]
                return runner(inputs=inputs)["probabilities"]

            yield f"TFLite {name}{', fused and stateful' * stateful}", run, len(content)


def saved_model_run(network: SequenceClassifier, inputs: np.ndarray, folder: pathlib.Path) -> Run:
    """Our SavedModel, run like on a server."""
    saved_model.save(StatelessClassifier(network), folder)
    signature = tf.saved_model.load(str(folder)).signatures["serving_default"]
    lengths = tf.fill([len(inputs)], inputs.shape[1])
    tokens = tf.constant(inputs)

    def run() -> np.ndarray:
        return signature(inputs=tokens, lengths=lengths)["probabilities"].numpy()

    run.keep = signature  # type: ignore[attr-defined]
    return run


@contextlib.contextmanager
def served_run(
    network: SequenceClassifier, inputs: np.ndarray, folder: pathlib.Path
) -> Iterator[Run]:
    """`t2aux serve`, called over gRPC in one request."""
    import grpc
    from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

    saved_model.save(StatelessClassifier(network), folder / "1")
    request = predict_pb2.PredictRequest(output_filter=["probabilities"])
    request.model_spec.name = NAME
    request.inputs["inputs"].CopyFrom(tf.make_tensor_proto(inputs))
    lengths = np.full(len(inputs), inputs.shape[1], np.int32)
    request.inputs["lengths"].CopyFrom(tf.make_tensor_proto(lengths))
    threads = f"--tensorflow_intra_op_parallelism={1 if len(inputs) == 1 else 0}"
    with serving(folder, threads) as (_, address, _), grpc.insecure_channel(address) as channel:
        predict = prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict
        yield lambda: tf.make_ndarray(predict(request).outputs["probabilities"])


def onnx_run(
    network: SequenceClassifier, inputs: np.ndarray, threads: int
) -> tuple[Run, int] | None:
    """The same network in ONNX Runtime, and its size in bytes; None if it is not installed."""
    try:
        import onnxruntime
        from onnx import TensorProto, helper, numpy_helper
    except ImportError:
        return None
    weights = _onnx_weights(network)
    _, length, channels = inputs.shape
    nodes = [
        helper.make_node("Transpose", ["x"], ["steps"], perm=[1, 0, 2]),
        helper.make_node(
            "LSTM", ["steps", "W", "R", "B"], ["", "last"], hidden_size=network.hidden_size
        ),
        helper.make_node("Squeeze", ["last", "first"], ["h"]),
        helper.make_node("Gemm", ["h", "hidden_kernel", "hidden_bias"], ["hidden"]),
        helper.make_node("Relu", ["hidden"], ["active"]),
        helper.make_node("Gemm", ["active", "output_kernel", "output_bias"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"]),
    ]
    graph = helper.make_graph(
        nodes,
        "classifier",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, length, channels])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [None, None])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    opset = [helper.make_opsetid("", 17)]
    content = helper.make_model(graph, opset_imports=opset, ir_version=9).SerializeToString()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"x": inputs})[0], len(content)


def _onnx_weights(network: SequenceClassifier) -> dict[str, np.ndarray]:
    """Our weights in ONNX's gate order: input, output, forget, candidate."""
    lstm = network.core
    kernel, bias, _ = network.input_layer.fold(lstm.kernel, lstm.bias)

    def arranged(weight: tf.Variable) -> np.ndarray:
        i, f, g, o = np.split(weight.numpy(), 4, axis=-1)
        return np.concatenate([i, o, f, g], -1)

    bias = arranged(bias)
    head = network.head
    return {
        "W": arranged(kernel).T[np.newaxis],
        "R": arranged(lstm.recurrent_kernel).T[np.newaxis],
        "B": np.concatenate([bias, np.zeros_like(bias)])[np.newaxis],
        "hidden_kernel": head.hidden_kernel.numpy(),
        "hidden_bias": head.hidden_bias.numpy(),
        "output_kernel": head.output_kernel.numpy(),
        "output_bias": head.output_bias.numpy(),
        "first": np.zeros(1, np.int64),
    }


def torch_run(network: SequenceClassifier, inputs: np.ndarray, threads: int) -> Run | None:
    """The same network in torch; None if it is not installed."""
    try:
        import torch
    except ImportError:
        return None
    torch.set_num_threads(threads)
    lstm, head = network.core, network.head
    kernel, bias, _ = network.input_layer.fold(lstm.kernel, lstm.bias)
    layer = torch.nn.LSTM(inputs.shape[2], network.hidden_size)
    # torch has the same gate order as ours.
    values = {
        "weight_ih_l0": kernel.numpy().T,
        "weight_hh_l0": lstm.recurrent_kernel.numpy().T,
        "bias_ih_l0": bias.numpy(),
        "bias_hh_l0": np.zeros_like(bias.numpy()),
    }
    layer.load_state_dict({name: torch.tensor(value) for name, value in values.items()})
    dense = [
        torch.from_numpy(v.numpy())
        for v in (head.hidden_kernel, head.hidden_bias, head.output_kernel, head.output_bias)
    ]
    x = torch.from_numpy(inputs).transpose(0, 1).contiguous()

    @torch.inference_mode()
    def run() -> np.ndarray:
        _, (h, _) = layer(x)
        hidden = torch.relu(h[0] @ dense[0] + dense[1])
        return torch.softmax(hidden @ dense[2] + dense[3], -1).numpy()

    return run


def measure(size: Size, repeat: int) -> dict[str, dict[str, float]]:
    """Times everything at one size.

    Returns:
        By name: seconds (the median), "of ONNX Runtime" (the ratio to its median), bytes (of a
        file), and difference (the largest difference of a probability from the network's own).
    """
    network = classifier(size)
    for variable in network.variables:
        variable.assign(variable * 1.5)
    shape = (size.batch, size.length, size.channels)
    inputs = np.random.default_rng(0).random(shape).astype(np.float32)
    wanted = network(tf.constant(inputs)).numpy()
    single = size.batch == 1
    threads = 1 if single else os.cpu_count() or 1
    # These do not run in this thread.
    clocks = dict.fromkeys((_SAVED_MODEL, _SERVED), time.perf_counter)
    runs: dict[str, Run] = {}
    sizes: dict[str, int] = {}
    with contextlib.ExitStack() as stack:
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        if single:
            for name, run, count in tflite_runs(network, inputs, size):
                runs[name], sizes[name] = run, count
        runs[_SAVED_MODEL] = saved_model_run(network, inputs, folder / "model")
        runs[_SERVED] = stack.enter_context(served_run(network, inputs, folder / "served"))
        peer = onnx_run(network, inputs, threads)
        if peer is not None:
            runs[_PEER], sizes[_PEER] = peer
        run = torch_run(network, inputs, threads)
        if run is not None:
            runs["torch"] = run
        differences = {name: float(np.abs(run() - wanted).max()) for name, run in runs.items()}
        times: dict[str, list[float]] = {name: [] for name in runs}
        for i in range(repeat):
            print(f"  repetition {i + 1}/{repeat}", end="\r", file=sys.stderr, flush=True)
            for name, run in runs.items():
                clock = clocks.get(name, time.thread_time if single else time.perf_counter)
                begin = clock()
                run()
                times[name].append(clock() - begin)
    medians = {name: statistics.median(taken) for name, taken in times.items()}
    return {
        name: {
            "seconds": seconds,
            "of ONNX Runtime": seconds / medians[_PEER] if _PEER in medians else float("nan"),
            "bytes": sizes.get(name, 0),
            "difference": differences[name],
        }
        for name, seconds in medians.items()
    }


def _table(size: Size, measured: dict[str, dict[str, float]]) -> str:
    clock = "one thread" if size.batch == 1 else f"{os.cpu_count()} threads"
    rows = [
        [
            name,
            f"{1000 * m['seconds']:.3f}",
            f"{m['of ONNX Runtime']:.2f}",
            f"{m['bytes'] / 1000:.0f}" if m["bytes"] else "",
            f"{m['difference']:.1e}",
        ]
        for name, m in measured.items()
    ]
    shown = text_tables.table(rows, ["", "ms", f"of {_PEER}", "kB", "difference"], indent="  ")
    return f"\nB {size.batch}, T {size.length:,}, H {size.hidden}, {clock}\n{shown}"


def main(argv: list[str]) -> None:
    """Measures and prints the results."""
    del argv
    logging.set_verbosity(logging.WARNING)
    found = {}
    for batch in _BATCHES.value:
        for length in _LENGTHS.value:
            size = Size(batch, length)
            repeat = max(5, _REPEAT.value * 784 // length)
            found[f"B {batch}, T {length}"] = measured = measure(size, repeat)
            print(_table(size, measured), flush=True)
    if _OUTPUT.value:
        files.write_json(_OUTPUT.value, found)


if __name__ == "__main__":
    app.run(main)
