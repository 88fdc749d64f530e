"""Computes what auxiliary losses declare: a forward pass, then windows with gradient.

Each kind of declaration (`t2aux.losses.base`) has a plan. The plan names the positions whose states
the forward pass must keep (`state_positions`), and computes the loss and its gradients from these
states:

- `StatesAt`: the windows are the `bptt` steps before each position. The loss is computed first, for
  all positions as one batch. Its gradient with respect to the states is then propagated into the
  windows, one window at a time.
- `OutputsFrom`: the windows are the ranges from the positions on, as one batch, cut every `bptt`
  steps. The gradient stops at the positions.
- `OutputsOfAll`: whole sequences, in consecutive windows of `bptt` steps, with the state carried
  along.

If no gradient is stopped, `StatesAt` and `OutputsFrom` can also be computed in the single pass of
the supervised loss (`in_one_pass`).
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from t2aux.errors import SettingError
from t2aux.losses.base import (
    AuxiliaryLoss,
    Bptt,
    Outputs,
    OutputsFrom,
    OutputsOfAll,
    States,
    StatesAt,
)
from t2aux.model import weights
from t2aux.model.core import Active, Scan, State, active_from, single_state
from t2aux.training import truncation
from t2aux.training.plan import Context, Plan, Result, described
from t2aux.training.reading import Reading
from t2aux.training.truncation import gradients_of


class StatesPlan(Plan):
    """The plan for `StatesAt`."""

    def __init__(self, *arguments: Any) -> None:
        """See `Plan`."""
        super().__init__(*arguments)
        self._windows: truncation.Windows | None = None
        if self.bptt != 0:
            steps = self._context.sequences.steps if self.bptt == "full" else self.bptt
            self._windows = truncation.group_anchors(self.positions, steps)

    def state_positions(self, *, gradient: bool) -> list[tf.Tensor]:
        """See `Plan`: the windows' beginnings and the positions themselves."""
        if self._windows is None or not gradient:
            return [self.positions]
        return [self._windows.begin, self.positions]

    def result(self, kept: list[State]) -> Result:
        """See `Plan`."""
        *first, states = kept
        flat = _flatten(states)
        leaves = tf.nest.flatten(flat)
        bptt = None if self.bptt in ("full", 0) else self.bptt
        variables = self._context.variables
        with tf.GradientTape() as tape:
            tape.watch(leaves)
            mean = self._value(flat, bptt)
            objective = self.loss.weight * mean
        gradients = gradients_of(tape, objective, [*variables, *leaves])
        gradients, at_positions = gradients[: len(variables)], gradients[len(variables) :]
        if self._windows is None:
            return Result(mean, gradients)
        at_positions = [
            tf.reshape(g, tf.shape(s))
            for g, s in zip(at_positions, tf.nest.flatten(states), strict=True)
        ]
        through = self._through_windows(at_positions, self._windows, first[0])
        recurrent = self._context.classifier.recurrent_variables
        by_variable = {v.ref(): g for v, g in zip(recurrent, through, strict=True)}
        gradients = [
            g + by_variable[v.ref()] if v.ref() in by_variable else g
            for v, g in zip(variables, gradients, strict=True)
        ]
        return Result(mean, gradients)

    def mean(self, kept: list[State]) -> tf.Tensor:
        """See `Plan`."""
        return self._value(_flatten(*kept), None)

    def in_one_pass(self, states: State, outputs: tf.Tensor | None) -> tf.Tensor:
        """See `Plan`."""
        del outputs
        return self._value(_flatten(states), None)

    def _value(self, states: State, bptt: int | None) -> tf.Tensor:
        context = self._context
        total, _ = self._call(
            States,
            states=states,
            positions=self.positions,
            sequences=context.sequences,
            input_layer=context.classifier.input_layer,
            bptt=bptt,
        )
        return self._mean(total)

    def _through_windows(
        self, at_positions: list[tf.Tensor], windows: truncation.Windows, first: State
    ) -> list[tf.Tensor]:
        """Propagates gradients with respect to the states into the main network.

        Only one window is computed at a time, so memory holds the activations of one window.

        Returns:
            The gradients of `classifier.recurrent_variables`.
        """
        classifier, sequences = self._context.classifier, self._context.sequences
        variables = classifier.recurrent_variables

        def body(j: tf.Tensor, sums: list[tf.Tensor]) -> tuple:
            members = tf.where(windows.group == j)[:, 0]
            begin, end = windows.first[j], windows.end[j]
            state = tf.nest.map_structure(lambda s: s[members[0]], first)
            with tf.GradientTape() as tape:
                positions = tf.gather(self.positions, members) - begin
                scan = Scan(state, positions, sequences.active(begin))
                at, _ = classifier.states_at(sequences.tokens[begin:end], scan)
            part = tape.gradient(
                tf.nest.flatten(at),
                variables,
                output_gradients=[tf.gather(g, members) for g in at_positions],
            )
            return j + 1, truncation.added(sums, part)

        sums = [tf.zeros_like(v) for v in variables]
        # Windows are independent, so TensorFlow would otherwise run ten of them in parallel.
        return tf.while_loop(
            lambda j, _: j < windows.count, body, (0, sums), parallel_iterations=1
        )[1]


