"""`TableReader`, the base class for all table formats, and the conversion of columns to texts."""

from __future__ import annotations

import abc
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from t2aux.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

# The maximum number of rows of a batch, and its approximate number of characters.
ROWS, CHARACTERS = 1024, 1 << 20


class Numbered(NamedTuple):
    """Some rows of a table.

    Attributes:
        lines: The line at which each row begins, or in Parquet the row's number, counted from 1.
        batch: The rows, with all columns of the table.
    """

    lines: Sequence[int]
    batch: pa.RecordBatch


class TableReader(abc.ABC):
    """A table whose beginning has been read.

    Attributes:
        name: The file's path, or another name for messages.
        columns: The unique names of the columns. Without a header, they are "0", "1", ...
        has_header: Whether the table itself names its columns.
        index: The column that numbers the rows, as written by pandas; None if there is none.
        unit: What `Numbered.lines` counts: "line" or "row".
        chosen: The columns of the class and of the text, once `choose_columns` has chosen them.
    """

    unit = "line"
    chosen: tuple[str, ...] = ()

    def __init__(
        self,
        name: str,
        columns: Sequence[str],
        *,
        has_header: bool = True,
        index: str | None = None,
        notes: Sequence[str] = (),
    ) -> None:
        self.name = name
        self.columns = tuple(columns)
        self.has_header = has_header
        self.index = index
        self._notes = tuple(notes)

    @property
    def notes(self) -> tuple[str, ...]:
        """What was guessed or skipped so far, one sentence each. Reading may add more."""
        return self._notes

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yields the rows: strings, except for Parquet, whose columns keep their types.

        A table from a file can be read several times, one from a stream only once.

        Raises:
            UserError: The file is damaged or has changed, or a row does not conform to the format.
                The message names the file and the line.
        """
        for numbered in self.numbered():
            yield numbered.batch

    @abc.abstractmethod
    def numbered(self) -> Iterator[Numbered]:
        """Yields the rows and the lines at which they begin; see `batches`."""


def strings(batch: pa.RecordBatch, column: str) -> pa.StringArray:
    """A column of any simple type as strings, without surrounding white space; "" for null.

    Numbers without a fraction become whole numbers: 2.0 becomes "2".

    Raises:
        UserError: The column holds lists, records or bytes that are not UTF-8.
    """
    import pyarrow as pa
    from pyarrow import compute

    values = batch.column(column)
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if pa.types.is_float16(values.type):  # It can't be rounded.
        values = values.cast(pa.float32())
    try:
        texts = compute.cast(values, pa.string())
        texts.validate(full=True)  # A column of strings may hold any bytes.
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid) as error:
        raise DataError(
            f"The column {column!r} holds values of the type {values.type}, which are neither "
            "texts in UTF-8 nor numbers: choose another column, or convert it."
        ) from error
    if pa.types.is_floating(values.type):
        whole = compute.equal(values, compute.floor(values))
        texts = compute.if_else(
            compute.fill_null(compute.and_(whole, compute.is_finite(values)), False),
            compute.replace_substring_regex(texts, r"\.0$", ""),
            texts,
        )
    return compute.utf8_trim_whitespace(compute.fill_null(texts, ""))


def joined(batch: pa.RecordBatch, columns: Sequence[str]) -> pa.StringArray:
    """Joins several columns into one text, separated by spaces. Empty values are left out.

    Raises:
        UserError: As for `strings`.
    """
    from pyarrow import compute

    text, *parts = (strings(batch, column) for column in columns)
    for part in parts:
        # null_handling="skip" would leave out rows that contain only nulls.
        one_is_empty = compute.or_(compute.equal(text, ""), compute.equal(part, ""))
        space = compute.if_else(one_is_empty, "", " ")
        text = compute.binary_join_element_wise(text, part, space)
    return text
