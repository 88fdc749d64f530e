"""The run: phases, epochs, logging, checkpoints, and going on where a killed run was."""

from __future__ import annotations

import dataclasses
import pathlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import gin
import keras
import tensorflow as tf
from absl import logging

from t2aux import data, evaluation, files
from t2aux.errors import UserError

# Imported for their configurables, too: a configuration names them.
from t2aux.model import autoencoder, gru, language_model, mingru  # noqa: F401
from t2aux.model.auxiliary import Anchored, Auxiliary
from t2aux.model.classifier import Classifier
from t2aux.training import checkpoints, divergence, stopping
from t2aux.training.progress import Rate, RunLog
from t2aux.training.schedule import PAPER_PHASES, Phase
from t2aux.training.trainer import Trainer
from t2aux.training.truncation import Bptt
from t2aux.training.whole import WholeTrainer

# What may have been half-written when a process was killed.
_WRITTEN = (
    *("config.gin", "operative_config.gin", "dataset.json", "metrics.jsonl"),
    divergence.FILE,
)

for _optimizer in ("RMSprop", "Adam", "AdamW", "SGD"):
    gin.external_configurable(getattr(keras.optimizers, _optimizer), module="keras.optimizers")


class Position(tf.Module):
    """Where a run is: all that decides what comes next. Part of every checkpoint.

    The order of the data is a function of (seed, epoch), and all random numbers of a batch are one
    of (seed, step); so these few numbers are the data's position and the random state.
    """

    def __init__(self, seed: int, batch_size: int, examples: int) -> None:
        super().__init__(name="position")
        self.step = tf.Variable(0, dtype=tf.int64, name="step")
        self.phase = tf.Variable(0, dtype=tf.int64, name="phase")
        self.epoch = tf.Variable(0, dtype=tf.int64, name="epoch")
        self.batch = tf.Variable(0, dtype=tf.int64, name="batch")
        self.seed = tf.Variable(seed, dtype=tf.int64, name="seed")
        self.batch_size = tf.Variable(batch_size, dtype=tf.int64, name="batch_size")
        self.examples = tf.Variable(examples, dtype=tf.int64, name="examples")

    def check(self, seed: int, batch_size: int, examples: int) -> None:
        """Raises UserError where a restored run can't go on with these."""
        for name, stored, now in (
            ("train.seed", self.seed, seed),
            ("train.batch_size", self.batch_size, batch_size),
            ("the number of training examples", self.examples, examples),
        ):
            if int(stored) != now:
                raise UserError(
                    f"This model directory was trained with {name} = {int(stored)}, and can't go "
                    f"on with {now}: set it back, or use another --model_dir."
                )


class Sums(tf.Module):
    """Metrics summed on the device, read only when they are logged."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__(name="sums")
        self._sums = {name: tf.Variable(0.0, name=name) for name in names}
        self._steps = tf.Variable(0.0, name="steps")

    def add(self, values: dict[str, tf.Tensor]) -> None:
        """Adds a step's values."""
        for name, value in values.items():
            self._sums[name].assign_add(value)
        self._steps.assign_add(1.0)

    def take(self) -> dict[str, float]:
        """The means over the steps since the last call."""
        steps = max(float(self._steps), 1.0)
        means = {name: float(value) / steps for name, value in self._sums.items()}
        for variable in (*self._sums.values(), self._steps):
            variable.assign(0.0)
        return means


