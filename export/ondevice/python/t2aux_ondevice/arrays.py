"""Reads arrays in numpy's formats that somebody else may have made."""

from __future__ import annotations

import io
import os
import struct
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Iterable
from typing import IO

import numpy as np

from t2aux_ondevice import limits
from t2aux_ondevice.errors import UserError

# What zipfile and numpy raise for damage, unknown compression and encryption among it.
_DAMAGE = (
    OSError,
    EOFError,
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    ArithmeticError,
    SyntaxError,
    RuntimeError,
    MemoryError,
    struct.error,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)
# What numpy writes. Others unpack without a bound.
_PACKINGS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
# What a ragged list, or strings that pandas held, should have been saved as.
_INSTEAD_OF_OBJECTS = {
    "inputs": "pad sequences of various lengths to one array [N, T, C] of numbers, and save their "
    "lengths as `lengths` [N]",
    "classes": "save it with dtype=str",
    "labels": "save names with dtype=str, and numbers with dtype=int",
}
_OTHER_INSTEAD = "save it with a dtype of whole numbers"


def read_npz(path: str | os.PathLike[str], names: Iterable[str]) -> dict[str, np.ndarray]:
    """Reads those of the named arrays that are there.

    Not through `numpy.load`, which takes memory for as many values as a header claims. Pickled
    objects, which could run code, are refused.

    Args:
        path: The file.
        names: Of the arrays; others are passed over.

    Returns:
        The arrays by name. They can be written to.

    Raises:
        UserError: The file is missing or damaged, or holds more than it may (`limits`).
    """
    arrays = {}
    try:
        most = limits.most_unpacked(os.path.getsize(path))
        with zipfile.ZipFile(path) as archive:
            there = set(archive.namelist())
            for name in names:
                if f"{name}.npy" in there:
                    arrays[name] = _read(archive, f"{name}.npy", most)
                    most -= arrays[name].nbytes
    except _ObjectsError as error:
        raise UserError(
            f"{path}: {error} is an array of Python objects, which are pickled and could run code, "
            f"so they are never loaded: {_INSTEAD_OF_OBJECTS.get(str(error), _OTHER_INSTEAD)}."
        ) from error
    except _Large as error:
        raise limits.too_much(path, error.most) from error
    except _DAMAGE as error:
        reason = getattr(error, "strerror", None) or str(error).strip() or type(error).__name__
        raise UserError(
            f"{path} is damaged or not an .npz file ({reason.splitlines()[0].rstrip('.')}): save "
            "it with numpy.savez."
        ) from error
    return arrays


def read_npy(content: bytes) -> np.ndarray:
    """Reads the content of an `.npy` file as `read_npz` reads an array. Raises ValueError."""
    try:
        return _read_array(io.BytesIO(content), len(content), "it")
    except _ObjectsError as error:
        raise ValueError(f"{error} holds pickled objects, which could run code") from error
    except _DAMAGE as error:
        raise ValueError(str(error).strip() or type(error).__name__) from error


class _ObjectsError(ValueError):
    """An array, whose name it is given, holds Python objects."""


class _Large(Exception):
    def __init__(self, most: int) -> None:
        super().__init__(most)
        self.most = most


def _read(archive: zipfile.ZipFile, member: str, most: int) -> np.ndarray:
    info = archive.getinfo(member)
    if info.compress_type not in _PACKINGS:
        raise ValueError(f"{member} is packed as numpy does not")
    if info.file_size > most:
        raise _Large(most)
    with archive.open(info) as file:
        return _read_array(file, info.file_size, member)


def _read_array(file: IO[bytes], file_size: int, name: str) -> np.ndarray:
    version = np.lib.format.read_magic(file)
    read_header = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }.get(version)
    if read_header is None:
        raise ValueError(f"{name} is of a format that only arrays of records have")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Of headers that Python 2 wrote.
        shape, fortran, dtype = read_header(file)
    if dtype.hasobject:
        raise _ObjectsError(name.removesuffix(".npy"))
    size = dtype.itemsize
    for length in shape:
        size *= length
    if min(shape, default=0) < 0 or size != file_size - file.tell():
        raise ValueError(f"{name} does not hold what its header says")
    content = limits.read_most(file, size)
    if len(content) != size:
        raise EOFError(f"{name} is cut off")
    return np.frombuffer(content, dtype).reshape(shape, order="F" if fortran else "C")
