"""The checks that are applied to the data of every source after it was read.

What is most probably a mistake raises an error, which `dataset.allow` can override. What may be a
mistake becomes a note, which the summary shows.
"""

from __future__ import annotations

import dataclasses
import unicodedata
from collections.abc import Iterable, Sequence
from typing import TypeVar

import numpy as np

from t2aux.data.table import Examples, Options, Table
from t2aux.errors import DataError, SettingError, listing, shorten
from t2aux_ondevice.preprocessing import DatasetInfo

ONE_CLASS, CLASS_PER_EXAMPLE, FIRST_ROW, MISSING_LABELS, SEPARATOR = ALLOWABLE = (
    "one_class",
    "class_per_example",
    "first_row",
    "missing_labels",
    "separator",
)
# Representations of a missing value in pandas, numpy, R and spreadsheets.
_MISSING = frozenset(
    {"", "nan", "-nan", "null", "(null)", "n/a", "n.a.", "<na>", "nat", "\\n"}
    | {"#n/a", "#n/a n/a", "#na", "1.#ind", "-1.#ind", "1.#qnan", "-1.#qnan"}
    | {"#null!", "#ref!", "#value!", "#div/0!", "#name?", "#num!"}
)
# As written by pandas and R. In a different case, they may well be classes.
_MISSING_AS_WRITTEN = frozenset({"None", "NA"})
# Names that may mean a missing value, but also a class, such as "-" beside "+".
_PLACEHOLDERS = frozenset(
    {"?", "-", "--", "---", ".", "..", "...", "*", "_", "\u2013", "\u2014"}
    | {"na", "nil", "undefined", "missing"}
)
_FEWEST_CLASSES = 4  # Fewer classes may be a trial, such as two classes of one example each.
_LONGEST_NAME = 40
_NARROW = 0.01
# Values that differ by fewer of float32's steps are noted.
_STEPS = 1000
# Values that lie outside the training range by more than this many times its width are considered
# to be scaled differently.
_FAR = 10
_TRANSPOSED = 10  # This many times more channels than steps suggest exchanged axes.
# What to do if the class was read from the wrong place.
_WHERE_CLASSES_ARE = {
    "idx": ", so take the file of labels of these images",
    "csv": ", so name the column of the class with --label_column, or put it first",
    "image_folder": ", so put the images into a folder for each class",
    "npz": ", so save the classes as `labels`",
    "ts": ", so write the class at the end of each line",
}
_EXAMPLES = TypeVar("_EXAMPLES", bound=Examples)


def allowed(value: object) -> tuple[str, ...]:
    """Returns `dataset.allow`, a name or a list, as a tuple. Raises UserError for unknown names."""
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, (list, tuple)) or any(name not in ALLOWABLE for name in names):
        raise SettingError(f"dataset.allow is {value!r}: give a list of {', '.join(ALLOWABLE)}.")
    return tuple(names)


def refuse(options: Options, what: str, message: str) -> None:
    """Raises UserError unless `dataset.allow` has `what`.

    Args:
        options: `allow` is used.
        what: One of ALLOWABLE.
        message: What is wrong and what to do, without a full stop.
    """
    if what not in options.allow:
        names = ", ".join(repr(name) for name in (*options.allow, what))
        raise DataError(
            f"{message}; or, if the data is right as it is, add "
            f'--gin_param="dataset.allow = [{names}]".'
        )


def check(split: str, info: DatasetInfo, examples: Examples, options: Options) -> tuple[str, ...]:
    """Checks the classes of a split and the number of examples of each.

    Errors are raised only for the training data of a new classifier: the classes of an existing run
    can't be changed.

    Args:
        split: "train", "test" or another split.
        info: The description of the data.
        examples: The examples that were read.
        options: `allow`, `info` and `max_examples` are used.

    Returns:
        The notes, one sentence each.

    Raises:
        UserError: A class stands for a missing label, all training examples are of one class, or
            there are more than half as many classes as training examples.
    """
    counts = examples.counts
    is_whole = counts is not None or options.max_examples != len(examples.labels)
    if counts is None:
        counts = np.bincount(examples.labels, minlength=info.num_classes)
    if split == "train" and options.info is None:
        _check_names(info, options)
        _check_number(info, counts, options, examples.found, is_whole=is_whole)
    notes = [*_look_alike(info.classes), *_placeholders(info)] if split == "train" else []
    if is_whole:
        notes += absent(split, info, counts)
    if info.kind == "vectors" and info.length and _TRANSPOSED * info.length <= info.channels:
        notes.append(
            f"The sequences have {info.length:,} steps of {info.channels:,} channels: if it is the "
            "other way round, exchange the last two axes of inputs [N, T, C]."
        )
    return tuple(notes)


def is_missing(name: str) -> bool:
    """Whether a class has the name of a missing value in pandas, numpy, R or a spreadsheet."""
    name = name.strip()
    return name in _MISSING_AS_WRITTEN or name.casefold() in _MISSING


