"""Identifies the columns of a table by their names: the class, the texts, the row number."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from t2aux.data.tables.base import TableReader
from t2aux.errors import DataError, SettingError, listing, nearest

# Headers that identify the class column without further evidence.
HEADERS = frozenset({"class", "label", "category"})
# Column names in common data sets, in lower case, with spaces for "_" and "-".
CLASS_COLUMNS = HEADERS.union(
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
    (f"{name} {end}" for name in HEADERS for end in ("index", "id", "name", "idx", "text")),
)
TEXT_COLUMNS = frozenset().union(
    ("text", "texts", "title", "content", "contents", "sentence", "sentences", "description"),
    ("review", "reviews", "message", "messages", "comment", "comments", "document", "documents"),
    ("tweet", "tweets", "headline", "abstract", "question", "utterance", "summary", "article"),
    ("body", "news", "email", "sms", "post", "x", "input", "inputs", "query", "review text"),
    ("comment text", "full text", "tweet text", "short description"),
)
_INDEX_COLUMNS = frozenset({"", "id", "ids", "index", "idx", "row", "no", "#", "uid"})
# pandas' name for a column without a name.
_UNNAMED = re.compile(r"unnamed: \d+|index level \d+")
_POSITION = re.compile(r"-?\d+")


class Chosen(NamedTuple):
    """The roles of a table's columns.

    Attributes:
        label: The column of the classes; None if there is none.
        texts: The columns of the text, to be joined.
        notes: What was guessed, one sentence each.
    """

    label: str | None
    texts: tuple[str, ...]
    notes: tuple[str, ...] = ()


def choose_columns(
    table: TableReader,
    label: str | int | None = None,
    texts: Sequence[str | int] = (),
    *,
    needs_label: bool = True,
) -> Chosen:
    """Chooses the columns of the class and of the text.

    Columns that are not given are found by their usual names. In a table without a header, the
    class comes first and then the text. The same holds if the header names a class first and no
    text columns are given: all other columns are then the text.

    Args:
        table: The table.
        label: The column of the classes: its name, or its position, counted from 0 or, backwards
            from the last column, from -1.
        texts: Likewise, the columns of the text.
        needs_label: Whether several columns with usual names of a class are an error; otherwise
            none is chosen, with a note.

    Raises:
        UserError: A column does not exist or is given twice, or a column is ambiguous. A missing
            class column is not an error.
    """
    if not table.columns:
        raise DataError(f"{table.name} has no rows: write a header and a row for each text.")
    texts = tuple(_find(table, text) for text in texts)
    given = label is not None
    notes = []
    if given:
        found = _find(table, label)
        if found in texts:
            raise SettingError(
                f"{table.name}: the column {found!r} can't be the label and a text: choose "
                f"another one ({_listed(table)})."
            )
        label = found
    elif table.has_header:
        label, *others = _usual_labels(table.columns, texts)
        if others:
            names = listing(map(repr, (label, *others)))
            message = f"{table.name}: the class may be any of {names}: give --label_column=NAME"
            if needs_label:
                raise SettingError(f"{message}.")
            label, notes = None, [f"{message} to measure the accuracy."]
    elif len(table.columns) > 1 and table.columns[0] not in texts:
        label = table.columns[0]
    if not texts:
        texts = _guess_texts(table, label, label_is_given=given)
    table.chosen = texts if label is None else (label, *texts)
    return Chosen(label, texts, (*notes, *_notes(table, label, texts)))


def same_columns(table: TableReader, wanted: Sequence[str]) -> list[str]:
    """The columns with the names of the training data's. Raises UserError if any is missing."""
    same = {normalised(c): c for c in table.columns} | {c: c for c in table.columns}
    found = [same.get(name, same.get(normalised(name))) for name in wanted]
    if None in found:
        raise SettingError(
            f"{table.name} has no column {wanted[found.index(None)]!r}: its columns are "
            f"{_listed(table)}, and the training data's are {listing(map(repr, wanted), 12)}; name "
            "the columns alike, or give --label_column and --text_column."
        )
    return found


def is_class_name(name: str) -> bool:
    """Whether a column has a usual name of the class."""
    return normalised(name) in CLASS_COLUMNS


