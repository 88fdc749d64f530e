"""The classifier of `t2aux train`: a `SequenceClassifier` for a data set, configured in gin."""

from __future__ import annotations

from collections.abc import Callable

import gin

from t2aux.errors import SettingError
from t2aux.losses.base import Objective
from t2aux.model.classifier import check_parameters
from t2aux.model.core import Core
from t2aux.model.lstm import LSTM
from t2aux.training.model import SequenceClassifier
from t2aux_ondevice.preprocessing import DatasetInfo


# The module's earlier name, because gin files may use the full name.
@gin.configurable(
    "Classifier", module="t2aux.model.classifier", denylist=["info", "seed", "objective"]
)
def make_classifier(
    info: DatasetInfo,
    *,
    core: Callable[..., Core] = LSTM,
    projection_size: int | None = 128,
    hidden_size: int = 128,
    head_size: int = 256,
    dropconnect: float = 0.5,
    noise: float = 0.0,
    seed: int = 0,
    objective: Objective | None = None,
) -> SequenceClassifier:
    """Creates a classifier with its weights; the default sizes are the paper's (section 4).

    Args:
        info: The data set, which gives the classes and the channels or the vocabulary.
        core: Creates the recurrent core, see `t2aux.model.core`: @LSTM (the paper's), @GRU or
            @MinGRU.
        projection_size: D, the size to which a token is projected (real values) or embedded (ids).
            None: the core reads real values unchanged (paper, Figure 6, "input projection").
        hidden_size: H, the number of LSTM cells, or the size of another core's output.
        head_size: The number of hidden units of the head.
        dropconnect: The probability of dropping a weight of the head's second layer in training.
        noise: The standard deviation of the Gaussian noise that is added to real values in
            training, after they are normalised (`train.normalize`).
        seed: The seed of the initial weights.
        objective: The auxiliary losses and the truncation; None: no auxiliary losses.

    Returns:
        The classifier, with `info` set.

    Raises:
        UserError: `core` does not create a core, text has no projection, a size or a probability
            is out of range, or an auxiliary loss needs longer sequences.
    """
    check_parameters(
        "Classifier",
        is_text=info.reads_ids,
        dropconnect=dropconnect,
        noise=noise,
        projection_size=projection_size,
        hidden_size=hidden_size,
        head_size=head_size,
    )
    made = core(projection_size or info.channels, hidden_size, seed=seed)
    if not isinstance(made, Core):
        raise SettingError(
            "Classifier.core must make a recurrent core, such as @LSTM, @GRU or @MinGRU, but made "
            f"a {type(made).__name__}."
        )
    model = SequenceClassifier(
        info.classes,
        core=made,
        vocabulary_size=info.vocabulary_size,
        projection_size=projection_size,
        head_size=head_size,
        dropconnect=dropconnect,
        noise=noise,
        **(objective or Objective())._asdict(),
        seed=seed,
        name="classifier",
        dtype="float32",
    )
    model.info = info
    channels = [] if info.reads_ids else [info.channels]
    model.build((None, info.length or info.max_length, *channels))
    return model
