"""`serving_classify`, as TF Serving's Classify calls it, and `describe`."""

import json

import numpy as np
import pytest
import tensorflow as tf

from t2aux.errors import ModelError
from t2aux.export import examples, saved_model
from t2aux_ondevice import litert
from t2aux_ondevice.preprocessing import DatasetInfo
from tests.export.conftest import kinds
from tests.export.test_export_saved_model import LENGTHS, load
from tests.export.test_export_tflite import EXACT, random_sequence


def classify(exported, serialized):
    return load(exported)["serving_classify"](inputs=tf.constant(serialized))


def example(**features):
    """A serialized tf.Example: lists of floats, of whole numbers or of bytes by name."""
    made = tf.train.Example()
    for name, values in features.items():
        feature = made.features.feature[name]
        kinds = {float: feature.float_list, int: feature.int64_list, bytes: feature.bytes_list}
        kinds[type(values[0])].value.extend(values)
    return made.SerializeToString()


def test_what_tf_serving_asks_of_a_classification(exported):
    found = saved_model.read_signatures(exported.directory)
    signature = found["serving_classify"]
    assert signature.method_name == "tensorflow/serving/classify"
    assert set(signature.inputs) == {"inputs"}
    assert set(signature.outputs) == {"classes", "scores"}
    types = {n: t.dtype for n, t in [*signature.inputs.items(), *signature.outputs.items()]}
    assert types == {
        "inputs": tf.string.as_datatype_enum,
        "classes": tf.string.as_datatype_enum,
        "scores": tf.float32.as_datatype_enum,
    }
    assert found["serving_default"].method_name == "tensorflow/serving/predict"
    described = litert.read_metadata(exported.directory)["artefacts"]["SavedModel"]["signatures"]
    assert {n: s["method"] for n, s in described.items()} == {
        n: s.method_name for n, s in found.items()
    }


def test_examples_of_different_lengths_in_one_batch(exported):
    sequences = [random_sequence(exported, n, seed=n) for n in LENGTHS]
    answers = classify(exported, [examples.serialized(s) for s in sequences])
    for sequence, names, scores in zip(
        sequences, answers["classes"].numpy(), answers["scores"].numpy(), strict=True
    ):
        wanted = exported.run.classifier(tf.constant(sequence[np.newaxis]))[0]
        order = np.argsort(-wanted, kind="stable")
        assert [n.decode() for n in names] == [exported.info.classes[i] for i in order]
        np.testing.assert_allclose(scores, wanted.numpy()[order], atol=EXACT)


@pytest.mark.parametrize("kind", kinds("characters", "bytes"))
def test_texts_and_ids_in_one_batch(exports, kind):
    exported = exports(kind)
    texts = ["good film", "ünknown ☃ chäracters", "x", "longer than twenty characters " * 3]
    as_text = [example(text=[t.encode()]) for t in texts]
    as_ids = [examples.serialized(exported.info.text_ids(t)) for t in texts]
    # A text's ids may be the longest of the batch, or another's; other features don't matter.
    mixed = [as_text[0], as_ids[1], example(text=[b"x"], weight=[1.0]), as_ids[3]]
    wanted = [exported.checkpoint.probabilities(exported.info.text_ids(t)) for t in texts]
    for batch in (as_text, as_ids, mixed, mixed[::-1]):
        scores = classify(exported, batch)["scores"].numpy()
        expected = -np.sort(-np.stack(wanted), axis=1)
        expected = expected[::-1] if batch[0] == mixed[3] else expected
        np.testing.assert_allclose(scores, expected, atol=EXACT)


@pytest.mark.parametrize(
    ("kind", "features", "message"),
    [
        ("rgb", {"inputs": [0.5] * 4}, "`inputs`.* 3 values"),
        ("rgb", {"pixels": [0.5] * 3}, "no feature `inputs`"),
        ("rgb", {"inputs": [1, 2, 3]}, "[Dd]ata type"),
        ("characters", {"inputs": [0.5]}, "[Dd]ata type"),
        ("characters", {"inputs": [256]}, "vocabulary"),
        ("characters", {"inputs": [2**32 + 1]}, "vocabulary"),
        ("characters", {"inputs": [-(2**32)]}, "negative"),
        ("characters", {"inputs": [1], "text": [b"a"]}, "`text` .*`inputs`"),
        ("characters", {"other": [1]}, "`text` .*`inputs`"),
        ("characters", {"text": [b"a", b"b"]}, "one text"),
        ("characters", {"text": [b""]}, "empty"),
    ],
)
def test_wrong_examples_are_errors(exports, kind, features, message):
    right = {"rgb": {"inputs": [0.5] * 6}}.get(kind, {"inputs": [1, 2]})
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        classify(exports(kind), [example(**right), example(**features)])


def test_an_invalid_example_is_an_error(exports):
    with pytest.raises(tf.errors.InvalidArgumentError, match="Could not parse"):
        classify(exports("rgb"), [b"no example"])


def test_a_server_describes_itself_to_clients(exported):
    signatures = load(exported)
    answers = signatures["describe"](batch=tf.constant([5, 5, 5]))["metadata"].numpy()
    assert answers.shape == (3,)
    described = json.loads(answers[0])
    assert set(described.pop("signatures")) == set(signatures)
    assert DatasetInfo.from_json(described["preprocessing"]) == exported.info
    written = litert.read_metadata(exported.directory)
    assert described == {name: written[name] for name in described}
    assert litert.check_description(described, "the server") == exported.info
    # REST sends strings as they are: these must be such that JSON holds them.
    assert answers[0].isascii()


@pytest.mark.parametrize(
    "change",
    [
        {"format": "other"},
        {"format_version": 2},
        {"preprocessing": {}},
        {"classes": ["a"]},
        {"state": ["h", "c"]},
        {"state": {"h": 8}},
        {"state": {"h": [8, 0]}},
    ],
)
def test_a_description_of_something_else_is_an_error(exports, change):
    described = {**litert.description(exports("rgb").info), **change}
    with pytest.raises(ModelError, match="the server"):
        litert.check_description(described, "the server")
