"""The evaluations of a run: on its validation set, where it has one, and on the test set."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf
from absl import logging

from t2aux import data
from t2aux.progress import Progress
from t2aux.training import distribution, evaluation, stopping
from t2aux.training.best import Best, Evaluated
from t2aux.training.position import Position
from t2aux.training.progress import NoLog, RunLog
from t2aux.training.schedule import Phase
from t2aux.training.validation import Splits


class Evaluator:
    """Evaluates a run when it is time to.

    Without a validation set that is on the test set, whenever an evaluation is due. With one, it is
    on the validation set, and at the run's end the best checkpoint is evaluated on the test set.
    """

    def __init__(
        self,
        predict: Callable[[data.Batch], tf.Tensor],
        splits: Splits,
        position: Position,
        phases: Sequence[Phase],
        *,
        replicas: distribution.Replicas,
        every: int,
        patience: int | None,
        best: Best | None,
        check_weights: Callable[[], None],
        stop: Callable[[], int | None],
        quiet_seconds: float,
    ) -> None:
        """Keeps what it needs.

        Args:
            predict: Gives a batch's logits.
            splits: The run's data.
            position: Where the run is.
            phases: The run's.
            replicas: Who trains.
            every: `train.evaluate_every`.
            patience: `train.patience`.
            best: Keeps the best checkpoint; None: there is no validation set.
            check_weights: Raises NotFinite where a weight is not finite.
            stop: Says whether an evaluation is to be given up: the signal that has come, or None.
            quiet_seconds: Between two lines that say how far an evaluation is.
        """
        self._predict = predict
        self._splits = splits
        self._position = position
        self._phases = phases
        self._replicas = replicas
        self._every = every
        self._patience = patience
        self._best = best
        self._check_weights = check_weights
        self._stop = stop
        self._quiet_seconds = quiet_seconds

    def evaluate_if_due(self, log: RunLog | NoLog, total: int) -> bool:
        """Evaluates at an epoch's end, if it has not been done. Returns whether it did.

        A run that was stopped by a signal in its evaluation does it when it is started again.
        """
        position = self._position
        step, epoch = int(position.step), int(position.epoch)
        if int(position.batch) or not epoch:
            return False
        phase, every = self._phases[int(position.phase)], self._every
        if not phase.supervised or not (step == total or (every and epoch % every == 0)):
            return False
        if self._best is not None:
            return not self._best.evaluations.has(step) and self._validate(log, phase, step)
        return not self._is_tested(log, step) and self._test(log, phase, step)

    def is_over(self, step: int) -> bool:
        """Whether the run ends at a step before its last: `train.patience` is exhausted."""
        if self._best is None or self._patience is None:
            return False
        evaluations = self._best.evaluations
        exhausted = evaluations.without_better(self._first_step()) >= self._patience
        return exhausted and evaluations.last_step == step

    def why_over(self) -> str:
        """Says why the run ended early, for after a colon."""
        best = self._best.evaluations.best
        return (
            f"{self._best.evaluations.without_better(self._first_step())} evaluations without a "
            f"better validation accuracy than {100 * best.accuracy:.2f} % at step {best.step} "
            "(train.patience)"
        )

    def best_to_test(self, log: RunLog | NoLog) -> str | None:
        """The best checkpoint's path, if it has to be evaluated on the test set yet.

        All workers call it, at the run's end.
        """
        if self._best is None or self._is_tested(log, int(self._position.step)):
            return None
        return self._best.path

    def test_best(self, log: RunLog | NoLog) -> None:
        """Evaluates on the test set. The weights are the best checkpoint's."""
        best = self._best.evaluations.best
        phase = self._phases[int(self._position.phase)]
        self._test(log, phase, int(self._position.step), best.step)

    def _first_step(self) -> int:
        """The step at which the last phase begins, in which evaluations without a better count."""
        phases = [phase for phase in self._phases if phase.epochs]
        steps = self._splits.train.num_batches(int(self._position.batch_size))
        return sum(phase.epochs for phase in phases[:-1]) * steps

    def _is_tested(self, log: RunLog | NoLog, step: int) -> bool:
        # The chief's log tells; all evaluate, or none.
        return bool(self._replicas.total(np.array([float(log.has("test", step))]))[0])

    def _validate(self, log: RunLog | NoLog, phase: Phase, step: int) -> bool:
        """Evaluates on the validation set. Returns False if a signal has come meanwhile."""
        best = self._best
        result = self._evaluate(self._splits.validation)
        if result is None:
            return False
        evaluated = Evaluated(step, result.accuracy, result.loss, phase.name)
        before = best.evaluations.best
        is_better = evaluated.is_better_than(before)
        if is_better:
            self._check_weights()
            if self._replicas.is_chief:
                best.save(step)
        # The line comes before the evaluation counts: whoever is killed between the two evaluates
        # once more, and finds the line.
        if not log.has("validation", step):
            entry = {"phase": phase.name, "accuracy": result.accuracy, "loss": result.loss}
            log.write(step, {"split": "validation", **entry})
        best.add(evaluated, write=self._replicas.is_chief)
        compared = "the best so far"
        if not is_better:
            compared = f"best {100 * before.accuracy:.2f} % at step {before.step}"
        logging.info(
            "validation accuracy %.2f %%  loss %.4f  (%s)",
            *(100 * result.accuracy, result.loss, compared),
        )
        if self.is_over(step):
            logging.info("Stopping early, at step %d: %s.", step, self.why_over())
        return True

    def _test(
        self, log: RunLog | NoLog, phase: Phase, step: int, best_step: int | None = None
    ) -> bool:
        """Evaluates on the test set. Returns False if a signal has come meanwhile."""
        result = self._evaluate(self._splits.test)
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
        """Evaluates on a split; None: a signal has come meanwhile.

        With several workers it is not ended by that: all must do the same.
        """
        show = Progress("Evaluated sequences", len(split), every_seconds=self._quiet_seconds).update

        def look(done: int) -> None:
            if number := self._stop():
                raise stopping.Stopped(number)
            show(done)

        try:
            return evaluation.evaluate(
                self._predict, split, int(self._position.batch_size), look, self._replicas
            )
        except stopping.Stopped:
            return None
