"""A replica's share of a batch that several work on, and what it must know of the whole.

The replicas' shares together are to give what one replica gives for the whole batch: the same
random numbers, drawn for the whole batch by everyone and used by the row; sums over rows divided by
what is counted in the whole batch, so that losses and gradients of all shares add up.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf


class Share(NamedTuple):
    """The rows that a replica has: every `replicas`-th of the batch, from `replica` on.

    So the replicas' numbers of rows differ by one at most, and where a batch is sorted by length,
    all have long ones and short ones.

    Attributes:
        replica: The replica's number.
        replicas: How many share the batch.
        lengths: [G] int32: the lengths of all of the batch's sequences.
        chosen: [R] int32: which of these rows it holds; None: all.
    """

    replica: int
    replicas: int
    lengths: tf.Tensor
    chosen: tf.Tensor | None = None

    @property
    def size(self) -> tf.Tensor:
        """G, a scalar."""
        return tf.shape(self.lengths)[0]

    @property
    def has_rows(self) -> tf.Tensor:
        """Whether there are any, a scalar bool. A replica without any does the first replica's."""
        return self.replica < self.size

    def rows(self, values: tf.Tensor, axis: int = -1) -> tf.Tensor:
        """This replica's of values that were made for the whole batch, [..., G, ...]."""
        before = [slice(None)] * (axis % values.shape.rank)
        first = tf.where(self.has_rows, self.replica, 0)
        values = values[(*before, slice(first, None, self.replicas))]
        return values if self.chosen is None else tf.gather(values, self.chosen, axis=axis)
