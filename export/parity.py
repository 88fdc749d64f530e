"""Compares every artefact with the checkpoint, on real test data and in its own runtime."""

from __future__ import annotations

import collections
import dataclasses
import os
import pathlib
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from absl import logging

from t2aux import data, tf_serving
from t2aux.errors import ModelError, UserError
from t2aux.export import images, saved_model
from t2aux.export.comparison import Comparison, Failure, Parity, Tolerance
from t2aux.export.runtimes import CheckpointClassifier, SavedModelClassifier
from t2aux.export.variants import VARIANTS
from t2aux.model.classifier import BaseClassifier
from t2aux.progress import Progress
from t2aux_ondevice import litert
from t2aux_ondevice.preprocessing import DatasetInfo

_BATCH = 128
# The number of sequences to time.
_TIMED = 30


def measure(
    directory: pathlib.Path,
    classifier: BaseClassifier,
    split: data.Split,
    *,
    segment: int,
    tolerance: Tolerance,
    dataset: str | None = None,
    reference: str = "checkpoint",
) -> Parity:
    """Runs the checkpoint and all artefacts that are in a directory over a split.

    Args:
        directory: The version's directory, with its metadata.json.
        classifier: The classifier with the checkpoint's weights.
        split: The test data.
        segment: Steps per segment, for the streaming artefacts.
        tolerance: How far an artefact may be off.
        dataset: The name of the data set; defaults to the name in its description.
        reference: The name of the checkpoint in messages.

    Returns:
        The comparisons. Variants of TensorFlow Lite files, other than float32, that exceed the
        tolerance or can't be run are in `failed`.

    Raises:
        UserError: The SavedModel or a file in float32 exceeds the tolerance.
    """
    known = CheckpointClassifier(classifier, split.info)
    wanted = _measured(
        f"the {reference}", split, lambda progress: _in_batches(known.batch, split, progress)
    )
    accuracy = _accuracy(wanted, split.labels)
    # By variant; None for the SavedModel.
    comparisons: dict[str | None, dict[str, Comparison]] = collections.defaultdict(dict)
    faults: dict[str, str] = {}
    for artefact in _artefacts(directory, split, segment):
        if artefact.variant in faults:
            continue
        try:
            probabilities = _measured(artefact.name, split, artefact.predict)
        except UserError as error:
            if artefact.exact:
                raise
            faults[artefact.variant] = str(error).rstrip(".")
            continue
        difference = np.abs(probabilities - wanted)
        comparison = Comparison(
            accuracy=_accuracy(probabilities, split.labels),
            agreement=_accuracy(probabilities, wanted.argmax(1)),
            # NaN in either is a difference, too.
            largest_difference=float(np.max(difference)),
            mean_difference=float(np.mean(difference.max(1))),
            bytes=artefact.bytes,
            milliseconds=artefact.milliseconds(),
        )
        comparisons[artefact.variant][artefact.name] = comparison
        fault = comparison.fault(artefact.name, accuracy, tolerance, artefact.exact, reference)
        if fault and artefact.exact:
            raise ModelError(f"{fault}; nothing was exported.")
        if fault:
            faults[artefact.variant] = fault
    failed = {v: Failure(reason, comparisons.pop(v, {})) for v, reason in faults.items()}
    return Parity(
        split.info.name if dataset is None else dataset,
        len(split),
        segment,
        tolerance,
        accuracy,
        {name: c for found in comparisons.values() for name, c in found.items()},
        failed,
        reference,
    )


@dataclasses.dataclass(frozen=True)
class _Artefact:
    """Something to measure.

    Attributes:
        name: The name of the artefact.
        predict: Returns the probabilities [N, K] of the whole split, and updates the progress.
        bytes: The size of the artefact.
        milliseconds: Measures the median time of a sequence, or returns None.
        variant: The variant of a TensorFlow Lite file.
    """

    name: str
    predict: Callable[[Progress], np.ndarray]
    bytes: int
    milliseconds: Callable[[], float | None] = lambda: None
    variant: str | None = None

    @property
    def exact(self) -> bool:
        """Whether it should equal the checkpoint except for rounding."""
        return self.variant is None or VARIANTS[self.variant].is_exact


