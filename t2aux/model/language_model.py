"""LM-LSTM: the main network as a language model (Dai and Le 2015, section 2; paper, Table 4)."""

from __future__ import annotations

import gin

from t2aux.model.classifier import Classifier
from t2aux.model.next_token import NextToken


@gin.configurable(denylist=["classifier"])
class LanguageModel(NextToken):
    """LM-LSTM: predict every next token of the sequence from the main network's own outputs.

    Made for a pretraining phase, which a phase without auxiliary losses follows: Dai and Le keep
    the input layer and the LSTM, and train anew what classifies. The gradient is cut every
    `train.auxiliary_bptt` steps from the first on, the state carried along. One update a batch of
    whole sequences [us]; their published code (TensorFlow's adversarial_text) makes one a window.
    """

    twice = False

    def __init__(
        self, classifier: Classifier, *, weight: float = 1.0, head_size: int = 256
    ) -> None:
        """Makes the head.

        Args:
            classifier: The network whose outputs it reads.
            weight: w of the loss L = L_supervised + w * L_auxiliary.
            head_size: Hidden units of the head [us: the kind of head that the paper's own losses
                have; Dai and Le's is a softmax layer alone].
        """
        super().__init__(classifier, name="language_model", weight=weight, head_size=head_size)

    @property
    def shortest_sequence(self) -> int:
        """A token to read and one to predict."""
        return 2
