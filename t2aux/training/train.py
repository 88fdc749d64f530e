"""`train`: builds what a run is made of, checks that it goes together, and starts it."""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
from collections.abc import Callable, Iterator, Sequence

import gin
import keras
import numpy as np
import tensorflow as tf
from absl import logging

from t2aux import files
from t2aux import tf32 as tensor_float

# Imported for their configurables, too: a configuration names them.
from t2aux.data import Digits, Source, Split, normalization
from t2aux.data.loading import folder_of
from t2aux.errors import ModelError, SettingError, UserError
from t2aux.kernels import ops
from t2aux.losses.base import AuxiliaryLoss, Objective
from t2aux.model import gru, mingru  # noqa: F401
from t2aux.model.transformer import Transformer
from t2aux.training import checkpoints, distribution, folder, settings, truncation
from t2aux.training.classifier import make_classifier
from t2aux.training.identity import Identity
from t2aux.training.model import SequenceClassifier
from t2aux.training.position import Position
from t2aux.training.run_config import RunConfig
from t2aux.training.schedule import PAPER_PHASES, Phase
from t2aux.training.training_loop import TrainingLoop
from t2aux.training.transformer_trainer import TransformerTrainer
from t2aux.training.truncation import Bptt
from t2aux.training.validation import check as check_validation
from t2aux.training.validation import load as load_splits
from t2aux_ondevice.preprocessing import DatasetInfo

for _optimizer in ("RMSprop", "Adam", "AdamW", "SGD"):
    gin.external_configurable(getattr(keras.optimizers, _optimizer), module="keras.optimizers")


