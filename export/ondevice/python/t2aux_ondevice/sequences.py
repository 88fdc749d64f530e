"""Checks a classifier's inputs and outputs, for every runtime."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from t2aux_ondevice.errors import DataError, DivergenceError, ModelError, SettingError

if TYPE_CHECKING:
    from t2aux_ondevice.preprocessing import DatasetInfo


def check_sequence(info: DatasetInfo, sequence: np.ndarray) -> np.ndarray:
    """Checks one whole sequence against the description of a classifier's data.

    Args:
        info: The description of the classifier's data.
        sequence: Real values [T, C], or ids [T].

    Returns:
        The sequence as float32 [T, C] or int32 [T].

    Raises:
        UserError: As for `check_steps`, or if T is not the classifier's length.
    """
    sequence = check_steps(info, sequence)
    if info.length is not None and len(sequence) != info.length:
        raise DataError(
            f"The sequence has {len(sequence)} steps where the classifier reads {info.length}."
        )
    return sequence


def check_steps(info: DatasetInfo, sequence: np.ndarray) -> np.ndarray:
    """Checks a part of a sequence; see `check_sequence`.

    Raises:
        UserError: The shape or type is wrong, a value is NaN or infinite, or an id is not in the
            vocabulary.
    """
    sequence = np.asarray(sequence)
    if info.reads_ids:
        if sequence.ndim != 1 or not sequence.size or sequence.dtype.kind not in "iu":
            got = f"{sequence.dtype} of the shape {list(sequence.shape)}"
            raise DataError(f"The sequence is {got}: give integer ids [T] with at least one step.")
        wrong = (sequence < 0) | (sequence >= info.vocabulary_size)
        if wrong.any():
            found, last = sequence[wrong.argmax()], info.vocabulary_size - 1
            raise DataError(f"The sequence holds the id {found}: ids are from 0 to {last}.")
        return sequence.astype(np.int32)
    if sequence.dtype.kind not in "fiub":
        raise DataError(f"The sequence holds {sequence.dtype} values: give real numbers.")
    if sequence.ndim != 2 or sequence.shape[1] != info.channels or not sequence.size:
        raise DataError(
            f"The sequence has the shape {list(sequence.shape)}: give [T, {info.channels}] with at "
            "least one step."
        )
    with np.errstate(over="ignore"):  # A value beyond float32 becomes inf, reported below.
        sequence = sequence.astype(np.float32)
    finite = np.isfinite(sequence).all(axis=1)
    if not finite.all():
        raise DataError(
            f"The sequence holds NaN or an infinite value at step {int(finite.argmin())} (counted "
            "from 0): correct the data."
        )
    return sequence


def padded(sequences: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Makes a batch of sequences.

    Args:
        sequences: At least one sequence [T, C] or [T]; lengths may differ.

    Returns:
        [B, longest T, ...], padded with zeros on the right, and the lengths, int32 [B].
    """
    lengths = np.array([len(sequence) for sequence in sequences], np.int32)
    first = sequences[0]
    inputs = np.zeros([len(sequences), lengths.max(), *first.shape[1:]], first.dtype)
    for row, sequence in zip(inputs, sequences, strict=True):
        row[: len(sequence)] = sequence
    return inputs, lengths


def check_probabilities(
    info: DatasetInfo, model: str | os.PathLike[str], probabilities: np.ndarray
) -> np.ndarray:
    """Checks a model's output for one sequence.

    Args:
        info: The description of the classifier's data.
        model: The name of the model in messages.
        probabilities: The model's output, [1, K].

    Returns:
        float32 [K].

    Raises:
        UserError: The output has a wrong number of classes, or contains NaN: the model is damaged,
            or its metadata belongs to another model.
    """
    if probabilities.shape != (1, info.num_classes):
        raise ModelError(
            f"{model} returns the shape {list(probabilities.shape)}, but its description names "
            f"{info.num_classes} classes: copy both again from the same export."
        )
    if not np.isfinite(probabilities).all():
        raise DivergenceError(f"{model} returns NaN: its weights are damaged, or diverged.")
    return np.asarray(probabilities[0], np.float32)


def segments(sequence: np.ndarray, segment: int) -> Iterator[tuple[int, np.ndarray]]:
    """Cuts a sequence [T, ...] into segments of `segment` steps; the last may be shorter.

    Yields:
        The number of steps up to the end of the segment, and the segment.

    Raises:
        UserError: `segment` is less than 1.
    """
    if segment < 1:
        raise SettingError(f"A segment has {segment} steps: give at least 1.")
    for begin in range(0, len(sequence), segment):
        part = sequence[begin : begin + segment]
        yield begin + len(part), part
