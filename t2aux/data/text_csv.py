"""`csv`: a user's own texts with classes, in tables of any format, such as DBpedia's files.

A table is read twice, first for the classes and lengths and then for the ids, so that its texts
need not fit in memory.
"""

from __future__ import annotations

import array
import dataclasses
import functools
import pathlib
import re
from collections.abc import Iterator, Sequence
from typing import ClassVar

import gin
import numpy as np

from t2aux.data import checks, places, tables
from t2aux.data.characters import CharacterCounts, Texts, count_tokens, needs_counts, text_info
from t2aux.data.listing import is_system_name
from t2aux.data.source import TextSource
from t2aux.data.table import Options, choose, class_key, read_class_names
from t2aux.data.tables.columns import is_class_name, is_index_name, same_columns
from t2aux.data.tables.delimited import DelimitedReader
from t2aux.errors import DataError, FileError, SettingError, UserError, listing
from t2aux.progress import Progress
from t2aux_ondevice.preprocessing import DatasetInfo

_SHOWN_CLASSES = 10
_WANTED = "{}.csv (or .tsv, .jsonl, .parquet, ..., also .gz)"
_NUMBERS = re.compile(r"[-+\d.eE,; ]+")


@gin.configurable("csv")
@dataclasses.dataclass(frozen=True)
class Csv(TextSource):
    """Your texts: a table with a header, or train.csv and test.csv; TSV, JSON lines, Parquet, .gz.

    Attributes:
        tokens: As for `TextSource`; so are `max_length` and `vocabulary_size`.
        label_column: The column of the class: its name or, without a header, its position, counted
            from 0. None to find it by the usual names, or to use the first column.
        text_columns: Likewise, the column of the text, or several, which are joined by a space.
        encoding: The encoding of a text file: any of Python's codecs, such as "cp1252". None for
            UTF-8, or the encoding of a byte order mark.
        separator: The separator of a text file's columns. None to detect it: comma, semicolon, tab
            or bar.
    """

    has_other_splits: ClassVar[bool] = True
    split_suffixes: ClassVar[tuple[str, ...]] = tables.SUFFIXES

    label_column: str | int | None = None
    text_columns: str | int | Sequence[str | int] = ()
    encoding: str | None = None
    separator: str | None = None

    def __post_init__(self) -> None:
        """Raises UserError where a parameter is out of its range."""
        super().__post_init__()
        names = self.text_columns
        names = (names,) if isinstance(names, (str, int)) else names
        if not isinstance(names, (tuple, list)) or not all(map(_is_column, names)):
            raise SettingError(
                f"{self.gin_name}.text_columns is {self.text_columns!r}: give the name of a "
                "column, or a list of names."
            )
        if self.label_column is not None and not _is_column(self.label_column):
            raise SettingError(
                f"{self.gin_name}.label_column is {self.label_column!r}: give the name of a column."
            )
        object.__setattr__(self, "text_columns", tuple(names))

    def read(self, split: str, options: Options) -> tuple[DatasetInfo, Texts]:
        """Reads the texts and classes of a split.

        The data is a table; or a folder with train.csv and test.csv, with only train.csv, or with
        one table of another name. Instead of CSV, it may be TSV, JSON lines or Parquet, see
        `tables.open_table`. A row has a class and one or more texts, which are joined by a space.
        Without a header, the class comes first. A classes.txt in the folder names the classes, one
        per line; a row then gives its class by number, counted from 1, or by name. Without it, the
        classes are those in the training data. A first row with usual column names is treated as a
        header (unless `options.allow` has "first_row").

        Another split has the columns of the training data, by name if both have headers.

        Raises:
            UserError: A file is missing or damaged, or lacks the columns; a row lacks a column, has
                an empty text, or has a missing or unknown class; or, in a table without a header,
                the class of the first row occurs nowhere else. The message names the file and the
                line.
        """
        find = functools.partial(
            places.find, options, suffixes=tables.SUFFIXES, single=_single, wanted=_WANTED
        )
        place = find(split=split)
        folder = options.data_dir if options.data_dir.is_dir() else options.data_dir.parent
        names = read_class_names(folder / "classes.txt")
        trained = options.info.classes if options.info else ()
        known = frozenset(map(class_key, (*(names or ()), *trained)))

        opened = functools.partial(self._open, options=options, known=known)

        def of_training(path: pathlib.Path) -> tuple[str, ...]:
            """The names of the training data's columns, if it is in another table."""
            try:
                train = find(split="train").path
                if train == path or (self.label_column is not None and self.text_columns):
                    return ()
                table = opened(train)
                chosen = tables.choose_columns(table, self.label_column, self.text_columns)
            except UserError:  # Data to evaluate needs no training data.
                return ()
            return (chosen.label, *chosen.texts) if table.has_header and chosen.label else ()

        def scanned(place: places.Place, split: str) -> _Scan:
            wanted = () if split == "train" else of_training(place.path)
            table, source = opened(place.path, usual=wanted), self
            if wanted and table.has_header:
                label, *texts = same_columns(table, wanted)
                source = dataclasses.replace(self, label_column=label, text_columns=texts)
            # If the data is divided, only the training examples count, which are not known yet.
            is_whole = not (place.part and options.test_fraction)
            counts = needs_counts(options) and split == "train" and is_whole
            return _Scan(table, source, options, known, counts=counts)

        scan = scanned(place, split)
        train, train_scan = place, scan
        if split != "train" and options.info is None and (names is None or needs_counts(options)):
            train = find(split="train")
            train_scan = scan if train.path == place.path else scanned(train, "train")
        _check_header(scan, options)
        if names is None and options.info is None and split == "train":
            _check_first_row(scan, options)
        if names is not None:
            classes = names
        elif options.info is not None:
            classes = options.info.classes
        else:
            classes = _sorted_names(train_scan.lines)
        # If the names themselves are numbers, a number is always a name.
        numbered = names is not None and not any(_is_number(name) for name in names)
        labels = _labels(scan, classes, numbered=numbered)

        def counts() -> CharacterCounts:
            if train_scan.counts is not None:
                return train_scan.counts
            own = _labels(train_scan, classes, numbered=numbered)
            return train_scan.counted(train.choose(own, options).part)

        info = text_info("csv", classes, options, counts)
        chosen = place.choose(labels, options)
        texts = Texts(
            str(scan.path),
            info,
            labels[chosen.indices],
            scan.lengths[chosen.indices],
            lambda: (text for _, text in choose(scan.texts(), chosen.indices)),
            notes=(*place.notes, *chosen.notes, *scan.notes()),
            counts=np.bincount(labels[chosen.part], minlength=len(classes)),
            division=chosen.division,
        )
        return info, texts

    def _open(
        self, path: pathlib.Path, options: Options, known: frozenset[str], usual: Sequence[str] = ()
    ) -> tables.TableReader:
        given = () if self.label_column is None else (self.label_column,)
        return tables.open_table(
            path,
            encoding=self.encoding,
            separator=self.separator,
            columns=(*given, *self.text_columns),
            usual=usual,
            known=known,
            allow=options.allow,
        )


