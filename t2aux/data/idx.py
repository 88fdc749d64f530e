"""`idx`: the IDX files of MNIST and similar data sets, with the file names of MNIST or EMNIST.

Format: Y. LeCun, C. Cortes, C. Burges, "The MNIST database": a big-endian header (0x0000, type
0x08 for unsigned bytes, number of dimensions; the dimensions as 32-bit integers), then the values.
"""

from __future__ import annotations

import dataclasses
import math
import pathlib
import re
from typing import IO, NamedTuple

import gin
import numpy as np

from t2aux.data.pixels import image_info, image_rows, permute
from t2aux.data.source import GreyImageSource
from t2aux.data.table import (
    DAMAGE,
    Options,
    Table,
    damaged,
    find_file,
    misnamed,
    open_compressed,
    read_class_names,
    require_data_dir,
    subset,
)
from t2aux.errors import DataError, FileError, listing
from t2aux_ondevice.preprocessing import DatasetInfo

# The names of the four files in different data sets: train-images-idx3-ubyte,
# train-images.idx3-ubyte, emnist-letters-test-labels-idx1-ubyte.gz, ...
_FILE_NAME = re.compile(
    r"(.*[-_.])?(train|t10k|test)[-_.](images|labels)[-_.]idx([13])[-_.]ubyte(\.gz)?", re.IGNORECASE
)
_DIMENSIONS = {"images": "3", "labels": "1"}
_UNSIGNED_BYTES = 0x08


@gin.configurable("idx")
@dataclasses.dataclass(frozen=True)
class Idx(GreyImageSource):
    """MNIST's four files, train-images-idx3-ubyte[.gz], ..., or others like them."""

    def read(self, split: str, options: Options) -> tuple[DatasetInfo, Table]:
        """Reads grey images and labels.

        Files: train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and
        t10k-labels-idx1-ubyte, each optionally with .gz; and optionally classes.txt with one name
        per line. The file names may also begin with the name of the data set, have "test" for
        "t10k" and dots for hyphens, and contain capitals.

        Raises:
            UserError: A file is missing, damaged, present twice, or contradicts another.
        """
        folder = require_data_dir("idx", options)
        image_path, label_path = _paths(folder, split)
        images, labels = read_pair(image_path, label_path)
        size = images.shape[1:]
        if split != "train" and options.info is None:
            train_images, train_labels = _paths(folder, "train")
            size = read_array(train_images, 3).shape[1:]
        classes = read_class_names(folder / "classes.txt")
        if classes is None and options.info is not None:
            classes = options.info.classes
        elif classes is None:
            largest = (labels if split == "train" else read_array(train_labels, 1)).max(initial=0)
            classes = tuple(str(label) for label in range(int(largest) + 1))
        if len(labels) and labels.max() >= len(classes):
            index = int((labels >= len(classes)).argmax())
            raise DataError(
                f"{label_path} gives image {index} (counted from 0) the label {labels[index]}, but "
                f"there are {len(classes)} classes: labels run from 0 to {len(classes) - 1}."
            )
        info = image_info("idx", classes, 1, size, options)
        counts = np.bincount(labels, minlength=len(classes))
        notes = _notes(image_path, label_path)
        chosen = subset(len(images), options.max_examples)
        images, labels = images[chosen], labels[chosen]
        if images.shape[1:] == (info.side, info.side) and not info.border:
            rows = images.reshape(len(images), info.length, 1)
            table = Table.of_rows(permute(rows, info), labels)
        else:
            named = (
                (f"Image {i} of {image_path}", image)
                for i, image in zip(chosen, images, strict=True)
            )
            table = image_rows(named, labels, info, options).table()
        return info, dataclasses.replace(table, counts=counts, notes=notes)


def _notes(image_path: pathlib.Path, label_path: pathlib.Path) -> tuple[str, ...]:
    notes = []
    if not re.fullmatch(r"(train|t10k)-images-idx3-ubyte(\.gz)?", image_path.name):
        notes.append(f"The files were found as {image_path.name} and {label_path.name}.")
    if image_path.name.lower().startswith("emnist"):
        notes.append(
            "EMNIST's files hold each image with its rows and columns exchanged: a classifier "
            "trained on them needs such images, too."
        )
    return tuple(notes)


