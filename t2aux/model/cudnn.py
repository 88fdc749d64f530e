"""Runs the LSTM through Keras's layer, which uses cuDNN's kernel on a GPU.

On a GPU, a loop over steps launches several small kernels per step and waits for each. cuDNN's
kernel runs a whole segment. It requires projected input and sequences that begin at the first step
and have at least one step. It returns all outputs, but only the last cell. So a scan that returns
the states at some positions makes one call for each segment between them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING

import keras
import tensorflow as tf

if TYPE_CHECKING:
    from t2aux.kernels import ops
    from t2aux.model.core import Active

# The output and the cell, [B, H] each.
_State = tuple[tf.Tensor, tf.Tensor]


def on_gpu() -> bool:
    """Whether TensorFlow sees a GPU."""
    return bool(tf.config.list_logical_devices("GPU"))


def outputs(
    x: tf.Tensor, weights: ops.Weights, state: _State, active: Active | None = None
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Runs an LSTM over a segment; supports gradients.

    Args:
        x: [T, B, D].
        weights: The kernel [D, 4H], the bias [4H] and the recurrent kernel [H, 4H].
        state: The state before the segment.
        active: The steps that are not padding; states do not change at padding. None: all.

    Returns:
        The outputs [T, B, H], and the output and the cell after the last step, [B, H] each.
    """
    h, c = state

    def found() -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        outputs, new_h, new_c = _outputs(x, weights, (h, c), active)
        outputs = tf.ensure_shape(outputs, [x.shape[0], *h.shape])
        return outputs, tf.ensure_shape(new_h, h.shape), tf.ensure_shape(new_c, c.shape)

    if x.shape[0]:
        return found()
    # cuDNN does not accept a segment of 0 steps.
    return tf.cond(
        tf.shape(x)[0] > 0, found, lambda: (tf.zeros([0, *tf.unstack(tf.shape(h))]), h, c)
    )


def _outputs(
    x: tf.Tensor, weights: ops.Weights, state: _State, active: Active | None
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Like `outputs`, for a segment of at least one step."""
    kernel, bias, recurrent_kernel = map(tf.convert_to_tensor, weights)
    # The Keras layer is called with the given weights instead of its own.
    layer = _keras_layer(recurrent_kernel.shape[0], kernel.shape[0])

    def call(x: tf.Tensor, mask: tf.Tensor | None) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        (found, h, c), _ = layer.stateless_call(
            [kernel, recurrent_kernel, bias],
            [v.value for v in layer.non_trainable_variables],
            tf.transpose(x, [1, 0, 2]),
            initial_state=list(state),
            mask=mask,
        )
        return tf.transpose(found, [1, 0, 2]), h, c

    if active is None:
        return call(x, None)
    steps, batch = tf.unstack(tf.shape(x)[:2])
    first = tf.zeros([batch], tf.int32) if active.first is None else active.first
    last = tf.fill([batch], steps) if active.last is None else active.last
    begin = tf.clip_by_value(first, 0, steps)
    lengths = tf.maximum(tf.minimum(last, steps) - begin, 0)
    if active.first is not None:
        x = tf.reverse_sequence(x[::-1], steps - begin, seq_axis=0, batch_axis=1)
    found, h, c = call(x, tf.sequence_mask(tf.maximum(lengths, 1), steps))
    if active.first is not None:
        found = tf.reverse_sequence(found, steps - begin, seq_axis=0, batch_axis=1)[::-1]
    some = (lengths > 0)[:, tf.newaxis]
    h, c = (tf.where(some, after, before) for after, before in zip((h, c), state, strict=True))
    t = tf.range(steps)[:, tf.newaxis]
    kept = tf.where((t < begin)[..., tf.newaxis], state[0], h)
    return tf.where(active(t), found, kept), h, c


def states_at(
    project: Callable[[tf.Tensor], tf.Tensor],
    tokens: tf.Tensor,
    weights: ops.Weights,
    state: _State,
    positions: tf.Tensor,
    active: Active | None = None,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """The states at some positions of a segment, and all outputs; supports gradients.

    Args:
        project: The input layer: [n, B, C] or ids [n, B] -> [n, B, D].
        tokens: [T, B, C] float32, or ids [T, B] int32.
        weights: See `outputs`.
        state: The state before the segment.
        positions: [M] int32 positions in 0..T, in any order.
        active: See `outputs`.

    Returns:
        The outputs and the cells before those steps, [M, B, H] each, and all outputs [T, B, H].
    """
    order = tf.argsort(positions, stable=True)
    ends = tf.concat([tf.gather(positions, order), tf.shape(tokens)[:1]], 0)
    count = tf.shape(ends)[0]
    h, c = state
    kept = [tf.TensorArray(tf.float32, count, element_shape=s.shape) for s in state]
    pieces = tf.TensorArray(tf.float32, count, infer_shape=False, element_shape=[None, *h.shape])

    def body(i: tf.Tensor, begin: tf.Tensor, h: tf.Tensor, c: tf.Tensor, *arrays: tuple) -> tuple:
        end = ends[i]
        here = None if active is None else active.since(begin)
        piece, h, c = outputs(project(tokens[begin:end]), weights, (h, c), here)
        piece.set_shape([None, *h.shape])
        written = [array.write(i, x) for array, x in zip(arrays, (h, c, piece), strict=True)]
        return i + 1, end, h, c, *written

    *_, all_h, all_c, pieces = tf.while_loop(
        lambda i, *_: i < count, body, (0, 0, h, c, *kept, pieces), parallel_iterations=1
    )
    # The last position is the segment's end.
    inverse = tf.argsort(order)
    at = [tf.gather(array.stack(), inverse) for array in (all_h, all_c)]
    return *at, pieces.concat()


@functools.cache
def _keras_layer(hidden_size: int, input_size: int) -> keras.layers.LSTM:
    with tf.init_scope():
        layer = keras.layers.LSTM(hidden_size, return_sequences=True, return_state=True)
        layer.build((None, None, input_size))
    return layer
