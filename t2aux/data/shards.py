"""`shards`: data sets larger than memory, read in place from files of `t2aux data convert`.

`manifest` describes the folder, and `records` the files. Only the indices are kept in memory, with
28 bytes per example.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, ClassVar

import gin
import numpy as np

from t2aux.data import manifest, records
from t2aux.data.places import Division
from t2aux.data.source import Source
from t2aux.data.split import Batch, Split
from t2aux.data.table import Options, Table, require_data_dir, subset
from t2aux.errors import SettingError
from t2aux_ondevice.preprocessing import DatasetInfo

if TYPE_CHECKING:
    import tensorflow as tf

_CHUNK_BYTES = 1 << 24


class Shards:
    """The examples of a split in files. Implements `Examples`.

    Attributes:
        dtype: The dtype of the steps' values.
        shape: The shape of a step: (C,), or () for ids.
        places: PLACES [N].
        notes: What was skipped, guessed or unusual when they were written, one sentence each.
        counts: As for `Examples`.
        found: As for `Examples`: always empty.
        division: As for `Examples`: always None.
        value_range: The smallest and the largest value, as the model sees them; None for ids, and
            if it was not written.
    """

    notes: tuple[str, ...] = ()
    counts: np.ndarray | None = None
    found: str = ""
    division: Division | None = None
    value_range: tuple[float, float] | None = None

    def __init__(
        self,
        keys: list[bytes],
        places: np.ndarray,
        dtype: np.dtype,
        channels: int | None,
        compression: str,
    ) -> None:
        """Wraps files whose indices were read.

        Args:
            keys: `records.file_key` of each file.
            places: PLACES [N].
            dtype: See above.
            channels: C, or None for ids.
            compression: One of `records.COMPRESSIONS`.
        """
        self.dtype = dtype
        self.shape = () if channels is None else (channels,)
        self.places = places
        self._keys = keys
        self._compression = compression
        self._reader: Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor, tf.Tensor]] | None = None

    @property
    def labels(self) -> np.ndarray:
        """int32 [N]."""
        return self.places["label"]

    @property
    def lengths(self) -> np.ndarray:
        """int32 [N]."""
        return self.places["steps"]

    @property
    def nbytes(self) -> int:
        """The size of the unpacked values in bytes."""
        return int(self.lengths.sum(dtype=np.int64)) * self._step_bytes

    def read(self, places: np.ndarray) -> np.ndarray:
        """Reads the concatenated steps of examples. Raises UserError if a file is damaged."""
        values = records.read_values(self._keys, places, self._step_bytes, self._compression)
        return values.view(self.dtype).reshape(-1, *self.shape)

    def chunks(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields the steps and lengths of all examples in order, a few megabytes at a time."""
        return self._chunks(self.places)

    def _chunks(self, places: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        ends = np.cumsum(places["steps"], dtype=np.int64) * self._step_bytes
        start = 0
        while start < len(ends):
            limit = (ends[start - 1] if start else 0) + _CHUNK_BYTES
            end = max(int(np.searchsorted(ends, limit, "right")), start + 1)
            yield self.read(places[start:end]), places["steps"][start:end]
            start = end

    def sequences(self) -> Iterator[np.ndarray]:
        """Yields each sequence."""
        return self.some(0, len(self.places))

    def some(self, first: int, end: int) -> Iterator[np.ndarray]:
        """Yields the sequences `first` to `end`, excluding `end`."""
        for values, lengths in self._chunks(self.places[first:end]):
            yield from np.split(values, np.cumsum(lengths)[:-1])

    def table(self) -> Table:
        """Reads all sequences into memory."""
        return Table.of_lengths(self.read(self.places), self.lengths, self.labels)

    def reader(self) -> Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor, tf.Tensor]]:
        """Returns a TensorFlow function from indices [B] to steps, lengths and labels.

        It holds only tensors and a Python function that exists once per process, because functions
        passed to tf.numpy_function are never freed.
        """
        if self._reader is None:
            self._reader = self._make_reader()
        return self._reader

    def _make_reader(self) -> Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor, tf.Tensor]]:
        import tensorflow as tf

        with tf.device("/CPU:0"):
            places = tf.constant(self.places.view(np.uint8).reshape(len(self.places), -1))
            keys = tf.constant(self._keys)
        # From now on, the numpy array shares the tensor's memory, so that it is stored only once.
        self.places = np.asarray(memoryview(places)).reshape(-1).view(records.PLACES)
        dtype, step_bytes = tf.as_dtype(self.dtype), self._step_bytes
        compression, shape = self._compression, self.shape

        def read(chosen: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            arguments = [tf.gather(places, chosen), keys, step_bytes, compression, dtype.name]
            # Not stateful: otherwise, for determinism, TensorFlow would not run it in the threads
            # of the pipeline, and the training would wait.
            values, lengths, labels = tf.numpy_function(
                _read, arguments, [dtype, tf.int32, tf.int32], stateful=False
            )
            values.set_shape([None])
            lengths.set_shape([None])
            labels.set_shape([None])
            return tf.reshape(values, [-1, *shape]), lengths, labels

        return read

    @property
    def _step_bytes(self) -> int:
        return self.dtype.itemsize * (self.shape[0] if self.shape else 1)


def _read(
    places: np.ndarray, keys: np.ndarray, step_bytes: int, compression: bytes, dtype: bytes
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    places = np.ascontiguousarray(places).view(records.PLACES)[:, 0]
    values = records.read_values(keys.tolist(), places, int(step_bytes), compression.decode())
    return values.view(dtype.decode()), places["steps"].copy(), places["label"].copy()


class ShardSplit(Split):
    """A split whose sequences stay in their files.

    The order of an epoch and the batches are bit-identical to those of the same data in memory.
    """

    def __init__(self, info: DatasetInfo, shards: Shards, bucket_batches: int = 16) -> None:
        """Wraps shards; see `Split`."""
        self._shards = shards
        self.notes = shards.notes
        self._describe(info, shards.labels, shards.lengths, bucket_batches)

    @property
    def nbytes(self) -> int:
        """The memory of the split in bytes, which is that of the indices."""
        return self._shards.places.nbytes

    @property
    def values(self) -> np.ndarray:
        """The steps of all sequences. Reads them all; `chunks` reads some at a time."""
        return self._shards.table().values

    def chunks(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields a few megabytes of sequences at a time; see `Split`."""
        return self._shards.chunks()

    def value_range(self) -> tuple[float, float] | None:
        """The smallest and the largest value, as recorded when the shards were written."""
        return self._shards.value_range

    def fingerprints(self) -> np.ndarray:
        """Returns a number for each sequence; see `Split`. Reads nothing."""
        places = self._shards.places
        return places["crc32"].astype(np.uint64) << np.uint64(32) | places["steps"].astype(
            np.uint64
        )

    def example(self, index: int) -> np.ndarray:
        """Reads sequence `index`; see `Split`. Raises UserError if the file is damaged."""
        index %= len(self)
        return self._as_input(self._shards.read(self._shards.places[index : index + 1]))

    def reader(self) -> Callable[[tf.Tensor], Batch]:
        """Returns the function that reads chosen examples; see `Split`."""
        import tensorflow as tf

        shards, read_shards = self._shards, self._shards.reader()
        self._describe(self.info, shards.labels, shards.lengths, self.bucket_batches)
        input_type = tf.int32 if self.info.is_text else tf.float32
        is_pixels = shards.dtype == np.uint8 and not self.info.is_text
        is_ragged, steps = self._is_ragged, int(self.lengths[0])

        def read(chosen: tf.Tensor) -> Batch:
            values, lengths, labels = read_shards(chosen)
            inputs = tf.cast(values, input_type)
            if is_ragged:
                inputs = tf.RaggedTensor.from_row_lengths(inputs, lengths, validate=False)
                inputs = inputs.to_tensor()
            else:
                inputs = tf.reshape(inputs, [-1, steps, *shards.shape])
            if is_pixels:
                inputs /= 255.0
            return Batch(inputs, lengths, labels)

        return read


@gin.configurable("shards")
@dataclasses.dataclass(frozen=True)
class ShardFolder(Source):
    """Any data set converted by `t2aux data convert`, for data larger than memory."""

    has_other_splits: ClassVar[bool] = True

    def has_validation(self, data_dir: pathlib.Path | None) -> bool:
        """Whether the converted data had its own validation set."""
        if data_dir is None or not (data_dir / manifest.DESCRIPTION).exists():
            return False
        return "validation" in manifest.read(data_dir).splits

    def read(self, split: str, options: Options) -> tuple[DatasetInfo, Shards]:
        """Opens a split.

        Reads and checks dataset.json, the existence and the size of every file, the indices, and
        the last sequence of each file. The other sequences are checked when they are read.

        Raises:
            UserError: A file is missing or damaged, or of another version or conversion.
        """
        folder = require_data_dir("shards", options)
        found = manifest.read(folder)
        if split not in found.splits:
            raise SettingError(
                f"The shards in {folder} have no split {split!r}: they have "
                f"{' and '.join(found.splits)}."
            )
        keys, parts = [], []
        for number in range(len(found.splits[split])):
            key, part = _open(found, split, number)
            part["shard"] = number
            keys.append(key)
            parts.append(part)
        places = np.concatenate(parts)
        counts = np.bincount(places["label"], minlength=found.info.num_classes)
        places = places[subset(len(places), options.max_examples)]
        shards = Shards(keys, places, found.dtype, found.info.channels, found.compression)
        shards.counts = counts
        stored = found.found.get(split)
        if stored:
            shards.notes = tuple(stored["notes"])
            shards.value_range = tuple(stored["values"]) if stored["values"] else None
        return found.info, shards


def open_shard(found: manifest.Manifest, split: str, number: int) -> Shards:
    """Opens one file of a split; the other files need not exist.

    Raises:
        UserError: The file is missing or damaged, or of another conversion.
    """
    key, places = _open(found, split, number)
    return Shards([key], places, found.dtype, found.info.channels, found.compression)


def _open(found: manifest.Manifest, split: str, number: int) -> tuple[bytes, np.ndarray]:
    """Checks a file, its index and its last sequence. Returns its key and its PLACES [N]."""
    entries = found.splits[split]
    path, index_path = (
        found.folder / name for name in manifest.file_names(split, len(entries))[number]
    )
    key = manifest.check_file(path, entries[number])
    index = manifest.read_index(index_path, entries[number], found)
    places = np.zeros(len(index), records.PLACES)
    for name in records.INDEX.names:
        places[name] = index[name]
    # This finds, for example, a shard of another conversion.
    records.read_values([key], places[-1:], found.step_bytes, found.compression)
    return key, places
