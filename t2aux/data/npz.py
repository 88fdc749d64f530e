"""`npz`: a user's own sequences of real vectors, as train.npz and test.npz."""

from __future__ import annotations

import dataclasses
import pathlib
import re
import zipfile
from typing import ClassVar

import gin
import numpy as np

from t2aux.data import places
from t2aux.data.listing import is_system_name
from t2aux.data.source import Source
from t2aux.data.table import Options, Table, class_key
from t2aux.errors import DataError, listing
from t2aux_ondevice.arrays import read_npz
from t2aux_ondevice.preprocessing import DatasetInfo

_REAL_KINDS = "fiub"
_INTEGER_KINDS = "iu"
_INTEGER = re.compile(r"-?\d+")
_SUFFIX = ".npz"
_NAME_KINDS = "US"
_ARRAYS = ("inputs", "labels", "lengths", "classes")


@gin.configurable("npz")
@dataclasses.dataclass(frozen=True)
class Npz(Source):
    """Your sequences: an .npz, or train.npz and test.npz, of inputs [N, T, C], labels, lengths."""

    has_other_splits: ClassVar[bool] = True
    split_suffixes: ClassVar[tuple[str, ...]] = (_SUFFIX,)

    def read(self, split: str, options: Options) -> tuple[DatasetInfo, Table]:
        """Reads a split of sequences.

        Arrays of the file: `inputs` [N, T, C] or [N, T], real or integer, unchanged, since the
        network normalises them (`train.normalize`); `labels` [N]; optionally `lengths` int [N], the
        number of true steps of each sequence (the steps after them are ignored); optionally, in
        train.npz, `classes`, the names of the classes. A `classes` in test.npz must be the same.
        Other arrays are not read; the notes list them.

        Labels are names (strings, or bytes in UTF-8) or integers. With `classes`, integers are
        positions in it, counted from 0. Without `classes`, the classes of names are the sorted
        names in the training data; those of integers that begin at 0 are "0", "1", ... up to the
        largest training label; and those of integers that begin at 1 or more, or are -1 and 1, are
        the numbers that occur, such as "1", "2", "3".

        Raises:
            UserError: A file is missing or damaged, an array is missing or of a wrong shape or
                type, a value is NaN or infinite, a label or a length is out of range, or the files
                name different classes.
        """
        place = self._find(options, split)
        path = place.path
        arrays = _read_arrays(path)
        inputs = arrays["inputs"]
        train, train_path = arrays, path
        if split != "train" and options.info is None:
            if (found := self._find(options, "train").path) != path:
                train, train_path = _read_arrays(found), found
        elif split != "train" and (found := path.parent / "train.npz").is_file() and found != path:
            train, train_path = read_npz(found, ("classes",)), found
        if options.info is not None:
            channels, length = options.info.channels, options.info.length
            classes = options.info.classes
            _check_same_classes(train, train_path, classes)
        else:
            classes, channels = _classes(train, train_path), train["inputs"].shape[2]
            length = None if "lengths" in train else train["inputs"].shape[1]
        _check_same_classes(arrays, path, classes)
        numbered = "classes" in train or "classes" in arrays
        labels, notes = _class_numbers(arrays["labels"], classes, path, numbered=numbered)
        lengths = arrays.get("lengths")
        if inputs.shape[2] != channels:
            raise DataError(
                f"{path}: inputs has {inputs.shape[2]} channels where the training data has "
                f"{channels}: make them agree."
            )
        if lengths is None:
            lengths = np.full(len(inputs), inputs.shape[1])
        _check_lengths(lengths, inputs.shape[1], length, path)
        choice = place.choose(labels, options)
        chosen = choice.indices
        inputs, lengths = inputs[chosen], lengths[chosen]
        # The true steps, row by row. The padding is dropped here, whatever it contains.
        is_true = np.arange(inputs.shape[1]) < lengths[:, np.newaxis]
        with np.errstate(over="ignore"):  # A value beyond float32 becomes inf, reported below.
            values = inputs[is_true].astype(np.float32)
        finite = np.isfinite(values).all(axis=1)
        if not finite.all():
            row, step = np.argwhere(is_true)[int(finite.argmin())]
            raise DataError(
                f"{path}: inputs holds NaN or an infinite value (or one beyond float32) in "
                f"sequence {chosen[row]}, step {step} (counted from 0): correct the data (if such "
                "values only pad shorter sequences, save `lengths` [N])."
            )
        info = DatasetInfo("npz", "vectors", classes, channels=channels, length=length)
        table = Table.of_lengths(values, lengths, labels[chosen])
        return info, dataclasses.replace(
            table,
            counts=np.bincount(labels[choice.part], minlength=len(classes)),
            notes=(*place.notes, *choice.notes, *notes, *_notes(path)),
            division=choice.division,
        )

    def _find(self, options: Options, split: str) -> places.Place:
        return places.find(options, split, (_SUFFIX,), single=_single, wanted="{}.npz")


