"""`t2aux.predict`: predictions for all rows of data, written to a file."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from absl import logging

from t2aux import files
from t2aux.errors import DataError, SettingError
from t2aux.prediction import pipeline, predictor, report, source, writing
from t2aux.prediction.model import Connection, Model
from t2aux.prediction.predictor import Predictor
from t2aux.prediction.report import Summary
from t2aux.prediction.source import Reading
from t2aux.progress import Progress

if TYPE_CHECKING:
    from t2aux import data as data_sets


@dataclasses.dataclass(frozen=True)
class Writing:
    """What is written, and where.

    Attributes:
        output: A file whose name ends in .csv, .jsonl or .parquet; or "-" for standard output.
        output_format: One of `writing.FORMATS`; None for the format implied by the name, or CSV for
            "-".
        overwrite: Whether to replace an existing file.
        top: The number of classes to write, most probable first.
        all_classes: Whether to write the probabilities of all classes.
        report: A folder for evaluation.json and confusion.png, or None.
    """

    output: str
    output_format: str | None = None
    overwrite: bool = False
    top: int = 1
    all_classes: bool = False
    report: str | None = None

    def layout(
        self, classes: tuple[str, ...], opened: source.Source, on_error: str
    ) -> writing.Layout:
        """The columns of the output for the rows of a source."""
        return writing.Layout(
            classes=classes,
            kept=opened.columns,
            name_type=opened.name_type,
            labelled=opened.labelled,
            top=self.top,
            all_classes=self.all_classes,
            with_errors=on_error == predictor.SKIP,
        )

    def check(self) -> None:
        """Raises UserError if a setting is out of range, or the output can't be written."""
        self.check_settings()
        writing.check_output(self.output, overwrite=self.overwrite)
        writing.format_of(self.output, self.output_format)

    def check_settings(self) -> None:
        """Like `check`, but without checking the output, which is on another file system."""
        if self.top < 1:
            raise SettingError(f"top is {self.top}: give at least 1.")
        if self.top > 1 and self.all_classes:
            raise SettingError("Give --top or --probabilities, not both.")
        if self.output_format not in (None, *writing.FORMATS):
            raise SettingError(
                f"The format of the output is {self.output_format!r}: give "
                f"{', '.join(writing.FORMATS)}."
            )
        if self.report is not None:
            files.ensure_directory(self.report)


def predict(
    model: str | os.PathLike[str],
    data: str | os.PathLike[str] | data_sets.Source,
    output: str | os.PathLike[str],
    *,
    top: int = 1,
    all_classes: bool = False,
    label_column: str | None = None,
    text_columns: Sequence[str] = (),
    encoding: str | None = None,
    keep_columns: bool = False,
    data_format: str | None = None,
    split: str = "test",
    output_format: str | None = None,
    overwrite: bool = False,
    on_error: str = predictor.STOP,
    report: str | os.PathLike[str] | None = None,
    checkpoint: str | None = None,
    connection: Connection | None = None,
    batch_size: int | None = None,
) -> Summary:
    """Classifies all rows of a file, a folder or a data set, and writes a table of the predictions.

    Memory use does not grow with the number of rows, except for `.npz` and IDX files, which are
    read completely.

    >>> summary = t2aux.predict("exports/digits", "digits.npz", "predictions.csv")
    >>> summary.rows, summary.evaluation.examples
    (48, 48)

    Args:
        model: A `.tflite` or `.keras` file, an export's directory, the model_dir of a run, or the
            address of a model on a server, grpc://HOST:PORT/NAME or http://HOST:PORT/NAME.
        data: A table (CSV and similar formats, JSON lines, Parquet), a `.txt` file with one text
            per line, an `.npz` file, a folder or an archive of images, a folder of `.txt` files, an
            IDX file, a folder of shards, "-" for standard input, or a `t2aux.data.Source`.
        output: A file whose name ends in .csv, .jsonl or .parquet; or "-" for standard output. It
            has the columns `input`, `label` (if there are labels), `class` and `probability`; see
            `writing.Layout`.
        top: The number of classes to write, most probable first.
        all_classes: Whether to write the probabilities of all classes.
        label_column: For a table, the column of the true classes, by name or position. Defaults to
            that of a run's training data, if the table has it, or to one with a usual name.
        text_columns: For a table, the columns of the text, with the same defaults.
        encoding: The encoding of a table or of lines. Defaults to UTF-8, or the encoding of a byte
            order mark.
        keep_columns: Whether to write the columns of a table instead of `input` and `label`. A
            column with the name of a prediction column is renamed to `input_NAME`.
        data_format: "table", "lines" (one text per line), "text" (the file is one text) or "npz".
            Defaults to the format implied by the name.
        split: The split of shards or of a `t2aux.data.Source`.
        output_format: "csv", "jsonl" or "parquet". Defaults to the format implied by the name.
        overwrite: Whether to replace an existing file.
        on_error: What to do with a row that can't be classified (an empty text, a damaged image,
            NaN): "stop" raises UserError and writes nothing; "skip" writes the row without a class
            and gives the reason in a column `error`.
        report: A folder for evaluation.json and confusion.png.
        checkpoint: For a run, "best", "latest" or the name of a checkpoint. Defaults to the best
            or, if the run has no validation set, the latest.
        connection: How to connect to a server.
        batch_size: The maximum number of rows to classify at once (128 by default) or to send to a
            server at once (64 by default).

    Returns:
        The summary: counts and, if there are labels, the accuracy and the confusion matrix.

    Raises:
        UserError: An argument is out of range; the model or the data is missing or damaged; a row
            can't be classified; or the output exists or can't be written.
    """
    place = Model(os.fspath(model), checkpoint, connection or Connection())
    writes = Writing(
        output=os.fspath(output),
        output_format=output_format,
        overwrite=overwrite,
        top=top,
        all_classes=all_classes,
        report=None if report is None else os.fspath(report),
    )
    if isinstance(text_columns, str):
        text_columns = (text_columns,)
    reads = Reading(data_format, label_column, tuple(text_columns), encoding, keep_columns, split)
    with contextlib.closing(Predictor(place, on_error=on_error, batch_size=batch_size)) as made:
        return predict_with(made, data, reads, writes)


