"""A training step of a classifier that has no state: the whole sequence, all of its gradient."""

from __future__ import annotations

import tensorflow as tf

from t2aux.data import Batch
from t2aux.losses.base import AuxiliaryLoss
from t2aux.model import weights
from t2aux.model.share import Share
from t2aux.model.transformer import Transformer
from t2aux.training.trainer import DROPOUT, Step, classification_loss, gradients_of


class TransformerTrainer:
    """As `Trainer`, for a Transformer: no truncation and no auxiliary losses.

    Attributes:
        classifier: The network.
        losses: None, an empty list.
        variables_in_order: All trainable variables.
    """

    def __init__(self, classifier: Transformer) -> None:
        """Keeps the network."""
        self.classifier = classifier
        self.losses: list[AuxiliaryLoss] = []
        self.variables_in_order = weights.in_order(classifier)

    def trained_variables(self, *, auxiliary: bool = True) -> list[tf.Variable]:
        """The variables that `Step.gradients` are of, in that order; see `Trainer`."""
        del auxiliary
        return self.variables_in_order

    def step(
        self, batch: Batch, *, seed: tf.Tensor, share: Share | None = None, **_: object
    ) -> Step:
        """The loss and gradients of a batch; see `Trainer.step`.

        Args:
            batch: inputs [B, T, C] float32 or [B, T] int32, lengths [B], labels [B].
            seed: [2] int32, this batch's: dropout is a function of it alone.
            share: See `Trainer.step`.
            **_: What is of the phases and of auxiliary losses, of which there are none.

        Returns:
            The step.
        """
        with tf.GradientTape() as tape:
            logits = self.classifier.logits_of(
                batch.inputs,
                batch.lengths,
                seed=tf.random.experimental.stateless_fold_in(seed, DROPOUT),
                share=share,
            )
            loss, metrics = classification_loss(logits, batch.labels, share)
        gradients = gradients_of(tape, loss, self.variables_in_order)
        return Step(gradients, {"loss": loss, **metrics})
