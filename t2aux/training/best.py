"""The best checkpoint of a run, and the evaluations on its validation set that determine it.

validation.json in the run directory holds:

  format, version  "t2aux-validation", 1
  examples         the number of examples of the validation set
  evaluations      in order, each with step, phase, accuracy in [0, 1] and loss in nats
  best             the step of the best evaluation, or null: the highest accuracy; among equals,
                   the lowest loss, then the earliest

The best checkpoint is checkpoints/best/ckpt-STEP: the weights and the position of the run. It is
written and verified before validation.json names it. When a run is resumed from a checkpoint,
everything newer is removed and computed again. So earlier best checkpoints are kept as long as the
run may be resumed from a checkpoint of their time.
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
# A subfolder of the checkpoints' folder.
FOLDER = "best"
_FORMAT, _VERSION = "t2aux-validation", 1


@dataclasses.dataclass(frozen=True)
class Evaluated:
    """An evaluation on the validation set.

    Attributes:
        step: The number of steps before the evaluation.
        accuracy: The accuracy in [0, 1].
        loss: The mean cross-entropy in nats.
        phase: The name of the phase.
    """

    step: int
    accuracy: float
    loss: float
    phase: str = ""

    def is_better_than(self, other: Evaluated | None) -> bool:
        """Whether the accuracy is higher, or equal with a lower loss."""
        return other is None or self.rank() > other.rank()

    def rank(self) -> tuple[float, float]:
        """A sort key; higher is better."""
        return self.accuracy, -math.inf if math.isnan(self.loss) else -self.loss


class Evaluations:
    """The evaluations of a run up to a step, in order."""

    def __init__(self, found: Iterable[Evaluated] = ()) -> None:
        """Stores the evaluations."""
        self._found = list(found)

    @property
    def best(self) -> Evaluated | None:
        """The best evaluation, or None if there is none."""
        # max returns the first of equals.
        return max(self._found, key=Evaluated.rank, default=None)

    @property
    def last_step(self) -> int | None:
        """The step of the last evaluation, or None if there is none."""
        return self._found[-1].step if self._found else None

    def has(self, step: int) -> bool:
        """Whether there is an evaluation at a step."""
        return any(evaluated.step == step for evaluated in self._found)

    def without_better(self, first_step: int) -> int:
        """The number of evaluations since the best one, without those up to `first_step`."""
        best = self.best
        since = max(first_step, best.step if best else 0)
        return sum(evaluated.step > since for evaluated in self._found)

    def until(self, step: int) -> Evaluations:
        """The evaluations up to a step."""
        return Evaluations(e for e in self._found if e.step <= step)

    def plus(self, evaluated: Evaluated) -> Evaluations:
        """These evaluations and another one."""
        return Evaluations([*self._found, evaluated])

    def rows(self) -> np.ndarray:
        """The step, accuracy and loss of each evaluation, [N, 3] float64."""
        rows = [(e.step, e.accuracy, e.loss) for e in self._found]
        return np.array(rows, np.float64).reshape(-1, 3)

    @classmethod
    def of_rows(cls, rows: np.ndarray) -> Evaluations:
        """Creates evaluations from the result of `rows`, without the names of the phases."""
        return cls(Evaluated(int(step), float(a), float(loss)) for step, a, loss in rows)

    def to_json(self) -> list[dict[str, Any]]:
        """The evaluations as validation.json stores them."""
        return [dataclasses.asdict(evaluated) for evaluated in self._found]


def read(model_dir: pathlib.Path) -> Evaluations | None:
    """Reads validation.json. Returns None if it does not exist.

    Raises:
        UserError: The file is damaged.
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
            f"{path} is damaged ({why}), but is needed to find the best checkpoint: put back a "
            "copy of it, or train in another --model_dir; --checkpoint=latest uses the newest one."
        ) from error
    return Evaluations(found)


