"""The recurrence as LiteRT runs it fastest: a loop over a few steps of dense operations.

LiteRT hands dense operations of fixed shapes to XNNPACK, in the body of a WHILE too, and each pass
through the loop costs a microsecond or two beside them. So a pass is a few steps, written out. The
weights are packed anew for each of these steps, so that more of them do not fit into a core's
cache: two in float32 and four in 8 bits were fastest for 128 cells (`benchmarks/inference.py`).

TensorFlow's converter does not make a fused LSTM of it, which took twice the time.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from t2aux.export.twin import Twin
from t2aux.model.lstm import LSTMState


class UnrolledRecurrence:
    """A twin's LSTM over one sequence, `unroll` steps a pass."""

    def __init__(self, twin: Twin, unroll: int, *, integer_table: bool = False) -> None:
        """Arranges the weights.

        Args:
            twin: The weights.
            unroll: Steps of a pass through the loop.
            integer_table: Store the table of ids in int8, as ai-edge-quantizer can't.
        """
        self._size = twin.hidden_size
        self._unroll = unroll
        self._kernel = _arranged(twin.kernel)
        self._bias = _arranged(twin.bias)
        self._table = _arranged(twin.table)
        self._scale = None
        if integer_table and self._table is not None:
            self._scale = tf.reduce_max(tf.abs(self._table)).numpy() / 127
            self._table = tf.constant(np.round(self._table / self._scale), tf.int8)
        self._recurrent_kernel = _arranged(twin.recurrent_kernel)

    def __call__(self, tokens: tf.Tensor, state: LSTMState) -> LSTMState:
        """The state after a sequence or a segment of one.

        Args:
            tokens: [T, C] float32 or [T] int32. T may be unknown.
            state: The state before it, [1, H] each.

        Returns:
            The state after it, [1, H] each.
        """
        steps = tokens.shape[0]
        if steps is None:
            steps = tf.shape(tokens)[0]
        whole = steps // self._unroll * self._unroll
        # Where the length is known, a loop that would do nothing is left out.
        if not isinstance(steps, int) or whole:
            state = self._loop(tokens, state, 0, whole, self._unroll)
        if self._unroll > 1 and (not isinstance(steps, int) or whole < steps):
            state = self._loop(tokens, state, whole, steps, 1)
        return state

    def _loop(
        self,
        tokens: tf.Tensor,
        state: LSTMState,
        begin: tf.Tensor | int,
        end: tf.Tensor | int,
        unroll: int,
    ) -> LSTMState:
        """The steps begin <= t < end, of which `unroll` make a pass."""

        def passes(t: tf.Tensor, tokens: tf.Tensor, h: tf.Tensor, c: tf.Tensor) -> tuple:
            read = self._read(tokens, t, unroll)
            for step in range(unroll):
                z = tf.matmul(h, self._recurrent_kernel) + read[step : step + 1]
                h, c = self._cell(z, c)
            return t + unroll, tokens, h, c

        # The tokens travel along, since what a body takes from outside makes no file.
        _, _, h, c = tf.while_loop(
            lambda t, *_: t < end, passes, [tf.convert_to_tensor(begin), tokens, *state]
        )
        return LSTMState(h, c)

    def _read(self, tokens: tf.Tensor, begin: tf.Tensor, count: int) -> tf.Tensor:
        """The input's part of the pre-activations of some steps, [count, 4H]."""
        if self._table is not None:
            rows = tf.gather(self._table, tf.slice(tokens, [begin], [count]))
            return rows if self._scale is None else tf.cast(rows, tf.float32) * self._scale
        part = tf.slice(tokens, [begin, 0], [count, tokens.shape[1]])
        return tf.matmul(part, self._kernel) + self._bias

    def _cell(self, z: tf.Tensor, c: tf.Tensor) -> LSTMState:
        """`lstm.cell`, with the three sigmoids in one operation."""
        i, f, o = tf.split(tf.sigmoid(z[:, : 3 * self._size]), 3, axis=1)
        c = f * c + i * tf.tanh(z[:, 3 * self._size :])
        return LSTMState(o * tf.tanh(c), c)


def _arranged(weight: tf.Tensor | tf.Variable | None) -> tf.Tensor | None:
    """A constant whose gates [..., 4H] are in the order input, forget, output, candidate."""
    if weight is None:
        return None
    i, f, g, o = tf.split(tf.convert_to_tensor(weight), 4, axis=-1)
    return tf.constant(tf.concat([i, f, o, g], -1).numpy())
