"""The values of requests: what is converted, and what is refused, on every signature."""

import base64
import json
import re

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2
from tensorflow_serving.apis import classification_pb2, predict_pb2

from t2aux.export.examples import serialized
from tests.serving.test_serving_protocols import refused

HALF = [0.5] * 16
ROW = [[0.5]] * 16
NAN, INFINITE = float("nan"), float("inf")


def default(row, length=16):
    return {"instances": [{"inputs": row, "lengths": length}]}


def classify(values):
    return {"signature_name": "serving_classify", "examples": [{"inputs": values}]}


def with_example(content):
    encoded = base64.b64encode(content).decode()
    return {"signature_name": "serving_classify", "instances": [{"b64": encoded}]}


def segment(values=None, length=1, **state):
    inputs = {"segment": [values or [[0.5]]], "lengths": [length]}
    zeros = {"h": [[0.0] * 5], "c": [[0.0] * 5]}
    return {"signature_name": "step_segment", "inputs": {**inputs, **zeros, **state}}


def replaced(values, value, at=3):
    return [*values[:at], value, *values[at + 1 :]]


@pytest.mark.parametrize(
    ("row", "part"),
    [
        ([[1]] * 16, None),
        ([[1], [0.5]] * 8, None),
        ([[-0.0]] * 16, None),
        ([[1e-320]] * 16, None),
        ([[16_777_215]] * 16, None),
        ([[16_777_217.5]] * 16, None),
        ([[True]] * 16, "true or false"),
        (replaced(ROW, [True]), "true or false"),
        (replaced([[1]] * 16, [False]), "true or false"),
        ([["0.5"]] * 16, "strings"),
        (replaced(ROW, ["0.5"]), "strings"),
        (replaced(ROW, [None]), "null"),
        (replaced(ROW, None), "null"),
        (replaced(ROW, [{}]), "objects"),
        (replaced(ROW, [{"b64": "AAAA"}]), "objects"),
        (replaced(ROW, [[0.5]]), "different lengths"),
        (replaced(ROW, []), "different lengths"),
        (replaced(ROW, 0.5), "different lengths"),
        ([[]] * 16, "empty"),
        ([], "empty"),
        (0.5, "shape [1]"),
        ([0.5] * 16, "shape [1, 16]"),
        ([[0.5, 0.5]] * 16, "shape [1, 16, 2]"),
        ([[16_777_217]] * 16, "16777217 to float32"),
        (replaced(ROW, [2**63]), "to float32"),
        (replaced(ROW, [10**400]), "out of range"),
        (replaced(ROW, [NAN]), "NaN"),
        (replaced(ROW, [INFINITE]), "NaN"),
        (replaced(ROW, [-INFINITE]), "NaN"),
        (replaced(ROW, [1e39]), "NaN"),
        ([[3e38]] * 16, None),
    ],
)
def test_numbers_of_predict(server, row, part):
    status, answer = server.post("images:predict", json.dumps(default(row)).encode())
    if part is None:
        assert status in (200, 400), answer
        # The largest floats may be too much for the weights; then this is said.
        assert status == 200 or "too large" in answer["error"]
    else:
        assert status == 400, answer
        assert part in answer["error"]


@pytest.mark.parametrize(
    ("lengths", "part"),
    [
        (16.0, r"\(int32\)"),
        (True, "true or false"),
        ("16", "strings"),
        (None, "null"),
        ([16], "shape"),
        (2**31, "int32's range"),
        (-(2**63), "int32's range"),
        (10**30, "out of range"),
        (0, "at least 1"),
        (-16, "at least 1"),
        (15, "15 steps .* 16"),
    ],
)
def test_lengths_of_predict(server, lengths, part):
    status, answer = server.post("images:predict", default(ROW, lengths))
    assert (status, set(answer)) == (400, {"error"})
    assert re.search(part, answer["error"])