# gin files may name it in full by the module where it was first.
@gin.configurable(
    module="t2aux.training.loop", denylist=["model_dir", "config_text", "allow_changes"]
)
def train(
    model_dir: str,
    config_text: str = "",
    *,
    data: Source | None = None,
    model: Callable[..., SequenceClassifier | Transformer] = make_classifier,
    phases: Sequence[Phase] = PAPER_PHASES,
    auxiliary_losses: Sequence[Callable[..., AuxiliaryLoss]] = (),
    batch_size: int = 128,
    supervised_bptt: Bptt = 300,
    auxiliary_bptt: Bptt = 300,
    tf32: bool = False,
    precision: ops.Precision = "float32",
    optimizer: Callable[..., keras.optimizers.Optimizer] = keras.optimizers.RMSprop,
    clip_norm: float | None = 1.0,
    normalize: bool = True,
    seed: int = 0,
    validation: float | str | None = None,
    patience: int | None = None,
    evaluate_every: int = 1,
    run_config: RunConfig | None = None,
    allow_changes: bool = False,
) -> bool:
    """Trains a classifier in a run directory, or resumes the run that it holds.

    The directory gets config.gin (as parsed), operative_config.gin (as used), dataset.json,
    run.json, split.json (the test examples, where the data has no test set), metrics.jsonl,
    train.log, tensorboard/ and checkpoints/. A run that was killed and is started again ends with
    the same weights as one that was not. SIGTERM, SIGHUP and Ctrl-C save a checkpoint after the
    current step and stop. Where a checkpoint is damaged, the one before it is used. Where the loss
    or the gradient is NaN or infinite, the run stops before that reaches the weights.

    The data and the settings are part of a run: one that has a checkpoint is resumed with the same
    ones only, wherever the data lies and however the configuration is written. What does not change
    what is learned (train.run_config, all of RunConfig and, without a validation set,
    train.evaluate_every) may change. A run without a checkpoint begins with what is given now.
    Where an error comes before the first step, folders and files that were made for the run are
    removed.

    Args:
        model_dir: The run directory.
        config_text: The parsed configuration, to be kept in it.
        data: The data set, such as @mnist(); None: the embedded @digits().
        model: Makes the network: @Classifier, a recurrent one, or @Transformer, which takes no
            auxiliary losses and ignores the truncation.
        phases: In order.
        auxiliary_losses: [@Reconstruction] for r-LSTM, [@Prediction] for p-LSTM, or both;
            [@LanguageModel] or [@SequenceAutoencoder] for what the paper compares with (Table 4).
        batch_size: B, over all replicas.
        supervised_bptt: Steps that the supervised gradient goes back; "full", or 0 for none.
        auxiliary_bptt: Steps that each auxiliary gradient goes back; "full", or 0 for none.
        tf32: Whether a GPU's products in training are in TensorFloat-32, with 10 bits of the
            operands' fractions instead of 23. Not by default: a run then learns the same on a GPU
            as on a CPU, and products of 128 units wait for launches, not for arithmetic. Evaluation
            is in full float32 always.
        precision: Of the products of LSTMs in training, those of the losses' decoders too, on a CPU
            with the kernel: "float32", or "bfloat16", whose operands are rounded to it where the
            processor multiplies them (AVX512-BF16); elsewhere it is float32 all the same, and the
            log says so. Sums, states, weights and the optimizer are float32, and evaluations too.
        optimizer: Makes the Keras optimizer; called with the learning rate.
        clip_norm: The gradient's global norm is clipped there; None: not [us].
        normalize: Whether the network normalises real-valued sequences that are not images: from
            each channel it subtracts the mean of the training data, and divides by the standard
            deviation. Both stand in dataset.json, and every export has them. A run of a version
            that did not do so is resumed without.
        seed: Of the initial weights, the order of the data, anchors, sampling and DropConnect.
        validation: What decides which checkpoint is the best: a fraction of the training data, in
            (0, 1), chosen by `seed` with the same share of each class, unless the data has
            validation/ or val.csv, for example, which is used instead; or the name of a split of
            its own, where the source has one, such as "validation"; None: nothing, and the newest
            checkpoint is the result. The best one (highest accuracy on the validation set; of equal
            ones the lowest loss, then the earliest) is kept in checkpoints/best/, validation.json
            lists the evaluations, and the test set is used at the end only, for the best one.
        patience: The run ends after so many evaluations in the last phase without a better one than
            before; None: it does not.
        evaluate_every: Epochs between evaluations on the validation set or, without one, on the
            test set; 0: only at the end.
        run_config: How the run is executed and saved; None: @RunConfig().
        allow_changes: Whether a run may be resumed with other learning rates, epochs (of a phase
            that is not over), decays, clip_norm, optimizer parameters, weights of losses, patience
            and, with a validation set, evaluate_every. They hold from that step on, and run.json
            lists them.

    Returns:
        Whether the run is done; False after SIGTERM or SIGHUP.

    Raises:
        UserError: A value is out of range, the directory is another run's or another process's or
            can't be written, the data can't be read, all checkpoints are damaged, or the loss is no
            longer a number.
        StartAgainError: Another worker is gone.
        KeyboardInterrupt: Ctrl-C; the run is saved.
        stopping.Stopped: A signal came before there was anything to save.
    """
    for name, value, least in (
        ("batch_size", batch_size, 1),
        ("evaluate_every", evaluate_every, 0),
    ):
        if value < least:
            raise SettingError(f"train.{name} must be at least {least}, but is {value}.")
    truncation.check_bptt("train.supervised_bptt", supervised_bptt)
    truncation.check_bptt("train.auxiliary_bptt", auxiliary_bptt)
    ops.check_precision("train.precision", precision)
    check_validation(validation, patience, evaluate_every)
    run_config = RunConfig() if run_config is None else run_config
    if not auxiliary_losses and not all(phase.supervised for phase in phases):
        raise SettingError(
            "train.phases has a phase without the supervised loss, and train.auxiliary_losses is "
            "empty: there is nothing to train in it. Add models/r_lstm or models/p_lstm, or set "
            "train.phases = [@joint/Phase()]."
        )
    tensor_float.enable(tf32)
    if run_config.deterministic:
        tf.config.experimental.enable_op_determinism()
    # Before anything else of TensorFlow's: its workers are to know each other from the start.
    replicas = distribution.replicas_of(run_config.strategy)
    directory = pathlib.Path(model_dir)
    run: TrainingLoop | None = None
    with contextlib.ExitStack() as stack:
        stack.enter_context(replicas.errors())
        if replicas.is_chief:
            stack.enter_context(folder.claimed(directory, lambda: run is not None and run.step > 0))
        source = Digits() if data is None else data
        data_dir, config_text = _with_absolute_data_dir(source, config_text)
        splits = load_splits(source, validation, seed, directory)
        splits.set_info(_with_normalization(directory, splits.train, normalize=normalize))
        bound = [f"{name} = {value}" for name, value in sorted(settings.bound().items())]
        replicas.check_same("\n".join(bound), splits.read["train"])
        phases = [phase.resolved(splits.train.num_batches(batch_size)) for phase in phases]
        # For a user's core or loss, whose initial weights are by Keras's initializers.
        keras.utils.set_random_seed(seed % 2**32)
        with replicas.scope():
            losses = [make() for make in auxiliary_losses]
            _check_lengths(splits.train, losses)
            _check_weights(phases, losses)
            classifier = model(
                splits.train.info,
                seed=seed,
                objective=Objective(losses, supervised_bptt, auxiliary_bptt, precision),
            )
            is_recurrent = isinstance(classifier, SequenceClassifier)
            trainer = classifier.trainer if is_recurrent else TransformerTrainer(classifier)
            rate = phases[0].learning_rate if phases else 1e-3
            made_optimizer = optimizer(learning_rate=rate)
            # The optimizer's slots must exist before the checkpoint is made.
            made_optimizer.build(trainer.variables_in_order)
        replicas.prepare(made_optimizer)
        run = TrainingLoop(
            directory,
            trainer,
            replicas=replicas,
            optimizer=made_optimizer,
            clip_norm=clip_norm,
            position=Position(seed, batch_size, len(splits.train)),
            splits=splits,
            phases=phases,
            evaluate_every=evaluate_every,
            patience=patience,
            config=run_config,
        )
        changes: list[str] = []
        with _together(replicas):
            if replicas.is_chief:
                identity = Identity(directory, splits.read, len(splits.train), data_dir)
                steps_per_epoch = splits.train.num_batches(batch_size)
                changes = identity.check(phases, steps_per_epoch, allow_changes=allow_changes)
        run.restore()
        if replicas.is_chief:
            for name in folder.FILES:
                # What a process that was killed has left.
                files.clear_temporary(directory / name)
            identity.write(config_text)
            with files.atomic_write(directory / "operative_config.gin") as file:
                file.write(gin.operative_config_str())
            if (division := splits.read["test"].division) is not None:
                files.write_json(directory / folder.DIVISION, division.to_json())
        return run.run(changes)


