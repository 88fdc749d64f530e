"""The outcome of predictions: counts, and the accuracy where rows have labels."""

from __future__ import annotations

import collections
import dataclasses
import pathlib
from typing import Any

import numpy as np

from t2aux import files
from t2aux.data.listing import plural
from t2aux.data.table import class_key
from t2aux.errors import listing
from t2aux.evaluation import classification_report
from t2aux.prediction.predictor import Predictions
from t2aux.training.scores import Evaluation, Scores
from t2aux_ondevice.errors import printable

# Names of labels that the classifier does not know are kept for the message, up to so many.
_MAX_UNKNOWN = 1000
_SHOWN = 5


@dataclasses.dataclass(frozen=True)
class Summary:
    """The outcome of `t2aux.predict`.

    Attributes:
        output: The file, or "-".
        rows: How many rows were written.
        skipped: How many of them have no class, since they could not be classified.
        first_error: Why the first of these could not.
        cut: How many were longer than the classifier reads, and were cut.
        counts: How many rows were predicted to be of each class, by its name.
        labelled: Whether the data has labels.
        unlabelled: How many rows have none, of data that has labels.
        unknown: How many rows have each label that is not a class of the classifier, by its name.
        evaluation: Accuracy, loss and confusion matrix over the rows with a label that is one of
            the classes; None where there are none.
    """

    output: str
    rows: int
    skipped: int
    first_error: str | None
    cut: int
    counts: dict[str, int]
    labelled: bool
    unlabelled: int
    unknown: dict[str, int]
    evaluation: Evaluation | None

    def to_json(self) -> dict[str, Any]:
        """What evaluation.json says of it, besides the evaluation itself."""
        return {
            "rows": self.rows,
            "skipped": self.skipped,
            "unlabelled": self.unlabelled,
            "unknown_labels": self.unknown,
            "predicted": self.counts,
        }

    def text(self) -> str:
        """For the terminal."""
        found = [f"{printable(n)} {c:,}" for n, c in sorted_counts(self.counts) if c]
        lines = []
        if self.evaluation is not None:
            lines += [classification_report.table(self.evaluation), ""]
        lines.append(f"{plural(self.rows, 'row')}: {listing(found, 10) or 'none classified'}")
        if self.skipped:
            first = printable(self.first_error or "")
            lines.append(f"{self.skipped:,} could not be classified, and have no class: {first}")
        if self.cut:
            lines.append(f"{self.cut:,} were longer than the classifier reads, and were cut.")
        if self.unlabelled:
            lines.append(f"{self.unlabelled:,} have no label, and are not in the accuracy.")
        if self.unknown:
            total = sum(self.unknown.values())
            names = [f"{printable(n)!r} {c:,}" for n, c in sorted_counts(self.unknown)]
            lines.append(
                f"{total:,} have a label that is not a class of the classifier, and are not in the "
                f"accuracy: {listing(names, _SHOWN)}."
            )
        return "\n".join(lines)


class Tally:
    """Adds up a summary in constant memory."""

    def __init__(self, classes: tuple[str, ...], *, labelled: bool) -> None:
        """Begins with no row.

        Args:
            classes: The names of the classes.
            labelled: Whether the data has labels.
        """
        self._classes = classes
        # A classifier's own names may be of any form.
        self._label_of = {class_key(name): label for label, name in enumerate(classes)}
        self._labelled = labelled
        self._scores = Scores(classes)
        self._counts = np.zeros(len(classes), np.int64)
        self._unknown: collections.Counter[str] = collections.Counter()
        # Of rows: all, and "skipped", "cut" and "unlabelled" ones.
        self._totals: collections.Counter[str] = collections.Counter()
        self._first_error: str | None = None

    @property
    def rows(self) -> int:
        """How many rows there were."""
        return self._totals["rows"]

    @property
    def skipped(self) -> int:
        """How many of them have no class."""
        return self._totals["skipped"]

    def add(self, predictions: Predictions) -> None:
        """Adds the predictions of some rows."""
        is_predicted = predictions.predicted
        skipped = len(predictions.errors)
        self._totals.update(rows=len(predictions.rows), skipped=skipped, cut=predictions.cut)
        self._first_error = self._first_error or next(iter(predictions.errors.values()), None)
        best = predictions.probabilities[is_predicted].argmax(axis=1)
        self._counts += np.bincount(best, minlength=len(self._classes))
        if self._labelled:
            labels = np.array([self._label(row.label) for row in predictions.rows], np.int64)
            chosen = is_predicted & (labels >= 0)
            self._scores.add(labels[chosen], predictions.probabilities[chosen])

    def merge(self, other: Tally) -> None:
        """Adds another tally, of the rows of the same data that follow."""
        self._scores.merge(other._scores)
        self._counts += other._counts
        for name, count in other._unknown.items():
            self._count_unknown(name, count)
        self._totals.update(other._totals)
        self._first_error = self._first_error or other._first_error

    def summary(self, output: str) -> Summary:
        """The outcome so far."""
        return Summary(
            output=output,
            rows=self.rows,
            skipped=self.skipped,
            first_error=self._first_error,
            cut=self._totals["cut"],
            counts=dict(zip(self._classes, self._counts.tolist(), strict=True)),
            labelled=self._labelled,
            unlabelled=self._totals["unlabelled"],
            unknown=dict(sorted_counts(self._unknown)),
            evaluation=self._scores.evaluation,
        )

    def _label(self, label: str | int | None) -> int:
        """The number of a row's class; -1 where it has none or an unknown one, which is counted."""
        if label is None:
            self._totals["unlabelled"] += 1
            return -1
        if isinstance(label, int):
            found = label if 0 <= label < len(self._classes) else None
        else:
            found = self._label_of.get(class_key(label))
        if found is None:
            self._count_unknown(str(label), 1)
            return -1
        return found

    def _count_unknown(self, name: str, count: int) -> None:
        others = len(self._unknown) >= _MAX_UNKNOWN and name not in self._unknown
        self._unknown["(others)" if others else name] += count


def write(
    folder: str, summary: Summary, about: dict[str, Any], title: str
) -> tuple[pathlib.Path, ...]:
    """Writes evaluation.json and confusion.png.

    Args:
        folder: Where to.
        summary: With an evaluation.
        about: What else evaluation.json says: the model and the data.
        title: Above the picture.

    Returns:
        The files.

    Raises:
        UserError: They can't be written.
    """
    place = files.ensure_directory(folder)
    paths = place / "evaluation.json", place / "confusion.png"
    files.write_json(paths[0], {**about, **summary.to_json(), **summary.evaluation.to_json()})
    classification_report.draw_confusion(summary.evaluation, paths[1], title)
    return paths


def sorted_counts(counts: dict[str, int]) -> list[tuple[str, int]]:
    """Names and counts, the largest first."""
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))
