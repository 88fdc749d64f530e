"""What Keras's cell-based layers need to be cores of `SequenceClassifier`."""

from __future__ import annotations

from typing import ClassVar

import keras


class OnCell:
    """Exposes the cell's weights as the layer's own, for a recurrence with G gates."""

    # In checkpoints, the cell's weights are stored as the layer's.
    checkpoint_names: ClassVar = {"cell": ""}

    @property
    def hidden_size(self) -> int:
        """H."""
        return self.units

    @property
    def kernel(self) -> keras.Variable:
        """[D, GH]."""
        return self.cell.kernel

    @property
    def recurrent_kernel(self) -> keras.Variable:
        """[H, GH]."""
        return self.cell.recurrent_kernel
