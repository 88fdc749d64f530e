"""The warm-up requests are TF Serving's own messages, and the SavedModel answers each."""

import collections

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from t2aux import tf_serving
from t2aux.errors import SettingError
from t2aux.export import warmup
from t2aux_ondevice import litert
from t2aux_ondevice.preprocessing import DatasetInfo
from tests import networks, small_exports
from tests.export.test_export_saved_model import load


def read(exported):
    """The requests, as TF Serving reads them."""
    path = exported.directory / tf_serving.WARM_UP
    records = tf.data.TFRecordDataset(str(path)).as_numpy_iterator()
    return [prediction_log_pb2.PredictionLog.FromString(record) for record in records]


def parts(log):
    """A request's signature and inputs, as TF Serving feeds them."""
    if log.HasField("predict_log"):
        request = log.predict_log.request
        inputs = {name: tf.make_ndarray(tensor) for name, tensor in request.inputs.items()}
        return request.model_spec.signature_name, inputs
    request = log.classify_log.request
    examples = [e.SerializeToString() for e in request.input.example_list.examples]
    return request.model_spec.signature_name, {"inputs": np.array(examples, object)}


def test_every_signature_has_every_batch_size(exported):
    sizes = collections.defaultdict(list)
    signatures = load(exported)
    logs = read(exported)
    assert len(logs) <= 1000
    for log in logs:
        name, inputs = parts(log)
        (batch,) = {len(value) for value in inputs.values()}
        sizes[name].append(batch)
        if batch <= 8:  # All answer alike, and this is quicker.
            answers = signatures[name](**{n: tf.constant(v) for n, v in inputs.items()})
            assert {value.shape[0] for value in answers.values()} == {batch}
    worth_it = set(signatures) - {"describe"}
    assert dict(sizes) == {name: list(tf_serving.BATCH_SIZES) for name in worth_it}


def test_requests_have_the_lengths_of_the_data(exports):
    exported = exports("vectors")  # Of the lengths 1, 4, 7, 9, 12 and 12.
    found = {
        len(inputs["lengths"]): inputs
        for name, inputs in map(parts, read(exported))
        if name == "serving_default"
    }
    assert found[1]["lengths"][0] in (7, 9)
    assert set(found[128]["lengths"]) == {1, 4, 7, 9, 12}
    assert found[128]["inputs"].shape == (128, 12, 2)
    texts = [i["text"] for n, i in map(parts, read(exports("characters"))) if n == "serving_text"]
    longest = max(len(s) for s in exports("characters").sequences)
    assert max(len(text) for text in texts[-1]) == longest


def test_the_file_is_described_and_small(exported):
    metadata = litert.read_metadata(exported.directory)
    assert metadata["artefacts"]["SavedModel"]["warmup"] == tf_serving.WARM_UP
    content = (exported.directory / tf_serving.WARM_UP).read_bytes()
    assert metadata["files"][tf_serving.WARM_UP] == litert.digest(content)
    assert len(content) < 100_000
    assert tf_serving.WARM_UP in (exported.directory / "README.md").read_text()


def test_a_long_sequence_takes_no_more_room():
    info = DatasetInfo("long", "image", ("a", "b"), channels=3, length=128 * 128, side=128)
    requests = warmup.requests(info, {"h": (128,), "c": (128,)}, np.array([128 * 128]), 28)
    assert sum(len(r.SerializeToString()) for r in requests) < 100_000


@pytest.mark.parametrize("info", [small_exports.IMAGES, small_exports.TEXT, small_exports.VECTORS])
def test_the_bytes_are_those_of_tensorflow_serving_api(info):
    state = {"h": (5,), "more": (2, 3)}
    for request in warmup.requests(info, state, np.array([3, 16, 90]), 4, (1, 3)):
        ours = request.SerializeToString(deterministic=True)
        theirs = prediction_log_pb2.PredictionLog.FromString(ours)
        assert not theirs.predict_log.request.HasField("request_options")
        assert theirs.SerializeToString(deterministic=True) == ours
        # Made from TensorFlow's arrays, the messages say the same.
        name, inputs = parts(theirs)
        made = prediction_log_pb2.PredictionLog()
        if theirs.HasField("classify_log"):
            made.classify_log.request.model_spec.signature_name = name
            examples = made.classify_log.request.input.example_list.examples
            examples.extend(tf.train.Example.FromString(e) for e in inputs["inputs"])
            assert made.SerializeToString(deterministic=True) == ours
        else:
            for key, value in inputs.items():
                tensor = theirs.predict_log.request.inputs[key]
                np.testing.assert_array_equal(tf.make_ndarray(tensor), value)
                assert tensor.dtype == tf.as_dtype(value.dtype).as_datatype_enum


def test_no_part_of_tensorflow_serving_api_is_needed(tmp_path, monkeypatch):
    import sys

    for name in [n for n in sys.modules if n.startswith("tensorflow_serving")]:
        monkeypatch.setitem(sys.modules, name, None)
    info = networks.text_info()
    count = warmup.write(tmp_path, info, {"h": (5,)}, np.array([4, 9]), 3, (1, 2, 5))
    assert count == 3 * 5
    records = list(tf.data.TFRecordDataset(str(tmp_path / tf_serving.WARM_UP)))
    assert len(records) == count


@pytest.mark.parametrize("sizes", [(), (0, 1), (1, 1), (2, 1), (-1,)])
def test_wrong_batch_sizes_are_errors(sizes):
    with pytest.raises(SettingError, match=f" {', '.join(map(str, sizes)) or 'none'}: .*1,2,4,8"):
        warmup.check_batch_sizes(sizes)


def test_too_many_batch_sizes_are_errors():
    warmup.check_batch_sizes(range(1, 201))
    with pytest.raises(SettingError, match=r"201 .* 200"):
        warmup.check_batch_sizes(range(1, 202))