class _Scan:
    """The result of the first reading of a table.

    Attributes:
        table: The table, which has counted what it skipped.
        path: The path of the table.
        lines: The names of the classes in the order of their first rows, and the lines of these.
        names: The position of each row's class in `lines`, int32 [N].
        lengths: The number of tokens of each row's text, int64 [N].
        counts: The character counts of all texts, if they were requested.
    """

    def __init__(
        self,
        table: tables.TableReader,
        source: Csv,
        options: Options,
        known: frozenset[str],
        *,
        counts: bool,
    ) -> None:
        """Reads the table. Raises UserError: see `Csv.read`."""
        self.table = table
        self._options = options
        self.path = pathlib.Path(table.name)
        if len(table.columns) < 2:
            what = "has no rows" if not table.columns else "has one column"
            raise DataError(f"{self.path} {what}: write a class and a text, separated by a comma.")
        self._chosen = tables.choose_columns(table, source.label_column, source.text_columns)
        if self._chosen.label is None:
            raise SettingError(
                f"{self.path} has no column with the usual name of a class: give "
                f"--label_column=NAME (its columns are {listing(map(repr, table.columns), 12)}); "
                "t2aux predict classifies texts without a class."
            )
        self._guessed = source.label_column is None and not source.text_columns
        table.joins_rest = table.columns[-1] in self._chosen.texts
        self.lines: dict[str, int] = {}
        self._are_numbers = True
        numbers: dict[str, int] = {}
        names, lengths = array.array("i"), array.array("q")
        self.counts = CharacterCounts(options.max_length) if counts else None
        progress = Progress(f"Reading {self.path}", None)
        for lines, labels, texts in self._rows():
            self._check(lines, labels, texts, known)
            for line, label in zip(lines, labels, strict=True):
                self.lines.setdefault(label, line)
                names.append(numbers.setdefault(label, len(numbers)))
            lengths.extend(count_tokens(text, options) for text in texts)
            if self.counts is not None:
                for text in texts:
                    self.counts.add(text)
            self._are_numbers = self._are_numbers and all(map(_NUMBERS.fullmatch, texts))
            progress.update(len(names))
        if not names:
            raise DataError(f"{self.path} has no rows: write a class and a text on each line.")
        self.names, self.lengths = np.array(names, np.int32), np.array(lengths, np.int64)

    @property
    def header(self) -> str | None:
        """The header of the class's column, if it was found by the table's column names."""
        if isinstance(self.table, DelimitedReader) and self.table.has_header and self._guessed:
            return self.table.header[self.table.columns.index(self._chosen.label)]
        return None

    def texts(self) -> Iterator[str]:
        """Yields the texts."""
        for batch in self.table.batches():
            yield from tables.joined(batch, self._chosen.texts).to_pylist()

    def counted(self, rows: np.ndarray) -> CharacterCounts:
        """Counts the characters of some rows, int64 [N], ascending."""
        found = CharacterCounts(self._options.max_length)
        progress = Progress(f"Counting the characters of {self.path}", len(rows))
        for number, (_, text) in enumerate(choose(self.texts(), rows), start=1):
            found.add(text)
            progress.update(number)
        return found

    def notes(self) -> tuple[str, ...]:
        """Returns what was skipped or guessed, one sentence each."""
        table, short = self.table, self.path.name
        notes = [*table.notes, *self._chosen.notes]
        is_first = self._guessed and self._chosen.texts == table.columns[1:]
        is_regular = table.has_header or table.least_columns >= table.filled
        if (
            isinstance(table, DelimitedReader)
            and len(table.columns) > 2
            and is_first
            and is_regular
        ):
            notes.append(
                f"{short}: the rows have {len(table.columns)} columns, and all but the first are "
                "joined by a space into one text: put a text with commas in quotes."
            )
        if self._are_numbers:
            notes.append(
                f"{short}: the texts hold only numbers, and are read as characters: "
                "sequences of numbers belong in .npz files (--gin_file=datasets/npz)."
            )
        if self._guessed and table.has_header:
            others = [c for c in self._chosen.texts if is_class_name(c) or is_index_name(c)]
            if others:
                notes.append(
                    f"{short}: the texts hold what these columns hold, too: "
                    f"{listing(map(repr, others))}; delete those that are not texts, or name the "
                    "right ones with --text_column."
                )
        return tuple(notes)

    def _rows(self) -> Iterator[tuple[Sequence[int], list[str], list[str]]]:
        """Yields blocks of rows: their lines, classes and texts."""
        keys: dict[str, str] = {}
        for numbered in self.table.numbered():
            lines, batch = numbered
            labels = tables.strings(batch, self._chosen.label).to_pylist()
            for label in set(labels) - keys.keys():
                keys[label] = class_key(label)
            if isinstance(self.table, DelimitedReader):
                self.table.check_quotes(numbered, self._chosen.label, keys, self._options)
            texts = tables.joined(batch, self._chosen.texts).to_pylist()
            yield lines, [keys[label] for label in labels], texts

    def _check(
        self,
        lines: Sequence[int],
        labels: Sequence[str],
        texts: Sequence[str],
        known: frozenset[str],
    ) -> None:
        """Raises UserError for the first row with a missing class or an empty text."""
        if empty := [str(line) for line, text in zip(lines, texts, strict=True) if not text]:
            where = f"{self.path}, {self.table.unit} {listing(empty)}"
            raise DataError(f"{where}: the text is empty: correct or delete each such row.")
        missing = {label for label in set(labels) if checks.is_missing(label)} - known
        for line, label in zip(lines, labels, strict=True) if missing else ():
            where = f"{self.path}, {self.table.unit} {line}"
            if label in missing:
                what = f"{label!r}, a missing value" if label else "empty"
                if line == 1 and not label and isinstance(self.table, DelimitedReader):
                    what += " (is it a header, with the column of pandas' index first?)"
                checks.refuse(
                    self._options,
                    checks.MISSING_LABELS,
                    f"{where}: the class is {what}: correct or delete the row",
                )


