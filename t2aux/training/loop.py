"""The run: phases, epochs, logging, checkpoints, and going on where a killed run was."""

from __future__ import annotations

import contextlib
import pathlib
import signal
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
from t2aux.training import checkpoints
from t2aux.training.progress import Rate, RunLog
from t2aux.training.schedule import PAPER_PHASES, Phase
from t2aux.training.trainer import Trainer
from t2aux.training.truncation import Bptt
from t2aux.training.whole import WholeTrainer

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
    deterministic: bool = True,
) -> bool:
    """Trains a classifier in a run directory, or goes on with it.

    The directory gets config.gin (as parsed), operative_config.gin (as used), dataset.json,
    metrics.jsonl, train.log, tensorboard/ and checkpoints/. A run that was killed and is started
    again ends with the same weights as one that was not. SIGTERM saves a checkpoint and stops.

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
        log_every: Steps between lines of metrics; the host waits for the device only then.
        steps_per_call: Steps that one call of the compiled loop does. A SIGTERM waits for them.
        checkpoint_minutes: Between checkpoints; 0: at every call.
        checkpoints_kept: The newest ones; older ones are removed.
        deterministic: Use TensorFlow's deterministic kernels: the same seed then gives the same
            weights on the same machine.

    Returns:
        Whether the run is done; False after SIGTERM.

    Raises:
        UserError: A value is out of range, the directory is another run's or another process's or
            can't be written, the data can't be read, or the loss is no longer a number.
    """
    for name, value, least in (
        ("batch_size", batch_size, 1),
        ("log_every", log_every, 1),
        ("steps_per_call", steps_per_call, 1),
        ("checkpoints_kept", checkpoints_kept, 1),
        ("evaluate_every", evaluate_every, 0),
        ("checkpoint_minutes", checkpoint_minutes, 0),
    ):
        if value < least:
            raise UserError(f"train.{name} must be at least {least}, but is {value}.")
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
    )
    with files.locked(directory):
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
        self._stopping = False
        # The optimizer's slots must be there before the checkpoint is made.
        optimizer.build(trainer.variables_in_order)
        self._modules = {"classifier": trainer.classifier, "auxiliary": named(trainer.losses)}
        self._manager = tf.train.CheckpointManager(
            tf.train.Checkpoint(optimizer=optimizer, position=position, **self._modules),
            str(directory / "checkpoints"),
            max_to_keep=checkpoints_kept,
        )
        names = ["loss", "gradient_norm", *(f"{loss.name}_loss" for loss in trainer.losses)]
        self._sums = Sums([*names, "supervised_loss", "correct", "examples"])
        predict = tf.function(
            lambda batch: trainer.classifier(batch.inputs, batch.lengths), reduce_retracing=True
        )
        self._predict = predict

    def restore(self) -> None:
        path = self._manager.latest_checkpoint
        if path is None:
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
        with RunLog(self._directory, int(self._position.step)) as log, self._on_sigterm():
            logging.info(
                "%d training and %d test sequences, %d weights, %d steps in all; logs in %s.",
                len(self._train_split),
                len(self._test_split),
                sum(int(tf.size(v)) for v in self._trainer.variables_in_order),
                total,
                self._directory,
            )
            self._saved_at = time.monotonic()
            done = int(self._position.step) >= total
            if done:
                logging.info("This run was done already, at step %d.", total)
            while not done and not self._stopping:
                done = self._epoch(log, total)
            if self._stopping:
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
        while batch < self._steps_per_epoch and not self._stopping:
            count = min(
                self._steps_per_call,
                self._steps_per_epoch - batch,
                self._log_every - step % self._log_every,
            )
            run_steps(iterator, tf.constant(count))
            batch, step = batch + count, step + count
            at_end = batch == self._steps_per_epoch
            done = step == total
            # The means of two phases must not mix.
            end_of_phase = at_end and epoch + 1 == phase.epochs
            if step % self._log_every == 0 or end_of_phase:
                self._log(log, phase, epoch, step, total, rate)
            if at_end:
                position.batch.assign(0)
                position.epoch.assign(epoch + 1)
                every = self._evaluate_every
                if phase.supervised and (done or (every and (epoch + 1) % every == 0)):
                    self._evaluate(log, phase, step)
                    rate.update(step)
            else:
                position.batch.assign(batch)
            waited = time.monotonic() - self._saved_at
            if done or self._stopping or waited >= self._checkpoint_seconds:
                self._save()
        return done

    def _steps_of(self, phase: Phase, first_step: int) -> Callable[[Iterator, tf.Tensor], None]:
        """The compiled loop over steps of a phase."""
        if getattr(self, "_compiled", (None,))[0] is phase:
            return self._compiled[1]
        trainer, position = self._trainer, self._position
        variables = trainer.trained_variables(auxiliary=phase.auxiliary)
        phase_steps = phase.epochs * self._steps_per_epoch
        seed = int(position.seed)

        @tf.function(reduce_retracing=True)
        def run_steps(iterator: Iterator, count: tf.Tensor) -> None:
            for _ in tf.range(count):
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
                if self._clip_norm is not None:
                    gradients, _ = tf.clip_by_global_norm(gradients, self._clip_norm, norm)
                self._optimizer.learning_rate.assign(
                    phase.rate(step_in_phase, self._steps_per_epoch)
                )
                self._optimizer.apply(gradients, variables)
                examples = tf.cast(tf.shape(batch.labels)[0], tf.float32)
                self._sums.add({**step.metrics, "gradient_norm": norm, "examples": examples})
                position.step.assign_add(1)

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
        if not means["loss"] - means["loss"] == 0:
            raise UserError(
                f"The loss is {means['loss']} at step {step}: give the same command again with a "
                "lower Phase.learning_rate or train.clip_norm. "
                + checkpoints.newest_of(self._manager)
            )
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

    def _evaluate(self, log: RunLog, phase: Phase, step: int) -> None:
        result = evaluation.evaluate(self._predict, self._test_split, self._batch_size)
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

    def _save(self) -> None:
        checkpoints.save(self._manager, int(self._position.step))
        self._saved_at = time.monotonic()

    @contextlib.contextmanager
    def _on_sigterm(self) -> Iterator[None]:
        def stop(*_: object) -> None:
            self._stopping = True

        before = signal.signal(signal.SIGTERM, stop)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)


def named(losses: Sequence[Auxiliary]) -> tf.Module:
    """The auxiliary networks as checkpoints hold them, under their names.

    So the order in which a configuration lists them does not matter.
    """
    module = tf.Module(name="auxiliary")
    for loss in losses:
        setattr(module, loss.name, loss)
    return module
