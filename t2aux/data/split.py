"""A split of a data set in memory, and its batches."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from t2aux.data.places import Division
from t2aux.data.table import Table
from t2aux.errors import KINDS, DataError, SettingError
from t2aux_ondevice.preprocessing import DatasetInfo, scale_pixels

if TYPE_CHECKING:
    import tensorflow as tf

_PREFETCHED_BATCHES = 2


@contextlib.contextmanager
def user_errors() -> Iterator[None]:
    """Restores a UserError that TensorFlow wrapped in its own error inside a pipeline.

    Use it around the code that iterates over `Split.batches`.
    """
    import tensorflow as tf

    try:
        yield
    except tf.errors.UnknownError as error:
        pattern = rf"\b({'|'.join(KINDS)}): (.*?)\nTraceback \(most recent"
        match = re.search(pattern, error.message, re.DOTALL)
        if not match:
            raise
        raise KINDS[match[1]](match[2]) from error


def untuned(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Returns a dataset whose iterators can be deleted without delay.

    TensorFlow's tuner, which has nothing to tune here, is a thread that wakes less and less often,
    in the end once a minute. Deleting an iterator waits for this thread, which sometimes misses the
    request to end until it next wakes: SIGTERM once took 48 s (TensorFlow 2.21).
    """
    import tensorflow as tf

    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)


class Batch(NamedTuple):
    """A batch of sequences.

    Attributes:
        inputs: float32 [B, T, C], pixels in [0, 1]; or int32 ids [B, T]. Shorter sequences are
            padded with zeros on the right.
        lengths: int32 [B]: the number of true steps of each sequence, at least 1.
        labels: int32 [B].
    """

    inputs: tf.Tensor | np.ndarray
    lengths: tf.Tensor | np.ndarray
    labels: tf.Tensor | np.ndarray


