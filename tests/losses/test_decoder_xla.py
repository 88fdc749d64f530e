"""The decoder compiled by XLA, on a CPU, beside the plain loop and TensorFlow's own gradient."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from t2aux.kernels import ops
from t2aux.losses import decoder, decoder_xla
from t2aux.model import heads
from t2aux.model.lstm import LSTMState

ROWS, HIDDEN, TOKENS = 3, 4, 6


def problem(text, layers, length, levels=0):
    rng = np.random.default_rng(0)

    def normal(*shape):
        return tf.constant(rng.normal(size=shape), tf.float32)

    size = TOKENS if text else 2
    outputs = size * (1 + levels)
    sizes = [size, *[HIDDEN] * (layers - 1)]
    weights = decoder.Weights(
        tuple(
            ops.Weights(
                normal(inputs, 4 * HIDDEN),
                None if text and not i else normal(4 * HIDDEN),
                normal(HIDDEN, 4 * HIDDEN),
            )
            for i, inputs in enumerate(sizes)
        ),
        (normal(HIDDEN, 5), normal(5), normal(5, outputs), normal(outputs)),
    )
    states = [LSTMState(normal(ROWS, HIDDEN), normal(ROWS, HIDDEN)) for _ in range(layers)]
    tokens = normal(length + 1, ROWS, size)
    if text:
        tokens = tf.constant(rng.integers(0, TOKENS, (length + 1, ROWS)), tf.int32)
    use_sampled = rng.random((length, ROWS)) < 0.5
    use_sampled[0] = False
    uniforms = tf.constant(rng.random((length, ROWS)), tf.float32)
    return (
        weights,
        states,
        decoder.Segments(tokens, tf.constant(use_sampled), uniforms, normal(ROWS)),
    )


def squared(predictions, targets):
    return tf.reduce_sum((predictions - targets) ** 2, -1)


def with_others(outputs, targets):
    size = targets.shape[-1]
    return squared(outputs[..., :size], targets) + tf.reduce_sum(tf.sin(outputs[..., size:]), -1)


def crossed(logits, targets):
    return tf.nn.sparse_softmax_cross_entropy_with_logits(targets, logits)


@pytest.mark.parametrize(
    ("text", "levels"),
    [
        # With levels, there are the values, too.
        pytest.param(False, 0, marks=pytest.mark.long, id="values"),
        pytest.param(True, 0, id="ids"),
        pytest.param(False, 3, id="levels"),
    ],
)
@pytest.mark.parametrize(
    ("layers", "length", "chunk"),
    [
        (2, 5, 3),
        *(
            pytest.param(*sizes, marks=pytest.mark.long)
            for sizes in [(2, 11, 4), (1, 11, 11), (3, 4, 20), (2, 10, 5), (2, 3, 1)]
        ),
    ],
)
def test_the_loss_and_its_gradients_are_those_of_the_plain_loop(
    text, levels, layers, length, chunk, monkeypatch
):
    if length == 5:
        # Both loops have whole iterations and a step more, as the longer ones, but compile sooner.
        monkeypatch.setattr(decoder_xla, "_UNROLL", 2)
    weights, states, segments = problem(text, layers, length, levels)
    losses = crossed if text else with_others if levels else squared
    sources = [x for x in tf.nest.flatten((weights, states)) if x is not None]
    with tf.GradientTape() as tape:
        tape.watch(sources)
        decode = functools.partial(decoder.run, weights)
        given = segments.tokens[:-1]
        hidden = decoder.in_chunks(
            decode, given, states, segments.use_sampled, segments.uniforms, chunk=chunk
        )
        predictions = heads.apply(hidden, *weights.head)
        plain = losses(predictions, segments.tokens[1:]) * segments.valid_mask
        want = 3 * tf.reduce_sum(plain)
    want_gradients = tape.gradient(want, sources)
    with tf.GradientTape() as tape:
        tape.watch(sources)
        found = 3 * decoder_xla.loss(weights, states, segments, chunk=chunk, output_losses=losses)
    gradients = tape.gradient(found, sources)
    np.testing.assert_allclose(found, want, rtol=1e-5)
    for a, b in zip(gradients, want_gradients, strict=True):
        np.testing.assert_allclose(a, tf.convert_to_tensor(b), rtol=1e-4, atol=1e-4)
