"""What a request must not do: take the memory, or spoil other requests."""

import asyncio
import contextlib
import pathlib
import re
import signal
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2
from tensorflow_serving.apis import (
    model_management_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)

from t2aux.serving import batching, tensors
from t2aux.serving.metrics import Metrics
from t2aux.serving.signature import Signature
from t2aux.serving.status import ServingError
from tests import cli_helpers, small_exports

MAX_BYTES = 1000
SIGNATURE = Signature(
    "serving_default",
    "tensorflow/serving/predict",
    {
        "inputs": tf.TensorSpec((None, None, 2), tf.float32),
        "lengths": tf.TensorSpec((None,), tf.int32),
    },
    {"sums": tf.TensorSpec((None,), tf.float32)},
)


def shaped(*sizes, **fields):
    return tensor_pb2.TensorProto(tensor_shape={"dim": [{"size": n} for n in sizes]}, **fields)


@pytest.mark.parametrize(
    "value",
    [
        np.arange(6, dtype=np.float32).reshape(2, 3),
        np.array([[-1, 2**31 - 1]], np.int32),
        np.array([2**62], np.int64),
        np.array([True, False]),
        np.array([b"a\0b", b""], object),
        np.zeros([0, 3], np.float32),
        np.float64(0.1).reshape(()),
    ],
    ids=str,
)
def test_tensors_come_back(value):
    ours = tensors.to_proto(value)
    assert not ours.tensor_content
    np.testing.assert_array_equal(tf.make_ndarray(ours), value)
    for proto in (ours, tf.make_tensor_proto(value, tf.string if value.dtype == object else None)):
        read = tensors.to_array(proto, "x", MAX_BYTES)
        assert read.dtype == value.dtype
        assert read.shape == value.shape
        np.testing.assert_array_equal(read, value)


def test_one_value_may_stand_for_many():
    read = tensors.to_array(shaped(2, 3, dtype=1, float_val=[0.5]), "x", MAX_BYTES)
    np.testing.assert_array_equal(read, np.full([2, 3], 0.5, np.float32))


@pytest.mark.parametrize(
    ("proto", "part"),
    [
        (shaped(10**12, dtype=1, float_val=[1]), " 1,000 bytes"),
        (shaped(2**40, 2**40, dtype=3), " 1,000 bytes"),
        (shaped(10**9, dtype=7, string_val=[b"a"]), " 1,000 bytes"),
        (shaped(-1, dtype=1), "shape"),
        (shaped(3, dtype=1, tensor_content=b"1234"), " size"),
        (shaped(1, dtype=1, float_val=[1, 2]), " 2 values"),
        (shaped(1, dtype=4, int_val=[256]), "uint8"),
        (shaped(1, dtype=20), "type .*resource"),
        (shaped(1, dtype=999), "type .*unknown"),
    ],
)
def test_an_invalid_tensor_is_an_error(proto, part):
    with pytest.raises(ServingError, match=part) as caught:
        tensors.to_array(proto, "x", MAX_BYTES)
    assert caught.value.code == "INVALID_ARGUMENT"


def test_lengths_are_checked_and_what_is_behind_them_is_cleared():
    inputs = {
        "inputs": np.full([2, 3, 2], np.nan, np.float32),
        "lengths": np.array([1, 2], np.int32),
    }
    inputs["inputs"][0, :1] = inputs["inputs"][1, :2] = 1
    SIGNATURE.check(inputs)
    np.testing.assert_array_equal(inputs["inputs"].sum((1, 2)), [2, 4])
    inputs["inputs"][1, 1] = np.nan
    with pytest.raises(ServingError, match="NaN"):
        SIGNATURE.check(inputs)
    for lengths, part in (([0, 1], "at least 1"), ([1, 4], "steps given")):
        with pytest.raises(ServingError, match=part):
            SIGNATURE.check({**inputs, "lengths": np.array(lengths, np.int32)})


class Sums:
    """A servable that records its batches."""

    name, version = "sums", 1

    def __init__(self):
        self.shapes = []

    def run(self, signature, inputs):
        self.shapes.append(inputs["inputs"].shape)
        return {"sums": inputs["inputs"].sum((1, 2))}


