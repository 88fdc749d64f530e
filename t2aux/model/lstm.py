"""The LSTM, as a single step and as a scan, both with explicit state.

State is never stored in a variable. `scan` over consecutive segments with the state carried along
equals `scan` over the whole sequence and equals repeated calls of `step`, in values and gradients.
Everything is time-major, except the input of `LSTM.scan`.

`run` is the recurrence in plain TensorFlow: the reference implementation, the one that is exported,
and the one that runs where the CPU's fused kernel (`t2aux.kernels`) can't be used. `states_at`
chooses between the two.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import gin
import keras
import tensorflow as tf

from t2aux.kernels import ops
from t2aux.model import core, cudnn, initializers, inputs
from t2aux.model.core import Active, Scan, active_until, single_state

# Steps that a GPU projects and runs at once if no gradient is taken.
_CHUNK = 1024


class LSTMState(NamedTuple):
    """An LSTM's state: the output `h` [B, H] and the cell `c` [B, H]."""

    h: tf.Tensor
    c: tf.Tensor

    def as_lstm(self) -> LSTMState:
        """The state itself."""
        return self


def gates(z: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """The input, forget, candidate and output gates [B, H] from pre-activations [B, 4H]."""
    i, f, g, o = tf.split(z, 4, axis=-1)
    return tf.sigmoid(i), tf.sigmoid(f), tf.tanh(g), tf.sigmoid(o)


def cell(z: tf.Tensor, c: tf.Tensor) -> LSTMState:
    """Computes one step from the gates' pre-activations.

    Args:
        z: [B, 4H] pre-activations, in Keras's order: input, forget, candidate, output.
        c: [B, H], the cell before this step.

    Returns:
        The state after the step: c' = f * c + i * g and h' = o * tanh(c').
    """
    i, f, g, o = gates(z)
    c = f * c + i * g
    return LSTMState(o * tf.tanh(c), c)


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

    Args:
        read: Returns the input's part of the pre-activations at step t, [B, 4H].
        begin: See `core.run`.
        end: See `core.run`.
        state: See `core.run`.
        recurrent_kernel: [H, 4H].
        active: See `core.run`.
        collect: See `core.run`.

    Returns:
        See `core.run`.
    """
    step = _step(read, recurrent_kernel)
    return core.run(step, begin, end, state, active=active, collect=collect)


def _step(
    read: Callable[[tf.Tensor], tf.Tensor], recurrent_kernel: tf.Tensor
) -> Callable[[tf.Tensor, LSTMState], LSTMState]:
    return lambda t, state: cell(read(t) + tf.matmul(state.h, recurrent_kernel), state.c)


def states_at(
    x: tf.Tensor,
    weights: ops.Weights,
    scan: Scan,
    *,
    input_gradient: bool = False,
) -> tuple[LSTMState, tf.Tensor | None]:
    """The states at some positions of a segment, with the CPU kernel if it is available.

    Args:
        x: [T, B, D] float32, or ids [T, B] int32.
        weights: The LSTM's weights.
        scan: The initial state, the positions, and what to return.
        input_gradient: Whether a gradient with respect to x may be taken.

    Returns:
        The states [M, B, H], and the outputs [T, B, H] or None.
    """
    if ops.enabled():
        result = ops.lstm(x, weights, scan, input_gradient=input_gradient)
        return LSTMState(result.h, result.c), result.outputs if scan.outputs else None
    kernel, bias, recurrent_kernel = weights
    return core.states_by_steps(
        lambda differentiable: _step(
            inputs.reader(x, kernel, bias, differentiable=differentiable), recurrent_kernel
        ),
        tf.shape(x)[0],
        scan,
    )


class LSTMRecurrence(core.Core):
    """The computations of a core with the weights of an LSTM, in Keras's shapes and gate order.

    Attributes:
        kernel: [D, 4H].
        recurrent_kernel: [H, 4H].
        bias: [4H].
    """

    kernel: tf.Tensor | keras.Variable
    recurrent_kernel: tf.Tensor | keras.Variable
    bias: tf.Tensor | keras.Variable

    def init_state(self, batch: tf.Tensor | int) -> LSTMState:
        """The zero state, [batch, H] each."""
        zeros = tf.zeros([batch, self.hidden_size])
        return LSTMState(zeros, zeros)

    def step(self, x: tf.Tensor, state: LSTMState) -> tuple[tf.Tensor, LSTMState]:
        """Computes one step.

        Args:
            x: The core's input, [B, D].
            state: The state before the step.

        Returns:
            The output [B, H] and the state after the step.
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
        """Computes all steps of a segment.

        Args:
            x: [B, T, D].
            state: The state before the segment; zeros by default.
            lengths: [B] true lengths; the state of a sequence does not change after its end.

        Returns:
            The outputs [B, T, H], and the state after each sequence's true end.
        """
        state = self.init_state(tf.shape(x)[0]) if state is None else state
        outputs, final = self.outputs_time_major(
            tf.transpose(x, [1, 0, 2]), state, active_until(lengths)
        )
        return tf.transpose(outputs, [1, 0, 2]), final

    def states_at(
        self,
        tokens: tf.Tensor,
        input_layer: inputs.InputLayer,
        scan: Scan,
    ) -> tuple[LSTMState, tf.Tensor | None]:
        """See `Core`; the input layer is folded into the kernel, except for cuDNN."""
        if cudnn.on_gpu() and (scan.gradient or scan.outputs):
            h, c, outputs = cudnn.states_at(
                input_layer, tokens, self._weights, scan.state, scan.positions, scan.active
            )
            return LSTMState(h, c), outputs if scan.outputs else None
        if cudnn.on_gpu():

            def advance(state: LSTMState, begin: tf.Tensor, end: tf.Tensor) -> LSTMState:
                # cuDNN requires projected input.
                x = input_layer(tokens[begin:end])
                active = None if scan.active is None else scan.active.since(begin)
                return self.outputs_time_major(x, state, active)[1]

            def advance_in_chunks(state: LSTMState, begin: tf.Tensor, end: tf.Tensor) -> LSTMState:
                return core.in_chunks(advance, state, begin, end, _CHUNK)

            return core.collect_states(advance_in_chunks, scan.state, scan.positions), None
        folded = input_layer.fold(self.kernel, self.bias)
        return states_at(tokens, ops.Weights(*folded.weights, self.recurrent_kernel), scan)

    def outputs(
        self,
        tokens: tf.Tensor,
        input_layer: inputs.InputLayer,
        state: LSTMState,
        active: Active | None = None,
    ) -> tuple[tf.Tensor, LSTMState]:
        """See `Core`; uses cuDNN on a GPU."""
        if cudnn.on_gpu():
            return self.outputs_time_major(input_layer(tokens), state, active)
        return super().outputs(tokens, input_layer, state, active)

    def final(
        self,
        tokens: tf.Tensor,
        input_layer: inputs.InputLayer,
        state: LSTMState,
        active: Active | None = None,
    ) -> LSTMState:
        """See `Core`; uses cuDNN on a GPU."""
        if cudnn.on_gpu():
            return self.outputs(tokens, input_layer, state, active)[1]
        return super().final(tokens, input_layer, state, active)

    def outputs_time_major(
        self, x: tf.Tensor, state: LSTMState, active: Active | None = None
    ) -> tuple[tf.Tensor, LSTMState]:
        """The outputs over dense input; uses cuDNN on a GPU.

        Args:
            x: [T, B, D].
            state: The state before the first step.
            active: See `run`.

        Returns:
            The outputs [T, B, H] and the state after the last step.
        """
        if cudnn.on_gpu():
            outputs, *after = cudnn.outputs(x, self._weights, state, active)
            return outputs, LSTMState(*after)
        states, outputs = states_at(
            x,
            self._weights,
            Scan(state, tf.shape(x)[:1], active, outputs=True),
            input_gradient=True,
        )
        return outputs, single_state(states)

    @property
    def _weights(self) -> ops.Weights:
        return ops.Weights(self.kernel, self.bias, self.recurrent_kernel)


@keras.saving.register_keras_serializable(package="t2aux.model")
@gin.configurable(denylist=["input_size", "hidden_size", "seed", "name"])
class LSTM(LSTMRecurrence):
    """A layer of LSTM cells with Keras's weights and gate order (input, forget, cell, output).

    The kernel is initialised Glorot-uniform. The other initial weights are parameters, because they
    decide whether a truncated LSTM learns anything from MNIST in the paper's setting (Table 2).
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        seed: int,
        name: str = "lstm",
        forget_bias: float = 1.0,
        recurrent_initializer: Literal["orthogonal", "glorot"] = "orthogonal",
        chrono_steps: int | None = None,
    ) -> None:
        """Creates the weights.

        Args:
            input_size: D.
            hidden_size: H.
            seed: The seed of the initial weights, together with `name`.
            name: The layer's name.
            forget_bias: The initial bias of the forget gates [us]; the other biases are 0.
            recurrent_initializer: The initializer of the recurrent kernel [us].
            chrono_steps: The longest expected dependency in steps, at least 3. The biases of the
                forget gates are initialised to log u with u uniform in [1, steps - 1], and those of
                the input gates to the negative of it (chrono initialisation: Tallec and Ollivier
                2018, equation 16). None: `forget_bias` is used.

        Raises:
            UserError: `chrono_steps` is below 3.
        """
        super().__init__(name=name.replace("/", "_"), dtype="float32")
        self._config = {
            "input_size": input_size,
            "hidden_size": hidden_size,
            "seed": seed,
            "name": name,
            "forget_bias": forget_bias,
            "recurrent_initializer": recurrent_initializer,
            "chrono_steps": chrono_steps,
        }
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
        input_gate_bias = zeros = tf.zeros([hidden_size])
        if chrono_steps is not None:
            forget = initializers.chrono(
                hidden_size, chrono_steps, seed, f"{name}/bias", parameter="LSTM.chrono_steps"
            )
            input_gate_bias = -forget
        self.bias = initializers.variable(
            tf.concat([input_gate_bias, forget, zeros, zeros], 0), f"{name}/bias"
        )
        self.built = True

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return dict(self._config)
