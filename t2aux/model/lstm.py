"""The LSTM: its mathematics once, as one step and as a scan, both with explicit state.

Nothing here hides state in a variable. `scan` over segments with the state carried equals `scan`
over the whole sequence, and so does `step` repeated, in values and gradients. Everything inside is
time-major; only `LSTM.scan` takes batch-major input.

`run` is the recurrence in plain TensorFlow: the reference, what is exported, and what runs where
the CPU's fused kernel (`t2aux.kernels`) does not. `states_at` picks one of the two.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Literal, NamedTuple

import gin
import keras
import tensorflow as tf

from t2aux.errors import UserError
from t2aux.kernels import ops
from t2aux.model import initializers


class LSTMState(NamedTuple):
    """An LSTM's state: the output `h` [B, H] and the cell `c` [B, H]."""

    h: tf.Tensor
    c: tf.Tensor


class Active(NamedTuple):
    """When sequences are there: sequence b at first[b] <= t < last[b].

    Attributes:
        first: [B] int32; None: from the first step on.
        last: [B] int32; None: to the last.
    """

    first: tf.Tensor | None
    last: tf.Tensor | None

    def __call__(self, t: tf.Tensor) -> tf.Tensor:
        """Which sequences are there at step t, [B, 1] bool."""
        bounds = [] if self.first is None else [t >= self.first]
        if self.last is not None:
            bounds.append(t < self.last)
        return functools.reduce(tf.logical_and, bounds)[:, tf.newaxis]


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
    active: Active | None = None,
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
        active: When sequences are there; elsewhere they keep their state. None: always.
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


def states_at(
    x: tf.Tensor,
    kernel: tf.Tensor,
    bias: tf.Tensor | None,
    recurrent_kernel: tf.Tensor,
    state: LSTMState,
    marks: tf.Tensor,
    *,
    active: Active | None = None,
    outputs: bool = False,
    gradient: bool = True,
    input_gradient: bool = False,
) -> tuple[LSTMState, tf.Tensor | None]:
    """The states at some positions of a segment, through the CPU's kernel where there is one.

    Args:
        x: [T, B, D] float32, or ids [T, B] int32.
        kernel: [D, 4H], or for ids a table [V, 4H] with the bias in it.
        bias: [4H]; None for ids.
        recurrent_kernel: [H, 4H].
        state: The state before the segment.
        marks: [M] int32 positions in 0..T: the states before those steps are given.
        active: See `run`.
        outputs: Give all outputs too.
        gradient: Whether a gradient may be taken. Without, memory does not grow with T.
        input_gradient: Whether one with respect to x may be.

    Returns:
        The states [M, B, H], and the outputs [T, B, H] or None.
    """
    if ops.enabled():
        result = ops.lstm(
            x,
            kernel,
            bias,
            recurrent_kernel,
            *state,
            marks,
            first=None if active is None else active.first,
            last=None if active is None else active.last,
            outputs=outputs,
            gradient=gradient,
            input_gradient=input_gradient,
        )
        return LSTMState(result.h, result.c), result.outputs if outputs else None
    if not gradient and not outputs:
        read = reader(x, kernel, bias, differentiable=False)

        def advance(state: LSTMState, begin: tf.Tensor, end: tf.Tensor) -> LSTMState:
            return run(read, begin, end, state, recurrent_kernel, active=active)[0]

        return keep_at(advance, state, marks), None
    read = reader(x, kernel, bias, differentiable=True)
    _, states = run(read, 0, tf.shape(x)[0], state, recurrent_kernel, active=active, collect=True)
    # after[t] is the state after step t - 1.
    after = [tf.concat([first[tf.newaxis], s], 0) for first, s in zip(state, states, strict=True)]
    return LSTMState(*[tf.gather(s, marks) for s in after]), states.h if outputs else None


def keep_at(
    advance: Callable[[LSTMState, tf.Tensor, tf.Tensor], LSTMState],
    state: LSTMState,
    marks: tf.Tensor,
) -> LSTMState:
    """Sweeps once over a sequence and keeps the states at some positions.

    Args:
        advance: Gives the state at a position from that at an earlier one and the two positions.
        state: The state at position 0.
        marks: [M] int32 positions, in any order.

    Returns:
        The states there, [M, B, H] each.
    """
    order = tf.argsort(marks, stable=True)
    ascending = tf.gather(marks, order)
    count = tf.shape(marks)[0]
    kept = [tf.TensorArray(tf.float32, count, element_shape=state.h.shape) for _ in range(2)]

    def body(
        i: tf.Tensor,
        position: tf.Tensor,
        h: tf.Tensor,
        c: tf.Tensor,
        hs: tf.TensorArray,
        cs: tf.TensorArray,
    ) -> tuple:
        to = ascending[i]
        h, c = advance(LSTMState(h, c), position, to)
        return i + 1, to, h, c, hs.write(i, h), cs.write(i, c)

    *_, hs, cs = tf.while_loop(lambda i, *_: i < count, body, (0, 0, *state, *kept))
    inverse = tf.argsort(order)
    return LSTMState(*[tf.gather(states.stack(), inverse) for states in (hs, cs)])


