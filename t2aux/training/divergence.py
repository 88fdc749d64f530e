"""NaN and Inf: found before they reach the weights, told of, and gone back from if so wished."""

from __future__ import annotations

import dataclasses
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import gin
import numpy as np
import tensorflow as tf

from t2aux import data, files
from t2aux.errors import UserError
from t2aux.training.position import Position
from t2aux.training.schedule import Phase

FILE = "not_finite.json"
STOP, BACK_OFF = "stop", "back_off"
_SHOWN_EXAMPLES = 8


@gin.configurable
@dataclasses.dataclass(frozen=True)
class BackOff:
    """What `train.on_nan = 'back_off'` does: go back to the last good checkpoint.

    Attributes:
        rate_factor: What the learning rate is multiplied by from there on, between 0 and 1.
        times: How often a run may go back before it stops.
    """

    rate_factor: float = 0.5
    times: int = 3

    def __post_init__(self) -> None:
        """Raises UserError where a value is out of range."""
        if not 0 < self.rate_factor < 1:
            raise UserError(
                f"BackOff.rate_factor must be between 0 and 1, both excluded, but is "
                f"{self.rate_factor}."
            )
        if self.times < 1:
            raise UserError(f"BackOff.times must be at least 1, but is {self.times}.")


def policy(on_nan: str | BackOff) -> BackOff | None:
    """How a run goes back, or None where it stops.

    Args:
        on_nan: `train.on_nan`.

    Raises:
        UserError: It is something else; or a parameter of `BackOff`, used or not, is out of range.
    """
    if isinstance(on_nan, BackOff):
        return on_nan
    if on_nan not in (STOP, BACK_OFF):
        raise UserError(
            f"train.on_nan must be {STOP!r}, {BACK_OFF!r} or @BackOff(), but is {on_nan!r}."
        )
    back_off = BackOff()
    return back_off if on_nan == BACK_OFF else None


class NotFinite(Exception):
    """A step gave what is no number.

    Attributes:
        what: The values that are not finite, by name: losses, "gradient_norm", or weights (whose
            value is not told: None).
    """

    def __init__(self, what: Mapping[str, float | None]) -> None:
        super().__init__(", ".join(what))
        self.what = dict(what)

    @property
    def in_weights(self) -> bool:
        """Whether an update that was finite has made weights that are not."""
        return all(value is None for value in self.what.values())


class Guard(tf.Module):
    """Looks at the loss and the gradient of every step, on the device.

    The host asks only when a call of the compiled loop has done fewer steps than it was to do.
    """

    def __init__(self, names: Sequence[str]) -> None:
        """Makes the variables.

        Args:
            names: Of the metrics to be told of, "loss" among them; "gradient_norm" is another.
        """
        super().__init__(name="guard")
        self._names = [*names, "gradient_norm"]
        self._values = tf.Variable(tf.zeros([len(self._names)]), trainable=False, name="values")

    def passes(self, metrics: Mapping[str, tf.Tensor], norm: tf.Tensor) -> tf.Tensor:
        """Whether a step may change the weights. For inside of a compiled loop.

        Args:
            metrics: The step's; "loss" decides.
            norm: The norm of all gradients, which is not finite if any of them is not.
        """
        values = {**metrics, "gradient_norm": norm}
        zero = tf.constant(0.0)
        self._values.assign(tf.stack([values.get(name, zero) for name in self._names]))
        return tf.math.is_finite(metrics["loss"]) & tf.math.is_finite(norm)

    def found(self) -> NotFinite:
        """What was wrong with the last step that was looked at."""
        values = zip(self._names, self._values.numpy().tolist(), strict=True)
        return NotFinite({name: value for name, value in values if not math.isfinite(value)})


def check_weights(variables: Sequence[tf.Variable]) -> None:
    """Raises NotFinite where a variable holds NaN or Inf: it must not get into a checkpoint."""
    wrong = {
        variable.path if hasattr(variable, "path") else variable.name: None
        for variable in variables
        if variable.dtype in (tf.float32, "float32")
        and not bool(tf.reduce_all(tf.math.is_finite(tf.convert_to_tensor(variable))))
    }
    if wrong:
        raise NotFinite(wrong)


@dataclasses.dataclass(frozen=True)
class Event:
    """What happened, as not_finite.json has it.

    Attributes:
        step: How many updates were whole before it.
        phase: The phase's name.
        epoch: Of the phase, from 0.
        batch: Of the epoch, from 0.
        examples: The batch's, as indices into the training data as it was read.
        not_finite: The values, as texts (JSON knows no NaN), by name.
        checkpoint: The name of the last good one, or None.
        back_to: The step of that, if the run went back to it.
        rate_factor: What the rate has been multiplied by from there on, or None.
    """

    step: int
    phase: str
    epoch: int
    batch: int
    examples: list[int]
    not_finite: dict[str, str]
    checkpoint: str | None
    back_to: int | None = None
    rate_factor: float | None = None

    @classmethod
    def of(
        cls,
        error: NotFinite,
        *,
        step: int,
        phase: str,
        epoch: int,
        batch: int,
        examples: np.ndarray,
        checkpoint: str | None,
    ) -> Event:
        """Describes an error; see the attributes."""
        what = {n: "not finite" if v is None else str(v) for n, v in error.what.items()}
        name = None if checkpoint is None else pathlib.Path(checkpoint).name
        return cls(step, phase, epoch, batch, examples.tolist(), what, name)

    def sentence(self, path: pathlib.Path) -> str:
        """What happened and where, without a full stop.

        Args:
            path: Of not_finite.json.
        """
        what = ", ".join(f"{name} is {value}" for name, value in self.not_finite.items())
        shown = ", ".join(map(str, self.examples[:_SHOWN_EXAMPLES]))
        more = ", ..." if len(self.examples) > _SHOWN_EXAMPLES else ""
        last = f"the last good checkpoint is {self.checkpoint}"
        if self.checkpoint is None:
            last = "there is no good checkpoint yet"
        return (
            f"After {self.step} updates {what}, in batch {self.batch} of epoch {self.epoch} of "
            f"{self.phase} (from 0), training examples {shown}{more} (all in {path}); {last}"
        )


