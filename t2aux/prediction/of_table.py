"""The rows of a table: CSV and similar formats, JSON lines and Parquet."""

from __future__ import annotations

import itertools
import pathlib
from collections.abc import Iterator
from typing import IO, Any

import pyarrow as pa

from t2aux.data import tables
from t2aux.data.table import class_key, read_class_names
from t2aux.data.tables.columns import is_position
from t2aux.errors import DataError, UserError, shorten
from t2aux.prediction.rows import Row
from t2aux.prediction.source import Reading, Source
from t2aux_ondevice.preprocessing import DatasetInfo


def table(
    source: pathlib.Path | IO[bytes], name: str, info: DatasetInfo, reading: Reading
) -> Source:
    """The rows of a table of texts.

    The columns of the text and, if there is one, of the class are the given ones; otherwise those
    of the training data, if the table has them; otherwise they are found by their usual names. If a
    classes.txt beside the file names the classes, a class that is a number counts from 1, as in
    training.

    Raises:
        UserError: See `tables.open_table` and `tables.choose_columns`.
    """
    wanted = [reading.label_column, *reading.text_columns]
    trained = (reading.trained_label, *reading.trained_texts)
    opened = tables.open_table(
        source,
        name=name,
        encoding=reading.encoding,
        columns=[column for column in wanted if column is not None],
        usual=[str(column) for column in trained if column is not None],
        known=frozenset(map(class_key, info.classes)),
    )
    names, width = opened.columns, len(opened.columns)
    positions = {c for c in trained if c is not None and str(c) not in names}
    # A table with a header that lacks one of the positions has other columns.
    if not opened.has_header or all(is_position(c, width) for c in positions):
        trained = tuple(
            names[int(c)] if c in positions and is_position(c, width) else c for c in trained
        )
    label, texts = reading.label_column, reading.text_columns
    if label is None and str(trained[0]) in set(opened.columns).difference(texts):
        label = trained[0]
    if not texts and set(map(str, trained[1:])) <= set(opened.columns) - {label}:
        texts = trained[1:]
    chosen = tables.choose_columns(opened, label, texts, needs_label=False)
    opened.joins_rest = opened.columns[-1] in chosen.texts
    batches = opened.numbered()
    first = next(batches, None)
    if first is None:
        raise DataError(f"{name} holds no rows: there is nothing to classify.")
    schema = first.batch.schema
    names = None
    if isinstance(source, pathlib.Path):
        names = read_class_names(source.parent / "classes.txt")
    if label is None and chosen.label is not None and not opened.has_header:
        found = {_label(v, names) for v in tables.strings(first.batch, chosen.label).to_pylist()}
        classes = set(map(class_key, info.classes))
        if not any(label is not None and class_key(label) in classes for label in found):
            if not texts:
                raise _no_header(opened, first.batch, chosen.label)
            chosen = chosen._replace(label=None)
    read = _Rows(opened, chosen, names, source, schema.names if reading.keep_columns else [])
    return Source(
        what=name,
        rows=lambda: read.rows(itertools.chain([first], batches)),
        labelled=chosen.label is not None,
        columns=schema if reading.keep_columns else None,
        name_type=pa.int64() if opened.index is None else schema.field(opened.index).type,
        total=getattr(opened, "num_rows", None),
        about=read.about,
        notes=lambda: (*opened.notes, *chosen.notes),
    )


class _Rows:
    """Reads a table and counts the rows read."""

    def __init__(
        self,
        opened: tables.TableReader,
        chosen: tables.Chosen,
        names: tuple[str, ...] | None,
        source: pathlib.Path | IO[bytes],
        kept: list[str],
    ) -> None:
        self._opened = opened
        self._chosen = chosen
        self._names = names
        self._kept = kept
        self._size = 0
        if isinstance(source, pathlib.Path):
            packed = source.name.lower().endswith((".gz", ".xz", ".bz2"))
            self._size = 0 if packed else source.stat().st_size
        self._read = self._bytes = 0

    def about(self) -> int | None:
        """Estimates the number of rows from the size of the rows that were read."""
        if not self._size or not self._bytes:
            return None
        return int(self._size / self._bytes * self._read)

    def rows(self, batches: Iterator[Any]) -> Iterator[Row]:
        """Yields the rows. A null is an empty text, or a missing label."""
        opened, chosen = self._opened, self._chosen
        number = 0
        for lines, batch in batches:
            texts = tables.joined(batch, chosen.texts).to_pylist()
            labels = [None] * len(batch)
            if chosen.label is not None:
                labels = [
                    _label(v, self._names) for v in tables.strings(batch, chosen.label).to_pylist()
                ]
            names = range(number, number + len(batch))
            if opened.index is not None:
                names = _values(opened.name, batch, opened.index)
            kept = [_values(opened.name, batch, column) for column in self._kept]
            columns = zip(*kept, strict=True) if kept else itertools.repeat((), len(batch))
            for line, name, text, label, values in zip(
                lines, names, texts, labels, columns, strict=True
            ):
                where = f"{opened.name}, {opened.unit} {line}"
                yield Row(name, where, text, label, values)
            number += len(batch)
            self._read = number
            # A separator or a line end for each value.
            self._bytes += batch.nbytes - 3 * batch.num_columns * len(batch)


def _values(name: str, batch: pa.RecordBatch, column: str) -> list[Any]:
    """The values of a column, in the form in which `pa.array` takes them for its type."""
    values = batch.column(column)
    if pa.types.is_temporal(values.type):
        # As numbers: Python's own types lack nanoseconds, years after 9999 and long durations.
        values = values.view(pa.int32() if values.type.bit_width == 32 else pa.int64())
    try:
        return values.to_pylist()
    except (ValueError, OverflowError, LookupError) as error:
        raise DataError(
            f"{name}: the column {column!r} holds values of the type {values.type} that can't be "
            "kept: convert or delete it, or leave out --keep_columns."
        ) from error


def _label(label: str, names: tuple[str, ...] | None) -> str | None:
    """The name of a class; a number is a position among the names of classes.txt, from 1."""
    if not label:
        return None
    is_number = names is not None and label.isascii() and label.isdigit() and label not in names
    if is_number and 1 <= int(label) <= len(names):
        return names[int(label) - 1]
    return label


def _no_header(opened: tables.TableReader, batch: pa.RecordBatch, label: str) -> UserError:
    value = shorten(tables.strings(batch, label)[0].as_py())
    return DataError(
        f"The columns of {opened.name} are not known: its first row is not a known header, and its "
        f"first column, which begins with {value!r}, holds none of the classifier's classes: "
        "give --text_column=NAME, or a position such as --text_column=1 "
        "(the first column is 0)."
    )
