"""From tokens to the LSTM: a linear projection of real values, or an embedding of ids.

Both are linear, and so is the LSTM's kernel behind them: `fold` multiplies the two, so that a
sequence of few-channel pixels or of characters needs no [T * B, D] x [D, 4H] product.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from t2aux.model import initializers


class Folded(NamedTuple):
    """An input layer folded into an LSTM's kernel.

    Attributes:
        kernel: [C, 4H], with the bias [4H], for real-valued tokens; or None.
        bias: See `kernel`.
        table: [V, 4H], with the bias in it, for ids; or None.
    """

    kernel: tf.Tensor | None
    bias: tf.Tensor | None
    table: tf.Tensor | None

    @property
    def weights(self) -> tuple[tf.Tensor, tf.Tensor | None]:
        """The kernel or table and the bias or None, as `lstm.states_at` takes them."""
        return (self.kernel if self.table is None else self.table), self.bias


class InputProjection(tf.Module):
    """A linear projection of real-valued tokens, C -> D."""

    def __init__(self, channels: int, size: int, *, seed: int) -> None:
        """Makes the weights.

        Args:
            channels: C.
            size: D.
            seed: Of the initial weights.
        """
        super().__init__(name="input_projection")
        self.output_size = size
        self.kernel = initializers.glorot((channels, size), seed, "input_projection/kernel")
        self.bias = initializers.zeros((size,), "input_projection/bias")

    def __call__(self, tokens: tf.Tensor) -> tf.Tensor:
        """[..., C] float32 -> [..., D]."""
        return tf.tensordot(tokens, self.kernel, 1) + self.bias

    def fold(self, kernel: tf.Tensor, bias: tf.Tensor) -> Folded:
        """Folds this layer into an LSTM's kernel [D, 4H] and bias [4H]."""
        return Folded(
            tf.matmul(self.kernel, kernel),
            bias + tf.tensordot(self.bias, kernel, 1),
            None,
        )


class Embedding(tf.Module):
    """A table of vectors for ids, V -> D."""

    def __init__(self, vocabulary_size: int, size: int, *, seed: int) -> None:
        """Makes the table.

        Args:
            vocabulary_size: V.
            size: D.
            seed: Of the initial weights.
        """
        super().__init__(name="embedding")
        self.output_size = size
        self.table = initializers.glorot((vocabulary_size, size), seed, "embedding/table")

    def __call__(self, tokens: tf.Tensor) -> tf.Tensor:
        """[...] int32 -> [..., D]."""
        return tf.gather(self.table, tokens)

    def fold(self, kernel: tf.Tensor, bias: tf.Tensor) -> Folded:
        """Folds this layer into an LSTM's kernel [D, 4H] and bias [4H]."""
        return Folded(None, None, tf.matmul(self.table, kernel) + bias)


class DirectInput(tf.Module):
    """No input layer: real values go to the LSTM as they are (paper, Figure 6)."""

    def __init__(self, channels: int) -> None:
        """Keeps the number of channels, C."""
        super().__init__(name="direct_input")
        self.output_size = channels

    def __call__(self, tokens: tf.Tensor) -> tf.Tensor:
        """[..., C] float32, unchanged."""
        return tokens

    def fold(self, kernel: tf.Tensor, bias: tf.Tensor) -> Folded:
        """The LSTM's kernel [C, 4H] and bias [4H] as they are."""
        return Folded(tf.convert_to_tensor(kernel), tf.convert_to_tensor(bias), None)
