"""The LSTM in exports; for other cores, see `t2aux.model.inference`.

It equals `lstm.cell`, but uses the operations that were fastest (`benchmarks/inference.py`). On a
server: one matrix product per step, of the output and the input together, and one tanh for all
gates, since sigmoid(z) = (1 + tanh(z / 2)) / 2. On a device: the three sigmoids in one operation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import tensorflow as tf

from t2aux.model.classifier import BaseClassifier
from t2aux.model.core import Core
from t2aux.model.inference import FoldedInference, Inference, loop, weight
from t2aux.model.inputs import InputLayer
from t2aux.model.lstm import LSTM, LSTMState

if TYPE_CHECKING:
    from t2aux.export.model import Model


def inference(classifier: BaseClassifier | Model, *, batches: bool) -> Inference | None:
    """An LSTM's inference; None for any other core.

    Args:
        classifier: The classifier with its weights.
        batches: Whether it is for batches on a server, or for one sequence on a device.
    """
    if not is_lstm(classifier.core):
        return None
    return (ForBatches if batches else ForOneSequence)(classifier.core, classifier.input_layer)


def is_lstm(core: Core) -> bool:
    """Whether a core computes the LSTM's step, which a subclass may override."""
    return type(core).step is LSTM.step


class ForBatches(Inference):
    """The LSTM for batches.

    The weights are scaled so that one tanh of all pre-activations gives the gates. For real values,
    the recurrent kernel, the kernel and the bias are stacked: [H + C + 1, 4H]. For ids, only the
    recurrent kernel is used, and the table includes the bias.
    """

    def __init__(self, core: LSTM, input_layer: InputLayer) -> None:
        """Arranges the weights."""
        super().__init__()
        folded = input_layer.fold(core.kernel, core.bias)
        kernel = tf.convert_to_tensor(core.recurrent_kernel)
        # Input, forget, candidate, output.
        scale = tf.repeat(tf.constant([0.5, 0.5, 1.0, 0.5]), core.hidden_size)
        self._table = None
        if folded.table is None:
            kernel = tf.concat([kernel, folded.kernel, folded.bias[tf.newaxis]], 0)
        else:
            self._table = weight(folded.table * scale, "table")
        self._kernel = weight(kernel * scale, "kernel")

    def scan(self, tokens: tf.Tensor, state: LSTMState, lengths: tf.Tensor) -> LSTMState:
        """See `Inference`."""
        # Read once, outside the loop.
        kernel = tf.convert_to_tensor(self._kernel)
        table = None if self._table is None else tf.convert_to_tensor(self._table)
        if table is None:
            tokens = tf.concat([tokens, tf.ones_like(tokens[..., :1])], -1)

        def step(t: tf.Tensor, state: LSTMState) -> LSTMState:
            if table is None:
                z = tf.matmul(tf.concat([state.h, tokens[t]], -1), kernel)
            else:
                z = tf.matmul(state.h, kernel) + tf.gather(table, tokens[t])
            i, f, g, o = tf.split(tf.tanh(z), 4, axis=-1)
            c = 0.5 * ((1 + f) * state.c + (1 + i) * g)
            return LSTMState(0.5 * (1 + o) * tf.tanh(c), c)

        return loop(step, state, lengths)


class ForOneSequence(FoldedInference):
    """The LSTM for one sequence, with the gates in the order input, forget, output, candidate."""

    def __init__(self, core: LSTM, input_layer: InputLayer) -> None:
        """Arranges the weights."""
        super().__init__(input_layer, _arranged(core.kernel), _arranged(core.bias))
        self._size = core.hidden_size
        self._recurrent_kernel = weight(_arranged(core.recurrent_kernel), "recurrent_kernel")

    def step(self, read: tf.Tensor, state: LSTMState) -> LSTMState:
        """See `Inference`."""
        z = tf.matmul(state.h, self._recurrent_kernel) + read
        i, f, o = tf.split(tf.sigmoid(z[:, : 3 * self._size]), 3, axis=1)
        c = f * state.c + i * tf.tanh(z[:, 3 * self._size :])
        return LSTMState(o * tf.tanh(c), c)


def _arranged(value: tf.Tensor | tf.Variable) -> tf.Tensor:
    """A weight [..., 4H] whose gates are in the order input, forget, output, candidate."""
    i, f, g, o = tf.split(tf.convert_to_tensor(value), 4, axis=-1)
    return tf.concat([i, f, o, g], -1)
