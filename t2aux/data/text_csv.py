"""`csv`: a user's own texts by class, as train.csv and test.csv, DBpedia's layout among them."""

from __future__ import annotations

import csv
import io
import pathlib
import sys
import threading
from typing import NamedTuple

from t2aux.data.characters import text_info, text_table
from t2aux.data.table import (
    DAMAGE,
    Options,
    Table,
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


class _Rows(NamedTuple):
    path: pathlib.Path
    lines: list[int]  # Where each row begins, counted from 1.
    classes: list[str]
    texts: list[str]


def read(split: str, options: Options) -> tuple[DatasetInfo, Table]:
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
    rows = _read_rows(_find(folder, split))
    train: _Rows | None = rows if split == "train" else None

    def training_rows() -> _Rows:
        nonlocal train
        train = train or _read_rows(_find(folder, "train"))
        return train

    names = read_class_names(folder / "classes.txt")
    if names is not None:
        classes = names
    elif options.info is not None:
        classes = options.info.classes
    else:
        classes = _sorted_names(training_rows().classes)
    # Where the names themselves are numbers, a number can only be meant as a name.
    numbered = names is not None and not any(_is_number(name) for name in names)
    labels = _labels(rows, classes, numbered=numbered)
    info = text_info("csv", classes, options, lambda: training_rows().texts)
    chosen = subset(len(labels), options.max_examples)
    texts = [rows.texts[index] for index in chosen]
    return info, text_table(texts, [labels[index] for index in chosen], info)


def _find(folder: pathlib.Path, split: str) -> pathlib.Path:
    return find_file(folder, [f"{split}.csv", f"{split}.csv.gz"], "csv")


def _read_rows(path: pathlib.Path) -> _Rows:
    rows = _Rows(path, [], [], [])
    # The limit for the size of a field (128 KiB) is a global of the csv module.
    with _field_limit_lock:
        limit = csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
        try:
            _parse(path, rows)
        finally:
            csv.field_size_limit(limit)
    if not rows.lines:
        raise UserError(f"{path} has no rows: write a class and a text on each line.")
    return rows


def _parse(path: pathlib.Path, rows: _Rows) -> None:
    line = 1
    try:
        with (
            open_compressed(path) as file,
            io.TextIOWrapper(file, encoding="utf-8-sig", newline="") as text_file,
        ):
            reader = csv.reader(text_file, strict=True)
            for cells in reader:
                if cells and not (line == 1 and cells[0].strip().lower() in _HEADERS):
                    _add_row(rows, line, cells)
                line = reader.line_num + 1
    except csv.Error as error:
        raise UserError(
            f"{path}, line {line}: the row is not valid CSV ({error}): mend its quotes."
        ) from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text near line {line}: save it as UTF-8.") from error
    except DAMAGE as error:
        raise damaged(path, error) from error


def _add_row(rows: _Rows, line: int, cells: list[str]) -> None:
    if len(cells) < 2:
        raise UserError(
            f"{rows.path}, line {line}: the row has one column: write a class and a text, "
            "separated by a comma."
        )
    text = " ".join(filter(None, (cell.strip() for cell in cells[1:])))
    if not text:
        raise UserError(f"{rows.path}, line {line}: the text is empty: mend or delete the row.")
    rows.lines.append(line)
    rows.classes.append(cells[0].strip())
    rows.texts.append(text)


def _sorted_names(names: list[str]) -> tuple[str, ...]:
    """Returns the different names, sorted as numbers if all of them are."""
    different = sorted(set(names))
    if all(_is_number(name) for name in different):
        different.sort(key=int)
    return tuple(different)


def _labels(rows: _Rows, classes: tuple[str, ...], *, numbered: bool) -> list[int]:
    """Returns the label of each row; by number (from 1) or name, or by name alone."""
    label_of = {name: label for label, name in enumerate(classes)}
    if numbered:
        label_of |= {str(label + 1): label for label in range(len(classes))}
    labels = []
    for line, name in zip(rows.lines, rows.classes, strict=True):
        key = str(int(name)) if numbered and _is_number(name) else name
        if key not in label_of:
            known = f"one of the {len(classes)} classes"
            if numbered:
                known = f"a number from 1 to {len(classes)}, or a name in classes.txt"
            raise UserError(
                f"{rows.path}, line {line}: the class is {name!r}, which is not {known}: mend the "
                "row."
            )
        labels.append(label_of[key])
    return labels


def _is_number(name: str) -> bool:
    return name.isascii() and name.isdigit()
