"""The rows of a CSV file of classes and texts, and what its first rows tell of its layout."""

from __future__ import annotations

import collections
import csv
import io
import pathlib
import re
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from t2aux.data import checks
from t2aux.data.table import DAMAGE, Options, class_key, damaged, open_compressed
from t2aux.errors import UserError, listing
from t2aux_ondevice import kinds, limits

# Headers of the first column that need no other evidence.
_HEADERS = frozenset({"class", "label", "category"})
# Names that data sets give the columns, lower case, with spaces for "_" and "-".
_CLASS_COLUMNS = _HEADERS.union(
    ("classes", "labels", "categories", "target", "targets", "sentiment", "polarity", "topic"),
    (
        "genre",
        "intent",
        "emotion",
        "rating",
        "stars",
        "y",
        "tag",
        "classindex",
        "airline sentiment",
    ),
    (f"{name} {end}" for name in _HEADERS for end in ("index", "id", "name", "idx", "text")),
)
_TEXT_COLUMNS = frozenset().union(
    ("text", "texts", "title", "content", "contents", "sentence", "sentences", "description"),
    ("review", "reviews", "message", "messages", "comment", "comments", "document", "documents"),
    ("tweet", "tweets", "headline", "abstract", "question", "utterance", "summary", "article"),
    ("body", "news", "email", "sms", "post", "x", "input", "inputs", "query", "review text"),
    ("comment text", "full text", "tweet text", "short description"),
)
_INDEX_COLUMNS = frozenset({"", "id", "ids", "index", "idx", "row", "no", "#", "uid", "unnamed: 0"})
_SAMPLE_BYTES = 1 << 16
# The first field of a row, in quotes or not, and what ends it.
_FIRST_FIELD = re.compile(r' *(?:"(?:[^"]|"")*" *|[^,;|\t"][^,;|\t]*|)([,;|\t])')
_SEPARATORS = {"\t": "tabs", ";": "semicolons", "|": "vertical bars (|)"}
_MOST = 0.9  # Of the first rows: a class's own name may hold another separator.
_SIGNATURES = (
    (b"\xff\xfe\0\0", "is UTF-32 text: save it as UTF-8"),
    (b"\0\0\xfe\xff", "is UTF-32 text: save it as UTF-8"),
    (b"\xff\xfe", "is UTF-16 text: save it as UTF-8"),
    (b"\xfe\xff", "is UTF-16 text: save it as UTF-8"),
    (b"\x1f\x8b", "is compressed with gzip: give its name the ending .csv.gz"),
    (b"PK\x03\x04", "is a zip archive or a workbook: save the table as CSV in UTF-8"),
    (b"\xd0\xcf\x11\xe0", "is a workbook: save the table as CSV in UTF-8"),
    (b"PAR1", "is a Parquet file: save the table as CSV in UTF-8"),
)
# Single and typographic quotes, which are not CSV's.
_OTHER_QUOTES = re.compile(r"\s*(?:'[^',]+'|‘[^’,]+’|“[^”,]+”|„[^“”,]+[“”]|«[^»,]+»|`[^`,]+`)\s*,")
_FASTTEXT = "__label__"
_NUMBERS = re.compile(r"[-+\d.eE,; ]+")
_SEPARATOR_LINE = ["sep=", ""]  # What Excel needs as a first line to open a file with commas.
# A byte order mark within concatenated files, and other marks that nobody sees.
_INVISIBLE = "\ufeff\u200b\u200e\u200f\u2060"
_field_limit_lock = threading.Lock()


class Row(NamedTuple):
    """A row.

    Attributes:
        line: Where it begins, counted from 1.
        name: The class, as the first column has it.
        text: The other columns, joined by a space.
        columns: The number of columns, and that of the last one that is not empty.
    """

    line: int
    name: str
    text: str
    columns: tuple[int, int]


