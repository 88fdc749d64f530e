"""The two-layer feed-forward heads, with DropConnect."""

from __future__ import annotations

import keras
import tensorflow as tf

from t2aux.model import initializers


class Head(keras.layers.Layer):
    """Two dense layers with a ReLU between them: input -> hidden -> output.

    In training, DropConnect (Wan et al. 2013) sets each weight of the second layer to zero with
    probability `dropconnect` and scales the others to keep the expected value (paper, section 4).
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        output_size: int,
        *,
        dropconnect: float = 0.0,
        seed: int,
        name: str,
    ) -> None:
        """Creates the weights: Glorot-uniform kernels and zero biases.

        Args:
            input_size: The size of the input vectors.
            hidden_size: The number of units of the hidden layer.
            output_size: The number of classes, or the token's size.
            dropconnect: The probability of dropping a weight of the second layer, in [0, 1).
            seed: The seed of the initial weights, together with `name`.
            name: The head's name.
        """
        super().__init__(name=name.replace("/", "_"), dtype="float32")
        self.dropconnect = dropconnect
        self.hidden_kernel = initializers.glorot(
            (input_size, hidden_size), seed, f"{name}/hidden_kernel"
        )
        self.hidden_bias = initializers.zeros((hidden_size,), f"{name}/hidden_bias")
        self.output_kernel = initializers.glorot(
            (hidden_size, output_size), seed, f"{name}/output_kernel"
        )
        self.output_bias = initializers.zeros((output_size,), f"{name}/output_bias")
        self.built = True

    def call(self, x: tf.Tensor, seed: tf.Tensor | None = None) -> tf.Tensor:
        """Applies the head.

        Args:
            x: [..., input_size].
            seed: [2] int32 for DropConnect in this batch; None: no DropConnect (inference).

        Returns:
            [..., output_size].
        """
        hidden_kernel, hidden_bias, kernel, bias = self.tensors
        if seed is not None and self.dropconnect > 0:
            kernel = tf.nn.experimental.stateless_dropout(kernel, self.dropconnect, seed=seed)
        return apply(x, hidden_kernel, hidden_bias, kernel, bias)

    @property
    def tensors(self) -> list[tf.Tensor]:
        """The weights, in the order of the arguments of `apply`."""
        weights = (self.hidden_kernel, self.hidden_bias, self.output_kernel, self.output_bias)
        return [tf.convert_to_tensor(weight) for weight in weights]


def apply(
    x: tf.Tensor,
    hidden_kernel: tf.Tensor,
    hidden_bias: tf.Tensor,
    output_kernel: tf.Tensor,
    output_bias: tf.Tensor,
) -> tf.Tensor:
    """Applies a head without DropConnect: [..., input_size] -> [..., output_size]."""
    # Unlike +, bias_add computes its gradient on all cores.
    hidden = tf.nn.relu(tf.nn.bias_add(tf.tensordot(x, hidden_kernel, 1), hidden_bias))
    return tf.nn.bias_add(tf.tensordot(hidden, output_kernel, 1), output_bias)
