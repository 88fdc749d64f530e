"""The interface of a recurrent core: the contract between a classifier and its recurrence.

A core is one file in this folder and one gin line, `Classifier.core = @GRU`. State is always
explicit, never stored in a variable: a scan over consecutive segments with the state carried along
equals a scan over the whole sequence and equals repeated calls of `step`, in values and gradients.
Everything except `step` is time-major.

A core's state is a NamedTuple of any number of tensors with one row per sequence (any structure
that `tf.nest` supports), with the two views `h` and `as_lstm()`, see `State`. The classifier's head
and p-LSTM read the output `h`. The auxiliary networks, which are LSTMs for every core, start from
`as_lstm()`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

import keras
import tensorflow as tf

from t2aux.configurable import Configurable
from t2aux.errors import SettingError
from t2aux.kernels.ops import Scan

if TYPE_CHECKING:
    from t2aux.model.inference import Inference
    from t2aux.model.inputs import InputLayer
    from t2aux.model.lstm import LSTMState


class State(Protocol):
    """A core's state before a step; stacked positions are [M, B, H] instead of [B, H]."""

    @property
    def h(self) -> tf.Tensor:
        """The core's output [B, H]."""
        ...

    def as_lstm(self) -> LSTMState:
        """The state from which an auxiliary LSTM of H cells starts, [B, H] each."""
        ...


_AnyState = TypeVar("_AnyState", bound=State)


class Active(NamedTuple):
    """The steps that are not padding: first[b] <= t < last[b] for sequence b.

    Attributes:
        first: [B] int32; None: from the first step.
        last: [B] int32; None: to the last step.
    """

    first: tf.Tensor | None
    last: tf.Tensor | None

    def __call__(self, t: tf.Tensor) -> tf.Tensor:
        """Which sequences have step t, [B, 1] bool; for steps [S, 1], [S, B, 1]."""
        bounds = [] if self.first is None else [t >= self.first]
        if self.last is not None:
            bounds.append(t < self.last)
        return functools.reduce(tf.logical_and, bounds)[..., tf.newaxis]

    def since(self, step: tf.Tensor) -> Active:
        """The same, with steps counted from this step."""
        return Active(*(None if bound is None else bound - step for bound in self))


def active_until(lengths: tf.Tensor | None) -> Active | None:
    """Sequences of the given lengths [B], padded at the end. None: no padding."""
    return None if lengths is None else Active(None, lengths)


def active_from(starts: tf.Tensor | None) -> Active | None:
    """Sequences that begin at the given steps [B], padded at the beginning. None: no padding."""
    return None if starts is None else Active(starts, None)


class Core(Configurable, keras.layers.Layer):
    """A recurrent core.

    A subclass is constructed as `core(input_size, hidden_size, seed=seed)`. Its default name is its
    place in checkpoints.

    Attributes:
        hidden_size: H, the size of the output.
    """

    hidden_size: int

    def __init_subclass__(cls, **parameters: Any) -> None:
        """Keeps a class with its own `step` from inheriting faster methods for another `step`."""
        super().__init_subclass__(**parameters)
        if "step" in vars(cls):
            for name in ("states_at", "outputs", "final", "inference"):
                if name not in vars(cls):
                    setattr(cls, name, getattr(Core, name))

    def init_state(self, batch: tf.Tensor | int) -> State:
        """The zero state, one row for each of `batch` sequences."""
        raise NotImplementedError

    def step(self, x: tf.Tensor, state: State) -> tuple[tf.Tensor, State]:
        """Computes one step.

        Args:
            x: The core's input, [B, D].
            state: The state before the step.

        Returns:
            The output [B, H] and the state after the step.
        """
        raise NotImplementedError

    def states_at(
        self,
        tokens: tf.Tensor,
        input_layer: InputLayer,
        scan: Scan,
    ) -> tuple[State, tf.Tensor | None]:
        """The states at some positions of a segment; the default calls `step` for each step.

        Args:
            tokens: [T, B, C] float32, or ids [T, B] int32.
            input_layer: Maps tokens to the core's input [..., D].
            scan: The initial state, the positions, and what to return.

        Returns:
            The states, [M, B, ...] each, and the outputs [T, B, H] or None.
        """

        def step(differentiable: bool) -> Callable[[tf.Tensor, State], State]:
            if not differentiable:
                return lambda t, s: self.step(input_layer(tokens[t]), s)[1]
            # Slicing in the loop would make the backward pass quadratic in T.
            x = input_layer(tokens)
            steps = tf.TensorArray(tf.float32, tf.shape(x)[0], element_shape=x.shape[1:])
            read = steps.unstack(x).read
            return lambda t, s: self.step(read(t), s)[1]

        return states_by_steps(step, tf.shape(tokens)[0], scan)

    def outputs(
        self,
        tokens: tf.Tensor,
        input_layer: InputLayer,
        state: State,
        active: Active | None = None,
    ) -> tuple[tf.Tensor, State]:
        """The outputs [T, B, H] over a segment, and the state after it; supports gradients.

        See `states_at` and `Scan` for the arguments.
        """
        scan = Scan(state, tf.shape(tokens)[:1], active, outputs=True)
        states, outputs = self.states_at(tokens, input_layer, scan)
        return outputs, single_state(states)

    def final(
        self,
        tokens: tf.Tensor,
        input_layer: InputLayer,
        state: State,
        active: Active | None = None,
    ) -> State:
        """The state after a segment; supports gradients. See `outputs` for the arguments."""
        scan = Scan(state, tf.shape(tokens)[:1], active)
        return single_state(self.states_at(tokens, input_layer, scan)[0])

    def inference(self, input_layer: InputLayer) -> Inference:
        """How exports run the core; by default with `step`."""
        from t2aux.model.inference import AnyCoreInference

        return AnyCoreInference(self, input_layer)