def _single(folder: pathlib.Path) -> pathlib.Path | None:
    """The only .npz file of a folder that is not named like a split; None if there is none."""
    splits = {name for names in places.NAMES.values() for name in names}
    paths = (path for path in folder.glob(f"*{_SUFFIX}") if not is_system_name(path.name))
    found = [path for path in paths if path.stem not in splits]
    return found[0] if len(found) == 1 else None


def _read_arrays(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Reads the arrays of a file, and checks their types and shapes."""
    arrays = read_npz(path, _ARRAYS)
    for name in ("inputs", "labels"):
        if name not in arrays:
            others = _array_names(path)
            only = f" (only {listing(others)})" if others else ""
            raise DataError(
                f"{path} has no array `{name}`{only}: save both under these names, with "
                "numpy.savez(FILE, inputs=..., labels=...)."
            )
    inputs = arrays["inputs"]
    if inputs.ndim == 2:
        inputs = arrays["inputs"] = inputs[:, :, np.newaxis]
    if inputs.dtype.kind not in _REAL_KINDS or inputs.ndim != 3 or not inputs.size:
        raise DataError(
            f"{path}: inputs is {inputs.dtype} of the shape {list(inputs.shape)}: give real "
            "numbers [N, T, C] or [N, T], at least one sequence of one step and one channel."
        )
    for name, kinds, what in (
        ("labels", _INTEGER_KINDS + _NAME_KINDS, "integers or names"),
        ("lengths", _INTEGER_KINDS, "integers"),
    ):
        array = arrays.get(name)
        if array is not None and (array.dtype.kind not in kinds or array.shape != (len(inputs),)):
            raise DataError(
                f"{path}: {name} is {array.dtype} of the shape {list(array.shape)}: give {what} "
                f"[{len(inputs)}], one for each of the inputs{_how(name, array, len(inputs))}."
            )
    if arrays["labels"].dtype.kind in _NAME_KINDS:
        arrays["labels"] = decoded(arrays["labels"], "labels", path)
    return arrays


def _array_names(path: pathlib.Path) -> list[str]:
    """Returns the names of the arrays of a file whose directory is known to be readable."""
    with zipfile.ZipFile(path) as archive:
        return [name.removesuffix(".npy") for name in archive.namelist()]


def _notes(path: pathlib.Path) -> tuple[str, ...]:
    others = [repr(name) for name in _array_names(path) if name not in _ARRAYS]
    if not others:
        return ()
    return (
        f"{path.name}: arrays that are not read: {listing(others)} (only "
        f"{', '.join(_ARRAYS)} are).",
    )


def _how(name: str, array: np.ndarray, count: int) -> str:
    """Returns how to make integers [N] of labels or lengths of another shape or type."""
    kind = array.dtype.kind
    if array.ndim == 2 and len(array) == count and array.shape[1] > 1 and kind in "iufb":
        if ((array == 0) | (array == 1)).all() and (array.sum(axis=1) == 1).all():
            return f", not one-hot vectors: {name}.argmax(axis=1)"
        return ""
    if array.size == count and kind in "iufb":
        if kind == "f" and not np.isfinite(array).all():
            return "; some are NaN or infinite, so correct or leave out these sequences first"
        if kind == "f" and (array != np.floor(array)).any():
            return "; some are not whole numbers, so they are not numbers of classes"
        return f": {name}.ravel().astype(int)"
    return ""


def _classes(train: dict[str, np.ndarray], path: pathlib.Path) -> tuple[str, ...]:
    """The names of the classes of the training data, see `Npz.read`."""
    if "classes" in train:
        return _names(train["classes"], path)
    labels = train["labels"]
    found = np.unique(labels)
    if labels.dtype.kind in _NAME_KINDS or found[0] > 0 or found.tolist() == [-1, 1]:
        return tuple(map(str, found.tolist()))
    if found[0] < 0:
        index = int(labels.argmin())
        raise DataError(
            f"{path}: the label of sequence {index} (counted from 0) is {labels[index]}: number "
            "the classes from 0 or from 1, or save their names as `labels`."
        )
    # Otherwise a stray label could make a classifier with a billion classes.
    if found[-1] >= len(labels):
        raise DataError(
            f"{path}: the label {found[-1]} is larger than the number of sequences: correct the "
            "labels, or save the names of all classes as `classes`."
        )
    return tuple(map(str, range(int(found[-1]) + 1)))


def _check_same_classes(
    arrays: dict[str, np.ndarray], path: pathlib.Path, classes: tuple[str, ...]
) -> None:
    """Raises UserError if a file's class names or their order differ from the training data's."""
    if "classes" not in arrays:
        return
    names = _names(arrays["classes"], path)
    if tuple(map(class_key, names)) != tuple(map(class_key, classes)):
        raise DataError(
            f"{path}: classes names {listing(map(repr, names))}, and the training data "
            f"{listing(map(repr, classes))}: save the same names in the same order, and "
            "number the labels by them."
        )


def _names(names: np.ndarray, path: pathlib.Path) -> tuple[str, ...]:
    if names.dtype.kind in _NAME_KINDS:
        names = decoded(names, "classes", path)
    if names.dtype.kind != "U" or names.ndim != 1 or len(set(names.tolist())) != len(names):
        raise DataError(
            f"{path}: classes is {names.dtype} of the shape {list(names.shape)}: give a list of "
            "different names (strings)."
        )
    return tuple(names.tolist())


def decoded(names: np.ndarray, what: str, path: pathlib.Path) -> np.ndarray:
    """Returns an array of strings for one of strings or of bytes in UTF-8."""
    if names.dtype.kind != "S":
        return names.astype(str)
    try:
        return np.char.decode(names, "utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: {what} holds bytes that are not UTF-8: save them with dtype=str."
        ) from error


def _class_numbers(
    labels: np.ndarray, classes: tuple[str, ...], path: pathlib.Path, *, numbered: bool
) -> tuple[np.ndarray, list[str]]:
    """The number of each sequence's class.

    Args:
        labels: The saved labels, names or integers [N].
        classes: The names of the classes.
        path: The file, for messages.
        numbered: Whether integers are positions of the classes rather than their names.

    Returns:
        int32 [N], and the notes.

    Raises:
        UserError: A label is not one of the classes.
    """
    by_name = labels.dtype.kind in _NAME_KINDS
    if not by_name and not numbered:
        # The classes of a run may have names, with labels that are their positions.
        numbered = not all(map(_INTEGER.fullmatch, classes))
    if not by_name and numbered:
        wrong = (labels < 0) | (labels >= len(classes))
        meant = f"there are {len(classes)} classes: labels run from 0 to {len(classes) - 1}"
        numbers = labels.astype(np.int32)
    else:
        known = {class_key(name): number for number, name in enumerate(classes)}
        values, places = np.unique(labels, return_inverse=True)
        of_value = np.array([known.get(class_key(str(v)), -1) for v in values.tolist()], np.int32)
        numbers = of_value[places]
        wrong = numbers < 0
        meant = f"the classes are {listing(map(repr, classes) if by_name else classes)}"
    if wrong.any():
        index = int(wrong.argmax())
        raise DataError(
            f"{path}: the label of sequence {index} (counted from 0) is {labels[index]}, but "
            f"{meant}: correct it."
        )
    if not by_name and numbered and all(map(_INTEGER.fullmatch, classes)) and classes[0] != "0":
        return numbers, [
            f"{path.name}: the labels are positions in `classes`, from 0, although the names there "
            "are numbers; a file without `classes` is read by the names."
        ]
    if by_name or numbered or classes[0] == "0":
        return numbers, []
    return numbers, [
        f"{path.name}: the labels do not begin at 0, so they are read as the names of the classes: "
        f"{listing(classes)}."
    ]


def _check_lengths(lengths: np.ndarray, steps: int, fixed: int | None, path: pathlib.Path) -> None:
    wrong = (lengths < 1) | (lengths > steps)
    if wrong.any():
        index = int(wrong.argmax())
        raise DataError(
            f"{path}: the length of sequence {index} (counted from 0) is {lengths[index]}: lengths "
            f"run from 1 to {steps}, the steps of inputs."
        )
    if fixed is not None and (lengths != fixed).any():
        index = int((lengths != fixed).argmax())
        raise DataError(
            f"{path}: sequence {index} (counted from 0) has {lengths[index]} steps where all "
            f"training sequences have {fixed}: save `lengths` in train.npz too if lengths vary."
        )
