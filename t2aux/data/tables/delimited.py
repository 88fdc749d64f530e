"""Reads CSV and similar formats with the standard library's csv.

pyarrow's reader is faster, but reading takes only a tenth of the time of converting texts to ids.
Moreover, it silently reads everything after an unclosed quote as one value, reads `"a"b` as ab,
gives no lines in errors, and does not support spaces before quotes or rows with fewer columns.
"""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Callable, Container, Iterator, Sequence
from typing import IO

from t2aux.data import checks
from t2aux.data.table import DAMAGE, Options, damaged
from t2aux.data.tables import dialect as dialects
from t2aux.data.tables.base import CHARACTERS, ROWS, Numbered, TableReader
from t2aux.data.tables.columns import distinct, is_index_name
from t2aux.data.tables.json_lines import not_of_encoding
from t2aux.errors import DataError, listing, shorten


class DelimitedReader(TableReader):
    """A text table.

    Missing columns of a row are empty, and extra empty ones are dropped. Rows with only empty
    columns and rows that repeat the header are skipped.

    Attributes:
        header: The cells of the first row, if it is a header.
        blank_rows: The number of rows so far with only empty columns.
        repeated_headers: The number of later rows so far that repeat the header.
        repeated_first_rows: The number of later rows so far that repeat a first row that is not a
            header.
        least_columns: The smallest number of columns of a row so far; likewise `most_columns`.
        filled: The largest number of columns of a row so far, without empty ones at its end.
        joins_rest: Whether the last column takes the cells after it, as those of a text with
            unquoted commas. Such rows are noted; otherwise they are errors.
    """

    def __init__(
        self,
        name: str,
        opened: Callable[[], IO[bytes]],
        encoding: str,
        rows: Sequence[str],
        *,
        separator: str | None,
        wanted: Sequence[str | int],
        usual: Sequence[str],
        known: frozenset[str],
        options: Options,
        notes: Sequence[str],
    ) -> None:
        """Detects the dialect of the table.

        Args:
            name: The table's name for messages.
            opened: Opens the file.
            encoding: The file's encoding.
            rows: See `dialect.sample_rows`.
            separator: See `dialect.detect`.
            wanted: See `dialect.is_header`.
            usual: See `dialect.is_header`.
            known: See `dialect.is_header`.
            options: `allow` is used.
            notes: The notes so far.

        Raises:
            UserError: See `dialect.detect`.
        """
        short = name.rpartition("/")[2]
        self._opened = opened
        self._encoding = encoding
        self._dialect = dialects.detect(name, short, rows, separator, options)
        cells = dialects.cells_of(rows, self._dialect)
        self.header: list[str] | None = None
        if dialects.is_header(cells, wanted, usual, known, options):
            self.header = cells[0]
            # A cell beyond the last name belongs to an unquoted text.
            columns = distinct(cells[0][: _filled(cells[0])])
        else:
            filled = max(map(_filled, cells), default=0)
            width = max(filled, min(2, max(map(len, cells), default=0)))
            columns = tuple(map(str, range(width)))
        notes = [*notes, *self._dialect.notes]
        if self._dialect.separator_line:
            notes.append(f"{short}: the first line, {rows[0].strip()!r}, was skipped.")
        index = None
        if self.header is not None:
            notes.append(
                f"{short}: the first row is a header and was skipped "
                f"({listing(map(repr, self.header))})."
            )
            if is_index_name(columns[0]) and dialects.numbers_rows(cells, first=1):
                index = columns[0]
                notes.append(f"{short}: the column {index!r} numbers the rows.")
        has_header = self.header is not None
        super().__init__(name, columns, has_header=has_header, index=index, notes=notes)
        self.joins_rest = not has_header
        self._begin()
        if rows and not cells:
            next(self._blocks(), None)  # Raises the error of a first row that is not valid.

    def _begin(self) -> None:
        self.blank_rows = self.repeated_headers = self.repeated_first_rows = 0
        self.least_columns, self.most_columns, self.filled = sys.maxsize, 0, 0
        self._joined = self._first_joined = 0

    @property
    def notes(self) -> tuple[str, ...]:
        """See `TableReader`."""
        short, found = self.name.rpartition("/")[2], list(super().notes)
        if self.repeated_headers:
            found.append(
                f"{short}: rows that repeat the header: {self.repeated_headers:,}, skipped."
            )
        if self._joined:
            found.append(
                f"{short}: rows with more than {len(self.columns)} columns: {self._joined:,}, the "
                f"first in line {self._first_joined}; the rest is joined to the text, and commas "
                "of texts without quotes are lost: put a text with commas in quotes."
            )
        elif not self.has_header and self.least_columns < self.filled:
            found.append(
                f"{short}: the rows have {self.least_columns} to {self.filled} columns; commas of "
                "texts without quotes are lost, and so is the text in columns that are not read: "
                "put a text with commas in quotes."
            )
        if self.blank_rows:
            found.append(f"{short}: rows of empty columns: {self.blank_rows:,}, skipped.")
        return tuple(found)

    def numbered(self) -> Iterator[Numbered]:
        """Yields the rows; see `TableReader`."""
        import pyarrow as pa

        self._begin()
        first: list[str] | None = None
        for block in self._blocks():
            lines, rows = [], []
            for line, cells in block:
                if cells and cells[0] and cells[0][0] in dialects.INVISIBLE:
                    cells[0] = cells[0].strip(dialects.INVISIBLE)
                if self._dialect.escape:
                    cells = ["" if cell == r"\N" else cell for cell in cells]  # MySQL's NULL.
                if not any(map(str.strip, cells)):
                    self.blank_rows += len(cells) > 1
                elif first is None:
                    first = _stripped(cells)
                    if first != self.header:
                        self._add(line, cells, lines, rows)
                # Concatenated files repeat it. Comparing all cells of every row would be slow.
                elif not (cells[0].strip() == first[0] and _stripped(cells) == first):
                    self._add(line, cells, lines, rows)
                elif self.header is not None:
                    self.repeated_headers += 1
                else:
                    self.repeated_first_rows += 1
                    self._add(line, cells, lines, rows)
            if rows:
                columns = list(zip(*rows, strict=True))
                self._check_characters(lines, columns)
                arrays = [pa.array(column, pa.string()) for column in columns]
                yield Numbered(lines, pa.RecordBatch.from_arrays(arrays, list(self.columns)))

    def check_quotes(
        self, numbered: Numbered, label: str, classes: Container[str], options: Options
    ) -> None:
        """Raises UserError if a cell holds rows with one of the classes in the column `label`."""
        from pyarrow import compute

        place, width = self.columns.index(label), len(self.columns)

        def is_row(line: str) -> bool:
            cells = line.split(self._dialect.separator)
            fits = len(cells) == width or (len(cells) > width and self.joins_rest)
            # In a sentence, a space follows a comma.
            return fits and cells[place].strip() in classes and cells[max(place, 1)][:1] != " "

        for column in numbered.batch.columns:
            for row in compute.indices_nonzero(compute.match_substring(column, "\n")).to_pylist():
                lines = column[row].as_py().splitlines()
                if len(found := list(filter(is_row, lines))) >= max(1, len(lines) - 1):
                    checks.refuse(
                        options,
                        checks.SEPARATOR,
                        f"{self.name}, line {numbered.lines[row]}: a quote is open over several "
                        f"lines, and {shorten(found[0])!r} within it looks like another row: close "
                        "the quote or, if it belongs to the text, put the text in quotes and write "
                        "its own quotes twice",
                    )

    def _blocks(self) -> Iterator[list[tuple[int, list[str]]]]:
        """Yields blocks of rows with their lines."""
        line = 1
        try:
            with (
                self._opened() as file,
                io.TextIOWrapper(file, self._encoding, newline="") as text,
            ):
                if self._dialect.separator_line:
                    text.readline()
                    line = 2
                reader = self._dialect.reader(text)
                before = line - 1
                while True:
                    block: list[tuple[int, list[str]]] = []
                    size = 0
                    for cells in reader:
                        block.append((line, cells))
                        line = before + reader.line_num + 1
                        size += sum(map(len, cells))
                        if len(block) == ROWS or size >= CHARACTERS:
                            break
                    if not block:
                        return
                    yield block
        except csv.Error as error:
            escaped = " or with a backslash before it" if self._dialect.escape else ""
            raise DataError(
                f"{self.name}, line {line}: the row is not valid CSV ({error}): correct its "
                f"quotes (within quotes, a quote is written twice{escaped})."
            ) from error
        except UnicodeDecodeError as error:
            raise not_of_encoding(self.name, line, self._encoding) from error
        except DAMAGE as error:
            raise damaged(self.name, error) from error

    def _add(self, line: int, cells: list[str], lines: list[int], rows: list[list[str]]) -> None:
        lines.append(line)
        rows.append(self._fitted(line, cells))

    def _fitted(self, line: int, cells: list[str]) -> list[str]:
        """Fits the cells of a row to the table's columns. Raises UserError if they do not fit."""
        width, count = len(self.columns), len(cells)
        if count == width == self.filled == self.least_columns:
            return cells  # The case of almost all rows.
        filled = count if cells[-1].strip() else _filled(_stripped(cells))
        self.least_columns = min(self.least_columns, count)
        self.most_columns = max(self.most_columns, count)
        self.filled = max(self.filled, filled)
        if count == width:
            return cells
        if count == 1:
            raise DataError(
                f"{self.name}, line {line}: the row has one column where the table has {width}: "
                "write a class and a text, separated by a comma, or delete the row."
            )
        if filled > width and not self.joins_rest:
            raise DataError(
                f"{self.name}, line {line}: the row has {filled} columns where the table has "
                f"{width}: put a text with commas in quotes."
            )
        if filled > width:
            self._joined, self._first_joined = self._joined + 1, self._first_joined or line
            rest = " ".join(filter(None, map(str.strip, cells[width - 1 :])))
            return [*cells[: width - 1], rest]
        return [*cells[:width], *[""] * (width - count)]

    def _check_characters(self, lines: Sequence[int], columns: Sequence[Sequence[str]]) -> None:
        for column in columns:
            if "\0" in "".join(column):
                line = next(n for n, c in zip(lines, column, strict=True) if "\0" in c)
                raise DataError(f"{self.name}, line {line}: the row holds a NUL byte: delete it.")


def _stripped(cells: Sequence[str]) -> list[str]:
    return [cell.strip() for cell in cells]


def _filled(cells: Sequence[str]) -> int:
    return max((place for place, cell in enumerate(cells, start=1) if cell), default=0)
