"""Reads and checks the description of a folder of shards: dataset.json and the indices.

For each split, the folder holds train-00000-of-00016.tfrecord, ... and, beside each file, an index,
train-00000-of-00016.index.npy (see `records` for both formats). It also holds dataset.json:

  format, version  "t2aux-shards", 1
  dataset          the `DatasetInfo`: classes, preprocessing, vocabulary, ...
  dtype            the dtype of the steps' values
  compression      "none" or "zlib"
  splits           for "train" and "test", a list with an entry for each file, in order: examples,
                   steps, bytes, sha256 and index_sha256
  found            optional; for "train" and "test": notes, what was skipped, guessed or unusual
                   in the conversion, one sentence each; and values, the smallest and the largest
                   real value (pixels in [0, 1]), or null for texts

Across the files of a split, the examples have the order of the source. The names of the files are
made here and never read from dataset.json.
"""

from __future__ import annotations

import dataclasses
import hashlib
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np

from t2aux.data import records
from t2aux.errors import DataError, FileError, UserError
from t2aux.files import read_json
from t2aux_ondevice.arrays import read_npy
from t2aux_ondevice.preprocessing import DatasetInfo

FORMAT, VERSION = "t2aux-shards", 1
DESCRIPTION = "dataset.json"
_NUMBERS = ("examples", "steps", "bytes")
_HASHES = ("sha256", "index_sha256")
_DTYPES = {
    "image": ("uint8",),
    "text": ("uint8", "uint16", "uint32"),
    "vectors": ("float32",),
}
_HASHED_AT_ONCE = 1 << 20


@dataclasses.dataclass(frozen=True)
class Manifest:
    """The content of dataset.json.

    Attributes:
        folder: The folder that contains it.
        info: The data set.
        dtype: The dtype of the steps' values.
        compression: One of `records.COMPRESSIONS`.
        splits: For each split, an entry for each of its files.
        found: For each split, what was found when it was converted, see above; may be empty.
    """

    folder: pathlib.Path
    info: DatasetInfo
    dtype: np.dtype
    compression: str
    splits: dict[str, list[dict[str, Any]]]
    found: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)

    @property
    def step_bytes(self) -> int:
        """The size of a step in bytes."""
        return self.dtype.itemsize * (self.info.channels or 1)

    def to_json(self) -> dict[str, Any]:
        """Returns the content of dataset.json."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "dataset": self.info.to_json(),
            "dtype": self.dtype.name,
            "compression": self.compression,
            "splits": self.splits,
            "found": self.found,
        }


def file_names(split: str, count: int) -> list[tuple[str, str]]:
    """The names of the files of a split, and of their indices."""
    stems = [f"{split}-{number:05}-of-{count:05}" for number in range(count)]
    return [(f"{stem}.tfrecord", f"{stem}.index.npy") for stem in stems]


def sha256(path: pathlib.Path) -> str:
    """The SHA-256 of a file in hexadecimal. Raises OSError if the file can't be read."""
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while part := file.read(_HASHED_AT_ONCE):
            digest.update(part)
        return digest.hexdigest()


def verify(data_dir: pathlib.Path, progress: Callable[[str], None]) -> int:
    """Reads all files completely and compares their SHA-256 with dataset.json.

    Args:
        data_dir: The folder.
        progress: Called with the name of each file before it is read.

    Returns:
        The number of files.

    Raises:
        UserError: A file is missing or has changed.
    """
    manifest = read(data_dir)
    for split, entries in manifest.splits.items():
        for entry, names in zip(entries, file_names(split, len(entries)), strict=True):
            path = data_dir / names[0]
            progress(path.name)
            check_file(path, entry)
            read_index(data_dir / names[1], entry, manifest)
            if sha256(path) != entry["sha256"]:
                raise _changed(path, f"its SHA-256 is not that in {DESCRIPTION}")
    return sum(map(len, manifest.splits.values()))


