"""The GRU as a core (Cho et al. 2014), in the variant of Keras and cuDNN (reset_after=True).

With update gate z, reset gate r and candidate h~, and separate input and recurrent biases:

    z = sigmoid(x W_z + b_z + h U_z + b'_z)
    r = sigmoid(x W_r + b_r + h U_r + b'_r)
    h~ = tanh(x W_h + b_h + r * (h U_h + b'_h))
    h' = z * h + (1 - z) * h~

It runs in plain TensorFlow, one step at a time; the CPU kernel computes LSTMs only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import gin
import keras
import tensorflow as tf

from t2aux.model import core, initializers, inputs
from t2aux.model.core import Scan
from t2aux.model.inference import FoldedInference, weight
from t2aux.model.lstm import LSTMState


class GRUState(NamedTuple):
    """A GRU's state: its output `h` [B, H]."""

    h: tf.Tensor

    def as_lstm(self) -> LSTMState:
        """Uses this h as both h and c [us].

        A GRU's h is both memory and output, which are separate in an LSTM. As c, it can be kept by
        the decoder's forget gates, and its gradient is not attenuated; as h, the gates read it in
        the first step.
        """
        return LSTMState(self.h, self.h)


def cell(
    z: tf.Tensor, h: tf.Tensor, recurrent_kernel: tf.Tensor, recurrent_bias: tf.Tensor
) -> GRUState:
    """Computes one step from the input's part of the pre-activations.

    Args:
        z: [B, 3H], in Keras's order: update, reset, candidate; the input bias is included.
        h: [B, H], the output before this step.
        recurrent_kernel: [H, 3H].
        recurrent_bias: [3H].

    Returns:
        The state after the step.
    """
    recurrent = tf.matmul(h, recurrent_kernel) + recurrent_bias
    z_gates, z_candidate = tf.split(z, [2 * h.shape[-1], h.shape[-1]], axis=-1)
    r_gates, r_candidate = tf.split(recurrent, [2 * h.shape[-1], h.shape[-1]], axis=-1)
    update, reset = tf.split(tf.sigmoid(z_gates + r_gates), 2, axis=-1)
    candidate = tf.tanh(z_candidate + reset * r_candidate)
    return GRUState(candidate + update * (h - candidate))


class GRURecurrence(core.Core):
    """The computations of a core with the weights of a GRU, in Keras's shapes and gate order.

    Attributes:
        kernel: [D, 3H].
        recurrent_kernel: [H, 3H].
        bias: [2, 3H].
    """

    kernel: tf.Tensor | keras.Variable
    recurrent_kernel: tf.Tensor | keras.Variable
    bias: tf.Tensor | keras.Variable

    def init_state(self, batch: tf.Tensor | int) -> GRUState:
        """The zero state [batch, H]."""
        return GRUState(tf.zeros([batch, self.hidden_size]))

    def step(self, x: tf.Tensor, state: GRUState) -> tuple[tf.Tensor, GRUState]:
        """See `Core`."""
        z = tf.matmul(x, self.kernel) + self.bias[0]
        state = cell(z, state.h, self.recurrent_kernel, self.bias[1])
        return state.h, state

    def states_at(
        self,
        tokens: tf.Tensor,
        input_layer: inputs.InputLayer,
        scan: Scan,
    ) -> tuple[GRUState, tf.Tensor | None]:
        """See `Core`; the input layer is folded into the kernel."""
        weights = input_layer.fold(self.kernel, self.bias[0]).weights
        recurrent_kernel = tf.convert_to_tensor(self.recurrent_kernel)
        recurrent_bias = self.bias[1]

        def step(differentiable: bool) -> Callable[[tf.Tensor, GRUState], GRUState]:
            read = inputs.reader(tokens, *weights, differentiable=differentiable)
            return lambda t, s: cell(read(t), s.h, recurrent_kernel, recurrent_bias)

        return core.states_by_steps(step, tf.shape(tokens)[0], scan)

    def inference(self, input_layer: inputs.InputLayer) -> FoldedInference:
        """See `Core`."""
        return _Inference(self, input_layer)


class _Inference(FoldedInference):
    def __init__(self, core: GRURecurrence, input_layer: inputs.InputLayer) -> None:
        super().__init__(input_layer, core.kernel, core.bias[0])
        self._recurrent_kernel = weight(core.recurrent_kernel, "recurrent_kernel")
        self._recurrent_bias = weight(core.bias[1], "recurrent_bias")

    def step(self, read: tf.Tensor, state: GRUState) -> GRUState:
        return cell(read, state.h, self._recurrent_kernel, self._recurrent_bias)


@keras.saving.register_keras_serializable(package="t2aux.model")
@gin.configurable(denylist=["input_size", "hidden_size", "seed", "name"])
class GRU(GRURecurrence):
    """A layer of GRU cells with Keras's weights and gate order (update, reset, candidate).

    As in Keras, the kernel is initialised Glorot-uniform, the recurrent kernel orthogonal and the
    biases to 0.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        seed: int,
        name: str = "gru",
        chrono_steps: int | None = None,
    ) -> None:
        """Creates the weights.

        Args:
            input_size: D.
            hidden_size: H.
            seed: The seed of the initial weights, together with `name`.
            name: The core's name.
            chrono_steps: The longest expected dependency in steps, at least 3. The biases of the
                update gates are initialised to log u with u uniform in [1, steps - 1] (chrono
                initialisation: Tallec and Ollivier 2018, section 2). None: the biases start at 0.

        Raises:
            UserError: `chrono_steps` is below 3.
        """
        super().__init__(name=name, dtype="float32")
        self._config = {
            "input_size": input_size,
            "hidden_size": hidden_size,
            "seed": seed,
            "name": name,
            "chrono_steps": chrono_steps,
        }
        self.hidden_size = hidden_size
        self.kernel = initializers.glorot((input_size, 3 * hidden_size), seed, f"{name}/kernel")
        self.recurrent_kernel = initializers.orthogonal_gates(
            hidden_size, seed, f"{name}/recurrent_kernel", gates=3
        )
        bias = tf.zeros([2, 3 * hidden_size])
        if chrono_steps is not None:
            keep = initializers.chrono(
                hidden_size, chrono_steps, seed, f"{name}/bias", parameter="GRU.chrono_steps"
            )
            bias += tf.pad(keep[tf.newaxis], [[0, 1], [0, 2 * hidden_size]])
        self.bias = initializers.variable(bias, f"{name}/bias")
        self.built = True

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return dict(self._config)
