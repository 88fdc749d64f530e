"""The classifier's stateless twin, from which the artefacts are made.

Its input layer is folded into the LSTM's kernel, dropout is gone, and only what inference needs is
in it. Its recurrence is for batches on TensorFlow's own kernels, which a server has, and was chosen
by measuring (`benchmarks/inference.py`): one product a step, of the output and the input beside it;
one tanh for all gates, since sigmoid(z) = (1 + tanh(z / 2)) / 2; a large batch as two halves in
loops of their own, which run side by side while one operation would wait for its threads; and two
steps a pass.
"""

from __future__ import annotations

import tensorflow as tf

from t2aux.model import core
from t2aux.model.classifier import Classifier, time_major
from t2aux.model.inputs import Folded
from t2aux.model.lstm import LSTMState

# Steps of a pass through the loop.
_UNROLL = 2
# A batch of fewer sequences is not divided.
_LEAST = 16


class Twin(tf.Module):
    """A classifier for inference, with explicit state.

    Attributes:
        info: The data set's.
        hidden_size: H, the LSTM's cells.
        kernel: [C, 4H], or None for ids.
        bias: [4H], or None for ids.
        table: [V, 4H], or None for real values.
    """

    def __init__(self, classifier: Classifier) -> None:
        """Copies the weights of a classifier."""
        super().__init__(name="classifier")
        self.info = classifier.info
        self.hidden_size = classifier.hidden_size
        folded = classifier.input.fold(classifier.lstm.kernel, classifier.lstm.bias)
        self.kernel, self.bias, self.table = (
            None if value is None else _weight(value, name)
            for name, value in zip(Folded._fields, folded, strict=True)
        )
        self.recurrent_kernel = _weight(classifier.lstm.recurrent_kernel, "recurrent_kernel")
        self.head = classifier.head

    def tokens_spec(self, batch: int | None, steps: int | None, name: str) -> tf.TensorSpec:
        """The signature's entry of tokens: float32 [batch, steps, C] or int32 [batch, steps]."""
        if self.info.is_text:
            return tf.TensorSpec([batch, steps], tf.int32, name)
        return tf.TensorSpec([batch, steps, self.info.channels], tf.float32, name)

    def state_spec(self, batch: int | None) -> LSTMState:
        """The signature's entries of the state: h and c, [batch, H] each."""
        return LSTMState(
            tf.TensorSpec([batch, self.hidden_size], tf.float32, "h"),
            tf.TensorSpec([batch, self.hidden_size], tf.float32, "c"),
        )

    def init_state(self, batch: tf.Tensor | int) -> LSTMState:
        """Zeros: [batch, H] each."""
        zeros = tf.zeros([batch, self.hidden_size])
        return LSTMState(zeros, tf.identity(zeros))

    def scan(self, tokens: tf.Tensor, state: LSTMState, lengths: tf.Tensor) -> LSTMState:
        """The state after a segment.

        Args:
            tokens: [B, T, C] float32 or [B, T] int32.
            state: The state before it, [B, H] each.
            lengths: [B] int32, at most T: each sequence keeps its state from its end on.

        Returns:
            The state after each sequence's true end.
        """
        weights = self._weights()
        batch = tf.shape(state.h)[0]
        second = tf.where(batch < _LEAST, 0, batch // 2)
        first = batch - second
        states = []
        for rows in (slice(first), slice(first, None)):
            part = LSTMState(state.h[rows], state.c[rows])
            states.append(self._scan(weights, tokens[rows], part, lengths[rows]))
        return LSTMState(*(tf.concat(parts, 0) for parts in zip(*states, strict=True)))

    def _weights(self) -> Folded:
        """The weights, such that a tanh of all pre-activations is what the gates need.

        For real values the kernel has the recurrent one above it and the bias below: [H + C + 1,
        4H]. For ids it is the recurrent kernel alone, and the table has the bias in it.
        """
        h = self.hidden_size
        # Input, forget, candidate, output.
        scale = tf.repeat(tf.constant([0.5, 0.5, 1.0, 0.5]), h)
        if self.table is not None:
            return Folded(self.recurrent_kernel * scale, None, self.table * scale)
        rows = [self.recurrent_kernel, self.kernel, self.bias[tf.newaxis]]
        return Folded(tf.concat(rows, 0) * scale, None, None)

    def _scan(
        self, weights: Folded, tokens: tf.Tensor, state: LSTMState, lengths: tf.Tensor
    ) -> LSTMState:
        """`scan` of sequences that stay together; there may be none."""
        tokens = time_major(tokens)
        if weights.table is None:
            tokens = tf.concat([tokens, tf.ones_like(tokens[..., :1])], -1)

        def step(t: tf.Tensor, state: LSTMState) -> LSTMState:
            if weights.table is None:
                z = tf.matmul(tf.concat([state.h, tokens[t]], -1), weights.kernel)
            else:
                z = tf.matmul(state.h, weights.kernel) + tf.gather(weights.table, tokens[t])
            i, f, g, o = tf.split(tf.tanh(z), 4, axis=-1)
            c = 0.5 * ((1 + f) * state.c + (1 + i) * g)
            return LSTMState(0.5 * (1 + o) * tf.tanh(c), c)

        # Until the first sequence ends, none has to be kept as it is. Of no sequences, the longest
        # has none of the steps.
        longest = tf.maximum(tf.reduce_max(lengths), 0)
        shortest = tf.minimum(tf.reduce_min(lengths), longest)
        state, _ = core.run(step, 0, shortest, state, unroll=_UNROLL)
        active = core.active_until(lengths)
        return core.run(step, shortest, longest, state, active=active, unroll=_UNROLL)[0]

    def probabilities(self, h: tf.Tensor) -> tf.Tensor:
        """The classes' probabilities [B, K] from the LSTM's output h [B, H]."""
        return tf.nn.softmax(self.head(h))


def _weight(value: tf.Tensor | tf.Variable, name: str) -> tf.Variable:
    return tf.Variable(tf.convert_to_tensor(value), trainable=False, name=name)
