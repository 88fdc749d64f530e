"""What the main network reads for a loss that declares the outputs over whole sequences."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from t2aux.losses.base import Sequences
from t2aux.model.core import Active


class Reading(NamedTuple):
    """What the main network reads for `OutputsOfAll`, and what its outputs must predict.

    Attributes:
        sequences: The batch.
        twice: See `OutputsOfAll`.
    """

    sequences: Sequences
    twice: bool

    @property
    def steps(self) -> tf.Tensor:
        """The number of steps that the network reads, a scalar."""
        once = self.sequences.steps
        return 2 * once - 1 if self.twice else once - 1

    @property
    def first_output(self) -> tf.Tensor:
        """The first step whose output predicts a token, a scalar."""
        return self.sequences.steps - 1 if self.twice else tf.constant(0)

    def active(self, begin: tf.Tensor) -> Active | None:
        """The steps that are not padding, counted from step `begin`; None: all."""
        if not self.sequences.padded:
            return None
        return Active(self.sequences.starts - begin, self._predicted[1] - begin)

    def mask(self, begin: tf.Tensor, end: tf.Tensor) -> tf.Tensor:
        """Which outputs of the steps begin <= s < end predict a token, [end - begin, B]."""
        first, last = self._predicted
        step = tf.range(begin, end)[:, tf.newaxis]
        return tf.cast(tf.logical_and(step >= first, step < last), tf.float32)

    def window(self, begin: tf.Tensor, end: tf.Tensor) -> tf.Tensor:
        """The tokens of the steps begin <= s < end, [end - begin, B, ...].

        Tokens at padding are arbitrary.
        """
        tokens, starts = self.sequences.tokens, self.sequences.starts
        if not self.twice:
            return tokens[begin:end]
        once, batch = tf.shape(tokens)[0], tf.shape(tokens)[1]
        step = tf.range(begin, end)[:, tf.newaxis]
        step = tf.where(step < once, step, tf.minimum(step - once + starts, once - 1))
        flat = tf.reshape(tokens, tf.concat([[-1], tf.shape(tokens)[2:]], 0))
        return tf.ensure_shape(
            tf.gather(flat, step * batch + tf.range(batch)), [None, *tokens.shape[1:]]
        )

    @property
    def _predicted(self) -> tuple[tf.Tensor, tf.Tensor]:
        """First and last, [B] each: the outputs of steps first[b] <= s < last[b] predict."""
        once, starts = self.sequences.steps, self.sequences.starts
        if self.twice:
            return tf.fill(tf.shape(starts), once - 1), 2 * once - 1 - starts
        return starts, tf.fill(tf.shape(starts), once - 1)
