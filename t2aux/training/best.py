"""The best checkpoint of a run, and the evaluations on its validation set that say which it is.

validation.json in the run directory holds:

  format, version  "t2aux-validation", 1
  examples         how many the validation set has
  evaluations      one after the other: step, phase, accuracy in [0, 1] and loss in nats
  best             the step of the best of them, or null: the highest accuracy; of equal ones the
                   lowest loss; of equal ones the earliest

The best checkpoint is checkpoints/best/ckpt-STEP: the weights, and where the run was. It is written
and verified before validation.json names it. Earlier best ones stay as long as there is a
checkpoint from their time, from which the run may have to be resumed: what is newer than the
checkpoint that a run is resumed from is removed, and made again.
"""

from __future__ import annotations

import dataclasses
import math
import pathlib
import shutil
from collections.abc import Iterable
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging

from t2aux import files
from t2aux.errors import ModelError, UserError
from t2aux.training import checkpoints, restoring

FILE = "validation.json"
# In the folder of the checkpoints.
FOLDER = "best"
_FORMAT, _VERSION = "t2aux-validation", 1


@dataclasses.dataclass(frozen=True)
class Evaluated:
    """An evaluation on the validation set.

    Attributes:
        step: After how many steps.
        accuracy: In [0, 1].
        loss: Mean cross-entropy, in nats.
        phase: The phase's name.
    """

    step: int
    accuracy: float
    loss: float
    phase: str = ""

    def is_better_than(self, other: Evaluated | None) -> bool:
        """Whether the accuracy is higher or, where it is the same, the loss lower."""
        return other is None or self.rank() > other.rank()

    def rank(self) -> tuple[float, float]:
        """Higher is better."""
        return self.accuracy, -math.inf if math.isnan(self.loss) else -self.loss


class Evaluations:
    """The evaluations of a run up to a step, in order."""

    def __init__(self, found: Iterable[Evaluated] = ()) -> None:
        """Keeps the evaluations."""
        self._found = list(found)

    @property
    def best(self) -> Evaluated | None:
        """The best one; None: there is none."""
        # Of equal ones the first.
        return max(self._found, key=Evaluated.rank, default=None)

    @property
    def last_step(self) -> int | None:
        """The step of the last one; None: there is none."""
        return self._found[-1].step if self._found else None

    def has(self, step: int) -> bool:
        """Whether one was made at a step."""
        return any(evaluated.step == step for evaluated in self._found)

    def without_better(self, first_step: int) -> int:
        """How many were made since the best one, those up to a step not counted."""
        best = self.best
        since = max(first_step, best.step if best else 0)
        return sum(evaluated.step > since for evaluated in self._found)

    def until(self, step: int) -> Evaluations:
        """Those up to a step."""
        return Evaluations(e for e in self._found if e.step <= step)

    def plus(self, evaluated: Evaluated) -> Evaluations:
        """These and another one."""
        return Evaluations([*self._found, evaluated])

    def rows(self) -> np.ndarray:
        """Step, accuracy and loss of each: [N, 3] float64."""
        rows = [(e.step, e.accuracy, e.loss) for e in self._found]
        return np.array(rows, np.float64).reshape(-1, 3)

    @classmethod
    def of_rows(cls, rows: np.ndarray) -> Evaluations:
        """Makes them of what `rows` gave; the phases are not known."""
        return cls(Evaluated(int(step), float(a), float(loss)) for step, a, loss in rows)

    def to_json(self) -> list[dict[str, Any]]:
        """As validation.json has them."""
        return [dataclasses.asdict(evaluated) for evaluated in self._found]


def read(model_dir: pathlib.Path) -> Evaluations | None:
    """Reads validation.json; None: there is none.

    Raises:
        UserError: It is damaged.
    """
    path = model_dir / FILE
    if not path.exists():
        return None
    try:
        stored = files.read_json(path)
        if (stored["format"], stored["version"]) != (_FORMAT, _VERSION):
            raise ValueError("it is of another version")
        found = [_checked(Evaluated(**entry)) for entry in stored["evaluations"]]
        steps = [evaluated.step for evaluated in found]
        if steps != sorted(set(steps)):
            raise ValueError("its evaluations are not in order")
    except (UserError, TypeError, KeyError, ValueError, AttributeError) as error:
        if isinstance(error.__cause__, OSError):
            raise  # It can't be read.
        why = "it is not JSON" if isinstance(error, UserError) else error
        raise ModelError(
            f"{path} is damaged ({why}), and says which checkpoint is the best: put back a copy of "
            "it, or train in another --model_dir; --checkpoint=latest uses the newest one."
        ) from error
    return Evaluations(found)


def path_of(model_dir: pathlib.Path, step: int) -> str:
    """The path of the best checkpoint of a step, without a suffix."""
    return checkpoints.prefix(model_dir / "checkpoints" / FOLDER, step)