@gin.configurable(denylist=["model_dir", "config_text"])
def train(
    model_dir: str,
    config_text: str = "",
    *,
    model: Callable[..., Any] = Classifier,
    phases: Sequence[Phase] = PAPER_PHASES,
    auxiliary_losses: Sequence[Callable[..., Any]] = (),
    batch_size: int = 128,
    supervised_bptt: Bptt = 300,
    auxiliary_bptt: Bptt = 300,
    optimizer: Callable[..., Any] = keras.optimizers.RMSprop,
    clip_norm: float | None = 1.0,
    seed: int = 0,
    evaluate_every: int = 1,
    log_every: int = 50,
    steps_per_call: int = 4,
    checkpoint_minutes: float = 5.0,
    checkpoints_kept: int = 3,
    on_nan: str = divergence.STOP,
    nan_rate_factor: float = 0.5,
    nan_back_offs: int = 3,
    deterministic: bool = True,
) -> bool:
    """Trains a classifier in a run directory, or goes on with it.

    The directory gets config.gin (as parsed), operative_config.gin (as used), dataset.json,
    metrics.jsonl, train.log, tensorboard/ and checkpoints/. A run that was killed and is started
    again ends with the same weights as one that was not. SIGTERM saves a checkpoint after the step
    at hand and stops. A checkpoint that is damaged is passed over for the one before it.

    Args:
        model_dir: The run directory.
        config_text: The parsed configuration, to be kept in it.
        model: Makes the network: @Classifier, a recurrent one, or @Transformer, which takes no
            auxiliary losses and heeds no truncation.
        phases: In order.
        auxiliary_losses: [@Reconstruction] for r-LSTM, [@Prediction] for p-LSTM, or both;
            [@LanguageModel] or [@SequenceAutoencoder] for what the paper compares with (Table 4).
        batch_size: B.
        supervised_bptt: Steps that the supervised gradient goes back; "full", or 0 for none.
        auxiliary_bptt: Steps that each auxiliary gradient goes back; "full", or 0 for none.
        optimizer: Makes the Keras optimizer; called with the learning rate.
        clip_norm: The gradient's global norm is clipped there; None: not [us].
        seed: Of the initial weights, the order of the data, anchors, sampling and DropConnect.
        evaluate_every: Epochs between evaluations on the test set; 0: only at the end.
        log_every: Steps between lines of metrics.
        steps_per_call: Steps that one call of the compiled loop does; the host waits for the device
            only then.
        checkpoint_minutes: Between checkpoints; 0: at every call.
        checkpoints_kept: The newest ones, at least 2; older ones are removed.
        on_nan: What to do when the loss or the gradient is NaN or infinite, which never gets into
            the weights: "stop", or "back_off": go back to the last good checkpoint, with a lower
            rate from there on. not_finite.json in the directory tells of it.
        nan_rate_factor: What the rate is multiplied by then, between 0 and 1.
        nan_back_offs: How often a run may go back before it stops.
        deterministic: Use TensorFlow's deterministic kernels: the same seed then gives the same
            weights on the same machine.

    Returns:
        Whether the run is done; False after SIGTERM.

    Raises:
        UserError: A value is out of range, the directory is another run's or another process's or
            can't be written, the data can't be read, all checkpoints are damaged, or the loss is no
            longer a number.
    """
    for name, value, least in (
        ("batch_size", batch_size, 1),
        ("log_every", log_every, 1),
        ("steps_per_call", steps_per_call, 1),
        ("checkpoints_kept", checkpoints_kept, 2),
        ("evaluate_every", evaluate_every, 0),
        ("checkpoint_minutes", checkpoint_minutes, 0),
    ):
        if value < least:
            raise UserError(f"train.{name} must be at least {least}, but is {value}.")
    divergence.check_policy(on_nan, nan_rate_factor, nan_back_offs)
    if not auxiliary_losses and not all(phase.supervised for phase in phases):
        raise UserError(
            "train.phases has a phase without the supervised loss, and train.auxiliary_losses is "
            "empty: there is nothing to train in it. Add models/r_lstm or models/p_lstm, or set "
            "train.phases = [@joint/Phase()]."
        )
    if deterministic:
        tf.config.experimental.enable_op_determinism()
    directory = files.ensure_directory(model_dir)
    train_split = data.load("train")
    test_split = data.load("test", info=train_split.info)
    classifier = model(train_split.info, seed=seed)
    if isinstance(classifier, Classifier):
        losses = [make(classifier) for make in auxiliary_losses]
        _check_lengths(train_split, losses)
        _check_weights(phases, losses)
        trainer = Trainer(
            classifier, losses, supervised_bptt=supervised_bptt, auxiliary_bptt=auxiliary_bptt
        )
    elif auxiliary_losses:
        raise UserError(
            f"train.auxiliary_losses need a recurrent network's state, and train.model is a "
            f"{type(classifier).__name__}: set train.auxiliary_losses = [] (models/transformer "
            "does, after any other file of models/), or train.model = @Classifier."
        )
    else:
        trainer = WholeTrainer(classifier)
    run = _Run(
        directory,
        trainer,
        optimizer=optimizer(learning_rate=phases[0].learning_rate if phases else 1e-3),
        clip_norm=clip_norm,
        position=Position(seed, batch_size, len(train_split)),
        splits=(train_split, test_split),
        phases=list(phases),
        log_every=log_every,
        steps_per_call=steps_per_call,
        evaluate_every=evaluate_every,
        checkpoint_seconds=60 * checkpoint_minutes,
        checkpoints_kept=checkpoints_kept,
        on_nan=on_nan,
        nan_rate_factor=nan_rate_factor,
        nan_back_offs=nan_back_offs,
    )
    with files.locked(directory):
        for name in _WRITTEN:
            files.clear_temporary(directory / name)
        run.restore()
        if config_text:
            with files.atomic_write(directory / "config.gin") as file:
                file.write(config_text)
        files.write_json(directory / "dataset.json", train_split.info.to_json())
        with files.atomic_write(directory / "operative_config.gin") as file:
            file.write(gin.operative_config_str())
        return run.run()


