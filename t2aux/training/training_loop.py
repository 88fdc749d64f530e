"""The training loop of a run: phases, epochs, logging, checkpoints, and resuming."""

from __future__ import annotations

import math
import pathlib
import signal
import time
from collections.abc import Iterator, Sequence

import keras
import tensorflow as tf
from absl import logging

from t2aux import data
from t2aux.errors import DivergenceError, ModelError
from t2aux.model import weights
from t2aux.progress import Rate
from t2aux.training import best, checkpoints, distribution, divergence, restoring, stopping
from t2aux.training.evaluation import logits_function
from t2aux.training.evaluator import Evaluator
from t2aux.training.position import Position
from t2aux.training.progress import RunLog
from t2aux.training.run_config import RunConfig
from t2aux.training.schedule import Phase
from t2aux.training.validation import Splits

# Seconds without a line of metrics, or in an evaluation, after which a run logs its position.
_QUIET = 30.0


class TrainingLoop:
    """Trains from the newest checkpoint to the end of the last phase, or until a signal."""

    def __init__(
        self,
        directory: pathlib.Path,
        trainer: distribution.AnyTrainer,
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
        self._batch_size = int(position.batch_size)
        self._steps_per_epoch = splits.train.num_batches(self._batch_size)
        self._total = sum(phase.epochs for phase in phases) * self._steps_per_epoch
        self._stop = stopping.Stop()
        self._agreed_to_stop = False
        self._saved_at = time.monotonic()
        self._modules = {
            "classifier": weights.tree(trainer.classifier),
            "auxiliary": restoring.named_losses(trainer.losses),
        }
        self._manager = checkpoints.Manager(
            tf.train.Checkpoint(optimizer=optimizer, position=position, **self._modules),
            directory / "checkpoints",
            config.checkpoints_kept,
        )
        losses = [*(f"{loss.name}_loss" for loss in trainer.losses), "supervised_loss"]
        # Checked in every step, on the device.
        self._checked = ["loss", *losses, "gradient_norm"]
        # Also on the device; read when they are logged.
        self._means = {
            name: keras.metrics.Mean(name=name) for name in (*self._checked, "correct", "examples")
        }
        self._best: best.Best | None = None
        if splits.validation is not None:
            kept = tf.train.Checkpoint(position=position, **self._modules)
            self._best = best.Best(directory, kept, self._manager, len(splits.validation))
        self._evaluator = Evaluator(
            logits_function(trainer.classifier),
            splits,
            position,
            phases,
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
        """The number of steps that were made."""
        return int(self._position.step)

    @property
    def _stopping(self) -> bool:
        """Whether a signal was received or, with several workers, whether all agreed to stop."""
        return self._agreed_to_stop if self._replicas.workers > 1 else self._stop.requested

    # --- Resuming ---------------------------------------------------------------------------------

    def restore(self) -> None:
        """Restores the newest undamaged checkpoint, if there is one. All workers call it.

        Raises:
            UserError: All checkpoints are damaged, or the checkpoint belongs to another run.
        """
        if self._replicas.is_chief:
            path = self._manager.recover()
            if path is not None:
                self._restore(path)
            elif self._best is not None:
                self._best.begin()
        self._share()

    def _restore(self, path: str) -> None:
        restoring.check(path, **self._modules)
        position = self._position
        fixed = [position.seed, position.batch_size, position.examples]
        expected = [int(value) for value in fixed]
        try:
            status = checkpoints.read(self._manager.checkpoint, path)
            status.assert_existing_objects_matched()
        except AssertionError as error:
            # The networks have already been compared.
            raise ModelError(
                f"The checkpoint {path} is of another optimizer, or of one with other parameters: "
                "set train.optimizer and its parameters back, or use another --model_dir."
            ) from error
        stored = [int(value) for value in fixed]
        if stored != expected:
            raise ModelError(
                f"The checkpoint {path} has other values of train.seed, train.batch_size or the "
                f"number of training examples, {stored} instead of {expected}: set them back, or "
                "use another --model_dir."
            )
        if self._best is not None:
            self._best.resume(self.step)
        logging.info("Continuing from %s, step %d.", path, self.step)

    def _share(self) -> None:
        """Copies the chief's state to all workers."""
        optimizer = [variable.value for variable in self._optimizer.variables]
        self._replicas.share_state(
            [*self._trainer.variables_in_order, *optimizer, *self._position.variables]
        )
        if self._best is not None:
            rows = self._replicas.share_rows(self._best.evaluations.rows())
            if not self._replicas.is_chief:
                self._best.evaluations = best.Evaluations.of_rows(rows)

    # --- Training ---------------------------------------------------------------------------------

    @data.user_errors()
    def run(self, changes: Sequence[str] = ()) -> bool:
        """Trains.

        Args:
            changes: The changes of settings from here on, for the log.

        Returns:
            Whether the run is complete; False after SIGTERM or SIGHUP.

        Raises:
            KeyboardInterrupt: Ctrl-C was pressed; the run is saved.
            stopping.Stopped: A signal was received before the first step.
            UserError: The loss, the gradient or a weight is not finite.
        """
        is_chief, total = self._replicas.is_chief, self._total
        with (
            self._stop.listening(),
            RunLog(self._directory if is_chief else None, self.step) as log,
        ):
            size = sum(int(tf.size(v)) for v in self._trainer.variables_in_order)
            logging.info(
                "%s sequences, %d weights, %d steps in all; logs in %s.",
                *(self._splits.describe(), size, total, self._directory),
            )
            data.log_summary(self._splits.by_name)
            for change in changes:
                logging.info("Changed from step %d on: %s", self.step, change)
            self._evaluator.evaluate_if_due(log, total)
            early = self.step < total and self._evaluator.is_over(self.step)
            done = early or self.step >= total
            if done:
                why = f", early: {self._evaluator.why_over()}" if early else ""
                logging.info("This run was done already, at step %d%s.", self.step, why)
            while not done and not self._stopping:
                done = self._epoch(log)
                if done or self._stopping:
                    self._save()
            if done and not self._stopping and self._evaluator.best_to_test(log) is not None:
                if is_chief:
                    best.restore(self._directory, **self._modules)
                self._share()
                self._evaluator.test_best(log)
            self._replicas.wait()  # No worker ends before the chief has saved.
            saved = self._replicas.workers > 1 or checkpoints.steps(self._directory / "checkpoints")
            if self._stopping and saved:
                logging.info(
                    "Stopped by %s; the run is saved at step %d. Start the same command again to "
                    "resume it; it is in %s.",
                    stopping.name(self._stop.signal) if self._stop.signal else "another worker",
                    *(self.step, self._directory),
                )
        if not saved and self._stop.signal is not None:
            raise stopping.Stopped(self._stop.signal)
        if self._stopping and self._stop.signal == signal.SIGINT:
            raise KeyboardInterrupt
        # A run that was stopped during its last evaluation is not complete.
        return done and not self._stopping

    def _epoch(self, log: RunLog) -> bool:
        """Trains to the end of an epoch, or until stopped. Returns whether the run is complete."""
        position, config = self._position, self._config
        index = int(position.phase)
        # Skips a phase that is over or has 0 epochs.
        while int(position.epoch) >= self._phases[index].epochs:
            index += 1
            position.phase.assign(index)
            position.epoch.assign(0)
        phase = self._phases[index]
        before = sum(p.epochs for p in self._phases[:index])
        first_step = tf.constant(before * self._steps_per_epoch, tf.int64)
        epoch, batch, step = int(position.epoch), int(position.batch), self.step
        iterator = iter(
            self._replicas.batches(
                self._splits.train,
                self._batch_size,
                seed=int(position.seed),
                epoch=before + epoch,
                first_batch=batch,
            )
        )
        rate, logged_at = Rate(), time.monotonic()
        rate.update(step)
        while batch < self._steps_per_epoch and not self._stopping:
            count = min(
                config.steps_per_call,
                self._steps_per_epoch - batch,
                config.log_every - step % config.log_every,
            )
            made, stop, values = self._steps(phase, first_step, iterator, tf.constant(count))
            self._agreed_to_stop = bool(stop)
            batch, step = batch + int(made), step + int(made)
            is_over = batch == self._steps_per_epoch
            # The means of two phases must not be mixed.
            if int(made) == count and (
                step % config.log_every == 0 or (is_over and epoch + 1 == phase.epochs)
            ):
                self._log_metrics(log, phase, epoch, rate)
                logged_at = time.monotonic()
            elif time.monotonic() - logged_at >= _QUIET:
                self._log_position(phase, epoch, "", rate.update(step), rate)
                logged_at = time.monotonic()
            position.batch.assign(0 if is_over else batch)
            if is_over:
                position.epoch.assign(epoch + 1)
                self._evaluator.evaluate_if_due(log, self._total)
            elif int(made) < count and not self._stopping:
                named = zip(self._checked, values.numpy().tolist(), strict=True)
                self._raise_not_finite({n: str(v) for n, v in named if not math.isfinite(v)})
            self._save_if_time()
        is_over = batch == self._steps_per_epoch
        return is_over and (step == self._total or self._evaluator.is_over(step))

    # Without AutoGraph, which would take seconds to convert a step.
    @tf.function(reduce_retracing=True, autograph=False)
    def _steps(
        self, phase: Phase, first_step: tf.Tensor, iterator: Iterator, count: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """The compiled loop over steps of a phase.

        Returns:
            The number of steps made, below `count` if a signal was received or the next step gives
            NaN or Inf; whether all workers must stop; and the last values of `_checked`.
        """
        # A signal ends the loop after the current step; several workers agree in the next step.
        proceed = ~self._stop.flag if self._replicas.workers == 1 else tf.constant(True)

        def step(made: tf.Tensor, *_: tf.Tensor) -> list[tf.Tensor]:
            is_finite, stop, values = self._step(phase, first_step, next(iterator))
            return [made + tf.cast(is_finite, tf.int32), is_finite & ~stop, stop, values]

        made, _, stop, values = tf.while_loop(
            lambda made, proceed, *_: (made < count) & proceed,
            step,
            [tf.constant(0), proceed, tf.constant(False), tf.zeros([len(self._checked)])],
        )
        return made, stop, values

    def _step(
        self, phase: Phase, first_step: tf.Tensor, batch: data.Batch | distribution.Shares
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Makes a step, which changes nothing if it gives NaN or Inf.

        Returns:
            Whether all values are finite; whether all workers must stop; and the values of
            `_checked`.
        """
        trainer, position, replicas = self._trainer, self._position, self._replicas
        step_in_phase = position.step - first_step
        phase_steps = phase.epochs * self._steps_per_epoch
        step, stop = replicas.step(
            trainer,
            batch,
            stop=tf.identity(self._stop.flag),
            seed=tf.cast(tf.stack([position.seed, position.step]), tf.int32),
            progress=tf.cast(step_in_phase / phase_steps, tf.float32),
            supervised=phase.supervised,
            auxiliary=phase.auxiliary,
        )
        norm = tf.linalg.global_norm(step.gradients)
        metrics = {**step.metrics, "gradient_norm": norm}
        is_finite = tf.math.is_finite(metrics["loss"]) & tf.math.is_finite(norm)

        def update() -> None:
            gradients = step.gradients
            if self._clip_norm is not None:
                gradients, _ = tf.clip_by_global_norm(gradients, self._clip_norm, norm)
            rate = phase.rate(step_in_phase, self._steps_per_epoch)
            self._optimizer.learning_rate.assign(rate)
            variables = trainer.trained_variables(auxiliary=phase.auxiliary)
            replicas.apply(self._optimizer, gradients, variables)
            examples = replicas.examples(batch)
            for name, value in {**metrics, "examples": examples}.items():
                self._means[name].update_state(value)
            position.step.assign_add(1)

        tf.cond(is_finite, update, lambda: None)
        if replicas.workers == 1:
            with tf.control_dependencies([is_finite]):
                stop = self._stop.flag.read_value()
        return is_finite, stop, tf.stack([metrics.get(name, 0.0) for name in self._checked])

    # --- Logging ----------------------------------------------------------------------------------

    def _log_metrics(self, log: RunLog, phase: Phase, epoch: int, rate: Rate) -> None:
        # The means of losses that the phase does not train were not updated.
        means = {n: float(mean.result()) for n, mean in self._means.items() if float(mean.count)}
        for mean in self._means.values():
            mean.reset_state()
        examples = means.pop("examples")
        if "correct" in means:
            means["accuracy"] = means.pop("correct") / examples
        means["learning_rate"] = float(self._optimizer.learning_rate.numpy())
        if speed := rate.update(self.step):
            means["steps_per_second"] = speed
        where = {"split": "train", "phase": phase.name, "epoch": epoch, "total_steps": self._total}
        log.write(self.step, {**where, **means})
        shown = [
            f"{name} {value:.4f}  "
            for name, value in means.items()
            if name.endswith("loss") or name == "accuracy"
        ]
        self._log_position(phase, epoch, "".join(shown), speed, rate)

    def _log_position(
        self, phase: Phase, epoch: int, means: str, speed: float | None, rate: Rate
    ) -> None:
        logging.info(
            "%s  epoch %d/%d  step %d/%d  %s%s steps/s  %s left",
            *(phase.name, epoch + 1, phase.epochs, self.step, self._total, means),
            *(f"{speed:.2f}" if speed else "?", rate.left(self._total - self.step)),
        )

    # --- Saving -----------------------------------------------------------------------------------

    def _save(self) -> None:
        """Writes a checkpoint; raises UserError if a weight is not finite. All workers call it."""
        self._check_weights()
        if self._replicas.is_chief:
            self._manager.save(self.step)
            if self._best is not None:
                self._best.prune()
        self._saved_at = time.monotonic()

    def _save_if_time(self) -> None:
        if time.monotonic() - self._saved_at < 60 * self._config.checkpoint_minutes:
            return
        # Each worker has its own clock. A weight that is not finite is found by all in the next
        # step.
        if self._replicas.workers == 1 or not self._weights_not_finite():
            self._save()

    def _weights_not_finite(self) -> dict[str, str]:
        variables = [*self._trainer.variables_in_order, *self._optimizer.variables]
        return divergence.weights_not_finite(variables)

    def _check_weights(self) -> None:
        """Raises UserError if a weight is not finite, because it must not be saved."""
        if not_finite := self._weights_not_finite():
            self._raise_not_finite(not_finite, in_weights=True)

    def _raise_not_finite(self, not_finite: dict[str, str], *, in_weights: bool = False) -> None:
        if not self._replicas.is_chief:
            raise DivergenceError(
                f"After {self.step} updates {', '.join(not_finite)} is not finite: the chief, "
                "worker 0, says where, and what to do."
            )
        raise divergence.stopped(
            not_finite,
            *(self._position, self._phases, self._splits.train, self._manager.latest_checkpoint),
            in_weights=in_weights,
        )
