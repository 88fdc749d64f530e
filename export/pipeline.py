"""The export stage: a run becomes a version with its artefacts, and says what it is."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import gin
import numpy as np
from absl import logging

from t2aux import config, data, files
from t2aux.data.loading import folder_of
from t2aux.data.tfds_sets import TfdsSource
from t2aux.errors import UserError
from t2aux.export import card, comparison, metadata, parity, saved_model, staging, tflite, warmup
from t2aux.export import variants as tflite_variants
from t2aux.export.twin import Twin
from t2aux.model import inference
from t2aux.model.classifier import Classifier
from t2aux.run import Run
from t2aux_ondevice import litert

FORMATS = ("saved_model", "tflite")


def export(
    run: Run,
    export_dir: str | os.PathLike[str],
    *,
    version: int | None = None,
    formats: Sequence[str] = FORMATS,
    variants: Sequence[str] = tflite_variants.DEFAULT,
    calibration_examples: int = 200,
    examples: int | None = None,
    segment: int = 28,
    tolerance: comparison.Tolerance | None = None,
    serving_batch_sizes: Sequence[int] = warmup.BATCH_SIZES,
    model_name: str | None = None,
    before_publishing: Callable[[], None] | None = None,
) -> tuple[pathlib.Path, comparison.Parity]:
    """Exports a run: artefacts, metadata.json, parity.json and a model card.

    Args:
        run: The trained classifier; its configuration must be gin's (as `load_run` leaves it), for
            it says where the test data lies.
        export_dir: The base directory; the version goes into a folder of its number in it.
        version: By default one more than the newest.
        formats: Which artefacts to make: "saved_model", "tflite".
        variants: Which variants of the TensorFlow Lite files; see `t2aux.export.variants`.
        calibration_examples: How many training examples the variant int8 is calibrated on.
        examples: How many test examples to measure (a fixed random choice); all by default; with 0
            nothing is measured, and no test data is read.
        segment: Steps of a segment when the streaming artefacts are measured and the SavedModel is
            warmed up, and the most that files with a state of their own take at once.
        tolerance: How far an artefact may be from the checkpoint.
        serving_batch_sizes: The batch sizes that a server is warmed up for, rising.
        model_name: What the model card calls the model; the name of `export_dir` by default.
        before_publishing: Called when all is written, the last moment to give up: where it raises,
            nothing is left behind.

    Returns:
        The version's directory, and what was measured. A variant that could not be made or is
        further off than the tolerance is not in the directory, but among `failed` of the latter.

    Raises:
        UserError: The model is a Transformer, or its core's state can't be exported; a format or
            batch size is wrong, the directory can't be written, the version is there already, the
            test data is missing, the SavedModel or a file in float32 could not be made or is
            further off than the tolerance, or nothing is left to export. Nothing is left behind
            then.
    """
    _check_model(run)
    unknown = sorted(set(formats) - set(FORMATS))
    if unknown or not formats:
        raise UserError(
            f"There is no format {unknown[0] if unknown else ''!r}: give one or more of "
            f"{', '.join(FORMATS)}."
        )
    made = tflite_variants.named(variants) if "tflite" in formats else []
    if segment < 1:
        raise UserError(f"A segment has {segment} steps: give at least 1.")
    if calibration_examples < 1:
        raise UserError(
            f"{calibration_examples} calibration examples are too few: give at least 1."
        )
    warmup.check_batch_sizes(serving_batch_sizes)
    tolerance = tolerance or comparison.Tolerance()
    model_name = model_name or _name_of(export_dir) or "classifier"
    with staging.staged(export_dir, version) as stage:
        split = None if examples == 0 else _test_split(run, examples)
        directory = stage.directory
        if "saved_model" in formats:
            logging.info("Writing the SavedModel ...")
            saved_model.save(Twin(run.classifier), directory)
            lengths = warmup.lengths_of(run.info) if split is None else split.lengths
            state = inference.state_shapes(run.classifier.core)
            warmup.write(directory, run.info, state, lengths, segment, serving_batch_sizes)
        failed = {}
        for variant in made:
            logging.info("Converting to TensorFlow Lite, %s ...", variant.name)
            try:
                _convert(run, directory, variant, segment, calibration_examples)
            except UserError as error:
                if variant.is_exact:
                    raise
                failed[variant.name] = comparison.Failure(_sentence(error))
        described = metadata.describe(run, directory, model_name)
        files.write_json(directory / litert.METADATA, described)
        dataset = _dataset(run)
        if split is None:
            measured = comparison.Parity(dataset, 0, segment, tolerance, failed=failed)
        else:
            found = parity.measure(
                directory,
                run.classifier,
                split,
                segment=segment,
                tolerance=tolerance,
                dataset=dataset,
            )
            measured = dataclasses.replace(found, failed={**failed, **found.failed})
            described = _without(described, set(found.failed), directory)
        if not described["artefacts"]:
            raise UserError(f"{'; '.join(measured.failures())}; nothing was exported.")
        files.write_json(directory / "parity.json", measured.to_json())
        (directory / "README.md").write_text(card.text(run, described, measured), "utf-8")
        if before_publishing is not None:
            before_publishing()
    return stage.published, measured


def _check_model(run: Run) -> None:
    network = run.classifier
    if not isinstance(network, Classifier):
        raise UserError(
            f"t2aux export exports recurrent networks, and this run's model is a "
            f"{type(network).__name__}: `t2aux evaluate --model_dir={run.model_dir}` and `t2aux "
            f"classify --model={run.model_dir}` work on the run itself."
        )
    inference.initial_state(network.core)


def _name_of(directory: str | os.PathLike[str]) -> str:
    return pathlib.Path(directory).resolve().name


def _dataset(run: Run) -> str:
    """What to call the data: a file format's name alone tells nobody what is in the files."""
    name = run.info.name
    if not run.source.in_folder or isinstance(run.source, TfdsSource):
        return name
    try:
        folder = folder_of(gin.query_parameter("dataset.data_dir"))
    except (ValueError, UserError):  # Not configured, or a reference.
        folder = folder_of(None)
    return name if folder is None else f"{_name_of(folder)} ({name})"