def _check_lengths(split: data.Split, losses: Sequence[Auxiliary]) -> None:
    """Raises UserError if a loss has no sequence to be taken on; says if it has only some."""
    longest = int(split.lengths.max())
    for loss in losses:
        what, needed = type(loss).__name__, loss.shortest_sequence
        hint = "take another loss"
        if isinstance(loss, Anchored):
            what = f"{what}.length = {loss.length}"
            hint = f"set a smaller one, such as {max(1, longest // 2)}"
        fitting = int((split.lengths >= needed).sum())
        if not fitting:
            raise UserError(
                f"{what} needs sequences of at least {needed} steps, but the longest training "
                f"sequence of {split.info.name} has {longest}: {hint}."
            )
        if fitting < len(split):
            logging.warning(
                "%d of the %d training sequences have fewer than the %d steps that %s needs: they "
                "train the classifier alone.",
                len(split) - fitting,
                len(split),
                needed,
                what,
            )


def _check_weights(phases: Sequence[Phase], losses: Sequence[Auxiliary]) -> None:
    """Raises UserError if a phase has nothing to train, its losses' weights being all 0."""
    for phase in phases:
        if phase.epochs and not phase.supervised and not any(loss.weight for loss in losses):
            raise UserError(
                f"The phase {phase.name} trains on the auxiliary losses alone, and their weights "
                "are all 0: give one a weight, or set train.phases = [@joint/Phase()]."
            )


