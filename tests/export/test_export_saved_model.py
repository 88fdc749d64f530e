"""The SavedModel, loaded as a server would."""

import json
import shutil

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tensorflow.core.protobuf import saved_model_pb2

from t2aux.errors import ModelError
from t2aux.export import saved_model, text
from t2aux.export.runtimes import SavedModelClassifier
from t2aux_ondevice.preprocessing import DatasetInfo
from tests.export.conftest import kinds
from tests.export.test_export_tflite import EXACT, random_sequence

LENGTHS = (12, 1, 7)


def load(exported):
    return exported.saved_model._signatures


def padded(exported, lengths, filler):
    """Random sequences in one batch, with a filler behind each one's end."""
    sequences = [random_sequence(exported, n, seed=n) for n in lengths]
    shape = (len(lengths), max(lengths), *sequences[0].shape[1:])
    batch = np.full(shape, filler, sequences[0].dtype)
    for row, sequence in zip(batch, sequences, strict=True):
        row[: len(sequence)] = sequence
    return tf.constant(batch), tf.constant(lengths, tf.int32), sequences


def test_signatures(exported):
    found = saved_model.read_signatures(exported.directory)
    more = {"text": {"serving_text"}, "image": {"serving_image"}, "vectors": set()}
    always = {"serving_default", "initial_state", "step_segment", "serving_classify", "describe"}
    assert set(found) == always | more[exported.info.kind]
    answer = load(exported)["describe"](batch=tf.zeros([2], tf.int32))["metadata"].numpy()
    assert json.loads(answer[1])["signatures"] == sorted(found)
    for signature in found.values():
        # TF Serving's batching joins requests along dimension 0.
        for tensor in signature.inputs.values():
            assert tensor.tensor_shape.dim[0].size == -1
    assert set(found["serving_default"].inputs) == {"inputs", "lengths"}
    assert set(found["step_segment"].inputs) == {"segment", "lengths", "h", "c"}
    assert set(found["step_segment"].outputs) == {"h", "c", "probabilities"}


def test_a_server_needs_no_kernel_of_ours(exported):
    saved = saved_model_pb2.SavedModel()
    saved.ParseFromString((exported.directory / "saved_model.pb").read_bytes())
    [graph] = [meta.graph_def for meta in saved.meta_graphs]
    nodes = [*graph.node, *(n for f in graph.library.function for n in f.node_def)]
    assert len(nodes) > 50
    assert not [node.op for node in nodes if "t2aux" in node.op.lower()]


def test_padding_does_not_matter(exported):
    filler = 10**6 if exported.info.is_text else np.nan
    inputs, lengths, sequences = padded(exported, LENGTHS, filler)
    answers = load(exported)["serving_default"](inputs=inputs, lengths=lengths)
    for row, sequence in enumerate(sequences):
        alone = load(exported)["serving_default"](
            inputs=tf.constant(sequence[np.newaxis]), lengths=tf.constant([len(sequence)])
        )
        together = answers["probabilities"][row]
        np.testing.assert_allclose(together, alone["probabilities"][0], atol=EXACT)
        wanted = exported.run.classifier(tf.constant(sequence[np.newaxis]))
        np.testing.assert_allclose(together, wanted[0], atol=EXACT)


def test_top_classes_and_names(exported):
    inputs, lengths, _ = padded(exported, LENGTHS, 0)
    answers = load(exported)["serving_default"](inputs=inputs, lengths=lengths)
    probabilities = answers["probabilities"].numpy()
    np.testing.assert_allclose(probabilities.sum(1), 1, atol=EXACT)
    order = np.argsort(-probabilities, axis=1)[:, :5]
    np.testing.assert_array_equal(answers["classes"], order)
    names = [[exported.info.classes[i] for i in row] for row in order]
    assert [[n.decode() for n in row] for row in answers["names"].numpy()] == names
    best = np.take_along_axis(probabilities, order, 1)
    np.testing.assert_array_equal(answers["top_probabilities"], best)


@pytest.mark.parametrize("kind", ["rgb", "characters", "vectors"])
@given(segment=st.integers(1, 14), lengths=st.lists(st.integers(1, 12), min_size=1, max_size=4))
@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_streaming_in_any_segments_equals_the_whole(exports, kind, segment, lengths):
    exported = exports(kind)
    inputs, lengths, _ = padded(exported, lengths, 0)
    whole = exported.saved_model.batch(inputs, lengths)
    *_, (done, answer) = exported.saved_model.stream_batch(inputs, lengths, segment)
    assert done == inputs.shape[1]
    np.testing.assert_allclose(answer, whole, atol=EXACT)


def test_initial_state_is_zero(exported):
    state = load(exported)["initial_state"](batch=tf.constant([5, 5, 5]))
    for name in ("h", "c"):
        np.testing.assert_array_equal(state[name], np.zeros([3, 8]))


