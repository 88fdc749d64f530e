"""`t2aux.export_model`: the equivalent of `t2aux export` for a Keras model in memory."""

from __future__ import annotations

import numbers
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging

from t2aux import data, rows, tf_serving
from t2aux.data.table import subset
from t2aux.errors import DataError, SettingError
from t2aux.export import pipeline
from t2aux.export.comparison import Tolerance
from t2aux.export.model import Model
from t2aux.export.pipeline import Export, Settings
from t2aux.training.model import SequenceClassifier
from t2aux_ondevice import paths
from t2aux_ondevice.preprocessing import DatasetInfo
from t2aux_ondevice.reading import read_array


def export_model(
    model: SequenceClassifier,
    output_dir: str | os.PathLike[str],
    *,
    test_data: Any = None,
    calibration_data: Any = None,
    steps: int | None = None,
    name: str | None = None,
    dataset: str = "",
    version: int | None = None,
    formats: Sequence[str] = pipeline.FORMATS,
    variants: Sequence[str] = ("float32",),
    parity_examples: int | None = None,
    segment: int = 28,
    accuracy_tolerance: float = 0.2,
    probability_tolerance: float = 1e-3,
    quantised_accuracy_tolerance: float = 1.0,
    quantised_probability_tolerance: float | None = None,
    serving_batch_sizes: Sequence[int] = tf_serving.BATCH_SIZES,
) -> Export:
    """Exports a model as a SavedModel and TensorFlow Lite files, like `t2aux export` for a run.

    The folder OUTPUT_DIR/VERSION will contain the SavedModel (with signatures for whole sequences,
    tf.Examples and streaming), `classifier.tflite` (whole sequences), `classifier_stream.tflite`
    (streaming), `metadata.json`, `parity.json` and a model card, `README.md`. It is written
    completely or not at all, so a server may watch OUTPUT_DIR. All cores can be exported: LSTM,
    GRU, MinGRU and any Keras cell. A model of ids has no signature for text.

    >>> exported = t2aux.export_model(
    ...     model, "exports/digits", test_data=(x[:50], y[:50]), formats=["tflite"]
    ... )
    >>> sorted(path.name for path in exported.directory.glob("classifier.*"))
    ['classifier.tflite']
    >>> exported.parity.passed
    True

    Args:
        model: The model with its weights.
        output_dir: The base directory, which is created if it does not exist.
        test_data: (x, y), on which every artefact is compared with the model: x and y as for `fit`,
            or a `tf.data.Dataset` of batches (x, y). If None, nothing is measured, and
            `parity.json` and the model card say so.
        calibration_data: Training inputs x, on which the variant int8 is calibrated.
        steps: The number of steps of every sequence; other lengths are rejected. None for any
            number.
        name: The model's name in the model card; defaults to the name of `output_dir`.
        dataset: The name of the data in the model card.
        version: The number of the version; defaults to the newest plus one.
        formats: Which artefacts to make: "saved_model", "tflite".
        variants: How the TensorFlow Lite files store the weights: "float32", "float16",
            "dynamic_int8", "dynamic_int8_int4_head" and, for an LSTM, "int8".
        parity_examples: How many test examples to measure, chosen at random with a fixed seed; None
            for all.
        segment: Steps per segment when streaming is measured. A stateful file's segment has the
            largest number of steps, up to this one, that divides the length of the sequences; 1 if
            that varies.
        accuracy_tolerance: How far the accuracy of the SavedModel or of a float32 file may be off,
            in percentage points.
        probability_tolerance: How far any of their probabilities may be off.
        quantised_accuracy_tolerance: How far the accuracy of another variant may be off, in
            percentage points.
        quantised_probability_tolerance: How far any of its probabilities may be off; None for no
            limit.
        serving_batch_sizes: The batch sizes to warm a server up for, in increasing order.

    Returns:
        A tuple of `directory`, the version's directory, and `parity`, the measurements. A variant
        that can't be made or exceeds its tolerance is not in the directory, but in `parity.failed`.

    Raises:
        UserError: The model is not a SequenceClassifier or has no weights, its core's state can't
            be exported, an argument is wrong, the directory can't be written, the version exists,
            or the SavedModel or a float32 file exceeds the tolerance. In this case, nothing is left
            behind.
    """
    steps = _whole_number("steps", steps, minimum=1)
    parity_examples = _whole_number("parity_examples", parity_examples, minimum=0)
    settings = Settings(
        version=version,
        formats=formats,
        variants=variants,
        segment=segment,
        tolerance=Tolerance(
            accuracy_tolerance,
            probability_tolerance,
            quantised_accuracy_tolerance,
            quantised_probability_tolerance,
        ),
        serving_batch_sizes=serving_batch_sizes,
        model_name=name,
    )
    exported = Model.of_keras(model, dataset=dataset, length=steps)
    if not isinstance(output_dir, (str, os.PathLike)):
        raise SettingError(f"output_dir is a {type(output_dir).__name__}: give a directory.")
    directory = paths.local(output_dir, "output_dir")
    split = None
    if test_data is not None and parity_examples != 0:
        split = _split(exported.info, test_data, parity_examples)
    written = pipeline.write(
        exported,
        directory,
        settings,
        test=lambda: split,
        calibration=_calibration(exported.info, settings, calibration_data),
    )
    for failure in written.parity.failures():
        logging.warning("%s.", failure)
    return written


