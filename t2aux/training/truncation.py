"""Truncated backpropagation through time: which windows of steps carry gradient.

A forward pass over the batch carries the state along and stores only the states at some positions.
From these, the windows that carry gradient are run again, with the gradient stopped at their
beginning. So the memory of a training step depends on the length of the windows, and not on that of
the sequence.
"""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from t2aux.errors import SettingError
from t2aux.losses.base import Bptt
from t2aux.model.classifier import BaseClassifier
from t2aux.model.core import Scan, State, active_from


class Windows(NamedTuple):
    """Windows of steps that end at anchors.

    Attributes:
        group: [n] int32, the window of each anchor.
        begin: [n] int32, the first step of each anchor's window.
        first: [n] int32, the first step of each window; undefined beyond `count`.
        end: [n] int32, one past the last step of each window, which is its last anchor; undefined
            beyond `count`.
        count: Scalar int32, the number of windows.
    """

    group: tf.Tensor
    begin: tf.Tensor
    first: tf.Tensor
    end: tf.Tensor
    count: tf.Tensor


def check_bptt(parameter: str, value: Bptt) -> None:
    """Raises UserError if a truncation length is neither "full" nor a number from 0."""
    is_number = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if value != "full" and not (is_number and value >= 0):
        raise SettingError(
            f"{parameter} must be 'full' or a number of steps from 0, but is {value!r}."
        )


def group_anchors(anchors: tf.Tensor, truncation: tf.Tensor | int) -> Windows:
    """Groups anchors into windows of at most `truncation` steps.

    Starting from the last anchor, each window ends at the last anchor that is not yet in a window,
    and contains all anchors of its `truncation` steps. Their gradients go back to its beginning,
    exactly `truncation` steps from its last anchor and at most as many from the others. So n
    anchors cost at most min(T, n * truncation) steps, however close together they are. With one
    anchor, the truncation is exact.

    Args:
        anchors: [n] int32 positions.
        truncation: The number of steps, at least 1.

    Returns:
        The windows, which are disjoint.
    """
    count = tf.shape(anchors)[0]
    order = tf.argsort(anchors, direction="DESCENDING", stable=True)
    descending = tf.gather(anchors, order)

    def body(i: tf.Tensor, end: tf.Tensor, group: tf.Tensor, ends: tf.TensorArray) -> tuple:
        position = descending[i]
        outside = position <= end - truncation
        end = tf.where(outside, position, end)
        group = group + tf.cast(outside, tf.int32)
        return i + 1, end, group, ends.write(i, tf.stack([group, end]))

    rows = tf.TensorArray(tf.int32, count, element_shape=[2])
    *_, rows = tf.while_loop(lambda i, *_: i < count, body, (0, descending[0], 0, rows))
    rows = rows.stack()
    inverse = tf.argsort(order)
    by_anchor = tf.gather(rows, inverse)
    end = tf.math.unsorted_segment_max(rows[:, 1], rows[:, 0], count)
    return Windows(
        group=by_anchor[:, 0],
        begin=tf.maximum(by_anchor[:, 1] - truncation, 0),
        first=tf.maximum(end - truncation, 0),
        end=end,
        count=rows[-1, 0] + 1,
    )


def forward_states(
    classifier: BaseClassifier,
    tokens: tf.Tensor,
    starts: tf.Tensor | None,
    positions: tf.Tensor,
) -> State:
    """Runs a forward pass without gradient, and returns the states at some positions.

    Args:
        classifier: The network.
        tokens: [T, B, C] float32 or [T, B] int32.
        starts: [B] int32, the step at which each sequence begins; None: 0 for all.
        positions: [M] int32 positions in 0..T, in any order.

    Returns:
        The states before those steps, [M, B, ...] each.
    """
    state = classifier.init_state(tf.shape(tokens)[1])
    scan = Scan(state, positions, active_from(starts), gradient=False)
    states, _ = classifier.states_at(tokens, scan)
    return tf.nest.map_structure(tf.stop_gradient, states)


def align_ends(tokens: tf.Tensor, lengths: tf.Tensor) -> tf.Tensor:
    """Moves the padding from the end of each sequence to its beginning.

    The last k steps of the batch are then the last k of every sequence, whatever its length.

    Args:
        tokens: [B, T, ...], padded at the end.
        lengths: [B] int32.

    Returns:
        [B, T, ...], where sequence b begins at step T - lengths[b].
    """
    return tf.reverse(tf.reverse_sequence(tokens, lengths, seq_axis=1), [1])


def gradients_of(
    tape: tf.GradientTape, objective: tf.Tensor, sources: Sequence[tf.Tensor | tf.Variable]
) -> list[tf.Tensor]:
    """The dense gradients of an objective; zeros for a source that it does not depend on."""
    gradients = tape.gradient(
        objective, sources, unconnected_gradients=tf.UnconnectedGradients.ZERO
    )
    return [tf.convert_to_tensor(g) for g in gradients]


def added(sums: Sequence[tf.Tensor], parts: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """Adds a window's gradients to sums of gradients in a loop; sets the shapes of the sums.

    TensorFlow does not always know the shape of a gradient while it builds a graph.
    """
    parts = map(tf.convert_to_tensor, parts)
    return [tf.ensure_shape(a + b, a.shape) for a, b in zip(sums, parts, strict=True)]
