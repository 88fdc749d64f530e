"""The phases of a run, each with its epochs, learning rate and decay."""

from __future__ import annotations

import dataclasses
import math

import gin
import tensorflow as tf

from t2aux.errors import UserError

_SCHEDULES = ("steps", "cosine")


@gin.configurable
@dataclasses.dataclass(frozen=True)
class Phase:
    """A phase of training; the defaults are the paper's joint phase.

    Attributes:
        name: Shown in logs and metrics.
        epochs: Passes over the training set.
        min_updates: There are more epochs than `epochs`, where it takes more to make so many
            updates: a small training set gives few in each.
        learning_rate: At the phase's beginning.
        decay_factor: The rate is multiplied by it every `decay_epochs`.
        decay_epochs: Epochs of the phase between decays; None: the rate stays.
        decay_schedule: "steps", as the two above say; or "cosine": over the phase the rate falls to
            0 along half a cosine (Loshchilov and Hutter 2017), and the two above have no effect.
        supervised: Whether the supervised loss is part of it; if not, it is pretraining on the
            auxiliary losses alone.
        auxiliary: Whether the auxiliary losses are part of it; if not, it is fine-tuning (Figure 6
            without "joint training"; LM-LSTM and SA-LSTM in Table 4).
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
        """Raises UserError where a value is out of range."""
        if self.epochs < 0:
            raise UserError(
                f"Phase.epochs of {self.name} must be at least 0, but is {self.epochs}."
            )
        if type(self.min_updates) is not int or self.min_updates < 0:
            raise UserError(
                f"Phase.min_updates of {self.name} must be a whole number of at least 0, but is "
                f"{self.min_updates!r}."
            )
        if self.learning_rate <= 0 or self.decay_factor <= 0:
            raise UserError(
                f"Phase.learning_rate and Phase.decay_factor of {self.name} must be above 0, but "
                f"are {self.learning_rate} and {self.decay_factor}."
            )
        if not (self.supervised or self.auxiliary):
            raise UserError(
                f"Phase.supervised and Phase.auxiliary of {self.name} are both False: there is "
                "nothing to train in it."
            )
        if self.decay_epochs is not None and self.decay_epochs < 1:
            raise UserError(
                f"Phase.decay_epochs of {self.name} must be at least 1 or None, but is "
                f"{self.decay_epochs}."
            )
        if self.decay_schedule not in _SCHEDULES:
            raise UserError(
                f"Phase.decay_schedule of {self.name} is {self.decay_schedule!r}: give "
                f"{' or '.join(map(repr, _SCHEDULES))}."
            )

    def resolved(self, steps_per_epoch: int) -> Phase:
        """With the epochs that `min_updates` need; 0 epochs stay 0."""
        needed = -(-self.min_updates // steps_per_epoch)
        return dataclasses.replace(self, epochs=max(self.epochs, needed) if self.epochs else 0)

    def rate(self, step: tf.Tensor, steps_per_epoch: int) -> tf.Tensor:
        """The learning rate at a step of a phase that was resolved, a scalar."""
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
