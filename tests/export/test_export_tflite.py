"""The TensorFlow Lite files in LiteRT."""

import json
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from t2aux.errors import DependencyError
from t2aux.export import flatbuffer, tflite
from t2aux.export.runtimes import CheckpointClassifier
from t2aux_ondevice import litert
from t2aux_ondevice.sequences import segments
from tests import cli_helpers, networks

# The same in float32, summed in another order: up to 1.2e-6 was seen after 53 steps.
EXACT = 5e-6
LOOP = "WHILE"


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


def test_files_have_only_builtin_operations(exported):
    # XNNPACK runs the loop's dense operations; a fused LSTM would take twice the time.
    for form, wanted in (("whole", LOOP), ("stream", LOOP), ("stateful", tflite.FUSED)):
        content = (exported.directory / litert.file_name(form)).read_bytes()
        names = flatbuffer.operators(content)
        assert {LOOP, tflite.FUSED} & set(names) == {wanted}
        assert not [n for n in names if n.startswith(("CUSTOM", "Flex"))]


def test_a_known_length_needs_no_second_loop(exports):
    # 25 steps, two a pass, and one that is left; nine steps would be none.
    whole = (exports("rgb").directory / litert.WHOLE).read_bytes()
    assert flatbuffer.operators(whole).count(LOOP) == 2
    even = networks.classifier(networks.vectors_info(length=24))
    assert flatbuffer.operators(tflite.convert(even, "whole")).count(LOOP) == 1


def test_operators_are_those_that_litert_sees(exported):
    for form in litert.FORMS:
        path = exported.directory / litert.file_name(form)
        seen = [op["op_name"] for op in Interpreter(str(path))._get_ops_details()]
        assert flatbuffer.operators(path.read_bytes())[: len(seen)] == seen


@pytest.mark.parametrize(
    ("required", "forbidden", "message"),
    [
        ({"UNIDIRECTIONAL_SEQUENCE_LSTM": 1}, set(), "UNIDIRECTIONAL_SEQUENCE_LSTM"),
        ({}, {"WHILE"}, "WHILE"),
    ],
)
def test_a_file_that_did_not_fuse_is_refused(exports, required, forbidden, message):
    unfused = (exports("rgb").directory / litert.STREAM).read_bytes()
    with pytest.raises(DependencyError, match=message):
        flatbuffer.check_operators(unfused, required, forbidden)


def test_whole_file_equals_the_checkpoint(exported):
    for sequence in exported.sequences:
        answer = exported.whole.probabilities(sequence)
        np.testing.assert_allclose(answer, probabilities(exported, sequence), atol=EXACT)


def test_cells_may_grow_beyond_ten():
    # There the converter's fused LSTM would clip them.
    info = networks.vectors_info(length=40)
    classifier = networks.classifier(info, hidden=8)
    rng = np.random.default_rng(0)
    for variable in classifier.weights:
        variable.assign(rng.normal(size=variable.shape))
    forget = np.repeat([0.0, 1.0, 0.0, 0.0], 8)
    classifier.core.bias.assign(classifier.core.bias + 8 * forget)
    sequence = np.ones([40, 1], np.float32)
    state = classifier.scan(tf.constant(sequence[np.newaxis]), classifier.init_state(1))
    assert np.abs(state.c).max() > 15
    content = tflite.convert(classifier, "stateful", segment=40)
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(content, 0))
    (options,) = flatbuffer.fused_options(model)
    assert options.cellClip == options.projClip == 0
    run = Interpreter(model_content=content).get_signature_runner()
    answer = run(segment=sequence[np.newaxis])["probabilities"][0]
    wanted = CheckpointClassifier(classifier).probabilities(sequence)
    np.testing.assert_allclose(answer, wanted, atol=EXACT)
    assert 0.01 < wanted.max() < 0.99


def test_answers_do_not_depend_on_earlier_requests(exported):
    run = runner(exported, litert.WHOLE)
    # Short where it may be: a long sequence washes an earlier state out.
    steps = exported.info.length or 2
    for seed in (0, 1, 2, 0, 0):
        sequence = random_sequence(exported, steps, seed)
        answer = run(inputs=sequence[np.newaxis])["probabilities"][0]
        np.testing.assert_allclose(answer, probabilities(exported, sequence), atol=EXACT)


@pytest.mark.parametrize("kind", ["rgb", "vectors"])
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


@pytest.mark.parametrize("kind", ["rgb", "characters", "vectors"])
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
    weights = 4 * sum(int(np.prod(v.shape)) for v in classifier.weights)
    # Folding the input layer into the kernel makes a row of 4 H of each channel or id.
    folded = 4 * 4 * 8 * (exported.info.vocabulary_size or exported.info.channels)
    for name in map(litert.file_name, litert.FORMS):
        model = schema.Model.GetRootAsModel((exported.directory / name).read_bytes(), 0)
        sizes = [model.Buffers(i).DataLength() for i in range(model.BuffersLength())]
        assert weights / 2 < sum(sizes) < weights + folded + 1000
        largest = 4 * max(int(np.prod(v.shape)) for v in classifier.weights)
        assert max(sizes) <= max(largest, folded)


