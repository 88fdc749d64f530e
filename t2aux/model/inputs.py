"""Input layers: a linear projection of real values, or an embedding of ids.

Both are linear, as is the core's kernel that follows (with G = 4H columns for an LSTM). `fold`
multiplies the two, so that pixels with few channels or characters need no [T * B, D] x [D, G]
product.
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
        table: [V, G], with the bias included, for ids; or None.
    """

    kernel: tf.Tensor | None
    bias: tf.Tensor | None
    table: tf.Tensor | None

    @property
    def weights(self) -> tuple[tf.Tensor, tf.Tensor | None]:
        """The kernel and the bias, or the table and None, as `lstm.states_at` takes them."""
        return (self.kernel if self.table is None else self.table), self.bias

    def __call__(self, tokens: tf.Tensor) -> tf.Tensor:
        """[..., C] float32 or [...] int32 -> [..., G]."""
        if self.table is not None:
            return tf.gather(self.table, tokens)
        # One matrix product, because the gradient of tensordot may lose the kernel's static sizes,
        # which loops require.
        rows = tf.reshape(tokens, [-1, self.kernel.shape[0]])
        # Unlike +, bias_add computes its gradient on all cores.
        rows = tf.nn.bias_add(tf.matmul(rows, self.kernel), self.bias)
        return tf.reshape(rows, [*tf.unstack(tf.shape(tokens))[:-1], self.kernel.shape[1]])


class InputProjection(keras.layers.Layer):
    """A linear projection of real-valued tokens, C -> D."""

    def __init__(self, channels: int, size: int, *, seed: int) -> None:
        """Creates the weights.

        Args:
            channels: C.
            size: D.
            seed: The seed of the initial weights.
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
        """Creates the table.

        Args:
            vocabulary_size: V.
            size: D.
            seed: The seed of the initial weights.
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
    """No input layer: the core reads real values unchanged (paper, Figure 6)."""

    def __init__(self, channels: int) -> None:
        """Stores the number of channels, C."""
        super().__init__(name="direct_input", dtype="float32")
        self.output_size = channels
        self.built = True

    def call(self, tokens: tf.Tensor) -> tf.Tensor:
        """[..., C] float32, unchanged."""
        return tokens

    def fold(self, kernel: tf.Tensor, bias: tf.Tensor) -> Folded:
        """Returns the core's kernel [C, G] and bias [G] unchanged."""
        return Folded(tf.convert_to_tensor(kernel), tf.convert_to_tensor(bias), None)


InputLayer = InputProjection | Embedding | DirectInput


def build(token_size: int, size: int | None, *, is_text: bool, seed: int) -> InputLayer:
    """Creates the input layer of a classifier.

    Args:
        token_size: C channels, or V ids.
        size: D; None: the core reads real values unchanged.
        is_text: Whether tokens are ids.
        seed: The seed of the initial weights.
    """
    if is_text:
        return Embedding(token_size, size, seed=seed)
    if size is None:
        return DirectInput(token_size)
    return InputProjection(token_size, size, seed=seed)


def reader(
    x: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor | None, *, differentiable: bool
) -> Callable[[tf.Tensor], tf.Tensor]:
    """Returns a function that gives the input's part [B, G] of the pre-activations at a step.

    Args:
        x: [T, B, D] float32, or ids [T, B] int32.
        kernel: [D, G], or for ids a table [V, G] with the bias included.
        bias: [G]; None for ids.
        differentiable: Whether gradients are taken. If so, all ids are looked up at once, which
            needs [T, B, G] of memory and makes the table's gradient a single sum. If not, they are
            looked up step by step, without extra memory.
    """
    if bias is None and not differentiable:
        return lambda t: tf.gather(kernel, x[t])
    # Slicing x[t] in the loop would make the backward pass quadratic in T: the gradient of each
    # slice is a tensor as large as x. With a TensorArray it is one slice.
    values = tf.gather(kernel, x) if bias is None else x
    steps = tf.TensorArray(tf.float32, tf.shape(values)[0], element_shape=values.shape[1:]).unstack(
        values
    )
    if bias is None:
        return steps.read
    return lambda t: tf.matmul(steps.read(t), kernel) + bias