class Layout:
    """What was found of a file's layout while its rows were read.

    Attributes:
        header: The columns of the first row, if it is a header.
        blank_rows: The number of rows of empty columns.
        repeated_headers: The number of later rows that are the header again.
        repeated_first_rows: The number of later rows that are the same as a first row that was
            taken for an example.
        separator_line: Whether Excel's line `sep=,` comes first.
    """

    def __init__(self, path: pathlib.Path) -> None:
        """Nothing was read yet.

        Args:
            path: The file.
        """
        self._path = path
        self._columns: set[int] = set()
        self._filled = 0
        self._is_numbers = True
        self.header: list[str] | None = None
        self.blank_rows = 0
        self.repeated_headers = 0
        self.repeated_first_rows = 0
        self.separator_line = False

    def add(self, row: Row) -> None:
        """Takes in a row."""
        columns, filled = row.columns
        self._columns.add(columns)
        self._filled = max(self._filled, filled)
        self._is_numbers = self._is_numbers and bool(_NUMBERS.fullmatch(row.text))

    def notes(self) -> tuple[str, ...]:
        """Returns what was skipped or guessed, a sentence each."""
        name, notes = self._path.name, []
        if self.separator_line:
            notes.append(f"{name}: the first line, 'sep=,', was skipped.")
        if self.header is not None:
            header = listing(map(repr, self.header))
            notes.append(f"{name}: the first row is a header and was skipped ({header}).")
        if self.repeated_headers:
            notes.append(
                f"{name}: rows that repeat the header: {self.repeated_headers:,}, skipped."
            )
        if self.blank_rows:
            notes.append(f"{name}: rows of empty columns: {self.blank_rows:,}, skipped.")
        if self._filled > 2:
            least, most = min(self._columns), max(self._columns)
            varying = f"{least} to {most}" if least != most else f"{most}"
            lost = "; commas of texts without quotes are lost" if least != most else ""
            notes.append(
                f"{name}: the rows have {varying} columns, and all but the first are joined by a "
                f"space to one text{lost}: put a text that has commas of its own in quotes."
            )
        if self._is_numbers and self._filled:
            notes.append(
                f"{name}: the texts hold nothing but numbers, and are read as characters: "
                "sequences of numbers belong in .npz files (--gin_file=datasets/npz)."
            )
        others = [cell for cell in (self.header or [])[1:] if not _is_text_column(cell)]
        if others:
            notes.append(
                f"{name}: the texts hold what these columns hold, too: "
                f"{listing(map(repr, others))}; delete those that are not texts."
            )
        return tuple(notes)


def check_start(path: pathlib.Path, options: Options) -> None:
    """Checks that the first 64 KiB of a file look like rows separated by commas.

    Raises:
        UserError: The file is of another format or encoding, has another separator (unless
            `options.allow` has "separator"), or can't be read.
    """
    try:
        with open_compressed(path) as file:
            start = limits.read_most(file, _SAMPLE_BYTES)
    except DAMAGE as error:
        raise damaged(path, error) from error
    for signature, what in _SIGNATURES:
        if start.startswith(signature):
            raise UserError(f"{path} {what}.")
    if start and (what := kinds.placeholder(start)) is not None:
        raise UserError(f"{path} {what}.")
    if b"\0" in start:
        raise UserError(f"{path} holds NUL bytes, so it is not UTF-8 text: save it as UTF-8.")
    rows = _sample_rows(start.decode("utf-8-sig", "replace"))
    if len(rows) > 1 and len(start) == _SAMPLE_BYTES:
        rows.pop()  # Its end is missing.
    if start.lstrip().startswith((b'{"', b"[{")):
        raise UserError(f"{path} is JSON: save the table as CSV in UTF-8.")
    if len(rows) > 1 and all(row.startswith(_FASTTEXT) for row in rows):
        checks.refuse(
            options,
            checks.SEPARATOR,
            f"{path} is in fastText's format: save the file with the class and a comma before each "
            f"text, without {_FASTTEXT}",
        )
    _check_quotes(path, rows, options)
    ends = [match[1] for match in map(_FIRST_FIELD.match, rows) if match]
    others = [end for end in ends if end != ","]
    if others and len(others) >= _MOST * len(rows):
        separator = collections.Counter(others).most_common(1)[0][0]
        checks.refuse(
            options,
            checks.SEPARATOR,
            f"{path}: the columns seem to be separated by {_SEPARATORS[separator]}: save the file "
            "with commas as separators and the texts in quotes (pandas.read_csv(..., "
            f"sep={separator!r}) reads it, and DataFrame.to_csv(..., index=False) saves it so)",
        )


def rows(
    path: pathlib.Path,
    options: Options,
    known: frozenset[str] = frozenset(),
    layout: Layout | None = None,
) -> Iterator[Row]:
    """Yields the rows of a file.

    A first row that is a header is skipped, and so are later rows that repeat it and rows of empty
    columns.

    Args:
        path: The file, UTF-8, possibly compressed with gzip.
        options: `allow` is read.
        known: Names of classes that are right even if they look like missing labels.
        layout: Takes in what is found.

    Raises:
        UserError: A row is not CSV, lacks a column, has an empty text or a missing class, or the
            header names the class in another column than the first. The message names file and
            line.
    """
    line, header, first = 1, None, None
    layout = Layout(path) if layout is None else layout
    try:
        with (
            open_compressed(path) as file,
            io.TextIOWrapper(file, encoding="utf-8-sig", newline="") as text_file,
        ):
            reader = csv.reader(text_file, strict=True, skipinitialspace=True)
            while (found := _next_cells(reader)) is not None:
                cells = [cell.strip() for cell in found]
                if cells:
                    cells[0] = cells[0].strip(_INVISIBLE).strip()
                if line == 1 and cells == _SEPARATOR_LINE:
                    layout.separator_line = True
                elif first is None and any(cells) and _is_header(cells, path, options, known):
                    first = header = layout.header = cells
                elif header is not None and cells == header:
                    layout.repeated_headers += 1
                elif any(cells):
                    row = _row(path, line, cells, options, known)
                    layout.repeated_first_rows += cells == first
                    first = cells if first is None else first
                    layout.add(row)
                    yield row
                elif len(cells) > 1:
                    layout.blank_rows += 1
                line = reader.line_num + 1
    except csv.Error as error:
        raise UserError(
            f"{path}, line {line}: the row is not valid CSV ({error}): correct its "
            "quotes (within quotes, a quote is written twice)."
        ) from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text near line {line}: save it as UTF-8.") from error
    except DAMAGE as error:
        raise damaged(path, error) from error


