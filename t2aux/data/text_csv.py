"""`csv`: a user's own texts by class, as train.csv and test.csv, DBpedia's layout among them.

A file is read twice, first for classes, lengths and vocabulary, then for the ids, so that its texts
need not fit in memory.
"""

from __future__ import annotations

import array
import csv
import io
import pathlib
import sys
import threading
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from t2aux.data.characters import CharacterCounts, Texts, count_tokens, needs_counts, text_info
from t2aux.data.table import (
    DAMAGE,
    Options,
    Progress,
    choose,
    damaged,
    find_file,
    open_compressed,
    read_class_names,
    require_data_dir,
    subset,
)
from t2aux.errors import UserError
from t2aux_ondevice.preprocessing import DatasetInfo

_HEADERS = frozenset({"class", "label", "category"})
_field_limit_lock = threading.Lock()


class _Row(NamedTuple):
    line: int  # Where it begins, counted from 1.
    name: str  # Of its class.
    text: str


class _Scan(NamedTuple):
    """What a first reading of a file tells.

    `lines` has the names of the classes in the order of their first rows, and these rows' lines;
    `names` has, for each row, which of them is its own.
    """

    path: pathlib.Path
    lines: dict[str, int]
    names: np.ndarray
    lengths: np.ndarray
    counts: CharacterCounts


def read(split: str, options: Options) -> tuple[DatasetInfo, Texts]:
    """Reads the texts and classes of a split.

    Each row of train.csv and test.csv (possibly with .gz; UTF-8) is a class and one or more texts,
    such as "class","title","content", which are joined by a space. A classes.txt beside them names
    the classes, one a line; a row then gives its class by number, counted from 1, or by name.
    Without it the classes are what the first column of train.csv holds. A first row that begins
    with "class", "label" or "category" is taken for a header.

    Raises:
        UserError: A file is missing or damaged; a row lacks a column, has an empty text or an
            unknown class. The message names file and line.
    """
    folder = require_data_dir("csv", options)
    scan = _scan(_find(folder, split), options, count=split == "train")
    train: _Scan | None = scan if split == "train" else None

    def training_scan() -> _Scan:
        nonlocal train
        train = train or _scan(_find(folder, "train"), options, count=True)
        return train

    names = read_class_names(folder / "classes.txt")
    if names is not None:
        classes = names
    elif options.info is not None:
        classes = options.info.classes
    else:
        classes = _sorted_names(training_scan().lines)
    # Where the names themselves are numbers, a number can only be meant as a name.
    numbered = names is not None and not any(_is_number(name) for name in names)
    labels = _labels(scan, classes, numbered=numbered)
    info = text_info("csv", classes, options, lambda: training_scan().counts)
    chosen = subset(len(labels), options.max_examples)

    def make() -> Iterator[str]:
        return (row.text for _, row in choose(_rows(scan.path), chosen))

    return info, Texts(str(scan.path), info, labels[chosen], scan.lengths[chosen], make)


def _find(folder: pathlib.Path, split: str) -> pathlib.Path:
    return find_file(folder, [f"{split}.csv", f"{split}.csv.gz"], "csv")


def _scan(path: pathlib.Path, options: Options, *, count: bool) -> _Scan:
    """Reads a file once; `count`: for the vocabulary, too, if one is to be made."""
    lines: dict[str, int] = {}
    numbers: dict[str, int] = {}
    names, lengths = array.array("i"), array.array("q")
    counts = CharacterCounts(options.max_length)
    count = count and needs_counts(options)
    progress = Progress(f"Reading {path}", None)
    for row in _rows(path):
        lines.setdefault(row.name, row.line)
        names.append(numbers.setdefault(row.name, len(numbers)))
        lengths.append(count_tokens(row.text, options))
        if count:
            counts.add(row.text)
        progress.update(len(names))
    if not names:
        raise UserError(f"{path} has no rows: write a class and a text on each line.")
    return _Scan(path, lines, np.array(names, np.int32), np.array(lengths, np.int64), counts)


def _rows(path: pathlib.Path) -> Iterator[_Row]:
    line = 1
    try:
        with (
            open_compressed(path) as file,
            io.TextIOWrapper(file, encoding="utf-8-sig", newline="") as text_file,
        ):
            reader = csv.reader(text_file, strict=True)
            while (cells := _next_cells(reader)) is not None:
                if cells and not (line == 1 and cells[0].strip().lower() in _HEADERS):
                    yield _row(path, line, cells)
                line = reader.line_num + 1
    except csv.Error as error:
        raise UserError(
            f"{path}, line {line}: the row is not valid CSV ({error}): mend its quotes."
        ) from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text near line {line}: save it as UTF-8.") from error
    except DAMAGE as error:
        raise damaged(path, error) from error


def _next_cells(reader: Iterator[list[str]]) -> list[str] | None:
    # The limit for the size of a field (128 KiB) is a global of the csv module.
    with _field_limit_lock:
        limit = csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
        try:
            return next(reader, None)
        finally:
            csv.field_size_limit(limit)


def _row(path: pathlib.Path, line: int, cells: list[str]) -> _Row:
    if len(cells) < 2:
        raise UserError(
            f"{path}, line {line}: the row has one column: write a class and a text, separated by "
            "a comma."
        )
    text = " ".join(filter(None, (cell.strip() for cell in cells[1:])))
    if not text:
        raise UserError(f"{path}, line {line}: the text is empty: mend or delete the row.")
    return _Row(line, cells[0].strip(), text)


def _sorted_names(names: dict[str, int]) -> tuple[str, ...]:
    """Returns the names, sorted as numbers if all of them are."""
    is_numbers = all(_is_number(name) for name in names)
    # Two names may be the same number.
    return tuple(sorted(sorted(names), key=int) if is_numbers else sorted(names))


def _labels(scan: _Scan, classes: tuple[str, ...], *, numbered: bool) -> np.ndarray:
    """Returns the label of each row, int32; by number (from 1) or name, or by name alone."""
    label_of = {name: label for label, name in enumerate(classes)}
    if numbered:
        label_of |= {str(label + 1): label for label in range(len(classes))}
    labels = []
    for name, line in scan.lines.items():
        key = str(int(name)) if numbered and _is_number(name) else name
        if key not in label_of:
            known = f"one of the {len(classes)} classes"
            if numbered:
                known = f"a number from 1 to {len(classes)}, or a name in classes.txt"
            raise UserError(
                f"{scan.path}, line {line}: the class is {name!r}, which is not {known}: mend the "
                "row."
            )
        labels.append(label_of[key])
    return np.array(labels, np.int32)[scan.names]


def _is_number(name: str) -> bool:
    return name.isascii() and name.isdigit()
