"""Reads arrays in numpy's formats from untrusted files."""

from __future__ import annotations

import io
import math
import os
import warnings
import zipfile
from collections.abc import Iterable
from typing import IO

import numpy as np

from t2aux_ondevice import limits
from t2aux_ondevice.errors import DataError, UserError, reason

# The methods that numpy writes. Others decompress without a limit.
_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
# How to save ragged lists or pandas' strings instead.
_INSTEAD_OF_OBJECTS = {
    "inputs": "pad sequences of various lengths to one array [N, T, C] of numbers, and save their "
    "lengths as `lengths` [N]",
    "classes": "save it with dtype=str",
    "labels": "save names with dtype=str, and numbers with dtype=int",
}
_OTHER_INSTEAD = "save it with a dtype of whole numbers"


def read_npz(path: str | os.PathLike[str], names: Iterable[str]) -> dict[str, np.ndarray]:
    """Reads the named arrays that exist.

    `numpy.load` is not used, because it allocates memory for as many values as a header claims.
    Pickled objects, which could run code, are rejected.

    Args:
        path: The file.
        names: The names of the arrays; others are ignored.

    Returns:
        The arrays by name. They are writable.

    Raises:
        UserError: The file is missing or damaged, or exceeds the limits (`limits`).
    """
    arrays = {}
    try:
        most = limits.most_unpacked(os.path.getsize(path))
        with zipfile.ZipFile(path) as archive:
            members = set(archive.namelist())
            for name in names:
                if f"{name}.npy" in members:
                    arrays[name] = _read(archive, f"{name}.npy", most)
                    most -= arrays[name].nbytes
    except _ObjectsError as error:
        instead = _INSTEAD_OF_OBJECTS.get(str(error), _OTHER_INSTEAD)
        raise DataError(
            f"{path}: {error} is an array of Python objects, which could run code: {instead}."
        ) from error
    except _Large as error:
        raise limits.too_much(path, error.args[0]) from error
    except UserError:
        raise
    except Exception as error:  # zipfile and numpy may raise any exception for damaged files.
        raise DataError(
            f"{path} is damaged or not an .npz file ({reason(error)}): save it with numpy.savez."
        ) from error
    return arrays


def read_npy(content: bytes) -> np.ndarray:
    """Reads the content of an `.npy` file, like an array in `read_npz`. Raises ValueError."""
    try:
        return _read_array(io.BytesIO(content), len(content), "it")
    except _ObjectsError as error:
        raise ValueError("it holds pickled objects, which could run code") from error
    except Exception as error:  # As above.
        raise ValueError(reason(error)) from error


class _ObjectsError(ValueError):
    """An array contains Python objects. The argument is the array's name."""


class _Large(Exception):
    """An array is larger than the limit, which is the argument."""


def _read(archive: zipfile.ZipFile, member: str, most: int) -> np.ndarray:
    info = archive.getinfo(member)
    if info.compress_type not in _COMPRESSIONS:
        raise ValueError(f"{member} is not compressed as numpy does")
    if info.file_size > most:
        raise _Large(most)
    with archive.open(info) as file:
        return _read_array(file, info.file_size, member)


def _read_array(file: IO[bytes], file_size: int, name: str) -> np.ndarray:
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        read_header = np.lib.format.read_array_header_1_0
    elif version == (2, 0):
        read_header = np.lib.format.read_array_header_2_0
    else:
        raise ValueError(f"{name} has a format of arrays of records")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # About headers written by Python 2.
        shape, fortran, dtype = read_header(file)
    if dtype.hasobject:
        raise _ObjectsError(name.removesuffix(".npy"))
    size = dtype.itemsize * math.prod(shape)
    if min(shape, default=0) < 0 or size != file_size - file.tell():
        raise ValueError(f"{name} does not hold what its header says")
    content = limits.read_most(file, size)
    if len(content) != size:
        raise EOFError(f"{name} is cut off")
    return np.frombuffer(content, dtype).reshape(shape, order="F" if fortran else "C")
