"""Reads JSON lines: one object per line.

This uses the standard library's json. pyarrow's streaming reader fixes the types in the first
block, so it fails if a class is sometimes 1 and sometimes "1", if a field appears later, if the
first texts look like dates, or if a line is longer than a block; and its errors do not name lines.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import IO, Any

from t2aux.data.table import DAMAGE, damaged
from t2aux.data.tables.base import CHARACTERS, ROWS, Numbered, TableReader
from t2aux.errors import DataError, UserError, listing, shorten

_BYTE_ORDER_MARK = "\ufeff"


class JsonLinesReader(TableReader):
    """A file of JSON objects, one per line. Values become strings; null stays null.

    In the columns of the class and of the text, a list of one value is that value, and empty lists
    and objects are null. Other lists and objects there are errors, since they are not texts.
    """

    def __init__(
        self,
        name: str,
        opened: Callable[[], IO[bytes]],
        encoding: str,
        start: str,
        notes: Sequence[str],
    ) -> None:
        """Finds the columns: the fields of the objects at the beginning of the file.

        Args:
            name: The file's name for messages.
            opened: Opens the file.
            encoding: The file's encoding.
            start: The beginning of the file, as whole lines.
            notes: The notes so far.

        Raises:
            UserError: A line of the beginning is not a JSON object.
        """
        self._opened = opened
        self._encoding = encoding
        self._later: dict[str, None] = {}
        columns: dict[str, None] = {}
        for number, line in enumerate(start.split("\n"), start=1):
            columns.update(dict.fromkeys(_object(name, number, line) or {}))
        if not columns:
            raise DataError(f"{name} has no rows: write a JSON object on each line.")
        super().__init__(name, list(columns), notes=notes)

    @property
    def notes(self) -> tuple[str, ...]:
        """See `TableReader`."""
        if not self._later:
            return super().notes
        later = listing(map(repr, self._later))
        return (
            *super().notes,
            f"{self.name.rpartition('/')[2]}: fields that the first lines lack are not read: "
            f"{later}.",
        )

    def numbered(self) -> Iterator[Numbered]:
        """Yields the rows; see `TableReader`."""
        import pyarrow as pa

        lines: list[int] = []
        rows: list[Mapping[str, Any]] = []
        size = 0

        def take() -> Numbered:
            arrays = [
                pa.array(
                    [self._text(*cell, c) for cell in zip(lines, rows, strict=True)], pa.string()
                )
                for c in self.columns
            ]
            made = Numbered(list(lines), pa.RecordBatch.from_arrays(arrays, list(self.columns)))
            lines.clear()
            rows.clear()
            return made

        for number, line in self._lines():
            found = _object(self.name, number, line)
            if found is None:
                continue
            lines.append(number)
            rows.append(found)
            size += len(line)
            for field in found.keys() - set(self.columns):
                self._later.setdefault(field)
            if len(rows) == ROWS or size >= CHARACTERS:
                yield take()
                size = 0
        if rows:
            yield take()

    def _text(self, line: int, row: Mapping[str, Any], column: str) -> str | None:
        value = row.get(column)
        if column in self.chosen and isinstance(value, (list, dict)):
            one = value[0] if isinstance(value, list) and len(value) == 1 else value or None
            if isinstance(one, (list, dict)):
                shown = shorten(json.dumps(value, ensure_ascii=False), 40)
                raise DataError(
                    f"{self.name}, line {line}: the column {column!r} holds {shown}, which is "
                    "neither a text nor a number: convert it, or choose another column "
                    "(--label_column, --text_column)."
                )
            value = one
        if value is None or isinstance(value, str):
            return value
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        return json.dumps(value, ensure_ascii=False)

    def _lines(self) -> Iterator[tuple[int, str]]:
        number = 0
        try:
            with (
                self._opened() as file,
                io.TextIOWrapper(file, self._encoding, newline="\n") as text,
            ):
                for number, line in enumerate(text, start=1):
                    yield number, line
        except UnicodeDecodeError as error:
            raise not_of_encoding(self.name, number + 1, self._encoding) from error
        except DAMAGE as error:
            raise damaged(self.name, error) from error


def not_of_encoding(name: str, line: int, encoding: str) -> UserError:
    """The error for a file whose bytes are invalid in its encoding."""
    called = "UTF-8" if encoding == "utf-8-sig" else encoding
    return DataError(
        f"{name} is not {called} text near line {line}: save it as UTF-8, or say what it is, such "
        "as --encoding=cp1252."
    )


def _object(name: str, number: int, line: str) -> dict[str, Any] | None:
    """Parses a line; None if it is blank. Raises UserError if it is not a JSON object."""
    line = line.strip().lstrip(_BYTE_ORDER_MARK)
    if not line:
        return None
    try:
        found = json.loads(line)
        # Half of a surrogate pair can't be encoded in UTF-8.
        if "\\ud" in line or "\\uD" in line:
            json.dumps(found, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError) as error:
        reason = getattr(error, "msg", None) or getattr(error, "reason", None) or error
        raise DataError(
            f"{name}, line {number}: the line is not valid JSON ({reason}): write an object on "
            "each line."
        ) from error
    if not isinstance(found, dict):
        raise DataError(
            f"{name}, line {number}: the line is not a JSON object, but {shorten(line, 40)}: write "
            'an object on each line, such as {"label": "good", "text": "..."}.'
        )
    return found
