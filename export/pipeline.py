"""The export stage: a run becomes a version with its artefacts, and says what it is."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable, Sequence

import numpy as np
from absl import logging

from t2aux import config, data, files
from t2aux.errors import UserError
from t2aux.export import card, metadata, parity, saved_model, staging, tflite, warmup
from t2aux.export import variants as tflite_variants
from t2aux.export.twin import Twin
from t2aux.model.classifier import Classifier
from t2aux.model.lstm import LSTM
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
    tolerance: parity.Tolerance | None = None,
    serving_batch_sizes: Sequence[int] = warmup.BATCH_SIZES,
    before_publishing: Callable[[], None] | None = None,
) -> tuple[pathlib.Path, parity.Parity]:
    """Exports a run: artefacts, metadata.json, parity.json and a model card.

    Args:
        run: The trained classifier; its configuration must be gin's (as `load_run` leaves it), for
            it says where the test data lies.
        export_dir: The base directory; the version goes into a folder of its number in it.
        version: By default one more than the newest.
        formats: Which artefacts to make: "saved_model", "tflite".
        variants: Which variants of the TensorFlow Lite files; see `t2aux.export.variants`.
        calibration_examples: How many training examples the variant int8 is calibrated on.
        examples: How many test examples to measure (a fixed random choice); all by default.
        segment: Steps of a segment when the streaming artefacts are measured and the SavedModel is
            warmed up, and the most that files with a state of their own take at once.
        tolerance: How far an artefact may be from the checkpoint.
        serving_batch_sizes: The batch sizes that a server is warmed up for, rising.
        before_publishing: Called when all is written, the last moment to give up: where it raises,
            nothing is left behind.

    Returns:
        The version's directory, and what was measured.

    Raises:
        UserError: The classifier is not an LSTM, a format or batch size is wrong, the directory
            can't be written, the version is there already, the test data is missing, or an
            artefact could not be made or is further off than the tolerance. Nothing is left behind
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
    warmup.check_batch_sizes(serving_batch_sizes)
    with staging.staged(export_dir, version) as stage:
        split = _test_split(run, examples)
        directory = stage.directory
        if "saved_model" in formats:
            logging.info("Writing the SavedModel ...")
            saved_model.save(Twin(run.classifier), directory)
            hidden_size = run.classifier.hidden_size
            warmup.write(
                directory, run.info, hidden_size, split.lengths, segment, serving_batch_sizes
            )
        calibration = _calibration(run, calibration_examples, made)
        for variant in made:
            logging.info("Converting to TensorFlow Lite, %s ...", variant.name)
            for form in variant.forms:
                content = tflite.convert(
                    run.classifier, form, variant, segment=segment, calibration=calibration
                )
                (directory / litert.file_name(form, variant.name)).write_bytes(content)
        described = metadata.describe(run, directory)
        files.write_json(directory / litert.METADATA, described)
        measured = parity.measure(
            directory,
            run.classifier,
            split,
            segment=segment,
            tolerance=tolerance or parity.Tolerance(),
        )
        files.write_json(directory / "parity.json", measured.to_json())
        (directory / "README.md").write_text(card.text(run, described, measured), "utf-8")
        if before_publishing is not None:
            before_publishing()
    return stage.published, measured


def _check_model(run: Run) -> None:
    network = run.classifier
    if isinstance(network, Classifier):
        if isinstance(network.core, LSTM):
            return
        what = f"this run's core is {type(network.core).__name__}"
    else:
        what = f"this run's model is {type(network).__name__}"
    raise UserError(
        f"t2aux export knows LSTM classifiers only; {what}: `t2aux evaluate "
        f"--model_dir={run.model_dir}` and `t2aux classify --model={run.model_dir}` work on the "
        "run itself."
    )


def _test_split(run: Run, examples: int | None) -> data.Split:
    arguments = {} if examples is None else {"max_examples": examples}
    with config.user_errors():
        return data.load("test", info=run.info, **arguments)


def _calibration(
    run: Run, examples: int, made: Sequence[tflite_variants.Variant]
) -> list[np.ndarray]:
    """Training sequences for the variants that need them."""
    if not any(variant.name == "int8" for variant in made):
        return []
    if examples < 1:
        raise UserError(f"{examples} calibration examples are too few: give at least 1.")
    with config.user_errors():
        split = data.load("train", info=run.info, max_examples=examples)
    return [split.example(i) for i in range(len(split))]
