"""Exports a classifier to the folder of a version, with artefacts and their description."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from absl import logging

from t2aux import config, data, files, tf32, tf_serving
from t2aux.errors import ModelError, SettingError, UserError
from t2aux.export import card, comparison, metadata, parity, saved_model, staging, tflite, warmup
from t2aux.export import variants as tflite_variants
from t2aux.export.model import Model
from t2aux.export.stateless import StatelessClassifier
from t2aux.run import Run
from t2aux_ondevice import litert
from t2aux_ondevice.errors import reason

FORMATS = ("saved_model", "tflite")


class Export(NamedTuple):
    """The result of an export.

    Attributes:
        directory: The directory of the version, with all files.
        parity: The measurements. A variant that could not be made or exceeds the tolerance is not
            in the directory, but in `parity.failed`.
    """

    directory: pathlib.Path
    parity: comparison.Parity


@dataclasses.dataclass(frozen=True)
class Settings:
    """How a model is exported.

    Attributes:
        version: The number of the version; defaults to the newest plus one.
        formats: Which artefacts to make: "saved_model", "tflite".
        variants: Which variants of the TensorFlow Lite files to make; see `t2aux.export.variants`.
        segment: Steps per segment when the streaming artefacts are measured and the SavedModel is
            warmed up. A stateful file's segment has the largest number of steps, up to this one,
            that divides the length of the sequences; 1 if that varies.
        tolerance: How far an artefact may be off.
        serving_batch_sizes: The batch sizes to warm a server up for, in increasing order.
        model_name: The model's name in the model card; defaults to the name of the base directory.
    """

    version: int | None = None
    formats: Sequence[str] = FORMATS
    variants: Sequence[str] = tflite_variants.DEFAULT
    segment: int = 28
    tolerance: comparison.Tolerance = dataclasses.field(default_factory=comparison.Tolerance)
    serving_batch_sizes: Sequence[int] = tf_serving.BATCH_SIZES
    model_name: str | None = None

    def __post_init__(self) -> None:
        """Raises UserError if a setting is wrong."""
        for name in ("formats", "variants"):
            value = getattr(self, name)
            if isinstance(value, str):
                raise SettingError(f"{name} is a text: give a list, such as [{value!r}].")
        unknown = sorted(set(self.formats) - set(FORMATS))
        if unknown or not self.formats:
            name = unknown[0] if unknown else ""
            raise SettingError(f"Unknown format {name!r}: give {' or '.join(FORMATS)}.")
        if self.version is not None and (type(self.version) is not int or self.version < 1):
            raise SettingError(f"The version is {self.version!r}: give a whole number from 1 on.")
        if self.segment < 1:
            raise SettingError(f"A segment has {self.segment} steps: give at least 1.")
        warmup.check_batch_sizes(self.serving_batch_sizes)
        _ = self.made

    @property
    def made(self) -> list[tflite_variants.Variant]:
        """The variants to make."""
        return tflite_variants.named(self.variants) if "tflite" in self.formats else []


def export(
    run: Run,
    export_dir: str | os.PathLike[str],
    *,
    calibration_examples: int = 200,
    examples: int | None = None,
    before_publishing: Callable[[], None] | None = None,
    **settings: Any,
) -> Export:
    """Exports a run: artefacts, metadata.json, parity.json and a model card.

    Args:
        run: The trained classifier. Its configuration must be the current gin configuration (as
            after `load_run`), because it names the test data.
        export_dir: The base directory; the version gets a subfolder named by its number.
        calibration_examples: How many training examples to calibrate the variant int8 on.
        examples: How many test examples to measure (chosen at random with a fixed seed); all by
            default. With 0, nothing is measured, and no test data is read.
        before_publishing: See `write`.
        **settings: The settings of the export, see `Settings`.

    Raises:
        UserError: As for `write`, or if the model is a Transformer or the test data is missing.
    """
    if calibration_examples < 1:
        raise SettingError(
            f"There are {calibration_examples} calibration examples: give at least 1."
        )
    return write(
        Model.of_run(run),
        export_dir,
        Settings(**settings),
        test=lambda: None if examples == 0 else _test_split(run, examples),
        calibration=lambda: _calibration(run, calibration_examples),
        before_publishing=before_publishing,
    )


@tf32.off()
def write(
    model: Model,
    export_dir: str | os.PathLike[str],
    settings: Settings,
    *,
    test: Callable[[], data.Split | None],
    calibration: Callable[[], list[np.ndarray]],
    before_publishing: Callable[[], None] | None = None,
) -> Export:
    """Exports a classifier: artefacts, metadata.json, parity.json and a model card.

    Args:
        model: The classifier.
        export_dir: The base directory; the version gets a subfolder named by its number.
        settings: The settings of the export.
        test: Returns the data to measure on; None to measure nothing.
        calibration: Returns the sequences to calibrate the variant int8 on, or raises UserError.
        before_publishing: Called when everything is written. If it raises, nothing is left behind.

    Returns:
        The directory of the version, and the measurements.

    Raises:
        UserError: The directory can't be written, the version already exists, the SavedModel or a
            file in float32 could not be made or exceeds the tolerance, or nothing is left to
            export. In this case, nothing is left behind.
    """
    name = settings.model_name or pathlib.Path(export_dir).resolve().name or "classifier"
    with staging.staged(export_dir, settings.version) as stage:
        split = test()
        directory = stage.directory
        if "saved_model" in settings.formats:
            _save(model, directory, settings, split)
        failed = {}
        for variant in settings.made:
            logging.info("Converting to TensorFlow Lite, %s ...", variant.name)
            try:
                _convert(model, directory, variant, settings.segment, calibration)
            except UserError as error:
                if variant.is_exact:
                    raise
                failed[variant.name] = comparison.Failure(reason(error))
        described = metadata.describe(model, directory, name)
        files.write_json(directory / litert.METADATA, described)
        measured = comparison.Parity(
            model.dataset, 0, settings.segment, settings.tolerance, reference=model.reference
        )
        if split is not None:
            measured = parity.measure(
                directory,
                model.classifier,
                split,
                segment=settings.segment,
                tolerance=settings.tolerance,
                dataset=model.dataset,
                reference=model.reference,
            )
            described = _without(described, set(measured.failed), directory)
        measured = dataclasses.replace(measured, failed={**failed, **measured.failed})
        if not described["artefacts"]:
            raise ModelError(f"{'; '.join(measured.failures())}; nothing was exported.")
        files.write_json(directory / "parity.json", measured.to_json())
        (directory / "README.md").write_text(card.text(model, described, measured), "utf-8")
        if before_publishing is not None:
            before_publishing()
    return Export(stage.published, measured)


def _save(
    model: Model, directory: pathlib.Path, settings: Settings, split: data.Split | None
) -> None:
    """Writes the SavedModel and its warm-up requests."""
    logging.info("Writing the SavedModel ...")
    network = StatelessClassifier(model)
    saved_model.save(network, directory)
    lengths = warmup.lengths_of(model.info) if split is None else split.lengths
    warmup.write(
        directory,
        model.info,
        network.state,
        lengths,
        settings.segment,
        settings.serving_batch_sizes,
    )


def _load(run: Run, split: str, examples: int | None, message: str) -> data.Split:
    """Loads a run's data. `message` has a placeholder for the message of an error."""
    arguments = {} if examples is None else {"max_examples": examples}
    try:
        with config.user_errors():
            return data.load(run.source, split, run.info, **arguments)
    except UserError as error:
        # Its type can't be called: gin raises one of the same name that accepts no message.
        raise error.with_message(message.format(reason(error))) from error


