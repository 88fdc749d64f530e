"""The classifier's stateless twin, from which the artefacts are made.

Its input layer is folded into the LSTM's kernel, dropout is gone, and only what inference needs is
in it. The recurrence is `t2aux.model.lstm.run`, the same as in training.
"""

from __future__ import annotations

import tensorflow as tf

from t2aux.model import lstm
from t2aux.model.classifier import Classifier, time_major
from t2aux.model.inputs import Folded, reader
from t2aux.model.lstm import LSTMState


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

    def scan(
        self, tokens: tf.Tensor, state: LSTMState, lengths: tf.Tensor | None = None
    ) -> LSTMState:
        """The state after a segment.

        Args:
            tokens: [B, T, C] float32 or [B, T] int32.
            state: The state before it, [B, H] each.
            lengths: [B] int32, at most T: each sequence keeps its state from its end on. None: T.

        Returns:
            The state after each sequence's true end.
        """
        tokens = time_major(tokens)
        weights = Folded(self.kernel, self.bias, self.table).weights
        read = reader(tokens, *weights, differentiable=False)
        if lengths is None:
            return lstm.run(read, 0, tf.shape(tokens)[0], state, self.recurrent_kernel)[0]
        # Until the first sequence ends, none has to be kept as it is.
        shortest, longest = tf.reduce_min(lengths), tf.reduce_max(lengths)
        state, _ = lstm.run(read, 0, shortest, state, self.recurrent_kernel)
        return lstm.run(
            read,
            shortest,
            longest,
            state,
            self.recurrent_kernel,
            active=lstm.active_until(lengths),
        )[0]

    def probabilities(self, h: tf.Tensor) -> tf.Tensor:
        """The classes' probabilities [B, K] from the LSTM's output h [B, H]."""
        return tf.nn.softmax(self.head(h))


def _weight(value: tf.Tensor | tf.Variable, name: str) -> tf.Variable:
    return tf.Variable(tf.convert_to_tensor(value), trainable=False, name=name)
