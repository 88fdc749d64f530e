"""A replica's share of a batch, and what the replica must know of the whole batch.

The shares of all replicas together must give the same result as one replica for the whole batch.
So every replica draws the random numbers for the whole batch and uses those of its rows, and sums
over rows are divided by counts over the whole batch, so that losses and gradients add up.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf


class Share(NamedTuple):
    """The rows of a replica: every `replicas`-th row of the batch, starting with `replica`.

    So the numbers of rows of two replicas differ by at most one, and every replica gets long and
    short sequences of a batch that is sorted by length.

    Attributes:
        replica: The replica's number.
        replicas: The number of replicas that share the batch.
        lengths: [G] int32, the lengths of all sequences of the batch.
        chosen: [R] int32, which of these rows are used; None: all.
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
        """Whether the replica has rows, a scalar bool. If not, it repeats the first replica's."""
        return self.replica < self.size

    def rows(self, values: tf.Tensor, axis: int = -1) -> tf.Tensor:
        """This replica's rows of values for the whole batch, [..., G, ...]."""
        before = [slice(None)] * (axis % values.shape.rank)
        first = tf.where(self.has_rows, self.replica, 0)
        values = values[(*before, slice(first, None, self.replicas))]
        return values if self.chosen is None else tf.gather(values, self.chosen, axis=axis)