@pytest.mark.parametrize("kind", ["images", "texts", "vectors"])
@pytest.mark.parametrize("steps", [1, 15, 16, 17])
def test_a_length_that_the_model_was_not_made_for(server, kind, steps):
    """On every signature; images have 16 steps, the others any number."""
    right = kind != "images" or steps == 16
    step = {"images": [0.5], "texts": 1, "vectors": [0.5, 0.5]}[kind]
    flat = np.ravel([step] * steps).tolist()
    answers = [
        server.post(f"{kind}:predict", default([step] * steps, steps)),
        server.post(f"{kind}:classify", classify(flat)),
        server.post(f"{kind}:predict", with_example(serialized(np.array(flat)))),
    ]
    for status, answer in answers:
        assert status == (200 if right else 400), answer
        if not right:
            assert re.search(rf"\b{steps} step{'s' * (steps > 1)} .* 16", answer["error"])
    status, answer = server.post(f"{kind}:predict", segment([step] * steps, steps))
    assert status == (400 if kind == "images" and steps > 16 else 200), answer


@pytest.mark.parametrize(
    ("values", "parts"),
    [
        ([0, 1] * 8, ("'inputs'", "whole numbers", "decimal point")),
        ([True, False] * 8, ("'inputs'", "whole numbers", "decimal point")),
        (["a", "b"], ("'inputs'", "strings", "decimal point")),
        ([{"b64": "YQ=="}], ("'inputs'", "strings", "decimal point")),
        (1, ("'inputs'", "whole numbers")),
        ([0.5, 1], ("'inputs'", "mixes types")),
        ([0.5, "a"], ("'inputs'", "mixes types")),
        ([0.5, True], ("'inputs'", "mixes types")),
        ([None], ("'inputs'", "null")),
        ([[0.5] * 16], ("'inputs'", "lists")),
        ([{"a": 1}], ("'inputs'", "objects")),
        ([2**63], ("'inputs'", "out of range")),
        (replaced(HALF, NAN), ("'inputs'", "NaN")),
        (replaced(HALF, INFINITE), ("'inputs'", "NaN")),
        (replaced(HALF, 1e39), ("'inputs'", "NaN")),
        ([], ("`inputs`",)),
        ([0.5] * 17, ("17 steps", " 16")),
    ],
)
def test_features_of_classify(server, values, parts):
    status, answer = server.post("images:classify", json.dumps(classify(values)).encode())
    assert (status, set(answer)) == (400, {"error"})
    for part in parts:
        assert part in answer["error"]
    assert "stack trace" not in answer["error"]


@pytest.mark.parametrize(
    ("example", "part"),
    [
        ({"inputs": [1.0, 2.0]}, r"'inputs' .*\(float\)"),
        ({"inputs": ["a"]}, "'inputs' .*strings"),
        ({"text": [1]}, "'text' .*whole numbers"),
        ({"text": [0.5]}, r"'text' .*\(float\)"),
        ({"text": ["a", "b"]}, "one text"),
        ({"inputs": [99]}, "vocabulary"),
        ({"inputs": [-1]}, "negative"),
        ({}, "either"),
    ],
)
def test_features_of_texts(server, example, part):
    body = {"signature_name": "serving_classify", "examples": [example]}
    status, answer = server.post("texts:classify", body)
    assert status == 400
    assert re.search(part, answer["error"])


def test_unused_features_do_not_matter(server):
    body = classify(HALF)
    right = server.post("images:classify", body)
    assert right[0] == 200
    body["examples"][0].update(other=[1, 2], text=["a"], nan=[NAN])
    assert server.post("images:classify", json.dumps(body).encode()) == right


