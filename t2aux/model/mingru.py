"""minGRU as a core: a linear recurrence, trained with an associative scan (Feng et al. 2024).

L. Feng, F. Tung, M. O. Ahmed, Y. Bengio, H. Hajimirsadeghi, "Were RNNs All We Needed?",
arXiv 2410.01201, section 3.1. The gates and the candidate depend on the input only,

    z_t = sigmoid(x_t W_z + b_z),  h~_t = x_t W_h + b_h,  h_t = (1 - z_t) * h_{t-1} + z_t * h~_t,

so they are computed for all steps at once. The remaining recurrence is linear in h and is computed
by a parallel scan. This is the paper's plain form. The paper's g() serves scans in log space, which
need positive values and whose sums over thousands of steps lose the digits that their differences
need. Here there are no divisions and no logarithms. The products are those of what is forgotten,
not of what is kept, because a gate that remembers 16,384 steps is closer to 1 than float32 can
represent well.
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

# Steps of a piece, which are computed one after the other, for all pieces at once.
_PIECE = 8
# Steps of all layers that are held in memory at once if no gradient is taken.
_CHUNK = 256


class MinGRUState(NamedTuple):
    """The outputs of all layers, bottom first, [B, H] each."""

    layers: tuple[tf.Tensor, ...]

    @property
    def h(self) -> tf.Tensor:
        """The top layer's output [B, H]."""
        return self.layers[-1]

    def as_lstm(self) -> LSTMState:
        """Uses the top layer's h as both h and c [us], as for a GRU and for the same reasons."""
        return LSTMState(self.h, self.h)


@tf.custom_gradient
def linear_recurrence(z: tf.Tensor, b: tf.Tensor, h0: tf.Tensor) -> tuple:
    """Computes h_t = (1 - z_t) * h_{t-1} + b_t for all t with an associative scan.

    The gradient is the same kind of recurrence, from the last step to the first. Only z and the
    result are stored for it.

    Args:
        z: [T, B, H], in [0, 1].
        b: [T, B, H].
        h0: [B, H].

    Returns:
        h_0 to h_{T-1}, [T, B, H].
    """
    h = _scan(z, b, h0)

    def gradient(d_h: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        # The gradient of h_t, from the loss and h_{t+1}: g_t = d_h_t + (1 - z_{t+1}) * g_{t+1}.
        following = tf.concat([z[1:], tf.zeros_like(z[:1])], 0)
        g = _scan(following, d_h, tf.zeros_like(h0), reverse=True)
        before = tf.concat([h0[tf.newaxis], h], 0)[:-1]
        return -g * before, g, tf.reduce_sum((1 - z[:1]) * g[:1], 0)

    return h, gradient


def _scan(z: tf.Tensor, b: tf.Tensor, h: tf.Tensor, reverse: bool = False) -> tf.Tensor:
    # Three passes with T / P + 2P sequential operations; the first and the last process T / P
    # pieces of P steps at once. The first computes the effect of every piece on a state, the second
    # the states between the pieces, one after the other, and the third the states within every
    # piece. On a CPU this is faster than a scan of depth log T, which reads and writes everything
    # log T times, and faster than T single steps.
    steps, shape = tf.shape(z)[0], h.shape
    # The last piece is padded with steps that do not change the state.
    padding = [[0, -steps % _PIECE], [0, 0], [0, 0]]
    pieces = tf.concat([[-1, _PIECE], tf.shape(z)[1:]], 0)
    z = tf.unstack(tf.reshape(tf.pad(z, padding), pieces), _PIECE, axis=1)
    b = tf.unstack(tf.reshape(tf.pad(b, padding), pieces), _PIECE, axis=1)
    first, *others = order = range(_PIECE)[::-1] if reverse else range(_PIECE)
    # The piece as a single step: the share of the state that is forgotten, and what is added.
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
    """The computations of a core with the weights of stacked minGRU layers, bottom first.

    Attributes:
        kernels: [D, 2H], then [H, 2H] each: the update gate, then the candidate.
        biases: [2H] each.
    """

    kernels: list[keras.Variable]
    biases: list[keras.Variable]

    def init_state(self, batch: tf.Tensor | int) -> MinGRUState:
        """The zero state, [batch, H] for every layer."""
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
            bottom: Maps tokens to the pre-activations of the bottom layer.
            state: The state before the first step, [B, H] each.
            active: [T, B, 1] bool, false at padding, where states do not change.

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
    # Each layer then needs one product for all of these steps, and its weights are read once.
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
                # Padding may be NaN, which a gate of 0 does not remove.
                x = tf.where(here, x, 0.0)
            return tf.nest.map_structure(lambda s: s[-1], _states(layers, x, state, here, _scan))

        longest = tf.maximum(tf.reduce_max(lengths), 0)
        return core.in_chunks(advance, state, 0, longest, _CHUNK)

    def _layers(self) -> list[Callable[[tf.Tensor], tf.Tensor]]:
        # The layers above the bottom one.
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
    # The states after every step, [T, B, H] each; x is the input of the bottom layer, and `layers`
    # return the pre-activations.
    after = []
    for layer, h in zip(layers, first.layers, strict=True):
        z, candidate = _gates(layer(x))
        # A gate of 0: the state does not change at padding.
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
    """Stacked minGRU layers; each reads the outputs of the layer below.

    A layer's kernel holds the update gate, then the candidate; it is initialised Glorot-uniform.
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
        """Creates the weights.

        Args:
            input_size: D.
            hidden_size: H, the output size of every layer.
            seed: The seed of the initial weights, together with `name`.
            name: The core's name.
            layers: The number of layers. The gates of a single layer depend on the current token
                only. Three layers of 128 have 99,072 weights, as many as a GRU of 128 [us].
            chrono_steps: The longest expected dependency in steps, at least 3. The biases of the
                update gates are initialised to -log u with u uniform in [1, steps - 1] (chrono
                initialisation: Tallec and Ollivier 2018, section 2). None: the biases start at 0.

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
