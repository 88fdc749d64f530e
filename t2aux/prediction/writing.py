"""The table of predictions, written as CSV, JSON lines or Parquet with pyarrow."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from t2aux import files
from t2aux.errors import FileError, SettingError
from t2aux.prediction.predictor import Predictions

FORMATS = ("csv", "jsonl", "parquet")
STANDARD = "-"
_SUFFIXES = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}
INPUT, LABEL, CLASS, PROBABILITY, ERROR = "input", "label", "class", "probability", "error"
# The prefix for a kept input column if the output already has a column of that name.
_KEPT = "input_"


@dataclasses.dataclass(frozen=True)
class Layout:
    """The columns of the output.

    In this order: `input`, a row's name or number, and, if there are labels, `label`, the true
    class; or, instead of both, the columns of the input, if they are kept; `class` and
    `probability`; with `top`, the next classes as `class_2`, `probability_2`, ...; with
    `all_classes`, `probability_NAME` for each class; and, if rows are skipped, `error`, the reason
    why a row has no class.

    Attributes:
        classes: The names of the classes.
        kept: The columns of the input to keep, or None.
        name_type: The type of the column `input`.
        labelled: Whether there are labels.
        top: The number of classes to write.
        all_classes: Whether to write the probabilities of all classes.
        with_errors: Whether rows are skipped.
    """

    classes: tuple[str, ...]
    kept: pa.Schema | None
    name_type: pa.DataType
    labelled: bool = False
    top: int = 1
    all_classes: bool = False
    with_errors: bool = False

    @property
    def schema(self) -> pa.Schema:
        """The names and types of the columns."""
        own: list[pa.Field] = []
        if self.kept is None:
            own.append(pa.field(INPUT, self.name_type))
            if self.labelled:
                own.append(pa.field(LABEL, pa.string()))
        own += [pa.field(CLASS, pa.string()), pa.field(PROBABILITY, pa.float32())]
        for rank in range(2, min(self.top, len(self.classes)) + 1):
            own.append(pa.field(f"{CLASS}_{rank}", pa.string()))
            own.append(pa.field(f"{PROBABILITY}_{rank}", pa.float32()))
        if self.all_classes:
            own += [pa.field(f"{PROBABILITY}_{name}", pa.float32()) for name in self.classes]
        if self.with_errors:
            own.append(pa.field(ERROR, pa.string()))
        taken = {field.name for field in own}
        kept = []
        for field in self.kept or ():
            name = field.name
            while name in taken:
                name = _KEPT + name
            taken.add(name)
            kept.append(field.with_name(name))
        return pa.schema([*kept, *own])

    def table(self, predictions: Predictions) -> pa.RecordBatch:
        """The predictions for some rows, in these columns."""
        rows, probabilities = predictions.rows, predictions.probabilities
        schema = self.schema
        columns: list[Any] = [
            pa.array([row.columns[i] for row in rows], field.type)
            for i, field in enumerate(self.kept or ())
        ]
        if self.kept is None:
            columns.append(pa.array([row.name for row in rows], self.name_type))
            if self.labelled:
                columns.append(pa.array([self._label(row.label) for row in rows], pa.string()))
        missing = ~predictions.predicted
        names = np.array([*self.classes, None], object)
        best = np.argsort(-probabilities, axis=1, kind="stable")[:, : max(self.top, 1)]
        for rank in range(best.shape[1]):
            labels = best[:, rank]
            chosen = np.take_along_axis(probabilities, labels[:, np.newaxis], 1)[:, 0]
            columns.append(pa.array(names[np.where(missing, -1, labels)], pa.string()))
            columns.append(pa.array(chosen, pa.float32(), mask=missing))
        if self.all_classes:
            for label in range(len(self.classes)):
                values = np.ascontiguousarray(probabilities[:, label])
                columns.append(pa.array(values, pa.float32(), mask=missing))
        if self.with_errors:
            errors = [predictions.errors.get(i) for i in range(len(rows))]
            columns.append(pa.array(errors, pa.string()))
        return pa.RecordBatch.from_arrays(columns, schema=schema)

    def _label(self, label: str | int | None) -> str | None:
        if isinstance(label, int):
            return self.classes[label] if 0 <= label < len(self.classes) else str(label)
        return label


def format_of(output: str, given: str | None = None) -> str:
    """The format of an output: as given, or as implied by its name; CSV for standard output.

    Raises:
        UserError: The name does not imply a format, or the format can't be written there.
    """
    if output == STANDARD:
        if given == "parquet":
            raise SettingError("Parquet can't be written to standard output: give a file.")
        return given or "csv"
    found = given or _SUFFIXES.get(pathlib.PurePath(output).suffix.lower())
    if found is None:
        raise FileError(
            f"The name of the output {output} does not imply a format: end it in .csv, .jsonl or "
            f".parquet, or give --output_format={'|'.join(FORMATS)}."
        )
    return found


@contextlib.contextmanager
def open_output(
    output: str, output_format: str, schema: pa.Schema
) -> Iterator[Callable[[pa.RecordBatch], None]]:
    """Opens the output.

    Args:
        output: A file, or "-" for standard output.
        output_format: One of FORMATS.
        schema: The columns.

    Yields:
        A function that writes rows. A file gets its final name when the block succeeds; otherwise
        it is removed.

    Raises:
        UserError: The file can't be written.
    """
    if output == STANDARD:
        sys.stdout.flush()
        with contextlib.ExitStack() as stack:
            started: list[Callable[[pa.RecordBatch], None]] = []

            def write_first(batch: pa.RecordBatch) -> None:
                # Opened only now, so that nothing is written if the first rows can't be classified.
                if not started:
                    opened = open_writer(output_format, sys.stdout.buffer, schema)
                    started.append(stack.enter_context(opened))
                started[0](batch)

            yield write_first
        sys.stdout.flush()
        return
    # Removes the files of a killed process.
    files.clear_temporary(output)
    with (
        files.atomic_write(output, "wb") as file,
        open_writer(output_format, file, schema) as write,
    ):
        yield write


def check_output(output: str, *, overwrite: bool) -> None:
    """Raises UserError if the output already exists, or its folder does not exist."""
    if output == STANDARD:
        return
    path = pathlib.Path(output)
    if path.is_dir():
        raise FileError(f"The output {path} is a folder: give the name of a file.")
    if os.path.lexists(path) and not overwrite:
        raise FileError(f"{path} exists: give another --output, or --overwrite to replace it.")
    files.ensure_directory(path.parent)


@contextlib.contextmanager
def open_writer(
    output_format: str, file: IO[bytes], schema: pa.Schema
) -> Iterator[Callable[[pa.RecordBatch], None]]:
    """Writes a table into an open file.

    Args:
        output_format: One of FORMATS.
        file: The file, which stays open.
        schema: The columns.

    Yields:
        A function that writes rows.

    Raises:
        UserError: A column has a type that the format does not support.
    """
    if output_format == "jsonl":
        yield lambda batch: file.write(_json_lines(batch))
        return
    make = pa.parquet.ParquetWriter if output_format == "parquet" else pa.csv.CSVWriter
    try:
        # Neither writer closes the file, since it did not open it.
        with make(file, schema) as writer:
            yield writer.write_batch
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise SettingError(
            f"A column that is kept can't be written as {output_format} ({reason}): write JSON "
            "lines (--output=FILE.jsonl), or leave out --keep_columns."
        ) from error


def _json_lines(batch: pa.RecordBatch) -> bytes:
    names: Sequence[str] = batch.schema.names
    columns = [_python(column) for column in batch.columns]
    lines = (_json(dict(zip(names, row, strict=True))) for row in zip(*columns, strict=True))
    return "".join(f"{line}\n" for line in lines).encode("utf-8")


def _json(row: dict[str, Any]) -> str:
    def text(value: Any) -> str:
        return value.decode("utf-8", "backslashreplace") if type(value) is bytes else str(value)

    try:
        return json.dumps(row, ensure_ascii=False, allow_nan=False, default=text)
    except ValueError:  # JSON has no NaN and no infinity: they become null, as in pandas.
        row = json.loads(json.dumps(row, default=text), parse_constant=lambda _: None)
        return json.dumps(row, ensure_ascii=False)


def _python(column: pa.Array) -> list[Any]:
    if pa.types.is_temporal(column.type):
        # As in CSV. Python's own types lack nanoseconds, years after 9999 and long durations.
        return column.cast(pa.string()).to_pylist()
    if not pa.types.is_float32(column.type):
        return column.to_pylist()
    # The shortest decimals of the float32, as in CSV, rather than the digits of a float64.
    return [None if v is None else float(v) for v in column.cast(pa.string()).to_pylist()]
