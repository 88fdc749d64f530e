"""Detects the separator and the quotes of a text table, and whether it has a header.

The standard library's csv.Sniffer mistakes letters for separators. This module checks which of four
separators gives rows with the same number of columns.
"""

from __future__ import annotations

import collections
import csv
import io
import re
from collections.abc import Sequence
from typing import NamedTuple

from t2aux.data import checks
from t2aux.data.table import Options, class_key
from t2aux.data.tables import columns
from t2aux.errors import SettingError

SEPARATORS = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "vertical bars (|)"}
_SUFFIXES = {".tsv": "\t", ".tab": "\t", ".psv": "|"}
_ENOUGH = 0.9  # The required fraction of the first rows.
# The first field of a row, with or without quotes, and the separator after it.
_FIRST_FIELD = re.compile(r' *(?:"(?:[^"]|"")*" *|[^,;|\t"][^,;|\t]*|)([,;|\t])')
_QUOTED = re.compile(r'"(?:[^"]|"")*"')
# Single and typographic quotes. Only the single ones can be read.
_SINGLE_QUOTES = re.compile(r"\s*'(?:[^']|'')*'\s*[,;|\t]")
_OTHER_QUOTES = re.compile(r"\s*(?:‘[^’,]+’|“[^”,]+”|„[^“”,]+[“”]|«[^»,]+»|`[^`,]+`)\s*[,;|\t]")
# A row all of whose commas are followed by a space.
_IN_SENTENCES = re.compile(r"(?:[^,]|, )*")
_FASTTEXT = "__label__"
# The first line that makes Excel open a file with a separator other than its default.
_SEPARATOR_LINE = re.compile(r'\ufeff?"?sep=(.)"?\r?\n?', re.IGNORECASE)
# A byte order mark within concatenated files, and other invisible characters.
INVISIBLE = "\ufeff\u200b\u200e\u200f\u2060"


class Dialect(NamedTuple):
    """The format of a text table.

    Attributes:
        separator: One character.
        quote: One character, which is doubled within quotes; None if quotes are part of the texts.
        escape: The character before a quote within quotes, if it is not doubled.
        separator_line: Whether the first line is Excel's `sep=;`.
        notes: What was guessed, one sentence each.
    """

    separator: str
    quote: str | None = '"'
    escape: str | None = None
    separator_line: bool = False
    notes: tuple[str, ...] = ()

    def reader(self, lines: io.TextIOBase) -> csv.reader:
        """Reads rows, strictly."""
        csv.field_size_limit(2**31 - 1)  # The default is 128 KiB.
        if self.escape:
            # csv deletes every backslash, such as those of `C:\new` and of `\N`, MySQL's NULL.
            escaped = re.compile(rf"\\([\\\r\n{re.escape(self.quote + self.separator)}]?)")
            lines = (escaped.sub(lambda m: m[0] if m[1] else r"\\", line) for line in lines)
        return csv.reader(
            lines,
            strict=True,
            skipinitialspace=True,
            delimiter=self.separator,
            quotechar=self.quote,
            quoting=csv.QUOTE_NONE if self.quote is None else csv.QUOTE_MINIMAL,
            escapechar=self.escape,
        )


def sample_rows(text: str, *, whole: bool) -> list[str]:
    """Returns the rows at the beginning of a file, without blank ones; quotes may span lines.

    Args:
        text: The beginning of the file.
        whole: Whether this is the whole file; otherwise the last row is incomplete.
    """
    found, row = [], ""
    for line in text.splitlines(keepends=True):
        row += line
        if row.count('"') % 2 == 0:
            found.append(row)
            row = ""
    rows = [row for row in (*found, row) if row.strip()]
    return rows if whole or len(rows) < 2 else rows[:-1]


