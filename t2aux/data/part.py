"""A split of some of another split's examples, without copying or loading them."""

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


# Makes the choice independent of the order of the batches, which uses the same seed.
_STREAM = 0x76616C69


class PartSplit(Split):
    """Chosen examples of another split, in its order.

    Its batches are bit-identical to those of a split that holds only these examples.
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
        """The memory of the split in addition to that of the whole split, in bytes."""
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
        """Returns the function that reads chosen examples; see `Split`."""
        import tensorflow as tf

        read = self._whole.reader()
        with tf.device("/CPU:0"):
            indices = tf.constant(self._indices)
        return lambda chosen: read(tf.gather(indices, chosen))


def hold_out(split: Split, fraction: float, seed: int) -> tuple[Split, Split]:
    """Divides a split in two, with about the same share of each class.

    The choice of the held-out examples depends only on the labels, the fraction and the seed. At
    least one example of each class stays, so none may be held out of a class with few examples.

    Args:
        split: The split; in memory or in shards.
        fraction: The fraction of the examples to hold out, in (0, 1).
        seed: Non-negative.

    Returns:
        The remaining examples and the held-out examples.

    Raises:
        UserError: Nothing would be held out.
    """
    is_out = held_out(np.asarray(split.labels), split.info.num_classes, fraction, seed, _STREAM)
    if not is_out.any():
        raise SettingError(
            f"A fraction of {fraction:g} holds out none of the {len(split):,} examples of "
            f"{split.info.name}, because at least one of each class stays: give a larger fraction, "
            "or more examples."
        )
    stays, out = np.flatnonzero(~is_out), np.flatnonzero(is_out)
    counts = np.bincount(split.labels[out], minlength=split.info.num_classes)
    notes = checks.absent("validation", split.info, counts)
    return PartSplit(split, stays, split.notes), PartSplit(split, out, tuple(notes))
