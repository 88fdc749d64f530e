"""The recurrence that servers run, against the one that is trained."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from t2aux.export.stateless import StatelessClassifier
from t2aux.model import core
from t2aux.model.lstm import LSTM, LSTMState
from tests import networks
from tests.cores import CORES

INFOS = {"vectors": networks.vectors_info(channels=2), "text": networks.text_info()}


@pytest.mark.parametrize(
    ("kind", "batch"),
    [
        # At 16 sequences a batch is divided.
        *(("vectors", batch) for batch in (1, 15, 16, 33)),
        ("text", 17),
        *(pytest.param("text", n, marks=pytest.mark.long) for n in (1, 15, 16, 33)),
        pytest.param("vectors", 17, marks=pytest.mark.long),
    ],
)
def test_a_batch_is_what_each_sequence_is_alone(kind, batch):
    assert_same_alone(LSTM, kind, batch)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *((name, "vectors") for name in CORES),
        pytest.param("GRU", "text", marks=pytest.mark.long),
        ("MinGRU", "text"),
    ],
)
def test_other_cores_are_too(name, kind):
    assert_same_alone(CORES[name], kind, 17)


@functools.cache
def made(core, kind):
    """A network's scan of any batch, the classifier's of one sequence, and the network."""
    classifier = networks.classifier(INFOS[kind], core=core)
    network = StatelessClassifier(classifier)
    specs = [network.tokens_spec(None, None, "tokens"), tf.TensorSpec([None], tf.int32)]

    @tf.function(input_signature=[*specs, *network.state_specs(None)], autograph=False)
    def scan(tokens, lengths, *state):
        return tf.nest.flatten(network.scan(tokens, network.packed(state), lengths))

    alone = [network.tokens_spec(1, None, "tokens"), *network.state_specs(1)]

    @tf.function(input_signature=alone, autograph=False)
    def scan_alone(tokens, *state):
        return tf.nest.flatten(classifier.scan(tokens, network.packed(state)))

    return scan, scan_alone, network


def assert_same_alone(core, kind, batch):
    scan, scan_alone, network = made(core, kind)
    info = INFOS[kind]
    rng = np.random.default_rng(batch)
    if info.is_text:
        tokens = rng.integers(0, info.vocabulary_size, [batch, 9]).astype(np.int32)
    else:
        tokens = rng.normal(size=[batch, 9, info.channels]).astype(np.float32)
    lengths = rng.integers(0, 10, batch).astype(np.int32)
    before = [rng.normal(size=[batch, *s]).astype(np.float32) for s in network.state.values()]
    # What is behind a sequence's end does not matter.
    if not info.is_text:
        tokens[np.arange(9) >= lengths[:, np.newaxis]] = np.nan

    found = scan(tokens, lengths, *before)
    for row, length in enumerate(lengths):
        alone = [tf.constant(b[row : row + 1]) for b in before]
        if length:
            alone = scan_alone(tf.constant(tokens[row : row + 1, :length]), *alone)
        for ours, wanted in zip(found, alone, strict=True):
            np.testing.assert_allclose(ours[row], wanted[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize(("begin", "end"), [(0, 0), (0, 1), (1, 4), (2, 9), (3, 3), (5, 4)])
def test_several_steps_a_pass_are_as_many_single_ones(begin, end):
    def step(t, state):
        return LSTMState(state.h * 0.5 + tf.cast(t, tf.float32), state.c + state.h)

    active = core.active_until(tf.constant([3, 7]))
    start = LSTMState(tf.ones([2, 1]), tf.zeros([2, 1]))
    for when in (None, active):
        one, _ = core.run(step, begin, end, start, active=when)
        several, _ = core.run(step, begin, end, start, active=when, unroll=3)
        np.testing.assert_array_equal(one.h, several.h)
        np.testing.assert_array_equal(one.c, several.c)
