"""The decoder that may be fed its own tokens, its head, loss and gradient, compiled by XLA.

On a GPU, a loop over steps waits for the launches of dozens of small kernels per step. This module
needs only a few. A forward loop stores what the gradient needs. A backward loop computes only the
gradients with respect to the pre-activations. The weights' gradients follow, one product each over
all steps. No gradient passes between chunks, so the backward loop computes all chunks at once, as
rows of a batch.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import tensorflow as tf
from absl import logging

from t2aux.kernels import ops
from t2aux.losses import decoder
from t2aux.losses.decoder import Segments, Weights
from t2aux.model import heads, lstm
from t2aux.model.lstm import LSTMState

# Steps per iteration of a compiled loop, because each iteration waits for its launches. More than
# five gain little and take longer to compile.
_UNROLL = 5

# Computes the losses [l, N] from predictions [l, N, C] or logits [l, N, V], and targets.
OutputLosses = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


class _Trace(NamedTuple):
    """The values that the steps computed.

    Attributes:
        fed: [l, N, C] or [l, N], the tokens that were fed.
        z: [l, N, 4H] for each layer, the gates' pre-activations.
        h: [l, N, H] for each layer, the outputs after each step.
        c: [l, N, H] for each layer, the cells after each step.
    """

    fed: tf.Tensor
    z: list[tf.Tensor]
    h: list[tf.Tensor]
    c: list[tf.Tensor]


def loss(
    weights: Weights,
    states: Sequence[LSTMState],
    segments: Segments,
    *,
    chunk: int,
    output_losses: OutputLosses,
) -> tf.Tensor:
    """The sum of the losses of all predicted tokens, computed by a function that XLA compiles.

    Supports gradients with respect to the weights and the states. They are computed with the loss,
    in the same compiled function.

    Args:
        weights: The decoder's weights.
        states: Each layer's state before the first step, [N, H] each.
        segments: The segments to decode; their length l must be static.
        chunk: The states pass no gradient from one chunk of this many steps to another.
        output_losses: Computes the losses of predictions.

    Returns:
        A scalar.
    """
    # TensorFlow must not store anything in the compiled function for its own gradients.
    given = tf.nest.map_structure(
        lambda x: None if x is None else tf.stop_gradient(x), (weights, list(states))
    )

    @tf.custom_gradient
    def value(*_: tf.Tensor) -> tuple[tf.Tensor, Callable[..., list[tf.Tensor]]]:
        value, gradients = _compiled(output_losses, chunk)(*given, segments)
        return value, lambda upstream: [upstream * g for g in gradients]

    return value(*_tensors((weights, states)))


def _tensors(nest: Any) -> list[tf.Tensor]:
    """The tensors in a nest without None: if tokens are ids, the bottom layer has no bias."""
    return [x for x in tf.nest.flatten(nest) if x is not None]


@functools.lru_cache(maxsize=16)
def _compiled(output_losses: OutputLosses, chunk: int) -> Callable[..., tuple]:
    @tf.function(jit_compile=True, autograph=False)
    def value_and_gradients(
        weights: Weights, states: list[LSTMState], segments: Segments
    ) -> tuple[tf.Tensor, list[tf.Tensor]]:
        logging.info("Compiling the decoder and its gradient with XLA for the GPU, once a run.")
        trace = _forward(weights, states, segments)
        hidden = trace.h[-1]
        with tf.GradientTape() as tape:
            tape.watch([hidden, *weights.head])
            predictions = heads.apply(hidden, *weights.head)
            value = tf.reduce_sum(
                output_losses(predictions, segments.tokens[1:]) * segments.valid_mask
            )
        upstream, *head = tape.gradient(value, [hidden, *weights.head])
        dz, of_states = _backward(weights, states, trace, upstream, min(chunk, hidden.shape[0]))
        layers = _of_layers(weights, states, trace, dz)
        return value, _tensors((Weights(tuple(layers), tuple(head)), of_states))

    return value_and_gradients


def _loop(body: Callable[[Any, Any], Any], steps: int, variables: Any) -> Any:
    """Calls `body(t, variables)` with every t below `steps`, several per iteration."""
    unroll = min(_UNROLL, steps)
    whole = steps // unroll * unroll

    def several(t: tf.Tensor, variables: Any) -> tuple:
        for k in range(unroll):
            variables = body(t + k, variables)
        return t + unroll, variables

    _, variables = tf.while_loop(lambda t, _: t < whole, several, (0, variables))
    for t in range(whole, steps):
        variables = body(t, variables)
    return variables


def _forward(weights: Weights, states: list[LSTMState], segments: Segments) -> _Trace:
    given = segments.tokens[:-1]
    steps, kernels = given.shape[0], decoder.stacked_kernels(weights)

    def array(element: tf.Tensor, size: int | None = None) -> tf.TensorArray:
        shape = element.shape if size is None else [*element.shape[:-1], size]
        return tf.TensorArray(element.dtype, steps, element_shape=shape)

    arrays = _Trace(
        array(given[0]),
        [array(state.c, 4 * state.c.shape[-1]) for state in states],
        [array(state.h) for state in states],
        [array(state.c) for state in states],
    )

    def body(t: tf.Tensor | int, variables: tuple) -> tuple:
        previous, states, arrays = variables
        done = decoder.step(
            weights,
            kernels,
            given[t],
            previous,
            segments.use_sampled[t],
            segments.uniforms[t],
            states,
        )
        found = _Trace(
            done.fed, done.z, [state.h for state in done.states], [s.c for s in done.states]
        )
        written = [
            all_.write(t, x)
            for all_, x in zip(tf.nest.flatten(arrays), tf.nest.flatten(found), strict=True)
        ]
        return done.sampled, done.states, tf.nest.pack_sequence_as(arrays, written)

    *_, arrays = _loop(body, steps, (tf.zeros_like(given[0]), states, arrays))
    return tf.nest.map_structure(lambda all_: all_.stack(), arrays)


def _backward(
    weights: Weights, states: list[LSTMState], trace: _Trace, upstream: tf.Tensor, chunk: int
) -> tuple[list[tf.Tensor], list[LSTMState]]:
    """The gradients with respect to the pre-activations and the first states.

    Args:
        weights: The decoder's weights.
        states: Each layer's state before the first step.
        trace: The values that the steps computed.
        upstream: [l, N, H], the gradient with respect to the top layer's outputs.
        chunk: The states pass no gradient from one chunk of this many steps to another.

    Returns:
        [l, N, 4H] for each layer, and [N, H] for each state.
    """
    steps, rows = upstream.shape[0], tf.shape(upstream)[1]
    chunks = -(-steps // chunk)

    def as_rows(x: tf.Tensor) -> tf.Tensor:
        # Zero steps that are appended after the last have a zero gradient.
        x = tf.pad(x, [[0, chunks * chunk - steps], [0, 0], [0, 0]])
        x = tf.reshape(x, [chunks, chunk, rows, x.shape[-1]])
        return tf.reshape(tf.transpose(x, [1, 0, 2, 3]), [chunk, chunks * rows, x.shape[-1]])

    def as_steps(x: tf.Tensor) -> tf.Tensor:
        x = tf.transpose(tf.reshape(x, [chunk, chunks, rows, x.shape[-1]]), [1, 0, 2, 3])
        return tf.reshape(x, [chunks * chunk, rows, x.shape[-1]])[:steps]

    z = list(map(as_rows, trace.z))
    cells = list(map(as_rows, trace.c))
    before = [as_rows(_before(state.c, c)) for state, c in zip(states, trace.c, strict=True)]
    upstream = as_rows(upstream)
    kernels = [weights.layers[0].recurrent_kernel, *decoder.stacked_kernels(weights)]

    def body(back: tf.Tensor | int, variables: tuple) -> tuple:
        of_states, arrays = (list(x) for x in variables)
        t = chunk - 1 - back
        from_above = upstream[t]
        for i in reversed(range(len(kernels))):
            dh, dc = of_states[i]
            dz, dc = _cell_gradient(z[i][t], before[i][t], cells[i][t], dh + from_above, dc)
            arrays[i] = arrays[i].write(t, dz)
            dh = tf.matmul(dz, kernels[i], transpose_b=True)
            if i:
                from_above, dh = tf.split(dh, [dh.shape[-1] - dc.shape[-1], -1], axis=-1)
            of_states[i] = LSTMState(dh, dc)
        return of_states, arrays

    nothing = [LSTMState(tf.zeros_like(c[0]), tf.zeros_like(c[0])) for c in cells]
    arrays = [tf.TensorArray(tf.float32, chunk, element_shape=x.shape[1:]) for x in z]
    of_states, arrays = _loop(body, chunk, (nothing, arrays))
    dz = [as_steps(all_.stack()) for all_ in arrays]
    return dz, tf.nest.map_structure(lambda x: x[:rows], of_states)


def _before(first: tf.Tensor, after: tf.Tensor) -> tf.Tensor:
    """The values before each step, given the first ones and those after each step."""
    return tf.concat([first[tf.newaxis], after[:-1]], 0)


def _cell_gradient(
    z: tf.Tensor, before: tf.Tensor, after: tf.Tensor, dh: tf.Tensor, dc: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """The gradients of `lstm.cell` with respect to the pre-activations and the previous cell."""
    i, f, g, o = lstm.gates(z)
    tanh = tf.tanh(after)
    dc += dh * o * (1 - tanh * tanh)
    dz = [dc * g * i * (1 - i), dc * before * f * (1 - f), dc * i * (1 - g * g)]
    return tf.concat([*dz, dh * tanh * o * (1 - o)], -1), dc * f


def _of_layers(
    weights: Weights, states: list[LSTMState], trace: _Trace, dz: list[tf.Tensor]
) -> list[ops.Weights]:
    """The gradients with respect to the layers' weights, one product each over all steps."""
    found, read = [], trace.fed
    for layer, state, h, of_z in zip(weights.layers, states, trace.h, dz, strict=True):
        bias = None if layer.bias is None else tf.reduce_sum(of_z, [0, 1])
        if layer.bias is None:
            # A scatter would add in an undefined order.
            read = tf.one_hot(read, layer.input_kernel.shape[0])
        kernel, recurrent = (
            tf.tensordot(x, of_z, [[0, 1]] * 2) for x in (read, _before(state.h, h))
        )
        found.append(ops.Weights(kernel, bias, recurrent))
        read = h
    return found
