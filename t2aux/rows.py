"""Sequences and labels in memory, in the forms that `SequenceClassifier.fit` takes.

Uses only NumPy, because TensorFlow is not imported for a `.tflite` file.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from t2aux.errors import DataError

_FORMS = (
    "give an array [N, steps, channels], or of ids [N, steps]; a list of arrays [steps, channels] "
    "or [steps]; or a pair of an array and lengths [N] or a mask [N, steps]"
)


def sequences(x: Any, what: str = "x", *, ids: bool) -> list[np.ndarray]:
    """Splits sequences into single arrays without padding.

    Args:
        x: An array or tensor [N, T, ...]; a list of arrays [T, ...] of any lengths, or a
            RaggedTensor; a pair of an array and lengths [N] or a mask [N, T]; or a dictionary of
            "inputs" and "lengths" or "mask".
        what: The name of `x` in messages.
        ids: Whether the sequences are ids [T]; otherwise an array must have three dimensions or,
            for images, four.

    Returns:
        N arrays [T, ...].

    Raises:
        UserError: `x` has another form, or lengths or a mask do not match the array.
    """
    if isinstance(x, Mapping):
        more = x.get("mask", x.get("lengths"))
        if "inputs" not in x or more is None:
            raise DataError(
                f"{what} is a dictionary of {', '.join(map(str, x)) or 'nothing'}: it must have "
                '"inputs", and "lengths" or "mask".'
            )
        x = (x["inputs"], more)
    if isinstance(x, tuple):
        if len(x) != 2 or not hasattr(x[0], "__array__"):
            raise DataError(f"{what} is a tuple of {len(x)}: {_FORMS}.")
        inputs, more = _array(x[0], what), _array(x[1], f"{what}'s lengths or mask")
        _check_dimensions(inputs, what, ids)
        return _without_padding(inputs, more, what)
    if isinstance(x, list):
        return [_array(row, f"{what}[{index}]") for index, row in enumerate(x)]
    if hasattr(x, "ragged_rank"):
        return [_array(row, what) for row in x]
    if not hasattr(x, "__array__"):
        raise DataError(f"{what} is a {type(x).__name__}: {_FORMS}.")
    x = _array(x, what)
    if x.dtype == object:
        return [_array(row, f"{what}[{index}]") for index, row in enumerate(x)]
    _check_dimensions(x, what, ids)
    return list(x)


def labels(y: Any, classes: int, what: str = "y") -> np.ndarray:
    """Converts labels to class numbers.

    Args:
        y: Integers [N] or [N, 1], or one-hot [N, K].
        classes: K, the number of classes.
        what: The name of `y` in messages.

    Returns:
        int32 [N].

    Raises:
        UserError: `y` has another form, or a label is not below K.
    """
    y = _array(y, what)
    if y.ndim == 2 and y.shape[1] == classes > 1:
        if not (((y == 0) | (y == 1)).all() and (y.sum(axis=1) == 1).all()):
            raise DataError(
                f"{what} has the shape {y.shape}, but is not one-hot: give numbers of classes [N]."
            )
        return y.argmax(axis=1).astype(np.int32)
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim != 1 or (y.size and y.dtype.kind not in "iub"):
        raise DataError(
            f"{what} must be whole numbers [N], or one-hot [N, {classes}], but is {y.dtype} of the "
            f"shape {y.shape}; np.unique(..., return_inverse=True) numbers other labels."
        )
    if y.size and not 0 <= y.min() <= y.max() < classes:
        raise DataError(
            f"Labels must be from 0 to {classes - 1}, because there are {classes} classes; {what} "
            f"has labels from {y.min()} to {y.max()}."
        )
    return y.astype(np.int32)


def labelled(x: Any, y: Any, classes: int, *, ids: bool) -> tuple[list[np.ndarray], np.ndarray]:
    """Converts sequences and labels; see `sequences` and `labels`, also for their errors."""
    rows, numbers = sequences(x, ids=ids), labels(y, classes)
    if len(rows) != len(numbers):
        raise DataError(f"x has {len(rows)} sequences, but y {len(numbers)} labels.")
    return rows, numbers


def _check_dimensions(inputs: np.ndarray, what: str, ids: bool) -> None:
    if ids and inputs.ndim != 2:
        raise DataError(f"{what} has the shape {inputs.shape}: give ids [N, steps].")
    if not ids and inputs.ndim < 3:
        raise DataError(
            f"{what} has the shape {inputs.shape}: give [N, steps, channels], even for one "
            "sequence or one channel."
        )


def _array(value: Any, what: str) -> np.ndarray:
    try:
        return np.asarray(value)
    except (ValueError, TypeError) as error:
        raise DataError(f"{what} can't be made an array ({error}): {_FORMS}.") from error


def check_lengths(inputs: np.ndarray, more: np.ndarray, what: str = "x") -> None:
    """Raises UserError if lengths [N] or a mask [N, T] do not match inputs [N, T, ...]."""
    if not more.ndim or len(more) != len(inputs):
        raise DataError(
            f"{what} is a pair of arrays of the shapes {inputs.shape} and {more.shape}: {_FORMS}."
        )
    if more.ndim == 2:
        if more.shape != inputs.shape[:2]:
            raise DataError(
                f"The mask of {what} has the shape {more.shape}, the inputs {inputs.shape}."
            )
        if not more.astype(bool).any(axis=1).all():
            raise DataError(f"The mask of {what} leaves a sequence without steps: each needs one.")
        return
    if more.ndim != 1 or more.dtype.kind not in "iu":
        raise DataError(
            f"The lengths of {what} must be whole numbers [N], but are {more.dtype} of the shape "
            f"{more.shape}."
        )
    if more.size and not 1 <= more.min() <= more.max() <= inputs.shape[1]:
        raise DataError(
            f"The lengths of {what} must be from 1 to the {inputs.shape[1]} steps that the inputs "
            f"have, but are from {more.min()} to {more.max()}."
        )


def _without_padding(inputs: np.ndarray, more: np.ndarray, what: str) -> list[np.ndarray]:
    check_lengths(inputs, more, what)
    if more.ndim == 2:
        return [row[mask] for row, mask in zip(inputs, more.astype(bool), strict=True)]
    return [row[:length] for row, length in zip(inputs, more.tolist(), strict=True)]