def detect(
    path: str, short: str, rows: Sequence[str], separator: str | None, options: Options
) -> Dialect:
    """Detects the dialect of a table from its first rows.

    Args:
        path: The file's name, for errors.
        short: The file's name, for notes.
        rows: See `sample_rows`.
        separator: The separator given by the user, or None.
        options: `allow` is used.

    Raises:
        UserError: The rows are in another format, or their quotes can't be read; or two separators
            are possible (unless `options.allow` has "separator", which means commas).
    """
    if separator is not None and (len(separator) != 1 or separator in '"\r\n'):
        raise SettingError(
            f"The separator is {separator!r}: give one character, such as ';' or '\\t' for tabs."
        )
    line = _SEPARATOR_LINE.fullmatch(rows[0]) if rows else None
    if line is not None:
        rows = rows[1:]
        separator = separator or line[1]
    if len(rows) > 1 and all(row.startswith(_FASTTEXT) for row in rows):
        checks.refuse(
            options,
            checks.SEPARATOR,
            f"{path} is in fastText's format: save the file with the class and a comma before each "
            f"text, without {_FASTTEXT}",
        )
    notes = []
    quote = _quote(path, rows, options)
    if quote != '"':
        notes.append(f"{short}: the fields are in single quotes.")
    elif _has_loose_quotes(rows) and (separator or _separator(path, rows, None, options)) == "\t":
        quote, separator = None, "\t"
        notes.append(f"{short}: the columns are separated by tabs; quotes belong to the texts.")
    if separator is None:
        separator = _separator(path, rows, quote, options)
        if separator != ",":
            notes.append(f"{short}: the columns are separated by {SEPARATORS[separator]}.")
    dialect = Dialect(separator, quote)
    if '\\"' in "".join(rows) and _widths(rows, dialect) is None:
        escaped = dialect._replace(escape="\\")
        if _widths(rows, escaped) is not None:
            dialect = escaped
            notes.append(f'{short}: quotes within quotes are written as \\".')
    return dialect._replace(notes=tuple(notes), separator_line=line is not None)


def cells_of(rows: Sequence[str], dialect: Dialect) -> list[list[str]]:
    """Returns the cells of the first rows without surrounding white space, up to an error."""
    found = []
    lines = io.StringIO("".join(rows), newline="")
    if dialect.separator_line:
        next(lines, None)
    try:
        for row in dialect.reader(lines):
            cells = [cell.strip() for cell in row]
            if cells:
                cells[0] = cells[0].strip(INVISIBLE).strip()
            if any(cells):
                found.append(cells)
    except csv.Error:
        pass  # Reading the table will fail there again, with the line in the message.
    return found


def is_header(
    cells: Sequence[Sequence[str]],
    wanted: Sequence[str | int],
    usual: Sequence[str],
    known: frozenset[str],
    options: Options,
) -> bool:
    """Whether the first row is certainly a header.

    Args:
        cells: The cells of the first rows; see `cells_of`.
        wanted: The columns given by the user. If these are names, there is a header. A number that
            may be a position is a name only in pandas' header 0, 1, ...
        usual: The usual names of columns.
        known: The names of classes.
        options: `allow` is used.
    """
    if checks.FIRST_ROW in options.allow or not cells:
        return False
    first = cells[0]
    if not all(map(columns.is_position, wanted)):
        return True
    numbers = first if first[0] else first[1:]
    width = 0 if numbers == [str(number) for number in range(len(numbers))] else len(first)
    names = {str(name) for name in (*wanted, *usual) if not columns.is_position(name, width)}
    if not names.isdisjoint(first):
        return True
    if columns.normalised(first[0]) in columns.HEADERS:
        return True
    if len(first) == 1:
        return columns.is_text_name(first[0]) and len(cells) > 1
    if class_key(first[0]) in known:
        return False
    if columns.is_class_name(first[0]) and columns.is_text_name(first[1]):
        return True
    names_others = [columns.is_text_name(cell) or columns.is_index_name(cell) for cell in first]
    if names_others[0] and (all(names_others) or any(map(columns.is_class_name, first))):
        return True
    return numbers_rows(cells, first=1) and not first[0] and all(first[1:])


def numbers_rows(cells: Sequence[Sequence[str]], first: int) -> bool:
    """Whether the first column has a different number in each row from `first` on."""
    numbers = [row[0] for row in cells[first:]]
    return (
        len(numbers) > 0
        and len(set(numbers)) == len(numbers)
        and all(number.isascii() and number.isdigit() for number in numbers)
    )