def path_of(model_dir: pathlib.Path, step: int) -> str:
    """The path of the best checkpoint that was saved at a step, without a suffix."""
    return checkpoints.prefix(model_dir / "checkpoints" / FOLDER, step)


def restore(model_dir: pathlib.Path, **objects: tf.Module) -> Evaluated | None:
    """Restores networks from the best checkpoint of a run, which may still be training.

    Args:
        model_dir: The run directory.
        **objects: See `restoring.restore`.

    Returns:
        Its evaluation; None before the first best checkpoint, or if the run has no validation set.

    Raises:
        UserError: The checkpoint is missing or damaged, or has another architecture.
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
        # The training process may have removed it after saving a better one.
        again = read(model_dir)
        if again is not None and again.best is not None and again.best.step == best.step:
            raise ModelError(
                f"The best checkpoint {path} is missing or damaged ({problem}): put back a copy of "
                "it; t2aux evaluate, export and classify use the newest one if they are given "
                "--checkpoint=latest."
            )


class Best:
    """Keeps the best checkpoint and the evaluations of a run during training.

    Attributes:
        evaluations: The evaluations so far, the same in all workers.
    """

    def __init__(
        self,
        model_dir: pathlib.Path,
        checkpoint: tf.train.Checkpoint,
        others: checkpoints.Manager,
        examples: int,
    ) -> None:
        """Stores the arguments; does not read or write files.

        Args:
            model_dir: The run directory.
            checkpoint: The objects that a best checkpoint holds.
            others: The run's regular checkpoints, from which it is resumed.
            examples: The number of examples of the validation set.
        """
        self.evaluations = Evaluations()
        self._model_dir = model_dir
        self._others = others
        self._examples = examples
        folder = model_dir / "checkpoints" / FOLDER
        self._manager = checkpoints.Manager(checkpoint, folder, None, resumed_from=others)

    @property
    def path(self) -> str | None:
        """The path of the best checkpoint, without a suffix, or None if there is none."""
        best = self.evaluations.best
        return None if best is None else path_of(self._model_dir, best.step)

    def begin(self) -> None:
        """Begins a run: removes the remains of one that was never saved. For the chief."""
        if self._manager.directory.is_dir():
            shutil.rmtree(self._manager.directory)
        self._write(Evaluations())

    def resume(self, step: int) -> None:
        """Reads the evaluations up to a step, and removes everything newer. For the chief.

        If the best checkpoint is damaged, it is repaired if possible.

        Args:
            step: The step of the checkpoint that the run is resumed from, whose weights are already
                restored.

        Raises:
            UserError: validation.json is missing or damaged; nothing is removed.
        """
        found = read(self._model_dir)
        if found is None:
            raise ModelError(
                f"{self._model_dir / FILE} is missing, but is needed to find the best checkpoint: "
                "put back a copy of it, or train in another --model_dir."
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
        """Writes a damaged best checkpoint again if the current weights are those of its step."""
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
        """Writes a checkpoint of the current weights. For the chief; called before `add`.

        Raises:
            UserError: The checkpoint can't be written. The previous one is unchanged.
        """
        self._manager.save(step)

    def add(self, evaluated: Evaluated, *, write: bool) -> None:
        """Adds an evaluation. If it is the best one, its checkpoint must have been saved.

        Args:
            evaluated: The evaluation.
            write: Whether to write validation.json; true for the chief.
        """
        now = self.evaluations.plus(evaluated)
        if write:
            self._write(now)
            self.prune()
        self.evaluations = now

    def prune(self) -> None:
        """Removes earlier best checkpoints that are no longer needed."""
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
    """Raises ValueError if an entry has the wrong type."""
    if not (
        type(evaluated.step) is int
        and isinstance(evaluated.accuracy, (int, float))
        and isinstance(evaluated.loss, (int, float))
        and isinstance(evaluated.phase, str)
    ):
        raise ValueError(f"{evaluated} is not an evaluation")
    return evaluated
