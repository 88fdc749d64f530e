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
    """What a split holds, with the normalisation that is right for it.

    It is scikit-learn's `StandardScaler`, over the true steps of all sequences: a channel that does
    not vary is divided by 1. The sequences are read once, and the same ones give the same numbers
    wherever they are: in memory or in shards.

    Args:
        split: The training data. It stays as it is.

    Returns:
        Its `info`, for real values that are not images with `mean` and `deviation`.
    """
    if split.info.kind != "vectors":
        return split.info
    from sklearn.preprocessing import StandardScaler  # Slow to import.

    scaler = StandardScaler()
    progress = Progress("Normalising: steps read", int(split.lengths.sum(dtype=np.int64)))
    done = 0
    for block in _blocks(split):
        # In float64, since squares of float32 may be beyond it.
        scaler.partial_fit(block.astype(np.float64))
        done += len(block)
        progress.update(done)
    # As float32, in which the network computes with them: a deviation that is 0 there divides by 1.
    mean, deviation = (a.astype(np.float32) for a in (scaler.mean_, scaler.scale_))
    deviation = np.where(deviation < np.finfo(np.float32).tiny, np.float32(1), deviation)
    return dataclasses.replace(
        split.info, mean=tuple(mean.tolist()), deviation=tuple(deviation.tolist())
    )


def _blocks(split: Split) -> Iterator[np.ndarray]:
    """The steps of all sequences, as many at once wherever the split's chunks end."""
    waiting: list[np.ndarray] = []
    count = 0
    for values, _ in split.chunks():
        if values.dtype == np.uint8:  # Of a source of a user's own.
            values = scale_pixels(values)
        while count + len(values) >= _AT_ONCE:
            needed = _AT_ONCE - count
            yield np.concatenate([*waiting, values[:needed]])
            values, waiting, count = values[needed:], [], 0
        waiting.append(values)
        count += len(values)
    if count:
        yield np.concatenate(waiting)
