"""The LSTM: its mathematics once, as one step and as a scan, both with explicit state.

Nothing here hides state in a variable. `scan` over segments with the state carried equals `scan`
over the whole sequence, and so does `step` repeated, in values and gradients. Everything inside is
time-major; only `LSTM.scan` takes batch-major input.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import keras
import tensorflow as tf

from t2aux.model import initializers


class LSTMState(NamedTuple):
    """An LSTM's state: the output `h` [B, H] and the cell `c` [B, H]."""

    h: tf.Tensor
    c: tf.Tensor


def cell(z: tf.Tensor, c: tf.Tensor) -> LSTMState:
    """One step from the gates' pre-activations.

    Args:
        z: [B, 4H] pre-activations, in Keras's order: input, forget, candidate, output.
        c: [B, H] the cell before this step.

    Returns:
        The state after it: c' = f * c + i * g and h' = o * tanh(c').
    """
    i, f, g, o = tf.split(z, 4, axis=-1)
    c = tf.sigmoid(f) * c + tf.sigmoid(i) * tf.tanh(g)
    return LSTMState(tf.sigmoid(o) * tf.tanh(c), c)


def run(
    read: Callable[[tf.Tensor], tf.Tensor],
    begin: tf.Tensor | int,
    end: tf.Tensor | int,
    state: LSTMState,
    recurrent_kernel: tf.Tensor,
    *,
    active: Callable[[tf.Tensor], tf.Tensor] | None = None,
    collect: bool = False,
) -> tuple[LSTMState, LSTMState | None]:
    """Runs the recurrence over the steps begin <= t < end.

    Without `collect` nothing is stored along the way, so that steps that carry no gradient cost no
    memory, however many they are.

    Args:
        read: Gives the input's part of the pre-activations at step t, [B, 4H].
        begin: The first step.
        end: One past the last step.
        state: The state before step `begin`.
        recurrent_kernel: [H, 4H].
        active: Gives at step t which sequences are there, [B, 1] bool; the others keep their state.
        collect: Also return the states after every step.

    Returns:
        The state after the last step, and the states after every step ([end - begin, B, H] each)
        or None.
    """
    begin = tf.convert_to_tensor(begin, tf.int32)
    end = tf.convert_to_tensor(end, tf.int32)
    # The matrix product's result would lose the static sizes of `state` in a loop over any batch.
    shape = state.h.shape

    def advance(t: tf.Tensor, h: tf.Tensor, c: tf.Tensor) -> LSTMState:
        new = cell(read(t) + tf.matmul(h, recurrent_kernel), c)
        if active is not None:
            here = active(t)
            new = LSTMState(tf.where(here, new.h, h), tf.where(here, new.c, c))
        return LSTMState(tf.ensure_shape(new.h, shape), tf.ensure_shape(new.c, shape))

    if not collect:
        _, h, c = tf.while_loop(
            lambda t, h, c: t < end,
            lambda t, h, c: (t + 1, *advance(t, h, c)),
            (begin, state.h, state.c),
        )
        return LSTMState(h, c), None

    steps = end - begin
    stored = [tf.TensorArray(tf.float32, steps, element_shape=shape) for _ in range(2)]

    def body(
        t: tf.Tensor, h: tf.Tensor, c: tf.Tensor, hs: tf.TensorArray, cs: tf.TensorArray
    ) -> tuple:
        h, c = advance(t, h, c)
        return t + 1, h, c, hs.write(t - begin, h), cs.write(t - begin, c)

    _, h, c, hs, cs = tf.while_loop(lambda t, *_: t < end, body, (begin, state.h, state.c, *stored))
    return LSTMState(h, c), LSTMState(hs.stack(), cs.stack())


def read_dense(x: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor) -> Callable:
    """A reader for `run` over real-valued input.

    Args:
        x: [T, B, D], time-major.
        kernel: [D, 4H].
        bias: [4H].
    """
    # Slicing x[t] in the loop would make the backward pass quadratic in T: each slice's gradient
    # is a tensor as large as x. A TensorArray's is one slice.
    steps = tf.TensorArray(tf.float32, tf.shape(x)[0], element_shape=x.shape[1:]).unstack(x)
    return lambda t: tf.matmul(steps.read(t), kernel) + bias


