"""The protocols as TensorFlow Serving's clients use them."""

import base64
import concurrent.futures
import functools
import re
import socket
import time

import grpc
import numpy as np
import pytest
import requests
import tensorflow as tf
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    predict_pb2,
)

from t2aux.export.runtimes import CheckpointClassifier
from t2aux.serving.models import ModelConfig
from tests import small_exports
from tests.serving.conftest import INFOS, running

NEAR = 1e-6


def sequences(kind, lengths, seed=0):
    """Random sequences as lists of [T, C] or [T]."""
    rng = np.random.default_rng(seed)
    info = INFOS[kind]
    if info.is_text:
        return [rng.integers(0, info.vocabulary_size, n).astype(np.int32) for n in lengths]
    return [rng.random((n, info.channels)).astype(np.float32) for n in lengths]


# Of a classifier: traced once.
local = functools.cache(CheckpointClassifier)


def wanted(classifiers, kind, sequence):
    return local(getattr(classifiers, kind)).probabilities(sequence)


def predict_request(kind, sequence, signature="", **spec):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = kind
    request.model_spec.signature_name = signature
    if "version" in spec:
        request.model_spec.version.value = spec["version"]
    request.inputs["inputs"].CopyFrom(tf.make_tensor_proto(sequence[np.newaxis]))
    request.inputs["lengths"].CopyFrom(tf.make_tensor_proto(np.array([len(sequence)], np.int32)))
    return request


def refused(call, request):
    """The code and message that a gRPC call ends with."""
    with pytest.raises(grpc.RpcError) as caught:
        call(request, timeout=120)
    return caught.value.code().name, caught.value.details()


@pytest.mark.parametrize("kind", INFOS)
def test_predict_over_grpc(server, classifiers, kind):
    (sequence,) = sequences(kind, [16])
    response = server.predictions.Predict(predict_request(kind, sequence), timeout=120)
    spec = response.model_spec
    assert (spec.name, spec.version.value, spec.signature_name) == (kind, 1, "serving_default")
    found = tf.make_ndarray(response.outputs["probabilities"])[0]
    np.testing.assert_allclose(found, wanted(classifiers, kind, sequence), atol=NEAR)
    names = tf.make_ndarray(response.outputs["names"])[0]
    assert names[0].decode() == INFOS[kind].classes[found.argmax()]


def test_output_filter_and_version(server):
    (sequence,) = sequences("images", [16])
    request = predict_request("images", sequence, version=1)
    request.output_filter.append("probabilities")
    response = server.predictions.Predict(request, timeout=120)
    assert list(response.outputs) == ["probabilities"]
    request.output_filter.append("nonsense")
    code, message = refused(server.predictions.Predict, request)
    assert code == "INVALID_ARGUMENT"
    assert "nonsense" in message


@pytest.mark.parametrize("kind", INFOS)
def test_predict_over_rest_in_rows_and_columns(server, classifiers, kind):
    (sequence,) = sequences(kind, [16])
    expected = wanted(classifiers, kind, sequence)
    row = {"inputs": sequence.tolist(), "lengths": 16}
    status, answer = server.post(f"{kind}:predict", {"instances": [row, row]})
    assert status == 200
    assert set(answer) == {"predictions"}
    for prediction in answer["predictions"]:
        np.testing.assert_allclose(prediction["probabilities"], expected, atol=NEAR)
    columns = {"inputs": [sequence.tolist()], "lengths": [16]}
    status, answer = server.post(f"{kind}/versions/1:predict", {"inputs": columns})
    assert status == 200
    assert set(answer) == {"outputs"}
    np.testing.assert_allclose(answer["outputs"]["probabilities"][0], expected, atol=NEAR)
    # Columns that the signature does not have are ignored.
    more = {"inputs": {**columns, "nonsense": 1}}
    assert server.post(f"{kind}:predict", more) == (200, answer)


TEXTS = ["abc", "c", "abcabcabcabca", "naïve ☃ text outside of the vocabulary", "a" * 500]