def reader(
    x: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor | None, *, differentiable: bool
) -> Callable[[tf.Tensor], tf.Tensor]:
    """For `run`: the input's part of the pre-activations at a step, [B, 4H].

    Args:
        x: [T, B, D] float32, or ids [T, B] int32.
        kernel: [D, 4H], or for ids a table [V, 4H] with the bias in it.
        bias: [4H]; None for ids.
        differentiable: Whether a gradient is taken through it. Ids are then looked up all at once,
            which costs [T, B, 4H] of memory and makes the table's gradient one sum; otherwise step
            by step, which costs none.
    """
    if bias is None and not differentiable:
        return lambda t: tf.gather(kernel, x[t])
    # Slicing x[t] in the loop would make the backward pass quadratic in T: each slice's gradient
    # is a tensor as large as x. A TensorArray's is one slice.
    values = tf.gather(kernel, x) if bias is None else x
    steps = tf.TensorArray(tf.float32, tf.shape(values)[0], element_shape=values.shape[1:]).unstack(
        values
    )
    if bias is None:
        return steps.read
    return lambda t: tf.matmul(steps.read(t), kernel) + bias


@gin.configurable(denylist=["input_size", "hidden_size", "seed", "name"])
class LSTM(tf.Module):
    """A layer of LSTM cells with Keras's weights and gate order (input, forget, cell, output).

    The kernel starts Glorot-uniform. The other initial weights are parameters, because whether a
    truncated LSTM learns anything from MNIST in the paper's way (Table 2) depends on them.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        seed: int,
        name: str,
        forget_bias: float = 1.0,
        recurrent_initializer: Literal["orthogonal", "glorot"] = "orthogonal",
        chrono_steps: int | None = None,
    ) -> None:
        """Makes the weights.

        Args:
            input_size: D.
            hidden_size: H.
            seed: Of the initial weights, together with `name`.
            name: The layer's name.
            forget_bias: The forget gates' initial bias [us]; the other biases are 0.
            recurrent_initializer: Of the recurrent kernel [us].
            chrono_steps: The longest dependency expected, in steps, at least 3: the forget gates'
                biases are then log u with u uniform in [1, steps - 1], and the input gates' minus
                that (chrono initialisation: Tallec and Ollivier 2018, equation 16). None:
                `forget_bias`.

        Raises:
            UserError: `chrono_steps` is below 3.
        """
        super().__init__(name=name.replace("/", "_"))
        if chrono_steps is not None and chrono_steps < 3:
            raise UserError(f"LSTM.chrono_steps must be at least 3 or None, but is {chrono_steps}.")
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.kernel = initializers.glorot((input_size, 4 * hidden_size), seed, f"{name}/kernel")
        recurrent = {
            "orthogonal": initializers.orthogonal_gates,
            "glorot": initializers.glorot_gates,
        }
        self.recurrent_kernel = recurrent[recurrent_initializer](
            hidden_size, seed, f"{name}/recurrent_kernel"
        )
        forget = tf.fill([hidden_size], float(forget_bias))
        put_in = zeros = tf.zeros([hidden_size])
        if chrono_steps is not None:
            forget = initializers.chrono(hidden_size, chrono_steps, seed, f"{name}/bias")
            put_in = -forget
        self.bias = tf.Variable(tf.concat([put_in, forget, zeros, zeros], 0), name=f"{name}/bias")

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
        outputs, final = self.outputs_time_major(
            tf.transpose(x, [1, 0, 2]), state, active_until(lengths)
        )
        return tf.transpose(outputs, [1, 0, 2]), final

    def outputs_time_major(
        self, x: tf.Tensor, state: LSTMState, active: Active | None = None
    ) -> tuple[tf.Tensor, LSTMState]:
        """The outputs over dense input; on a GPU through cuDNN where no sequence is padded.

        Args:
            x: [T, B, D].
            state: The state before it.
            active: See `run`.

        Returns:
            The outputs [T, B, H] and the state after the last step.
        """
        if active is None and on_gpu():
            return self._outputs_keras(x, state)
        states, outputs = states_at(
            x,
            self.kernel,
            self.bias,
            self.recurrent_kernel,
            state,
            tf.shape(x)[:1],
            active=active,
            outputs=True,
            input_gradient=True,
        )
        return outputs, only(states)

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


def only(states: LSTMState) -> LSTMState:
    """The state [B, H] where `states_at` was asked for one position, [1, B, H]."""
    return LSTMState(*[s[0] for s in states])


def active_until(lengths: tf.Tensor | None) -> Active | None:
    """Sequences of the given lengths [B], padded at their ends. None: no padding."""
    return None if lengths is None else Active(None, lengths)


def active_from(starts: tf.Tensor | None) -> Active | None:
    """Sequences that begin at the given steps [B], padded before. None: no padding."""
    return None if starts is None else Active(starts, None)


def on_gpu() -> bool:
    """Whether TensorFlow sees a GPU."""
    return bool(tf.config.list_logical_devices("GPU"))


@functools.cache
def _keras_layer(hidden_size: int, input_size: int) -> keras.layers.LSTM:
    with tf.init_scope():
        layer = keras.layers.LSTM(hidden_size, return_sequences=True, return_state=True)
        layer.build((None, None, input_size))
    return layer
