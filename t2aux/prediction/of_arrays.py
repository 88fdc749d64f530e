"""Rows that are arrays: `.npz` files, IDX files of images, and data sets of any source."""

from __future__ import annotations

import itertools
import pathlib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence

import gin
import numpy as np
import pyarrow as pa

from t2aux import data
from t2aux.data import idx as idx_files
from t2aux.data import loading, manifest
from t2aux.data.npz import decoded
from t2aux.data.shards import open_shard
from t2aux.data.table import Examples, read_class_names
from t2aux.errors import DataError, UserError
from t2aux.prediction.rows import Row
from t2aux.prediction.source import Source, check_images
from t2aux_ondevice import reading
from t2aux_ondevice.arrays import read_npz
from t2aux_ondevice.preprocessing import DatasetInfo

_NUMBER = re.compile(r"-?\d+")
# The arguments of `load` that gin sets besides the source.
_SETTINGS = ("data_dir", "max_examples", "splits", "test_fraction", "split_seed", "allow")


def npz(path: pathlib.Path, info: DatasetInfo, name: str | None = None) -> Source:
    """The sequences of an `.npz` file, which is read into memory.

    Its optional array `labels` [N] contains the names of the classes, or numbers. With an array
    `classes`, numbers are positions in it. Otherwise, they are names if the classifier's class
    names are numbers, and positions of the classifier's classes, counted from 0, if not.

    Args:
        path: The file; see `reading.read_npz`.
        info: The description of the classifier's data.
        name: The name of the file in messages; defaults to the path.

    Raises:
        UserError: As for `reading.read_npz`, or if there is not one label for each sequence.
    """
    name = name or str(path)
    try:
        sequences = reading.npz_sequences(info, path)
        labels = _npz_labels(path, info, len(sequences))
    except UserError as error:
        raise error.with_message(str(error).replace(str(path), name)) from error

    return _source(name, sequences, labels)


def ts(path: pathlib.Path) -> Source:
    """The sequences of a `.ts` file of the UCR and UEA archives, which is read into memory.

    Args:
        path: The file, with or without classes.

    Raises:
        UserError: The file is damaged, or has missing values or time stamps.
    """
    from t2aux.data.ts import TsFile

    file = TsFile(path, needs_classes=False)
    return _source(str(path), file.sequences, file.labels or None)


def _npz_labels(path: pathlib.Path, info: DatasetInfo, count: int) -> list[str | int] | None:
    arrays = read_npz(path, ("labels", "classes"))
    labels = arrays.get("labels")
    if labels is None:
        return None
    if labels.shape != (count,) or labels.dtype.kind not in "iuUS":
        raise DataError(
            f"{path}: labels is {labels.dtype} of the shape {list(labels.shape)}: give whole "
            f"numbers or names [{count}], one for each of the inputs, or leave it out."
        )
    if labels.dtype.kind not in "iu":
        return decoded(labels, "labels", path).tolist()
    if "classes" in arrays:
        names = decoded(arrays["classes"], "classes", path).ravel().tolist()
        return [names[n] if 0 <= n < len(names) else str(n) for n in labels.tolist()]
    if all(_NUMBER.fullmatch(name) for name in info.classes):
        return [str(label) for label in labels.tolist()]
    return labels.tolist()


def idx(path: pathlib.Path, info: DatasetInfo) -> Source:
    """The images of an IDX file such as t10k-images-idx3-ubyte[.gz].

    If there is a file of labels beside it, this contains the numbers of the classes, or of the
    names in a classes.txt if that exists, too.

    Raises:
        UserError: A file is damaged, or the classifier does not read images.
    """
    check_images(path, info)
    label_path = idx_files.labels_of(path)
    if label_path is None:
        return _source(str(path), idx_files.read_array(path, 3), None)
    images, numbers = idx_files.read_pair(path, label_path)
    labels = numbers.tolist()
    names = read_class_names(path.parent / "classes.txt")
    if names is not None:
        labels = [names[n] if n < len(names) else str(n) for n in labels]
    return _source(str(path), images, labels, notes=(f"The labels are in {label_path.name}.",))


def data_set(
    source: data.Source, split: str, info: DatasetInfo, data_dir: str | pathlib.Path | None = None
) -> Source:
    """A split of a data set, prepared for the classifier as by `t2aux.data.load`.

    The settings of `dataset` in the gin configuration apply.

    Args:
        source: The data set.
        split: The split to read.
        info: The description of the classifier's data.
        data_dir: The folder of the files; by default that of the gin configuration.

    Raises:
        UserError: As for `t2aux.data.load`.
    """
    bound = gin.get_bindings("dataset")
    given = {key: bound[key] for key in _SETTINGS if key in bound}
    if data_dir is not None:
        given["data_dir"] = str(data_dir)
    found, examples = loading.read(source, split, info, **given)

    return _of_examples(f"{found.name}, {split}", examples)


def shards(folder: pathlib.Path, split: str, info: DatasetInfo) -> tuple[int, Source]:
    """Reads the description of a split in dataset.json; the shards themselves need not exist.

    Args:
        folder: The folder of dataset.json.
        split: "train" or "test".
        info: The description of the classifier's data.

    Returns:
        The number of shards, and the split without its rows, which `shard` reads.

    Raises:
        UserError: The split does not exist, or its data does not fit the classifier.
    """
    found = manifest.read(folder)
    loading.check_agreement(found.info, info)
    if split not in found.splits:
        raise DataError(f"The split is {split!r}: shards have {' and '.join(found.splits)} only.")
    entries = found.splits[split]
    labels = [None] * sum(entry["examples"] for entry in entries)
    notes = tuple(found.found.get(split, {}).get("notes", ()))
    return len(entries), _source(f"{info.name}, {split}", (), labels, notes=notes)


def shard(folder: pathlib.Path, split: str, number: int, info: DatasetInfo) -> Source:
    """The rows of one shard, numbered as in the whole split. Raises UserError if it is damaged."""
    found = manifest.read(folder)
    examples = open_shard(found, split, number)
    start = sum(entry["examples"] for entry in found.splits[split][:number])
    return _of_examples(f"{info.name}, {split}", examples, start)


def _of_examples(what: str, examples: Examples, start: int = 0) -> Source:
    labels = examples.labels.tolist()
    return _source(what, examples.sequences, labels, start=start, notes=tuple(examples.notes))


def _source(
    what: str,
    sequences: Sequence[np.ndarray] | Callable[[], Iterable[np.ndarray]],
    labels: Sequence[str | int | None] | None,
    *,
    start: int = 0,
    notes: tuple[str, ...] = (),
) -> Source:
    """Rows that are numbered from `start` on. Without labels, `sequences` gives their count."""

    def rows() -> Iterator[Row]:
        made = sequences() if callable(sequences) else sequences
        pairs = zip(made, labels or itertools.repeat(None), strict=labels is not None)
        for index, (sequence, label) in enumerate(pairs, start):
            yield Row(index, f"{what}[{index}]", sequence, label)

    return Source(
        what=what,
        rows=rows,
        labelled=labels is not None,
        name_type=pa.int64(),
        total=len(sequences if labels is None else labels),
        notes=lambda: notes,
    )
