"""`csv`: a user's own texts by class, as train.csv and test.csv, DBpedia's layout among them.

A file is read twice, first for classes, lengths and vocabulary, then for the ids, so that its texts
need not fit in memory.
"""

from __future__ import annotations

import array
import dataclasses
import pathlib
from collections.abc import Iterator
from typing import ClassVar, NamedTuple

import gin
import numpy as np

from t2aux.data import checks, csv_rows
from t2aux.data.characters import CharacterCounts, Texts, count_tokens, needs_counts, text_info
from t2aux.data.source import TextSource
from t2aux.data.table import (
    Options,
    Progress,
    choose,
    class_key,
    find_file,
    read_class_names,
    require_data_dir,
    subset,
    unread,
)
from t2aux.errors import UserError
from t2aux_ondevice.preprocessing import DatasetInfo

_SHOWN_CLASSES = 10


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
    layout: csv_rows.Layout


@gin.configurable("csv")
@dataclasses.dataclass(frozen=True)
class Csv(TextSource):
    """Your texts: train.csv[.gz] of class,text or class,title,content, test.csv[.gz]."""

    has_other_splits: ClassVar[bool] = True

    def read(self, split: str, options: Options) -> tuple[DatasetInfo, Texts]:
        """Reads the texts and classes of a split.

        Each row of train.csv and test.csv (possibly with .gz; UTF-8) is a class and one or more
        texts, such as "class","title","content", which are joined by a space. A classes.txt beside
        them names the classes, one a line; a row then gives its class by number, counted from 1, or
        by name. Without it the classes are what the first column of train.csv holds. A first row
        that begins with "class", "label" or "category", or whose first two columns have usual names
        of a class and a text, such as "sentiment","review", is taken for a header (unless
        `options.allow` has "first_row").

        Raises:
            UserError: A file is missing or damaged, or not separated by commas; a row lacks a
                column, has an empty text, or a missing or unknown class; the class of the first row
                occurs nowhere else. The message names file and line.
        """
        folder = require_data_dir("csv", options)
        names = read_class_names(folder / "classes.txt")
        trained = options.info.classes if options.info else ()
        known = frozenset(map(class_key, (*(names or ()), *trained)))
        scan = _scan(_find(folder, split), options, known, count=split == "train")
        train: _Scan | None = scan if split == "train" else None

        def training_scan() -> _Scan:
            nonlocal train
            train = train or _scan(_find(folder, "train"), options, known, count=True)
            return train

        _check_header(scan, options)
        if names is None and options.info is None and split == "train":
            _check_first_row(scan, options)
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
            rows = csv_rows.rows(scan.path, options, known)
            return (row.text for _, row in choose(rows, chosen))

        texts = Texts(
            str(scan.path),
            info,
            labels[chosen],
            scan.lengths[chosen],
            make,
            notes=(*unread(scan.path, _names(split)), *scan.layout.notes()),
            counts=np.bincount(labels, minlength=len(classes)),
        )
        return info, texts


def _find(folder: pathlib.Path, split: str) -> pathlib.Path:
    return find_file(folder, _names(split), "csv")


def _names(split: str) -> list[str]:
    return [f"{split}.csv", f"{split}.csv.gz"]


def _scan(path: pathlib.Path, options: Options, known: frozenset[str], *, count: bool) -> _Scan:
    """Reads a file once; `count`: for the vocabulary, too, if one is to be made."""
    csv_rows.check_start(path, options)
    layout = csv_rows.Layout(path)
    lines: dict[str, int] = {}
    numbers: dict[str, int] = {}
    names, lengths = array.array("i"), array.array("q")
    counts = CharacterCounts(options.max_length)
    count = count and needs_counts(options)
    progress = Progress(f"Reading {path}", None)
    for row in csv_rows.rows(path, options, known, layout):
        lines.setdefault(row.name, row.line)
        names.append(numbers.setdefault(row.name, len(numbers)))
        lengths.append(count_tokens(row.text, options))
        if count:
            counts.add(row.text)
        progress.update(len(names))
    if not names:
        raise UserError(f"{path} has no rows: write a class and a text on each line.")
    return _Scan(
        path, lines, np.array(names, np.int32), np.array(lengths, np.int64), counts, layout
    )


def _check_header(scan: _Scan, options: Options) -> None:
    """Raises UserError if what was skipped as a header begins with the name of a class."""
    name = (scan.layout.header or [None])[0]
    if name in scan.lines:
        checks.refuse(
            options,
            checks.FIRST_ROW,
            f"{scan.path}: the first row looks like a header, but its first column, {name!r}, is "
            f"also the class of line {scan.lines[name]}: if it is a header, name that column "
            '"label"',
        )


def _check_first_row(scan: _Scan, options: Options) -> None:
    """Raises UserError if the class of the first row occurs nowhere else, as a header's does.

    In files that were joined, the header is there again.
    """
    counts = np.bincount(scan.names)
    # Where most classes have a single example, it is not the first row that is odd.
    if (
        counts[0] == 1 + scan.layout.repeated_first_rows
        and counts.max() > 1
        and not checks.nearly_one_each(counts)
    ):
        name, line = next(iter(scan.lines.items()))
        other = "no other row" + (" but its copies" if scan.layout.repeated_first_rows else "")
        checks.refuse(
            options,
            checks.FIRST_ROW,
            f"{scan.path}, line {line}: the class of the first row, {name!r}, occurs in {other}: "
            "if the row is a header, and the first column holds the classes, name that column "
            '"label", and the row is skipped',
        )


def _sorted_names(names: dict[str, int]) -> tuple[str, ...]:
    """Returns the names, sorted as numbers if all of them are."""
    is_numbers = all(_is_number(name) for name in names)
    # Two names may be the same number.
    return tuple(sorted(sorted(names), key=int) if is_numbers else sorted(names))


def _labels(scan: _Scan, classes: tuple[str, ...], *, numbered: bool) -> np.ndarray:
    """Returns the label of each row, int32; by number (from 1) or name, or by name alone."""
    # A classifier's own names may be of any form.
    label_of = {class_key(name): label for label, name in enumerate(classes)}
    if numbered:
        label_of |= {str(label + 1): label for label in range(len(classes))}
    labels = []
    for name, line in scan.lines.items():
        key = str(int(name)) if numbered and _is_number(name) else name
        if key not in label_of:
            known = f"one of the {len(classes)} classes"
            if len(classes) <= _SHOWN_CLASSES:
                known += f" ({', '.join(map(repr, classes))})"
            if numbered:
                known = f"a number from 1 to {len(classes)}, or a name in classes.txt"
            alike = [c for c in classes if checks.look_alike_key(c) == checks.look_alike_key(name)]
            hint = f", or write {alike[0]!r}" if alike else ""
            if name == next(iter(scan.lines)):
                hint += ', or, if it is a header, name its first column "label"'
            raise UserError(
                f"{scan.path}, line {line}: the class is {name!r}, which is not {known}: correct "
                f"the row{hint}."
            )
        labels.append(label_of[key])
    return np.array(labels, np.int32)[scan.names]


def _is_number(name: str) -> bool:
    return name.isascii() and name.isdigit()


@gin.configurable("dbpedia")
@dataclasses.dataclass(frozen=True)
class DBpedia(Csv):
    """DBpedia's abstracts in its own files, train.csv, test.csv and classes.txt; 14 classes.

    560,000 + 70,000 texts, "class","title","content", cut at 1,024 characters.
    """

    max_length: int | None = 1024

    @property
    def title(self) -> str:
        """That of the files: any texts in this layout will do."""
        return "csv"
