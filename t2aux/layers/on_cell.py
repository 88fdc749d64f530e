"""What Keras's layers on a cell need to be cores of `SequenceClassifier`."""

from __future__ import annotations

from typing import ClassVar

import keras


class OnCell:
    """The cell's weights as the layer's own, for a recurrence of G gates."""

    # The cell's weights are the layer's in checkpoints.
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
