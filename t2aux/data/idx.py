"""`idx`: the IDX files of MNIST and its relatives, under MNIST's four file names.

Format: Y. LeCun, C. Cortes, C. Burges, "The MNIST database": a big-endian header (0x0000, type
0x08 for unsigned bytes, number of dimensions; the dimensions as 32-bit integers), then the values.
"""

from __future__ import annotations

import math
import pathlib
from typing import IO

import numpy as np

from t2aux.data.pixels import image_info, image_table, permute
from t2aux.data.table import (
    DAMAGE,
    Options,
    Table,
    damaged,
    find_file,
    open_compressed,
    read_class_names,
    require_data_dir,
    subset,
)
from t2aux.errors import UserError
from t2aux_ondevice import limits
from t2aux_ondevice.preprocessing import DatasetInfo

_PREFIXES = {"train": "train", "test": "t10k"}
_UNSIGNED_BYTES = 0x08


def read(split: str, options: Options) -> tuple[DatasetInfo, Table]:
    """Reads grey images and labels.

    Files: train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and
    t10k-labels-idx1-ubyte, each possibly with .gz; optionally classes.txt, a name a line.

    Raises:
        UserError: A file is missing, damaged, or contradicts another.
    """
    folder = require_data_dir("idx", options)
    image_path, label_path = _paths(folder, split)
    images, labels = read_array(image_path, 3), read_array(label_path, 1)
    if len(images) != len(labels):
        raise UserError(
            f"{image_path} holds {len(images)} images but {label_path} {len(labels)} labels: take "
            "both from the same data set."
        )
    size = images.shape[1:]
    if split != "train" and options.info is None:
        train_images, train_labels = _paths(folder, "train")
        size = _read_shape(train_images, 3)[1:]
    classes = read_class_names(folder / "classes.txt")
    if classes is None and options.info is not None:
        classes = options.info.classes
    elif classes is None:
        largest = (labels if split == "train" else read_array(train_labels, 1)).max(initial=0)
        classes = tuple(str(label) for label in range(int(largest) + 1))
    if len(labels) and labels.max() >= len(classes):
        index = int((labels >= len(classes)).argmax())
        raise UserError(
            f"{label_path} gives image {index} (counted from 0) the label {labels[index]}, but "
            f"there are {len(classes)} classes: labels run from 0 to {len(classes) - 1}."
        )
    info = image_info("idx", classes, 1, size, options)
    chosen = subset(len(images), options.max_examples)
    images, labels = images[chosen], labels[chosen]
    if images.shape[1:] == (info.side, info.side) and not info.border:
        rows = images.reshape(len(images), info.length, 1)
        return info, Table.of_rows(permute(rows, info), labels)
    named = ((f"Image {i} of {image_path}", image) for i, image in zip(chosen, images, strict=True))
    return info, image_table(named, labels, info, resize=options.resize)


def read_array(path: pathlib.Path, dimensions: int) -> np.ndarray:
    """Reads an IDX file of unsigned bytes.

    Args:
        path: The file, possibly compressed with gzip (.gz).
        dimensions: The number of dimensions that it must have.

    Returns:
        A uint8 array of that many dimensions.

    Raises:
        UserError: The file is missing, damaged, or of another type, rank or size than it says.
    """
    try:
        with open_compressed(path) as file:
            shape = _header(file, path, dimensions)
            expected = math.prod(shape)
            # One byte more, to notice a file that is too long.
            values = limits.read_most(file, expected + 1)
    except (*DAMAGE, MemoryError) as error:
        raise damaged(path, error) from error
    if len(values) != expected:
        found = "more" if len(values) > expected else f"only {len(values):,}"
        raise UserError(
            f"{path} should hold {expected:,} values (its header says "
            f"{' x '.join(map(str, shape))}) but holds {found}: download it anew."
        )
    return np.frombuffer(values, np.uint8).reshape(shape)


def _read_shape(path: pathlib.Path, dimensions: int) -> tuple[int, ...]:
    try:
        with open_compressed(path) as file:
            return _header(file, path, dimensions)
    except DAMAGE as error:
        raise damaged(path, error) from error


def _header(file: IO[bytes], path: pathlib.Path, dimensions: int) -> tuple[int, ...]:
    size = 4 + 4 * dimensions
    header = file.read(size)
    magic = bytes([0, 0, _UNSIGNED_BYTES, dimensions])
    if header[:4] != magic or len(header) < size:
        raise UserError(
            f"{path} is not an IDX file of {dimensions}-dimensional unsigned bytes: it starts with "
            f"{header[:4].hex(' ') or 'nothing'} where {magic.hex(' ')} belongs; download it anew."
        )
    shape = tuple(int(n) for n in np.frombuffer(header[4:], ">u4"))
    if 0 in shape:
        raise UserError(f"{path} has no examples: download it anew.")
    return shape


def _paths(folder: pathlib.Path, split: str) -> tuple[pathlib.Path, pathlib.Path]:
    names = [f"{_PREFIXES[split]}-{part}-ubyte" for part in ("images-idx3", "labels-idx1")]
    images, labels = (find_file(folder, [name, f"{name}.gz"], "idx") for name in names)
    return images, labels
