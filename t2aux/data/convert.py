"""Writes data sets as shards: `t2aux data convert`."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import pathlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
from absl import logging

from t2aux import files
from t2aux.data import checks, manifest, records
from t2aux.data.table import Examples
from t2aux.errors import DataError, FileError, SettingError, UserError
from t2aux_ondevice.preprocessing import DatasetInfo

_MEBIBYTE = 1 << 20


def convert(
    info: DatasetInfo,
    splits: Mapping[str, Examples],
    output_dir: str | os.PathLike[str],
    *,
    shards: int | None = None,
    shard_mebibytes: int = 64,
    compression: str = "none",
    progress: Callable[[int], None] | None = None,
    logged_to: Callable[[pathlib.Path], AbstractContextManager[None]] | None = None,
) -> None:
    """Writes a data set as a folder of shards, completely or not at all.

    The examples keep their order, and all files of a split hold about the same number of examples.
    In addition to the source's own memory, only one sequence at a time and the indices (24 bytes
    per example) are kept in memory. Files left behind by killed conversions are removed.

    Args:
        info: The data set.
        splits: "train" and "test", and "validation" if there is one.
        output_dir: The folder, which must be new or empty.
        shards: The number of files per split; at most one per example. By default, it follows from
            `shard_mebibytes`.
        shard_mebibytes: The approximate size of a file, before compression.
        compression: "none", or "zlib" to compress each sequence.
        progress: Called after every sequence with the number of sequences done.
        logged_to: Returns a context manager that also writes the log to the given file,
            convert.log in the folder.

    Raises:
        UserError: The folder holds something or can't be written (no permission, disk full); the
            source is damaged; or a value is out of range.
    """
    counts = count_shards(info, splits, shards, shard_mebibytes, compression)
    dtype = splits["train"].dtype
    entries: dict[str, list[dict[str, Any]]] = {}
    found: dict[str, dict[str, Any]] = {}
    done, begun = 0, time.monotonic()

    def add(count: int) -> None:
        nonlocal done
        done += count
        if progress is not None:
            progress(done)

    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(_staged(pathlib.Path(output_dir)))
        if logged_to is not None:
            stack.enter_context(logged_to(folder / "convert.log"))
        for split, examples in splits.items():
            seen = Seen(info)
            entries[split] = _write(
                split, examples, folder, counts[split], compression, dtype, add, seen
            )
            found[split] = seen.found(split, examples.notes, len(examples.labels))
        described = manifest.Manifest(folder, info, dtype, compression, entries, found)
        files.write_json(folder / manifest.DESCRIPTION, described.to_json())
        written = [entry for split in entries.values() for entry in split]
        logging.info(
            "%d sequences, %.1f MB in %d files, %.0f seconds.",
            done,
            sum(entry["bytes"] for entry in written) / 1e6,
            len(written),
            time.monotonic() - begun,
        )


def count_shards(
    info: DatasetInfo,
    splits: Mapping[str, Examples],
    shards: int | None,
    shard_mebibytes: int,
    compression: str,
) -> dict[str, int]:
    """The number of files of each split. The arguments and errors are those of `convert`."""
    if compression not in records.COMPRESSIONS:
        known = " or ".join(records.COMPRESSIONS)
        raise SettingError(f"The compression is {compression!r}: give {known}.")
    for name, value in (("shards", shards), ("shard_mebibytes", shard_mebibytes)):
        if value is not None and not 1 <= value < 100_000:
            raise SettingError(f"--{name} is {value}: give a number from 1 to 99999.")
    counts = {}
    for split, examples in splits.items():
        if not len(examples.labels):
            raise DataError(f"The split {split} of {info.name} has no examples: check its files.")
        wanted = shards or -(-examples.nbytes // (shard_mebibytes * _MEBIBYTE))
        counts[split] = max(1, min(wanted, len(examples.labels)))
    return counts


def bounds(examples: int, count: int) -> list[tuple[int, int]]:
    """The range of examples of the split that each of `count` files holds."""
    ends = [examples * number // count for number in range(count + 1)]
    return list(itertools.pairwise(ends))


class Seen:
    """What is recorded about a split besides the data itself."""

    def __init__(self, info: DatasetInfo) -> None:
        """Starts with no sequence."""
        self._info = info
        self._values = None if info.is_text else checks.ValueRange()
        self._different: set[tuple[int, int]] = set()

    def add(self, sequence: np.ndarray) -> None:
        """Adds a sequence."""
        if self._values is not None:
            self._values.add(sequence)

    def add_index(self, index: np.ndarray) -> None:
        """Adds the index of a file."""
        if len(self._different) < 2:
            pairs = zip(index["crc32"].tolist(), index["steps"].tolist(), strict=True)
            self._different.update(itertools.islice(dict.fromkeys(pairs), 2))

    def merge(self, other: Seen) -> None:
        """Adds what was recorded for other examples of the same split."""
        self._different |= other._different
        if self._values is not None:
            self._values.merge(other._values)

    def found(self, split: str, notes: Sequence[str], examples: int) -> dict[str, Any]:
        """The manifest's entry about the split.

        Args:
            split: The name of the split.
            notes: The notes of its reader.
            examples: The number of examples.
        """
        values = self._values
        notes = [*notes]
        if values is not None:
            notes += values.notes(split, self._info)
        if len(self._different) == 1 and examples > 1:
            notes.append(checks.all_equal(split, examples))
        is_real = values is not None and values.least is not None and values.largest is not None
        span = [float(values.least.min()), float(values.largest.max())] if is_real else None
        return {"notes": notes, "values": span}


def write_shard(
    paths: tuple[pathlib.Path, pathlib.Path],
    sequences: Iterator[np.ndarray],
    labels: np.ndarray,
    compression: str,
    dtype: np.dtype,
    seen: Seen,
    add: Callable[[int], None],
) -> dict[str, Any]:
    """Writes one file and its index.

    Args:
        paths: The paths of the file and its index.
        sequences: One sequence is taken for each label.
        labels: int [N].
        compression: As for `convert`.
        dtype: The dtype of the steps' values.
        seen: Records the sequences.
        add: Called with 1 after each sequence.

    Returns:
        The manifest's entry for the file.

    Raises:
        UserError: It can't be written, or a sequence can't be read.
    """
    path, index_path = paths
    with _tensorflow_errors(path), records.ShardWriter(path, compression) as writer:
        for label in labels.tolist():
            # The ids of a small test split may need fewer bits than those of the training data.
            sequence = next(sequences).astype(dtype, copy=False)
            writer.write(sequence, label)
            seen.add(sequence)
            add(1)
            del sequence
    index = writer.index()
    seen.add_index(index)
    with index_path.open("wb") as file:
        np.save(file, index, allow_pickle=False)
    for written in paths:
        with written.open("rb") as file:
            os.fsync(file.fileno())
    return {
        "examples": len(index),
        "steps": int(index["steps"].sum(dtype=np.int64)),
        "bytes": path.stat().st_size,
        "sha256": manifest.sha256(path),
        "index_sha256": manifest.sha256(index_path),
    }


def _write(
    split: str,
    examples: Examples,
    folder: pathlib.Path,
    count: int,
    compression: str,
    dtype: np.dtype,
    add: Callable[[int], None],
    seen: Seen,
) -> list[dict[str, Any]]:
    """Writes the files of a split. Returns the manifest's entries for them."""
    sequences = examples.sequences()
    entries = []
    parts = bounds(len(examples.labels), count)
    for (start, end), names in zip(parts, manifest.file_names(split, count), strict=True):
        paths = (folder / names[0], folder / names[1])
        labels = examples.labels[start:end]
        entries.append(write_shard(paths, sequences, labels, compression, dtype, seen, add))
    # Read to the end, where a source makes its last checks.
    next(sequences, None)
    return entries


