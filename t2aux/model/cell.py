"""Runs any Keras RNN cell as a core, in a plain loop."""

from __future__ import annotations

from typing import Any, NamedTuple

import keras
import tensorflow as tf

from t2aux.errors import SettingError
from t2aux.model import core
from t2aux.model.lstm import LSTMState


class CellState(NamedTuple):
    """A cell's state.

    Attributes:
        output: The cell's last output, [B, H].
        states: The cell's states, [B, ...] each.
    """

    output: tf.Tensor
    states: tuple[tf.Tensor, ...]

    @property
    def h(self) -> tf.Tensor:
        """The output [B, H]."""
        return self.output

    def as_lstm(self) -> LSTMState:
        """The first two states of size H. A single one is used twice, as for a GRU; without, h."""
        alike = [s for s in self.states if s.shape[1:] == self.output.shape[1:]] or [self.output]
        return LSTMState(alike[0], alike[min(1, len(alike) - 1)])


class CellCore(core.Core):
    """A Keras RNN cell as a core.

    Attributes:
        cell: A layer with a `state_size` and a `call(inputs, states)` that returns the output
            [B, H] and the new states.
        hidden_size: H.
    """

    def __init__(self, cell: keras.layers.Layer) -> None:
        """Wraps a cell.

        Args:
            cell: The cell.

        Raises:
            UserError: The cell has no `state_size` or has states that are not vectors, uses
                dropout, or does not compute in float32.
        """
        super().__init__(name="cell_core", dtype="float32")
        kind = type(cell).__name__
        if not hasattr(cell, "state_size"):
            raise SettingError(
                f"The core is a {kind}, which has no state_size: give a recurrent layer such as "
                "t2aux.layers.LSTM(128), or a Keras RNN cell."
            )
        if getattr(cell, "dropout", 0) or getattr(cell, "recurrent_dropout", 0):
            raise SettingError(
                f"The core {kind} drops values in training, which is not supported: windows are "
                "computed twice, and would drop others; set its dropout and recurrent_dropout to 0."
            )
        if cell.compute_dtype != "float32":
            raise SettingError(f"The core {kind} computes in {cell.compute_dtype}: give float32.")
        self.cell = cell
        sizes = cell.state_size
        # Stacked cells have a list of lists.
        self._nested = list(sizes) if isinstance(sizes, (list, tuple)) else [sizes]
        self._sizes = tuple(tf.nest.flatten(self._nested))
        if not all(isinstance(size, int) and size > 0 for size in self._sizes):
            raise SettingError(
                f"The core is a {kind}, whose state is not of vectors [batch, size]: give a cell "
                "whose state_size is a number, or a list of numbers."
            )
        self.hidden_size = getattr(cell, "output_size", None) or self._sizes[0]

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates the cell's weights for inputs [B, T, D]."""
        if not self.cell.built:
            self.cell.build((input_shape[0], input_shape[-1]))
            self.cell.built = True

    def init_state(self, batch: tf.Tensor | int) -> CellState:
        """The cell's initial states, [batch, ...] each; the output is zero."""
        output = tf.zeros([batch, self.hidden_size])
        if hasattr(self.cell, "get_initial_state"):
            states = self.cell.get_initial_state(batch_size=batch)
        else:
            states = [tf.zeros([batch, size]) for size in self._sizes]
        return CellState(output, tuple(tf.nest.flatten(states)))

    def step(self, x: tf.Tensor, state: CellState) -> tuple[tf.Tensor, CellState]:
        """See `Core`."""
        states = tf.nest.pack_sequence_as(self._nested, list(state.states))
        output, after = self.cell(x, states)
        return output, CellState(output, tuple(tf.nest.flatten(after)))


def as_core(given: Any) -> core.Core:
    """Returns the core that the classifier runs: a t2aux core, or any Keras cell in a loop.

    Args:
        given: A core, a Keras recurrent layer or an RNN cell.

    Raises:
        UserError: `given` is not one of these.
    """
    refused = ("kernel_regularizer", "recurrent_regularizer", "bias_regularizer", "go_backwards")
    for name in (*refused, "activity_regularizer", "stateful"):
        if getattr(given, name, None):
            raise SettingError(
                f"The core has {name}, which SequenceClassifier does not support: leave it out."
            )
    if isinstance(given, core.Core) and getattr(given, "is_standard", True):
        return given
    cell = given.cell if isinstance(given, keras.layers.RNN) else given
    if not isinstance(cell, keras.layers.Layer):
        raise SettingError(
            f"core is {given!r}: give a recurrent layer such as t2aux.layers.LSTM(128), or a Keras "
            "RNN cell."
        )
    return CellCore(cell)