def _check_quotes(path: pathlib.Path, rows: Sequence[str], options: Options) -> None:
    """Raises UserError for quotes that are not read as such.

    They are other characters, or white space other than spaces stands between them and the comma.
    """
    if len(rows) > 1 and sum(map(bool, map(_OTHER_QUOTES.match, rows))) >= _MOST * len(rows):
        checks.refuse(
            options,
            checks.SEPARATOR,
            f"{path}: the fields are in other quotes than CSV's, which are \": replace them",
        )
    matches = [match for match in map(_FIRST_FIELD.match, rows) if match]
    odd = [m for m in matches if re.match(r'[^\S ]\s*"', m.string[m.end() :])]
    if odd and len(odd) >= _MOST * len(rows):
        checks.refuse(
            options,
            checks.SEPARATOR,
            f"{path}: there is white space between the commas and the quotes that follow, which "
            "are then not read as quotes: delete it",
        )


def _sample_rows(text: str) -> list[str]:
    """Returns the rows of the beginning of a file that are not blank: a quote may hold lines."""
    found, row = [], ""
    for line in text.splitlines(keepends=True):
        row += line
        if row.count('"') % 2 == 0:
            found.append(row)
            row = ""
    return [row for row in (*found, row) if row.strip()]


def _next_cells(reader: Iterator[list[str]]) -> list[str] | None:
    # The limit for the size of a field (128 KiB) is a global of the csv module.
    with _field_limit_lock:
        limit = csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
        try:
            return next(reader, None)
        finally:
            csv.field_size_limit(limit)


def _is_header(
    cells: Sequence[str], path: pathlib.Path, options: Options, known: frozenset[str]
) -> bool:
    """Whether the first row is certainly a header.

    Raises:
        UserError: It is, and names the class in another column than the first.
    """
    if checks.FIRST_ROW in options.allow or len(cells) < 2:
        return False
    names = [_normalised(cell) for cell in cells]
    if names[0] in _HEADERS:
        return True
    if class_key(cells[0]) in known:
        return False
    if names[0] in _CLASS_COLUMNS and names[1] in _TEXT_COLUMNS:
        return True
    is_other = names[0] in _TEXT_COLUMNS | _INDEX_COLUMNS or names[0].endswith(" id")
    places = [place for place, name in enumerate(names) if name in _CLASS_COLUMNS]
    if is_other and places:
        place = places[0]
        checks.refuse(
            options,
            checks.FIRST_ROW,
            f"{path}: its header names the class in column {place + 1} ({cells[place]!r}), and the "
            f"class must be in the first, which is {cells[0]!r}: put that column first (with "
            "pandas: df[[CLASS, TEXT]].to_csv(FILE, index=False))",
        )
    return False


def _normalised(name: str) -> str:
    """Returns a column's name as the lists above have it."""
    return " ".join(re.split(r"[\s_-]+", name.lower())).strip()


def _is_text_column(name: str) -> bool:
    name = _normalised(name)
    return name not in _CLASS_COLUMNS | _INDEX_COLUMNS and not name.endswith(" id")


def _row(
    path: pathlib.Path, line: int, cells: list[str], options: Options, known: frozenset[str]
) -> Row:
    if any("\0" in cell for cell in cells):
        raise UserError(f"{path}, line {line}: the row holds a NUL byte: delete it.")
    if len(cells) < 2:
        raise UserError(
            f"{path}, line {line}: the row has one column: write a class and a text, separated by "
            "a comma."
        )
    name, text = class_key(cells[0]), " ".join(filter(None, cells[1:]))
    if checks.is_missing(name) and name not in known:
        what = f"{name!r}, a missing value" if name else "empty"
        if line == 1 and not name:
            what += " (is it a header, with the column of pandas' index first?)"
        checks.refuse(
            options,
            checks.MISSING_LABELS,
            f"{path}, line {line}: the class is {what}: correct or delete the row",
        )
    if not text:
        raise UserError(f"{path}, line {line}: the text is empty: correct or delete the row.")
    filled = max(index for index, cell in enumerate(cells) if cell) + 1
    return Row(line, name, text, (len(cells), filled))