def nearly_one_each(counts: np.ndarray) -> bool:
    """Whether there are at least 4 classes and more than half as many classes as examples.

    Args:
        counts: The number of examples of each class, int [K].
    """
    present = np.count_nonzero(counts)
    return present >= _FEWEST_CLASSES and 2 * present > counts.sum()


def with_notes(examples: _EXAMPLES, notes: Iterable[str]) -> _EXAMPLES:
    """Returns the examples with further notes, without duplicates."""
    notes = tuple(dict.fromkeys((*examples.notes, *notes)))
    if dataclasses.is_dataclass(examples):
        return dataclasses.replace(examples, notes=notes)
    examples.notes = notes
    return examples


class ValueRange:
    """The smallest and the largest value of each channel of real-valued input.

    Attributes:
        least: [C], the smallest values as the model sees them (pixels in [0, 1]); None before the
            first step.
        largest: Likewise, the largest values.
    """

    def __init__(self) -> None:
        self.least: np.ndarray | None = None
        self.largest: np.ndarray | None = None

    def add(self, values: np.ndarray) -> None:
        """Adds steps, [n, C] uint8 pixels or float32 vectors."""
        # By channel, because numpy is ten times slower on rows of a few numbers.
        scale = 255.0 if values.dtype == np.uint8 else 1.0
        least = np.array([channel.min() for channel in values.T], np.float64) / scale
        largest = np.array([channel.max() for channel in values.T], np.float64) / scale
        self._widen(least, largest)

    def merge(self, other: ValueRange) -> None:
        """Adds the values of another range."""
        if other.least is not None:
            self._widen(other.least, other.largest)

    def _widen(self, least: np.ndarray, largest: np.ndarray) -> None:
        if self.least is not None:
            least, largest = np.minimum(self.least, least), np.maximum(self.largest, largest)
        self.least, self.largest = least, largest

    def notes(self, split: str, info: DatasetInfo) -> list[str]:
        """Returns notes on what is unusual about the range, one sentence each.

        Args:
            split: "train", "test" or another split.
            info: The description of the values.
        """
        if self.least is None or self.largest is None:
            return []
        least, largest = self.least, self.largest
        spread = largest - least
        notes = []
        narrow = np.flatnonzero((spread > 0) & (spread < _NARROW))
        # Values other than pixels are normalised by the network.
        if len(narrow) and info.kind == "image":
            notes.append(
                f"The {_name(split)} values hardly vary ({self._show(narrow)}): pixels should use "
                "all of 0 to 255."
            )
        step = np.spacing(np.maximum(abs(least), abs(largest)).astype(np.float32))
        coarse = np.flatnonzero((spread > 0) & (spread < _STEPS * step))
        if len(coarse) and info.kind == "vectors":
            notes.append(
                f"The {_name(split)} values differ little for their size ({self._show(coarse)}): "
                f"float32, which the network uses, rounds them to multiples of "
                f"{listing(f'{value:.1g}' for value in step[coarse])}, so subtract a constant "
                "before you save them."
            )
        constant = np.flatnonzero(spread == 0)
        if len(constant):
            notes.append(
                f"The {_name(split)} values never vary ({self._show(constant)}): they hold no "
                "information."
            )
        return notes

    def _show(self, channels: np.ndarray) -> str:
        return listing(
            f"channel {channel}: {self.least[channel]:.4g} to {self.largest[channel]:.4g}"
            for channel in channels.tolist()
        )


def of_values(split: str, info: DatasetInfo, table: Table) -> list[str]:
    """Returns notes on unusual values of a split in memory, one sentence each."""
    notes = []
    if not info.is_text and len(table.values):
        values = ValueRange()
        values.add(table.values)
        notes += values.notes(split, info)
    sequences = table.sequences()
    first = next(sequences, None)
    if len(table.labels) > 1 and all(np.array_equal(first, other) for other in sequences):
        notes.append(all_equal(split, len(table.labels)))
    return notes


def all_equal(split: str, count: int) -> str:
    """The note for a split whose sequences are all the same."""
    return f"All {count:,} {_name(split)} sequences are the same: nothing can be learnt from them."


def beyond(
    train: tuple[float, float], other: tuple[float, float], split: str = "test"
) -> list[str]:
    """Returns a note if the values of another split are far outside the training values.

    Args:
        train: The smallest and the largest training value.
        other: Likewise for the other split.
        split: The other split: "test" or "validation".
    """
    spread = train[1] - train[0]
    if not spread or train[0] - _FAR * spread <= other[0] <= other[1] <= train[1] + _FAR * spread:
        return []
    return [
        f"The {split} values ({other[0]:.4g} to {other[1]:.4g}) are far outside the training "
        f"values ({train[0]:.4g} to {train[1]:.4g}): save both in the same unit."
    ]


