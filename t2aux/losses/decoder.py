"""The decoder of an r-LSTM that may be fed its own tokens, step by step.

Each step's token may depend on the output of the step before, so that the steps can't be computed
a layer at a time. On a GPU `decoder_xla` computes the same in one compiled function.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import tensorflow as tf

from t2aux.kernels import ops
from t2aux.model import heads, lstm
from t2aux.model.lstm import LSTMState


class Weights(NamedTuple):
    """The decoder's weights.

    Attributes:
        layers: Of the LSTM layers, bottom first. The bottom's kernel has the input layer folded
            into it: [C, 4H] with a bias, or a table [V, 4H] for ids, without one.
        head: Of the head, see `heads.apply`. Its first C outputs are the token's values; the
            others, if any, are for the loss alone.
    """

    layers: tuple[ops.Weights, ...]
    head: tuple[tf.Tensor, ...]

    @property
    def is_text(self) -> bool:
        """Whether tokens are ids."""
        return self.layers[0].bias is None


class Segments(NamedTuple):
    """What the decoder emits.

    Attributes:
        tokens: [l + 1, N, C] float32 or [l + 1, N] int32: the first is given, the others predicted.
        use_sampled: [l, N] bool: where the decoder is fed its own token, never at the first step.
        uniforms: [l, N] in [0, 1): where in the softmax's cumulative distribution ids are drawn.
        valid_mask: [N] float32: 1 where a segment counts, else 0.
    """

    tokens: tf.Tensor
    use_sampled: tf.Tensor
    uniforms: tf.Tensor
    valid_mask: tf.Tensor


class Step(NamedTuple):
    """What a step gives.

    Attributes:
        fed: [N, C] or [N]: the token that was fed.
        z: [N, 4H], a layer: the gates' pre-activations.
        states: Each layer's state after it.
        sampled: [N, C] or [N]: the decoder's own token. No gradient passes through it.
    """

    fed: tf.Tensor
    z: list[tf.Tensor]
    states: list[LSTMState]
    sampled: tf.Tensor


def stacked_kernels(weights: Weights) -> list[tf.Tensor]:
    """The kernel above the recurrent kernel, [D + H, 4H], of each layer but the bottom."""
    return [tf.concat([w.input_kernel, w.recurrent_kernel], 0) for w in weights.layers[1:]]


def step(
    weights: Weights,
    kernels: Sequence[tf.Tensor],
    given: tf.Tensor,
    previous: tf.Tensor,
    use_sampled: tf.Tensor,
    uniforms: tf.Tensor,
    states: Sequence[LSTMState],
) -> Step:
    """One step.

    Args:
        weights: The decoder's.
        kernels: Their `stacked_kernels`.
        given: [N, C] float32 or [N] int32: the true token.
        previous: [N, C] or [N]: the decoder's own token of the step before.
        use_sampled: [N] bool: where that is fed.
        uniforms: [N], see `Segments`.
        states: Each layer's state before, [N, H] each.

    Returns:
        The step.
    """
    fed = tf.where(use_sampled if weights.is_text else use_sampled[:, tf.newaxis], previous, given)
    pre_activations, after = [], []
    for i, (layer, state) in enumerate(zip(weights.layers, states, strict=True)):
        if i:
            # One product: on a GPU every one waits for its launch.
            z = tf.matmul(tf.concat([after[-1].h, state.h], -1), kernels[i - 1]) + layer.bias
        elif weights.is_text:
            z = tf.gather(layer.input_kernel, fed) + tf.matmul(state.h, layer.recurrent_kernel)
        else:
            z = tf.matmul(fed, layer.input_kernel) + layer.bias
            z += tf.matmul(state.h, layer.recurrent_kernel)
        pre_activations.append(z)
        new = lstm.cell(z, state.c)
        after.append(LSTMState(*map(tf.ensure_shape, new, (s.shape for s in state))))
    output = tf.stop_gradient(heads.apply(after[-1].h, *weights.head))
    token = _sample(output, uniforms) if weights.is_text else output[:, : previous.shape[-1]]
    return Step(fed, pre_activations, after, tf.ensure_shape(token, previous.shape))


def run(
    weights: Weights,
    given: tf.Tensor,
    states: Sequence[LSTMState],
    previous: tf.Tensor,
    use_sampled: tf.Tensor,
    uniforms: tf.Tensor,
) -> tuple[tf.Tensor, list[LSTMState], tf.Tensor]:
    """All steps, one after the other.

    Args:
        weights: The decoder's.
        given: [l, N, C] float32 or [l, N] int32: the true tokens before the predicted ones.
        states: Each layer's state before, [N, H] each.
        previous: [N, C] or [N]: the decoder's own token of the step before.
        use_sampled: [l, N] bool: where its own token is fed to it.
        uniforms: [l, N], see `Segments`.

    Returns:
        The top layer's outputs [l, N, H], each layer's state after, and its own last token.
    """
    steps = tf.shape(given)[0]
    kernels = stacked_kernels(weights)

    def body(
        t: tf.Tensor, previous: tf.Tensor, states: list[LSTMState], hidden: tf.TensorArray
    ) -> tuple:
        done = step(weights, kernels, given[t], previous, use_sampled[t], uniforms[t], states)
        return t + 1, done.sampled, done.states, hidden.write(t, done.states[-1].h)

    hidden = tf.TensorArray(tf.float32, steps, element_shape=states[0].h.shape)
    _, previous, states, hidden = tf.while_loop(
        lambda t, *_: t < steps, body, (0, previous, list(states), hidden)
    )
    return hidden.stack(), states, previous


def in_chunks(
    decode: Callable[..., tuple[tf.Tensor, list[LSTMState], tf.Tensor]],
    given: tf.Tensor,
    states: Sequence[LSTMState],
    use_sampled: tf.Tensor,
    uniforms: tf.Tensor,
    *,
    chunk: int,
) -> tf.Tensor:
    """Decodes a segment chunk by chunk, between which the states pass no gradient.

    Args:
        decode: Decodes a chunk, as `run` does, from the second argument on.
        given: See `run`; l must be known.
        states: See `run`.
        use_sampled: See `run`.
        uniforms: See `run`.
        chunk: Steps of a chunk; the last may have fewer.

    Returns:
        The top layer's outputs [l, N, H].
    """
    previous, outputs = tf.zeros_like(given[0]), []
    for begin in range(0, given.shape[0], chunk):
        if begin:
            states = [LSTMState(*map(tf.stop_gradient, state)) for state in states]
        part = slice(begin, begin + chunk)
        hidden, states, previous = decode(
            given[part], states, previous, use_sampled[part], uniforms[part]
        )
        outputs.append(hidden)
    return tf.concat(outputs, axis=0)


def _sample(logits: tf.Tensor, uniforms: tf.Tensor) -> tf.Tensor:
    """Ids [N] int32 whose share of the softmax of [N, V] the uniforms [N] in [0, 1) fall into."""
    cumulative = tf.cumsum(tf.nn.softmax(logits), axis=-1)
    below = tf.cast(cumulative <= uniforms[:, tf.newaxis], tf.int32)
    return tf.minimum(tf.reduce_sum(below, axis=-1), logits.shape[-1] - 1)
