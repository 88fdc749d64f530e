"""A run in progress: phases, epochs, logging, checkpoints, and going on where a killed one was."""

from __future__ import annotations

import dataclasses
import pathlib
import signal
import time
from collections.abc import Callable, Iterator, Sequence

import keras
import tensorflow as tf
from absl import logging

from t2aux import data
from t2aux.errors import UserError
from t2aux.model import weights
from t2aux.progress import Rate
from t2aux.training import best, checkpoints, distribution, divergence, integrity, stopping
from t2aux.training.evaluator import Evaluator
from t2aux.training.position import Position, Sums
from t2aux.training.progress import NoLog, RunLog, tell
from t2aux.training.run_config import RunConfig
from t2aux.training.schedule import Phase
from t2aux.training.trainer import Trainer
from t2aux.training.validation import Splits
from t2aux.training.whole import WholeTrainer

# Seconds without a line of metrics, or in an evaluation, after which a run says where it is.
_QUIET = 30.0


class TrainingLoop:
    """Trains from where its checkpoints are to the end of the last phase, or until a signal."""

    def __init__(
        self,
        directory: pathlib.Path,
        trainer: Trainer | WholeTrainer,
        *,
        replicas: distribution.Replicas,
        optimizer: keras.optimizers.Optimizer,
        clip_norm: float | None,
        position: Position,
        splits: Splits,
        phases: list[Phase],
        evaluate_every: int,
        patience: int | None,
        config: RunConfig,
        back_off: divergence.BackOff | None,
    ) -> None:
        self._directory = directory
        self._trainer = trainer
        self._replicas = replicas
        self._optimizer = optimizer
        self._clip_norm = clip_norm
        self._position = position
        self._splits = splits
        self._phases = phases
        self._config = config
        self._back_off = back_off
        self._batch_size = int(position.batch_size)
        self._steps_per_epoch = splits.train.num_batches(self._batch_size)
        self._stop = stopping.Stop()
        self._agreed_to_stop = False
        self._modules = {
            "classifier": weights.tree(trainer.classifier),
            "auxiliary": checkpoints.named_losses(trainer.losses),
        }
        self._manager = checkpoints.Manager(
            tf.train.Checkpoint(optimizer=optimizer, position=position, **self._modules),
            directory / "checkpoints",
            config.checkpoints_kept,
        )
        names = [*(f"{loss.name}_loss" for loss in trainer.losses), "supervised_loss"]
        self._sums = Sums(["loss", "gradient_norm", *names, "correct", "examples"])
        self._guard = divergence.Guard(["loss", *names])
        self._history = divergence.History(directory)
        self._rate_factor = tf.Variable(1.0, trainable=False, name="rate_factor")
        self._best: best.Best | None = None
        if splits.validation is not None:
            kept = tf.train.Checkpoint(position=position, **self._modules)
            self._best = best.Best(directory, kept, self._manager, len(splits.validation))
        self._evaluator = Evaluator(
            tf.function(
                lambda batch: trainer.classifier.logits_of(batch.inputs, batch.lengths),
                reduce_retracing=True,
                autograph=False,
            ),
            *(splits, position, phases),
            replicas=replicas,
            every=evaluate_every,
            patience=patience,
            best=self._best,
            check_weights=self._check_weights,
            stop=lambda: (self._stop.signal or signal.SIGTERM) if self._stopping else None,
            quiet_seconds=_QUIET,
        )

    @property
    def step(self) -> int:
        """How many steps were made."""
        return int(self._position.step)

    @property
    def _stopping(self) -> bool:
        """Whether a signal has come; to several workers, whether they have agreed to stop."""
        return self._agreed_to_stop if self._replicas.workers > 1 else self._stop.requested

    def restore(self) -> None:
        """Takes over the newest checkpoint that is whole, if there is one. All workers call it.

        Raises:
            UserError: All are damaged, or it is another run's.
        """
        if self._replicas.is_chief:
            self._restore()
        self._share()

    def _share(self) -> None:
        """Gives all workers the chief's state."""
        optimizer = [variable.value for variable in self._optimizer.variables]
        self._replicas.share_state(
            [*self._trainer.variables_in_order, *optimizer, *self._position.variables]
        )
        self._history.set_rates(self._replicas.share_rows(self._history.rates()))
        if self._best is not None:
            rows = self._replicas.share_rows(self._best.evaluations.rows())
            if not self._replicas.is_chief:
                self._best.evaluations = best.Evaluations.of_rows(rows)

    def _restore(self) -> None:
        path = self._manager.recover()
        if path is None:
            self._history.forget()
            if self._best is not None:
                self._best.begin()
            return
        checkpoints.check(path, **self._modules)
        expected = (int(self._position.seed), self._batch_size, len(self._splits.train))
        self._read(path)
        self._position.check(*expected)
        if self._best is not None:
            self._best.resume(self.step)
            self._best.repair(self.step)
        logging.info("Going on from %s, step %d.", path, self.step)

    def _read(self, path: str) -> None:
        """Restores all from a checkpoint. Raises UserError where it has not all of it."""
        try:
            checkpoints.read(self._manager.checkpoint, path).assert_existing_objects_matched()
        except AssertionError as error:
            # The networks were compared before.
            raise UserError(
                f"The checkpoint {path} is of another optimizer, or of one with other parameters: "
                "set train.optimizer and its parameters back, or use another --model_dir."
            ) from error

    @data.user_errors()
    def run(self, changes: Sequence[str] = ()) -> bool:
        """Trains.

        Args:
            changes: Of the settings, which hold from here on; for the log.

        Returns:
            Whether the run is done; False after SIGTERM or SIGHUP.

        Raises:
            KeyboardInterrupt: Ctrl-C has come; the run is saved.
            stopping.Stopped: A signal has come before the first step.
        """
        total = sum(phase.epochs for phase in self._phases) * self._steps_per_epoch
        step = int(self._position.step)
        log = RunLog(self._directory, step) if self._replicas.is_chief else NoLog()
        with self._stop.listening(), log:
            weights = sum(int(tf.size(v)) for v in self._trainer.variables_in_order)
            logging.info(
                "%s sequences, %d weights, %d steps in all; logs in %s.",
                *(self._splits.describe(), weights, total, self._directory),
            )
            data.log_summary(self._splits.by_name)
            for change in changes:
                logging.info("Changed from step %d on: %s", step, change)
            self._saved_at = time.monotonic()
            if self._back_off is not None and self._manager.latest_checkpoint is None:
                self._save()  # Where to go back to until there is another.
            self._evaluator.evaluate_if_due(log, total)
            early = self._evaluator.is_over(step) and step < total
            done = early or step >= total
            if done:
                why = f", early: {self._evaluator.why_over()}" if early else ""
                logging.info("This run was done already, at step %d%s.", step, why)
            while not done and not self._stopping:
                try:
                    done = self._epoch(log, total)
                    if done or self._stopping:
                        self._save()
                except divergence.NotFinite as error:
                    self._go_back(log, error)
                    done = False
            if done and not self._stopping and self._evaluator.best_to_test(log) is not None:
                self._take_best()
                self._evaluator.test_best(log)
            self._replicas.wait()  # Nobody is done before the chief has saved.
            saved = self._replicas.workers > 1 or integrity.steps(self._directory / "checkpoints")
            if self._stopping and saved:
                logging.info(
                    "Stopped by %s; the run is saved at step %d. Start the same command again to "
                    "resume it; it is in %s.",
                    stopping.name(self._stop.signal) if self._stop.signal else "another worker",
                    int(self._position.step),
                    self._directory,
                )
        if not saved and self._stop.signal is not None:
            raise stopping.Stopped(self._stop.signal)
        if self._stopping and self._stop.signal == signal.SIGINT:
            raise KeyboardInterrupt
        # What was stopped in its last evaluation has that to make.
        return done and not self._stopping

    def _epoch(self, log: RunLog | NoLog, total: int) -> bool:
        """Trains to the end of an epoch, or until stopped. Returns whether the run is done."""
        position = self._position
        index = int(position.phase)
        # A phase that is over, or one of 0 epochs.
        while int(position.epoch) >= self._phases[index].epochs:
            index += 1
            position.phase.assign(index)
            position.epoch.assign(0)
        phase = self._phases[index]
        epoch, batch, step = (int(v) for v in (position.epoch, position.batch, position.step))
        before = sum(p.epochs for p in self._phases[:index])
        run_steps = self._steps_of(phase, before * self._steps_per_epoch)
        iterator = iter(
            self._replicas.batches(
                self._splits.train,
                self._batch_size,
                seed=int(position.seed),
                epoch=before + epoch,
                first_batch=batch,
            )
        )
        rate, waiting = Rate(), Rate(_QUIET)
        rate.update(step)
        waiting.update(step)
        done = False
        while batch < self._steps_per_epoch and not self._stopping:
            self._rate_factor.assign(self._history.factor(step))
            count = min(
                self._config.steps_per_call,
                self._steps_per_epoch - batch,
                self._config.log_every - step % self._config.log_every,
                (self._history.next_change(step) or total) - step,
            )
            made, stop = run_steps(iterator, tf.constant(count))
            made = int(made)
            if self._replicas.workers > 1:
                self._agreed_to_stop = bool(stop)
            batch, step = batch + made, step + made
            if made < count:
                position.batch.assign(batch)
                if self._stopping:
                    break
                raise self._guard.found()
            at_end = batch == self._steps_per_epoch
            done = step == total
            # The means of two phases must not mix.
            end_of_phase = at_end and epoch + 1 == phase.epochs
            if step % self._config.log_every == 0 or end_of_phase:
                self._log(log, phase, epoch, step, total, rate)
                waiting = Rate(_QUIET)
                waiting.update(step)
            elif speed := waiting.update(step):
                tell(phase, epoch, step, total, "", speed, waiting)
            position.batch.assign(0 if at_end else batch)
            if at_end:
                position.epoch.assign(epoch + 1)
                if self._evaluator.evaluate_if_due(log, total):
                    rate.update(step)
                done = done or self._evaluator.is_over(step)
            self._save_if_time()
        return done

    def _steps_of(
        self, phase: Phase, first_step: int
    ) -> Callable[[Iterator], tuple[tf.Tensor, tf.Tensor]]:
        """The compiled loop over steps of a phase: how many it did, and whether all are to stop.

        Fewer than asked for: a signal came, or the next one gives what is not finite.
        """
        if getattr(self, "_compiled", (None,))[0] is phase:
            return self._compiled[1]
        trainer, position, replicas = self._trainer, self._position, self._replicas
        variables = trainer.trained_variables(auxiliary=phase.auxiliary)
        phase_steps = phase.epochs * self._steps_per_epoch
        seed, alone = int(position.seed), replicas.workers == 1
        # Only the loop below needs AutoGraph, which would take seconds to convert a step.
        replicas_step = tf.autograph.experimental.do_not_convert(replicas.step)

        @tf.function(reduce_retracing=True)
        def run_steps(iterator: Iterator, count: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            made, go_on, stop = tf.constant(0), tf.constant(True), tf.constant(False)
            if alone:
                go_on = tf.logical_not(self._stop.flag)
            while made < count and go_on:
                batch = next(iterator)
                step_in_phase = position.step - first_step
                step, stop = replicas_step(
                    trainer,
                    batch,
                    stop=tf.identity(self._stop.flag),
                    seed=tf.stack([tf.constant(seed), tf.cast(position.step, tf.int32)]),
                    progress=tf.cast(step_in_phase / phase_steps, tf.float32),
                    supervised=phase.supervised,
                    auxiliary=phase.auxiliary,
                )
                gradients, norm = step.gradients, tf.linalg.global_norm(step.gradients)
                passes = self._guard.passes(step.metrics, norm)
                if passes:
                    if self._clip_norm is not None:
                        gradients, _ = tf.clip_by_global_norm(gradients, self._clip_norm, norm)
                    rate = phase.rate(step_in_phase, self._steps_per_epoch)
                    self._optimizer.learning_rate.assign(rate * self._rate_factor)
                    replicas.apply(self._optimizer, gradients, variables)
                    examples = replicas.examples(batch)
                    self._sums.add({**step.metrics, "gradient_norm": norm, "examples": examples})
                    position.step.assign_add(1)
                    made += 1
                if alone:
                    # A signal that came during this step ends it; several agree in the next one.
                    with tf.control_dependencies([passes]):
                        stop = self._stop.flag.read_value()
                go_on = passes & ~stop
            return made, stop

        self._compiled = (phase, run_steps)
        return run_steps

    def _log(
        self, log: RunLog | NoLog, phase: Phase, epoch: int, step: int, total: int, rate: Rate
    ) -> None:
        means = self._sums.take()
        examples, correct = means.pop("examples"), means.pop("correct")
        if phase.supervised:
            means["accuracy"] = correct / max(examples, 1.0)
        else:
            means.pop("supervised_loss")
        if not phase.auxiliary:
            for loss in self._trainer.losses:
                means.pop(f"{loss.name}_loss")
        speed = rate.update(step)
        means["learning_rate"] = float(self._optimizer.learning_rate.numpy())
        if speed:
            means["steps_per_second"] = speed
        told = {"split": "train", "phase": phase.name, "epoch": epoch, "total_steps": total}
        log.write(step, {**told, **means})
        shown = "  ".join(
            f"{name} {value:.4f}"
            for name, value in means.items()
            if name.endswith("loss") or name == "accuracy"
        )
        tell(phase, epoch, step, total, f"{shown}  ", speed, rate)

    def _take_best(self) -> None:
        """Gives all workers the best checkpoint's weights. The run must have been saved."""
        if self._replicas.is_chief:
            best.restore(self._directory, **self._modules)
        self._share()

    def _check_weights(self) -> None:
        """Raises NotFinite where a weight is not finite: it must not get into a checkpoint."""
        divergence.check_weights([*self._trainer.variables_in_order, *self._optimizer.variables])

    def _save(self) -> None:
        """Writes a checkpoint. All workers must come here, and raise NotFinite alike."""
        self._check_weights()
        if self._replicas.is_chief:
            self._manager.save(int(self._position.step))
            if self._best is not None:
                self._best.prune()
        self._saved_at = time.monotonic()

    def _save_if_time(self) -> None:
        if time.monotonic() - self._saved_at < 60 * self._config.checkpoint_minutes:
            return
        try:
            self._save()
        except divergence.NotFinite:
            # By this worker's own clock; the next step tells all of them.
            if self._replicas.workers == 1:
                raise

    def _go_back(self, log: RunLog | NoLog, error: divergence.NotFinite) -> None:
        """Goes back to the last good checkpoint with a lower rate, or raises UserError."""
        policy = self._back_off
        stop = policy is None or self._history.back_offs >= policy.times
        if self._replicas.is_chief:
            event = divergence.event_at(
                error,
                self._position,
                self._phases,
                self._splits.train,
                self._manager.latest_checkpoint,
            )
            if stop:
                self._history.add(event)
                raise UserError(
                    divergence.advice(event, self._history, back_off=policy is not None)
                ) from error
            self._restore_before(event, error, policy.rate_factor)
        elif stop:
            raise UserError(
                f"After {int(self._position.step)} updates there is what is not finite ({error}): "
                "the chief, worker 0, says where, and what to do."
            ) from error
        self._share()
        self._sums.take()
        log.rewind(int(self._position.step))

    def _restore_before(
        self, event: divergence.Event, error: divergence.NotFinite, rate_factor: float
    ) -> None:
        """Restores the last good checkpoint, and notes that the rate is lower from there on.

        That of the step itself is passed over for the one before: with the same weights and the
        same batch, no rate would help.
        """
        path = self._manager.recover()
        if path is None:
            raise UserError(f"{event.sentence(self._history.path)}.") from error
        if checkpoints.step_of(path) == event.step:
            path = self._manager.before(path) or path
        self._history.add(
            dataclasses.replace(event, back_to=checkpoints.step_of(path), rate_factor=rate_factor)
        )
        self._read(path)
        self._manager.go_back(path)
        if self._best is not None:
            self._best.resume(self.step)
        logging.warning(
            "%s. Going back to %s; the learning rate is multiplied by %g from there on.",
            event.sentence(self._history.path),
            pathlib.Path(path).name,
            rate_factor,
        )
