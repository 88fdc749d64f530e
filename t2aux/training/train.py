"""`train`: creates the parts of a run, checks that they are compatible, and starts the run."""

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

# Imported also for their configurables, which configurations refer to.
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


# The module's earlier name, because gin files may use the full name.
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
    """Trains a classifier in a run directory, or resumes the run in it.

    The directory gets config.gin (as parsed), operative_config.gin (as used), dataset.json,
    run.json, split.json (the test examples, if the data has no test set), metrics.jsonl, train.log,
    tensorboard/ and checkpoints/. A run that was killed and is started again ends with the same
    weights as an uninterrupted one. SIGTERM, SIGHUP and Ctrl-C save a checkpoint after the current
    step and stop. If a checkpoint is damaged, the previous one is used. If the loss or the gradient
    is NaN or infinite, the run stops before the weights are affected.

    The data and the settings belong to the run. A run with a checkpoint is resumed only with the
    same data and settings, wherever the data is stored and however the configuration is written.
    Settings that do not affect the result (train.run_config, all of RunConfig and, without a
    validation set, train.evaluate_every) may change. A run without a checkpoint begins with the
    given data and settings. If an error occurs before the first step, folders and files that were
    created for the run are removed.

    Args:
        model_dir: The run directory.
        config_text: The parsed configuration, which is stored in the directory.
        data: The data set, such as @mnist(); None: the embedded @digits().
        model: Creates the network: @Classifier, which is recurrent, or @Transformer, which does not
            support auxiliary losses and ignores the truncation.
        phases: The phases, in order.
        auxiliary_losses: [@Reconstruction] for r-LSTM, [@Prediction] for p-LSTM, or both;
            [@LanguageModel] or [@SequenceAutoencoder] for the paper's baselines (Table 4).
        batch_size: B, over all replicas.
        supervised_bptt: Steps that the supervised gradient goes back; "full", or 0 for none.
        auxiliary_bptt: Steps that each auxiliary gradient goes back; "full", or 0 for none.
        tf32: Whether a GPU computes products in training in TensorFloat-32, with 10 instead of 23
            bits of the operands' fractions. Off by default: a run then learns the same on a GPU as
            on a CPU, and products of 128 units wait for launches, not for arithmetic. Evaluation
            always uses full float32.
        precision: The precision of LSTM products in training, also in the losses' decoders, on a
            CPU with the kernel: "float32" or "bfloat16". "bfloat16" rounds the operands to bfloat16
            if the processor supports it (AVX512-BF16); otherwise they are float32, and the log says
            so. Sums, states, weights, the optimizer and evaluations are always float32.
        optimizer: Creates the Keras optimizer; called with the learning rate.
        clip_norm: The maximum global norm of the gradient; None: no clipping [us].
        normalize: Whether the network normalises real-valued sequences that are not images: it
            subtracts the training data's mean from each channel and divides by the standard
            deviation. Both are stored in dataset.json and in every export. A run of an older
            version without normalisation is resumed without it.
        seed: The seed of initial weights, data order, anchors, sampling and DropConnect.
        validation: The validation set, which determines the best checkpoint. A fraction of the
            training data in (0, 1), chosen by `seed` with the same share of each class; if the data
            has its own validation set, such as validation/ or val.csv, that is used instead. Or the
            name of a separate split of the source, such as "validation". None: no validation set;
            the newest checkpoint is the result. The best checkpoint (highest accuracy on the
            validation set; among equals the lowest loss, then the earliest) is kept in
            checkpoints/best/, and validation.json lists the evaluations. The test set is used only
            at the end, for the best checkpoint.
        patience: The number of evaluations in the last phase without an improvement after which the
            run ends early; None: it never does.
        evaluate_every: Epochs between evaluations on the validation set or, without one, on the
            test set; 0: only at the end.
        run_config: How the run is executed and saved; None: @RunConfig().
        allow_changes: Whether a run may be resumed with changed learning rates, epochs (of a phase
            that is not over), decays, clip_norm, optimizer parameters, weights of losses, patience
            and, with a validation set, evaluate_every. The changes apply from that step on and are
            listed in run.json.

    Returns:
        Whether the run is complete; False after SIGTERM or SIGHUP.

    Raises:
        UserError: A value is out of range, the directory belongs to another run or process or can't
            be written, the data can't be read, all checkpoints are damaged, or the loss is not
            finite.
        StartAgainError: Another worker was lost.
        KeyboardInterrupt: Ctrl-C was pressed; the run is saved.
        stopping.Stopped: A signal was received before there was anything to save.
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
            "empty: this phase has nothing to train. Add models/r_lstm or models/p_lstm, or set "
            "train.phases = [@joint/Phase()]."
        )
    tensor_float.enable(tf32)
    if run_config.deterministic:
        tf.config.experimental.enable_op_determinism()
    # Before any other use of TensorFlow, which must know the other workers from the start.
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
        # For cores and losses of users that use Keras's initializers.
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
            # The optimizer's slots must exist before the checkpoint is created.
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
                # Files that a killed process has left behind.
                files.clear_temporary(directory / name)
            identity.write(config_text)
            with files.atomic_write(directory / "operative_config.gin") as file:
                file.write(gin.operative_config_str())
            if (division := splits.read["test"].division) is not None:
                files.write_json(directory / folder.DIVISION, division.to_json())
        return run.run(changes)


@contextlib.contextmanager
def _together(replicas: distribution.Replicas) -> Iterator[None]:
    """A block that only the chief executes; if it raises UserError, all workers do."""
    problem = None
    try:
        yield
    except UserError as error:
        problem = error
    failed = replicas.total(np.array([float(problem is not None)]))[0]
    if problem is not None:
        raise problem
    if failed:
        raise ModelError("The chief, worker 0, can't resume the run: its output says why.")


def _with_absolute_data_dir(source: Source, config_text: str) -> tuple[pathlib.Path | None, str]:
    """Makes dataset.data_dir absolute, so that the data is found from any working directory.

    This includes a folder that is set in the environment.

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
    """The description of the training data; a resumed run keeps its normalisation."""
    path = directory / "dataset.json"
    if path.is_file() and checkpoints.newest(directory / "checkpoints").path is not None:
        stored = DatasetInfo.from_json(files.read_json(path, ModelError))
        return dataclasses.replace(train.info, mean=stored.mean, deviation=stored.deviation)
    return normalization.fitted(train) if normalize else train.info


def _check_lengths(split: Split, losses: Sequence[AuxiliaryLoss]) -> None:
    """Raises UserError if all sequences are too short for a loss; logs if only some are."""
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
                "train only the classifier.",
                len(split) - fitting,
                len(split),
                needed,
                what,
            )


def _check_weights(phases: Sequence[Phase], losses: Sequence[AuxiliaryLoss]) -> None:
    """Raises UserError if a phase has nothing to train because all its losses have weight 0."""
    for phase in phases:
        if phase.epochs and not phase.supervised and not any(loss.weight for loss in losses):
            raise SettingError(
                f"The phase {phase.name} trains on the auxiliary losses alone, and their weights "
                "are all 0: give one a weight, or set train.phases = [@joint/Phase()]."
            )
