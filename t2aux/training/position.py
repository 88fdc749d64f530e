"""The position of a run, as stored in its checkpoints."""

from __future__ import annotations

import tensorflow as tf


class Position(tf.Module):
    """The position of a run, which determines how it continues. Part of every checkpoint.

    The order of the data is a function of (seed, epoch), and all random numbers of a batch are a
    function of (seed, step). So these few numbers contain the position in the data and the random
    state.
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