def test_texts_go_the_same_way(server, classifiers):
    body = {"signature_name": "serving_text", "instances": TEXTS}
    status, answer = server.post("texts:predict", body)
    assert status == 200
    encoded = [{"b64": base64.b64encode(text.encode()).decode()} for text in TEXTS]
    again = server.post("texts:predict", {**body, "instances": encoded})[1]
    assert again == answer
    for text, prediction in zip(TEXTS, answer["predictions"], strict=True):
        expected = wanted(classifiers, "texts", INFOS["texts"].text_ids(text))
        np.testing.assert_allclose(prediction["probabilities"], expected, atol=NEAR)
        assert prediction["names"][0] == INFOS["texts"].classes[expected.argmax()]
    status, answer = server.post("texts:predict", {**body, "instances": ["abc", ""]})
    assert status == 400
    assert "text is empty" in answer["error"]


@pytest.mark.parametrize("kind", INFOS)
def test_classify_over_both(server, classifiers, kind):
    (sequence,) = sequences(kind, [16])
    request = classification_pb2.ClassificationRequest()
    request.model_spec.name = kind
    request.model_spec.signature_name = "serving_classify"
    example = request.input.example_list.examples.add()
    values = sequence.ravel().tolist()
    feature = example.features.feature["inputs"]
    if INFOS[kind].is_text:
        feature.int64_list.value.extend(values)
    else:
        feature.float_list.value.extend(values)
    response = server.predictions.Classify(request, timeout=120)
    (result,) = response.result.classifications
    expected = dict(zip(INFOS[kind].classes, wanted(classifiers, kind, sequence), strict=True))
    scores = {c.label: c.score for c in result.classes}
    assert scores == pytest.approx(expected, abs=NEAR)
    body = {"signature_name": "serving_classify", "examples": [{"inputs": values}]}
    status, answer = server.post(f"{kind}:classify", body)
    assert status == 200
    assert set(answer) == {"results"}
    assert dict(answer["results"][0]) == pytest.approx(expected, abs=NEAR)


def test_classify_wants_its_signature(server):
    status, answer = server.post("images:classify", {"examples": [{"inputs": [0.5] * 16}]})
    assert status == 400
    assert "tensorflow/serving/classify" in answer["error"]


def test_streaming_state_travels_with_the_client(server, classifiers):
    (sequence,) = sequences("images", [16])
    body = {"signature_name": "initial_state", "inputs": {"batch": [0]}}
    state = server.post("images:predict", body)[1]["outputs"]
    for begin in range(0, 16, 5):
        part = sequence[begin : begin + 5]
        inputs = {"segment": [part.tolist()], "lengths": [len(part)], "h": state["h"]}
        inputs["c"] = state["c"]
        body = {"signature_name": "step_segment", "inputs": inputs}
        state = server.post("images:predict", body)[1]["outputs"]
    expected = wanted(classifiers, "images", sequence)
    np.testing.assert_allclose(state["probabilities"][0], expected, atol=NEAR)


