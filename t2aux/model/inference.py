"""How exports run a core: with TensorFlow's own operations only, and without gradients.

`AnyCoreInference` runs any core with its `step`. A core may return a faster implementation from
`Core.inference`. That can compute the part of a step that does not depend on the state (`read`)
with the input layer folded into the core's kernel, or compute several steps at once.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import tensorflow as tf
from tensorflow.python.util import nest

from t2aux.errors import ModelError
from t2aux.model.cell import CellCore
from t2aux.model.core import Core, State, active_until, run
from t2aux.model.inputs import Folded, InputLayer

# Steps per iteration of the loop over a batch, chosen by measuring (`benchmarks/inference.py`).
_UNROLL = 2
# Names that the signatures of exports use for other tensors.
_TAKEN = ("batch", "inputs", "lengths", "probabilities", "segment", "self")


class Inference(tf.Module):
    """A core and its input layer for inference, with explicit state.

    A subclass implements `read` and `step`, or, if it can compute several steps at once faster than
    one at a time, `read`, `steps` and `scan`.

    Attributes:
        pass_steps: The number of steps that a TensorFlow Lite file computes per iteration of its
            loop; None: the number that is best for the LSTM.
    """

    pass_steps: int | None = None

    def __init__(self) -> None:
        """Creates the module without weights."""
        super().__init__(name="inference")

    def read(self, tokens: tf.Tensor) -> tf.Tensor:
        """Computes the part of the steps that does not depend on the state.

        Args:
            tokens: [..., C] float32, or ids [...] int32.

        Returns:
            [..., G], the argument of `step`; each core has its own G.
        """
        raise NotImplementedError

    def step(self, read: tf.Tensor, state: State) -> State:
        """The state after one step.

        Args:
            read: [B, G], the result of `read` for this step.
            state: The state before the step.
        """
        raise NotImplementedError

    def steps(self, read: tf.Tensor, state: State) -> State:
        """The state of one sequence after a few steps, which are unrolled.

        Args:
            read: [S, G], the result of `read` for these steps; S is static.
            state: The state before them, one row.
        """
        for i in range(read.shape[0]):
            state = self.step(read[i : i + 1], state)
        return state

    def scan(self, tokens: tf.Tensor, state: State, lengths: tf.Tensor) -> State:
        """The state of a batch after a segment.

        Args:
            tokens: Time-major: [T, B, C] float32 or [T, B] int32.
            state: The state before the segment.
            lengths: [B] int32, at most T: the state of a sequence does not change after its end. B
                may be 0.
        """
        return loop(lambda t, s: self.step(self.read(tokens[t]), s), state, lengths)


class AnyCoreInference(Inference):
    """Runs a core with its `step`, which every core has."""

    def __init__(self, core: Core, input_layer: InputLayer) -> None:
        """Stores both; their variables become those of the export."""
        super().__init__()
        # Closures, because a SavedModel must not contain Keras layers, see
        # `export.saved_model.write`.
        self._step = lambda read, state: core.step(read, state)[1]
        self._read = lambda tokens: input_layer(tokens)

    def read(self, tokens: tf.Tensor) -> tf.Tensor:
        """See `Inference`: the core's input [..., D]."""
        return self._read(tokens)

    def step(self, read: tf.Tensor, state: State) -> State:
        """See `Inference`."""
        return self._step(read, state)


class FoldedInference(Inference):
    """An input layer folded into the core's kernel [D, G]; a subclass adds the recurrence.

    Attributes:
        kernel: [C, G], or None for ids.
        bias: [G], or None for ids.
        table: [V, G], or None for real values.
    """

    def __init__(self, input_layer: InputLayer, kernel: tf.Tensor, bias: tf.Tensor) -> None:
        """Folds the input layer into the kernel.

        Args:
            input_layer: The core's input layer.
            kernel: The core's kernel [D, G].
            bias: The core's bias [G].
        """
        super().__init__()
        folded = input_layer.fold(tf.convert_to_tensor(kernel), tf.convert_to_tensor(bias))
        self.kernel, self.bias, self.table = (
            None if value is None else weight(value, name)
            for name, value in zip(Folded._fields, folded, strict=True)
        )

    def read(self, tokens: tf.Tensor) -> tf.Tensor:
        """See `Inference`."""
        return Folded(self.kernel, self.bias, self.table)(tokens)


def weight(value: tf.Tensor | tf.Variable, name: str) -> tf.Variable:
    """A copy of a weight."""
    return tf.Variable(tf.convert_to_tensor(value), trainable=False, name=name)


def name_of(core: Core) -> str:
    """The name of a core's class, or of its Keras cell's class, for messages."""
    return type(core.cell if isinstance(core, CellCore) else core).__name__


def initial_state(core: Core) -> State:
    """A core's state before the first step, for one sequence.

    Raises:
        UserError: Exports can't return and accept this state: a tensor is not float32, does not
            have one row per sequence, has an unknown size, or does not begin with zeros.
    """
    state = core.init_state(1)
    for name, tensor in named(state).items():
        what = None
        if tensor.dtype != tf.float32:
            what = f"is {tensor.dtype.name} and not float32"
        elif not tensor.shape.rank or tensor.shape[0] != 1 or None in tensor.shape.as_list():
            what = f"has the shape {tensor.shape.as_list()} for one sequence and not [1, ...]"
        elif bool(tf.reduce_any(tensor != 0)):
            what = "does not begin with zeros"
        if what:
            raise ModelError(
                f"The core {name_of(core)} can't be exported: its state's tensor {name} {what}; "
                "let it begin with float32 zeros, one row for each sequence."
            )
    return state


def state_shapes(core: Core) -> dict[str, tuple[int, ...]]:
    """The shapes of a core's state by tensor name, without the batch axis: `{"h": (H,)}`.

    Raises:
        UserError: See `initial_state`.
    """
    return {n: tuple(s.shape[1:]) for n, s in named(initial_state(core)).items()}


def named(state: State) -> dict[str, Any]:
    """The tensors of a state by names that are valid in a signature, in `tf.nest`'s order.

    The names are the fields of the NamedTuple (`h`, `c`), or the paths to nested fields
    (`layers_0`).
    """
    found: dict[str, Any] = {}
    for path, tensor in nest.flatten_with_joined_string_paths(state, separator="_"):
        name = re.sub(r"[^A-Za-z0-9_]", "_", path)
        if name in _TAKEN or not re.match("[A-Za-z]", name):
            name = f"state_{name}".rstrip("_")
        while name in found:
            name += "_"
        found[name] = tensor
    return found


def loop(step: Callable[[tf.Tensor, State], State], state: State, lengths: tf.Tensor) -> State:
    """The state of a batch; the state of a sequence does not change after its end.

    Args:
        step: Computes the state after step t from t and the state before it.
        state: The state before step 0; the batch may be empty.
        lengths: [B] int32.
    """
    # No state has to be kept unchanged before the first sequence ends. An empty batch has a longest
    # length of 0.
    longest = tf.maximum(tf.reduce_max(lengths), 0)
    shortest = tf.minimum(tf.reduce_min(lengths), longest)
    state, _ = run(step, 0, shortest, state, unroll=_UNROLL)
    active = active_until(lengths)
    return run(step, shortest, longest, state, active=active, unroll=_UNROLL)[0]
