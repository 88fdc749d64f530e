"""Classifies files: any form of a classifier, any kind of input, and answers that read well.

Importing this module does not import TensorFlow, and neither does classifying with a `.tflite`
file; a SavedModel or a run's directory needs it.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np

from t2aux import litert
from t2aux.errors import UserError
from t2aux.preprocessing import DatasetInfo
from t2aux.reading import Input, named

_BAR = 20


class SequenceClassifier(Protocol):
    """What a classifier in any form can do.

    Attributes:
        info: Its classes and its preprocessing.
    """

    info: DatasetInfo

    def probabilities(self, sequence: np.ndarray) -> np.ndarray:
        """Classifies a whole sequence.

        Args:
            sequence: Real values [T, C] or ids [T].

        Returns:
            float32 [K].

        Raises:
            UserError: The sequence is none for this classifier, or the model is damaged.
        """
        ...

    def stream(self, sequence: np.ndarray, segment: int) -> Iterator[tuple[int, np.ndarray]]:
        """Reads a sequence by segments of `segment` steps, carrying the state.

        Yields:
            The number of steps read and the probabilities so far, float32 [K].

        Raises:
            UserError: As `probabilities`.
        """
        ...


class BatchClassifier(SequenceClassifier, Protocol):
    """A classifier for which several sequences at once are less work."""

    def batch_probabilities(self, sequences: Sequence[np.ndarray]) -> np.ndarray:
        """Classifies sequences [T, C] or [T] of any lengths; float32 [B, K]. Raises UserError."""
        ...


@dataclasses.dataclass(frozen=True)
class Location:
    """Where a classifier lies, and in which form.

    Attributes:
        form: "litert", "saved_model" or "run".
        path: The `.tflite` file, the version's directory of the export, or the run's directory.
    """

    form: str
    path: pathlib.Path

    @property
    def needs_tensorflow(self) -> bool:
        """Whether `load` imports TensorFlow."""
        return self.form != "litert"

    def load(self) -> SequenceClassifier:
        """Loads the classifier.

        Raises:
            UserError: A file of it is missing or damaged.
        """
        if self.form == "litert":
            return litert.LiteRTClassifier(self.path)
        from t2aux.export import runtimes

        if self.form == "saved_model":
            return runtimes.SavedModelClassifier(self.path)
        return runtimes.CheckpointClassifier.of_run(self.path)


def locate(model: str | os.PathLike[str]) -> Location:
    """Finds out what a path leads to.

    Args:
        model: A `.tflite` file of an export; a version's directory of an export, or the base
            directory, of which the newest version is taken; or a run's directory.

    Returns:
        The form and the path. An export that has no SavedModel runs through LiteRT.

    Raises:
        UserError: There is nothing, or nothing of these.
    """
    path = pathlib.Path(model)
    if os.path.isfile(path):
        return Location("litert", path)
    if not os.path.isdir(path):
        raise UserError(
            f"There is no model {path}: give a .tflite file, an export's directory or a model_dir."
        )
    found = _locate_in(path)
    if found is None:
        try:
            versions = [p for p in path.iterdir() if p.name.isdecimal()]
        except OSError as error:
            raise UserError(f"Can't read {path}: {error.strerror or error}.") from error
        by_age = sorted(versions, key=lambda p: int(p.name), reverse=True)
        found = next(filter(None, map(_locate_in, by_age)), None)
    if found is None:
        raise UserError(
            f"{path} holds no model: give a .tflite file, a directory that `t2aux export` made, or "
            "a --model_dir of `t2aux train`."
        )
    return found


def _locate_in(path: pathlib.Path) -> Location | None:
    if (path / "config.gin").is_file() or (path / "dataset.json").is_file():
        return Location("run", path)
    if (path / "saved_model.pb").is_file():
        return Location("saved_model", path)
    names = sorted(file.name for file in path.glob("classifier*.tflite") if file.is_file())
    if names:
        # Whole sequences in float32, where that is there; else the first of what is.
        return Location("litert", path / (litert.WHOLE if litert.WHOLE in names else names[0]))
    # What is missing is told when it is loaded.
    return Location("saved_model", path) if (path / litert.METADATA).is_file() else None


@dataclasses.dataclass(frozen=True)
class Answer:
    """A classifier's answer.

    Attributes:
        name: What was classified; see `Input`.
        title: What to call it on a terminal.
        classes: The names of the best classes, best first.
        labels: Their numbers.
        probabilities: Their probabilities.
        steps: How many steps were read.
        total: How many there are.
    """

    name: str
    title: str
    classes: tuple[str, ...]
    labels: tuple[int, ...]
    probabilities: tuple[float, ...]
    steps: int
    total: int

    def to_json(self) -> dict[str, Any]:
        """What --json prints."""
        best = zip(self.classes, self.labels, self.probabilities, strict=True)
        return {
            "input": self.name,
            "steps": self.steps,
            "of": self.total,
            "class": self.classes[0],
            "probability": self.probabilities[0],
            "top": [
                {"class": name, "label": label, "probability": probability}
                for name, label, probability in best
            ],
        }

    def lines(self) -> str:
        """For a terminal: the input's name, and a line for each of the best classes."""
        width = max(map(len, self.classes))
        best = zip(self.classes, self.probabilities, strict=True)
        return "\n".join(
            [f"{self.title}: {self.classes[0]}, {self.probabilities[0]:.1%}"]
            + [f"  {name:{width}}  {p:6.1%}  {_bar(p)}".rstrip() for name, p in best]
        )

    def heading(self) -> str:
        """For a terminal, before the lines of a stream."""
        return f"{self.title}, {self.total} steps"

    def line(self) -> str:
        """For a terminal, while a sequence is read: the steps and the best classes so far."""
        best = zip(self.classes[1:], self.probabilities[1:], strict=True)
        others = ", ".join(f"{name} {p:.1%}" for name, p in best)
        p = self.probabilities[0]
        steps = f"{self.steps:{len(str(self.total))}}"
        line = f"  {steps}  {p:6.1%}  {_bar(p):{_BAR}}  {self.classes[0]}"
        return f"{line}  ({others})" if others else line


