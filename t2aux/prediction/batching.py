"""Divides rows into batches of similar lengths and fixed sizes.

The size of a batch depends only on the lengths of its sequences, and an incomplete batch is padded.
Therefore, the prediction for a row does not depend on the rows around it, which vary if many
processes share the work.
"""

from __future__ import annotations

import collections
from collections.abc import Sequence

import numpy as np

BATCH_SIZE = 128
# The maximum number of steps of a batch, including padding. It limits batches of long sequences.
_MAX_STEPS = 1 << 18


def rows_of(length: int, batch_size: int = BATCH_SIZE) -> int:
    """The number of rows of a batch whose longest sequence has `length` steps."""
    rounded = 1 << max(int(length) - 1, 0).bit_length()
    return max(1, min(batch_size, _MAX_STEPS // rounded))


def plan(lengths: Sequence[int], batch_size: int = BATCH_SIZE) -> list[tuple[np.ndarray, int]]:
    """Divides rows into batches.

    Args:
        lengths: The number of steps of each row.
        batch_size: The maximum number of rows of a batch.

    Returns:
        For each batch, the indices of its rows, int64, and its size after padding.
    """
    groups: dict[int, list[int]] = collections.defaultdict(list)
    for index, length in enumerate(lengths):
        groups[rows_of(length, batch_size)].append(index)
    batches = []
    for rows, indices in groups.items():
        chosen = np.array(indices, np.int64)
        # Batches of sequences of similar lengths need little padding.
        chosen = chosen[np.argsort(np.asarray(lengths)[chosen], kind="stable")]
        batches += [(chosen[i : i + rows], rows) for i in range(0, len(chosen), rows)]
    return batches
