"""How every artefact compares with the checkpoint, on real test data and in its own runtime."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from absl import logging

from t2aux import data, litert
from t2aux.errors import UserError
from t2aux.export import warmup
from t2aux.export.runtimes import CheckpointClassifier, SavedModelClassifier
from t2aux.model.classifier import Classifier
from t2aux.preprocessing import DatasetInfo
from t2aux.training.progress import Rate

_BATCH = 128
_SECONDS_BETWEEN_LINES = 5.0


@dataclasses.dataclass(frozen=True)
class Tolerance:
    """How far an artefact may be from the checkpoint.

    Attributes:
        accuracy: In percentage points.
        probability: Of any class of any example.
    """

    accuracy: float = 0.2
    probability: float = 1e-3


@dataclasses.dataclass(frozen=True)
class Comparison:
    """An artefact beside the checkpoint.

    Attributes:
        accuracy: The share of right answers on the test data, in [0, 1].
        agreement: The share of examples where the top class is the checkpoint's, in [0, 1].
        largest_difference: Of any class's probability from the checkpoint's, over all examples.
        bytes: The size of the artefact's files.
    """

    accuracy: float
    agreement: float
    largest_difference: float
    bytes: int


@dataclasses.dataclass(frozen=True)
class Parity:
    """The whole measurement.

    Attributes:
        dataset: The name of the data set, whose test split was measured.
        examples: How many sequences.
        segment: Steps of a segment, where segments were fed.
        tolerance: That the artefacts met.
        checkpoint_accuracy: In [0, 1].
        artefacts: The comparisons by artefact: a signature of the SavedModel, or a file.
    """

    dataset: str
    examples: int
    segment: int
    tolerance: Tolerance
    checkpoint_accuracy: float
    artefacts: dict[str, Comparison]

    def to_json(self) -> dict[str, Any]:
        """What parity.json holds."""
        return {"split": "test", **dataclasses.asdict(self)}

    def rows(self) -> list[tuple[str, ...]]:
        """The table as texts, its header first."""
        rows = [("", "accuracy", "same class", "largest difference", "size")]
        rows.append(("checkpoint", f"{self.checkpoint_accuracy:.2%}", "", "", ""))
        for name, c in self.artefacts.items():
            row = (f"{c.accuracy:.2%}", f"{c.agreement:.2%}", f"{c.largest_difference:.1e}")
            rows.append((name, *row, f"{c.bytes / 1000:,.0f} kB"))
        return rows

    def table(self) -> str:
        """The table for a terminal."""
        rows = self.rows()
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        lines = [f"The artefacts on {self.examples:,} test examples of {self.dataset}:"]
        for name, *numbers in rows:
            cells = [f"{n:>{w}}" for n, w in zip(numbers, widths[1:], strict=True)]
            lines.append("  ".join([f"  {name:{widths[0]}}", *cells]).rstrip())
        return "\n".join(lines)


def measure(
    directory: pathlib.Path,
    classifier: Classifier,
    split: data.Split,
    *,
    segment: int,
    tolerance: Tolerance,
) -> Parity:
    """Runs the checkpoint and all artefacts that are in a directory over a split.

    Args:
        directory: The version's directory, with its metadata.json.
        classifier: With the checkpoint's weights.
        split: The test data.
        segment: Steps of a segment, for the streaming artefacts.
        tolerance: How far an artefact may be off.

    Returns:
        The comparisons.

    Raises:
        UserError: An artefact is further off than the tolerance.
    """
    progress = _Progress(len(split))
    reference = _in_batches(
        CheckpointClassifier(classifier).batch, split, progress.of("the checkpoint")
    )
    accuracy = _accuracy(reference, split.labels)
    comparisons = {}
    for name, predict, size in _artefacts(directory, split, segment):
        probabilities = predict(progress.of(name))
        comparison = Comparison(
            accuracy=_accuracy(probabilities, split.labels),
            agreement=float(np.mean(probabilities.argmax(1) == reference.argmax(1))),
            # NaN in either is a difference, too.
            largest_difference=float(np.max(np.abs(probabilities - reference))),
            bytes=size,
        )
        _check(name, comparison, accuracy, tolerance)
        comparisons[name] = comparison
    return Parity(split.info.name, len(split), segment, tolerance, accuracy, comparisons)


def _artefacts(
    directory: pathlib.Path, split: data.Split, segment: int
) -> Iterator[tuple[str, Callable[[Callable[[int], None]], np.ndarray], int]]:
    """Yields names, functions that give the probabilities [N, K], and sizes in bytes."""
    if (directory / "saved_model.pb").exists():
        model = SavedModelClassifier(directory)
        entries = litert.read_metadata(directory)["files"]
        # The warm-up requests beside it are no part of the model.
        size = sum(
            entry["bytes"]
            for name, entry in entries.items()
            if not name.endswith(".tflite") and name != warmup.PATH
        )

        def streamed(inputs: np.ndarray, lengths: np.ndarray) -> np.ndarray:
            *_, (_, probabilities) = model.stream_batch(inputs, lengths, segment)
            return probabilities

        def of_text(inputs: np.ndarray, lengths: np.ndarray) -> np.ndarray:
            ids = [row[:length] for row, length in zip(inputs, lengths, strict=True)]
            return model.text_batch([text_of_ids(split.info, row) for row in ids])

        functions = {
            "serving_default": model.batch,
            "serving_classify": model.example_batch,
            "step_segment": streamed,
        }
        if split.info.is_text:
            functions["serving_text"] = of_text
        for name, function in functions.items():
            yield (
                f"SavedModel {name}",
                lambda progress, function=function: _in_batches(function, split, progress),
                size,
            )
    for name in (litert.WHOLE, litert.STREAM):
        path = directory / name
        if path.exists():
            yield (
                name,
                lambda progress, path=path: _in_litert(path, split, segment, progress),
                path.stat().st_size,
            )


def text_of_ids(info: DatasetInfo, ids: np.ndarray) -> bytes:
    """A text, in UTF-8, that becomes these ids.

    Where the ids may have been cut from a longer text, it is longer, too.
    """
    if info.tokens == "bytes":
        text = ids.astype(np.uint8).tobytes()
    else:
        text = "".join(info.vocabulary[i] for i in ids).encode("utf-8", "replace")
    return text + b"x" if len(ids) == info.max_length else text


def _in_batches(
    function: Callable[[np.ndarray, np.ndarray], np.ndarray],
    split: data.Split,
    progress: Callable[[int], None],
) -> np.ndarray:
    parts = []
    done = 0
    for batch in split.batches(_BATCH):
        parts.append(function(batch.inputs.numpy(), batch.lengths.numpy()))
        done += len(parts[-1])
        progress(done)
    return np.concatenate(parts)


def _in_litert(
    path: pathlib.Path, split: data.Split, segment: int, progress: Callable[[int], None]
) -> np.ndarray:
    """Runs a file over a split, on all cores: LiteRT lets other threads run meanwhile."""
    own = threading.local()

    def load() -> None:
        own.classifier = litert.LiteRTClassifier(path)

    def classify(index: int) -> np.ndarray:
        if path.name == litert.WHOLE:
            return own.classifier.probabilities(split.example(index))
        *_, (_, probabilities) = own.classifier.stream(split.example(index), segment)
        return probabilities

    load()  # Once here, where an error is told as such.
    pool = ThreadPoolExecutor(os.cpu_count(), initializer=load)
    parts = []
    try:
        for part in pool.map(classify, range(len(split))):
            parts.append(part)
            progress(len(parts))
    finally:
        # An interrupted measurement ends at once.
        pool.shutdown(cancel_futures=True)
    return np.stack(parts)


def _accuracy(probabilities: np.ndarray, labels: np.ndarray) -> float:
    return float(np.mean(probabilities.argmax(1) == labels))


def _check(name: str, found: Comparison, accuracy: float, tolerance: Tolerance) -> None:
    off = abs(found.accuracy - accuracy) * 100
    # Written so that NaN does not pass.
    if not (off <= tolerance.accuracy and found.largest_difference <= tolerance.probability):
        raise UserError(
            f"The exported {name} differs from the checkpoint: accuracy {found.accuracy:.2%} "
            f"beside {accuracy:.2%} ({tolerance.accuracy:g} points are allowed), a probability by "
            f"{found.largest_difference:.1e} ({tolerance.probability:g} is allowed); nothing was "
            "exported."
        )


class _Progress:
    """Logs a line every few seconds."""

    def __init__(self, total: int) -> None:
        self._total = total

    def of(self, name: str) -> Callable[[int], None]:
        """Returns what is to be called with the number of examples that are done."""
        rate = Rate()
        rate.update(0)
        started = last = time.monotonic()

        def report(done: int) -> None:
            nonlocal last
            now = time.monotonic()
            if done == self._total:
                logging.info("Measured %s in %.1f s.", name, now - started)
            elif now - last >= _SECONDS_BETWEEN_LINES:
                last = now
                speed = rate.update(done)
                logging.info(
                    "Measuring %s: %d/%d, %.3g/s, %s left",
                    name,
                    done,
                    self._total,
                    speed or 0,
                    rate.left(self._total - done),
                )

        return report
