"""The decoder of an r-LSTM that may be fed its own tokens: in a loop, and compiled for a GPU.

Each step's token may depend on the output of the step before, so that the steps can't be computed
a layer at a time. On a GPU a loop over them waits for the launches of dozens of small kernels a
step: there XLA compiles the loop, the head, the loss and the gradient as one function.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import tensorflow as tf
from absl import logging

from t2aux.kernels import ops
from t2aux.model import heads, lstm
from t2aux.model.lstm import LSTMState

# Steps in one iteration of the compiled loop: an iteration waits for its launches. More than five
# gain little, and take longer to compile.
_UNROLL = 5

# Gives the losses [l, N] of predictions [l, N, C] or logits [l, N, V], and targets.
TokenLosses = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


class Weights(NamedTuple):
    """The decoder's weights.

    Attributes:
        layers: Of the LSTM layers, bottom first. The bottom's kernel has the input layer folded
            into it: [C, 4H] with a bias, or a table [V, 4H] for ids, without one.
        head: Of the head, see `heads.apply`.
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
        own: [l, N] bool: where the decoder is fed its own token, never at the first step.
        draws: [l, N] in [0, 1): where in the softmax's cumulative distribution ids are drawn.
        room: [N] float32: 1 where a segment counts, else 0.
    """

    tokens: tf.Tensor
    own: tf.Tensor
    draws: tf.Tensor
    room: tf.Tensor


def run(
    weights: Weights,
    given: tf.Tensor,
    states: Sequence[LSTMState],
    previous: tf.Tensor,
    own: tf.Tensor,
    draws: tf.Tensor,
    *,
    unroll: int = 1,
) -> tuple[tf.Tensor, list[LSTMState], tf.Tensor]:
    """The loop over the steps. No gradient passes through the tokens that the decoder emits.

    Args:
        weights: The decoder's.
        given: [l, N, C] float32 or [l, N] int32: the true tokens before the predicted ones.
        states: Each layer's state before, [N, H] each.
        previous: [N, C] or [N]: the decoder's own token of the step before.
        own: [l, N] bool: where its own token is fed to it.
        draws: [l, N], see `Segments`.
        unroll: Steps in one iteration; where it is more than 1, l must be known.

    Returns:
        The top layer's outputs [l, N, H], each layer's state after, and its own last token.
    """
    steps = tf.shape(given)[0] if given.shape[0] is None else given.shape[0]
    unroll = min(unroll, steps) if unroll > 1 else 1
    hidden = tf.TensorArray(tf.float32, steps, element_shape=states[0].h.shape)

    def step(
        t: tf.Tensor | int, previous: tf.Tensor, states: Sequence[LSTMState]
    ) -> tuple[tf.Tensor, list[LSTMState]]:
        mine = own[t] if weights.is_text else own[t][:, tf.newaxis]
        x, after = tf.where(mine, previous, given[t]), []
        for layer, state in zip(weights.layers, states, strict=True):
            if layer.bias is None:
                z = tf.gather(layer.input_kernel, x)
            else:
                z = tf.matmul(x, layer.input_kernel) + layer.bias
            new = lstm.cell(z + tf.matmul(state.h, layer.recurrent_kernel), state.c)
            after.append(LSTMState(*map(tf.ensure_shape, new, (s.shape for s in state))))
            x = after[-1].h
        output = tf.stop_gradient(heads.apply(x, *weights.head))
        if weights.is_text:
            output = _sample(output, draws[t])
        output.set_shape(previous.shape)
        return output, after

    def body(
        t: tf.Tensor, previous: tf.Tensor, states: list[LSTMState], hidden: tf.TensorArray
    ) -> tuple:
        for k in range(unroll):
            previous, states = step(t + k, previous, states)
            hidden = hidden.write(t + k, states[-1].h)
        return t + unroll, previous, states, hidden

    whole = steps // unroll * unroll
    _, previous, states, hidden = tf.while_loop(
        lambda t, *_: t < whole,
        body,
        (0, previous, list(states), hidden),
        # XLA takes no gradient of a loop that may have any number of iterations.
        maximum_iterations=steps // unroll,
    )
    if unroll > 1:
        for t in range(whole, steps):
            previous, states = step(t, previous, states)
            hidden = hidden.write(t, states[-1].h)
    return hidden.stack(), states, previous


def in_chunks(
    decode: Callable[..., tuple[tf.Tensor, list[LSTMState], tf.Tensor]],
    given: tf.Tensor,
    states: Sequence[LSTMState],
    own: tf.Tensor,
    draws: tf.Tensor,
    *,
    chunk: int,
) -> tf.Tensor:
    """Decodes a segment chunk by chunk, between which the states pass no gradient.

    Args:
        decode: Decodes a chunk, as `run` does, from the second argument on.
        given: See `run`; l must be known.
        states: See `run`.
        own: See `run`.
        draws: See `run`.
        chunk: Steps of a chunk; the last may have fewer.

    Returns:
        The top layer's outputs [l, N, H].
    """
    previous, outputs = tf.zeros_like(given[0]), []
    for begin in range(0, given.shape[0], chunk):
        if begin:
            states = [LSTMState(*map(tf.stop_gradient, state)) for state in states]
        part = slice(begin, begin + chunk)
        hidden, states, previous = decode(given[part], states, previous, own[part], draws[part])
        outputs.append(hidden)
    return tf.concat(outputs, axis=0)


def compiled_loss(
    weights: Weights,
    states: Sequence[LSTMState],
    segments: Segments,
    *,
    chunk: int,
    token_losses: TokenLosses,
) -> tf.Tensor:
    """The sum of the losses of all predicted tokens, by a function that XLA compiles.

    A gradient may be taken with respect to the weights and the states. It is computed with the
    loss, in the same compiled function: XLA can't take a loop's intermediate values out of it.

    Args:
        weights: The decoder's.
        states: Each layer's state before the first step, [N, H] each.
        segments: What is decoded; its length l must be known.
        chunk: The states pass no gradient at every so many steps.
        token_losses: The loss of predictions.

    Returns:
        A scalar.
    """
    function = _compiled(token_losses, chunk)

    @tf.custom_gradient
    def loss(*_: tf.Tensor) -> tuple[tf.Tensor, Callable[..., list[tf.Tensor]]]:
        value, gradients = function(weights, list(states), segments)
        return value, lambda upstream: [upstream * g for g in gradients]

    return loss(*_tensors((weights, states)))


def _tensors(nest: Any) -> list[tf.Tensor]:
    """Those in a nest: where tokens are ids, the bottom has no bias."""
    return [x for x in tf.nest.flatten(nest) if x is not None]


@functools.lru_cache(maxsize=16)
def _compiled(token_losses: TokenLosses, chunk: int) -> Callable[..., tuple]:
    @tf.function(jit_compile=True, autograph=False)
    def value_and_gradients(
        weights: Weights, states: list[LSTMState], segments: Segments
    ) -> tuple[tf.Tensor, list[tf.Tensor]]:
        logging.info("Compiling the decoder and its gradient with XLA for the GPU, once a run.")
        sources = _tensors((weights, states))
        given, targets = segments.tokens[:-1], segments.tokens[1:]
        decode = functools.partial(run, weights, unroll=_UNROLL)
        with tf.GradientTape() as tape:
            tape.watch(sources)
            hidden = in_chunks(decode, given, states, segments.own, segments.draws, chunk=chunk)
            predictions = heads.apply(hidden, *weights.head)
            value = tf.reduce_sum(token_losses(predictions, targets) * segments.room)
        gradients = tape.gradient(
            value, sources, unconnected_gradients=tf.UnconnectedGradients.ZERO
        )
        return value, [tf.convert_to_tensor(g) for g in gradients]

    return value_and_gradients


def _sample(logits: tf.Tensor, draws: tf.Tensor) -> tf.Tensor:
    """Ids [N] int32 whose share of the softmax of [N, V] the draws [N] in [0, 1) fall into."""
    cumulative = tf.cumsum(tf.nn.softmax(logits), axis=-1)
    below = tf.cast(cumulative <= draws[:, tf.newaxis], tf.int32)
    return tf.minimum(tf.reduce_sum(below, axis=-1), logits.shape[-1] - 1)
