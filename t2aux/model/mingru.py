"""minGRU as a core: a linear recurrence, trained with an associative scan (Feng et al. 2024).

L. Feng, F. Tung, M. O. Ahmed, Y. Bengio, H. Hajimirsadeghi, "Were RNNs All We Needed?",
arXiv 2410.01201, section 3.1. Gates and candidate depend on the input alone,

    z_t = sigmoid(x_t W_z + b_z),  h~_t = x_t W_h + b_h,  h_t = (1 - z_t) * h_{t-1} + z_t * h~_t,

so all of them are computed at once, and what is left is linear in h and can be scanned in parallel.
This is the paper's plain form. Its g() is for scans of logarithms, which need positive values, and
whose sums over thousands of steps lose the digits that their differences need. Here nothing is
divided and no logarithm taken. What is forgotten is multiplied up instead of what is kept, since
gates that remember 16,384 steps are nearer to 1 than float32 can represent well.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import gin
import keras
import tensorflow as tf

from t2aux.model import core, initializers, inputs
from t2aux.model.core import Scan
from t2aux.model.inference import FoldedInference, weight
from t2aux.model.lstm import LSTMState

# Steps that are scanned one after the other, all pieces of this size at once.
_PIECE = 8
# Steps of all layers that are held at once where no gradient is taken.
_CHUNK = 256


class MinGRUState(NamedTuple):
    """The outputs of all layers, bottom first, [B, H] each."""

    layers: tuple[tf.Tensor, ...]

    @property
    def h(self) -> tf.Tensor:
        """The top layer's output [B, H]."""
        return self.layers[-1]

    def as_lstm(self) -> LSTMState:
        """Both h and c are the top layer's h [us], as for a GRU and for the same reasons."""
        return LSTMState(self.h, self.h)