def _single(folder: pathlib.Path) -> pathlib.Path | None:
    """The only table of a folder. Raises UserError if there are several."""
    splits = {name for names in places.NAMES.values() for name in names}
    found = [
        path
        for path in sorted(folder.iterdir())
        if tables.is_table(path)
        and path.is_file()
        and path.name.split(".")[0] not in splits
        and not is_system_name(path.name)
    ]
    if len(found) > 1:
        raise FileError(
            f"{folder} has several tables ({listing(path.name for path in found)}): give one as "
            "--data_dir, or name them train.csv and test.csv."
        )
    return found[0] if found else None


def _check_header(scan: _Scan, options: Options) -> None:
    """Raises UserError if the skipped header has the name of a class in the class's column."""
    if scan.header in scan.lines:
        checks.refuse(
            options,
            checks.FIRST_ROW,
            f"{scan.path}: the first row looks like a header, but its column of the class, "
            f"{scan.header!r}, is also the class of line {scan.lines[scan.header]}: if it is a "
            'header, name that column "label", or give --label_column and --text_column',
        )


def _check_first_row(scan: _Scan, options: Options) -> None:
    """Raises UserError if the class of the first row occurs nowhere else, as for a header.

    Concatenated files may repeat the header.
    """
    if scan.table.has_header:
        return
    counts = np.bincount(scan.names)
    repeated = scan.table.repeated_first_rows
    # If most classes have a single example, the first row is not unusual.
    if counts[0] == 1 + repeated and counts.max() > 1 and not checks.nearly_one_each(counts):
        name, line = next(iter(scan.lines.items()))
        other = "no other row" + (" but its copies" if repeated else "")
        checks.refuse(
            options,
            checks.FIRST_ROW,
            f"{scan.path}, line {line}: the class of the first row, {name!r}, occurs in {other}: "
            "if the row is a header, give --label_column and --text_column, or name the columns "
            '"label" and "text", and the row is skipped',
        )