@pytest.mark.parametrize("value", [NAN, INFINITE, -INFINITE])
@pytest.mark.parametrize("name", ["segment", "h", "c"])
def test_a_state_is_finite(server, name, value):
    changed = {"segment": [[[value]]], "h": [[value] * 5], "c": [[value] * 5]}[name]
    status, answer = server.post("images:predict", json.dumps(segment(**{name: changed})).encode())
    assert status == 400
    assert f"'{name}'" in answer["error"]
    assert server.post("images:predict", segment())[0] == 200


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("value", [NAN, INFINITE, 0.5])
def test_tensors_over_grpc(server, dtype, value):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "images"
    values = np.full([1, 16, 1], value, dtype)
    request.inputs["lengths"].CopyFrom(tf.make_tensor_proto(np.array([16], np.int32)))
    for proto in (
        tf.make_tensor_proto(values),
        tensor_pb2.TensorProto(
            dtype=tf.as_dtype(dtype).as_datatype_enum,
            tensor_shape=tf.TensorShape(values.shape).as_proto(),
            tensor_content=values.tobytes(),
        ),
    ):
        request.inputs["inputs"].CopyFrom(proto)
        if dtype == np.float32 and value == 0.5:
            assert server.predictions.Predict(request, timeout=60).outputs
            continue
        code, message = refused(server.predictions.Predict, request)
        assert code == "INVALID_ARGUMENT"
        name = np.dtype(dtype).name
        assert re.search("NaN" if dtype == np.float32 else f"{name}, .*float32", message)


@pytest.mark.parametrize(
    ("feature", "part"),
    [
        (tf.train.Feature(int64_list={"value": [1] * 16}), r"'inputs' .*\(int64\)"),
        (tf.train.Feature(bytes_list={"value": [b"a"]}), "'inputs' .*strings"),
        (tf.train.Feature(float_list={"value": [NAN] * 16}), "'inputs' .*NaN"),
        (tf.train.Feature(float_list={"value": [0.5] * 8}), "8 steps"),
        (tf.train.Feature(), "`inputs`"),
    ],
)
def test_features_over_grpc(server, feature, part):
    example = tf.train.Example(features={"feature": {"inputs": feature}})
    request = classification_pb2.ClassificationRequest()
    request.model_spec.name = "images"
    request.model_spec.signature_name = "serving_classify"
    request.input.example_list.examples.append(example)
    code, message = refused(server.predictions.Classify, request)
    assert code == "INVALID_ARGUMENT"
    assert re.search(part, message)
    predict = predict_pb2.PredictRequest(model_spec=request.model_spec)
    content = tf.make_tensor_proto([example.SerializeToString()], tf.string)
    predict.inputs["inputs"].CopyFrom(content)
    assert refused(server.predictions.Predict, predict) == (code, message)


def test_base64_as_abseil_reads_it(server):
    content = serialized(np.array(HALF))
    padded = base64.b64encode(content).decode()
    assert padded.endswith("=")
    lines = base64.encodebytes(content).decode()
    right = server.post("images:predict", with_example(content))
    assert right[0] == 200

    def ask(text):
        body = {"signature_name": "serving_classify", "instances": [{"b64": text}]}
        return server.post("images:predict", body)

    for text in (
        lines,
        lines.replace("\n", "\r\n"),
        " ".join(padded),
        f"\t{padded}\f\v",
        padded.rstrip("="),
        lines.replace("=", "").rstrip(),
        padded.replace("=", " = "),
    ):
        assert ask(text) == right, text
    text = {"signature_name": "serving_text", "inputs": {"text": [{"b64": "YW\nJj"}]}}
    assert server.post("texts:predict", text)[0] == 200
    stripped = padded.rstrip("=")
    for text in (
        f"{stripped}====",
        f"{stripped}A{'=' * 3}" if len(stripped) % 4 == 0 else f"{padded}=",
        f"={padded}",
        f"{padded}AAAA",
        stripped[:-1] if len(stripped) % 4 == 2 else stripped + "A" * (-len(stripped) % 4 + 1),
        padded.replace("A", "-", 1),
        padded.replace("A", "_", 1),
        padded.replace("A", "\u00a0", 1),
        padded.replace("A", "\0", 1),
        padded.replace("A", "é", 1),
    ):
        status, answer = ask(text)
        assert status == 400, text
        assert "base64" in answer["error"]