def read_array(path: pathlib.Path, dimensions: int) -> np.ndarray:
    """Reads an IDX file of unsigned bytes.

    Args:
        path: The file, possibly compressed with gzip (.gz).
        dimensions: The expected number of dimensions.

    Returns:
        A uint8 array with that many dimensions.

    Raises:
        UserError: The file is missing or damaged, has another type or number of dimensions, or its
            size differs from its header.
    """
    try:
        with open_compressed(path) as file:
            shape = _header(file, path, dimensions)
            values = file.read()
    except DAMAGE as error:
        raise damaged(path, error) from error
    expected = math.prod(shape)
    if len(values) != expected:
        raise DataError(
            f"{path} should hold {expected:,} values (its header says "
            f"{' x '.join(map(str, shape))}) but holds {len(values):,}: download it "
            "again."
        )
    return np.frombuffer(values, np.uint8).reshape(shape)


def _header(file: IO[bytes], path: pathlib.Path, dimensions: int) -> tuple[int, ...]:
    size = 4 + 4 * dimensions
    header = file.read(size)
    magic = bytes([0, 0, _UNSIGNED_BYTES, dimensions])
    if header[:4] != magic or len(header) < size:
        if (what := misnamed(path)) is not None:
            raise DataError(f"{path} {what}.")
        raise DataError(
            f"{path} is not an IDX file of {dimensions}-dimensional unsigned bytes: it starts with "
            f"{header[:4].hex(' ') or 'nothing'} where {magic.hex(' ')} belongs; download it again."
        )
    shape = tuple(int(n) for n in np.frombuffer(header[4:], ">u4"))
    if 0 in shape:
        raise DataError(f"{path} has no examples: download it again.")
    return shape


def read_pair(image_path: pathlib.Path, label_path: pathlib.Path) -> tuple[np.ndarray, np.ndarray]:
    """Reads images, uint8 [N, H, W], and their labels, uint8 [N].

    Raises:
        UserError: As for `read_array`, or if the numbers of images and labels differ.
    """
    images, labels = read_array(image_path, 3), read_array(label_path, 1)
    if len(images) != len(labels):
        raise DataError(
            f"{image_path} holds {len(images)} images but {label_path} {len(labels)} labels: take "
            "both from the same data set."
        )
    return images, labels


def is_images(path: pathlib.Path) -> bool:
    """Whether a file's name is that of the images of an IDX data set."""
    match = _FILE_NAME.fullmatch(path.name)
    return match is not None and match[3].lower() == "images" and match[4] == "3"


def labels_of(images: pathlib.Path) -> pathlib.Path | None:
    """The file of labels beside a file of images, compressed or not; None if there is none."""
    match = _FILE_NAME.fullmatch(images.name)
    for path in sorted(images.parent.iterdir()):
        other = _FILE_NAME.fullmatch(path.name)
        is_same = other is not None and (other[1], other[2]) == (match[1], match[2])
        if is_same and (other[3].lower(), other[4]) == ("labels", "1") and path.is_file():
            return path
    return None


class _Found(NamedTuple):
    data_set: str  # The part before "train" or "test".
    is_plain: bool  # Not compressed.
    path: pathlib.Path


def _paths(folder: pathlib.Path, split: str) -> tuple[pathlib.Path, pathlib.Path]:
    """Returns the files of images and of labels."""
    found: dict[str, list[_Found]] = {"images": [], "labels": []}
    try:
        paths = sorted(folder.iterdir())
    except OSError as error:
        raise damaged(folder, error) from error
    for path in paths:
        # Kaggle's MNIST has each file twice, once in a folder of its name.
        match = None if path.is_dir() else _FILE_NAME.fullmatch(path.name)
        if match and (match[2].lower() == "train") == (split == "train"):
            part = match[3].lower()
            if match[4] == _DIMENSIONS[part]:
                found[part].append(_Found((match[1] or "").lower(), not match[5], path))
    for part, files in found.items():
        # A file and the archive that it was unpacked from count once.
        plain = {file.path.name for file in files if file.is_plain}
        files[:] = [f for f in files if f.is_plain or f.path.name[:-3] not in plain]
        if not files:
            prefix = "train" if split == "train" else "t10k"
            name = f"{prefix}-{part}-idx{_DIMENSIONS[part]}-ubyte"
            find_file(folder, [name, f"{name}.gz"], "idx")
        if len(files) > 1:
            names = listing(file.path.name for file in files)
            raise FileError(
                f"{folder} has {len(files)} files of the {split} {part} ({names}): leave the one "
                "that is meant."
            )
    (images,), (labels,) = found["images"], found["labels"]
    if images.data_set != labels.data_set:
        raise DataError(
            f"{images.path} and {labels.path.name} seem to be from different data sets: put the "
            "labels of the same data set beside the images."
        )
    return images.path, labels.path
