"""Writes sequences as TFRecords of tf.train.Examples, and reads them by random access.

A record is a tf.train.Example with three features:

  values  bytes [1]  the steps of the sequence, [T, C] or ids [T], in row-major order, in the data
                     set's dtype (uint8, uint16, uint32 or float32, little-endian); with the
                     compression "zlib", compressed per sequence (see tf.io.decode_compressed)
  length  int64 [1]  T
  label   int64 [1]  the number of the class

`values` is at the end of the record. An index gives its position, so that a sequence is read with a
single `pread`: any order is equally fast, and nothing is parsed.
"""

from __future__ import annotations

import concurrent.futures
import functools
import io
import os
import pathlib
import zlib
from collections.abc import Sequence

import numpy as np

from t2aux import files
from t2aux.errors import DataError, FileError, UserError

COMPRESSIONS = ("none", "zlib")
# The entry of an example in an index: the position of its values in the file and their size in
# bytes, the number of steps, the label, and the CRC-32 of those bytes.
INDEX = np.dtype(
    [("begin", "<i8"), ("size", "<u4"), ("steps", "<i4"), ("label", "<i4"), ("crc32", "<u4")]
)
# In memory, an entry also has the number of the file.
PLACES = np.dtype([*INDEX.descr, ("shard", "<u4")])
LARGEST = 1 << 30  # Of a sequence, in bytes: protocol buffers are limited to 2 GiB.
_FRAME_BEFORE, _FRAME_AFTER = 12, 4  # A TFRecord's length and its checksum; its data's checksum.
_OPEN_FILES = 128
_THREADS = 8
_READS_PER_THREAD = 32


class ShardWriter:
    """Writes one file and makes its index. A context manager."""

    def __init__(self, path: str | os.PathLike[str], compression: str) -> None:
        """Opens the file.

        Args:
            path: The file.
            compression: One of COMPRESSIONS.
        """
        import tensorflow as tf

        own = pathlib.Path(path)
        with files.for_tensorflow(own.parent) as folder:
            self._writer = tf.io.TFRecordWriter(os.path.join(folder, own.name))
        self._compress = compression == "zlib"
        self._position = 0
        self._entries: list[tuple[int, int, int, int, int]] = []

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()

    def write(self, sequence: np.ndarray, label: int) -> None:
        """Adds a sequence, [T, C] or [T]. Raises UserError if it is too large."""
        if sequence.nbytes > LARGEST:
            raise DataError(
                f"A sequence has {sequence.nbytes:,} bytes, but only {LARGEST:,} fit into a "
                "record: cut it (max_length) or make it smaller (side)."
            )
        values = np.ascontiguousarray(sequence).tobytes()
        if self._compress:
            values = zlib.compress(values)
        record = _example(values, len(sequence), label)
        begin = self._position + _FRAME_BEFORE + len(record) - len(values)
        self._writer.write(record)
        self._position += _FRAME_BEFORE + len(record) + _FRAME_AFTER
        self._entries.append((begin, len(values), len(sequence), label, zlib.crc32(values)))

    def index(self) -> np.ndarray:
        """The entries of the written sequences, INDEX [N]."""
        return np.array(self._entries, INDEX)


def _example(values: bytes, steps: int, label: int) -> bytes:
    """A serialised tf.train.Example. It ends with `values`, since the keys are sorted."""
    import tensorflow as tf

    features = {
        "label": tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
        "length": tf.train.Feature(int64_list=tf.train.Int64List(value=[steps])),
        "values": tf.train.Feature(bytes_list=tf.train.BytesList(value=[values])),
    }
    example = tf.train.Example(features=tf.train.Features(feature=features))
    return example.SerializeToString(deterministic=True)


def file_key(path: str | os.PathLike[str]) -> bytes:
    """Identifies a file for `read_values`: its name, and its version under that name.

    Raises:
        OSError: The file does not exist.
    """
    status = os.stat(path)
    return b"\0".join([os.fsencode(path), b"%d %d" % (status.st_ino, status.st_mtime_ns)])


