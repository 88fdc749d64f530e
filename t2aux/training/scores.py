"""The scores of an evaluation: accuracy, loss, confusion matrix, table by class. No TensorFlow."""

from __future__ import annotations

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """The result of an evaluation.

    Attributes:
        classes: The names of the K classes.
        confusion: [K, K] int64; rows are true classes, columns are predicted classes.
        loss: The mean cross-entropy in nats.
    """

    classes: tuple[str, ...]
    confusion: np.ndarray
    loss: float

    @property
    def examples(self) -> int:
        """The number of sequences that were classified."""
        return int(self.confusion.sum())

    @property
    def accuracy(self) -> float:
        """The share of correct predictions, in [0, 1]."""
        return float(np.trace(self.confusion) / self.examples)

    def by_class(self) -> dict[str, dict[str, float | int]]:
        """Precision, recall and F1 in [0, 1] (0 if undefined) and the examples of each class."""
        # The import takes a second.
        from sklearn.metrics import precision_recall_fscore_support

        true, predicted = np.nonzero(self.confusion)
        values = precision_recall_fscore_support(
            true,
            predicted,
            labels=range(len(self.classes)),
            sample_weight=self.confusion[true, predicted],
            zero_division=0.0,
        )
        return {
            name: {
                "precision": float(precision),
                "recall": float(recall),
                "f1": float(f1),
                "examples": int(support),
            }
            for name, precision, recall, f1, support in zip(self.classes, *values, strict=True)
        }

    def to_json(self) -> dict[str, object]:
        """All scores in a form that can be written as JSON."""
        return {
            "accuracy": self.accuracy,
            "loss": self.loss,
            "examples": self.examples,
            "by_class": self.by_class(),
            "classes": list(self.classes),
            "confusion": self.confusion.tolist(),
        }


class Scores:
    """Accumulates an evaluation, batch by batch, in constant memory."""

    def __init__(self, classes: tuple[str, ...]) -> None:
        """Begins without examples.

        Args:
            classes: The names of the K classes.
        """
        self._classes = classes
        self._confusion = np.zeros((len(classes), len(classes)), np.int64)
        self._loss = 0.0

    def add(self, labels: np.ndarray, probabilities: np.ndarray) -> None:
        """Adds examples.

        Args:
            labels: The true classes, int [B].
            probabilities: The predicted probabilities, float [B, K].
        """
        right = probabilities[np.arange(len(labels)), labels].astype(np.float64)
        # A probability that was rounded to 0 has no logarithm.
        self._loss -= float(np.log(np.maximum(right, np.finfo(np.float32).tiny)).sum())
        np.add.at(self._confusion, (labels, probabilities.argmax(axis=1)), 1)

    def merge(self, other: Scores) -> None:
        """Adds the examples of other scores of the same classes."""
        self._loss += other._loss
        self._confusion += other._confusion

    @property
    def evaluation(self) -> Evaluation | None:
        """The result so far, or None if there were no examples."""
        examples = int(self._confusion.sum())
        if not examples:
            return None
        return Evaluation(self._classes, self._confusion.copy(), self._loss / examples)
