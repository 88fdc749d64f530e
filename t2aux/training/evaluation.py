"""How well a classifier does on a split: accuracy, loss, confusion matrix, and a table by class."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf

from t2aux import data, tf32

if TYPE_CHECKING:
    from t2aux.training import distribution


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """The outcome of an evaluation.

    Attributes:
        classes: The classes' names, K of them.
        confusion: [K, K] int64: row the true class, column the predicted one.
        loss: Mean cross-entropy, in nats.
    """

    classes: tuple[str, ...]
    confusion: np.ndarray
    loss: float

    @property
    def examples(self) -> int:
        """How many sequences were classified."""
        return int(self.confusion.sum())

    @property
    def accuracy(self) -> float:
        """The share of right answers, in [0, 1]."""
        return float(np.trace(self.confusion) / self.examples)

    def by_class(self) -> dict[str, dict[str, float | int]]:
        """Precision, recall and F1 in [0, 1] (0 where undefined) and the examples of each class."""
        right = np.diag(self.confusion)
        true, predicted = self.confusion.sum(axis=1), self.confusion.sum(axis=0)
        precision = right / np.maximum(predicted, 1)
        recall = right / np.maximum(true, 1)
        f1 = 2 * right / np.maximum(true + predicted, 1)
        return {
            name: {
                "precision": float(precision[i]),
                "recall": float(recall[i]),
                "f1": float(f1[i]),
                "examples": int(true[i]),
            }
            for i, name in enumerate(self.classes)
        }

    def to_json(self) -> dict[str, object]:
        """Everything, as JSON can hold it."""
        return {
            "accuracy": self.accuracy,
            "loss": self.loss,
            "examples": self.examples,
            "by_class": self.by_class(),
            "classes": list(self.classes),
            "confusion": self.confusion.tolist(),
        }


@data.user_errors()
@tf32.off()
def evaluate(
    predict: Callable[[data.Batch], tf.Tensor],
    split: data.Split,
    batch_size: int = 128,
    progress: Callable[[int], None] | None = None,
    replicas: distribution.Replicas | None = None,
) -> Evaluation:
    """Classifies a split.

    Args:
        predict: Gives a batch's logits [B, K].
        split: The data.
        batch_size: B; the last batch may be smaller.
        progress: Called after every batch with the number of sequences done.
        replicas: Whose processes share the batches; all must call this. None: this one has all.

    Returns:
        The outcome.
    """
    count = split.info.num_classes
    confusion = np.zeros((count, count), np.int64)
    loss = 0.0
    batches = split.batches(batch_size)
    if replicas is not None and replicas.workers > 1:
        batches = batches.shard(replicas.workers, replicas.worker)
    for batch in batches:
        logits = predict(batch)
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(batch.labels, logits)
        loss += float(tf.reduce_sum(tf.cast(losses, tf.float64)))
        np.add.at(confusion, (batch.labels.numpy(), np.argmax(logits, axis=-1)), 1)
        if progress is not None:
            progress(int(confusion.sum()))
    if replicas is not None:
        sums = replicas.total(np.append(confusion.astype(np.float64), loss))
        confusion, loss = sums[:-1].astype(np.int64).reshape(confusion.shape), float(sums[-1])
    return Evaluation(split.info.classes, confusion, loss / len(split))