@tf.custom_gradient
def linear_recurrence(z: tf.Tensor, b: tf.Tensor, h0: tf.Tensor) -> tuple:
    """h_t = (1 - z_t) * h_{t-1} + b_t for all t, by an associative scan.

    The gradient is such a recurrence too, from the last step to the first; nothing is kept for it
    but z and the result.

    Args:
        z: [T, B, H], in [0, 1].
        b: [T, B, H].
        h0: [B, H].

    Returns:
        h_0 to h_{T-1}, [T, B, H].
    """
    h = _scan(z, b, h0)

    def gradient(d_h: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        # What comes to h_t from the loss and from h_{t+1}: g_t = d_h_t + (1 - z_{t+1}) * g_{t+1}.
        following = tf.concat([z[1:], tf.zeros_like(z[:1])], 0)
        g = _scan(following, d_h, tf.zeros_like(h0), reverse=True)
        before = tf.concat([h0[tf.newaxis], h], 0)[:-1]
        return -g * before, g, tf.reduce_sum((1 - z[:1]) * g[:1], 0)

    return h, gradient


def _scan(z: tf.Tensor, b: tf.Tensor, h: tf.Tensor, reverse: bool = False) -> tf.Tensor:
    # In three passes, T / P + 2P operations deep, of which the first and the last work on T / P
    # pieces of P steps at once: what every piece does to a state; the states between the pieces,
    # one after the other; and every piece again, from its state on. On a CPU this is faster than a
    # scan of depth log T, which reads and writes everything log T times, and than T single steps.
    steps, shape = tf.shape(z)[0], h.shape
    # The last piece is filled up with steps that keep the state.
    padding = [[0, -steps % _PIECE], [0, 0], [0, 0]]
    pieces = tf.concat([[-1, _PIECE], tf.shape(z)[1:]], 0)
    z = tf.unstack(tf.reshape(tf.pad(z, padding), pieces), _PIECE, axis=1)
    b = tf.unstack(tf.reshape(tf.pad(b, padding), pieces), _PIECE, axis=1)
    first, *others = order = range(_PIECE)[::-1] if reverse else range(_PIECE)
    # The piece as one step: what of the state before it is forgotten, and what is added.
    forgotten, added = z[first], b[first]
    for i in others:
        forgotten += z[i] * (1 - forgotten)
        added += b[i] - z[i] * added
    count = tf.shape(added)[0]
    before = tf.TensorArray(tf.float32, count, element_shape=shape)

    def between(i: tf.Tensor, h: tf.Tensor, before: tf.TensorArray) -> tuple:
        k = count - 1 - i if reverse else i
        after = h + (added[k] - forgotten[k] * h)
        return i + 1, tf.ensure_shape(after, shape), before.write(k, h)

    *_, before = tf.while_loop(lambda i, *_: i < count, between, (0, h, before))
    h = before.stack()
    states = [h] * _PIECE
    for i in order:
        h += b[i] - z[i] * h
        states[i] = h
    whole = tf.concat([[-1], tf.shape(h)[1:]], 0)
    return tf.ensure_shape(tf.reshape(tf.stack(states, 1), whole)[:steps], [None, *shape])


class MinGRURecurrence(core.Core):
    """The computations of a core that has the weights of stacked minGRU layers, bottom first.

    Attributes:
        kernels: [D, 2H], then [H, 2H] each: the update gate, then the candidate.
        biases: [2H] each.
    """

    kernels: list[keras.Variable]
    biases: list[keras.Variable]

    def init_state(self, batch: tf.Tensor | int) -> MinGRUState:
        """Zeros [batch, H] for every layer."""
        return MinGRUState((tf.zeros([batch, self.hidden_size]),) * len(self.kernels))

    def step(self, x: tf.Tensor, state: MinGRUState) -> tuple[tf.Tensor, MinGRUState]:
        """See `Core`."""
        after = []
        for kernel, bias, h in zip(self.kernels, self.biases, state.layers, strict=True):
            z, candidate = _gates(tf.matmul(x, kernel) + bias)
            x = h + z * (candidate - h)
            after.append(x)
        return x, MinGRUState(tuple(after))

    def all_states(
        self,
        tokens: tf.Tensor,
        bottom: inputs.Folded,
        state: MinGRUState,
        active: tf.Tensor | None = None,
    ) -> MinGRUState:
        """The outputs of all layers after every step.

        Args:
            tokens: [T, B, ...].
            bottom: From tokens to the bottom layer's gates.
            state: The state before, [B, H] each.
            active: [T, B, 1] bool: where sequences are; elsewhere they keep their state.

        Returns:
            [T, B, H] each.
        """
        layers = [bottom]
        for kernel, bias in zip(self.kernels[1:], self.biases[1:], strict=True):
            layers.append(inputs.Folded(kernel, bias, None))
        return _states(layers, tokens, state, active, linear_recurrence)

    def states_at(
        self,
        tokens: tf.Tensor,
        input_layer: inputs.InputLayer,
        scan: Scan,
    ) -> tuple[MinGRUState, tf.Tensor | None]:
        """See `Core`; the input layer is folded into the bottom layer's kernel."""
        bottom = input_layer.fold(self.kernels[0], self.biases[0])

        def states(first: MinGRUState, begin: tf.Tensor | int, end: tf.Tensor) -> MinGRUState:
            steps = tf.range(begin, end)[:, tf.newaxis]
            here = None if scan.active is None else scan.active(steps)
            return self.all_states(tokens[begin:end], bottom, first, here)

        if not scan.gradient and not scan.outputs:

            def advance(state: MinGRUState, begin: tf.Tensor, end: tf.Tensor) -> MinGRUState:
                return tf.nest.map_structure(lambda s: s[-1], states(state, begin, end))

            def advance_in_chunks(
                state: MinGRUState, begin: tf.Tensor, end: tf.Tensor
            ) -> MinGRUState:
                return core.in_chunks(advance, state, begin, end, _CHUNK)

            return core.collect_states(advance_in_chunks, scan.state, scan.positions), None
        after = states(scan.state, 0, tf.shape(tokens)[0])
        at = core.gather_states(scan.state, after, scan.positions)
        return at, after.h if scan.outputs else None

    def inference(self, input_layer: inputs.InputLayer) -> FoldedInference:
        """See `Core`."""
        return _Inference(self, input_layer)


class _Inference(FoldedInference):
    # Each layer's products are then one for all of these steps, and its weights are read once.
    pass_steps = 16

    def __init__(self, core: MinGRURecurrence, input_layer: inputs.InputLayer) -> None:
        super().__init__(input_layer, core.kernels[0], core.biases[0])
        self._kernels = [weight(k, f"kernel_{i}") for i, k in enumerate(core.kernels[1:], 1)]
        self._biases = [weight(b, f"bias_{i}") for i, b in enumerate(core.biases[1:], 1)]

    def steps(self, read: tf.Tensor, state: MinGRUState) -> MinGRUState:
        x, after = read, []
        for layer, h in zip([tf.identity, *self._layers()], state.layers, strict=True):
            z, candidate = _gates(layer(x))
            added, outputs = z * candidate, []
            for i in range(read.shape[0]):
                h += added[i : i + 1] - z[i : i + 1] * h
                outputs.append(h)
            x = tf.concat(outputs, 0)
            after.append(h)
        return MinGRUState(tuple(after))

    def scan(self, tokens: tf.Tensor, state: MinGRUState, lengths: tf.Tensor) -> MinGRUState:
        active = core.active_until(lengths)
        layers = [self.read, *self._layers()]

        def advance(state: MinGRUState, begin: tf.Tensor, end: tf.Tensor) -> MinGRUState:
            here = active(tf.range(begin, end)[:, tf.newaxis])
            x = tokens[begin:end]
            if self.table is None:
                # What pads a sequence may be NaN, which no gate of 0 takes away.
                x = tf.where(here, x, 0.0)
            return tf.nest.map_structure(lambda s: s[-1], _states(layers, x, state, here, _scan))

        longest = tf.maximum(tf.reduce_max(lengths), 0)
        return core.in_chunks(advance, state, 0, longest, _CHUNK)

    def _layers(self) -> list[Callable[[tf.Tensor], tf.Tensor]]:
        # Of what the bottom layer gives on.
        return [
            inputs.Folded(kernel, bias, None)
            for kernel, bias in zip(self._kernels, self._biases, strict=True)
        ]


def _states(
    layers: Sequence[Callable[[tf.Tensor], tf.Tensor]],
    x: tf.Tensor,
    first: MinGRUState,
    here: tf.Tensor | None,
    recurrence: Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor],
) -> MinGRUState:
    # The states after every step, [T, B, H] each, of the input x of the bottom layer; `layers` give
    # the pre-activations.
    after = []
    for layer, h in zip(layers, first.layers, strict=True):
        z, candidate = _gates(layer(x))
        # No update: outside of its steps a sequence keeps its state.
        z = z if here is None else tf.where(here, z, 0.0)
        x = recurrence(z, z * candidate, h)
        after.append(x)
    return MinGRUState(tuple(after))


