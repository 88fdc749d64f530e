"""`keras.layers.GRU` as a core of `SequenceClassifier`."""

from __future__ import annotations

from typing import ClassVar

import keras
import tensorflow as tf

from t2aux.model.gru import GRURecurrence


@keras.saving.register_keras_serializable(package="t2aux")
class GRU(GRURecurrence, keras.layers.GRU):
    """`keras.layers.GRU`, which `SequenceClassifier` truncates and the auxiliary losses work on.

    Arguments, weights and values are those of `keras.layers.GRU`; there is no kernel of ours for
    it. See there for shapes.

    >>> model = t2aux.SequenceClassifier(classes=10, core=t2aux.layers.GRU(128))
    """

    checkpoint_names: ClassVar = {"cell": ""}

    @property
    def hidden_size(self) -> int:
        """H."""
        return self.units

    @property
    def kernel(self) -> keras.Variable:
        """[D, 3H]."""
        return self.cell.kernel

    @property
    def recurrent_kernel(self) -> keras.Variable:
        """[H, 3H]."""
        return self.cell.recurrent_kernel

    @property
    def bias(self) -> tf.Tensor | keras.Variable:
        """[2, 3H]."""
        return self.cell.bias

    @property
    def is_standard(self) -> bool:
        """Whether the recurrence is the one that `t2aux.model.gru` computes."""
        cell = self.cell
        return (
            cell.activation is keras.activations.tanh
            and cell.recurrent_activation is keras.activations.sigmoid
            and cell.reset_after
            and cell.use_bias
            and not (self.dropout or self.recurrent_dropout)
            and cell.compute_dtype == cell.variable_dtype == "float32"
        )
