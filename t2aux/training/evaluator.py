"""The evaluations of a run on its validation set, if it has one, and on the test set."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf
from absl import logging

from t2aux import data
from t2aux.progress import Progress
from t2aux.training import distribution, evaluation, stopping
from t2aux.training.best import Best, Evaluated
from t2aux.training.position import Position
from t2aux.training.progress import RunLog
from t2aux.training.schedule import Phase
from t2aux.training.validation import Splits

# Between lines about evaluations that are not the best so far.
_SECONDS_BETWEEN_LINES = 3.0


@dataclasses.dataclass
class Evaluator:
    """Evaluates a run when an evaluation is due.

    With a validation set, the run is evaluated on it, and at the run's end the best checkpoint is
    evaluated on the test set. Without one, the run is evaluated on the test set.

    Attributes:
        predict: Computes a batch's logits.
        splits: The run's data.
        position: The position of the run.
        phases: The phases of the run.
        replicas: The replicas of the run.
        every: `train.evaluate_every`.
        patience: `train.patience`.
        best: Keeps the best checkpoint; None: there is no validation set.
        check_weights: Raises UserError if a weight is not finite.
        stop: Returns the signal that was received, which ends an evaluation, or None.
        quiet_seconds: Seconds between log lines on the progress of an evaluation.
    """

    predict: Callable[[data.Batch], tf.Tensor]
    splits: Splits
    position: Position
    phases: Sequence[Phase]
    replicas: distribution.Replicas
    every: int
    patience: int | None
    best: Best | None
    check_weights: Callable[[], None]
    stop: Callable[[], int | None]
    quiet_seconds: float
    _logged_at: float = dataclasses.field(default=-math.inf, init=False)

    def evaluate_if_due(self, log: RunLog, total: int) -> bool:
        """Evaluates at the end of an epoch, unless already done. Returns whether it did.

        A run that was stopped by a signal during an evaluation repeats it when it is resumed.
        """
        position = self.position
        step, epoch = int(position.step), int(position.epoch)
        if int(position.batch) or not epoch:
            return False
        phase, every = self.phases[int(position.phase)], self.every
        if not phase.supervised or not (step == total or (every and epoch % every == 0)):
            return False
        if self.best is not None:
            return not self.best.evaluations.has(step) and self._validate(log, phase, step)
        return not self._is_tested(log, step) and self._test(log, phase, step)

    def is_over(self, step: int) -> bool:
        """Whether the run ends early at a step, because `train.patience` is exhausted."""
        if self.best is None or self.patience is None:
            return False
        evaluations = self.best.evaluations
        exhausted = evaluations.without_better(self._first_step()) >= self.patience
        return exhausted and evaluations.last_step == step

    def why_over(self) -> str:
        """The reason why the run ended early, for use after a colon."""
        best = self.best.evaluations.best
        return (
            f"{self.best.evaluations.without_better(self._first_step())} evaluations without a "
            f"better validation accuracy than {100 * best.accuracy:.2f} % at step {best.step} "
            "(train.patience)"
        )

    def best_to_test(self, log: RunLog) -> str | None:
        """The best checkpoint's path if it has not been evaluated on the test set yet, else None.

        All workers call it, at the run's end.
        """
        if self.best is None or self._is_tested(log, int(self.position.step)):
            return None
        return self.best.path

    def test_best(self, log: RunLog) -> None:
        """Evaluates on the test set. The weights must be those of the best checkpoint."""
        best = self.best.evaluations.best
        phase = self.phases[int(self.position.phase)]
        self._test(log, phase, int(self.position.step), best.step)

    def _first_step(self) -> int:
        """The first step of the last phase; `train.patience` counts the evaluations after it."""
        phases = [phase for phase in self.phases if phase.epochs]
        steps = self.splits.train.num_batches(int(self.position.batch_size))
        return sum(phase.epochs for phase in phases[:-1]) * steps

    def _is_tested(self, log: RunLog, step: int) -> bool:
        # Only the chief has a log, but either all workers evaluate or none.
        return bool(self.replicas.total(np.array([float(log.has("test", step))]))[0])

    def _validate(self, log: RunLog, phase: Phase, step: int) -> bool:
        """Evaluates on the validation set. Returns False if a signal was received meanwhile."""
        best = self.best
        result = self._evaluate(self.splits.validation)
        if result is None:
            return False
        evaluated = Evaluated(step, result.accuracy, result.loss, phase.name)
        before = best.evaluations.best
        is_better = evaluated.is_better_than(before)
        if is_better:
            self.check_weights()
            if self.replicas.is_chief:
                best.save(step)
        # The line is written before the evaluation counts. A run that is killed in between
        # evaluates again and finds the line.
        if not log.has("validation", step):
            entry = {"phase": phase.name, "accuracy": result.accuracy, "loss": result.loss}
            log.write(step, {"split": "validation", **entry})
        best.add(evaluated, write=self.replicas.is_chief)
        compared = "the best so far"
        if not is_better:
            compared = f"best {100 * before.accuracy:.2f} % at step {before.step}"
        # Short epochs would fill the terminal; validation.json has them all.
        if is_better or time.monotonic() - self._logged_at >= _SECONDS_BETWEEN_LINES:
            logging.info(
                "validation accuracy %.2f %%  loss %.4f  (%s)",
                *(100 * result.accuracy, result.loss, compared),
            )
            self._logged_at = time.monotonic()
        if self.is_over(step):
            logging.info("Stopping early, at step %d: %s.", step, self.why_over())
        return True

    def _test(self, log: RunLog, phase: Phase, step: int, best_step: int | None = None) -> bool:
        """Evaluates on the test set. Returns False if a signal was received meanwhile."""
        result = self._evaluate(self.splits.test)
        if result is None:
            return False
        entry = {"split": "test", "phase": phase.name}
        if best_step is not None:
            entry["checkpoint"] = f"best/ckpt-{best_step}"
        log.write(step, {**entry, "accuracy": result.accuracy, "loss": result.loss})
        whose = "" if best_step is None else f"  (the best checkpoint's, step {best_step})"
        logging.info(
            "test accuracy %.2f %%  loss %.4f%s", 100 * result.accuracy, result.loss, whose
        )
        return True

    def _evaluate(self, split: data.Split) -> evaluation.Evaluation | None:
        """Evaluates on a split. Returns None if a signal was received meanwhile.

        With several workers, a signal does not end an evaluation, because all must do the same.
        """
        show = Progress("Evaluated sequences", len(split), every_seconds=self.quiet_seconds).update

        def look(done: int) -> None:
            if number := self.stop():
                raise stopping.Stopped(number)
            show(done)

        try:
            return evaluation.evaluate(
                self.predict, split, int(self.position.batch_size), look, self.replicas
            )
        except stopping.Stopped:
            return None