def read_values(
    keys: Sequence[bytes], places: np.ndarray, step_bytes: int, compression: str
) -> np.ndarray:
    """Reads the values of examples and concatenates them, from a few files at a time.

    Its only state other than its arguments is the cache of open files, so a tf.data pipeline can
    call it and needs to hold only tensors.

    Args:
        keys: `file_key` of every file.
        places: PLACES [B].
        step_bytes: The size of a step in bytes.
        compression: One of COMPRESSIONS.

    Returns:
        uint8 [total number of steps * step_bytes].

    Raises:
        UserError: A file is missing, truncated or damaged, or there is not enough memory.
    """
    ends = np.cumsum(places["steps"], dtype=np.int64) * step_bytes
    size = int(ends[-1]) if len(ends) else 0
    try:
        values = np.empty(size, np.uint8)
    except (MemoryError, ValueError) as error:
        raise DataError(
            f"Not enough memory for {size:,} bytes of {len(places):,} sequences at once: take "
            "smaller batches, or convert the data again with `t2aux data convert`."
        ) from error
    memory = memoryview(values)
    columns = [places[name].tolist() for name in ("shard", "begin", "size", "crc32")]
    reads = list(zip(*columns, [0, *ends[:-1].tolist()], ends.tolist(), strict=True))
    read = functools.partial(_read_part, keys, memory, compression == "zlib")
    parts = [reads[i : i + _READS_PER_THREAD] for i in range(0, len(reads), _READS_PER_THREAD)]
    if len(parts) > 1:
        # The system calls release Python's lock, so that slow storage can serve several at once.
        list(_pool().map(read, parts))
    elif parts:
        read(parts[0])
    return values


def _read_part(
    keys: Sequence[bytes],
    memory: memoryview,
    compressed: bool,
    reads: Sequence[tuple[int, int, int, int, int, int]],
) -> None:
    for shard, begin, size, crc32, start, end in reads:
        target = memory[start:end]
        file = _opened(keys[shard])
        try:
            found = bytearray(size) if compressed else target
            count = os.preadv(file.fileno(), [found], begin)
            # A signal or a network file system may make a read return fewer bytes.
            while 0 < count < size:
                more = os.preadv(file.fileno(), [memoryview(found)[count:]], begin + count)
                if not more:
                    break
                count += more
        except OSError as error:
            raise _damaged(keys[shard], error.strerror or str(error)) from error
        if count < size:
            raise _damaged(keys[shard], f"it ends before byte {begin + size:,}")
        if zlib.crc32(found) != crc32:
            raise _damaged(keys[shard], f"the record at byte {begin:,} is not what was written")
        if compressed:
            try:
                unpacked = zlib.decompress(found)
            except zlib.error as error:
                raise _damaged(keys[shard], f"byte {begin:,}: {error}") from error
            if len(unpacked) != len(target):
                why = f"the record at byte {begin:,} does not unpack to {len(target):,} bytes"
                raise _damaged(keys[shard], why)
            target[:] = unpacked


@functools.lru_cache(maxsize=_OPEN_FILES)
def _opened(key: bytes) -> io.FileIO:
    # A file that leaves the cache is closed when its last reader has finished.
    try:
        return open(_path(key), "rb", buffering=0)
    except OSError as error:
        raise _damaged(key, error.strerror or str(error)) from error


@functools.lru_cache(maxsize=1)
def _pool() -> concurrent.futures.ThreadPoolExecutor:
    return concurrent.futures.ThreadPoolExecutor(_THREADS, "t2aux-shards")


def _damaged(key: bytes, why: str) -> UserError:
    return FileError(
        f"The shard {_path(key)} is missing or damaged ({why}): restore it, or convert the data "
        "again with `t2aux data convert`."
    )


def _path(key: bytes) -> pathlib.Path:
    return pathlib.Path(os.fsdecode(key.rpartition(b"\0")[0]))