class LSTM(tf.Module):
    """A layer of LSTM cells with Keras's weights and gate order (input, forget, cell, output).

    Initial weights: Glorot-uniform kernel, orthogonal recurrent kernel, zero bias but for the
    forget gate's, which is 1.
    """

    def __init__(self, input_size: int, hidden_size: int, *, seed: int, name: str) -> None:
        """Makes the weights.

        Args:
            input_size: D.
            hidden_size: H.
            seed: Of the initial weights, together with `name`.
            name: The layer's name.
        """
        super().__init__(name=name.replace("/", "_"))
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.kernel = initializers.glorot((input_size, 4 * hidden_size), seed, f"{name}/kernel")
        self.recurrent_kernel = initializers.orthogonal_gates(
            hidden_size, seed, f"{name}/recurrent_kernel"
        )
        forget = tf.one_hot(1, 4)[:, tf.newaxis] * tf.ones([1, hidden_size])
        self.bias = tf.Variable(tf.reshape(forget, [-1]), name=f"{name}/bias")

    def init_state(self, batch: tf.Tensor | int) -> LSTMState:
        """Zeros: [batch, H] each."""
        zeros = tf.zeros([batch, self.hidden_size])
        return LSTMState(zeros, zeros)

    def step(self, x: tf.Tensor, state: LSTMState) -> tuple[tf.Tensor, LSTMState]:
        """One step.

        Args:
            x: [B, D].
            state: The state before it.

        Returns:
            The output [B, H] and the state after it.
        """
        z = tf.matmul(x, self.kernel) + self.bias + tf.matmul(state.h, self.recurrent_kernel)
        state = cell(z, state.c)
        return state.h, state

    def scan(
        self,
        x: tf.Tensor,
        state: LSTMState | None = None,
        lengths: tf.Tensor | None = None,
    ) -> tuple[tf.Tensor, LSTMState]:
        """All steps of a segment.

        Args:
            x: [B, T, D].
            state: The state before it; zeros by default.
            lengths: [B] the true lengths; a sequence keeps its state from its end on.

        Returns:
            The outputs [B, T, H], and the state after each sequence's true end.
        """
        state = self.init_state(tf.shape(x)[0]) if state is None else state
        final, states = self.scan_time_major(
            tf.transpose(x, [1, 0, 2]), state, active=active_until(lengths)
        )
        return tf.transpose(states.h, [1, 0, 2]), final

    def scan_time_major(
        self, x: tf.Tensor, state: LSTMState, active: Callable | None = None
    ) -> tuple[LSTMState, LSTMState]:
        """As `run` with `collect`, over dense input.

        Args:
            x: [T, B, D].
            state: The state before it.
            active: See `run`.

        Returns:
            The state after the last step, and the states after every step [T, B, H].
        """
        read = read_dense(x, self.kernel, self.bias)
        return run(
            read, 0, tf.shape(x)[0], state, self.recurrent_kernel, active=active, collect=True
        )

    def outputs_time_major(self, x: tf.Tensor, state: LSTMState) -> tuple[tf.Tensor, LSTMState]:
        """The outputs alone, over dense input without padding: on a GPU through cuDNN.

        Args:
            x: [T, B, D].
            state: The state before it.

        Returns:
            The outputs [T, B, H] and the state after the last step.
        """
        if on_gpu():
            return self._outputs_keras(x, state)
        final, states = self.scan_time_major(x, state)
        return states.h, final

    def _outputs_keras(self, x: tf.Tensor, state: LSTMState) -> tuple[tf.Tensor, LSTMState]:
        # Keras picks cuDNN's kernel on a GPU. Its layer is used without its own weights.
        layer = _keras_layer(self.hidden_size, self.input_size)
        (outputs, h, c), _ = layer.stateless_call(
            [self.kernel, self.recurrent_kernel, self.bias],
            [v.value for v in layer.non_trainable_variables],
            tf.transpose(x, [1, 0, 2]),
            initial_state=[state.h, state.c],
        )
        return tf.transpose(outputs, [1, 0, 2]), LSTMState(h, c)


def active_until(lengths: tf.Tensor | None) -> Callable | None:
    """For `run`: sequences of the given lengths [B], padded at their ends. None: no padding."""
    return None if lengths is None else lambda t: (t < lengths)[:, tf.newaxis]


def active_from(starts: tf.Tensor | None) -> Callable | None:
    """For `run`: sequences that begin at the given steps [B], padded before. None: no padding."""
    return None if starts is None else lambda t: (t >= starts)[:, tf.newaxis]


def on_gpu() -> bool:
    """Whether TensorFlow sees a GPU."""
    return bool(tf.config.list_logical_devices("GPU"))


@functools.cache
def _keras_layer(hidden_size: int, input_size: int) -> keras.layers.LSTM:
    with tf.init_scope():
        layer = keras.layers.LSTM(hidden_size, return_sequences=True, return_state=True)
        layer.build((None, None, input_size))
    return layer