class _Run:
    def __init__(
        self,
        directory: pathlib.Path,
        trainer: Trainer | WholeTrainer,
        *,
        optimizer: keras.optimizers.Optimizer,
        clip_norm: float | None,
        position: Position,
        splits: tuple[data.Split, data.Split],
        phases: list[Phase],
        log_every: int,
        steps_per_call: int,
        evaluate_every: int,
        checkpoint_seconds: float,
        checkpoints_kept: int,
        on_nan: str,
        nan_rate_factor: float,
        nan_back_offs: int,
    ) -> None:
        self._directory = directory
        self._trainer = trainer
        self._optimizer = optimizer
        self._clip_norm = clip_norm
        self._position = position
        self._train_split, self._test_split = splits
        self._phases = phases
        self._log_every = log_every
        self._steps_per_call = steps_per_call
        self._evaluate_every = evaluate_every
        self._checkpoint_seconds = checkpoint_seconds
        self._batch_size = int(position.batch_size)
        self._steps_per_epoch = self._train_split.num_batches(self._batch_size)
        self._stop = stopping.Stop()
        self._on_nan, self._nan_rate_factor = on_nan, nan_rate_factor
        self._nan_back_offs = nan_back_offs
        # The optimizer's slots must be there before the checkpoint is made.
        optimizer.build(trainer.variables_in_order)
        self._modules = {"classifier": trainer.classifier, "auxiliary": named(trainer.losses)}
        self._manager = checkpoints.Manager(
            tf.train.Checkpoint(optimizer=optimizer, position=position, **self._modules),
            directory / "checkpoints",
            checkpoints_kept,
        )
        names = [*(f"{loss.name}_loss" for loss in trainer.losses), "supervised_loss"]
        self._sums = Sums(["loss", "gradient_norm", *names, "correct", "examples"])
        self._guard = divergence.Guard(["loss", *names])
        self._history = divergence.History(directory)
        self._rate_factor = tf.Variable(1.0, trainable=False, name="rate_factor")
        predict = tf.function(
            lambda batch: trainer.classifier(batch.inputs, batch.lengths), reduce_retracing=True
        )
        self._predict = predict

    def restore(self) -> None:
        path = self._manager.recover()
        if path is None:
            self._history.forget()
            return
        checkpoints.check(path, **self._modules)
        position = self._position
        expected = (int(position.seed), self._batch_size, len(self._train_split))
        checkpoints.read(self._manager.checkpoint, path).assert_existing_objects_matched()
        position.check(*expected)
        logging.info("Going on from %s, step %d.", path, int(position.step))

    @data.user_errors()
    def run(self) -> bool:
        total = sum(phase.epochs for phase in self._phases) * self._steps_per_epoch
        with (
            self._stop.listening(),
            RunLog(self._directory, int(self._position.step)) as log,
        ):
            logging.info(
                "%d training and %d test sequences, %d weights, %d steps in all; logs in %s.",
                len(self._train_split),
                len(self._test_split),
                sum(int(tf.size(v)) for v in self._trainer.variables_in_order),
                total,
                self._directory,
            )
            self._saved_at = time.monotonic()
            if self._on_nan == divergence.BACK_OFF and self._manager.latest_checkpoint is None:
                self._save()  # Where to go back to until there is another.
            self._evaluate_if_due(log, total)
            done = int(self._position.step) >= total
            if done:
                logging.info("This run was done already, at step %d.", total)
            while not done and not self._stop.requested:
                try:
                    done = self._epoch(log, total)
                    if done or self._stop.requested:
                        self._save()
                except divergence.NotFinite as error:
                    self._go_back(log, error)
            if self._stop.requested:
                logging.info(
                    "Stopped by SIGTERM; the run is saved at step %d. Start the same command again "
                    "to go on.",
                    int(self._position.step),
                )
        return done

    def _epoch(self, log: RunLog, total: int) -> bool:
        """Trains to the end of an epoch, or until stopped. Returns whether the run is done."""
        position = self._position
        index = int(position.phase)
        # A phase of 0 epochs, or one that the configuration has shortened since.
        while int(position.epoch) >= self._phases[index].epochs:
            index += 1
            position.phase.assign(index)
            position.epoch.assign(0)
        phase = self._phases[index]
        epoch, batch, step = (int(v) for v in (position.epoch, position.batch, position.step))
        before = sum(p.epochs for p in self._phases[:index])
        run_steps = self._steps_of(phase, before * self._steps_per_epoch)
        iterator = iter(
            self._train_split.batches(
                self._batch_size, seed=int(position.seed), epoch=before + epoch, first_batch=batch
            )
        )
        rate = Rate()
        rate.update(step)
        done = False
        while batch < self._steps_per_epoch and not self._stop.requested:
            self._rate_factor.assign(self._history.factor(step))
            count = min(
                self._steps_per_call,
                self._steps_per_epoch - batch,
                self._log_every - step % self._log_every,
                (self._history.next_change(step) or total) - step,
            )
            made = int(run_steps(iterator, tf.constant(count)))
            batch, step = batch + made, step + made
            if made < count:
                position.batch.assign(batch)
                if self._stop.requested:
                    break
                raise self._guard.found()
            at_end = batch == self._steps_per_epoch
            done = step == total
            # The means of two phases must not mix.
            end_of_phase = at_end and epoch + 1 == phase.epochs
            if step % self._log_every == 0 or end_of_phase:
                self._log(log, phase, epoch, step, total, rate)
            position.batch.assign(0 if at_end else batch)
            if at_end:
                position.epoch.assign(epoch + 1)
                if self._evaluate_if_due(log, total):
                    rate.update(step)
            waited = time.monotonic() - self._saved_at
            if waited >= self._checkpoint_seconds:
                self._save()
        return done

    def _evaluate_if_due(self, log: RunLog, total: int) -> bool:
        """Evaluates on the test set at an epoch's end, if it has not been. Returns whether it did.

        A run that was stopped by SIGTERM in its evaluation does it when it is started again.
        """
        position = self._position
        step, epoch = int(position.step), int(position.epoch)
        if int(position.batch) or not epoch or log.has_test(step):
            return False
        phase, every = self._phases[int(position.phase)], self._evaluate_every
        if not phase.supervised or not (step == total or (every and epoch % every == 0)):
            return False
        return self._evaluate(log, phase, step)

    def _steps_of(
        self, phase: Phase, first_step: int
    ) -> Callable[[Iterator, tf.Tensor], tf.Tensor]:
        """The compiled loop over steps of a phase; returns how many it did.

        Fewer than asked for: SIGTERM came, or the next one gives what is not finite.
        """
        if getattr(self, "_compiled", (None,))[0] is phase:
            return self._compiled[1]
        trainer, position = self._trainer, self._position
        variables = trainer.trained_variables(auxiliary=phase.auxiliary)
        phase_steps = phase.epochs * self._steps_per_epoch
        seed = int(position.seed)

        @tf.function(reduce_retracing=True)
        def run_steps(iterator: Iterator, count: tf.Tensor) -> tf.Tensor:
            made, passes = tf.constant(0), tf.constant(True)
            while made < count and passes and not self._stop.flag:
                batch = next(iterator)
                step_in_phase = position.step - first_step
                step = trainer.step(
                    batch,
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
                    self._optimizer.apply(gradients, variables)
                    examples = tf.cast(tf.shape(batch.labels)[0], tf.float32)
                    self._sums.add({**step.metrics, "gradient_norm": norm, "examples": examples})
                    position.step.assign_add(1)
                    made += 1
            return made

        self._compiled = (phase, run_steps)
        return run_steps

    def _log(
        self, log: RunLog, phase: Phase, epoch: int, step: int, total: int, rate: Rate
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
        means["learning_rate"] = float(self._optimizer.learning_rate)
        if speed:
            means["steps_per_second"] = speed
        log.write(step, {"split": "train", "phase": phase.name, "epoch": epoch, **means})
        shown = "  ".join(
            f"{name} {value:.4f}"
            for name, value in means.items()
            if name.endswith("loss") or name == "accuracy"
        )
        logging.info(
            "%s  epoch %d/%d  step %d/%d  %s  %s steps/s  %s left",
            phase.name,
            epoch + 1,
            phase.epochs,
            step,
            total,
            shown,
            f"{speed:.2f}" if speed else "?",
            rate.left(total - step),
        )

    def _evaluate(self, log: RunLog, phase: Phase, step: int) -> bool:
        """Evaluates on the test set. Returns False if SIGTERM has come meanwhile."""

        def look(_: int) -> None:
            if self._stop.requested:
                raise stopping.Stopped

        try:
            result = evaluation.evaluate(self._predict, self._test_split, self._batch_size, look)
        except stopping.Stopped:
            return False
        log.write(
            step,
            {
                "split": "test",
                "phase": phase.name,
                "accuracy": result.accuracy,
                "loss": result.loss,
            },
        )
        logging.info("test accuracy %.2f %%  loss %.4f", 100 * result.accuracy, result.loss)
        return True

    def _save(self) -> None:
        divergence.check_weights([*self._trainer.variables_in_order, *self._optimizer.variables])
        self._manager.save(int(self._position.step))
        self._saved_at = time.monotonic()

    def _go_back(self, log: RunLog, error: divergence.NotFinite) -> None:
        """Goes back to the last good checkpoint with a lower rate, or raises UserError."""
        event = self._event(error)
        stop = self._on_nan == divergence.STOP
        if stop or self._history.back_offs >= self._nan_back_offs:
            self._history.add(event)
            raise UserError(divergence.advice(event, self._history, back_off=not stop)) from error
        path = self._manager.recover()
        if path is None:
            raise UserError(f"{event.sentence(self._history.path)}.") from error
        self._history.add(
            dataclasses.replace(
                event, back_to=checkpoints.step_of(path), rate_factor=self._nan_rate_factor
            )
        )
        checkpoints.read(self._manager.checkpoint, path).assert_existing_objects_matched()
        self._sums.take()
        log.rewind(int(self._position.step))
        logging.warning(
            "%s. Going back to it; the learning rate is multiplied by %g from there on.",
            event.sentence(self._history.path),
            self._nan_rate_factor,
        )

    def _event(self, error: divergence.NotFinite) -> divergence.Event:
        """Says where an error happened."""
        position = self._position
        index, epoch, batch = (int(v) for v in (position.phase, position.epoch, position.batch))
        if error.in_weights:
            # It came from the batch before.
            epoch, batch = (epoch, batch - 1) if batch else (epoch - 1, self._steps_per_epoch - 1)
        before = sum(phase.epochs for phase in self._phases[:index])
        order = self._train_split.order(
            self._batch_size, seed=int(position.seed), epoch=before + epoch
        )
        return divergence.Event.of(
            error,
            step=int(position.step),
            phase=self._phases[index].name,
            epoch=epoch,
            batch=batch,
            examples=order[batch * self._batch_size : (batch + 1) * self._batch_size],
            checkpoint=self._manager.latest_checkpoint,
        )


def named(losses: Sequence[Auxiliary]) -> tf.Module:
    """The auxiliary networks as checkpoints hold them, under their names.

    So the order in which a configuration lists them does not matter.
    """
    module = tf.Module(name="auxiliary")
    for loss in losses:
        setattr(module, loss.name, loss)
    return module
