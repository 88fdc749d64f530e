"""Losses on the main network's own outputs over whole sequences (Dai and Le 2015; paper, Table 4).

LM-LSTM and SA-LSTM, the pretraining methods of "Semi-supervised Sequence Learning" that the paper
compares with. They have no recurrent layers of their own and only add a head on the main network's
outputs.
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
        """Creates the head.

        Args:
            weight: w in L = L_supervised + w * L_auxiliary.
            head_size: The number of hidden units of the head [us: a head like those of the paper's
                own losses; Dai and Le use a single softmax layer].
            bptt: See `AuxiliaryLoss`.
            rows: See `AuxiliaryLoss`.
            levels: The number of equal intervals of [0, 1] for an additional classification: a
                softmax predicts the interval of each value of a token, and its cross-entropy is
                added to the squared distance [us]. Useful for images, whose squared distances are
                small compared to the supervised loss. None: the paper's loss.
            name: See `AuxiliaryLoss`.
        """
        super().__init__(
            name=name, weight=weight, head_size=head_size, bptt=bptt, rows=rows, levels=levels
        )

    def check_bptt(self, parameter: str, bptt: Bptt) -> None:
        """See `AuxiliaryLoss`."""
        self._check_gradient_between_tokens(parameter, bptt)

    def declare(self, sequences: Sequences, seed: tf.Tensor) -> OutputsOfAll:
        """All outputs; if a sequence is read once, all tokens but the first are predicted."""
        del seed
        lengths = sequences.steps - sequences.all_starts
        predicted = lengths if self._twice else tf.maximum(lengths - 1, 0)
        return OutputsOfAll(tf.reduce_sum(tf.cast(predicted, tf.float32)), self._twice)

    def call(self, given: Outputs) -> tf.Tensor:
        """Predicts from each output the token after it."""
        losses = self.output_losses(self.head(given.outputs), given.targets)
        return tf.reduce_sum(losses * given.mask)


@keras.saving.register_keras_serializable(package="t2aux")
@gin.configurable
class LanguageModel(WholeSequenceLoss):
    """LM-LSTM: predicts every next token of the sequence from the main network's own outputs.

    For a pretraining phase, followed by a phase without auxiliary losses: Dai and Le keep the input
    layer and the LSTM, and give the head new weights. The gradient is cut every
    `train.auxiliary_bptt` steps from the first step on, and the state is carried along. There is
    one update per batch of whole sequences [us]; their published code (TensorFlow's
    adversarial_text) makes one per window.

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
    """SA-LSTM: reads the whole sequence, then emits it again from its first token on.

    One network does both, because Dai and Le's encoder and decoder share their weights (their
    section 2 and Figure 1). The sequence is read twice, with the true tokens. The outputs of the
    second reading are the predictions: the output after the last token x_T predicts x_1, the output
    after x_1 then predicts x_2, and so on. Dai and Le append an end mark to the sequence and decode
    after it; here, decoding starts from the state after the last token [us].

    For a pretraining phase, followed by a phase without auxiliary losses. The decoder's gradient is
    cut every `train.auxiliary_bptt` steps, and the state is carried along. The first of these
    windows reaches as many steps back into the first reading [us]; Dai and Le backpropagate through
    the last 400 steps.

    >>> loss = t2aux.losses.SequenceAutoencoder(bptt=400)
    >>> model = t2aux.SequenceClassifier(classes=2, vocabulary_size=256, auxiliary=[loss])
    """

    _twice = True

    @property
    def shortest_sequence(self) -> int:
        """One token, which is read, then predicted."""
        return 1
