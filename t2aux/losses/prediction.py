"""p-LSTM, the auxiliary loss that predicts the future (paper, Figure 2 right)."""

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
    """p-LSTM: predicts each next token after an anchor from the main LSTM's outputs.

    An auxiliary LSTM is stacked on the main LSTM, which keeps reading the true tokens (paper,
    Figure 2 right). The gradient stops just before the anchor, unless both losses use full BPTT.

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
        """Creates the auxiliary network.

        Args:
            anchors: n, the number of positions per batch.
            length: l, the number of predicted tokens per segment; a shorter sequence is predicted
                as a whole.
            weight: w in L = L_supervised + w * L_auxiliary.
            layers: The number of LSTM layers of the auxiliary network.
            head_size: The number of hidden units of its head [us].
            bptt: See `AuxiliaryLoss`.
            rows: See `AuxiliaryLoss`.
            levels: The number of equal intervals of [0, 1] for an additional classification: a
                softmax predicts the interval of each value of a token, and its cross-entropy is
                added to the squared distance [us]. Useful for images, whose squared distances are
                small compared to the supervised loss. None: the paper's loss.
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
        """A token to read and one to predict, because sequences may be shorter than `length`."""
        return 2

    def draw(self, seed: tf.Tensor, starts: tf.Tensor, steps: tf.Tensor) -> tf.Tensor:
        """Draws the batch's anchors uniformly from the positions that a segment fits after.

        Args:
            seed: [2] int32, the seed of this batch.
            starts: [B] int32, the step at which each sequence begins.
            steps: Scalar int32 T.

        Returns:
            Positions [n] int32 in 0..T - 1; the state before that step is the first one used.
        """
        last = steps - 1 - self.length
        # A sequence that is too short for a whole segment is predicted from its beginning.
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
        # A sequence that begins after the anchor is predicted from its second token.
        skipped = tf.maximum(starts[tf.newaxis] - anchors[:, tf.newaxis], 0)
        count = tf.reduce_sum(tf.cast(tf.maximum(length - skipped, 0), tf.float32))
        return OutputsFrom(anchors, self.length, count)

    def initial_carry(self, states: State) -> list[LSTMState]:
        """The auxiliary layers' states at the anchors."""
        return self.bottom_state(states)

    def call(self, given: Outputs) -> tuple[tf.Tensor, list[LSTMState]]:
        """Predicts from each output the token after it."""
        hidden, carry = run_stack(self.layers, given.outputs, given.carry, given.active)
        losses = self.output_losses(self.head(hidden), given.targets)
        return tf.reduce_sum(losses * given.mask), carry