def repeated(
    train: np.ndarray, test: np.ndarray, split: str = "test", *, divided: bool = False
) -> list[str]:
    """Returns a note if many of the test sequences are also training sequences.

    Args:
        train: A number for each training sequence; equal sequences have equal numbers.
        test: Likewise for the test sequences.
        split: The split of the test sequences: "test" or "validation".
        divided: Whether both come from one table, which then has duplicates. In this case, any
            number of them is reported.
    """
    count = int(np.isin(test, train).sum())
    if 10 * count <= len(test) and not (divided and count):
        return []
    return [
        f"{count:,} of the {len(test):,} {split} sequences ({100 * count / len(test):.0f} %) are "
        "in the training data, too: accuracy on them says little about new data."
    ]


def contradictory(sequences: np.ndarray, labels: np.ndarray) -> list[str]:
    """Returns a note if many training sequences also occur with another class.

    Args:
        sequences: A number for each training sequence; equal sequences have equal numbers.
        labels: Their classes, int [N].
    """
    _, places = np.unique(sequences, return_inverse=True)
    pairs = np.unique(np.stack([places, labels]), axis=1)
    count = int((np.bincount(pairs[0]) > 1)[places].sum())
    if 10 * count <= len(labels):
        return []
    return [
        f"{count:,} of the {len(labels):,} training sequences ({100 * count / len(labels):.0f} %) "
        "also occur with another class: check where the classes are read from."
    ]


def absent(split: str, info: DatasetInfo, counts: np.ndarray) -> list[str]:
    """Returns notes on classes with no example, or only one, in a split.

    Args:
        split: "train", "test" or another split.
        info: The description of the data.
        counts: The number of examples of each class, int [K].
    """
    notes = []
    none = [info.classes[label] for label in np.flatnonzero(counts == 0).tolist()]
    if none:
        from_one = " (do the labels count from 1?)" if none == ["0"] else ""
        are = "class has" if len(none) == 1 else "classes have"
        notes.append(
            f"{len(none):,} {are} no {_name(split)} example: "
            f"{listing(map(_quoted, none))}{from_one}."
        )
    if split == "train":
        single = [info.classes[label] for label in np.flatnonzero(counts == 1).tolist()]
        if single:
            are = "class has" if len(single) == 1 else "classes have"
            notes.append(
                f"{len(single):,} {are} a single training example: {listing(map(_quoted, single))}."
            )
    elif np.count_nonzero(counts) == 1 and info.num_classes > 1:
        notes.append(f"All {_name(split)} examples are of one class.")
    return notes


def look_alike_key(name: str) -> str:
    """Returns a key that is equal for names that look alike.

    These are names that differ only in case, spaces, Unicode form, digits or invisible characters.
    """
    shown = "".join(c for c in name if unicodedata.category(c) != "Cf")
    key = " ".join(unicodedata.normalize("NFKC", shown).casefold().split())
    try:
        return repr(float(key))
    except ValueError:
        return key


def _check_names(info: DatasetInfo, options: Options) -> None:
    for name in info.classes:
        if is_missing(name):
            refuse(
                options,
                MISSING_LABELS,
                f"{info.name} has a class named {name!r}, which is how missing labels are written: "
                "correct or remove its examples",
            )


def _check_number(
    info: DatasetInfo, counts: np.ndarray, options: Options, found: str, *, is_whole: bool
) -> None:
    present = np.flatnonzero(counts)
    where = f" ({found})" if found else ""
    if len(present) == 1:
        refuse(
            options,
            ONE_CLASS,
            f"All {counts.sum():,} training examples of {info.name} are of one class, "
            f"{info.classes[present[0]]!r}{where}, and a classifier needs at least two: check "
            "where the classes are read from",
        )
    # The classes of tensorflow-datasets are declared, not inferred.
    if is_whole and info.name in _WHERE_CLASSES_ARE and nearly_one_each(counts):
        first = listing((_quoted(info.classes[label]) for label in present.tolist()), 3)
        refuse(
            options,
            CLASS_PER_EXAMPLE,
            f"The {counts.sum():,} training examples of {info.name} are of {len(present):,} "
            f"classes ({first}){where}: what is read as the class seems to be something else, such "
            f"as a text or a number of the row{_WHERE_CLASSES_ARE[info.name]}",
        )


def _look_alike(classes: Sequence[str]) -> list[str]:
    groups: dict[str, list[str]] = {}
    for name in classes:
        groups.setdefault(look_alike_key(name), []).append(name)
    alike = [" and ".join(map(_quoted, names)) for names in groups.values() if len(names) > 1]
    return (
        [f"Class names that look alike are different classes: {listing(alike)}."] if alike else []
    )


def _placeholders(info: DatasetInfo) -> list[str]:
    signs = [name for name in info.classes if not any(map(str.isalnum, name))]
    # If both "+" and "-" occur, neither is a placeholder.
    others = [name for name in info.classes if name not in signs or len(signs) == 1]
    found = [name for name in others if name.strip().casefold() in _PLACEHOLDERS]
    if len(found) != 1:
        return []
    return [
        f"The class {_quoted(found[0])} may stand for missing labels: if so, remove its examples."
    ]


def _name(split: str) -> str:
    return "training" if split == "train" else split


def _quoted(name: str) -> str:
    return repr(shorten(name, _LONGEST_NAME))
