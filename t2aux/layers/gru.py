"""`keras.layers.GRU` as a core of `SequenceClassifier`."""

from __future__ import annotations

import keras
import tensorflow as tf

from t2aux.layers.on_cell import OnCell
from t2aux.model.gru import GRURecurrence


@keras.saving.register_keras_serializable(package="t2aux")
class GRU(OnCell, GRURecurrence, keras.layers.GRU):
    """A `keras.layers.GRU` for `SequenceClassifier`, its truncation and the auxiliary losses.

    Arguments, weights, shapes and values are those of `keras.layers.GRU`. The layer is computed by
    Keras; t2aux has no kernel for it.

    >>> model = t2aux.SequenceClassifier(classes=10, core=t2aux.layers.GRU(128))
    """

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