def test_a_segment_of_no_steps_keeps_the_state(exported):
    inputs, _, _ = padded(exported, LENGTHS, 0)
    h, c = tf.random.stateless_normal([2, 3, 8], seed=[0, 1])
    new = load(exported)["step_segment"](segment=inputs, lengths=tf.constant([0, 12, 0]), h=h, c=c)
    for name, old in (("h", h), ("c", c)):
        np.testing.assert_array_equal(new[name][::2], old[::2])
        assert (new[name][1] != old[1]).numpy().any()


@pytest.mark.parametrize(
    ("signature", "lengths", "message"),
    [
        ("serving_default", [12, 0, 3], "less than 1"),
        ("serving_default", [12, 13, 3], "number of steps"),
        ("serving_default", [12, 3], "one entry"),
        ("step_segment", [12, -1, 3], "less than 0"),
        ("step_segment", [12, 13, 3], "number of steps"),
    ],
)
def test_wrong_lengths_are_errors(exported, signature, lengths, message):
    inputs, _, _ = padded(exported, LENGTHS, 0)
    state = {n: tf.zeros([3, 8]) for n in ("h", "c")} if signature == "step_segment" else {}
    name = "segment" if state else "inputs"
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        load(exported)[signature](**{name: inputs, "lengths": tf.constant(lengths), **state})


@pytest.mark.parametrize("kind", kinds("characters", "bytes"))
@pytest.mark.parametrize(("value", "message"), [(-1, "negative"), (256, "vocabulary")])
def test_wrong_ids_are_errors(exports, kind, value, message):
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        load(exports(kind))["serving_default"](
            inputs=tf.constant([[0, 1, value]]), lengths=tf.constant([3])
        )


def text_info(tokens, max_length):
    return DatasetInfo(
        name="made up",
        kind="text",
        classes=("a", "b"),
        max_length=max_length,
        tokens=tokens,
        vocabulary=("\ufffd", *"aeé \n\0日\u0301😀") if tokens == "characters" else None,
    )


# Any text that UTF-8 can hold: all but lone surrogates.
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
KNOWN = st.text("aeé \n\0日\u0301😀bß☃", max_size=30)


@pytest.mark.parametrize("tokens", ["characters", "bytes"])
@pytest.mark.parametrize("max_length", [None, 5])
@given(texts=st.lists(TEXT | KNOWN, min_size=1, max_size=5))
@example(texts=["\ufeffa", "a\0b", "\r\n", "\u2028a", "\ufffda", "e\u0301é", "😀" * 7])
@settings(max_examples=60, deadline=None)
def test_text_becomes_the_same_ids_in_the_graph(tokens, max_length, texts):
    info = text_info(tokens, max_length)
    texts = [t for t in texts if t.strip()] or ["a"]
    ids, lengths = text.TextIds(info)(tf.constant([t.encode() for t in texts]))
    for row, length, given_text in zip(ids.numpy(), lengths.numpy(), texts, strict=True):
        np.testing.assert_array_equal(row[:length], info.text_ids(given_text))
        assert not row[length:].any()


@pytest.mark.parametrize("kind", kinds("characters", "bytes"))
def test_texts_are_classified_as_their_ids(exports, kind):
    exported = exports(kind)
    texts = ["good film", "ünknown ☃ chäracters", "x", "longer than twenty characters " * 3]
    answers = exported.saved_model.text_batch(texts)
    for answer, given_text in zip(answers, texts, strict=True):
        wanted = exported.checkpoint.probabilities(exported.info.text_ids(given_text))
        np.testing.assert_allclose(answer, wanted, atol=EXACT)


@pytest.mark.parametrize("kind", kinds("characters", "bytes"))
def test_an_empty_text_is_an_error(exports, kind):
    with pytest.raises(tf.errors.InvalidArgumentError, match="empty"):
        exports(kind).saved_model.text_batch(["good", ""])


def test_only_plain_operations(exported):
    graph = load(exported)["serving_default"].graph.as_graph_def()
    names = {node.op for f in graph.library.function for node in f.node_def}
    assert "MatMul" in names
    assert not [n for n in names if any(w in n for w in ("Cudnn", "Xla", "PyFunc", "Custom"))]


def test_a_damaged_saved_model_is_an_error(exports, tmp_path):
    for name, damage in (
        ("saved_model.pb", lambda p: p.write_bytes(p.read_bytes()[:-9])),
        ("variables/variables.index", lambda p: p.unlink()),
        ("metadata.json", lambda p: p.write_text("{")),
    ):
        copy = tmp_path / name.replace("/", "_")
        shutil.copytree(exports("vectors").directory, copy)
        damage(copy / name)
        with pytest.raises(ModelError, match=f"{copy}.*{name}"):
            SavedModelClassifier(copy)
