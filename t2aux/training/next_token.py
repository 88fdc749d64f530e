"""The truncated gradient of a loss on the main network's outputs, one window after the other."""

from __future__ import annotations

import tensorflow as tf

from t2aux.model.classifier import Classifier
from t2aux.model.core import State, only
from t2aux.model.next_token import NextToken, Reading
from t2aux.training import truncation


def mean_and_gradients(
    classifier: Classifier,
    loss: NextToken,
    reading: Reading,
    steps: tf.Tensor | int,
    *,
    gradient: bool,
    count: tf.Tensor | None = None,
) -> tuple[tf.Tensor, list[tuple[tf.Variable, tf.Tensor]]]:
    """The mean loss per predicted token, and its gradients, cut every `steps` steps.

    A window's state goes on into the next without gradient, and memory holds the activations of
    one window. The first ends `steps` steps after the first output that predicts, and begins so
    many before it, if there are: so that what is read before anything is predicted learns, too.

    Args:
        classifier: The main network.
        loss: The loss.
        reading: What is read and predicted.
        steps: Of the truncation, at least 1.
        gradient: Whether gradients are taken; otherwise there are none.
        count: How many predicted tokens the mean is over; by default, those of the reading.

    Returns:
        The mean, not weighted, and the variables with the gradients of it times the loss's weight.
    """
    count = reading.count if count is None else count
    variables = [*classifier.recurrent_variables, *loss.trainable_variables] if gradient else []
    begin = tf.maximum(reading.silent + 1 - steps, 0)
    # Never beyond the first time that the tokens are read.
    starts = reading.starts if reading.padded else None
    state = only(truncation.sweep(classifier, reading.tokens, starts, begin[tf.newaxis]))

    def body(
        begin: tf.Tensor, end: tf.Tensor, state: State, total: tf.Tensor, sums: list[tf.Tensor]
    ) -> tuple:
        with tf.GradientTape() as tape:
            tokens = reading.window(begin, end)
            outputs, after = classifier.outputs(tokens, state, reading.active(begin))
            part = loss.loss(outputs, reading, begin).total
            objective = loss.weight * tf.math.divide_no_nan(part, count)
        parts = tape.gradient(objective, variables)
        sums = [a + tf.convert_to_tensor(b) for a, b in zip(sums, parts, strict=True)]
        after = tf.nest.map_structure(
            lambda a, b: tf.ensure_shape(tf.stop_gradient(a), b.shape), after, state
        )
        return end, tf.minimum(end + steps, reading.steps), after, total + part, sums

    *_, total, gradients = tf.while_loop(
        lambda begin, *_: begin < reading.steps,
        body,
        (
            begin,
            tf.minimum(reading.silent + steps, reading.steps),
            state,
            tf.constant(0.0),
            [tf.zeros_like(v) for v in variables],
        ),
        # No window ahead of the one before it: memory holds one.
        parallel_iterations=1,
    )
    mean = tf.math.divide_no_nan(total, count)
    return mean, list(zip(variables, gradients, strict=True))