def _quote(path: str, rows: Sequence[str], options: Options) -> str:
    """Detects the quotes. Raises UserError if they can't be read.

    This is the case for other characters, and for white space other than spaces between a quote and
    the comma.
    """

    def are_most(found: int) -> bool:
        return len(rows) > 1 and found >= _ENOUGH * len(rows)

    if are_most(sum(map(bool, map(_SINGLE_QUOTES.match, rows)))):
        return "'"
    if are_most(sum(map(bool, map(_OTHER_QUOTES.match, rows)))):
        checks.refuse(
            options,
            checks.SEPARATOR,
            f"{path}: the fields are in other quotes than CSV's, which are \": replace them",
        )
    matches = [match for match in map(_FIRST_FIELD.match, rows) if match]
    odd = [m for m in matches if re.match(r'[^\S ]\s*"', m.string[m.end() :])]
    if odd and len(odd) >= _ENOUGH * len(rows):
        checks.refuse(
            options,
            checks.SEPARATOR,
            f"{path}: there is white space between the commas and the quotes that follow, so that "
            "these are not read as quotes: delete it",
        )
    return '"'


def _has_loose_quotes(rows: Sequence[str]) -> bool:
    """Whether each line is a row with tabs, in which quotes do not enclose whole columns."""
    text = "".join(rows)
    lines = [line.split("\t") for line in re.split(r"[\r\n]+", text) if line.strip()]
    cells = [cell.strip(" ") for line in lines for cell in line]
    if '\\"' in text or len(set(map(len, lines))) != 1 or len(lines[0]) == 1:
        return False
    if not any(cell.startswith('"') for cell in cells):
        return '"' in text
    quoted = sum(bool(_QUOTED.fullmatch(cell)) for cell in cells)
    return 2 * quoted <= len(lines) and _widths(rows, Dialect("\t")) != [len(lines[0])] * len(lines)


def _separator(path: str, rows: Sequence[str], quote: str | None, options: Options) -> str:
    regular = {}
    for separator in SEPARATORS:
        widths = _widths(rows, Dialect(separator, quote))
        if widths:
            width, count = collections.Counter(widths).most_common(1)[0]
            if width > 1 and count >= _ENOUGH * len(widths):
                regular[separator] = width
    stem = path.removesuffix(".gz").lower()
    named = next((s for suffix, s in _SUFFIXES.items() if stem.endswith(suffix)), None)
    if named in regular:
        return named
    ends = [match[1] for match in map(_FIRST_FIELD.match, rows) if match]
    others = collections.Counter(end for end in ends if end != ",")
    first = others.most_common(1)[0][0] if others else None
    ends_most = sum(others.values()) >= _ENOUGH * len(rows)
    if "," not in regular:
        if regular:
            return max(regular, key=lambda s: (s == first, regular[s]))
        return first if first is not None and ends_most else ","
    if first in regular and ends_most:
        # Each row has both commas and another separator. Tabs do not occur in typed texts, commas
        # in sentences are followed by a space, and a header is unambiguous.
        in_sentences = sum(map(bool, map(_IN_SENTENCES.fullmatch, rows)))
        if first == "\t" or in_sentences >= _ENOUGH * len(rows):
            return first
        header = cells_of(rows[:1], Dialect(first, quote))
        if header and all(columns.is_class_name(c) or columns.is_text_name(c) for c in header[0]):
            return first
        checks.refuse(
            options,
            checks.SEPARATOR,
            f"{path}: the columns may be separated by {SEPARATORS[first]} or by commas: say which "
            f'with --gin_param="csv.separator = {first!r}"',
        )
    return ","


def _widths(rows: Sequence[str], dialect: Dialect) -> list[int] | None:
    """The number of columns of each of the first rows; None if they can't be read this way."""
    try:
        lines = io.StringIO("".join(rows), newline="")
        return [len(cells) for cells in dialect.reader(lines) if cells]
    except csv.Error:
        return None