def event_at(
    error: NotFinite,
    position: Position,
    phases: Sequence[Phase],
    split: data.Split,
    checkpoint: str | None,
) -> Event:
    """Says where an error happened.

    Args:
        error: The error.
        position: The run's.
        phases: The run's.
        split: The training split.
        checkpoint: The path of the last good one, or None.
    """
    index, epoch, batch = (int(v) for v in (position.phase, position.epoch, position.batch))
    size = int(position.batch_size)
    if error.in_weights:
        # It came from the batch before.
        epoch, batch = (epoch, batch - 1) if batch else (epoch - 1, split.num_batches(size) - 1)
    before = sum(phase.epochs for phase in phases[:index])
    order = split.order(size, seed=int(position.seed), epoch=before + epoch)
    return Event.of(
        error,
        step=int(position.step),
        phase=phases[index].name,
        epoch=epoch,
        batch=batch,
        examples=split.origin(order[batch * size : (batch + 1) * size]),
        checkpoint=checkpoint,
    )


class History:
    """The file not_finite.json of a run: what was not finite, and where the run went back.

    The learning rate's factor is a function of it and of the step, so a run that is started again
    learns as it would have.
    """

    def __init__(self, model_dir: pathlib.Path) -> None:
        """Reads the file if it is there.

        Raises:
            UserError: It is damaged.
        """
        self.path = model_dir / FILE
        self._events: list[Event] = []
        if self.path.exists():
            stored = files.read_json(self.path)
            try:
                self._events = [_checked(Event(**event)) for event in stored["events"]]
            except (TypeError, KeyError, ValueError) as error:
                raise UserError(
                    f"{self.path} is damaged ({error}), and the run's learning rate depends on it: "
                    "put back a copy of it, or train anew in another --model_dir."
                ) from error

    @property
    def back_offs(self) -> int:
        """How often the run went back."""
        return len(self._back_offs())

    def factor(self, step: int) -> float:
        """What the learning rate is multiplied by at a step."""
        return math.prod(e.rate_factor for e in self._back_offs() if e.back_to <= step)

    def next_change(self, step: int) -> int | None:
        """The next step after this one at which the factor changes, or None."""
        return min((e.back_to for e in self._back_offs() if e.back_to > step), default=None)

    def add(self, event: Event) -> None:
        """Writes an event, and drops what was of no consequence before it."""
        self._events = [*self._back_offs(), event]
        value: dict[str, Any] = {"events": [dataclasses.asdict(e) for e in self._events]}
        files.write_json(self.path, value)

    def rates(self) -> np.ndarray:
        """Where the run went back to and the factors from there on: [N, 2] float64."""
        rows = [(event.back_to, event.rate_factor) for event in self._back_offs()]
        return np.array(rows, np.float64).reshape(-1, 2)

    def set_rates(self, rates: np.ndarray) -> None:
        """Takes over those of another process, which alone writes the file."""
        if not np.array_equal(rates, self.rates()):
            self._events = [
                Event(int(step), "", 0, 0, [], {}, None, int(step), float(factor))
                for step, factor in rates
            ]

    def forget(self) -> None:
        """Removes the file: the run begins anew."""
        self._events = []
        self.path.unlink(missing_ok=True)

    def _back_offs(self) -> list[Event]:
        return [event for event in self._events if event.back_to is not None]


def advice(event: Event, history: History, *, back_off: bool) -> str:
    """What a run says that stops for good: what happened, and what to do.

    Args:
        event: What happened.
        history: The run's.
        back_off: Whether it would have gone back, but for the limit.
    """
    tried = ""
    if back_off:
        tried = f"; the run has gone back {history.back_offs} times (BackOff.times)"
    hint = "" if back_off else ", or with train.on_nan = 'back_off'"
    return (
        f"{event.sentence(history.path)}{tried}: look at these examples, or give the same command "
        "again with --allow_changes and a lower Phase.learning_rate or train.clip_norm"
        f"{hint}."
    )


def _checked(event: Event) -> Event:
    """Raises ValueError where the rate can't be computed from an event."""
    factor = event.rate_factor
    if event.back_to is not None and not (
        isinstance(event.back_to, int) and isinstance(factor, float) and 0 < factor < 1
    ):
        raise ValueError(f"back_to {event.back_to!r} with rate_factor {factor!r}")
    return event