def single_state(states: _AnyState) -> _AnyState:
    """The state [B, H] at the only position that `states_at` was given ([1, B, H])."""
    return tf.nest.map_structure(lambda s: s[0], states)


def run(
    step: Callable[[tf.Tensor, _AnyState], _AnyState],
    begin: tf.Tensor | int,
    end: tf.Tensor | int,
    state: _AnyState,
    *,
    active: Active | None = None,
    collect: bool = False,
    unroll: int = 1,
) -> tuple[_AnyState, _AnyState | None]:
    """Runs a recurrence over the steps begin <= t < end, one after the other.

    Without `collect`, no intermediate states are stored, so memory does not grow with the number of
    steps that need no gradient.

    Args:
        step: Computes the state after step t from t and the state before it.
        begin: The first step.
        end: One past the last step.
        state: The state before step `begin`.
        active: The steps that are not padding; states do not change at padding. None: all.
        collect: Whether to return the states after every step, too.
        unroll: Steps per loop iteration, to reduce the loop's overhead; without `collect` only.

    Returns:
        The state after the last step, and the states after every step ([end - begin, B, H] each)
        or None.
    """
    begin = tf.convert_to_tensor(begin, tf.int32)
    end = tf.convert_to_tensor(end, tf.int32)

    def advance(t: tf.Tensor, before: _AnyState) -> _AnyState:
        after = step(t, before)
        if active is not None:
            here = active(t)

            def kept(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
                rank = a.shape.rank
                rows = here if rank == 2 else tf.reshape(here, [-1, *[1] * (rank - 1)])
                return tf.where(rows, a, b)

            after = tf.nest.map_structure(kept, after, before)
        # Matrix products would lose the static sizes of `state` in a loop over batches of any size.
        return tf.nest.map_structure(lambda a, b: tf.ensure_shape(a, b.shape), after, state)

    if not collect:
        if unroll > 1:

            def several(t: tf.Tensor, state: _AnyState) -> tuple[tf.Tensor, _AnyState]:
                for i in range(unroll):
                    state = advance(t + i, state)
                return t + unroll, state

            last = end - unroll
            begin, state = tf.while_loop(lambda t, _: t <= last, several, (begin, state))
        _, state = tf.while_loop(
            lambda t, _: t < end, lambda t, s: (t + 1, advance(t, s)), (begin, state)
        )
        return state, None

    stored = tf.nest.map_structure(
        lambda s: tf.TensorArray(tf.float32, end - begin, element_shape=s.shape), state
    )

    def body(t: tf.Tensor, before: _AnyState, stored: Any) -> tuple:
        after = advance(t, before)
        stored = tf.nest.map_structure(lambda all_, s: all_.write(t - begin, s), stored, after)
        return t + 1, after, stored

    _, last, stored = tf.while_loop(lambda t, *_: t < end, body, (begin, state, stored))
    return last, tf.nest.map_structure(lambda all_: all_.stack(), stored)


def states_by_steps(
    step: Callable[[bool], Callable[[tf.Tensor, _AnyState], _AnyState]],
    steps: tf.Tensor,
    scan: Scan,
) -> tuple[_AnyState, tf.Tensor | None]:
    """`Core.states_at` for a recurrence that computes one step at a time, see `run`.

    Args:
        step: Returns the `step` for `run`; called with whether gradients are taken through it.
        steps: T.
        scan: See `Core.states_at`.

    Returns:
        See `Core.states_at`.
    """
    if not scan.gradient and not scan.outputs:
        one = step(False)

        def advance(state: _AnyState, begin: tf.Tensor, end: tf.Tensor) -> _AnyState:
            return run(one, begin, end, state, active=scan.active)[0]

        return collect_states(advance, scan.state, scan.positions), None
    _, states = run(step(True), 0, steps, scan.state, active=scan.active, collect=True)
    at = gather_states(scan.state, states, scan.positions)
    return at, states.h if scan.outputs else None


def gather_states(first: _AnyState, states: _AnyState, positions: tf.Tensor) -> _AnyState:
    """Selects states by position.

    Args:
        first: The state before step 0.
        states: The states after every step, [T, B, ...] each.
        positions: [M] int32 positions in 0..T.

    Returns:
        The states before those steps, [M, B, ...] each.
    """
    return tf.nest.map_structure(
        lambda f, s: tf.gather(tf.concat([f[tf.newaxis], s], 0), positions), first, states
    )


def collect_states(
    advance: Callable[[_AnyState, tf.Tensor, tf.Tensor], _AnyState],
    state: _AnyState,
    positions: tf.Tensor,
) -> _AnyState:
    """Scans a sequence once and keeps the states at some positions.

    Args:
        advance: Computes the state at a position from an earlier state and the two positions.
        state: The state at position 0.
        positions: [M] int32 positions, in any order.

    Returns:
        The states at these positions, [M, B, H] each.
    """
    order = tf.argsort(positions, stable=True)
    ascending = tf.gather(positions, order)
    count = tf.shape(positions)[0]
    kept = tf.nest.map_structure(
        lambda s: tf.TensorArray(tf.float32, count, element_shape=s.shape), state
    )

    def body(i: tf.Tensor, position: tf.Tensor, state: _AnyState, kept: Any) -> tuple:
        to = ascending[i]
        state = advance(state, position, to)
        kept = tf.nest.map_structure(lambda all_, s: all_.write(i, s), kept, state)
        return i + 1, to, state, kept

    *_, kept = tf.while_loop(lambda i, *_: i < count, body, (0, 0, state, kept))
    inverse = tf.argsort(order)
    return tf.nest.map_structure(lambda all_: tf.gather(all_.stack(), inverse), kept)


def in_chunks(
    advance: Callable[[_AnyState, tf.Tensor, tf.Tensor], _AnyState],
    state: _AnyState,
    begin: tf.Tensor | int,
    end: tf.Tensor | int,
    chunk: int,
) -> _AnyState:
    """Advances from `begin` to `end`, at most `chunk` steps at a time, to bound memory.

    Args:
        advance: See `collect_states`.
        state: The state at `begin`.
        begin: The first step.
        end: One past the last step.
        chunk: The number of steps per chunk.

    Returns:
        The state at `end`.
    """
    begin, end = tf.convert_to_tensor(begin), tf.convert_to_tensor(end)

    def body(t: tf.Tensor, before: _AnyState) -> tuple[tf.Tensor, _AnyState]:
        stop = tf.minimum(t + chunk, end)
        after = advance(before, t, stop)
        return stop, tf.nest.map_structure(lambda a, b: tf.ensure_shape(a, b.shape), after, before)

    # Otherwise TensorFlow would compute what does not depend on the state for later chunks, too.
    return tf.while_loop(lambda t, _: t < end, body, (begin, state), parallel_iterations=1)[1]


def check_sizes(owner: str, **sizes: int) -> None:
    """Raises UserError if one of the given integer parameters of a class is below 1."""
    for name, value in sizes.items():
        if value < 1:
            raise SettingError(f"{owner}.{name} must be at least 1, but is {value}.")
