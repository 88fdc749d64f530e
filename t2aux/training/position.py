"""Where a run is, and the sums of its metrics: small state on the device."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from t2aux.errors import UserError


class Position(tf.Module):
    """Where a run is: all that decides what comes next. Part of every checkpoint.

    The order of the data is a function of (seed, epoch), and all random numbers of a batch are one
    of (seed, step); so these few numbers are the data's position and the random state.
    """

    def __init__(self, seed: int, batch_size: int, examples: int) -> None:
        super().__init__(name="position")
        self.step = tf.Variable(0, dtype=tf.int64, name="step")
        self.phase = tf.Variable(0, dtype=tf.int64, name="phase")
        self.epoch = tf.Variable(0, dtype=tf.int64, name="epoch")
        self.batch = tf.Variable(0, dtype=tf.int64, name="batch")
        self.seed = tf.Variable(seed, dtype=tf.int64, name="seed")
        self.batch_size = tf.Variable(batch_size, dtype=tf.int64, name="batch_size")
        self.examples = tf.Variable(examples, dtype=tf.int64, name="examples")

    def check(self, seed: int, batch_size: int, examples: int) -> None:
        """Raises UserError where a restored run can't go on with these."""
        for name, stored, now in (
            ("train.seed", self.seed, seed),
            ("train.batch_size", self.batch_size, batch_size),
            ("the number of training examples", self.examples, examples),
        ):
            if int(stored) != now:
                raise UserError(
                    f"This model directory was trained with {name} = {int(stored)}, and can't go "
                    f"on with {now}: set it back, or use another --model_dir."
                )


class Sums(tf.Module):
    """Metrics summed on the device, read only when they are logged."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__(name="sums")
        self._sums = {name: tf.Variable(0.0, name=name) for name in names}
        self._steps = tf.Variable(0.0, name="steps")

    def add(self, values: dict[str, tf.Tensor]) -> None:
        """Adds a step's values."""
        for name, value in values.items():
            self._sums[name].assign_add(value)
        self._steps.assign_add(1.0)

    def take(self) -> dict[str, float]:
        """The means over the steps since the last call."""
        steps = max(float(self._steps), 1.0)
        means = {name: float(value) / steps for name, value in self._sums.items()}
        for variable in (*self._sums.values(), self._steps):
            variable.assign(0.0)
        return means
