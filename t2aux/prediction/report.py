"""The summary of predictions: counts and, if rows have labels, the accuracy."""

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

# The maximum number of names of unknown labels that are kept for the message.
_MAX_UNKNOWN = 1000
_SHOWN = 5


@dataclasses.dataclass(frozen=True)
class Summary:
    """The summary of `t2aux.predict`.

    Attributes:
        output: The file, or "-".
        rows: The number of rows that were written.
        skipped: The number of these rows that could not be classified, and have no class.
        first_error: The reason why the first of these could not be classified.
        cut: The number of rows that were cut because they were too long for the classifier.
        counts: The number of rows predicted for each class, by the name of the class.
        labelled: Whether the data has labels.
        unlabelled: The number of rows without a label, if the data has labels.
        unknown: The number of rows for each label that is not a class of the classifier, by name.
        evaluation: Accuracy, loss and confusion matrix over the rows whose label is one of the
            classes; None if there are none.
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
        """The part of evaluation.json about the summary, without the evaluation itself."""
        return {
            "rows": self.rows,
            "skipped": self.skipped,
            "unlabelled": self.unlabelled,
            "unknown_labels": self.unknown,
            "predicted": self.counts,
        }

    def text(self) -> str:
        """The summary as text for the terminal."""
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
            lines.append(f"{self.unlabelled:,} have no label, and do not count for the accuracy.")
        if self.unknown:
            total = sum(self.unknown.values())
            names = [f"{printable(n)!r} {c:,}" for n, c in sorted_counts(self.unknown)]
            lines.append(
                f"{total:,} have a label that is not a class of the classifier, and do not count "
                f"for the accuracy: {listing(names, _SHOWN)}."
            )
        return "\n".join(lines)


class Tally:
    """Accumulates a summary in constant memory."""

    def __init__(self, classes: tuple[str, ...], *, labelled: bool) -> None:
        """Starts with no rows.

        Args:
            classes: The names of the classes.
            labelled: Whether the data has labels.
        """
        self._classes = classes
        # The class names of a classifier may have any Unicode form.
        self._label_of = {class_key(name): label for label, name in enumerate(classes)}
        self._labelled = labelled
        self._scores = Scores(classes)
        self._counts = np.zeros(len(classes), np.int64)
        self._unknown: collections.Counter[str] = collections.Counter()
        # The numbers of rows: all, and "skipped", "cut" and "unlabelled" ones.
        self._totals: collections.Counter[str] = collections.Counter()
        self._first_error: str | None = None

    @property
    def rows(self) -> int:
        """The number of rows so far."""
        return self._totals["rows"]

    @property
    def skipped(self) -> int:
        """The number of rows so far that have no class."""
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
        """Adds the tally of the following rows of the same data."""
        self._scores.merge(other._scores)
        self._counts += other._counts
        for name, count in other._unknown.items():
            self._count_unknown(name, count)
        self._totals.update(other._totals)
        self._first_error = self._first_error or other._first_error

    def summary(self, output: str) -> Summary:
        """The summary so far."""
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
        """The number of a row's class; -1 if it has none or an unknown one, which is counted."""
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
        folder: The folder to write to.
        summary: A summary with an evaluation.
        about: Additional content of evaluation.json: the model and the data.
        title: The title of the picture.

    Returns:
        The paths of the files.

    Raises:
        UserError: The files can't be written.
    """
    place = files.ensure_directory(folder)
    paths = place / "evaluation.json", place / "confusion.png"
    files.write_json(paths[0], {**about, **summary.to_json(), **summary.evaluation.to_json()})
    classification_report.draw_confusion(summary.evaluation, paths[1], title)
    return paths


def sorted_counts(counts: dict[str, int]) -> list[tuple[str, int]]:
    """Names and counts, with the largest count first."""
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))