@contextlib.contextmanager
def _tensorflow_errors(path: pathlib.Path) -> Iterator[None]:
    """Turns an error of TensorFlow's writer, such as a full disk, into a UserError."""
    import tensorflow as tf

    try:
        yield
    except tf.errors.OpError as error:
        reason = error.message.splitlines()[0].rpartition("; ")[2]
        raise FileError(
            f"Can't write {path.name} ({reason}): free some space there, or choose another "
            "--output_dir."
        ) from error


@contextlib.contextmanager
def _staged(output_dir: pathlib.Path) -> Iterator[pathlib.Path]:
    """Makes a hidden folder beside `output_dir`, and renames it to that when the block succeeds."""
    output_dir = pathlib.Path(os.path.abspath(output_dir))
    try:
        check_new(output_dir)
        output_dir.parent.mkdir(parents=True, exist_ok=True)
        prefix = f".{output_dir.name}.converting-"
        with files.temporary_folder(output_dir.parent, prefix) as folder:
            yield folder
            publish(folder, output_dir)
    except OSError as error:
        raise FileError(
            f"Can't write to {output_dir}: {error.strerror or error}. Free some space there, or "
            "choose another --output_dir."
        ) from error


def check_new(output_dir: pathlib.Path) -> None:
    """Raises UserError if `output_dir` already contains anything."""
    if output_dir.exists() and (not output_dir.is_dir() or any(output_dir.iterdir())):
        raise taken(output_dir)


def publish(folder: pathlib.Path, output_dir: pathlib.Path) -> None:
    """Gives a complete folder its final name. Raises UserError if that now exists."""
    try:
        folder.rename(output_dir)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise taken(output_dir) from error
        raise


def taken(output_dir: str | os.PathLike[str]) -> UserError:
    """The error for an output that already exists."""
    return FileError(f"{output_dir} already exists: delete it, or give another --output_dir.")