def _sorted_names(names: dict[str, int]) -> tuple[str, ...]:
    """Returns the names, sorted as numbers if all of them are."""
    is_numbers = all(_is_number(name) for name in names)
    # Two names may represent the same number.
    return tuple(sorted(sorted(names), key=int) if is_numbers else sorted(names))


def _labels(scan: _Scan, classes: tuple[str, ...], *, numbered: bool) -> np.ndarray:
    """Returns the label of each row, int32; by number (from 1) or name, or only by name."""
    # The class names of a classifier may have any Unicode form.
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
            if name == next(iter(scan.lines)) and not scan.table.has_header:
                hint += ', or, if it is a header, name its first column "label"'
            raise DataError(
                f"{scan.path}, {scan.table.unit} {line}: the class is {name!r}, which is not "
                f"{known}: correct the row{hint}."
            )
        labels.append(label_of[key])
    return np.array(labels, np.int32)[scan.names]


def _is_number(name: str) -> bool:
    return name.isascii() and name.isdigit()


def _is_column(name: object) -> bool:
    return type(name) in (str, int)


@gin.configurable("dbpedia")
@dataclasses.dataclass(frozen=True)
class DBpedia(Csv):
    """DBpedia's abstracts in its own files, train.csv, test.csv and classes.txt; 14 classes.

    560,000 + 70,000 texts, "class","title","content", cut at 1,024 characters.
    """

    max_length: int | None = 1024

    @property
    def title(self) -> str:
        """The name "csv", since any texts in this layout can be read."""
        return "csv"
