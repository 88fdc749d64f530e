"""The recurrence that servers run, against the one that is trained."""

import numpy as np
import pytest
import tensorflow as tf

from t2aux.export.twin import Twin
from t2aux.model import core
from t2aux.model.lstm import LSTMState
from tests import networks


@pytest.mark.parametrize("info", [networks.vectors_info(channels=2), networks.text_info()])
@pytest.mark.parametrize("batch", [1, 15, 16, 17, 33])
def test_a_batch_is_what_each_sequence_is_alone(info, batch):
    classifier = networks.classifier(info)
    twin = Twin(classifier)
    rng = np.random.default_rng(batch)
    if info.is_text:
        tokens = rng.integers(0, info.vocabulary_size, [batch, 9]).astype(np.int32)
    else:
        tokens = rng.normal(size=[batch, 9, info.channels]).astype(np.float32)
    lengths = rng.integers(0, 10, batch).astype(np.int32)
    before = rng.normal(size=[2, batch, classifier.hidden_size]).astype(np.float32)
    # What is behind a sequence's end does not matter.
    if not info.is_text:
        tokens[np.arange(9) >= lengths[:, np.newaxis]] = np.nan
    scan = tf.function(twin.scan, input_signature=_specs(twin))
    state = scan(tokens, LSTMState(*before), lengths)
    for row, length in enumerate(lengths):
        h, c = before[:, row : row + 1]
        if length:
            one = tf.constant(tokens[row : row + 1, :length])
            alone = classifier.scan(one, LSTMState(tf.constant(h), tf.constant(c)))
            h, c = alone.h, alone.c
        np.testing.assert_allclose(state.h[row], h[0], rtol=0, atol=1e-6)
        np.testing.assert_allclose(state.c[row], c[0], rtol=0, atol=1e-6)


def _specs(twin):
    lengths = tf.TensorSpec([None], tf.int32)
    return [twin.tokens_spec(None, None, "tokens"), twin.state_spec(None), lengths]


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
