"""p-LSTM: the auxiliary loss that predicts the future (paper, Figure 2 right)."""

from __future__ import annotations

import gin
import tensorflow as tf

from t2aux.model.auxiliary import Anchored, Loss, run_stack
from t2aux.model.classifier import Classifier
from t2aux.model.core import Active, State, active_from
from t2aux.model.lstm import LSTMState


@gin.configurable(denylist=["classifier"])
class Prediction(Anchored):
    """p-LSTM: from an anchor on, predict the next token from the main LSTM's outputs.

    An auxiliary LSTM is stacked on the main LSTM, which goes on reading the true tokens (paper,
    Figure 2 right). The gradient stops just before the anchor, but under full BPTT of both losses.
    """

    def __init__(
        self,
        classifier: Classifier,
        *,
        anchors: int = 1,
        length: int = 600,
        weight: float = 1.0,
        layers: int = 2,
        head_size: int = 256,
    ) -> None:
        """Makes the auxiliary network.

        Args:
            classifier: The network whose outputs it reads.
            anchors: n, positions a batch.
            length: l, predicted tokens a segment; a shorter sequence is predicted whole.
            weight: w of the loss L = L_supervised + w * L_auxiliary.
            layers: LSTM layers of the auxiliary network.
            head_size: Hidden units of its head [us].
        """
        super().__init__(
            classifier,
            name="prediction",
            anchors=anchors,
            length=length,
            weight=weight,
            layers=layers,
            head_size=head_size,
            bottom_input_size=classifier.hidden_size,
        )

    @property
    def shortest_sequence(self) -> int:
        """A token to read and one to predict, whatever `length` is, where lengths vary."""
        return 2

    def draw(self, seed: tf.Tensor, starts: tf.Tensor, steps: tf.Tensor) -> tf.Tensor:
        """Draws the batch's anchors, uniform over the positions that leave room for a segment.

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

    def gather(
        self, tokens: tf.Tensor, starts: tf.Tensor, anchors: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """The segments from the anchors on.

        Args:
            tokens: [T, B, C] float32 or [T, B] int32.
            starts: [B] int32, the step at which each sequence begins.
            anchors: [n] int32 positions.

        Returns:
            The tokens [l' + 1, n * B, ...] (anchor-major), l' = min(l, T - 1), and [n * B] int32:
            the step of the segment at which the sequence begins (0 or less: it began before).
        """
        steps, batch = tf.shape(tokens)[0], tf.shape(tokens)[1]
        position = anchors + tf.range(tf.minimum(self.length, steps - 1) + 1)[:, tf.newaxis]
        gathered = tf.gather(tokens, position)  # [l' + 1, n, B, ...]
        shape = tf.concat([[tf.shape(position)[0], -1], tf.shape(tokens)[2:]], 0)
        gathered = tf.reshape(gathered, shape)
        gathered.set_shape([None, None, *tokens.shape[2:]])
        begins = starts[tf.newaxis] - anchors[:, tf.newaxis]
        return gathered, tf.reshape(begins, [batch * self.anchors])

    def count(self, starts: tf.Tensor, anchors: tf.Tensor, steps: tf.Tensor) -> tf.Tensor:
        """How many tokens are predicted in a batch, a scalar float32; see `Anchored.count`."""
        length = tf.minimum(self.length, steps - 1)
        begins = tf.maximum(starts[tf.newaxis] - anchors[:, tf.newaxis], 0)
        return tf.reduce_sum(tf.cast(tf.maximum(length - begins, 0), tf.float32))

    def loss(
        self,
        classifier: Classifier,
        states: State,
        segments: tf.Tensor,
        begins: tf.Tensor,
        *,
        padded: bool,
        truncation: int,
    ) -> Loss:
        """Runs main and auxiliary LSTM over the segments, cut every `truncation` steps.

        Args:
            classifier: The main network.
            states: The main states at the anchors, n * B rows; passed on without gradient.
            segments: [l' + 1, n * B, ...], see `gather`.
            begins: [n * B], see `gather`.
            padded: Whether any sequence may begin inside a segment.
            truncation: Main and auxiliary states pass no gradient at every so many steps.

        Returns:
            The loss.
        """
        main = tf.nest.map_structure(tf.stop_gradient, states)
        carried = self.bottom_state(main)
        total, count = tf.constant(0.0), tf.constant(0.0)
        for begin in range(0, self.length, truncation):
            if begin:
                main = tf.nest.map_structure(tf.stop_gradient, main)
                carried = [LSTMState(*map(tf.stop_gradient, state)) for state in carried]
            part = segments[:-1][begin : begin + truncation]
            target = segments[1:][begin : begin + truncation]
            active = active_from(begins - begin) if padded else None
            outputs, main = classifier.outputs(part, main, active)
            part_loss, carried = self.outputs_loss(outputs, target, carried, begins - begin, active)
            total, count = total + part_loss.total, count + part_loss.count
        return Loss(total, count)

    def outputs_loss(
        self,
        main_outputs: tf.Tensor,
        targets: tf.Tensor,
        carried: list[LSTMState],
        begins: tf.Tensor,
        active: Active | None,
    ) -> tuple[Loss, list[LSTMState]]:
        """The loss given the main LSTM's outputs.

        Args:
            main_outputs: [l', N, H].
            targets: [l', N, ...]: the token after each output's.
            carried: The auxiliary layers' states before.
            begins: [N]: the step at which each sequence begins.
            active: See `core.run`.

        Returns:
            The loss and the auxiliary layers' states after.
        """
        hidden, carried = run_stack(self.layers, main_outputs, carried, active)
        there = tf.range(tf.shape(targets)[0])[:, tf.newaxis] >= begins[tf.newaxis]
        there = tf.cast(there, tf.float32)
        losses = self.token_losses(self.head(hidden), targets)
        return Loss(tf.reduce_sum(losses * there), tf.reduce_sum(there)), carried
