"""What a Keras optimizer needs in a training step that is not Keras's own."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import tensorflow as tf


def apply(
    optimizer: keras.optimizers.Optimizer,
    gradients: Sequence[tf.Tensor],
    variables: Sequence[tf.Variable],
) -> None:
    """Applies the gradients of the loss itself; without variables, does nothing.

    `optimizer.apply` divides by the loss scale of a LossScaleOptimizer or of `loss_scale_factor`.
    """
    if variables:
        optimizer.apply([optimizer.scale_loss(gradient) for gradient in gradients], variables)


def steps_made(optimizer: keras.optimizers.Optimizer) -> tf.Variable:
    """The number of steps, of which `gradient_accumulation_steps` make an update."""
    # `iterations` counts the updates.
    return getattr(optimizer, "inner_optimizer", optimizer)._iterations.value