def restore(model_dir: pathlib.Path, **objects: tf.Module) -> Evaluated | None:
    """Restores networks from the best checkpoint of a run, which may be training meanwhile.

    Args:
        model_dir: The run directory.
        **objects: See `restoring.restore`.

    Returns:
        What is known of it; None: there is none yet, or the run has no validation set.

    Raises:
        UserError: It is missing, damaged or of another architecture.
    """
    while True:
        found = read(model_dir)
        best = found.best if found is not None else None
        if best is None:
            return None
        path = path_of(model_dir, best.step)
        try:
            restoring.restore(path, **objects)
            return best
        except UserError:
            problem = checkpoints.problem(path)
            if problem is None:
                raise
        # The process that trains has removed it since, if there is a better one.
        again = read(model_dir)
        if again is not None and again.best is not None and again.best.step == best.step:
            raise ModelError(
                f"The best checkpoint {path} is missing or damaged ({problem}): put back a copy of "
                "it; t2aux evaluate, export and classify use the newest one if they are given "
                "--checkpoint=latest."
            )


class Best:
    """Keeps the best checkpoint of a run that is being trained, and its evaluations.

    Attributes:
        evaluations: Those so far. The same in all workers.
    """

    def __init__(
        self,
        model_dir: pathlib.Path,
        checkpoint: tf.train.Checkpoint,
        others: checkpoints.Manager,
        examples: int,
    ) -> None:
        """Prepares; nothing is read or written.

        Args:
            model_dir: The run directory.
            checkpoint: What a best checkpoint holds.
            others: The run's other checkpoints, from which it is resumed.
            examples: How many the validation set has.
        """
        self.evaluations = Evaluations()
        self._model_dir = model_dir
        self._others = others
        self._examples = examples
        folder = model_dir / "checkpoints" / FOLDER
        self._manager = checkpoints.Manager(checkpoint, folder, None, resumed_from=others)

    @property
    def path(self) -> str | None:
        """The path of the best checkpoint, without a suffix; None: there is none."""
        best = self.evaluations.best
        return None if best is None else path_of(self._model_dir, best.step)

    def begin(self) -> None:
        """Begins a run: removes what is left of one that was never saved. For the chief."""
        if self._manager.directory.is_dir():
            shutil.rmtree(self._manager.directory)
        self._write(Evaluations())

    def resume(self, step: int) -> None:
        """Reads the evaluations up to a step, and removes what is newer. For the chief.

        Checks that the best checkpoint is undamaged, and else repairs it if it can.

        Args:
            step: Of the checkpoint that the run is resumed from, at which the weights are now.

        Raises:
            UserError: validation.json is missing or damaged. Nothing is removed then.
        """
        found = read(self._model_dir)
        if found is None:
            raise ModelError(
                f"{self._model_dir / FILE} is missing, and says which checkpoint is the best: put "
                "back a copy of it, or train in another --model_dir."
            )
        self.evaluations = found
        if (found.last_step or 0) > step:
            self._write(found.until(step))
        checkpoints.clear(self._manager.directory)
        for newer in checkpoints.steps(self._manager.directory):
            if newer > step:
                self._manager.remove(newer)
        self._repair(step)

    def _repair(self, step: int) -> None:
        """Writes the best checkpoint again where it is damaged and the weights are now its own."""
        best, path = self.evaluations.best, self.path
        if best is None or path is None:
            return
        problem = checkpoints.problem(path)
        if problem is not None and best.step == step:
            self._manager.save(step)
        elif problem is not None:
            logging.warning(
                "The best checkpoint %s is missing or damaged (%s): put back a copy of it. The run "
                "needs it at its end, unless a better one comes.",
                *(path, problem),
            )

    def save(self, step: int) -> None:
        """Writes the checkpoint of the weights as they are now. For the chief; before `add`.

        Raises:
            UserError: It can't be written. The one before it is as it was.
        """
        self._manager.save(step)

    def add(self, evaluated: Evaluated, *, write: bool) -> None:
        """Adds an evaluation, after its checkpoint was saved if it is the best one.

        Args:
            evaluated: The evaluation.
            write: Whether this is the chief, which writes it.
        """
        now = self.evaluations.plus(evaluated)
        if write:
            self._write(now)
            self.prune()
        self.evaluations = now

    def prune(self) -> None:
        """Removes the checkpoints that were the best before, as far as nothing needs them."""
        needed = {self.evaluations.best}
        for step in checkpoints.steps(self._others.directory):
            needed.add(self.evaluations.until(step).best)
        kept = {evaluated.step for evaluated in needed if evaluated is not None}
        for step in checkpoints.steps(self._manager.directory):
            if step not in kept:
                self._manager.remove(step)

    def _write(self, evaluations: Evaluations) -> None:
        best = evaluations.best
        content = {
            "format": _FORMAT,
            "version": _VERSION,
            "examples": self._examples,
            "evaluations": evaluations.to_json(),
            "best": None if best is None else best.step,
        }
        files.write_json(self._model_dir / FILE, content)
        self.evaluations = evaluations


def _checked(evaluated: Evaluated) -> Evaluated:
    """Raises ValueError where an entry is of the wrong type."""
    if not (
        type(evaluated.step) is int
        and isinstance(evaluated.accuracy, (int, float))
        and isinstance(evaluated.loss, (int, float))
        and isinstance(evaluated.phase, str)
    ):
        raise ValueError(f"{evaluated} is not an evaluation")
    return evaluated
