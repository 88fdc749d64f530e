"""Classifies inputs with any classifier, and prints the predictions."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np

from t2aux_ondevice.errors import DivergenceError, UserError, printable
from t2aux_ondevice.preprocessing import DatasetInfo
from t2aux_ondevice.reading import Input, named

_BAR = 20
# A file with at least this many lines may have been meant as many texts.
_MANY_LINES = 100


class SequenceClassifier(Protocol):
    """The interface of every classifier.

    Attributes:
        info: The classes and the preprocessing.
    """

    info: DatasetInfo

    def probabilities(self, sequence: np.ndarray) -> np.ndarray:
        """Classifies a whole sequence.

        Args:
            sequence: Real values [T, C] or ids [T].

        Returns:
            float32 [K].

        Raises:
            UserError: The sequence is not for this classifier, or the model is damaged.
        """
        ...

    def stream(self, sequence: np.ndarray, segment: int) -> Iterator[tuple[int, np.ndarray]]:
        """Reads a sequence by segments of `segment` steps, carrying the state.

        Yields:
            The number of steps read and the probabilities so far, float32 [K].

        Raises:
            UserError: As for `probabilities`.
        """
        ...


class BatchClassifier(SequenceClassifier, Protocol):
    """A classifier that is more efficient on several sequences at once."""

    def batch_probabilities(self, sequences: Sequence[np.ndarray]) -> np.ndarray:
        """Classifies sequences [T, C] or [T] of any lengths. Returns float32 [B, K].

        Raises:
            UserError: As for `probabilities`.
        """
        ...


@dataclasses.dataclass(frozen=True)
class Answer:
    """A classifier's prediction.

    Attributes:
        name: The name of the input; see `Input`.
        title: The name of the input on a terminal.
        classes: The names of the most probable classes, most probable first.
        labels: The numbers of these classes.
        probabilities: The probabilities of these classes.
        steps: The number of steps read.
        total: The number of steps of the input.
        cut: Whether the input was too long and was cut; see `Input`.
        text_lines: The number of lines of a text file; see `Input`.
    """

    name: str
    title: str
    classes: tuple[str, ...]
    labels: tuple[int, ...]
    probabilities: tuple[float, ...]
    steps: int
    total: int
    cut: bool = False
    text_lines: int = 1

    def to_json(self) -> dict[str, Any]:
        """The output of --json."""
        best = zip(self.classes, self.labels, self.probabilities, strict=True)
        return {
            "input": self.name,
            "steps": self.steps,
            "of": self.total,
            "cut": self.cut,
            "class": self.classes[0],
            "probability": self.probabilities[0],
            "top": [
                {"class": name, "label": label, "probability": probability}
                for name, label, probability in best
            ],
        }

    def lines(self) -> str:
        """The output for a terminal: the input's name, and one line per class."""
        names = [printable(name) for name in self.classes]
        width = max(map(len, names))
        best = zip(names, self.probabilities, strict=True)
        part = f", from its first {self.total} steps" if self.cut else ""
        if self.text_lines >= _MANY_LINES:
            part += f", as one text of {self.text_lines:,} lines"
        return "\n".join(
            [f"{printable(self.title)}: {names[0]}, {self.probabilities[0]:.1%}{part}"]
            + [f"  {name:{width}}  {p:6.1%}  {_bar(p)}".rstrip() for name, p in best]
        )

    def heading(self) -> str:
        """The heading for a terminal, before the lines of a stream."""
        return f"{printable(self.title)}, {'its first ' if self.cut else ''}{self.total} steps"

    def line(self) -> str:
        """A line for a terminal while a sequence is read: the steps, and the classes so far."""
        best = zip(self.classes[1:], self.probabilities[1:], strict=True)
        others = ", ".join(f"{printable(name)} {p:.1%}" for name, p in best)
        p = self.probabilities[0]
        steps = f"{self.steps:{len(str(self.total))}}"
        line = f"  {steps}  {p:6.1%}  {_bar(p):{_BAR}}  {printable(self.classes[0])}"
        return f"{line}  ({others})" if others else line