def _artefacts(directory: pathlib.Path, split: data.Split, segment: int) -> Iterator[_Artefact]:
    """Yields all artefacts in a directory."""
    metadata = litert.read_metadata(directory)
    if (directory / "saved_model.pb").exists():
        model = SavedModelClassifier(directory)
        # Without the warm-up requests, which are not a part of the model.
        size = sum(
            entry["bytes"]
            for name, entry in metadata["files"].items()
            if not name.endswith(".tflite") and name != tf_serving.WARM_UP
        )

        def streamed(inputs: np.ndarray, lengths: np.ndarray) -> np.ndarray:
            *_, (_, probabilities) = model.stream_batch(inputs, lengths, segment)
            return probabilities

        def of_text(inputs: np.ndarray, lengths: np.ndarray) -> np.ndarray:
            ids = [row[:length] for row, length in zip(inputs, lengths, strict=True)]
            return model.text_batch([text_of_ids(split.info, row) for row in ids])

        def of_images(inputs: np.ndarray, _: np.ndarray) -> np.ndarray:
            return model.image_batch([images.encoded(split.info, sequence) for sequence in inputs])

        functions = {
            "serving_default": model.batch,
            "serving_classify": model.example_batch,
            "step_segment": streamed,
        }
        if split.info.is_text:
            functions["serving_text"] = of_text
        if split.info.kind == "image":
            functions[saved_model.IMAGE] = of_images
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
            # It only accepts multiples of its own segment.
            steps = -(-segment // entry["segment"]) * entry["segment"]
        yield _Artefact(
            name,
            lambda progress, path=path, steps=steps: _in_litert(path, split, steps, progress),
            path.stat().st_size,
            lambda path=path, steps=steps: _milliseconds(path, split, steps),
            variant=entry["variant"],
        )


def text_of_ids(info: DatasetInfo, ids: np.ndarray) -> bytes:
    """A text, in UTF-8, that is converted to the given ids.

    If the ids may come from a longer text that was cut, the text is longer, too.
    """
    if info.tokens == "bytes":
        text = ids.astype(np.uint8).tobytes()
    else:
        text = "".join(info.vocabulary[i] for i in ids).encode("utf-8", "replace")
    return text + b"x" if len(ids) == info.max_length else text


@data.user_errors()
def _in_batches(
    function: Callable[[np.ndarray, np.ndarray], np.ndarray], split: data.Split, progress: Progress
) -> np.ndarray:
    parts = []
    for batch in split.batches(_BATCH):
        parts.append(function(batch.inputs.numpy(), batch.lengths.numpy()))
        progress.update(min(_BATCH * len(parts), len(split)))
    return np.concatenate(parts)


def _in_litert(
    path: pathlib.Path, split: data.Split, segment: int, progress: Progress
) -> np.ndarray:
    """Runs a file over a split on all cores, since LiteRT releases Python's lock."""
    local = threading.local()

    def load() -> None:
        local.classifier = litert.LiteRTClassifier(path)

    def classify(index: int) -> np.ndarray:
        return _classified(local.classifier, split.example(index), segment)

    load()  # Once here, so that an error is raised unchanged.
    pool = ThreadPoolExecutor(os.cpu_count(), initializer=load)
    parts = []
    try:
        for part in pool.map(classify, range(len(split))):
            parts.append(part)
            progress.update(len(parts))
    finally:
        # Lets an interrupted measurement end immediately.
        pool.shutdown(cancel_futures=True)
    return np.stack(parts)


def _classified(
    classifier: litert.LiteRTClassifier, sequence: np.ndarray, segment: int
) -> np.ndarray:
    """The probabilities [K]; the streaming forms read segments."""
    if classifier.form == litert.WHOLE_FORM:
        return classifier.probabilities(sequence)
    *_, (_, probabilities) = classifier.stream(sequence, segment)
    return probabilities


def _milliseconds(path: pathlib.Path, split: data.Split, segment: int) -> float:
    """The median time of a sequence in one thread, after a warm-up sequence."""
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


def _measured(
    name: str, split: data.Split, predict: Callable[[Progress], np.ndarray]
) -> np.ndarray:
    """The probabilities [N, K] of a split; logs the progress and the time."""
    started = time.monotonic()
    probabilities = predict(Progress(f"Measuring {name}", len(split)))
    logging.info("Measured %s in %.1f s.", name, time.monotonic() - started)
    return probabilities
