"""The TensorFlow Lite files in LiteRT."""

import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from t2aux import litert
from t2aux.errors import UserError
from t2aux.export import tflite
from t2aux.export.runtimes import CheckpointClassifier
from tests import networks

EXACT = 1e-6


def probabilities(exported, sequence):
    """The checkpoint's, of one sequence."""
    return exported.checkpoint.probabilities(sequence)


def random_sequence(exported, steps, seed=0):
    rng = np.random.default_rng(seed)
    if exported.info.is_text:
        return rng.integers(0, exported.info.vocabulary_size, steps).astype(np.int32)
    return rng.random((steps, exported.info.channels)).astype(np.float32)


def runner(exported, name):
    """LiteRT's own runner, without any of this project's code."""
    interpreter = Interpreter(str(exported.directory / name))
    return interpreter.get_signature_runner()


def test_whole_file_is_fused(exported):
    names = tflite.operators((exported.directory / litert.WHOLE).read_bytes())
    assert names.count("UNIDIRECTIONAL_SEQUENCE_LSTM") == 1
    assert "WHILE" not in names
    assert not [n for n in names if n.startswith(("CUSTOM", "Flex"))]


def test_streaming_file_has_only_builtin_operations(exported):
    names = tflite.operators((exported.directory / litert.STREAM).read_bytes())
    assert names.count("WHILE") == 1
    assert not [n for n in names if n.startswith(("CUSTOM", "Flex"))]


def test_operators_are_those_that_litert_sees(exported):
    for name in (litert.WHOLE, litert.STREAM):
        path = exported.directory / name
        seen = [op["op_name"] for op in Interpreter(str(path))._get_ops_details()]
        assert tflite.operators(path.read_bytes())[: len(seen)] == seen


@pytest.mark.parametrize(
    ("required", "forbidden", "message"),
    [
        ({"UNIDIRECTIONAL_SEQUENCE_LSTM": 1}, set(), "lacks UNIDIRECTIONAL_SEQUENCE_LSTM"),
        ({}, {"WHILE"}, "has WHILE"),
    ],
)
def test_a_file_that_did_not_fuse_is_refused(exports, required, forbidden, message):
    unfused = (exports("grey").directory / litert.STREAM).read_bytes()
    with pytest.raises(UserError, match=message):
        tflite.check_operators(unfused, required, forbidden)


def test_whole_file_equals_the_checkpoint(exported):
    for sequence in exported.sequences:
        answer = exported.whole.probabilities(sequence)
        np.testing.assert_allclose(answer, probabilities(exported, sequence), atol=EXACT)


def test_cells_may_grow_beyond_ten():
    # There the converter's fused LSTM would clip them.
    info = networks.vectors_info(length=40)
    classifier = networks.classifier(info, hidden=8)
    rng = np.random.default_rng(0)
    for variable in classifier.variables:
        variable.assign(rng.normal(size=variable.shape))
    forget = np.repeat([0.0, 1.0, 0.0, 0.0], 8)
    classifier.lstm.bias.assign(classifier.lstm.bias + 8 * forget)
    sequence = np.ones([40, 1], np.float32)
    state = classifier.scan(tf.constant(sequence[np.newaxis]), classifier.init_state(1))
    assert np.abs(state.c).max() > 15
    content = tflite.convert_whole(classifier)
    (options,) = tflite.fused_options(content)
    assert options.CellClip() == options.ProjClip() == 0
    run = Interpreter(model_content=content).get_signature_runner()
    answer = run(inputs=sequence[np.newaxis])["probabilities"][0]
    wanted = CheckpointClassifier(classifier).probabilities(sequence)
    np.testing.assert_allclose(answer, wanted, atol=EXACT)
    assert 0.01 < wanted.max() < 0.99


def test_answers_do_not_depend_on_what_was_asked_before(exported):
    run = runner(exported, litert.WHOLE)
    # Short where it may be: a long sequence washes an earlier state out.
    steps = exported.info.length or 2
    for seed in (0, 1, 2, 0, 0):
        sequence = random_sequence(exported, steps, seed)
        answer = run(inputs=sequence[np.newaxis])["probabilities"][0]
        np.testing.assert_allclose(answer, probabilities(exported, sequence), atol=EXACT)


@pytest.mark.parametrize("kind", ["grey", "vectors"])
def test_nan_does_not_outlast_its_call(exports, kind):
    exported = exports(kind)
    run = runner(exported, litert.WHOLE)
    sequence = random_sequence(exported, exported.info.length or 3)
    assert np.isnan(run(inputs=sequence[np.newaxis] * np.nan)["probabilities"]).all()
    answer = run(inputs=sequence[np.newaxis])["probabilities"][0]
    np.testing.assert_allclose(answer, probabilities(exported, sequence), atol=EXACT)


@pytest.mark.parametrize("kind", ["vectors", "characters"])
@pytest.mark.parametrize("steps", [1, 2, 65])
def test_any_length_where_lengths_vary(exports, kind, steps):
    exported = exports(kind)
    sequence = random_sequence(exported, steps)
    answer = exported.whole.probabilities(sequence)
    np.testing.assert_allclose(answer, probabilities(exported, sequence), atol=EXACT)


@pytest.mark.parametrize("kind", ["grey", "characters", "vectors"])
@given(chunks=st.lists(st.integers(1, 25), min_size=1, max_size=8), seed=st.integers(0, 9))
@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_streaming_in_any_segments_equals_the_whole(exports, kind, chunks, seed):
    exported = exports(kind)
    step = runner(exported, litert.STREAM)
    steps = exported.info.length or sum(chunks)
    sequence = random_sequence(exported, steps, seed)
    h = c = np.zeros([1, 8], np.float32)
    begin = 0
    for chunk in [*chunks, steps]:
        if begin == steps:
            break
        segment = sequence[begin : begin + chunk]
        answer = step(segment=segment[np.newaxis], h=h, c=c)
        h, c = answer["h"], answer["c"]
        begin += len(segment)
    wanted = probabilities(exported, sequence)
    np.testing.assert_allclose(answer["probabilities"][0], wanted, atol=EXACT)


def test_streaming_ends_at_the_whole(exported):
    for sequence in exported.sequences[:3]:
        *_, (steps, answer) = exported.whole.stream(sequence, 4)
        assert steps == len(sequence)
        np.testing.assert_allclose(answer, exported.whole.probabilities(sequence), atol=EXACT)


def test_weights_are_stored_once_in_float32(exported):
    classifier = exported.run.classifier
    weights = 4 * sum(int(np.prod(v.shape)) for v in classifier.variables)
    # Folding the input layer into the kernel makes a row of 4 H of each channel or id.
    folded = 4 * 4 * 8 * (exported.info.vocabulary_size or exported.info.channels)
    for name in (litert.WHOLE, litert.STREAM):
        model = schema.Model.GetRootAsModel((exported.directory / name).read_bytes(), 0)
        sizes = [model.Buffers(i).DataLength() for i in range(model.BuffersLength())]
        assert weights / 2 < sum(sizes) < weights + folded + 1000
        largest = 4 * max(int(np.prod(v.shape)) for v in classifier.variables)
        assert max(sizes) <= max(largest, folded)
