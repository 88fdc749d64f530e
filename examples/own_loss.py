"""A custom auxiliary loss, which predicts the mean of all tokens from the last state.

This program is the command `t2aux`, with the loss registered:

python examples/own_loss.py train --model_dir=runs/own_loss --gin_file=quickstart \
    --gin_param='train.auxiliary_losses = [@MeanToken]'
python examples/own_loss.py evaluate --model_dir=runs/own_loss

In Python, pass it as in `t2aux.SequenceClassifier(..., auxiliary=[MeanToken()])`.
"""

import gin
import keras
import tensorflow as tf

from t2aux.cli.main import main
from t2aux.losses import AuxiliaryLoss, Network, Sequences, States, StatesAt


@keras.saving.register_keras_serializable(package="examples")
@gin.configurable
class MeanToken(AuxiliaryLoss):
    """The squared distance between a linear function of the last state and the mean token."""

    def build(self, network: Network) -> None:
        """Creates the weights."""
        self.kernel = self.add_weight(shape=(network.hidden_size, network.token_size))

    def declare(self, sequences: Sequences, seed: tf.Tensor) -> StatesAt:
        """Declares one term per sequence, from its state after the last step."""
        count = tf.cast(tf.size(sequences.all_starts), tf.float32)
        return StatesAt(sequences.steps[tf.newaxis], count)

    def call(self, given: States) -> tf.Tensor:
        """Returns the sum over the sequences."""
        tokens, starts = given.sequences.tokens, given.sequences.starts
        # A sequence occupies the steps starts[b] <= t < T; the steps before are padding.
        valid = tf.range(tf.shape(tokens)[0])[:, tf.newaxis] >= starts
        mask = tf.cast(valid, tf.float32)[..., tf.newaxis]
        mean = tf.reduce_sum(tokens * mask, axis=0) / tf.reduce_sum(mask, axis=0)
        predicted = tf.matmul(given.states.h, self.kernel)
        return tf.reduce_sum(tf.math.squared_difference(predicted, mean))


if __name__ == "__main__":
    main()