class OutputsPlan(Plan):
    """The plan for `OutputsFrom`."""

    needs_outputs = True

    def state_positions(self, *, gradient: bool) -> list[tf.Tensor]:
        """See `Plan`: the positions."""
        del gradient
        return [self.positions]

    def result(self, kept: list[State]) -> Result:
        """See `Plan`."""
        with tf.GradientTape() as tape:
            mean = self.mean(kept)
            objective = self.loss.weight * mean
        return Result(mean, gradients_of(tape, objective, self._context.variables))

    def mean(self, kept: list[State]) -> tf.Tensor:
        """See `Plan`."""
        main = tf.nest.map_structure(tf.stop_gradient, _flatten(*kept))
        carry = self.loss.initial_carry(main)
        tokens, begins = self._segments(self._context.sequences.tokens)
        length = self._declaration.length
        cut = length if self.bptt == "full" else self.bptt
        total = tf.constant(0.0)
        for begin in range(0, length, cut):
            if begin:
                main, carry = tf.nest.map_structure(tf.stop_gradient, (main, carry))
            read = tokens[:-1][begin : begin + cut]
            targets = tokens[1:][begin : begin + cut]
            active = self._active(begins - begin)
            outputs, main = self._context.classifier.outputs(read, main, active)
            part, carry = self._window(outputs, read, targets, begins - begin, carry)
            total = total + part
        return self._mean(total)

    def in_one_pass(self, states: State, outputs: tf.Tensor | None) -> tf.Tensor:
        """See `Plan`."""
        tokens, begins = self._segments(self._context.sequences.tokens)
        outputs, _ = self._segments(outputs)
        carry = self.loss.initial_carry(_flatten(states))
        return self._mean(self._window(outputs[:-1], tokens[:-1], tokens[1:], begins, carry)[0])

    def _segments(self, values: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The segments of [T, B, ...] from the positions on.

        Returns:
            [l' + 1, n * B, ...] (position-major) with l' = min(length, T - 1), and [n * B] int32,
            the step of the segment at which the sequence begins (0 or less: before the segment).
        """
        positions, starts = self.positions, self._context.sequences.starts
        length = tf.minimum(self._declaration.length, tf.shape(values)[0] - 1)
        index = positions + tf.range(length + 1)[:, tf.newaxis]
        gathered = tf.gather(values, index)  # [l' + 1, n, B, ...]
        shape = tf.concat([[length + 1, -1], tf.shape(values)[2:]], 0)
        gathered = tf.reshape(gathered, shape)
        gathered.set_shape([None, None, *values.shape[2:]])
        begins = starts[tf.newaxis] - positions[:, tf.newaxis]
        return gathered, tf.reshape(begins, [-1])

    def _active(self, begins: tf.Tensor) -> Active | None:
        return active_from(begins) if self._context.sequences.padded else None

    def _window(
        self,
        outputs: tf.Tensor,
        tokens: tf.Tensor,
        targets: tf.Tensor,
        begins: tf.Tensor,
        carry: Any,
    ) -> tuple[tf.Tensor, Any]:
        mask = tf.range(tf.shape(targets)[0])[:, tf.newaxis] >= begins[tf.newaxis]
        return self._call(
            Outputs,
            outputs=outputs,
            tokens=tokens,
            targets=targets,
            mask=tf.cast(mask, tf.float32),
            active=self._active(begins),
            carry=carry,
        )


class WholeSequencePlan(Plan):
    """The plan for `OutputsOfAll`.

    The state is carried from one window to the next without gradient, and memory holds the
    activations of one window. The first window ends `bptt` steps after the first output that
    predicts, and begins `bptt` steps before it, if there are as many, so that the first reading is
    trained, too.
    """

    joins_one_pass = False

    def __init__(self, *arguments: Any) -> None:
        """See `Plan`."""
        super().__init__(*arguments)
        sequences = self._context.sequences
        self._reading = Reading(sequences, self._declaration.twice)
        self._steps = self._reading.steps if self.bptt == "full" else self.bptt
        self._begin = tf.maximum(self._reading.first_output + 1 - self._steps, 0)

    def state_positions(self, *, gradient: bool) -> list[tf.Tensor]:
        """See `Plan`: the first window's beginning, never beyond the first reading."""
        del gradient
        return [self._begin[tf.newaxis]]

    def result(self, kept: list[State]) -> Result:
        """See `Plan`."""
        classifier = self._context.classifier
        variables = [*classifier.recurrent_variables, *weights.in_order(self.loss)]
        mean, gradients = self._run(kept, variables)
        by_variable = {v.ref(): g for v, g in zip(variables, gradients, strict=True)}
        gradients = [by_variable.get(v.ref(), tf.zeros_like(v)) for v in self._context.variables]
        return Result(mean, gradients)

    def mean(self, kept: list[State]) -> tf.Tensor:
        """See `Plan`."""
        return self._run(kept, [])[0]

    def _run(
        self, kept: list[State], variables: list[tf.Variable]
    ) -> tuple[tf.Tensor, list[tf.Tensor]]:
        reading, steps = self._reading, self._steps
        state = single_state(*kept)
        carry = self.loss.initial_carry(state)

        def body(
            begin: tf.Tensor, end: tf.Tensor, carried: Any, total: tf.Tensor, sums: list[tf.Tensor]
        ) -> tuple:
            state, carry = carried
            with tf.GradientTape() as tape:
                # One token more than is read, which the last output predicts.
                tokens = reading.window(begin, end + 1)
                active = reading.active(begin)
                outputs, after = self._context.classifier.outputs(tokens[:-1], state, active)
                part, carry = self._call(
                    Outputs,
                    outputs=outputs,
                    tokens=tokens[:-1],
                    targets=tokens[1:],
                    mask=reading.mask(begin, end),
                    active=active,
                    carry=carry,
                )
                objective = self.loss.weight * self._mean(part)
            parts = gradients_of(tape, objective, variables)
            sums = truncation.added(sums, parts)
            after = tf.nest.map_structure(
                lambda a, b: tf.ensure_shape(tf.stop_gradient(a), b.shape), (after, carry), carried
            )
            return end, tf.minimum(end + steps, reading.steps), after, total + part, sums

        *_, total, gradients = tf.while_loop(
            lambda begin, *_: begin < reading.steps,
            body,
            (
                self._begin,
                tf.minimum(reading.first_output + steps, reading.steps),
                (state, carry),
                tf.constant(0.0),
                [tf.zeros_like(v) for v in variables],
            ),
            # Sequential, so that memory holds one window.
            parallel_iterations=1,
        )
        return self._mean(total), gradients


def _flatten(states: State) -> State:
    # [n, B, ...] -> [n * B, ...]
    return tf.nest.map_structure(lambda s: tf.reshape(s, [-1, *s.shape[2:]]), states)


_PLANS = {StatesAt: StatesPlan, OutputsFrom: OutputsPlan, OutputsOfAll: WholeSequencePlan}


def plan(context: Context, loss: AuxiliaryLoss, seed: tf.Tensor, bptt: Bptt) -> Plan:
    """Creates the plan of a loss for a batch.

    Args:
        context: The values that the step's plans share.
        loss: The loss.
        seed: [2] int32, specific to this batch and this loss.
        bptt: How many steps the gradient goes back if the loss does not set its own `bptt`.

    Returns:
        The plan.

    Raises:
        UserError: The loss does not return a valid declaration.
    """
    declaration = loss.declare(context.sequences, seed)
    if type(declaration) not in _PLANS:
        raise SettingError(
            f"{type(loss).__name__}.declare must return StatesAt, OutputsFrom or OutputsOfAll, but "
            f"returned {declaration!r}."
        )
    declaration = declaration._replace(count=tf.cast(declaration.count, tf.float32))
    if not isinstance(declaration, OutputsOfAll):
        positions = tf.convert_to_tensor(declaration.positions)
        if positions.shape.rank != 1 or positions.dtype != tf.int32:
            raise SettingError(
                f"{type(loss).__name__}.declare must give positions [n] int32, the same for all "
                f"sequences, but gave {described(positions)}."
            )
        declaration = declaration._replace(positions=positions)
    bptt = bptt if loss.bptt is None else loss.bptt
    return _PLANS[type(declaration)](context, loss, declaration, seed, bptt)