def _sentence(error: UserError) -> str:
    """An error's message without its period, and without what gin adds behind it."""
    return str(error).splitlines()[0].rstrip(".")


def _test_split(run: Run, examples: int | None) -> data.Split:
    arguments = {} if examples is None else {"max_examples": examples}
    try:
        with config.user_errors():
            return data.load(run.source, "test", run.info, **arguments)
    except UserError as error:
        raise UserError(
            f"{_sentence(error)}; to export without test data, and measure nothing, give "
            "--parity_examples=0."
        ) from error


def _convert(
    run: Run,
    directory: pathlib.Path,
    variant: tflite_variants.Variant,
    segment: int,
    calibration_examples: int,
) -> None:
    """Writes the files of a variant: all of them, or raises UserError and writes none."""
    forms = tflite.forms(run.classifier, variant)
    calibration = []
    if variant.name == "int8":
        calibration = _calibration(run, calibration_examples)
    contents = {
        litert.file_name(form, variant.name): tflite.convert(
            run.classifier, form, variant, segment=segment, calibration=calibration
        )
        for form in forms
    }
    for name, content in contents.items():
        (directory / name).write_bytes(content)


def _calibration(run: Run, examples: int) -> list[np.ndarray]:
    """Training sequences."""
    try:
        with config.user_errors():
            split = data.load(run.source, "train", run.info, max_examples=examples)
    except UserError as error:
        raise UserError(
            f"The variant int8 is calibrated on training data, and {_sentence(error)}."
        ) from error
    return [split.example(i) for i in range(len(split))]


def _without(
    described: dict[str, Any], failed: set[str], directory: pathlib.Path
) -> dict[str, Any]:
    """Takes the files of failed variants out of an export; returns its metadata."""
    gone = {n for n, entry in described["artefacts"].items() if entry.get("variant") in failed}
    if not gone:
        return described
    for name in gone:
        (directory / name).unlink()
    for part in ("artefacts", "files"):
        described[part] = {n: entry for n, entry in described[part].items() if n not in gone}
    files.write_json(directory / litert.METADATA, described)
    return described