def is_text_name(name: str) -> bool:
    """Whether a column has a usual name of a text."""
    return normalised(name) in TEXT_COLUMNS


def is_index_name(name: str) -> bool:
    """Whether a column has a usual name of the row number."""
    name = normalised(name)
    return name in _INDEX_COLUMNS or name.endswith(" id") or bool(_UNNAMED.fullmatch(name))


def is_position(name: str | int, width: int | None = None) -> bool:
    """Whether the given name of a column may be its position, in a table of `width` columns."""
    is_number = isinstance(name, int) or bool(_POSITION.fullmatch(name))
    return is_number and (width is None or -width <= int(name) < width)


def normalised(name: str) -> str:
    """Returns a column's name in the form of the lists above."""
    return " ".join(re.split(r"[\s_-]+", name.lower())).strip()


def distinct(names: Sequence[str]) -> tuple[str, ...]:
    """Makes names unique in the way of pandas: "x.1", and "Unnamed: 3"."""
    found: dict[str, None] = {}
    for position, name in enumerate(names):
        name = name or f"Unnamed: {position}"
        number, first = 1, name
        while name in found:
            name, number = f"{first}.{number}", number + 1
        found[name] = None
    return tuple(found)


def _find(table: TableReader, wanted: str | int) -> str:
    """The column with a name or position. Raises UserError if there is none."""
    columns = table.columns
    fits = is_position(wanted, len(columns))
    if str(wanted) in columns and not (fits and isinstance(wanted, int) and table.has_header):
        return str(wanted)
    if fits:
        return columns[int(wanted)]
    if is_position(wanted):
        raise SettingError(
            f"{table.name} has no column {wanted}: it has {len(columns)} ({_listed(table)}), and "
            "the first one is 0."
        )
    same = [column for column in columns if normalised(column) == normalised(wanted)]
    near = same[0] if len(same) == 1 else nearest(str(wanted), columns)
    hint = f"; did you mean {near!r}?" if near else "."
    what = f"its columns are {_listed(table)}"
    if not table.has_header:
        what = f"it has no header, and its columns are {_listed(table)}"
    raise SettingError(f"{table.name} has no column {wanted!r}: {what}{hint}")


def _listed(table: TableReader) -> str:
    return listing(map(repr, table.columns), 12)


def _usual_labels(columns: Sequence[str], texts: Sequence[str]) -> list[str | None]:
    """The column of the class by its usual name, or None, and the others that may be it."""
    free = [column for column in columns if column not in texts]
    usual = list(filter(is_class_name, free))
    certain = [column for column in usual if normalised(column) in HEADERS]
    first, *others = certain or usual or [None]
    if others or (first and normalised(first) == "category"):
        # "label_id" and "label_text" hold the same.
        start = normalised(first).split()[0]
        others = [c for c in others or usual if normalised(c).split()[0] != start]
    return [first, *others]


def _guess_texts(table: TableReader, label: str | None, *, label_is_given: bool) -> tuple[str, ...]:
    # "label.1" is a second column of the label's name, see `distinct`.
    labels = re.compile("$^" if label is None else rf"{re.escape(label)}(\.\d+)?")
    others = tuple(column for column in table.columns if not labels.fullmatch(column))
    if not table.has_header or (label == table.columns[0] and not label_is_given):
        found = others
    else:
        found = tuple(column for column in others if is_text_name(column))
        rest = tuple(c for c in others if not is_index_name(c) and c != table.index)
        if not found and len(rest) == 1:
            found = rest
    if not found:
        flag = "--text_column=NAME"
        if label is None:
            flag = f"--label_column=NAME and {flag}"
        raise SettingError(
            f"{table.name}: none of its columns has the usual name of a text: give {flag} "
            f"(its columns are {_listed(table)})."
        )
    return found


def _notes(table: TableReader, label: str | None, texts: Sequence[str]) -> list[str]:
    if not table.has_header:
        return []
    what = f"the text is {listing(map(repr, texts), between=' + ')}"
    if label is not None:
        what = f"the class is the column {label!r}, and {what}"
    unread = [c for c in table.columns if c not in (label, *texts)]
    not_read = f"; not read: {listing(map(repr, unread))}" if unread else ""
    return [f"{table.name.rpartition('/')[2]}: {what}{not_read}."]
