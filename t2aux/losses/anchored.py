"""The base classes of the losses that predict tokens and of the paper's two losses.

The paper's two losses, in `reconstruction.py` and `prediction.py`, are computed at `anchors` random
positions of the sequence, drawn for every batch (paper, section 3 and Figure 2), over segments of
`length` predicted tokens. The losses that they are compared with, in `whole_sequence.py`, are
computed over whole sequences. All losses are averaged over all predicted tokens.

If the paper does not specify a default, we chose it and marked it [us] in the parameter's
description.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from t2aux.errors import SettingError
from t2aux.losses.base import AuxiliaryLoss, Bptt, Network, stream
from t2aux.model import lstm
from t2aux.model.core import Active, State, check_sizes
from t2aux.model.heads import Head
from t2aux.model.lstm import LSTMState

# Random streams of one batch; Reconstruction has more, starting with 2.
_REFERENCE, _ANCHOR = range(2)


def uniform_position(draw: tf.Tensor, low: tf.Tensor, high: tf.Tensor) -> tf.Tensor:
    """Maps draws in [0, 1) to the integers low <= p <= high (low where the range is empty)."""
    count = tf.maximum(high - low + 1, 1)
    # In float64, because float32 can't represent 16,000 positions evenly.
    offset = tf.cast(draw * tf.cast(count, tf.float64), tf.int32)
    return low + tf.minimum(offset, count - 1)


class TokenLoss(AuxiliaryLoss):
    """A loss that predicts tokens with a head.

    Attributes:
        head: The head.
    """

    def __init__(self, *, head_size: int, levels: int | None, **parameters: Any) -> None:
        super().__init__(**parameters)
        check_sizes(type(self).__name__, head_size=head_size)
        if levels is not None and (type(levels) is not int or levels < 2):
            raise SettingError(
                f"{type(self).__name__}.levels must be a whole number of at least 2, or None, but "
                f"is {levels!r}."
            )
        self.head_size = head_size
        self.levels = levels

    def build(self, network: Network) -> None:
        """See `AuxiliaryLoss`.

        Raises:
            UserError: `levels` is set, but the tokens are ids.
        """
        self._is_text = network.is_text
        self._token_size = network.token_size
        if self._is_text and self.levels is not None:
            raise SettingError(
                f"{type(self).__name__}.levels = {self.levels} is for real values, but "
                f"{network.data} has ids, each of which already is a class: leave it out."
            )
        self.head = Head(
            network.hidden_size,
            self.head_size,
            network.token_size * (1 + (self.levels or 0)),
            seed=network.seed,
            name=f"{self.name}/head",
        )

    def get_config(self) -> dict[str, Any]:
        """See `AuxiliaryLoss`."""
        return {
            **super().get_config(),
            "rows": self.rows,
            "head_size": self.head_size,
            "levels": self.levels,
        }

    def values(self, outputs: tf.Tensor) -> tf.Tensor:
        """The part of the head's outputs that is the predicted tokens.

        Args:
            outputs: [..., C (1 + levels)], or logits [..., V]; or the weights that compute them.

        Returns:
            [..., C] values, or the logits.
        """
        return outputs[..., : self._token_size]

    def output_losses(self, outputs: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
        """The loss of every output of the head.

        It is the loss of the predicted token, see `token_losses`, plus, with `levels`, the
        cross-entropy of the level of each of the token's values.

        Args:
            outputs: [l, N, C (1 + levels)], or logits [l, N, V].
            targets: [l, N, C] float32 or [l, N] int32.

        Returns:
            [l, N].
        """
        losses = self.token_losses(self.values(outputs), targets)
        if self.levels is None:
            return losses
        logits = outputs[..., self._token_size :]
        logits = tf.reshape(logits, tf.concat([tf.shape(targets), [self.levels]], 0))
        # Level k is the interval [k / levels, (k + 1) / levels).
        level = tf.clip_by_value(tf.cast(targets * self.levels, tf.int32), 0, self.levels - 1)
        entropies = tf.nn.sparse_softmax_cross_entropy_with_logits(level, logits)
        return losses + tf.reduce_sum(entropies, axis=-1)

    def token_losses(self, predictions: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
        """The loss of every predicted token.

        It is the squared distance for real-valued tokens and the cross-entropy for ids.

        Args:
            predictions: [l, N, C] values or [l, N, V] logits.
            targets: [l, N, C] float32 or [l, N] int32.

        Returns:
            [l, N].
        """
        if self._is_text:
            return tf.nn.sparse_softmax_cross_entropy_with_logits(targets, predictions)
        return tf.reduce_sum(tf.math.squared_difference(predictions, targets), axis=-1)

    def _check_gradient_between_tokens(self, parameter: str, bptt: Bptt) -> None:
        if bptt == 0:
            raise SettingError(
                f"{parameter} = 0 leaves nothing for {type(self).__name__} to train: its gradient "
                "flows between the tokens that it predicts; set at least 1, or use Reconstruction."
            )


class Anchored(TokenLoss):
    """What the paper's two losses share: anchors, segments and their own stacked LSTM layers.

    Attributes:
        anchors: n, the number of positions per batch.
        length: l, the number of predicted tokens per segment.
        layers: The auxiliary network's LSTM layers, bottom first.
    """

    def __init__(self, *, anchors: int, length: int, layers: int, **parameters: Any) -> None:
        check_sizes(type(self).__name__, anchors=anchors, length=length, layers=layers)
        super().__init__(**parameters)
        self.anchors = anchors
        self.length = length
        self._count = layers

    def build(self, network: Network) -> None:
        """See `AuxiliaryLoss`.

        Raises:
            UserError: No sequence is long enough.
        """
        super().build(network)
        longest = network.longest
        if longest is not None and longest < self.shortest_sequence:
            raise SettingError(
                f"{type(self).__name__}.length = {self.length} needs sequences of at least "
                f"{self.shortest_sequence} steps, but those of {network.data} have at most "
                f"{longest}: set a smaller one, for example "
                f"{type(self).__name__}.length = {max(1, longest // 2)}."
            )
        size = network.hidden_size
        self.layers = [
            lstm.LSTM(
                size if i else self._bottom_input_size(network),
                size,
                seed=network.seed,
                name=f"{self.name}/lstm_{i}",
            )
            for i in range(self._count)
        ]

    def get_config(self) -> dict[str, Any]:
        """See `AuxiliaryLoss`."""
        return {
            **super().get_config(),
            "anchors": self.anchors,
            "length": self.length,
            "layers": self._count,
        }

    def _bottom_input_size(self, network: Network) -> int:
        raise NotImplementedError

    def draw(self, seed: tf.Tensor, starts: tf.Tensor, steps: tf.Tensor) -> tf.Tensor:
        """Draws the batch's anchors.

        Args:
            seed: [2] int32, the seed of this batch.
            starts: [B] int32, the step at which each sequence begins.
            steps: Scalar int32 T.

        Returns:
            Positions [n] int32.
        """
        raise NotImplementedError

    def bottom_state(self, anchor_state: State) -> list[LSTMState]:
        """The layers' states at an anchor: the main network's for the bottom layer, else zeros."""
        bottom = anchor_state.as_lstm()
        zeros = LSTMState(*[tf.zeros_like(x) for x in bottom])
        return [bottom] + [zeros] * (len(self.layers) - 1)

    def _reference_range(
        self, seed: tf.Tensor, low: tf.Tensor, high: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        # Anchors are drawn from the range of one sequence, which is drawn from the sequences of the
        # batch whose range is not empty. So, if lengths vary, anchors fall into sequences of
        # typical length, not only into the longest ones. If all lengths are equal, this is the
        # range of the batch.
        order = tf.random.stateless_uniform(tf.shape(low), stream(seed, _REFERENCE))
        order = tf.where(low <= high, order, -1.0)
        index = tf.argmax(order)
        return low[index], high[index]

    def _draw_anchors(self, seed: tf.Tensor, low: tf.Tensor, high: tf.Tensor) -> tf.Tensor:
        draw = tf.random.stateless_uniform([self.anchors], stream(seed, _ANCHOR), dtype=tf.float64)
        return uniform_position(draw, low, high)


def run_stack(
    layers: list[lstm.LSTM],
    x: tf.Tensor,
    states: list[LSTMState],
    active: Active | None = None,
) -> tuple[tf.Tensor, list[LSTMState]]:
    """Runs stacked layers over x [T, N, D].

    Args:
        layers: Bottom first.
        x: [T, N, D].
        states: Each layer's state before the first step.
        active: See `core.run`.

    Returns:
        The top layer's outputs [T, N, H] and each layer's state after the last step.
    """
    after = []
    for layer, state in zip(layers, states, strict=True):
        x, final = layer.outputs_time_major(x, state, active)
        after.append(final)
    return x, after
