"""Some of a split's examples, as a split: nothing is copied, and what is in shards stays there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from t2aux.data import checks
from t2aux.data.places import held_out
from t2aux.data.split import Batch, Split
from t2aux.errors import SettingError

if TYPE_CHECKING:
    import tensorflow as tf


# Keeps the choice apart from the order of the batches, which other numbers make of the same seed.
_STREAM = 0x76616C69


class PartSplit(Split):
    """Chosen examples of another split, in its order.

    Its batches are those of a split that holds these examples alone, bit for bit.
    """

    def __init__(self, whole: Split, indices: np.ndarray, notes: tuple[str, ...] = ()) -> None:
        """Chooses examples.

        Args:
            whole: The split; in memory or in shards.
            indices: int64 [N], ascending.
            notes: See `Split`.

        Raises:
            UserError: There are no examples.
        """
        self.notes = notes
        self.division = whole.division
        self._whole = whole
        self._indices = indices
        self._describe(
            whole.info, whole.labels[indices], whole.lengths[indices], whole.bucket_batches
        )

    @property
    def nbytes(self) -> int:
        """The memory that the split takes besides that of the whole one, in bytes."""
        return self._indices.nbytes + self.labels.nbytes + self.lengths.nbytes

    @property
    def values(self) -> np.ndarray:
        """The steps of its sequences; see `Split`. A copy."""
        return np.concatenate([values for values, _ in self.chunks()])

    def chunks(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields the steps of some of its sequences, and their lengths; see `Split`."""
        is_chosen = np.zeros(len(self._whole), bool)
        is_chosen[self._indices] = True
        start = 0
        for values, lengths in self._whole.chunks():
            chosen = is_chosen[start : start + len(lengths)]
            start += len(lengths)
            if chosen.any():
                yield values[np.repeat(chosen, lengths)], lengths[chosen]

    def value_range(self) -> tuple[float, float] | None:
        """The smallest and the largest value of the whole split."""
        return self._whole.value_range()

    def fingerprints(self) -> np.ndarray:
        """Returns a number for each sequence; see `Split`."""
        return self._whole.fingerprints()[self._indices]

    def example(self, index: int) -> np.ndarray:
        """Returns sequence `index`; see `Split`."""
        return self._whole.example(int(self._indices[index % len(self)]))

    def origin(self, chosen: np.ndarray) -> np.ndarray:
        """The places of some examples in the data as it was read; see `Split`."""
        return self._whole.origin(self._indices[chosen])

    def reader(self) -> Callable[[tf.Tensor], Batch]:
        """Returns what reads chosen examples; see `Split`."""
        import tensorflow as tf

        read = self._whole.reader()
        with tf.device("/CPU:0"):
            indices = tf.constant(self._indices)
        return lambda chosen: read(tf.gather(indices, chosen))


def hold_out(split: Split, fraction: float, seed: int) -> tuple[Split, Split]:
    """Divides a split in two, with about the same share of each class.

    Which examples are held out is a function of the labels, the fraction and the seed alone. Of
    each class at least one example stays; of one with few examples none may be held out.

    Args:
        split: The split; in memory or in shards.
        fraction: The share of the examples that is held out, in (0, 1).
        seed: Non-negative.

    Returns:
        What stays, and what is held out.

    Raises:
        UserError: Nothing would be held out.
    """
    is_out = held_out(np.asarray(split.labels), split.info.num_classes, fraction, seed, _STREAM)
    if not is_out.any():
        raise SettingError(
            f"A fraction of {fraction:g} holds out none of the {len(split):,} examples of "
            f"{split.info.name}, as at least one of each class stays: give a larger fraction, or "
            "more examples."
        )
    stays, out = np.flatnonzero(~is_out), np.flatnonzero(is_out)
    counts = np.bincount(split.labels[out], minlength=split.info.num_classes)
    notes = checks.absent("validation", split.info, counts)
    return PartSplit(split, stays, split.notes), PartSplit(split, out, tuple(notes))
