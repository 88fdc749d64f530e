"""The decoder of an r-LSTM that may be fed its own tokens, step by step.

The token of each step may depend on the output of the previous step, so the steps can't be computed
one layer at a time. On a GPU, `decoder_xla` computes the same in one compiled function.
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
        layers: The weights of the LSTM layers, bottom first. The input layer is folded into the
            bottom layer's kernel: [C, 4H] with a bias, or a table [V, 4H] for ids, without a bias.
        head: The weights of the head, see `heads.apply`. Its first C outputs are the token's
            values; any others are used by the loss only.
    """

    layers: tuple[ops.Weights, ...]
    head: tuple[tf.Tensor, ...]

    @property
    def is_text(self) -> bool:
        """Whether tokens are ids."""
        return self.layers[0].bias is None


class Segments(NamedTuple):
    """The segments that the decoder emits.

    Attributes:
        tokens: [l + 1, N, C] float32 or [l + 1, N] int32; the first is given, the others are
            predicted.
        use_sampled: [l, N] bool, where the decoder is fed its own token; never at the first step.
        uniforms: [l, N] in [0, 1), the random numbers with which ids are sampled from the softmax.
        valid_mask: [N] float32, 1 if a segment counts, else 0.
    """

    tokens: tf.Tensor
    use_sampled: tf.Tensor
    uniforms: tf.Tensor
    valid_mask: tf.Tensor


class Step(NamedTuple):
    """The results of a step.

    Attributes:
        fed: [N, C] or [N], the token that was fed.
        z: [N, 4H] for each layer, the gates' pre-activations.
        states: Each layer's state after the step.
        sampled: [N, C] or [N], the decoder's own token. No gradient passes through it.
    """

    fed: tf.Tensor
    z: list[tf.Tensor]
    states: list[LSTMState]
    sampled: tf.Tensor


def stacked_kernels(weights: Weights) -> list[tf.Tensor]:
    """The kernel stacked on the recurrent kernel, [D + H, 4H], for each layer but the bottom."""
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
    """Computes one step.

    Args:
        weights: The decoder's weights.
        kernels: Their `stacked_kernels`.
        given: [N, C] float32 or [N] int32, the true token.
        previous: [N, C] or [N], the decoder's own token of the previous step.
        use_sampled: [N] bool, where `previous` is fed.
        uniforms: [N], see `Segments`.
        states: Each layer's state before the step, [N, H] each.

    Returns:
        The results of the step.
    """
    fed = tf.where(use_sampled if weights.is_text else use_sampled[:, tf.newaxis], previous, given)
    pre_activations, after = [], []
    for i, (layer, state) in enumerate(zip(weights.layers, states, strict=True)):
        if i:
            # One product instead of two: on a GPU, each waits for its launch.
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
    """Computes all steps, one after the other.

    Args:
        weights: The decoder's weights.
        given: [l, N, C] float32 or [l, N] int32, the true tokens before the predicted ones.
        states: Each layer's state before the first step, [N, H] each.
        previous: [N, C] or [N], the decoder's own token of the previous step.
        use_sampled: [l, N] bool, where the decoder is fed its own token.
        uniforms: [l, N], see `Segments`.

    Returns:
        The top layer's outputs [l, N, H], each layer's state after the last step, and the decoder's
        own last token.
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
    """Decodes a segment in chunks; the states pass no gradient from one chunk to another.

    Args:
        decode: Decodes a chunk; takes the arguments of `run` from the second on.
        given: See `run`; l must be static.
        states: See `run`.
        use_sampled: See `run`.
        uniforms: See `run`.
        chunk: The number of steps of a chunk; the last one may have fewer.

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
    """Samples ids [N] int32 from the softmax of logits [N, V], given uniforms [N] in [0, 1)."""
    cumulative = tf.cumsum(tf.nn.softmax(logits), axis=-1)
    below = tf.cast(cumulative <= uniforms[:, tf.newaxis], tf.int32)
    return tf.minimum(tf.reduce_sum(below, axis=-1), logits.shape[-1] - 1)
