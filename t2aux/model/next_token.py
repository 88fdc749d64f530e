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

    Attributes:
        inputs: [S, B, ...], S steps of tokens.
        targets: [S, B, ...]: the token that the output after each step predicts.
        predicted: [B] int32 first and last steps: outputs after steps first[b] <= s < last[b]
            predict; the others' targets mean nothing.
        active: When sequences are there; None: always.
        silent: Scalar int32: no output before this step predicts anything.
    """

    inputs: tf.Tensor
    targets: tf.Tensor
    predicted: tuple[tf.Tensor, tf.Tensor]
    active: Active | None
    silent: tf.Tensor

    @property
    def steps(self) -> tf.Tensor:
        """S, a scalar."""
        return tf.shape(self.inputs)[0]

    @property
    def count(self) -> tf.Tensor:
        """How many tokens are predicted, a scalar float32."""
        first, last = self.predicted
        return tf.reduce_sum(tf.cast(tf.maximum(last - first, 0), tf.float32))

    def active_from(self, begin: tf.Tensor) -> Active | None:
        """`active` for the inputs from step `begin` on."""
        if self.active is None:
            return None
        return Active(*[None if step is None else step - begin for step in self.active])


class NextToken(Auxiliary):
    """A loss on the main network's outputs over whole sequences."""

    def __init__(self, classifier: Classifier, *, name: str, weight: float, head_size: int) -> None:
        super().__init__(classifier, name=name, weight=weight, head_size=head_size)

    def read(self, tokens: tf.Tensor, starts: tf.Tensor, *, padded: bool) -> Reading:
        """What is read and predicted of a batch.

        Args:
            tokens: [T, B, C] float32 or [T, B] int32, aligned at their ends.
            starts: [B] int32, the step at which each sequence begins.
            padded: Whether any may begin after step 0.

        Returns:
            The reading.
        """
        raise NotImplementedError

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
        losses = self.token_losses(self.head(outputs), reading.targets[begin:end])
        return Loss(tf.reduce_sum(losses * there), tf.reduce_sum(there))