def read(folder: pathlib.Path) -> Manifest:
    """Reads and checks dataset.json.

    Raises:
        UserError: The file is missing, damaged, of another version or not that of a data set.
    """
    path = folder / DESCRIPTION
    if not path.exists():
        raise FileError(
            f"Can't find {DESCRIPTION} in {folder}: give --data_dir=FOLDER, a folder that `t2aux "
            "data convert` wrote."
        )
    found = read_json(path)
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise DataError(
            f"{path} does not describe shards: give --data_dir=FOLDER, a folder that `t2aux data "
            "convert` wrote."
        )
    if found.get("version") != VERSION:
        raise DataError(
            f"{path} has version {found.get('version')!r} of the format, and this program reads "
            f"version {VERSION}: convert the data again with `t2aux data convert`."
        )
    try:
        info = DatasetInfo.from_json(found["dataset"])
        stored = {
            split: {
                "notes": [str(note) for note in of_split["notes"]],
                "values": _span(of_split["values"]),
            }
            for split, of_split in found.get("found", {}).items()
        }
        splits = found["splits"]
        is_right = (
            found["dtype"] in _DTYPES[info.kind]
            and found["compression"] in records.COMPRESSIONS
            and (info.channels or 1) < records.LARGEST
            and splits.keys() - {"validation"} == {"train", "test"}
            and all(entries and all(map(_is_entry, entries)) for entries in splits.values())
        )
    except UserError as error:
        raise _wrong(path, str(error).split(": ", 1)[-1].split(". ")[0]) from error
    except KeyError as error:
        raise _wrong(path, f"it lacks {error}") from error
    except (AttributeError, OverflowError, TypeError, ValueError) as error:
        raise _wrong(path, f"an entry has a wrong type ({error})") from error
    if not is_right:
        raise _wrong(path, "its channels, dtype, compression or splits are not those of shards")
    return Manifest(folder, info, np.dtype(found["dtype"]), found["compression"], splits, stored)


def _span(values: list[float] | None) -> list[float] | None:
    if values is None:
        return None
    least, largest = values
    return [float(least), float(largest)]


def _is_entry(entry: dict[str, Any]) -> bool:
    return all(type(entry[name]) is int and entry[name] > 0 for name in _NUMBERS) and all(
        isinstance(entry[name], str) for name in _HASHES
    )


def check_file(path: pathlib.Path, entry: dict[str, Any]) -> bytes:
    """Checks that a shard exists and has the right size. Returns its `records.file_key`."""
    try:
        size = path.stat().st_size
        key = records.file_key(path)
    except OSError as error:
        raise FileError(
            f"Can't read the shard {path} ({error.strerror}), which {DESCRIPTION} names: restore "
            "it, or convert the data again with `t2aux data convert`."
        ) from error
    if size != entry["bytes"]:
        raise _changed(path, f"it has {size:,} bytes where {entry['bytes']:,} were written")
    return key


def read_index(path: pathlib.Path, entry: dict[str, Any], manifest: Manifest) -> np.ndarray:
    """Reads and checks an index, INDEX [N]. Raises UserError if it contradicts dataset.json."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise FileError(
            f"Can't read the index {path} ({error.strerror}): restore it, or convert the data "
            "again with `t2aux data convert`."
        ) from error
    if hashlib.sha256(content).hexdigest() != entry["index_sha256"]:
        raise _changed(path, f"its SHA-256 is not that in {DESCRIPTION}")
    try:
        index = read_npy(content)
    except ValueError as error:
        raise _changed(path, "it is not a numpy array") from error
    _check_index(index, entry, manifest, path)
    return index


def _check_index(
    index: np.ndarray, entry: dict[str, Any], manifest: Manifest, path: pathlib.Path
) -> None:
    info = manifest.info
    if index.dtype != records.INDEX or index.shape != (entry["examples"],):
        raise _changed(path, f"it does not hold {entry['examples']:,} entries")
    steps, sizes = index["steps"].astype(np.int64), index["size"].astype(np.int64)
    begins, labels = index["begin"], index["label"]
    fits = manifest.compression != "none" or (sizes == steps * manifest.step_bytes).all()
    for is_right, what in (
        (((begins >= 0) & (begins <= entry["bytes"] - sizes)).all(), "places outside its file"),
        ((begins[1:] >= begins[:-1] + sizes[:-1]).all(), "places that overlap"),
        ((steps > 0).all() and steps.sum() == entry["steps"], f"other lengths than {DESCRIPTION}"),
        (info.length is None or (steps == info.length).all(), f"other lengths than {DESCRIPTION}"),
        (fits, "sizes that are not its lengths'"),
        (labels.min() >= 0 and labels.max() < info.num_classes, "labels without a class"),
    ):
        if not is_right:
            raise _changed(path, f"it has {what}")


def _wrong(path: pathlib.Path, why: str) -> UserError:
    return DataError(
        f"{path} is damaged: {why.rstrip('.')}. Restore it, or convert the data again with `t2aux "
        "data convert`."
    )


def _changed(path: pathlib.Path, why: str) -> UserError:
    return FileError(
        f"{path} is damaged, or of another conversion: {why}. Restore it, or convert the data "
        "again with `t2aux data convert`."
    )
