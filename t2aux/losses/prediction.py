"""p-LSTM: the auxiliary loss that predicts the future (paper, Figure 2 right)."""

from __future__ import annotations

import gin
import keras
import tensorflow as tf

from t2aux.losses.anchored import Anchored, run_stack
from t2aux.losses.base import Bptt, Network, Outputs, OutputsFrom, Sequences
from t2aux.model.core import State
from t2aux.model.lstm import LSTMState


@keras.saving.register_keras_serializable(package="t2aux")
@gin.configurable
class Prediction(Anchored):
    """p-LSTM: from an anchor on, predict the next token from the main LSTM's outputs.

    An auxiliary LSTM is stacked on the main LSTM, which keeps reading the true tokens (paper,
    Figure 2 right). The gradient stops just before the anchor, but under full BPTT of both losses.

    >>> loss = t2aux.losses.Prediction(anchors=2, length=20)
    >>> model = t2aux.SequenceClassifier(classes=10, auxiliary=[loss])
    """

    def __init__(
        self,
        *,
        anchors: int = 1,
        length: int = 600,
        weight: float = 1.0,
        layers: int = 2,
        head_size: int = 256,
        bptt: Bptt | None = None,
        rows: float = 1.0,
        levels: int | None = None,
        name: str | None = None,
    ) -> None:
        """Makes the auxiliary network.

        Args:
            anchors: n, positions a batch.
            length: l, predicted tokens a segment; a shorter sequence is predicted whole.
            weight: w of the loss L = L_supervised + w * L_auxiliary.
            layers: LSTM layers of the auxiliary network.
            head_size: Hidden units of its head [us].
            bptt: See `AuxiliaryLoss`.
            rows: See `AuxiliaryLoss`.
            levels: Predict, besides each value of a token, in which of so many equal intervals of
                [0, 1] it lies, by a softmax whose cross-entropy is added to the squared distance
                [us]. For images, whose squared distances are small beside the supervised loss.
                None: the paper's loss.
            name: See `AuxiliaryLoss`.
        """
        super().__init__(
            name=name,
            anchors=anchors,
            length=length,
            weight=weight,
            bptt=bptt,
            rows=rows,
            layers=layers,
            head_size=head_size,
            levels=levels,
        )

    def _bottom_input_size(self, network: Network) -> int:
        return network.hidden_size

    @property
    def shortest_sequence(self) -> int:
        """A token to read and one to predict, whatever `length` is, where lengths vary."""
        return 2

    def draw(self, seed: tf.Tensor, starts: tf.Tensor, steps: tf.Tensor) -> tf.Tensor:
        """Draws the batch's anchors, uniform over the positions that a segment fits behind.

        Args:
            seed: [2] int32, this batch's.
            starts: [B] int32, the step at which each sequence begins.
            steps: Scalar int32 T.

        Returns:
            [n] int32 positions in 0..T - 1: the state before that step is the first one used.
        """
        last = steps - 1 - self.length
        # A sequence too short for a whole segment is predicted from its beginning on.
        low, high = self._reference_range(seed, starts, tf.maximum(starts, last))
        return tf.clip_by_value(self._draw_anchors(seed, low, high), 0, tf.maximum(last, 0))

    def check_bptt(self, parameter: str, bptt: Bptt) -> None:
        """See `AuxiliaryLoss`."""
        self._check_gradient_between_tokens(parameter, bptt)

    def declare(self, sequences: Sequences, seed: tf.Tensor) -> OutputsFrom:
        """The outputs from the anchors on."""
        starts, steps = sequences.all_starts, sequences.steps
        anchors = self.draw(seed, starts, steps)
        length = tf.minimum(self.length, steps - 1)
        # A sequence that begins after the anchor is predicted from its second token on.
        skipped = tf.maximum(starts[tf.newaxis] - anchors[:, tf.newaxis], 0)
        count = tf.reduce_sum(tf.cast(tf.maximum(length - skipped, 0), tf.float32))
        return OutputsFrom(anchors, self.length, count)

    def initial_carry(self, states: State) -> list[LSTMState]:
        """The auxiliary layers' states at the anchors."""
        return self.bottom_state(states)

    def call(self, given: Outputs) -> tuple[tf.Tensor, list[LSTMState]]:
        """Predicts the token after each output's."""
        hidden, carry = run_stack(self.layers, given.outputs, given.carry, given.active)
        losses = self.output_losses(self.head(hidden), given.targets)
        return tf.reduce_sum(losses * given.mask), carry