@contextlib.contextmanager
def _together(replicas: distribution.Replicas) -> Iterator[None]:
    """Around what the chief alone checks: where it raises UserError, all workers do."""
    problem = None
    try:
        yield
    except UserError as error:
        problem = error
    failed = replicas.total(np.array([float(problem is not None)]))[0]
    if problem is not None:
        raise problem
    if failed:
        raise ModelError("The chief, worker 0, can't resume the run, and says why: see its output.")


def _with_absolute_data_dir(source: Source, config_text: str) -> tuple[pathlib.Path | None, str]:
    """Makes dataset.data_dir absolute, so that the data is found from any working directory.

    The folder may come from the environment, too; what is bound is where it is now.

    Returns:
        The folder, or None, and the configuration's text.
    """
    bound = gin.get_bindings("dataset").get("data_dir")
    given = folder_of(bound)
    if given is None or not source.in_folder:
        return given, config_text
    absolute = given.absolute()
    if bound == str(absolute):
        return absolute, config_text
    text = settings.set_data_dir(str(absolute))
    return absolute, text if config_text else ""


def _with_normalization(directory: pathlib.Path, train: Split, *, normalize: bool) -> DatasetInfo:
    """What the training data is, with the normalisation of the run that is resumed, if one is."""
    path = directory / "dataset.json"
    if path.is_file() and checkpoints.newest(directory / "checkpoints").path is not None:
        stored = DatasetInfo.from_json(files.read_json(path, ModelError))
        return dataclasses.replace(train.info, mean=stored.mean, deviation=stored.deviation)
    return normalization.fitted(train) if normalize else train.info


def _check_lengths(split: Split, losses: Sequence[AuxiliaryLoss]) -> None:
    """Raises UserError if a loss has no sequence to be taken on; says if it has only some."""
    longest = int(split.lengths.max())
    for loss in losses:
        what, needed = type(loss).__name__, loss.shortest_sequence
        hint = "take another loss"
        if hasattr(loss, "length"):
            what = f"{what}.length = {loss.length}"
            hint = f"set a smaller one, such as {max(1, longest // 2)}"
        fitting = int((split.lengths >= needed).sum())
        if not fitting:
            raise SettingError(
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


def _check_weights(phases: Sequence[Phase], losses: Sequence[AuxiliaryLoss]) -> None:
    """Raises UserError if a phase has nothing to train, its losses' weights being all 0."""
    for phase in phases:
        if phase.epochs and not phase.supervised and not any(loss.weight for loss in losses):
            raise SettingError(
                f"The phase {phase.name} trains on the auxiliary losses alone, and their weights "
                "are all 0: give one a weight, or set train.phases = [@joint/Phase()]."
            )
