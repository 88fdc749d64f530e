"""TF Serving's batching is harmless: a sequence answers the same alone and in any padded batch."""

import numpy as np
import pytest
import tensorflow as tf

from t2aux.export import examples
from tests.export.conftest import kinds
from tests.export.test_export_tflite import EXACT, random_sequence

BATCH = 32
STEPS = 12


def sequences(exported, least=1):
    """32 sequences of all lengths up to 12, the first one short."""
    lengths = [3, 12, least, *np.random.default_rng(0).integers(least, STEPS + 1, BATCH - 3)]
    return [random_sequence(exported, int(n), seed=i) for i, n in enumerate(lengths)]


def padded(given, filler):
    """The batch as it is formed from single requests; "first" is what TF Serving does."""
    steps = max(map(len, given))
    rows = []
    for sequence in given:
        pad = [(0, steps - len(sequence)), *[(0, 0)] * (sequence.ndim - 1)]
        # The very first element of the request's tensor, in all places.
        value = sequence.flat[0] if filler == "first" and sequence.size else filler
        value = 0 if value == "first" else value
        rows.append(np.pad(sequence, pad, constant_values=value))
    return np.stack(rows), np.array([len(s) for s in given], np.int32)


def run(exported, signature, **inputs):
    tensors = {name: tf.constant(value) for name, value in inputs.items()}
    answers = exported.saved_model._signatures[signature](**tensors)
    return {name: value.numpy() for name, value in answers.items()}


def assert_rows_are_those_alone(together, alone):
    assert {len(value) for value in together.values()} == {BATCH}
    for row, answer in enumerate(alone):
        for name, value in answer.items():
            assert len(value) == 1
            if value.dtype.kind == "f":
                np.testing.assert_allclose(together[name][row], value[0], atol=EXACT, rtol=0)
            else:
                np.testing.assert_array_equal(together[name][row], value[0])


def fillers(exported):
    return ["first", 10**6 if exported.info.is_text else np.nan, -1]


def test_whole_sequences(exported):
    given = sequences(exported)
    alone = [
        run(exported, "serving_default", inputs=s[np.newaxis], lengths=np.array([len(s)], np.int32))
        for s in given
    ]
    for filler in fillers(exported):
        inputs, lengths = padded(given, filler)
        together = run(exported, "serving_default", inputs=inputs, lengths=lengths)
        assert_rows_are_those_alone(together, alone)


def test_segments(exported):
    given = sequences(exported)
    given[2] = given[2][:0]  # Nothing new of this one.
    rng = np.random.default_rng(1)
    h, c = (rng.normal(size=[BATCH, 8]).astype(np.float32) for _ in range(2))
    alone = []
    for row, sequence in enumerate(given):
        # No steps can't be sent; one that does not count stands for them.
        segment = sequence if len(sequence) else random_sequence(exported, 1)
        alone.append(
            run(
                exported,
                "step_segment",
                segment=segment[np.newaxis],
                lengths=np.array([len(sequence)], np.int32),
                h=h[[row]],
                c=c[[row]],
            )
        )
    for filler in fillers(exported):
        segment, lengths = padded(given, filler)
        together = run(exported, "step_segment", segment=segment, lengths=lengths, h=h, c=c)
        assert_rows_are_those_alone(together, alone)


def test_examples(exported):
    serialized = [examples.serialized(sequence) for sequence in sequences(exported)]
    together = run(exported, "serving_classify", inputs=np.array(serialized, object))
    alone = [
        run(exported, "serving_classify", inputs=np.array([one], object)) for one in serialized
    ]
    for row, answer in enumerate(alone):
        # Classes of the same score may change places.
        scores = dict(zip(answer["classes"][0], answer["scores"][0], strict=True))
        in_batch = dict(zip(together["classes"][row], together["scores"][row], strict=True))
        assert scores == pytest.approx(in_batch, abs=EXACT)


@pytest.mark.parametrize("kind", kinds("characters", "bytes"))
def test_texts(exports, kind):
    exported = exports(kind)
    texts = ["good film", "ünknown ☃ chäracters", "x", "longer than twenty characters " * 3]
    given = [f"{texts[i % 4]}{i}".encode() for i in range(BATCH)]
    together = run(exported, "serving_text", text=np.array(given, object))
    alone = [run(exported, "serving_text", text=np.array([text], object)) for text in given]
    assert_rows_are_those_alone(together, alone)


def test_signatures_without_sequences(exported):
    batch = np.arange(BATCH, dtype=np.int32)
    for signature in ("initial_state", "describe"):
        together = run(exported, signature, batch=batch)
        alone = [run(exported, signature, batch=batch[[row]]) for row in range(BATCH)]
        assert_rows_are_those_alone(together, alone)
