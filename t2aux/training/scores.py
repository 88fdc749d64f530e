"""What an evaluation says: accuracy, loss, confusion matrix, a table by class. No TensorFlow."""

from __future__ import annotations

import dataclasses

import numpy as np


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
        # It takes a second to import.
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
        """Everything, as JSON can hold it."""
        return {
            "accuracy": self.accuracy,
            "loss": self.loss,
            "examples": self.examples,
            "by_class": self.by_class(),
            "classes": list(self.classes),
            "confusion": self.confusion.tolist(),
        }


class Scores:
    """Adds up an evaluation, batch by batch, in constant memory."""

    def __init__(self, classes: tuple[str, ...]) -> None:
        """Begins with no example.

        Args:
            classes: The names of the K classes.
        """
        self._classes = classes
        self._confusion = np.zeros((len(classes), len(classes)), np.int64)
        self._loss = 0.0

    def add(self, labels: np.ndarray, probabilities: np.ndarray) -> None:
        """Adds examples.

        Args:
            labels: Their true classes, int [B].
            probabilities: What the classifier answered, float [B, K].
        """
        right = probabilities[np.arange(len(labels)), labels].astype(np.float64)
        # A probability that rounds to 0 has no logarithm.
        self._loss -= float(np.log(np.maximum(right, np.finfo(np.float32).tiny)).sum())
        np.add.at(self._confusion, (labels, probabilities.argmax(axis=1)), 1)

    def merge(self, other: Scores) -> None:
        """Adds the examples of other scores of the same classes."""
        self._loss += other._loss
        self._confusion += other._confusion

    @property
    def evaluation(self) -> Evaluation | None:
        """The outcome so far; None where there was no example."""
        examples = int(self._confusion.sum())
        if not examples:
            return None
        return Evaluation(self._classes, self._confusion.copy(), self._loss / examples)
