"""Losses on the main network's own outputs over whole sequences (Dai and Le 2015; paper, Table 4).

The pretraining of "Semi-supervised Sequence Learning", which the paper compares with: LM-LSTM and
SA-LSTM. Neither has its own recurrent layers: a head on the main network's outputs is all that
they add.
"""

from __future__ import annotations

import gin
import keras
import tensorflow as tf

from t2aux.losses.anchored import TokenLoss
from t2aux.losses.base import Bptt, Outputs, OutputsOfAll, Sequences


class WholeSequenceLoss(TokenLoss):
    """A loss on the outputs over whole sequences."""

    # Whether the sequence is read twice, see `OutputsOfAll`.
    _twice: bool

    def __init__(
        self,
        *,
        weight: float = 1.0,
        head_size: int = 256,
        bptt: Bptt | None = None,
        rows: float = 1.0,
        levels: int | None = None,
        name: str | None = None,
    ) -> None:
        """Makes the head.

        Args:
            weight: w of the loss L = L_supervised + w * L_auxiliary.
            head_size: Hidden units of the head [us: the kind of head that the paper's own losses
                have; Dai and Le's is a softmax layer alone].
            bptt: See `AuxiliaryLoss`.
            rows: See `AuxiliaryLoss`.
            levels: Predict, besides each value of a token, in which of so many equal intervals of
                [0, 1] it lies, by a softmax whose cross-entropy is added to the squared distance
                [us]. For images, whose squared distances are small beside the supervised loss.
                None: the paper's loss.
            name: See `AuxiliaryLoss`.
        """
        super().__init__(
            name=name, weight=weight, head_size=head_size, bptt=bptt, rows=rows, levels=levels
        )

    def check_bptt(self, parameter: str, bptt: Bptt) -> None:
        """See `AuxiliaryLoss`."""
        self._check_gradient_between_tokens(parameter, bptt)

    def declare(self, sequences: Sequences, seed: tf.Tensor) -> OutputsOfAll:
        """All outputs: where a sequence is read once, all tokens but the first are predicted."""
        del seed
        lengths = sequences.steps - sequences.all_starts
        predicted = lengths if self._twice else tf.maximum(lengths - 1, 0)
        return OutputsOfAll(tf.reduce_sum(tf.cast(predicted, tf.float32)), self._twice)

    def call(self, given: Outputs) -> tf.Tensor:
        """Predicts the token after each output's."""
        losses = self.output_losses(self.head(given.outputs), given.targets)
        return tf.reduce_sum(losses * given.mask)


@keras.saving.register_keras_serializable(package="t2aux")
@gin.configurable
class LanguageModel(WholeSequenceLoss):
    """LM-LSTM: predict every next token of the sequence from the main network's own outputs.

    Made for a pretraining phase, which a phase without auxiliary losses follows: Dai and Le keep
    the input layer and the LSTM, and give the head new weights. The gradient is cut every
    `train.auxiliary_bptt` steps from the first on, the state carried along. One update a batch of
    whole sequences [us]; their published code (TensorFlow's adversarial_text) makes one a window.

    >>> loss = t2aux.losses.LanguageModel(weight=0.5)
    >>> model = t2aux.SequenceClassifier(classes=2, vocabulary_size=256, auxiliary=[loss])
    """

    _twice = False

    @property
    def shortest_sequence(self) -> int:
        """A token to read and one to predict."""
        return 2


@keras.saving.register_keras_serializable(package="t2aux")
@gin.configurable
class SequenceAutoencoder(WholeSequenceLoss):
    """SA-LSTM: read the whole sequence, then emit it again from its first token on.

    One network does both: Dai and Le's encoder and decoder have the same weights (their section 2
    and Figure 1). So the sequence is read twice, and the outputs of the second time predict: that
    after the last token x_T predicts x_1, that after x_1 then x_2, and so on; the true tokens are
    fed. They put an end mark behind the sequence, and decode after it; here the state after the
    last token starts the decoding [us].

    Made for a pretraining phase, which a phase without auxiliary losses follows. The decoder's
    gradient is cut every `train.auxiliary_bptt` steps, the state carried along, and the first of
    these windows reaches as many steps back into the reading [us]; Dai and Le backpropagate through
    the last 400 steps.

    >>> loss = t2aux.losses.SequenceAutoencoder(bptt=400)
    >>> model = t2aux.SequenceClassifier(classes=2, vocabulary_size=256, auxiliary=[loss])
    """

    _twice = True

    @property
    def shortest_sequence(self) -> int:
        """One token: read, then predicted."""
        return 1
