"""Reads the inputs to classify: converts images, texts and arrays to sequences, one by one.

Needs numpy, and Pillow for image files.
"""

from __future__ import annotations

import contextlib
import dataclasses
import mimetypes
import os
import pathlib
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from t2aux_ondevice import kinds
from t2aux_ondevice.arrays import read_npz as read_arrays
from t2aux_ondevice.errors import DataError, FileError, SettingError, UserError
from t2aux_ondevice.files import read_bytes
from t2aux_ondevice.paths import local
from t2aux_ondevice.preprocessing import DatasetInfo, scale_pixels, with_pillow
from t2aux_ondevice.sequences import check_sequence

_MAX_TITLE = 60
_MAX_NAME = 255


@dataclasses.dataclass(frozen=True, eq=False)
class Input:
    """One sequence to classify.

    Attributes:
        name: The file, with the number of the sequence if it contains several; or the text.
        sequence: The sequence in the classifier's form: float32 [T, C] or int32 [T].
        title: The name in messages: the file, or the beginning of the text.
        cut: Whether it was longer than the classifier's `max_length`, and was cut.
        text_lines: The number of lines of a text file, which is read as one text.
    """

    name: str
    sequence: np.ndarray
    title: str
    cut: bool = False
    text_lines: int = 1


def read_inputs(
    info: DatasetInfo, paths: Iterable[str], texts: Iterable[str] = ()
) -> Iterator[Input]:
    """Reads inputs, one sequence at a time.

    Args:
        info: The description of the classifier's data.
        paths: Image files; `.txt` files (UTF-8, one text each, without the final line break); or
            `.npz` files, see `read_npz`. A file with any other name is read as the kind of data
            that the classifier reads; tables, archives and documents are rejected.
        texts: Texts that are given directly; they come first.

    Yields:
        The sequences, one at a time.

    Raises:
        UserError: An input is missing, damaged, empty or not of the kind that the classifier reads.
            The message names the input.
    """
    for text in texts:
        title = repr(_shortened(text))
        kinds.check_kind(info, "text", f"--text={title}")
        with named(f"--text={title}"):
            ids = info.text_ids(text)
        yield Input(text, ids, title, info.cuts(text))
    for given in paths:
        if not given:
            raise SettingError("An input is an empty name: give the name of a file.")
        # A longer name may be a text that was given by mistake.
        path = pathlib.Path(given if len(str(given)) > _MAX_NAME else local(given, "An input"))
        # Path's methods would raise OSError for a name that is too long, such as a text.
        if os.path.isdir(path):
            raise FileError(
                f"{path} is a directory: give its files, or use `t2aux predict --data={path}`."
            )
        if not os.path.exists(path):
            hint = ", or give a text as --text" if info.is_text else ""
            raise FileError(f"Can't find the file {path}: check the path{hint}.")
        if path.suffix.lower() == ".npz":
            yield from read_npz(info, path)
            continue
        kinds.check_name(info, path)
        if _is_read_as_text(info, path):
            kinds.check_kind(info, "text", str(path))
            text = kinds.decode_text(info, read_bytes(path), path)
            with named(str(path)):
                ids = info.text_ids(text)
            lines = text.count("\n") + 1
            yield Input(str(path), ids, str(path), info.cuts(text), lines)
        else:
            if info.kind in ("vectors", "ids") and not _names(path, "image"):
                raise DataError(f"{path} is not an .npz file, which this classifier reads.")
            kinds.check_kind(info, "image", str(path))
            yield Input(str(path), info.image_sequence(with_pillow().read_image(path)), str(path))


def read_npz(info: DatasetInfo, path: pathlib.Path) -> Iterator[Input]:
    """Reads the sequences of an `.npz` file.

    The array `inputs` contains real values [N, T, C] (or [N, T] if C is 1) in the classifier's
    form: in its order of steps, with pixels in [0, 1]. For an image classifier, it may also be
        uint8: pixel
    sequences of the same shape, which are scaled, or images [N, H, W] or [N, H, W, C] of any size,
    which are treated like files. For a classifier of text or ids, it contains integer ids [N, T].
    The optional `lengths` [N] contains the number of steps of each sequence, without padding.

    Yields:
        The sequences in order.

    Raises:
        UserError: The file or an array in it is missing or damaged, has a wrong shape or type, or
            contains NaN. The message names the file.
    """
    for index, true in enumerate(npz_sequences(info, path)):
        yield read_array(info, true, f"{path}[{index}]")


def npz_sequences(info: DatasetInfo, path: pathlib.Path) -> NpzSequences:
    """Reads the arrays of an `.npz` file, see `read_npz`.

    Returns:
        The sequences in the form for `read_array`, without padding.

    Raises:
        UserError: As for `read_npz`, except for errors in a single sequence.
    """
    inputs, lengths = _read_arrays(path)
    if inputs.ndim == 2 and not info.reads_ids:
        inputs = inputs[:, :, np.newaxis]
    wanted = "[N, T] (ids)" if info.reads_ids else f"[N, T, {info.channels}]"
    is_images = _are_images(info, inputs[0])
    if not is_images and inputs.shape[2:] != (() if info.reads_ids else (info.channels,)):
        raise DataError(f"{path}: inputs has the shape {list(inputs.shape)}, not {wanted}.")
    return NpzSequences(inputs, None if is_images else lengths)


