"""Rows that are arrays: `.npz` files, IDX files of images, and data sets of any source."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Iterator

import gin
import numpy as np
import pyarrow as pa

from t2aux import data
from t2aux.data import idx as idx_files
from t2aux.data import loading, manifest
from t2aux.data.shards import open_shard
from t2aux.data.table import read_class_names
from t2aux.errors import UserError
from t2aux.prediction.rows import Row
from t2aux.prediction.source import Source
from t2aux_ondevice import reading
from t2aux_ondevice.arrays import read_npz
from t2aux_ondevice.preprocessing import DatasetInfo

_NUMBER = re.compile(r"-?\d+")
# What `load` is given by gin besides the source.
_SETTINGS = ("data_dir", "max_examples", "splits", "test_fraction", "split_seed", "allow")


def npz(path: pathlib.Path, info: DatasetInfo, name: str | None = None) -> Source:
    """The sequences of an `.npz` file, which is read into memory.

    Its array `labels` [N], where it is there, has the names of the classes; or numbers: of the
    names in its array `classes`; or of the classifier's classes, which are called so where their
    names are numbers, and else are counted from 0.

    Args:
        path: The file; see `reading.read_npz`.
        info: What the classifier reads.
        name: What messages call it; by default the path.

    Raises:
        UserError: As `reading.read_npz`; or the labels are not one for each sequence.
    """
    name = name or str(path)
    try:
        sequences = reading.npz_sequences(info, path)
        labels = _npz_labels(path, info, len(sequences))
    except UserError as error:
        raise UserError(str(error).replace(str(path), name)) from error

    def rows() -> Iterator[Row]:
        for index, sequence in enumerate(sequences):
            label = None if labels is None else labels[index]
            yield Row(index, f"{name}[{index}]", sequence, label)

    return _source(name, rows, labels is not None, len(sequences))


def ts(path: pathlib.Path) -> Source:
    """The sequences of a `.ts` file of the UCR and UEA archives, which is read into memory.

    Args:
        path: The file, with classes or without.

    Raises:
        UserError: The file is damaged, or has missing values or time stamps.
    """
    from t2aux.data.ts import TsFile

    file = TsFile(path, needs_classes=False)

    def rows() -> Iterator[Row]:
        for index, sequence in enumerate(file.sequences):
            yield Row(
                index, f"{path}[{index}]", sequence, file.labels[index] if file.labels else None
            )

    return _source(str(path), rows, bool(file.labels), len(file.sequences))


def _npz_labels(path: pathlib.Path, info: DatasetInfo, count: int) -> list[str | int] | None:
    arrays = read_npz(path, ("labels", "classes"))
    labels = arrays.get("labels")
    if labels is None:
        return None
    if labels.shape != (count,) or labels.dtype.kind not in "iuUS":
        raise UserError(
            f"{path}: labels is {labels.dtype} of the shape {list(labels.shape)}: give whole "
            f"numbers or names [{count}], one for each of the inputs, or leave it out."
        )
    if labels.dtype.kind not in "iu":
        return _texts(labels, path)
    if "classes" in arrays:
        names = _texts(arrays["classes"], path)
        return [names[n] if 0 <= n < len(names) else str(n) for n in labels.tolist()]
    if all(_NUMBER.fullmatch(name) for name in info.classes):
        return [str(label) for label in labels.tolist()]
    return labels.tolist()


def _texts(array: np.ndarray, path: pathlib.Path) -> list[str]:
    if array.dtype.kind == "S":
        try:
            array = np.char.decode(array, "utf-8")
        except UnicodeDecodeError as error:
            raise UserError(
                f"{path}: labels or classes holds bytes that are not UTF-8: save it with dtype=str."
            ) from error
    return [str(value) for value in array.ravel().tolist()]


def idx(path: pathlib.Path, info: DatasetInfo) -> Source:
    """The images of an IDX file such as t10k-images-idx3-ubyte[.gz].

    The file of labels beside it, where there is one, has the numbers of the classes; of the names
    in a classes.txt beside it, where there is one.

    Raises:
        UserError: A file is damaged, or the classifier does not read images.
    """
    if info.kind != "image":
        raise UserError(f"{path} holds images, and the classifier reads {info.kind}: give those.")
    images = idx_files.read_array(path, 3)
    label_path = idx_files.labels_of(path)
    labels: list[str | int] | None = None
    if label_path is not None:
        labels = idx_files.read_array(label_path, 1).tolist()
        if len(labels) != len(images):
            raise UserError(
                f"{path} holds {len(images)} images but {label_path} {len(labels)} labels: take "
                "both from the same data set."
            )
        names = read_class_names(path.parent / "classes.txt")
        if names is not None:
            labels = [names[n] if n < len(names) else str(n) for n in labels]

    def rows() -> Iterator[Row]:
        for index, image in enumerate(images):
            label = None if labels is None else labels[index]
            yield Row(index, f"image {index} of {path}", image, label)

    notes = () if label_path is None else (f"The labels are in {label_path.name}.",)
    return _source(str(path), rows, labels is not None, len(images), notes)


def data_set(
    source: data.Source, split: str, info: DatasetInfo, data_dir: str | pathlib.Path | None = None
) -> Source:
    """A split of a data set, prepared as `t2aux.data.load` does for the classifier.

    What gin's configuration says of `dataset` holds.

    Args:
        source: The data set.
        split: Its split.
        info: What the classifier reads.
        data_dir: The folder of its files; by default as gin's configuration says.

    Raises:
        UserError: As `t2aux.data.load`.
    """
    bound = gin.get_bindings("dataset")
    given = {key: bound[key] for key in _SETTINGS if key in bound}
    if data_dir is not None:
        given["data_dir"] = str(data_dir)
    found, examples = loading.read(source, split, info, **given)

    def rows() -> Iterator[Row]:
        labels = examples.labels.tolist()
        for index, (sequence, label) in enumerate(zip(examples.sequences(), labels, strict=True)):
            yield Row(index, f"{found.name}, {split}[{index}]", sequence, label)

    what = f"{found.name}, {split}"
    return _source(what, rows, True, len(examples.labels), tuple(examples.notes))


def shards(folder: pathlib.Path, split: str, info: DatasetInfo) -> tuple[int, Source]:
    """What dataset.json says of a split in shards; they themselves need not be there.

    Args:
        folder: Where it is.
        split: "train" or "test".
        info: What the classifier reads.

    Returns:
        The number of the shards, and the split, whose rows can't be read: `shard` reads them.

    Raises:
        UserError: There is no such split, or its data does not fit the classifier.
    """
    found = manifest.read(folder)
    loading.check_agreement(found.info, info)
    if split not in found.splits:
        raise UserError(f"The split is {split!r}: shards have {' and '.join(found.splits)} only.")
    entries = found.splits[split]
    total = sum(entry["examples"] for entry in entries)
    notes = tuple(found.found.get(split, {}).get("notes", ()))
    return len(entries), _source(f"{info.name}, {split}", lambda: iter(()), True, total, notes)


def shard(folder: pathlib.Path, split: str, number: int, info: DatasetInfo) -> Source:
    """The rows of one shard, numbered as in the whole split. Raises UserError at damage."""
    found = manifest.read(folder)
    examples = open_shard(found, split, number)
    start = sum(entry["examples"] for entry in found.splits[split][:number])

    def rows() -> Iterator[Row]:
        labels = examples.labels.tolist()
        pairs = zip(examples.sequences(), labels, strict=True)
        for index, (sequence, label) in enumerate(pairs, start=start):
            yield Row(index, f"{info.name}, {split}[{index}]", sequence, label)

    return _source(f"{info.name}, {split}", rows, True, len(examples.labels))


def _source(
    what: str,
    rows: object,
    labelled: bool,
    total: int,
    notes: tuple[str, ...] = (),
) -> Source:
    return Source(
        what=what,
        rows=rows,
        labelled=labelled,
        name_type=pa.int64(),
        total=total,
        notes=lambda: notes,
    )
