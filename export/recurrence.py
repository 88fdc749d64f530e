"""The recurrence in the form that is fastest in LiteRT: a loop with a few unrolled steps per pass.

LiteRT runs dense operations of fixed shapes with XNNPACK, also in the body of a WHILE, and each
pass through the loop costs a microsecond or two. Therefore, each pass consists of a few unrolled
steps. XNNPACK packs the weights of an LSTM separately for each of these steps, and many copies do
not fit into a core's cache: two steps in float32 and four in 8 bits were fastest for 128 cells
(`benchmarks/inference.py`).

TensorFlow's converter does not turn the loop into a fused LSTM, which took twice the time.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from t2aux.export.stateless import StatelessClassifier
from t2aux.model.core import State


class UnrolledRecurrence:
    """A classifier's core for one sequence, with a few steps per pass."""

    def __init__(
        self, network: StatelessClassifier, unroll: int, *, integer_table: bool = False
    ) -> None:
        """Arranges the weights.

        Args:
            network: The network with the weights.
            unroll: Steps per pass through the loop; overridden by a core's `pass_steps`.
            integer_table: Whether to store the table of ids in int8, which ai-edge-quantizer can't
                do.
        """
        self._network = network
        self._recurrence = network.recurrence
        self._unroll = network.recurrence.pass_steps or unroll
        self._table = self._scale = None
        if network.info.reads_ids:
            # The core's input for each id, precomputed.
            self._table = tf.constant(
                self._recurrence.read(tf.range(network.info.vocabulary_size)).numpy()
            )
            if integer_table:
                self._scale = tf.reduce_max(tf.abs(self._table)).numpy() / 127
                self._table = tf.constant(np.round(self._table / self._scale), tf.int8)

    def __call__(self, tokens: tf.Tensor, state: State) -> State:
        """The state after a sequence or a segment.

        Args:
            tokens: [T, C] float32 or [T] int32. T may be unknown.
            state: The state before it, of one row.

        Returns:
            The state after it.
        """
        steps = tokens.shape[0]
        if steps is None:
            steps = tf.shape(tokens)[0]
        whole = steps // self._unroll * self._unroll
        # If the length is known, a loop without passes can be left out.
        if not isinstance(steps, int) or whole:
            state = self._loop(tokens, state, 0, whole, self._unroll)
        if self._unroll > 1 and (not isinstance(steps, int) or whole < steps):
            state = self._loop(tokens, state, whole, steps, 1)
        return state

    def _loop(
        self,
        tokens: tf.Tensor,
        state: State,
        begin: tf.Tensor | int,
        end: tf.Tensor | int,
        unroll: int,
    ) -> State:
        """Runs the steps begin <= t < end, with `unroll` steps per pass."""

        def passes(t: tf.Tensor, tokens: tf.Tensor, *before: tf.Tensor) -> Sequence[tf.Tensor]:
            read = self._read(tokens, t, unroll)
            after = tf.nest.flatten(self._recurrence.steps(read, self._network.packed(before)))
            for new, old in zip(after, before, strict=True):
                new.set_shape(old.shape)
            return [t + unroll, tokens, *after]

        # The tokens are a loop variable, because the converter can't capture them in the body.
        _, _, *last = tf.while_loop(
            lambda t, *_: t < end,
            passes,
            [tf.convert_to_tensor(begin), tokens, *tf.nest.flatten(state)],
        )
        return self._network.packed(last)

    def _read(self, tokens: tf.Tensor, begin: tf.Tensor, count: int) -> tf.Tensor:
        """The part of some steps that does not depend on the state, [count, G]."""
        if self._table is not None:
            rows = tf.gather(self._table, tf.slice(tokens, [begin], [count]))
            return rows if self._scale is None else tf.cast(rows, tf.float32) * self._scale
        part = tf.slice(tokens, [begin, 0], [count, tokens.shape[1]])
        read = self._recurrence.read(part)
        read.set_shape([count, None])
        return read
