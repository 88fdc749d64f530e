"""Which rows are classified together: rows of like lengths, in batches of fixed sizes.

The size of a batch depends on the lengths of its sequences alone, and an incomplete batch is filled
up. So the prediction for a row does not depend on the rows around it, which differ where many
processes share the work.
"""

from __future__ import annotations

import collections
from collections.abc import Sequence

import numpy as np

BATCH_SIZE = 128
# Steps of a batch, those that pad it among them: what long sequences' batches are kept small by.
_MAX_STEPS = 1 << 18


def rows_of(length: int, batch_size: int = BATCH_SIZE) -> int:
    """How many rows a batch has whose longest sequence has so many steps."""
    rounded = 1 << max(int(length) - 1, 0).bit_length()
    return max(1, min(batch_size, _MAX_STEPS // rounded))


def plan(lengths: Sequence[int], batch_size: int = BATCH_SIZE) -> list[tuple[np.ndarray, int]]:
    """Divides rows into batches.

    Args:
        lengths: The steps of each row.
        batch_size: The most rows of a batch.

    Returns:
        For each batch the indices of its rows, int64, and the size that it is filled up to.
    """
    groups: dict[int, list[int]] = collections.defaultdict(list)
    for index, length in enumerate(lengths):
        groups[rows_of(length, batch_size)].append(index)
    batches = []
    for rows, indices in groups.items():
        chosen = np.array(indices, np.int64)
        # Sequences of like lengths together have little padding.
        chosen = chosen[np.argsort(np.asarray(lengths)[chosen], kind="stable")]
        batches += [(chosen[i : i + rows], rows) for i in range(0, len(chosen), rows)]
    return batches