def _gates(z: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    # The update gate and the candidate, [..., H] each.
    z, candidate = tf.split(z, 2, axis=-1)
    return tf.sigmoid(z), candidate


@keras.saving.register_keras_serializable(package="t2aux.model")
@gin.configurable(denylist=["input_size", "hidden_size", "seed", "name"])
class MinGRU(MinGRURecurrence):
    """Stacked layers of minGRU; each reads the outputs of the one below.

    A layer's kernel holds the update gate, then the candidate; it starts Glorot-uniform.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        seed: int,
        name: str = "mingru",
        layers: int = 3,
        chrono_steps: int | None = None,
    ) -> None:
        """Makes the weights.

        Args:
            input_size: D.
            hidden_size: H, of every layer.
            seed: Of the initial weights, together with `name`.
            name: The core's name.
            layers: How many. A single layer's gates know nothing but the current token; three of
                128 have 99,072 weights, a GRU of 128 as many [us].
            chrono_steps: The longest dependency expected, in steps, at least 3: the update gates'
                biases are then -log u with u uniform in [1, steps - 1] (chrono initialisation:
                Tallec and Ollivier 2018, section 2). None: 0.

        Raises:
            UserError: `layers` is below 1, or `chrono_steps` below 3.
        """
        super().__init__(name=name, dtype="float32")
        core.check_sizes("MinGRU", layers=layers)
        self._config = {
            "input_size": input_size,
            "hidden_size": hidden_size,
            "seed": seed,
            "name": name,
            "layers": layers,
            "chrono_steps": chrono_steps,
        }
        self.hidden_size = hidden_size
        kernels, biases = [], []
        for i in range(layers):
            shape = (hidden_size if i else input_size, 2 * hidden_size)
            kernels.append(initializers.glorot(shape, seed, f"{name}/kernel_{i}"))
            bias = tf.zeros([2 * hidden_size])
            if chrono_steps is not None:
                keep = initializers.chrono(
                    hidden_size,
                    chrono_steps,
                    seed,
                    f"{name}/bias_{i}",
                    parameter="MinGRU.chrono_steps",
                )
                bias -= tf.pad(keep, [[0, hidden_size]])
            biases.append(initializers.variable(bias, f"{name}/bias_{i}"))
        self.kernels, self.biases = kernels, biases
        self.built = True

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return dict(self._config)