def classify(classifier: SequenceClassifier, item: Input, top: int = 5) -> Answer:
    """Classifies a whole sequence.

    Args:
        classifier: In any form.
        item: What to classify.
        top: How many of the best classes to tell.

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
    """Classifies whole sequences at once. See `classify`."""
    with named(items[0].title if len(items) == 1 else f"{items[0].title} to {items[-1].title}"):
        rows = classifier.batch_probabilities([item.sequence for item in items])
        return [
            _answer(classifier.info, item, probabilities, top, len(item.sequence))
            for item, probabilities in zip(items, rows, strict=True)
        ]


def stream(
    classifier: SequenceClassifier, item: Input, segment: int = 28, top: int = 5
) -> Iterator[Answer]:
    """Yields the answers so far after each segment. See `classify`."""
    with named(item.title):
        for steps, probabilities in classifier.stream(item.sequence, segment):
            yield _answer(classifier.info, item, probabilities, top, steps)


def _answer(
    info: DatasetInfo, item: Input, probabilities: np.ndarray, top: int, steps: int
) -> Answer:
    if not np.isfinite(probabilities).all():
        raise UserError("The classifier answers with NaN: its weights are damaged, or diverged.")
    best = [int(i) for i in np.argsort(-probabilities, kind="stable")[:top]]
    return Answer(
        item.name,
        item.title,
        tuple(info.classes[i] for i in best),
        tuple(best),
        tuple(float(probabilities[i]) for i in best),
        steps,
        len(item.sequence),
    )


def _bar(probability: float) -> str:
    return "#" * round(_BAR * probability)