def classify(classifier: SequenceClassifier, item: Input, top: int = 5) -> Answer:
    """Classifies a whole sequence.

    Args:
        classifier: The classifier, in any form.
        item: The input to classify.
        top: How many of the most probable classes to return.

    Returns:
        The answer.

    Raises:
        UserError: See `SequenceClassifier`; the message names the input.
    """
    with named(item.title):
        probabilities = classifier.probabilities(item.sequence)
        return _answer(classifier.info, item, probabilities, top, len(item.sequence))


def classify_batch(
    classifier: BatchClassifier, items: Sequence[Input], top: int = 5
) -> list[Answer]:
    """Classifies several whole sequences at once. See `classify`."""
    with named(items[0].title if len(items) == 1 else f"{items[0].title} to {items[-1].title}"):
        rows = classifier.batch_probabilities([item.sequence for item in items])
        return [
            _answer(classifier.info, item, probabilities, top, len(item.sequence))
            for item, probabilities in zip(items, rows, strict=True)
        ]


def stream(
    classifier: SequenceClassifier, item: Input, segment: int = 28, top: int = 5
) -> Iterator[Answer]:
    """Yields the prediction after each segment. See `classify`."""
    with named(item.title):
        for steps, probabilities in classifier.stream(item.sequence, segment):
            yield _answer(classifier.info, item, probabilities, top, steps)


@dataclasses.dataclass(frozen=True)
class Show:
    """Prints predictions.

    Attributes:
        top: How many of the most probable classes to show.
        segment: Steps per segment, after each of which the prediction is printed; None to read each
            input as a whole.
        as_json: Whether to print one JSON object per line.
        batch: How many inputs to classify at once; more than 1 for a `BatchClassifier` only.
    """

    top: int = 5
    segment: int | None = None
    as_json: bool = False
    batch: int = 1

    def __call__(
        self, classifier: SequenceClassifier | BatchClassifier, items: Iterable[Input]
    ) -> None:
        """Classifies inputs and prints each prediction immediately.

        Args:
            classifier: The classifier, in any form.
            items: The inputs, from `reading.read_inputs`.

        Raises:
            UserError: An input is missing, damaged or not for this classifier. The inputs before it
                have been classified.
        """
        if self.segment is not None:
            for item in items:
                self._show_stream(classifier, item)
            return
        for batch in _batches(items, self.batch):
            if self.batch > 1:
                answers = classify_batch(classifier, batch, self.top)
            else:
                answers = [classify(classifier, batch[0], self.top)]
            for answer in answers:
                self._print(answer, answer.lines)

    def _show_stream(self, classifier: SequenceClassifier, item: Input) -> None:
        for number, answer in enumerate(stream(classifier, item, self.segment, self.top)):
            if not self.as_json and number == 0:
                print(answer.heading())
            self._print(answer, answer.line)

    def _print(self, answer: Answer, text: Callable[[], str]) -> None:
        print(json.dumps(answer.to_json()) if self.as_json else text(), flush=True)


def _batches(items: Iterable[Input], size: int) -> Iterator[list[Input]]:
    """Yields lists of `size` inputs. Inputs before a read error are yielded before it is raised."""
    batch: list[Input] = []
    try:
        for item in items:
            batch.append(item)
            if len(batch) == size:
                yield batch
                batch = []
    except UserError:
        if batch:
            yield batch
        raise
    if batch:
        yield batch


@contextlib.contextmanager
def without_notes() -> Iterator[None]:
    """Hides the output of LiteRT or TensorFlow while loading; errors are also exceptions."""
    sys.stderr.flush()
    stderr = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)


def _answer(
    info: DatasetInfo, item: Input, probabilities: np.ndarray, top: int, steps: int
) -> Answer:
    if not np.isfinite(probabilities).all():
        raise DivergenceError("The classifier returns NaN: its weights are damaged, or diverged.")
    best = [int(i) for i in np.argsort(-probabilities, kind="stable")[:top]]
    return Answer(
        item.name,
        item.title,
        tuple(info.classes[i] for i in best),
        tuple(best),
        tuple(float(probabilities[i]) for i in best),
        steps,
        len(item.sequence),
        item.cut,
        item.text_lines,
    )


def _bar(probability: float) -> str:
    return "#" * round(_BAR * probability)
