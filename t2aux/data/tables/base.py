"""`TableReader`: what all formats of tables have in common, and its columns as texts."""

from __future__ import annotations

import abc
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from t2aux.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

# A batch has at most so many rows, and about so many characters.
ROWS, CHARACTERS = 1024, 1 << 20


class Numbered(NamedTuple):
    """Some rows of a table.

    Attributes:
        lines: Where each begins in the file, counted from 1: its line, or in Parquet its row.
        batch: The rows, with all of the table's columns.
    """

    lines: Sequence[int]
    batch: pa.RecordBatch


class TableReader(abc.ABC):
    """A table whose beginning was read.

    Attributes:
        name: The file's path, or another name for messages.
        columns: The names of the columns, all different. Without a header "0", "1", ...
        has_header: Whether the table itself names its columns.
        index: The column that numbers the rows, as pandas writes it; None: no column does.
        unit: What `Numbered.lines` counts: "line" or "row".
    """

    unit = "line"

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
        """What was guessed or skipped so far, a sentence each; more may come while it is read."""
        return self._notes

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yields the rows: strings, but for Parquet, whose columns keep their types.

        A table from a file can be read several times, one from a stream once.

        Raises:
            UserError: The file is damaged or changed; a row is not what the format wants. The
                message names the file and the line.
        """
        for numbered in self.numbered():
            yield numbered.batch

    @abc.abstractmethod
    def numbered(self) -> Iterator[Numbered]:
        """Yields the rows and where they begin; see `batches`."""


def strings(batch: pa.RecordBatch, column: str) -> pa.StringArray:
    """A column of any simple type as strings, without white space around them; "" for null.

    Numbers without a fraction are whole numbers: 2.0 is "2".

    Raises:
        UserError: The column holds lists, records or bytes that are not UTF-8.
    """
    import pyarrow as pa
    from pyarrow import compute

    values = batch.column(column)
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    try:
        texts = compute.cast(values, pa.string())
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid) as error:
        raise DataError(
            f"The column {column!r} holds values of the type {values.type}, which are not texts "
            "or numbers: choose another column, or convert it."
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
    """Several columns as one text, joined by a space; those that are empty are left out.

    Raises:
        UserError: As for `strings`.
    """
    from pyarrow import compute

    text, *parts = (strings(batch, column) for column in columns)
    for part in parts:
        # Not by null_handling="skip", which leaves out rows that have nothing but nulls.
        one_is_empty = compute.or_(compute.equal(text, ""), compute.equal(part, ""))
        space = compute.if_else(one_is_empty, "", " ")
        text = compute.binary_join_element_wise(text, part, space)
    return text
