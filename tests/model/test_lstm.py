"""The LSTM: step against scan, segments against the whole, and Keras as the independent peer."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from t2aux.model import cudnn
from t2aux.model.lstm import LSTM, LSTMState
from tests import networks


def random_input(batch, steps, size, seed=0):
    return tf.random.stateless_normal([batch, steps, size], [seed, 1])


def random_state(batch, size, seed=0):
    return LSTMState(*[0.5 * tf.random.stateless_normal([batch, size], [seed, i]) for i in (2, 3)])


def keras_layer_with_weights_of(layer, size):
    keras_layer = keras.layers.LSTM(layer.hidden_size, return_sequences=True, return_state=True)
    keras_layer.build((None, None, size))
    keras_layer.set_weights([v.numpy() for v in (layer.kernel, layer.recurrent_kernel, layer.bias)])
    return keras_layer


@pytest.fixture
def layer():
    layer = LSTM(3, 6, seed=0, name="layer")
    layer.bias.assign(tf.random.stateless_normal([24], [7, 7]))
    return layer


def values_and_gradients(layer, x, state, compute):
    """The outputs and final state, and the gradients of a scalar of them."""
    with tf.GradientTape() as tape:
        tape.watch([x, *state])
        outputs, final = compute(x, state)
        weights = tf.random.stateless_normal(tf.shape(outputs), [9, 9])
        value = tf.reduce_sum(weights * outputs) + tf.reduce_sum(final.h * final.c)
    sources = [x, *state, *(v.value for v in (layer.kernel, layer.recurrent_kernel, layer.bias))]
    # A scan over no steps at all is connected to nothing.
    return [outputs, *final], tape.gradient(value, sources, unconnected_gradients="zero")


def segments(layer, sizes):
    def compute(x, state):
        outputs = []
        for part in tf.split(x, sizes, axis=1):
            out, state = layer.scan(part, state)
            outputs.append(out)
        return tf.concat(outputs, 1), state

    return compute


def steps(layer):
    def compute(x, state):
        outputs = []
        for t in range(x.shape[1]):
            out, state = layer.step(x[:, t], state)
            outputs.append(out)
        return tf.stack(outputs, 1), state

    return compute


def assert_equal(got, want):
    for a, b in zip(got[0], want[0], strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    for a, b in zip(got[1], want[1], strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5 * max(1.0, float(tf.reduce_max(tf.abs(b)))))


def test_scan_equals_keras_in_values_and_gradients(layer):
    x, state = random_input(4, 50, 3), random_state(4, 6)
    keras_layer = keras_layer_with_weights_of(layer, 3)
    outputs, final = layer.scan(x, state)
    want = keras_layer(x, initial_state=list(state))
    for a, b in zip((outputs, *final), want, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)

    def loss(outputs):
        return tf.reduce_sum(outputs * tf.random.stateless_normal(tf.shape(outputs), [4, 4]))

    with tf.GradientTape() as tape:
        value = loss(layer.scan(x, state)[0])
    got = tape.gradient(value, [layer.kernel, layer.recurrent_kernel, layer.bias])
    with tf.GradientTape() as tape:
        value = loss(keras_layer(x, initial_state=list(state))[0])
    want = tape.gradient(value, [v.value for v in keras_layer.trainable_variables])
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5 * float(tf.reduce_max(tf.abs(b))))


@settings(deadline=None, max_examples=15)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=5), st.integers(1, 4))
def test_carried_segments_equal_the_whole(sizes, batch):
    layer = LSTM(3, 6, seed=0, name="layer")
    x, state = random_input(batch, sum(sizes), 3), random_state(batch, 6)
    whole = values_and_gradients(layer, x, state, layer.scan)
    assert_equal(values_and_gradients(layer, x, state, segments(layer, sizes)), whole)


def test_repeated_steps_equal_the_scan_eager_and_compiled(layer):
    x, state = random_input(3, 20, 3), random_state(3, 6)
    want = values_and_gradients(layer, x, state, layer.scan)
    assert_equal(values_and_gradients(layer, x, state, steps(layer)), want)
    compiled = tf.function(
        lambda: values_and_gradients(layer, x, state, layer.scan), autograph=False
    )
    assert_equal(compiled(), want)


def test_stopped_segments_pass_exactly_no_gradient(layer):
    x, state = random_input(3, 20, 3), random_state(3, 6)

    def cut(x, state):
        _, state = layer.scan(x[:, :13], state)
        return layer.scan(x[:, 13:], LSTMState(*map(tf.stop_gradient, state)))

    _, gradients = values_and_gradients(layer, x, state, cut)
    assert not np.any(gradients[0][:, :13])
    assert np.all(np.any(gradients[0][:, 13:], axis=(0, 2)))


@settings(deadline=None, max_examples=15)
@given(st.lists(st.integers(1, 12), min_size=1, max_size=5))
def test_padding_is_harmless(lengths):
    layer = LSTM(3, 6, seed=0, name="layer")
    steps_max = max(lengths) + 2
    x, state = random_input(len(lengths), steps_max, 3), random_state(len(lengths), 6)
    _, final = layer.scan(x, state, tf.constant(lengths))
    for b, length in enumerate(lengths):
        own = LSTMState(*[s[b : b + 1] for s in state])
        _, alone = layer.scan(x[b : b + 1, :length], own)
        for got, want in zip(final, alone, strict=True):
            np.testing.assert_allclose(got[b], want[0], atol=1e-6)


def test_the_path_of_a_gpu_gives_the_same(layer, monkeypatch):
    # Keras picks cuDNN's kernel there; here it is Keras's own loop, with the same contract.
    x, state = tf.transpose(random_input(4, 9, 3), [1, 0, 2]), random_state(4, 6)
    want = layer.outputs_time_major(x, state)
    with tf.GradientTape() as tape:
        value = tf.reduce_sum(layer.outputs_time_major(x, state)[0] ** 2)
    want_gradients = tape.gradient(value, layer.trainable_variables)
    monkeypatch.setattr(cudnn, "on_gpu", lambda: True)
    got = layer.outputs_time_major(x, state)
    with tf.GradientTape() as tape:
        value = tf.reduce_sum(layer.outputs_time_major(x, state)[0] ** 2)
    gradients = tape.gradient(value, layer.trainable_variables)
    np.testing.assert_allclose(got[0], want[0], atol=1e-6)
    for a, b in zip((*got[1], *gradients), (*want[1], *want_gradients), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.parametrize(
    "info",
    [
        networks.vectors_info(channels=2),
        pytest.param(networks.text_info(), marks=pytest.mark.long),
    ],
)
def test_the_classifier_on_the_path_of_a_gpu_gives_the_same(info, monkeypatch):
    classifier = networks.classifier(info)
    batch = networks.batch(info, [2500, 2500])
    want = classifier.scan(batch.inputs)
    monkeypatch.setattr(cudnn, "on_gpu", lambda: True)
    # Keras's loop over so many steps takes long where it is not compiled.
    got = tf.function(classifier.scan, autograph=False)(batch.inputs)
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.parametrize("info", [networks.vectors_info(channels=2), networks.text_info()])
@pytest.mark.parametrize("projection", [4, None])
def test_the_folded_classifier_equals_input_layer_lstm_and_head(info, projection):
    if projection is None and info.is_text:
        return
    classifier = networks.classifier(info, projection_size=projection)
    batch = networks.batch(info, [9, 4, 7])
    _, state = classifier.core.scan(classifier.input_layer(batch.inputs), lengths=batch.lengths)
    want = classifier.head(state.h)
    np.testing.assert_allclose(classifier.logits_of(batch.inputs, batch.lengths), want, atol=1e-5)
    stepped = classifier.init_state(3)
    for t in range(4):
        stepped = classifier.step(batch.inputs[:, t], stepped)
    scanned = classifier.scan(batch.inputs[:, :4])
    for a, b in zip(stepped, scanned, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_initial_weights_depend_on_the_seed_and_the_name_alone():
    one, same = LSTM(3, 6, seed=0, name="a"), LSTM(3, 6, seed=0, name="a")
    other_name, other_seed = LSTM(3, 6, seed=0, name="b"), LSTM(3, 6, seed=1, name="a")
    np.testing.assert_array_equal(one.kernel, same.kernel)
    assert not np.array_equal(one.kernel, other_name.kernel)
    assert not np.array_equal(one.kernel, other_seed.kernel)
    for gate in np.split(one.recurrent_kernel.numpy(), 4, axis=1):
        assert np.all(np.linalg.norm(gate, axis=1) <= 1 + 1e-5)
    recurrent = one.recurrent_kernel.numpy()
    np.testing.assert_allclose(recurrent @ recurrent.T, np.eye(6), atol=1e-5)
    np.testing.assert_array_equal(one.bias, [0.0] * 6 + [1.0] * 6 + [0.0] * 12)
