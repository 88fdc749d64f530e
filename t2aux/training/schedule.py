"""The phases of a run, each with its epochs, learning rate and decay."""

from __future__ import annotations

import dataclasses
import math

import gin
import tensorflow as tf

from t2aux.errors import SettingError

_SCHEDULES = ("steps", "cosine")


@gin.configurable
@dataclasses.dataclass(frozen=True)
class Phase:
    """A phase of training; the defaults are the paper's joint phase.

    Attributes:
        name: The name in logs and metrics.
        epochs: The number of passes over the training set.
        min_updates: The minimum number of updates. The number of epochs is increased above `epochs`
            if needed, because a small training set gives few updates per epoch.
        learning_rate: The initial learning rate of the phase.
        decay_factor: The factor by which the rate is multiplied every `decay_epochs`.
        decay_epochs: Epochs of the phase between decays; None: the rate is constant.
        decay_schedule: "steps" uses `decay_factor` and `decay_epochs`. "cosine" ignores them and
            lowers the rate to 0 over the phase along half a cosine (Loshchilov and Hutter 2017).
        supervised: Whether the phase trains on the supervised loss; if not, it is pretraining on
            the auxiliary losses only.
        auxiliary: Whether the phase trains on the auxiliary losses; if not, it is fine-tuning
            (Figure 6 without "joint training"; LM-LSTM and SA-LSTM in Table 4).
    """

    name: str = "joint"
    epochs: int = 1000
    learning_rate: float = 1e-3
    decay_factor: float = 0.5
    decay_epochs: int | None = 300
    decay_schedule: str = "steps"
    supervised: bool = True
    auxiliary: bool = True
    min_updates: int = 0

    def __post_init__(self) -> None:
        """Raises UserError if a value is out of range."""
        whole = type(self.min_updates) is int
        decays = self.decay_epochs is None or self.decay_epochs >= 1
        for name, is_valid, rule in (
            ("epochs", self.epochs >= 0, "at least 0"),
            ("min_updates", whole and self.min_updates >= 0, "a whole number of at least 0"),
            ("learning_rate", self.learning_rate > 0, "above 0"),
            ("decay_factor", self.decay_factor > 0, "above 0"),
            ("decay_epochs", decays, "at least 1 or None"),
            ("decay_schedule", self.decay_schedule in _SCHEDULES, "'steps' or 'cosine'"),
        ):
            if not is_valid:
                value = getattr(self, name)
                raise SettingError(f"Phase.{name} of {self.name} must be {rule}, but is {value!r}.")
        if not (self.supervised or self.auxiliary):
            raise SettingError(
                f"Phase.supervised and Phase.auxiliary of {self.name} are both False: this phase "
                "has nothing to train."
            )

    def resolved(self, steps_per_epoch: int) -> Phase:
        """The phase with the epochs that `min_updates` requires; 0 epochs remain 0."""
        needed = -(-self.min_updates // steps_per_epoch)
        return dataclasses.replace(self, epochs=max(self.epochs, needed) if self.epochs else 0)

    def rate(self, step: tf.Tensor, steps_per_epoch: int) -> tf.Tensor:
        """The learning rate at a step of a resolved phase, a scalar."""
        if self.decay_schedule == "cosine":
            done = tf.cast(step / max(self.epochs * steps_per_epoch, 1), tf.float32)
            return self.learning_rate * 0.5 * (1 + tf.cos(math.pi * done))
        if self.decay_epochs is None:
            return tf.constant(self.learning_rate)
        decays = tf.cast(step // (self.decay_epochs * steps_per_epoch), tf.float32)
        return self.learning_rate * tf.pow(self.decay_factor, decays)


# The paper's schedule for images: 100 epochs of pretraining, then 1000 joint ones with the rate
# halved every 300.
PAPER_PHASES = (
    Phase(name="pretrain", epochs=100, decay_epochs=None, supervised=False),
    Phase(),
)