def predict_with(
    classifier: Predictor,
    data: str | os.PathLike[str] | data_sets.Source,
    reads: Reading,
    writes: Writing,
) -> Summary:
    """Like `predict`, but with an existing predictor. Raises UserError for the same reasons."""
    writes.check()
    info = classifier.info
    reads = reads.after(classifier.source)
    if isinstance(data, (str, os.PathLike)):
        opened = source.open_source(os.fspath(data), info, reads)
    else:
        from t2aux.prediction import of_arrays

        opened = of_arrays.data_set(data, reads.split, info)
    check_labelled(opened.what, opened.labelled, writes)
    _refuse_same_file(data, writes)
    logged = log_notes(opened.notes())
    layout = writes.layout(info.classes, opened, classifier.on_error)
    tally = report.Tally(info.classes, labelled=opened.labelled)
    progress = Progress("Rows", opened.expected if opened.total is None else opened.total)
    output_format = writing.format_of(writes.output, writes.output_format)
    with writing.open_output(writes.output, output_format, layout.schema) as write:
        for predictions in pipeline.predictions(classifier, opened, progress.add):
            tally.add(predictions)
            write(layout.table(predictions))
        summary = tally.summary(writes.output)
        check_summary(opened.what, summary, writes)
    log_notes(opened.notes(), logged)
    if writes.report is not None:
        about = {"model": classifier.model.place, "data": opened.what, "output": writes.output}
        report.write(writes.report, summary, about, opened.what)
    return summary


def _refuse_same_file(data: Any, writes: Writing) -> None:
    is_path = isinstance(data, (str, os.PathLike)) and writing.STANDARD not in (data, writes.output)
    if is_path and os.path.exists(writes.output) and os.path.samefile(data, writes.output):
        raise SettingError(f"{writes.output} is the data itself: give another --output.")


def log_notes(notes: Sequence[str], logged: Sequence[str] = ()) -> tuple[str, ...]:
    """Logs the notes that were not logged before, and returns all notes."""
    for note in notes:
        if note not in logged:
            logging.info("Note: %s", note)
    return tuple(notes)


def check_labelled(what: str, labelled: bool, writes: Writing) -> None:
    """Raises UserError if a report is requested for data without labels."""
    if writes.report is not None and not labelled:
        raise DataError(
            f"{what} has no labels, so its accuracy can't be computed: leave out "
            "--report, or say where the labels are (--label_column of a table)."
        )


def check_summary(what: str, summary: Summary, writes: Writing) -> None:
    """Raises UserError if there is nothing to write."""
    if not summary.rows:
        raise DataError(f"{what} holds no rows: there is nothing to classify.")
    if summary.rows == summary.skipped:
        raise DataError(
            f"None of the {summary.rows:,} rows of {what} could be classified; the first: "
            f"{summary.first_error}"
        )
    if writes.report is not None and summary.evaluation is None:
        unknown = next(iter(summary.unknown), None)
        found = "no row that was classified has a label"
        if unknown is not None:
            found = (
                "none of its labels is a class of the classifier; the most frequent one is "
                f"{unknown!r}"
            )
        raise DataError(
            f"The accuracy of {what} can't be computed: {found}. Correct --label_column, or "
            "leave out --report."
        )