def _split(info: DatasetInfo, test_data: Any, examples: int | None) -> data.Split:
    """The test data in the form for the measurement."""
    if isinstance(test_data, tf.data.Dataset):
        sequences, labels = _of_dataset(info, test_data)
    elif isinstance(test_data, (tuple, list)) and len(test_data) == 2:
        sequences, labels = rows.labelled(*test_data, info.num_classes, ids=info.reads_ids)
    else:
        kind = type(test_data).__name__
        raise DataError(f"test_data is a {kind}: give (x, y), or a tf.data.Dataset of batches.")
    if not sequences:
        raise DataError("test_data is empty: give at least one sequence, or None.")
    sequences = _checked(info, sequences, "x")
    lengths = np.array([len(sequence) for sequence in sequences])
    table = data.Table.of_lengths(np.concatenate(sequences), lengths, labels)
    if examples is not None:
        table = table.take(subset(len(labels), examples))
    return data.Split(info, table)


def _of_dataset(info: DatasetInfo, dataset: tf.data.Dataset) -> tuple[list[np.ndarray], np.ndarray]:
    sequences: list[np.ndarray] = []
    labels = [np.zeros([0], np.int32)]
    if dataset.cardinality() == tf.data.INFINITE_CARDINALITY:
        raise DataError("The dataset test_data never ends: remove its repeat().")
    for batch in dataset:
        if not isinstance(batch, tuple) or len(batch) < 2:
            raise DataError("The dataset test_data must yield (x, y), but yields something else.")
        found, numbers = rows.labelled(*batch[:2], info.num_classes, ids=info.reads_ids)
        sequences += found
        labels.append(numbers)
    return sequences, np.concatenate(labels)


def _calibration(
    info: DatasetInfo, settings: Settings, given: Any
) -> Callable[[], list[np.ndarray]]:
    """Returns a function for the calibration sequences. Raises UserError if they are missing."""
    sequences = []
    if given is not None:
        found = rows.sequences(given, "calibration_data", ids=info.reads_ids)
        sequences = _checked(info, found, "calibration_data")
    if not sequences and any(variant.name == "int8" for variant in settings.made):
        raise SettingError("The variant int8 needs calibration_data: give it, or leave int8 out.")
    return lambda: sequences


def _checked(info: DatasetInfo, sequences: list[np.ndarray], what: str) -> list[np.ndarray]:
    return [read_array(info, s, f"{what}[{i}]").sequence for i, s in enumerate(sequences)]


def _whole_number(name: str, value: Any, minimum: int) -> int | None:
    if value is None:
        return None
    if not isinstance(value, numbers.Integral) or isinstance(value, bool) or value < minimum:
        raise SettingError(
            f"{name} is {value!r}: give a whole number of at least {minimum}, or None."
        )
    return int(value)
