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
        raise error.with_message(str(error).replace(str(path), name)) from error

    return _source(name, sequences, labels)


def ts(path: pathlib.Path) -> Source:
    """The sequences of a `.ts` file of the UCR and UEA archives, which is read into memory.

    Args:
        path: The file, with classes or without.

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

    The file of labels beside it, where there is one, has the numbers of the classes; of the names
    in a classes.txt beside it, where there is one.

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

    return _of_examples(f"{found.name}, {split}", examples)


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
        raise DataError(f"The split is {split!r}: shards have {' and '.join(found.splits)} only.")
    entries = found.splits[split]
    labels = [None] * sum(entry["examples"] for entry in entries)
    notes = tuple(found.found.get(split, {}).get("notes", ()))
    return len(entries), _source(f"{info.name}, {split}", (), labels, notes=notes)


def shard(folder: pathlib.Path, split: str, number: int, info: DatasetInfo) -> Source:
    """The rows of one shard, numbered as in the whole split. Raises UserError at damage."""
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
    """Rows that are numbered, from `start` on; without labels their number is that of sequences."""

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