@pytest.mark.parametrize(
    ("body", "part"),
    [
        ({"inputs": {"text": "hello"}}, r"shape \[\], .*\[-1\]"),
        ({"inputs": "hello"}, r"shape \[\], .*\[-1\]"),
        ({"inputs": {"b64": "YQ=="}}, r"shape \[\], .*\[-1\]"),
        ({"inputs": [["a"]]}, r"shape \[1, 1\], .*\[-1\]"),
        ({"inputs": []}, "empty"),
        ({"inputs": [1]}, "'text' .*whole numbers"),
        ({"inputs": [None]}, "'text' .*null"),
        ({"inputs": [{"b64": 1}]}, "'text' .*objects"),
        ({"inputs": [{"b64": "YQ==", "more": 1}]}, "'text' .*objects"),
        ({"instances": [{"b65": "YQ=="}]}, "input: b65"),
        ({"instances": ["a", {"text": "b"}]}, "'text' .*objects"),
        ({"instances": {"text": "a"}}, "'instances' .*list"),
        ({"instances": "a"}, "'instances' .*list"),
        ({"instances": ["a"], "inputs": ["a"]}, "one of 'instances' and 'inputs'"),
        ({"instances": [""]}, "text is empty"),
        ({"signature_name": None, "instances": ["a"]}, "signature_name"),
    ],
)
def test_strings_and_shapes(server, body, part):
    status, answer = server.post("texts:predict", {"signature_name": "serving_text", **body})
    assert (status, set(answer)) == (400, {"error"})
    assert re.search(part, answer["error"])
    assert "bytes" not in answer["error"].replace("strings (bytes)", "")


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"", "JSON Parse"),
        (b"null", "JSON object"),
        (b'"a"', "JSON object"),
        (b"{'instances': [1]}", "JSON Parse"),
        (b'{"instances": [1],}', "JSON Parse"),
        (b'{"instances": ["\xe9"]}', "JSON Parse"),
        (b'{"instances": [1]} {}', "JSON Parse"),
        (b'{"instances": [1], "instances": [2]}', "'instances' twice"),
        (b'{"instances": [{"inputs": 1, "lengths": 1, "inputs": 2}]}', "'inputs' twice"),
        (b'{"inputs": {"inputs": ' + b"[" * 200 + b"]" * 200 + b', "lengths": [1]}}', "nested"),
        (
            b'{"inputs": {"inputs": ' + b"[" * 40 + b"1" + b"]" * 40 + b', "lengths": [1]}}',
            "nested",
        ),
        (b'{"inputs": {"inputs": [[[1e999]]], "lengths": [1]}}', "infinite"),
        (b'{"inputs": {"inputs": [[[-Infinity]]], "lengths": [1]}}', "infinite"),
        (
            b'{"inputs": {"inputs": [[[1' + b"0" * 5000 + b']]], "lengths": [1]}}',
            "JSON Parse",
        ),
    ],
)
def test_bodies(server, content, part):
    status, answer = server.post("images:predict", content)
    assert (status, set(answer)) == (400, {"error"})
    assert part in answer["error"]
    assert len(answer["error"]) < 500


def test_an_answer_that_is_not_finite_is_an_error(server):
    """Over both protocols: JSON has no NaN, and no class is the best of NaN."""
    state = {"h": [[0.0] * 5], "c": [[3.4e38] * 5]}
    status, answer = server.post("images:predict", segment(**state))
    assert status == 400
    assert "too large" in answer["error"]
    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = "images", "step_segment"
    for name, value in {"segment": [[[0.5]]], **state}.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(np.array(value, np.float32)))
    request.inputs["lengths"].CopyFrom(tf.make_tensor_proto(np.array([1], np.int32)))
    assert refused(server.predictions.Predict, request) == ("INVALID_ARGUMENT", answer["error"])
