"""A training step of a classifier without state: the whole sequence with its full gradient."""

from __future__ import annotations

import tensorflow as tf

from t2aux.data import Batch
from t2aux.losses.base import AuxiliaryLoss
from t2aux.model import weights
from t2aux.model.share import Share
from t2aux.model.transformer import Transformer
from t2aux.training.trainer import DROPOUT, Step, classification_loss, gradients_of


class TransformerTrainer:
    """Like `Trainer`, for a Transformer, without truncation and auxiliary losses.

    Attributes:
        classifier: The network.
        losses: An empty list.
        variables_in_order: All trainable variables.
    """

    def __init__(self, classifier: Transformer) -> None:
        """Stores the network."""
        self.classifier = classifier
        self.losses: list[AuxiliaryLoss] = []
        self.variables_in_order = weights.in_order(classifier)

    def trained_variables(self, *, auxiliary: bool = True) -> list[tf.Variable]:
        """The variables of `Step.gradients`, in the same order; see `Trainer`."""
        del auxiliary
        return self.variables_in_order

    def step(
        self, batch: Batch, *, seed: tf.Tensor, share: Share | None = None, **_: object
    ) -> Step:
        """Computes the loss and gradients of a batch; see `Trainer.step`.

        Args:
            batch: inputs [B, T, C] float32 or [B, T] int32, lengths [B], labels [B].
            seed: [2] int32, the seed of this batch; dropout depends on nothing else.
            share: See `Trainer.step`.
            **_: Arguments for phases and auxiliary losses, which are ignored.

        Returns:
            The results of the step.
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