def test_a_stateful_file_continues_until_it_is_reset(exported):
    name = litert.file_name("stateful")
    stateful = litert.LiteRTClassifier(exported.directory / name)
    segment = 2 * stateful.metadata["artefacts"][name]["segment"]
    for sequence in (exported.sequences[0], *exported.sequences[:3]):
        *_, (steps, answer) = stateful.stream(sequence, segment)
        assert steps == len(sequence)
        np.testing.assert_allclose(answer, probabilities(exported, sequence), atol=EXACT)
    # Without a reset, the second sequence is the first one's continuation.
    run = runner(exported, name)
    sequence = random_sequence(exported, exported.info.length or 3)
    size = run.get_input_details()["segment"]["shape"][1]
    for _ in range(2):
        for begin in range(0, len(sequence), size):
            answer = run(segment=sequence[np.newaxis, begin : begin + size])["probabilities"][0]
    state = exported.checkpoint.begin(1)
    for _ in range(2):
        lengths = np.array([len(sequence)], np.int32)
        state, wanted = exported.checkpoint._step(sequence[np.newaxis], lengths, state)
    np.testing.assert_allclose(answer, wanted[0], atol=EXACT)


@pytest.mark.parametrize(
    ("length", "longest", "segment"), [(784, 28, 28), (64, 28, 16), (7, 5, 1), (None, 9, 1)]
)
def test_segments_of_the_stateful_form_divide_every_length(length, longest, segment):
    assert tflite.stateful_segment(length, longest) == segment


def test_16384_steps_in_segments_equal_the_whole():
    info = networks.vectors_info(length=16384)
    classifier = networks.classifier(info, hidden=16)
    sequence = np.random.default_rng(0).random((16384, 1)).astype(np.float32)
    whole = Interpreter(model_content=tflite.convert(classifier, "whole")).get_signature_runner()
    wanted = whole(inputs=sequence[np.newaxis])["probabilities"]
    step = Interpreter(model_content=tflite.convert(classifier, "stream")).get_signature_runner()
    h = c = np.zeros([1, 16], np.float32)
    for _, part in segments(sequence, 1000):
        answer = step(segment=part[np.newaxis], h=h, c=c)
        h, c = answer["h"], answer["c"]
    np.testing.assert_allclose(answer["probabilities"], wanted, atol=EXACT)
    content = tflite.convert(classifier, "stateful", segment=1000)
    stateful = Interpreter(model_content=content).get_signature_runner()
    size = stateful.get_input_details()["segment"]["shape"][1]
    assert size == 512
    for _, part in segments(sequence, size):
        answer = stateful(segment=part[np.newaxis])
    np.testing.assert_allclose(answer["probabilities"], wanted, atol=EXACT)
    reference = CheckpointClassifier(classifier).probabilities(sequence)
    np.testing.assert_allclose(wanted[0], reference, atol=EXACT)


# In a separate process, since memory that others have freed would be used first.
READ_STEPS = """
import sys
import numpy as np
import psutil
from t2aux_ondevice import litert
stream = litert.LiteRTClassifier(sys.argv[1]).start()
process = psutil.Process()
for step, value in enumerate(np.random.default_rng(0).random((16384, 1, 1)), 1):
    stream.read(value)
    if step == 2048:
        before = process.memory_info().rss
print(stream.steps, process.memory_info().rss - before)
"""


@pytest.mark.parametrize("form", [litert.STREAM_FORM, litert.STATEFUL_FORM])
def test_a_sequence_that_comes_in_is_read_in_constant_memory(tmp_path, form):
    """Were the state or the answer of every step kept, it would be 14 MB or more."""
    info = networks.vectors_info(classes=256)
    content = tflite.convert(networks.classifier(info, hidden=128), form)
    name = litert.file_name(form)
    (tmp_path / name).write_bytes(content)
    described = {
        **litert.description(info),
        "artefacts": {name: {"form": form, "variant": "float32", "segment": 1}},
        "files": {name: litert.digest(content)},
    }
    (tmp_path / litert.METADATA).write_text(json.dumps(described))
    command = [sys.executable, "-c", READ_STEPS, tmp_path / name]
    done = subprocess.run(
        command, capture_output=True, text=True, env=cli_helpers.environment(), timeout=120
    )
    assert done.returncode == 0, done.stderr
    steps, grown = map(int, done.stdout.split())
    assert steps == 16384
    assert grown < 5 << 20