class NpzSequences(Sequence[np.ndarray]):
    """The sequences of an `.npz` file, each a view of its array."""

    def __init__(self, inputs: np.ndarray, lengths: np.ndarray | None) -> None:
        """Wraps inputs [N, T, ...] and lengths [N]."""
        self._inputs = inputs
        self._lengths = lengths

    def __len__(self) -> int:
        return len(self._inputs)

    def __getitem__(self, index: int) -> np.ndarray:
        array = self._inputs[index]
        return array if self._lengths is None else array[: self._lengths[index]]


def read_array(info: DatasetInfo, array: np.ndarray, name: str) -> Input:
    """Converts an array to one sequence.

    Args:
        info: The description of the classifier's data.
        array: Real values [T, C], or [T] if C is 1, or ids [T]. For an image classifier, it may
            also be uint8: a sequence of pixels, which is scaled, or an image [H, W] or [H, W, C] of
            any size. An array that is longer than the classifier's `max_length` is cut.
        name: The name of the array.

    Raises:
        UserError: The array has a wrong shape or type, or contains NaN or an invalid id or pixel.
            The message names the array.
    """
    if array.ndim == 1 and info.channels == 1:
        array = array[:, np.newaxis]
    cut = False
    with named(name):
        if _are_images(info, array):
            sequence = info.image_sequence(array)
        else:
            if info.kind == "image" and array.dtype == np.uint8:
                array = scale_pixels(array)
            cut = array.ndim > 0 and info.max_length is not None and len(array) > info.max_length
            sequence = check_sequence(info, array[: info.max_length] if cut else array)
            _check_pixels(info, sequence)
    return Input(name, sequence, name, cut)


@contextlib.contextmanager
def named(name: str) -> Iterator[None]:
    """Puts the input's name before an error's message."""
    try:
        yield
    except UserError as error:
        raise error.with_message(f"{name}: {error}") from error


def _is_read_as_text(info: DatasetInfo, path: pathlib.Path) -> bool:
    return _names(path, "text") or (info.is_text and not _names(path, "image"))


def _names(path: pathlib.Path, kind: str) -> bool:
    """Whether a file has the name of an "image" or a "text"."""
    return (mimetypes.guess_type(path.name)[0] or "").startswith(f"{kind}/")


def _shortened(text: str) -> str:
    """The beginning of a text, on one line."""
    text = " ".join(text.split())
    return text if len(text) <= _MAX_TITLE else text[: _MAX_TITLE - 3] + "..."


def _are_images(info: DatasetInfo, array: np.ndarray) -> bool:
    """Whether an input array of an image classifier is an image, not a sequence of pixels."""
    is_bytes = info.kind == "image" and array.dtype == np.uint8
    return is_bytes and (array.ndim > 2 or array.shape[-1:] != (info.channels,))


def _check_pixels(info: DatasetInfo, sequence: np.ndarray) -> None:
    if info.kind != "image":
        return
    outside = (sequence < 0) | (sequence > 1)
    if outside.any():
        raise DataError(
            f"A pixel is {sequence[outside][0]:g}: give values in [0, 1], or 0 to 255 as uint8."
        )


def _read_arrays(path: pathlib.Path) -> tuple[np.ndarray, np.ndarray | None]:
    """Reads inputs [N, T, ...] and lengths [N]."""
    arrays = read_arrays(path, ("inputs", "lengths"))
    if "inputs" not in arrays:
        raise DataError(f"{path} has no array `inputs`: use numpy.savez(..., inputs=...).")
    inputs, lengths = arrays["inputs"], arrays.get("lengths")
    if inputs.dtype.kind not in "fiu" or inputs.ndim < 2 or not inputs.size:
        found = f"{inputs.dtype} of the shape {list(inputs.shape)}"
        raise DataError(f"{path}: inputs is {found}: give numbers [N, T, C], none of them 0.")
    if lengths is None:
        return inputs, None
    if lengths.dtype.kind not in "iu" or lengths.shape != (len(inputs),):
        found = f"{lengths.dtype} of the shape {list(lengths.shape)}"
        raise DataError(f"{path}: lengths is {found}: give integers [{len(inputs)}].")
    wrong = (lengths < 1) | (lengths > inputs.shape[1])
    if wrong.any():
        index = int(wrong.argmax())
        raise DataError(
            f"{path}: the length of sequence {index} (counted from 0) is {lengths[index]}, and not "
            f"from 1 to {inputs.shape[1]}, the steps of inputs."
        )
    return inputs, lengths
