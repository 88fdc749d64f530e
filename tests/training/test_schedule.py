"""The learning rate over a phase, beside numbers worked out by hand and Keras's own cosine."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from t2aux.errors import SettingError
from t2aux.training.schedule import Phase

STEPS_PER_EPOCH = 7


def rates(phase, steps):
    return [float(phase.rate(tf.constant(step, tf.int64), STEPS_PER_EPOCH)) for step in steps]


def test_steps_multiply_the_rate_at_the_ends_of_epochs():
    phase = Phase(epochs=5, learning_rate=0.8, decay_factor=0.5, decay_epochs=2)
    np.testing.assert_allclose(rates(phase, [0, 13, 14, 27, 28]), [0.8, 0.8, 0.4, 0.4, 0.2])


def test_without_decay_the_rate_stays():
    phase = Phase(epochs=5, learning_rate=0.8, decay_epochs=None)
    np.testing.assert_allclose(rates(phase, [0, 34]), [0.8, 0.8])


def test_cosine_is_that_of_keras():
    phase = Phase(epochs=5, learning_rate=0.8, decay_schedule="cosine")
    want = keras.optimizers.schedules.CosineDecay(0.8, decay_steps=35)
    steps = [0, 1, 10, 17, 34, 35]
    np.testing.assert_allclose(rates(phase, steps), [float(want(s)) for s in steps], atol=1e-6)


def test_another_schedule_is_an_error():
    with pytest.raises(SettingError, match=r"Phase\.decay_schedule .*'linear'"):
        Phase(decay_schedule="linear")
