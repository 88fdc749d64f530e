"""`train`: builds what a run is made of, checks that it goes together, and starts it."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import gin
import keras
import tensorflow as tf
from absl import logging

from t2aux import data, files
from t2aux.errors import UserError

# Imported for their configurables, too: a configuration names them.
from t2aux.model import autoencoder, gru, language_model, mingru  # noqa: F401
from t2aux.model.auxiliary import Anchored, Auxiliary
from t2aux.model.classifier import Classifier
from t2aux.training import distribution, divergence
from t2aux.training.running import Position, Run
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
    strategy: Callable[..., Any] | None = None,
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
        batch_size: B, over all replicas.
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
        strategy: @MirroredStrategy or @MultiWorkerMirroredStrategy: the replicas, which share every
            batch; None: one, in this process.

    Returns:
        Whether the run is done; False after SIGTERM.

    Raises:
        UserError: A value is out of range, the directory is another run's or another process's or
            can't be written, the data can't be read, all checkpoints are damaged, or the loss is no
            longer a number.
        StartAgainError: Another worker is gone.
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
    # Before anything else of TensorFlow's: its workers are to know each other from the start.
    replicas = distribution.replicas_of(strategy)
    directory = pathlib.Path(model_dir)
    if replicas.is_chief:
        files.ensure_directory(directory)
    train_split = data.load("train")
    test_split = data.load("test", info=train_split.info)
    with replicas.errors():
        replicas.check_same(config_text, train_split)
        with replicas.scope():
            trainer = _trainer(
                model(train_split.info, seed=seed),
                auxiliary_losses,
                train_split,
                phases,
                supervised_bptt=supervised_bptt,
                auxiliary_bptt=auxiliary_bptt,
            )
            rate = phases[0].learning_rate if phases else 1e-3
            made_optimizer = optimizer(learning_rate=rate)
            # The optimizer's slots must be there before the checkpoint is made.
            made_optimizer.build(trainer.variables_in_order)
    replicas.prepare(made_optimizer)
    run = Run(
        directory,
        trainer,
        replicas=replicas,
        optimizer=made_optimizer,
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
    if not replicas.is_chief:
        with replicas.errors():
            run.restore()
            return run.run()
    with replicas.errors(), files.locked(directory):
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


def _trainer(
    classifier: Any,
    auxiliary_losses: Sequence[Callable[..., Any]],
    train_split: data.Split,
    phases: Sequence[Phase],
    *,
    supervised_bptt: Bptt,
    auxiliary_bptt: Bptt,
) -> Trainer | WholeTrainer:
    """Makes what computes the steps. Raises UserError where the parts don't go together."""
    if isinstance(classifier, Classifier):
        losses = [make(classifier) for make in auxiliary_losses]
        _check_lengths(train_split, losses)
        _check_weights(phases, losses)
        return Trainer(
            classifier, losses, supervised_bptt=supervised_bptt, auxiliary_bptt=auxiliary_bptt
        )
    if auxiliary_losses:
        raise UserError(
            f"train.auxiliary_losses need a recurrent network's state, and train.model is a "
            f"{type(classifier).__name__}: set train.auxiliary_losses = [] (models/transformer "
            "does, after any other file of models/), or train.model = @Classifier."
        )
    return WholeTrainer(classifier)


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
