"""The mean and the standard deviation of each channel of real-valued sequences."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from t2aux.data.split import Split
from t2aux.progress import Progress
from t2aux_ondevice.preprocessing import DatasetInfo, scale_pixels

_AT_ONCE = 1 << 16  # Steps.


def fitted(split: Split) -> DatasetInfo:
    """Fits the normalisation to a split.

    Uses scikit-learn's `StandardScaler` over the true steps of all sequences; a constant channel is
    divided by 1. The sequences are read once, and the result is the same in memory and in shards.

    Args:
        split: The training data. It is not changed.

    Returns:
        The split's `info` which, for real values that are not images, has `mean` and `deviation`.
    """
    if split.info.kind != "vectors":
        return split.info
    from sklearn.preprocessing import StandardScaler  # Slow to import.

    scaler = StandardScaler()
    progress = Progress("Normalising: steps read", int(split.lengths.sum(dtype=np.int64)))
    done = 0
    for block in _blocks(split):
        # In float64, since the squares of float32 values may overflow.
        scaler.partial_fit(block.astype(np.float64))
        done += len(block)
        progress.update(done)
    # In float32, as in the network: a deviation that becomes 0 is replaced by 1.
    mean, deviation = (a.astype(np.float32) for a in (scaler.mean_, scaler.scale_))
    deviation = np.where(deviation < np.finfo(np.float32).tiny, np.float32(1), deviation)
    return dataclasses.replace(
        split.info, mean=tuple(mean.tolist()), deviation=tuple(deviation.tolist())
    )


def _blocks(split: Split) -> Iterator[np.ndarray]:
    """The steps of all sequences, in blocks of equal size regardless of the split's chunks."""
    waiting: list[np.ndarray] = []
    count = 0
    for values, _ in split.chunks():
        if values.dtype == np.uint8:  # From a user's own source.
            values = scale_pixels(values)
        while count + len(values) >= _AT_ONCE:
            needed = _AT_ONCE - count
            yield np.concatenate([*waiting, values[:needed]])
            values, waiting, count = values[needed:], [], 0
        waiting.append(values)
        count += len(values)
    if count:
        yield np.concatenate(waiting)
