"""SA-LSTM: the main network as a sequence autoencoder (Dai and Le 2015; paper, Table 4)."""

from __future__ import annotations

import gin

from t2aux.model.classifier import Classifier
from t2aux.model.next_token import NextToken


@gin.configurable(denylist=["classifier"])
class SequenceAutoencoder(NextToken):
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
    """

    twice = True

    def __init__(
        self, classifier: Classifier, *, weight: float = 1.0, head_size: int = 256
    ) -> None:
        """Makes the head.

        Args:
            classifier: The network that reads and emits.
            weight: w of the loss L = L_supervised + w * L_auxiliary.
            head_size: Hidden units of the head [us: the kind of head that the paper's own losses
                have; Dai and Le's is a softmax layer alone].
        """
        super().__init__(
            classifier, name="sequence_autoencoder", weight=weight, head_size=head_size
        )

    @property
    def shortest_sequence(self) -> int:
        """One token: read, then predicted."""
        return 1
