"""How every artefact compares with the checkpoint, on real test data and in its own runtime."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from absl import logging

from t2aux import data
from t2aux.errors import UserError
from t2aux.export import warmup
from t2aux.export.runtimes import CheckpointClassifier, SavedModelClassifier
from t2aux.export.variants import VARIANTS
from t2aux.model.classifier import Classifier
from t2aux.training.progress import Rate
from t2aux_ondevice import litert
from t2aux_ondevice.preprocessing import DatasetInfo

_BATCH = 128
# Sequences whose time is taken.
_TIMED = 30
_SECONDS_BETWEEN_LINES = 5.0


@dataclasses.dataclass(frozen=True)
class Tolerance:
    """How far an artefact may be from the checkpoint.

    Attributes:
        accuracy: In percentage points, of artefacts in float32.
        probability: Of any class of any example, of artefacts in float32.
        quantised_accuracy: In percentage points, of the other variants. How far their
            probabilities are off is told, but has no limit.
    """

    accuracy: float = 0.2
    probability: float = 1e-3
    quantised_accuracy: float = 1.0


@dataclasses.dataclass(frozen=True)
class Comparison:
    """An artefact beside the checkpoint.

    Attributes:
        accuracy: The share of right answers on the test data, in [0, 1].
        agreement: The share of examples where the top class is the checkpoint's, in [0, 1].
        largest_difference: Of any class's probability from the checkpoint's, over all examples.
        bytes: The size of the artefact's files.
        milliseconds: The median time of one sequence in one thread, of a TensorFlow Lite file; of
            the streaming forms, of all of its segments. None for others.
    """

    accuracy: float
    agreement: float
    largest_difference: float
    bytes: int
    milliseconds: float | None = None


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
        rows = [("", "accuracy", "same class", "largest difference", "one sequence", "size")]
        rows.append(("checkpoint", f"{self.checkpoint_accuracy:.2%}", "", "", "", ""))
        for name, c in self.artefacts.items():
            row = (f"{c.accuracy:.2%}", f"{c.agreement:.2%}", f"{c.largest_difference:.1e}")
            time_taken = "" if c.milliseconds is None else f"{c.milliseconds:.3g} ms"
            rows.append((name, *row, time_taken, f"{c.bytes / 1000:,.0f} kB"))
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
    for artefact in _artefacts(directory, split, segment):
        probabilities = artefact.predict(progress.of(artefact.name))
        comparison = Comparison(
            accuracy=_accuracy(probabilities, split.labels),
            agreement=float(np.mean(probabilities.argmax(1) == reference.argmax(1))),
            # NaN in either is a difference, too.
            largest_difference=float(np.max(np.abs(probabilities - reference))),
            bytes=artefact.bytes,
            milliseconds=artefact.milliseconds(),
        )
        _check(artefact.name, comparison, accuracy, tolerance, exact=artefact.exact)
        comparisons[artefact.name] = comparison
    return Parity(split.info.name, len(split), segment, tolerance, accuracy, comparisons)


@dataclasses.dataclass(frozen=True)
class _Artefact:
    """Something to measure.

    Attributes:
        name: What to call it.
        predict: Gives the probabilities [N, K] of the whole split; told how to report progress.
        bytes: Its size.
        milliseconds: Measures the median time of a sequence, or gives None.
        exact: Whether it should equal the checkpoint but for rounding.
    """

    name: str
    predict: Callable[[Callable[[int], None]], np.ndarray]
    bytes: int
    milliseconds: Callable[[], float | None] = lambda: None
    exact: bool = True


def _artefacts(directory: pathlib.Path, split: data.Split, segment: int) -> Iterator[_Artefact]:
    """Yields all that a directory holds."""
    metadata = litert.read_metadata(directory)
    if (directory / "saved_model.pb").exists():
        model = SavedModelClassifier(directory)
        # The warm-up requests beside it are no part of the model.
        size = sum(
            entry["bytes"]
            for name, entry in metadata["files"].items()
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
            yield _Artefact(
                f"SavedModel {name}",
                lambda progress, function=function: _in_batches(function, split, progress),
                size,
            )
    for name, entry in metadata["artefacts"].items():
        if "form" not in entry:
            continue
        path = directory / name
        steps = segment
        if entry["form"] == litert.STATEFUL_FORM:
            # It takes multiples of its own segments only.
            steps = -(-segment // entry["segment"]) * entry["segment"]
        yield _Artefact(
            name,
            lambda progress, path=path, steps=steps: _in_litert(path, split, steps, progress),
            path.stat().st_size,
            lambda path=path, steps=steps: _milliseconds(path, split, steps),
            exact=VARIANTS[entry["variant"]].is_exact,
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


@data.user_errors()
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
        return _classified(own.classifier, split.example(index), segment)

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


def _classified(
    classifier: litert.LiteRTClassifier, sequence: np.ndarray, segment: int
) -> np.ndarray:
    """The probabilities [K], of the streaming forms from segments."""
    if classifier.form == litert.WHOLE_FORM:
        return classifier.probabilities(sequence)
    *_, (_, probabilities) = classifier.stream(sequence, segment)
    return probabilities


def _milliseconds(path: pathlib.Path, split: data.Split, segment: int) -> float:
    """The median time of a sequence, in one thread, after one to warm up."""
    classifier = litert.LiteRTClassifier(path)
    times = []
    for index in range(_TIMED + 1):
        sequence = split.example(index % len(split))
        begin = time.perf_counter()
        _classified(classifier, sequence, segment)
        times.append(time.perf_counter() - begin)
    return 1000 * statistics.median(times[1:])


def _accuracy(probabilities: np.ndarray, labels: np.ndarray) -> float:
    return float(np.mean(probabilities.argmax(1) == labels))


def _check(
    name: str, found: Comparison, accuracy: float, tolerance: Tolerance, *, exact: bool = True
) -> None:
    off = abs(found.accuracy - accuracy) * 100
    allowed = tolerance.accuracy if exact else tolerance.quantised_accuracy
    probability = tolerance.probability if exact else 1.0
    # Written so that NaN does not pass.
    if not (off <= allowed and found.largest_difference <= probability):
        limit = f" ({probability:g} is allowed)" if exact else ""
        raise UserError(
            f"The exported {name} differs from the checkpoint: accuracy {found.accuracy:.2%} "
            f"beside {accuracy:.2%} ({allowed:g} points are allowed), a probability by "
            f"{found.largest_difference:.1e}{limit}; nothing was exported."
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
