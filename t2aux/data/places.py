"""Finds the data of a split: its own files, or data without a test set, which is divided."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from t2aux.data.listing import is_system_name
from t2aux.data.table import Options, damaged, find_file, require_data_dir, subset, unread
from t2aux.errors import DataError, SettingError, listing

# The possible names of a split's files and folders; the first name is the split's own.
NAMES: Mapping[str, tuple[str, ...]] = {
    "train": ("train", "training"),
    "test": ("test", "testing"),
    "validation": ("validation", "valid", "val", "dev"),
}
# A part of a name that says that it is a test set.
_TEST = re.compile(r"(?<![a-z])test(ing|set)?(?![a-z])", re.IGNORECASE)
# Makes the choice independent of that of a validation set with the same seed.
_STREAM = 0x74657374
# A tolerance for rounding: 100 * 0.29 is slightly less than 29.
_ROUNDING = 1e-9


@dataclasses.dataclass(frozen=True, eq=False)
class Division:
    """How data without a test set was divided into training and test examples.

    Attributes:
        path: The data.
        examples: The total number of examples.
        test: The positions of the test examples in the data, counted from 0; int64 [N], ascending.
        test_fraction: The parameter `test_fraction`.
        split_seed: The parameter `split_seed`.
        names: The names of all examples, if they have names.
    """

    path: pathlib.Path
    examples: int
    test: np.ndarray
    test_fraction: float
    split_seed: int
    names: Sequence[str] | None = None

    @property
    def note(self) -> str:
        """The note about the division."""
        return (
            f"{self.path.name} is divided: {len(self.test):,} of its {self.examples:,} examples, "
            "about the same share of each class, are held out as the test set "
            f"(dataset.test_fraction = {self.test_fraction:g}, dataset.split_seed = "
            f"{self.split_seed})."
        )

    def to_json(self) -> dict[str, Any]:
        """The stored form: the test examples by name, or by number, counted from 0."""
        test = self.test.tolist()
        return {
            "format": "t2aux-split",
            "version": 1,
            "data": str(self.path),
            "examples": self.examples,
            "test_fraction": self.test_fraction,
            "split_seed": self.split_seed,
            "test": test if self.names is None else [self.names[index] for index in test],
        }


@dataclasses.dataclass(frozen=True)
class Place:
    """The location of the examples of a split.

    Attributes:
        path: The file or folder that contains them.
        part: Which part of it they are: "train" or "test"; None for all of it.
        notes: What else is present but not read, one sentence each.
    """

    path: pathlib.Path
    part: str | None = None
    notes: tuple[str, ...] = ()

    def choose(
        self, labels: np.ndarray, options: Options, names: Sequence[str] | None = None
    ) -> Chosen:
        """Chooses the examples of the split, and among them `options.max_examples`.

        Args:
            labels: The labels of all examples, int [N].
            options: `max_examples`, `test_fraction` and `split_seed` are used.
            names: The names of the examples, if they have names.

        Raises:
            UserError: There are too few examples for a test set.
        """
        part, division = np.arange(len(labels)), None
        if self.part is not None and options.test_fraction:
            classes = int(labels.max(initial=0)) + 1
            is_test = held_out(labels, classes, options.test_fraction, options.split_seed, _STREAM)
            if not is_test.any():
                raise DataError(
                    f"{self.path} has too few examples to hold some of them out as a test set: "
                    f"{len(labels):,}, of which dataset.test_fraction = "
                    f"{options.test_fraction:g} takes none, as at least one of each class stays. "
                    "Give more examples or a larger fraction."
                )
            part = np.flatnonzero(is_test == (self.part == "test"))
            division = Division(
                self.path,
                len(labels),
                np.flatnonzero(is_test),
                options.test_fraction,
                options.split_seed,
                names,
            )
        return Chosen(part, part[subset(len(part), options.max_examples)], division)


@dataclasses.dataclass(frozen=True, eq=False)
class Chosen:
    """The examples of a split.

    Attributes:
        part: All examples of the split, int64 [N], ascending.
        indices: Those that remain after `max_examples`, int64 [M], ascending.
        division: How the data was divided; None if it was not.
    """

    part: np.ndarray
    indices: np.ndarray
    division: Division | None

    @property
    def notes(self) -> tuple[str, ...]:
        """The notes about the division."""
        return () if self.division is None else (self.division.note,)


def find(
    options: Options,
    split: str,
    suffixes: Sequence[str],
    *,
    single: Callable[[pathlib.Path], pathlib.Path | None],
    wanted: str,
) -> Place:
    """Finds a split's data in `options.data_dir`.

    This is a file, or a folder that contains: a file or folder for each split; only the training
    data; or data that is not divided into splits, as found by `single`. Data without a test set is
    divided unless `options.test_fraction` is 0.

    Args:
        options: `source`, `data_dir` and `test_fraction` are used.
        split: "train", "test" or another split.
        suffixes: The possible suffixes of the splits' files; "" for folders.
        single: Finds the data in a folder without splits; returns None if there is none.
        wanted: The name of a split's data, with "{}" for the name of the split, for messages.

    Raises:
        UserError: The data or the split is missing.
    """
    place = require_data_dir(options.source, options, or_file=True)
    if place.is_file():
        whole, name = place, None
    else:
        name = _first(place, split, suffixes)
        whole = None
        if split in ("train", "test") and _first(place, "test", suffixes) is None:
            whole = _first(place, "train", suffixes) or single(place)
    if whole is not None and split in ("train", "test"):
        if options.test_fraction or split == "train":
            notes = unread(whole, _names("train", suffixes)) + _unread_test(whole, place, suffixes)
            return Place(whole, split, notes)
        if place.is_file():
            raise SettingError(
                f"{place} is one file, and dataset.test_fraction is 0: give a "
                "fraction, or a folder with both."
            )
    if name is not None:
        return Place(name, None, unread(name, _names(split, suffixes)))
    if place.is_file():
        raise SettingError(
            f"{place} is one file, without a split {split!r}: give a folder with a file for each "
            "split, or a fraction."
        )
    return Place(find_file(place, _names(split, suffixes), options.source, wanted.format(split)))


def splits_in(folder: pathlib.Path | None, suffixes: Sequence[str]) -> tuple[str, ...]:
    """Returns which of the splits of `NAMES` have their own files in a folder.

    Args:
        folder: The folder. None, or a path that is not a folder, has no splits.
        suffixes: As for `find`.
    """
    if folder is None or not folder.is_dir():
        return ()
    return tuple(split for split in NAMES if _first(folder, split, suffixes) is not None)


def held_out(
    labels: np.ndarray, classes: int, fraction: float, seed: int, stream: int
) -> np.ndarray:
    """Chooses examples to hold out, about the same share of each class.

    The result depends only on the arguments. At least one example of each class stays, so none may
    be held out of a class with few examples.

    Args:
        labels: int [N].
        classes: K, larger than the largest label.
        fraction: The fraction to hold out, in (0, 1).
        seed: Non-negative.
        stream: Distinguishes choices with the same seed.

    Returns:
        Whether each example is held out, bool [N].
    """
    counts = np.bincount(labels, minlength=classes)
    generator = np.random.Generator(np.random.PCG64([seed, stream]))
    taken = _shares(counts, fraction, generator)
    is_out = np.zeros(len(labels), bool)
    for label in np.flatnonzero(counts):
        members = generator.permutation(np.flatnonzero(labels == label))
        is_out[members[: taken[label]]] = True
    return is_out


def _shares(counts: np.ndarray, fraction: float, generator: np.random.Generator) -> np.ndarray:
    """The number of examples of each class to hold out, int64 [K], by the largest remainders.

    Ties are broken by the generator. At least one example of each class stays.
    """
    wanted = counts * fraction
    shares = np.minimum(np.floor(wanted + _ROUNDING).astype(np.int64), np.maximum(counts - 1, 0))
    remainders = wanted - shares
    missing = round(counts.sum() * fraction) - int(shares.sum())
    for label in np.lexsort((generator.random(len(counts)), -remainders.round(9))):
        if missing <= 0 or remainders[label] < _ROUNDING:
            break
        if shares[label] + 1 < counts[label]:
            shares[label] += 1
            missing -= 1
    return shares


def _names(split: str, suffixes: Sequence[str]) -> list[str]:
    return [name + suffix for name in NAMES.get(split, (split,)) for suffix in suffixes]


def _first(folder: pathlib.Path, split: str, suffixes: Sequence[str]) -> pathlib.Path | None:
    names = _names(split, suffixes)
    for name in names:
        if (folder / name).exists():
            return folder / name
    # Test.csv is a test set, too. A folder of a class may have millions of files.
    wanted = set(names)
    try:
        entries = sorted(entry for entry in os.listdir(folder) if entry.lower() in wanted)
    except OSError as error:
        raise damaged(folder, error) from error
    found = {entry.lower(): folder / entry for entry in reversed(entries)}
    return next((found[name] for name in names if name in found), None)


def _unread_test(
    whole: pathlib.Path, place: pathlib.Path, suffixes: Sequence[str]
) -> tuple[str, ...]:
    """A note on test sets, by their names, beside data that is divided."""
    if whole == place and whole.is_dir() and whole.name.lower() not in NAMES["train"]:
        return ()  # The folder beside it may be about anything.
    try:
        beside = os.listdir(whole.parent)
    except OSError:  # The file itself can be read, and the note is only a hint.
        return ()
    others = sorted(
        name
        for name in beside
        if name != whole.name
        and _TEST.search(name)
        and name.lower().endswith((*suffixes, ".json"))
        and (whole.parent / name).is_dir() == whole.is_dir()
        and not is_system_name(name)
    )
    if not others:
        return ()
    return (
        f"{whole.name}: {listing(others)} in the same folder is not read; to use a test set, give "
        f"the folder, and name the test set test{''.join(whole.suffixes)}.",
    )