class Split:
    """The examples of a split, and their order in training.

    Attributes:
        info: The description of the sequences and the classes.
        labels: int32 [N].
        lengths: int32 [N]: the number of steps of each sequence.
        bucket_batches: As for `load`.
        notes: What the reader skipped, guessed or found unusual, one sentence each.
        division: How the data that the split is a part of was divided; None if it was not.
    """

    notes: tuple[str, ...] = ()
    division: Division | None = None

    def __init__(
        self,
        info: DatasetInfo,
        table: Table,
        bucket_batches: int = 16,
        notes: tuple[str, ...] = (),
    ) -> None:
        """Wraps a table.

        Args:
            info: The description of the table's content.
            table: The sequences. Pixels must already be permuted.
            bucket_batches: As for `load`.
            notes: See above.

        Raises:
            UserError: There are no examples.
        """
        self.notes = notes
        lengths = np.diff(table.offsets).astype(np.int32)
        self._describe(info, table.labels, lengths, bucket_batches)
        self._table = table
        self._tensors: tuple[tf.Tensor, tf.Tensor, tf.Tensor] | None = None

    def _describe(
        self, info: DatasetInfo, labels: np.ndarray, lengths: np.ndarray, bucket_batches: int
    ) -> None:
        """Sets the attributes of any split. Raises UserError if there are no sequences."""
        if not len(labels):
            raise DataError(f"The data set {info.name} has no examples: check its files.")
        self.info = info
        self.labels = labels
        self.lengths = lengths
        self.bucket_batches = bucket_batches
        self._is_ragged = bool((lengths != lengths[0]).any())

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def nbytes(self) -> int:
        """The memory of the split in bytes."""
        table = self._table
        return sum(a.nbytes for a in (table.values, table.offsets, self.labels, self.lengths))

    @property
    def values(self) -> np.ndarray:
        """The concatenated steps of all sequences, as they are stored (see `Table`)."""
        return self._table.values

    def counts(self) -> np.ndarray:
        """The number of examples of each class, int64 [K]."""
        return np.bincount(self.labels, minlength=self.info.num_classes)

    def chunks(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields the split in chunks: the steps of some sequences, as in `values`, and the lengths.

        Each chunk fits in memory; a split in memory is one chunk.
        """
        yield self._table.values, self.lengths

    def value_range(self) -> tuple[float, float] | None:
        """The smallest and the largest value, as the model sees them; None for ids."""
        values = self._table.values
        if self.info.reads_ids or not len(values):
            return None
        scale = 255.0 if values.dtype == np.uint8 else 1.0
        return float(values.min()) / scale, float(values.max()) / scale

    def fingerprints(self) -> np.ndarray:
        """Returns a number for each sequence, equal for equal steps, uint64 [N]."""
        found = [
            zlib.crc32(np.ascontiguousarray(sequence)) << 32 | len(sequence)
            for sequence in self._table.sequences()
        ]
        return np.array(found, np.uint64)

    def origin(self, chosen: np.ndarray) -> np.ndarray:
        """The positions of some examples in the data as it was read, int64 [N].

        Args:
            chosen: Their positions in the split, int64 [N].
        """
        return chosen

    def example(self, index: int) -> np.ndarray:
        """Returns sequence `index` as the model sees it: float32 [T, C] or int32 ids [T]."""
        start, end = self._table.offsets[index % len(self)] + [0, self.lengths[index]]
        return self._as_input(self._table.values[start:end])

    def num_batches(self, batch_size: int, drop_remainder: bool = False) -> int:
        """Returns the number of batches of an epoch."""
        return len(self) // batch_size if drop_remainder else -(-len(self) // batch_size)

    def order(self, batch_size: int, *, seed: int | None = None, epoch: int = 0) -> np.ndarray:
        """Returns the order of the examples in an epoch, a pure function of its arguments.

        Sequences of varying lengths are bucketed: within pools of `bucket_batches` batches, they
        are sorted by length, so that batches have little padding, and then the batches are
        shuffled.

        Args:
            batch_size: The number of examples in a batch.
            seed: Non-negative seed, or None for the order of the files.
            epoch: Number of the epoch, from 0.

        Returns:
            int64 [N]; batch i is order[i * batch_size : (i + 1) * batch_size].
        """
        count = len(self)
        if seed is None:
            return np.arange(count)
        generator = np.random.Generator(np.random.PCG64([seed, epoch]))
        order = generator.permutation(count)
        full = count // batch_size
        if not self._is_ragged or self.bucket_batches < 2 or not full:
            return order
        # The incomplete batch stays at the end, so that dropping it drops random examples.
        head, rest = order[: full * batch_size], order[full * batch_size :]
        pool = self.bucket_batches * batch_size
        for start in range(0, len(head), pool):
            part = head[start : start + pool]
            head[start : start + pool] = part[np.argsort(self.lengths[part], kind="stable")]
        batches = head.reshape(full, batch_size)[generator.permutation(full)]
        return np.concatenate([batches.reshape(-1), rest])

    def batches(
        self,
        batch_size: int,
        *,
        seed: int | None = None,
        epoch: int = 0,
        first_batch: int = 0,
        drop_remainder: bool = False,
    ) -> tf.data.Dataset:
        """Returns the batches of an epoch.

        Args:
            batch_size: The number of examples in a batch.
            seed: Non-negative seed of the shuffle, or None for the order of the files.
            epoch: Number of the epoch; with `seed` it fixes the order.
            first_batch: The batch to start at. The batches are exactly those of an uninterrupted
                pass from there on; the ones before are not read.
            drop_remainder: Whether to leave out the last batch if it is smaller.

        Returns:
            A `tf.data.Dataset` of `Batch`.

        Raises:
            UserError: The batch size or the seed is out of range, or the batch size is larger than
                the split and the remainder is dropped.
            ValueError: first_batch is out of range.
        """
        # Imported here because a summary or a device's client reads data without TensorFlow.
        import tensorflow as tf

        if batch_size < 1:
            raise SettingError(f"The batch size is {batch_size}: give at least 1.")
        if seed is not None and seed < 0:
            raise SettingError(f"The seed of the shuffle is {seed}: give 0 or more.")
        count = self.num_batches(batch_size, drop_remainder)
        if not count:
            raise SettingError(
                f"The batch size of {batch_size} is more than the {len(self)} examples of "
                f"{self.info.name}: make it smaller."
            )
        if not 0 <= first_batch <= count:
            raise ValueError(f"first_batch is {first_batch}; the epoch has {count} batches.")
        read = self.reader()
        with tf.device("/CPU:0"):
            order = tf.constant(self.order(batch_size, seed=seed, epoch=epoch))

        # This uses only TensorFlow's operations: a Python function made in each epoch would never
        # be freed, since the default graph keeps every function passed to tf.numpy_function.
        def fetch(number: tf.Tensor) -> Batch:
            return read(order[number * batch_size : (number + 1) * batch_size])

        dataset = tf.data.Dataset.range(first_batch, count).map(fetch)
        return untuned(dataset.prefetch(_PREFETCHED_BATCHES))

    def shares(
        self,
        batch_size: int,
        shares: Sequence[tuple[int, int]],
        *,
        seed: int,
        epoch: int = 0,
        first_batch: int = 0,
    ) -> tf.data.Dataset:
        """Returns some replicas' rows of the batches of an epoch, and reads only these.

        Replica r of R gets every R-th row, beginning with row r. If an incomplete batch has no row
        for a replica, it gets the first row.

        Args:
            batch_size: The number of examples in a whole batch.
            shares: r and R of each replica.
            seed: See `batches`.
            epoch: See `batches`.
            first_batch: See `batches`.

        Returns:
            A `tf.data.Dataset` of one `Batch` per replica, each padded to the longest sequence of
            the whole batch, and of the lengths of the whole batch, int32 [G].
        """
        import tensorflow as tf

        read = self.reader()
        with tf.device("/CPU:0"):
            order = tf.constant(self.order(batch_size, seed=seed, epoch=epoch))
            all_lengths = tf.constant(self.lengths)

        def fetch(number: tf.Tensor) -> tuple[tuple[Batch, ...], tf.Tensor]:
            rows = order[number * batch_size : (number + 1) * batch_size]
            lengths = tf.gather(all_lengths, rows)
            batches = []
            for replica, replicas in shares:
                first = tf.where(replica < tf.size(rows), replica, 0)
                batch = read(rows[first::replicas])
                if self._is_ragged:
                    missing = tf.reduce_max(lengths) - tf.shape(batch.inputs)[1]
                    sides = [[0, 0], [0, missing]] + [[0, 0]] * (batch.inputs.shape.rank - 2)
                    batch = batch._replace(inputs=tf.pad(batch.inputs, sides))
                batches.append(batch)
            return tuple(batches), lengths

        count = self.num_batches(batch_size)
        dataset = tf.data.Dataset.range(first_batch, count).map(fetch)
        return untuned(dataset.prefetch(_PREFETCHED_BATCHES))

    def reader(self) -> Callable[[tf.Tensor], Batch]:
        """Returns the function that reads chosen examples, made of TensorFlow's operations.

        Returns:
            A function from int64 indices [B] to their `Batch`. It may be called in a graph, and
            holds everything that it needs.
        """
        import tensorflow as tf

        values, offsets, labels = self._in_tensorflow()
        with tf.device("/CPU:0"):
            if self._is_ragged:
                rows = tf.RaggedTensor.from_row_splits(values, offsets, validate=False)
            else:
                rows = tf.reshape(values, [len(self), self.lengths[0], *values.shape[1:]])
        input_type = tf.int32 if self.info.reads_ids else tf.float32
        is_pixels = values.dtype == tf.uint8 and not self.info.reads_ids

        def read(chosen: tf.Tensor) -> Batch:
            inputs = tf.gather(rows, chosen)
            if self._is_ragged:
                inputs = inputs.to_tensor()
            inputs = tf.cast(inputs, input_type)
            if is_pixels:
                inputs /= 255.0
            starts, ends = tf.gather(offsets, chosen), tf.gather(offsets, chosen + 1)
            return Batch(inputs, tf.cast(ends - starts, tf.int32), tf.gather(labels, chosen))

        return read

    def _in_tensorflow(self) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Returns values, offsets and labels as tensors on the CPU, made once."""
        import tensorflow as tf

        if self._tensors is None:
            table = self._table
            with tf.device("/CPU:0"):
                self._tensors = tuple(
                    tf.constant(array) for array in (table.values, table.offsets, self.labels)
                )
            # From now on, the numpy array shares the tensor's memory, so the table is stored once.
            values = np.asarray(memoryview(self._tensors[0]))
            self._table = dataclasses.replace(table, values=values)
        return self._tensors

    def _as_input(self, values: np.ndarray) -> np.ndarray:
        if self.info.reads_ids:
            return values.astype(np.int32)
        return scale_pixels(values) if values.dtype == np.uint8 else values