def _test_split(run: Run, examples: int | None) -> data.Split:
    message = "{}; to export without test data, give --parity_examples=0."
    return _load(run, "test", examples, message)


def _convert(
    model: Model,
    directory: pathlib.Path,
    variant: tflite_variants.Variant,
    segment: int,
    calibration: Callable[[], list[np.ndarray]],
) -> None:
    """Writes all files of a variant, or raises UserError and writes none."""
    forms = tflite.forms(model, variant)
    sequences = calibration() if variant.name == "int8" else []
    contents = {
        litert.file_name(form, variant.name): tflite.convert(
            model, form, variant, segment=segment, calibration=sequences
        )
        for form in forms
    }
    for name, content in contents.items():
        (directory / name).write_bytes(content)


def _calibration(run: Run, examples: int) -> list[np.ndarray]:
    """The training sequences for calibration."""
    split = _load(run, "train", examples, "The variant int8 needs training data: {}.")
    return [split.example(i) for i in range(len(split))]


def _without(
    described: dict[str, Any], failed: set[str], directory: pathlib.Path
) -> dict[str, Any]:
    """Removes the files of failed variants from an export. Returns the new metadata."""
    gone = {n for n, entry in described["artefacts"].items() if entry.get("variant") in failed}
    if not gone:
        return described
    for name in gone:
        (directory / name).unlink()
    for part in ("artefacts", "files"):
        described[part] = {n: entry for n, entry in described[part].items() if n not in gone}
    files.write_json(directory / litert.METADATA, described)
    return described
