"""`levels`: the cross-entropy over levels of real values, added to the squared distance."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from t2aux.errors import SettingError
from t2aux.kernels import ops
from t2aux.losses import LanguageModel, Prediction, Reconstruction, SequenceAutoencoder
from t2aux.losses.base import Network
from t2aux.model.inputs import DirectInput
from t2aux.model.lstm import LSTMState

CHANNELS, LEVELS, HIDDEN = 2, 4, 6


def built(loss, *, is_text=False):
    loss.build(
        Network(
            hidden_size=HIDDEN,
            input_size=CHANNELS,
            token_size=CHANNELS,
            is_text=is_text,
            longest=None,
            seed=1,
            data="waves",
        )
    )
    return loss


@pytest.mark.parametrize("make", [Reconstruction, Prediction, LanguageModel, SequenceAutoencoder])
def test_the_loss_of_an_output_is_that_of_numpy(make):
    loss = built(make(levels=LEVELS))
    rng = np.random.default_rng(0)
    outputs = rng.normal(size=(3, 5, CHANNELS * (1 + LEVELS))).astype(np.float32)
    # Ends of levels, and values beyond [0, 1], which belong to the first and the last level.
    targets = rng.choice([-0.3, 0.0, 0.24, 0.25, 0.6, 0.75, 1.0, 1.5], (3, 5, CHANNELS))
    level = {-0.3: 0, 0.0: 0, 0.24: 0, 0.25: 1, 0.6: 2, 0.75: 3, 1.0: 3, 1.5: 3}
    want = np.zeros((3, 5))
    for step, row in np.ndindex(3, 5):
        values, logits = np.split(outputs[step, row].astype(np.float64), [CHANNELS])
        for channel, logit in enumerate(logits.reshape(CHANNELS, LEVELS)):
            target = targets[step, row, channel]
            want[step, row] += (values[channel] - target) ** 2
            want[step, row] += np.log(np.exp(logit).sum()) - logit[level[float(target)]]
    found = loss.output_losses(tf.constant(outputs), tf.constant(targets, tf.float32))
    np.testing.assert_allclose(found, want, rtol=1e-5)
    assert loss.head.output_kernel.shape[-1] == CHANNELS * (1 + LEVELS)


def test_its_configuration_makes_the_same_loss_again():
    loss = Reconstruction(levels=LEVELS)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(loss))
    assert again.levels == LEVELS


@pytest.mark.skipif(not ops.enabled(), reason="The kernel is off.")
def test_the_kernel_feeds_back_the_values_as_the_plain_loop_does(monkeypatch):
    loss = built(Reconstruction(length=9, levels=LEVELS))
    rng = np.random.default_rng(0)
    given = tf.constant(rng.random((9, 3, CHANNELS)), tf.float32)
    state = LSTMState(*(tf.constant(rng.normal(size=(3, HIDDEN)), tf.float32) for _ in range(2)))
    seed = tf.constant([1, 2])

    def outputs():
        return loss.decode(
            DirectInput(CHANNELS),
            _State(state),
            given,
            seed=seed,
            sampling=tf.constant(0.7),
        )

    kernel = outputs()
    monkeypatch.setattr(ops, "enabled", lambda: False)
    plain = outputs()
    assert kernel.shape == (9, 3, CHANNELS * (1 + LEVELS))
    np.testing.assert_allclose(kernel, plain, rtol=1e-4, atol=1e-5)


class _State:
    def __init__(self, state):
        self._state = state

    def as_lstm(self):
        return self._state


@pytest.mark.parametrize("levels", [1, 0, -2, 2.5, True, "16"])
def test_other_numbers_are_errors(levels):
    with pytest.raises(SettingError, match=rf"Reconstruction\.levels .* {levels!r}\."):
        Reconstruction(levels=levels)


def test_ids_have_no_levels():
    with pytest.raises(SettingError, match=rf"Prediction\.levels = {LEVELS} .* ids"):
        built(Prediction(levels=LEVELS), is_text=True)
