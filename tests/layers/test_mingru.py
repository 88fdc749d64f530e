"""`t2aux.layers.MinGRU` inside Keras's layers."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import t2aux


@pytest.mark.parametrize("sequences", [False, True])
@pytest.mark.parametrize("state", [False, True])
def test_bidirectional(sequences, state):
    x = np.random.default_rng(0).normal(size=(4, 9, 3)).astype(np.float32)
    mask = tf.constant(np.arange(9) < np.array([3, 9, 5, 1])[:, np.newaxis])
    layer = t2aux.layers.MinGRU(5, layers=2, return_sequences=sequences, return_state=state)
    both = keras.layers.Bidirectional(layer)
    made = tf.nest.flatten(both(x, mask=mask))
    forward = tf.nest.flatten(both.forward_layer(x, mask=mask))
    backward = tf.nest.flatten(both.backward_layer(x, mask=mask))
    reread = backward[0][:, ::-1] if sequences else backward[0]
    np.testing.assert_array_equal(made[0], tf.concat([forward[0], reread], -1))
    read = tf.nest.flatten(both(keras.layers.Masking()(keras.Input((None, 3)))))
    assert [part.shape[-1] for part in read] == [part.shape[-1] for part in made]
    for got, want in zip(made[1:], forward[1:] + backward[1:], strict=True):
        np.testing.assert_array_equal(got, want)
