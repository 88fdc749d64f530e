"""The interface of plans: how one auxiliary loss is computed in a step, and on which rows."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, NamedTuple

import tensorflow as tf

from t2aux.errors import SettingError
from t2aux.losses.base import AuxiliaryLoss, Bptt, Declaration, Outputs, Sequences, States, stream
from t2aux.model.classifier import BaseClassifier
from t2aux.model.core import State

# A loss's random stream; its own streams are numbered from 0.
_ROWS = 2**31 - 1


@dataclasses.dataclass(frozen=True)
class Context:
    """The values that the plans of a training step share.

    Attributes:
        classifier: The main network.
        sequences: The batch.
        variables: The variables that gradients are computed for, in order.
        progress: Scalar float32 in [0, 1], the completed fraction of the phase.
    """

    classifier: BaseClassifier
    sequences: Sequences
    variables: list[tf.Variable]
    progress: tf.Tensor


class Result(NamedTuple):
    """The unweighted mean of a loss, and the gradients of the weighted mean."""

    mean: tf.Tensor
    gradients: list[tf.Tensor]


class Plan:
    """Computes one loss in one training step.

    Attributes:
        loss: The loss.
        bptt: How many steps its gradient goes back.
        joins_one_pass: Whether `in_one_pass` is implemented.
        needs_outputs: Whether `in_one_pass` needs the outputs after every step.
        sequences: The sequences that the loss is computed on, see `AuxiliaryLoss.rows`.
    """

    joins_one_pass = True
    needs_outputs = False

    def __init__(
        self,
        context: Context,
        loss: AuxiliaryLoss,
        declaration: Declaration,
        seed: tf.Tensor,
        bptt: Bptt,
    ) -> None:
        self.loss = loss
        self._declaration = declaration
        self._seed = seed
        self.bptt = bptt
        self._rows: tf.Tensor | None = None
        if loss.rows < 1:
            self._rows, self._scale = draw_rows(context.sequences, loss.rows, seed)
            context = dataclasses.replace(context, sequences=context.sequences.at(self._rows))
        self._context = context
        self.sequences = context.sequences

    @property
    def metric(self) -> str:
        """The name of the loss in metrics."""
        return f"{self.loss.name}_loss"

    @property
    def positions(self) -> tf.Tensor:
        """[n] int32, the positions whose states `in_one_pass` needs."""
        return self._declaration.positions

    def rows_of(self, values: Any, sequences: Sequences) -> Any:
        """The rows of values that belong to the plan's `sequences`.

        Args:
            values: A nest of [n, B, ...], or None.
            sequences: The sequences of the values: the whole batch, or the plan's own.

        Returns:
            The plan's rows, [n, R, ...] each, or None.
        """
        if sequences is self.sequences or values is None:
            return values
        return tf.nest.map_structure(lambda v: tf.gather(v, self._rows, axis=1), values)

    def state_positions(self, *, gradient: bool) -> list[tf.Tensor]:
        """The positions [n] int32 whose states the forward pass must keep.

        Args:
            gradient: Whether `result` will be called; otherwise `mean` will be.
        """
        raise NotImplementedError

    def result(self, kept: list[State]) -> Result:
        """The loss and its gradients.

        Args:
            kept: The states of `sequences` at each list of `state_positions`, [n, B, ...] each.
        """
        raise NotImplementedError

    def mean(self, kept: list[State]) -> tf.Tensor:
        """The loss without gradients; see `result`."""
        raise NotImplementedError

    def in_one_pass(self, states: State, outputs: tf.Tensor | None) -> tf.Tensor:
        """The mean loss, for a gradient that goes back to the beginning.

        Args:
            states: The states of `sequences` at `positions`, [n, B, ...] each.
            outputs: Their outputs [T, B, H], if `needs_outputs`.
        """
        raise NotImplementedError

    def _mean(self, total: tf.Tensor) -> tf.Tensor:
        # 0 if nothing could be predicted.
        mean = tf.math.divide_no_nan(total, self._declaration.count)
        return mean if self._rows is None else mean * self._scale

    def _call(self, kind: type[States | Outputs], **given: Any) -> tuple[tf.Tensor, Any]:
        """Calls the loss with what it declared. Returns its sum and its carry."""
        result = self.loss.call(kind(seed=self._seed, progress=self._context.progress, **given))
        total, carry = result if isinstance(result, tuple) else (result, ())
        if not tf.is_tensor(total) or total.shape.rank != 0 or total.dtype != tf.float32:
            raise SettingError(
                f"{type(self.loss).__name__}.call must return a scalar float32 tensor, the sum "
                f"over the terms of the batch, but returned {described(total)}."
            )
        return total, carry


def described(value: Any) -> str:
    """Describes a value for a message: a tensor's type and shape, or another value's type."""
    if tf.is_tensor(value):
        return f"{value.dtype.name} of shape {value.shape}"
    return type(value).__name__


def draw_rows(
    sequences: Sequences, rows: float, seed: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor | float]:
    """Draws the rows of the batch that a loss is computed on; all subsets are equally likely.

    All replicas draw the same rows of the whole batch; a share of it gets those that it contains.

    Args:
        sequences: The batch, or a share of it.
        rows: The fraction of the batch, below 1.
        seed: [2] int32, specific to this batch and this loss.

    Returns:
        The rows [R] int32, ascending, at least one; and the factor that makes the sum over them an
        unbiased estimate of the sum over all rows.
    """
    share = sequences.share
    size = sequences.tokens.shape[1] if share is None else share.size
    if size is None:
        size = tf.shape(sequences.starts)[0]
    count = row_count(size, rows)
    keys = tf.random.stateless_uniform(
        [size], stream(seed, _ROWS), minval=None, maxval=None, dtype=tf.int32
    )
    chosen = tf.sort(tf.argsort(keys, stable=True)[:count])
    scale = tf.cast(size, tf.float32) / tf.cast(count, tf.float32)
    if share is None:
        return chosen, scale
    is_chosen = tf.scatter_nd(chosen[:, tf.newaxis], tf.ones_like(chosen), [size])
    in_share = tf.where(share.rows(is_chosen) > 0)[:, 0]
    has_rows = tf.size(in_share) > 0
    # A share without drawn rows gets its first row, which does not count.
    filler = tf.zeros([tf.cast(~has_rows, tf.int32)], in_share.dtype)
    return tf.cast(tf.concat([in_share, filler], 0), tf.int32), tf.where(has_rows, scale, 0.0)


def row_count(size: int | tf.Tensor, rows: float) -> int | tf.Tensor:
    """The number of rows to draw from a batch: ceil(size * rows) up to rounding, at least 1."""
    # Static if the size is. Yields 7 rows of 100 at 0.07, although 100 * 0.07 is a little above 7.
    if isinstance(size, int):
        return max(math.ceil(size * rows - 1e-6), 1)
    return tf.maximum(tf.cast(tf.math.ceil(tf.cast(size, tf.float64) * rows - 1e-6), tf.int32), 1)
