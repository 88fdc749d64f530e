"""From tokens to the core: a linear projection of real values, or an embedding of ids.

Both are linear, and so is the core's kernel behind them (of G = 4H columns for an LSTM): `fold`
multiplies the two, so that a sequence of few-channel pixels or of characters needs no
[T * B, D] x [D, G] product.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import keras
import tensorflow as tf

from t2aux.model import initializers


class Folded(NamedTuple):
    """An input layer folded into a core's kernel.

    Attributes:
        kernel: [C, G], with the bias [G], for real-valued tokens; or None.
        bias: See `kernel`.
        table: [V, G], with the bias in it, for ids; or None.
    """

    kernel: tf.Tensor | None
    bias: tf.Tensor | None
    table: tf.Tensor | None

    @property
    def weights(self) -> tuple[tf.Tensor, tf.Tensor | None]:
        """The kernel or table and the bias or None, as `lstm.states_at` takes them."""
        return (self.kernel if self.table is None else self.table), self.bias

    def __call__(self, tokens: tf.Tensor) -> tf.Tensor:
        """[..., C] float32 or [...] int32 -> [..., G]."""
        if self.table is not None:
            return tf.gather(self.table, tokens)
        # As one matrix: tensordot's gradient may lose the kernel's static sizes, which loops want.
        rows = tf.reshape(tokens, [-1, self.kernel.shape[0]])
        # bias_add, unlike +, sums its gradient on all cores.
        rows = tf.nn.bias_add(tf.matmul(rows, self.kernel), self.bias)
        return tf.reshape(rows, [*tf.unstack(tf.shape(tokens))[:-1], self.kernel.shape[1]])


class InputProjection(keras.layers.Layer):
    """A linear projection of real-valued tokens, C -> D."""

    def __init__(self, channels: int, size: int, *, seed: int) -> None:
        """Makes the weights.

        Args:
            channels: C.
            size: D.
            seed: Of the initial weights.
        """
        super().__init__(name="input_projection", dtype="float32")
        self.output_size = size
        self.kernel = initializers.glorot((channels, size), seed, "input_projection/kernel")
        self.bias = initializers.zeros((size,), "input_projection/bias")
        self.built = True

    def call(self, tokens: tf.Tensor) -> tf.Tensor:
        """[..., C] float32 -> [..., D]."""
        return tf.tensordot(tokens, self.kernel, 1) + self.bias

    def fold(self, kernel: tf.Tensor, bias: tf.Tensor) -> Folded:
        """Folds this layer into a core's kernel [D, G] and bias [G]."""
        return Folded(
            tf.matmul(self.kernel, kernel),
            bias + tf.tensordot(self.bias, kernel, 1),
            None,
        )


class Embedding(keras.layers.Layer):
    """A table of vectors for ids, V -> D."""

    def __init__(self, vocabulary_size: int, size: int, *, seed: int) -> None:
        """Makes the table.

        Args:
            vocabulary_size: V.
            size: D.
            seed: Of the initial weights.
        """
        super().__init__(name="embedding", dtype="float32")
        self.output_size = size
        self.table = initializers.glorot((vocabulary_size, size), seed, "embedding/table")
        self.built = True

    def call(self, tokens: tf.Tensor) -> tf.Tensor:
        """[...] int32 -> [..., D]."""
        return tf.gather(self.table, tokens)

    def fold(self, kernel: tf.Tensor, bias: tf.Tensor) -> Folded:
        """Folds this layer into a core's kernel [D, G] and bias [G]."""
        return Folded(None, None, tf.matmul(self.table, kernel) + bias)


class DirectInput(keras.layers.Layer):
    """No input layer: real values go to the core as they are (paper, Figure 6)."""

    def __init__(self, channels: int) -> None:
        """Keeps the number of channels, C."""
        super().__init__(name="direct_input", dtype="float32")
        self.output_size = channels
        self.built = True

    def call(self, tokens: tf.Tensor) -> tf.Tensor:
        """[..., C] float32, unchanged."""
        return tokens

    def fold(self, kernel: tf.Tensor, bias: tf.Tensor) -> Folded:
        """The core's kernel [C, G] and bias [G] as they are."""
        return Folded(tf.convert_to_tensor(kernel), tf.convert_to_tensor(bias), None)


InputLayer = InputProjection | Embedding | DirectInput


def build(token_size: int, size: int | None, *, is_text: bool, seed: int) -> InputLayer:
    """The input layer of a classifier.

    Args:
        token_size: C channels, or V ids.
        size: D; None: the core gets real values as they are.
        is_text: Whether tokens are ids.
        seed: Of the initial weights.
    """
    if is_text:
        return Embedding(token_size, size, seed=seed)
    if size is None:
        return DirectInput(token_size)
    return InputProjection(token_size, size, seed=seed)


def reader(
    x: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor | None, *, differentiable: bool
) -> Callable[[tf.Tensor], tf.Tensor]:
    """Gives the input's part of the pre-activations at a step, [B, G], to a loop over steps.

    Args:
        x: [T, B, D] float32, or ids [T, B] int32.
        kernel: [D, G], or for ids a table [V, G] with the bias in it.
        bias: [G]; None for ids.
        differentiable: Whether a gradient is taken through it. Ids are then looked up all at once,
            which costs [T, B, G] of memory and makes the table's gradient one sum; otherwise step
            by step, which costs none.
    """
    if bias is None and not differentiable:
        return lambda t: tf.gather(kernel, x[t])
    # Slicing x[t] in the loop would make the backward pass quadratic in T: each slice's gradient
    # is a tensor as large as x. A TensorArray's is one slice.
    values = tf.gather(kernel, x) if bias is None else x
    steps = tf.TensorArray(tf.float32, tf.shape(values)[0], element_shape=values.shape[1:]).unstack(
        values
    )
    if bias is None:
        return steps.read
    return lambda t: tf.matmul(steps.read(t), kernel) + bias