def test_status_and_metadata(server):
    status, answer = server.get("/v1/models/images")
    assert status == 200
    assert answer["model_version_status"] == [
        {"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    ]
    status, answer = server.get("/v1/models")
    assert (status, set(answer)) == (400, {"error"})
    assert "model name" in answer["error"]
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = "images"
    (entry,) = server.models.GetModelStatus(request, timeout=120).model_version_status
    assert (entry.version, entry.State.Name(entry.state)) == (1, "AVAILABLE")
    status, answer = server.get("/v1/models/images/metadata")
    assert answer["model_spec"]["name"] == "images"
    assert set(answer["metadata"]["signature_def"]) == {"signature_def"}
    definitions = answer["metadata"]["signature_def"]["signature_def"]
    assert {"serving_default", "serving_classify", "step_segment"} <= set(definitions)
    requested = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    requested.model_spec.name = "images"
    response = server.predictions.GetModelMetadata(requested, timeout=120)
    unpacked = get_model_metadata_pb2.SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(unpacked)
    assert unpacked.signature_def["serving_default"].inputs["lengths"].dtype == tf.int32


@pytest.mark.parametrize("kind", INFOS)
def test_an_answer_is_the_same_alone_and_in_a_batch_of_32(server, classifiers, kind):
    lengths = [16] * 32 if INFOS[kind].length else [1 + i % 16 for i in range(32)]
    given = sequences(kind, lengths)
    before = server.metric(":tensorflow:serving:batching_session:processed_batch_size_count")
    with concurrent.futures.ThreadPoolExecutor(32) as pool:
        call = server.predictions.Predict
        requests_ = [predict_request(kind, s) for s in given]
        answers = list(pool.map(lambda r: call(r, timeout=60), requests_))
    runs = server.metric(":tensorflow:serving:batching_session:processed_batch_size_count")
    assert runs - before < 32  # They were put together.
    for sequence, response in zip(given, answers, strict=True):
        found = tf.make_ndarray(response.outputs["probabilities"])[0]
        np.testing.assert_allclose(found, wanted(classifiers, kind, sequence), atol=NEAR)


def test_a_bad_request_does_not_harm_others_in_its_batch(server, classifiers):
    good, bad = sequences("texts", [9, 9])
    wrong = predict_request("texts", bad)
    wrong.inputs["lengths"].CopyFrom(tf.make_tensor_proto(np.array([10], np.int32)))

    def ask(index):
        if index % 4:
            return server.predictions.Predict(predict_request("texts", good), timeout=60)
        return refused(server.predictions.Predict, wrong)

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(ask, range(16)))
    for index, answer in enumerate(answers):
        if index % 4:
            found = tf.make_ndarray(answer.outputs["probabilities"])[0]
            np.testing.assert_allclose(found, wanted(classifiers, "texts", good), atol=NEAR)
        else:
            assert answer[0] == "INVALID_ARGUMENT"
            assert "steps given" in answer[1]


ROW = [[0.5]] * 16


@pytest.mark.parametrize(
    ("path", "body", "status", "part"),
    [
        ("images:predict", b'{"instances": [', 400, "JSON Parse"),
        ("images:predict", b"[1, 2]", 400, "JSON object"),
        ("images:predict", b"\xff\xfe", 400, "JSON Parse"),
        ("images:predict", b"[" * 100_000, 400, "JSON Parse"),
        ("images:predict", {}, 400, "'inputs' or 'instances'"),
        ("images:predict", {"instances": []}, 400, "one entry"),
        ("images:predict", {"instances": [{"inputs": ROW}]}, 400, "{lengths}"),
        ("images:predict", {"instances": [1, 2]}, 400, "name them"),
        ("images:predict", {"inputs": {"nonsense": 1}}, 400, "input: inputs"),
        ("images:predict", {"instances": [{"nonsense": 1}]}, 400, "input: nonsense"),
        ("images:predict", {"signature_name": 3, "inputs": {}}, 400, "signature_name"),
        ("images:predict", {"signature_name": "no", "inputs": {}}, 400, '"no"'),
        ("images:predict", {"inputs": {"inputs": [ROW], "lengths": [17]}}, 400, " 17"),
        (
            "images:predict",
            {"inputs": {"inputs": [ROW], "lengths": [1.5]}},
            400,
            "(int32)",
        ),
        ("images:predict", {"inputs": {"inputs": [ROW], "lengths": [2**40]}}, 400, "int32's range"),
        ("images:predict", {"inputs": {"inputs": [["a"]], "lengths": [1]}}, 400, "strings"),
        ("images:predict", {"inputs": {"inputs": [[[1], [1, 2]]], "lengths": [2]}}, 400, "rows of"),
        ("images:predict", {"inputs": {"inputs": [ROW], "lengths": [16, 16]}}, 400, "batch sizes"),
        ("images:predict", {"inputs": {"inputs": ROW, "lengths": [16]}}, 400, "shape [16, 1]"),
        (
            "images:predict",
            b'{"inputs": {"inputs": [[[NaN]]], "lengths": [1]}}',
            400,
            "NaN",
        ),
        ("images:predict", {"inputs": {"inputs": [ROW] * 33, "lengths": [16] * 33}}, 400, "Task"),
        ("texts:predict", {"inputs": {"inputs": [[99]], "lengths": [1]}}, 400, "vocabulary"),
        ("nothing:predict", {"instances": [1]}, 404, "Latest(nothing)"),
        ("images/versions/7:predict", {"instances": [1]}, 404, "Specific(images, 7)"),
        ("images:regress", {"examples": []}, 501, "Regress"),
        ("images:explode", {}, 400, "POST /v1/models/images:explode"),
        ("images:classify", {"examples": 3}, 400, "'examples'"),
        (
            "images:predict",
            {"signature_name": "serving_classify", "instances": [{"b64": "//6A"}]},
            400,
            "tf.Example",
        ),
        ("images:predict", b" " * 1_100_000, 413, " 1000000 bytes"),
    ],
)
def test_mistakes_over_rest(server, path, body, status, part):
    found, answer = server.post(path, body)
    assert found == status, answer
    assert set(answer) == {"error"}
    assert part in answer["error"]
    assert "\n" not in answer["error"]


def test_mistakes_over_grpc(server):
    (sequence,) = sequences("images", [16])
    ask = server.predictions.Predict
    code, message = refused(ask, predict_request("nothing", sequence))
    assert code == "NOT_FOUND"
    assert "Latest(nothing)" in message
    assert refused(ask, predict_request("images", sequence, version=3))[0] == "NOT_FOUND"
    assert refused(ask, predict_pb2.PredictRequest())[0] == "INVALID_ARGUMENT"
    code, message = refused(ask, predict_request("images", sequence, "no"))
    assert code == "FAILED_PRECONDITION"
    assert '"no"' in message
    classification = classification_pb2.ClassificationRequest()
    classification.model_spec.name = "images"
    classification.model_spec.signature_name = "no"
    assert refused(server.predictions.Classify, classification)[0] == "INVALID_ARGUMENT"
    double = predict_request("images", sequence.astype(np.float64))
    code, message = refused(ask, double)
    assert code == "INVALID_ARGUMENT"
    assert re.search("'inputs' .*'serving_default' .*float64, .*float32", message)
    damaged = predict_request("images", sequence)
    damaged.inputs["inputs"].tensor_content = b"abc"
    assert refused(ask, damaged)[0] == "INVALID_ARGUMENT"
    nan = predict_request("images", sequence * np.nan)
    assert "NaN" in refused(ask, nan)[1]
    label = predict_request("images", sequence)
    label.model_spec.version_label = "stable"
    assert "label: stable" in refused(ask, label)[1]
    large = predict_request("images", np.zeros([400_000, 1], np.float32))
    assert refused(ask, large)[0] == "RESOURCE_EXHAUSTED"
    several = inference_pb2.MultiInferenceRequest()
    assert refused(server.predictions.MultiInference, several)[0] == "UNIMPLEMENTED"
    # The server lives.
    assert ask(predict_request("images", sequence), timeout=120).outputs


def test_deadlines_are_kept(server):
    (sequence,) = sequences("images", [16])
    with pytest.raises(grpc.RpcError) as caught:
        server.predictions.Predict(predict_request("images", sequence), timeout=1e-4)
    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED


@pytest.fixture
def impatient(tmp_path):
    """A server that waits a second for what is being sent."""
    small_exports.write_quick(tmp_path / "1")
    config = ModelConfig("images", tmp_path)
    with running([config], rest_timeout=1.0, poll_seconds=0.05) as found:
        yield found


def test_slow_and_vanishing_clients(impatient):
    host, port = "127.0.0.1", impatient.server.rest_api_port
    head = b"POST /v1/models/images:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n"
    with socket.create_connection((host, port), timeout=120) as slow:
        slow.sendall(head + b'{"inst')  # And no more.
        begin = time.monotonic()
        answer = slow.recv(4096)
        assert b" 504 " in answer.split(b"\r\n")[0]
        assert b"within 1 s" in answer
        assert 0.8 < time.monotonic() - begin < 100
    for _ in range(20):
        with socket.create_connection((host, port), timeout=120) as gone:
            gone.sendall(head + b'{"inst')
    body = {"instances": [{"inputs": ROW, "lengths": 16}]}
    assert impatient.post("images:predict", body)[0] == 200


def test_prometheus_reads_what_happened(server):
    labels = {"model_name": "images", "status": "OK"}
    name = ":tensorflow:serving:request_count"
    before = server.metric(name, **labels)
    server.post("images:predict", {"instances": [{"inputs": ROW, "lengths": 16}]})
    assert server.metric(name, **labels) == before + 1
    server.post("made_up_by_a_client:predict", {"instances": [1]})
    page = requests.get(f"{server.url}/monitoring/prometheus/metrics", timeout=120).text
    assert "made_up_by_a_client" not in page
    assert server.metric("t2aux_serve_loaded_version", model_name="images") == 1
    assert server.metric("process_resident_memory_bytes") > 1e7


def test_metrics_are_called_as_tensorflow_serving_calls_them(server):
    """Names and labels as in its util.cc, batching_session.cc, batching_util.h and metrics.cc."""
    (sequence,) = sequences("images", [16])
    server.predictions.Predict(predict_request("images", sequence), timeout=120)
    body = {
        "signature_name": "serving_classify",
        "examples": [{"inputs": sequence.ravel().tolist()}],
    }
    assert server.post("images:classify", body)[0] == 200
    assert server.post("images:predict", {"inputs": 1})[0] == 400
    assert server.get("/v1/models/images")[0] == 200
    page = requests.get(f"{server.url}/monitoring/prometheus/metrics", timeout=120).text
    found = {}
    for line in page.splitlines():
        sample = re.fullmatch(r"(:\w[\w:]*)(?:\{(.*)\})? \S+", line)
        if sample:
            pairs = dict(re.findall(r'(\w+)="([^"]*)"', sample[2] or ""))
            found.setdefault(sample[1], []).append(pairs)
    counters = {
        ":tensorflow:serving:request_count": {"model_name", "status"},
        ":tensorflow:core:graph_runs": set(),
        ":tensorflow:core:graph_run_time_usecs": set(),
        ":tensorflow:serving:batching_session:wrapped_run_count": set(),
        ":tensorflow:cc:saved_model:load_attempt_count": {"model_path", "status"},
        ":tensorflow:cc:saved_model:load_latency": {"model_path"},
    }
    histograms = {
        ":tensorflow:serving:request_latency": {"model_name", "API", "entrypoint"},
        ":tensorflow:serving:runtime_latency": {"model_name", "API", "runtime"},
        ":tensorflow:core:graph_run_time_usecs_histogram": set(),
        ":tensorflow:serving:batching_session:queuing_latency": {"thread_pool_name"},
        ":tensorflow:serving:batching_session:input_batch_size": set(),
        ":tensorflow:serving:batching_session:processed_batch_size": set(),
        ":tensorflow:serving:batching_session:padding_size": {"execution_batch_size"},
        ":tensorflow:serving:model_warmup_latency": {"model_path", "status"},
    }
    wanted = dict(counters)
    for name, labels in histograms.items():
        wanted |= {
            f"{name}_sum": labels,
            f"{name}_count": labels,
            f"{name}_bucket": labels | {"le"},
        }
    assert {name: set(labels[0]) for name, labels in found.items()} == wanted
    for name in counters:
        assert f"# TYPE {name} counter\n" in page
    latencies = [
        (p["API"], p["entrypoint"]) for p in found[":tensorflow:serving:request_latency_sum"]
    ]
    assert {("Predict", "GRPC"), ("classify", "REST"), ("", "REST")} <= set(latencies)
    statuses = found[":tensorflow:serving:request_count"]
    assert {"model_name": "images", "status": "INVALID_ARGUMENT"} in statuses
