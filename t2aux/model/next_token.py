"""Losses on the main network's own outputs over whole sequences: each predicts the next token.

`language_model.py` and `autoencoder.py` are the two, the pretraining of Dai and Le (2015),
"Semi-supervised Sequence Learning", that the paper compares with (Table 4). Neither has recurrent
layers of its own: a head on the main network's outputs is all that they add.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from t2aux.model.auxiliary import Auxiliary, Loss
from t2aux.model.classifier import Classifier
from t2aux.model.core import Active


class Reading(NamedTuple):
    """What the main network reads from zeros on, and what its outputs must predict.

    Read once, each token predicts the one after it. Read twice, the second time right after the
    first, nothing is predicted the first time, and then every token, the last of the first time
    predicting the first.

    Attributes:
        tokens: [T, B, C] float32 or [T, B] int32, aligned at their ends.
        starts: [B] int32, the step at which each sequence begins.
        padded: Whether any may begin after step 0.
        twice: Whether they are read twice.
    """

    tokens: tf.Tensor
    starts: tf.Tensor
    padded: bool
    twice: bool

    @property
    def steps(self) -> tf.Tensor:
        """How many steps the network reads, a scalar."""
        once = tf.shape(self.tokens)[0]
        return 2 * once - 1 if self.twice else once - 1

    @property
    def silent(self) -> tf.Tensor:
        """The first step whose output predicts anything, a scalar."""
        return tf.shape(self.tokens)[0] - 1 if self.twice else tf.constant(0)

    @property
    def predicted(self) -> tuple[tf.Tensor, tf.Tensor]:
        """[B] first and last: the outputs after steps first[b] <= s < last[b] predict."""
        once = tf.shape(self.tokens)[0]
        if self.twice:
            return tf.fill(tf.shape(self.starts), once - 1), 2 * once - 1 - self.starts
        return self.starts, tf.fill(tf.shape(self.starts), once - 1)

    @property
    def count(self) -> tf.Tensor:
        """How many tokens are predicted, a scalar float32."""
        first, last = self.predicted
        return tf.reduce_sum(tf.cast(tf.maximum(last - first, 0), tf.float32))

    def active(self, begin: tf.Tensor) -> Active | None:
        """When sequences are there, counted from step `begin` on; None: always."""
        if not self.padded:
            return None
        return Active(self.starts - begin, self.predicted[1] - begin)

    def window(self, begin: tf.Tensor, end: tf.Tensor) -> tf.Tensor:
        """The tokens of the steps begin <= s < end, [end - begin, B, ...].

        One after the last step is what the last one predicts. Where a sequence is not there, they
        are any.
        """
        if not self.twice:
            return self.tokens[begin:end]
        once, batch = tf.shape(self.tokens)[0], tf.shape(self.tokens)[1]
        step = tf.range(begin, end)[:, tf.newaxis]
        step = tf.where(step < once, step, tf.minimum(step - once + self.starts, once - 1))
        flat = tf.reshape(self.tokens, tf.concat([[-1], tf.shape(self.tokens)[2:]], 0))
        tokens = tf.gather(flat, step * batch + tf.range(batch))
        return tf.ensure_shape(tokens, [None, *self.tokens.shape[1:]])


class NextToken(Auxiliary):
    """A loss on the main network's outputs over whole sequences."""

    # Whether the sequence is read twice, see `Reading`.
    twice: bool

    def __init__(self, classifier: Classifier, *, name: str, weight: float, head_size: int) -> None:
        super().__init__(classifier, name=name, weight=weight, head_size=head_size)

    def loss(self, outputs: tf.Tensor, reading: Reading, begin: tf.Tensor) -> Loss:
        """The loss of a window of outputs.

        Args:
            outputs: [W, B, H], the main network's after the steps from `begin` on.
            reading: What was read.
            begin: Scalar int32.

        Returns:
            The loss.
        """
        end = begin + tf.shape(outputs)[0]
        first, last = reading.predicted
        step = tf.range(begin, end)[:, tf.newaxis]
        there = tf.cast(tf.logical_and(step >= first, step < last), tf.float32)
        losses = self.token_losses(self.head(outputs), reading.window(begin + 1, end + 1))
        return Loss(tf.reduce_sum(losses * there), tf.reduce_sum(there))