def run_together(lengths):
    """Runs requests of these lengths at the same time; returns the batches' shapes."""
    sums = Sums()

    async def run():
        with ThreadPoolExecutor(2) as threads:
            options = batching.BatchingOptions(batch_timeout_micros=20_000, allowed_batch_sizes=())
            batcher = batching.Batcher(options, threads, Metrics())
            requests = [
                {"inputs": np.ones([1, n, 2], np.float32), "lengths": np.array([n], np.int32)}
                for n in lengths
            ]
            return await asyncio.gather(*(batcher.run(sums, SIGNATURE, r) for r in requests))

    answers = asyncio.run(run())
    np.testing.assert_array_equal([a["sums"][0] for a in answers], [2 * n for n in lengths])
    return sorted(sums.shapes)


def test_short_sequences_share_a_batch_and_long_ones_do_not_lengthen_it():
    assert run_together([3, 64, 17]) == [(3, 64, 2)]
    assert run_together([3, 10_000, 9_000, 5]) == [(2, 5, 2), (2, 10_000, 2)]


def test_a_batch_of_long_sequences_has_a_size(monkeypatch):
    monkeypatch.setattr(batching, "_MAX_BYTES", 2 * 1000 * 2 * 4 + 100)
    assert run_together([1000] * 5) == [(1, 1000, 2), (2, 1000, 2), (2, 1000, 2)]


@contextlib.contextmanager
def serving(base_path, *flags):
    """`t2aux serve` in a separate process: the process, gRPC's address and REST's."""
    log = pathlib.Path(base_path).with_name("serve.log")
    arguments = [f"--model_base_path={base_path}", "--port=0", "--rest_api_port=0", *flags]
    process = cli_helpers.fork_server().start(log, "serve", *arguments)
    try:
        line = r"gRPC at (\S+), REST at (http://[^/]+)/"
        process.wait_until(lambda: re.search(line, process.stderr))
        found = re.search(line, process.stderr)
        yield process, found[1], found[2]
    finally:
        process.kill()


def test_hostile_messages_get_one_answer_and_the_server_lives(tmp_path):
    small_exports.write(tmp_path / "vectors" / "1", small_exports.VECTORS, ("saved_model",))
    with (
        serving(tmp_path / "vectors") as (process, address, _),
        grpc.insecure_channel(address) as c,
    ):
        predictions = prediction_service_pb2_grpc.PredictionServiceStub(c)
        models = model_service_pb2_grpc.ModelServiceStub(c)
        bomb = predict_pb2.PredictRequest()
        bomb.model_spec.name = "vectors"
        bomb.inputs["inputs"].CopyFrom(shaped(2, 10**8, 2, dtype=1, float_val=[0.5]))
        bomb.inputs["lengths"].CopyFrom(tf.make_tensor_proto(np.array([5, 5], np.int32)))
        assert bomb.ByteSize() < 100
        raw = c.unary_unary("/tensorflow.serving.PredictionService/Predict")
        reload = model_management_pb2.ReloadConfigRequest()
        for call, request, code, part in (
            (predictions.Predict, bomb, "INVALID_ARGUMENT", "bytes allowed"),
            (
                raw,
                b"\xff\xff\xff\x01no message",
                "INVALID_ARGUMENT",
                "protobuf",
            ),
            (predictions.Regress, regression_pb2.RegressionRequest(), "UNIMPLEMENTED", "Classify"),
            (models.HandleReloadConfigRequest, reload, "UNIMPLEMENTED", "configuration"),
        ):
            with pytest.raises(grpc.RpcError) as caught:
                call(request, timeout=60)
            assert caught.value.code().name == code, caught.value.details()
            assert part in caught.value.details()
        good = predict_pb2.PredictRequest()
        good.CopyFrom(bomb)
        good.inputs["inputs"].CopyFrom(shaped(2, 5, 2, dtype=1, float_val=[0.5]))
        answer = predictions.Predict(good, timeout=60).outputs["probabilities"]
        # Clients of TensorFlow Serving may read the field itself.
        assert len(answer.float_val) == 6
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        assert "Traceback" not in process.stderr
