"""A trained run, loaded from its directory."""

from __future__ import annotations

import dataclasses
import pathlib
import re
from collections.abc import Sequence

import gin

from t2aux import config, files
from t2aux.data import Digits, Source, configured
from t2aux.errors import UserError
from t2aux.losses.base import AuxiliaryLoss
from t2aux.model.classifier import Classifier
from t2aux.model.transformer import Transformer

# The loop for its configurables: a run's configuration names them.
from t2aux.training import checkpoints, loop  # noqa: F401
from t2aux_ondevice.preprocessing import DatasetInfo


@dataclasses.dataclass(frozen=True)
class Run:
    """A trained classifier and where it came from.

    Attributes:
        model_dir: The run directory.
        classifier: With the checkpoint's weights.
        info: The data set it was trained on.
        step: The checkpoint's.
        checkpoint: The checkpoint's path.
        config: The run's configuration, as gin text.
        losses: Its auxiliary networks with the checkpoint's weights, where they were asked for.
        source: Where the data set is read from.
    """

    model_dir: pathlib.Path
    classifier: Classifier | Transformer
    info: DatasetInfo
    step: int
    checkpoint: str
    config: str
    losses: tuple[AuxiliaryLoss, ...] = ()
    source: Source = dataclasses.field(default_factory=Digits)


def load_run(
    model_dir: str | pathlib.Path,
    checkpoint: str | None = None,
    gin_params: Sequence[str] = (),
    *,
    auxiliary: bool = False,
) -> Run:
    """Loads a run: parses its config.gin and restores its classifier.

    Args:
        model_dir: The run directory, as `t2aux train` made it.
        checkpoint: The name or path of a checkpoint in it; by default the newest that is whole.
        gin_params: Bindings that override the configuration's (where the data lies, say).
        auxiliary: Load the auxiliary networks, too.

    Returns:
        The run.

    Raises:
        UserError: The directory is no run, or its checkpoint is missing, damaged or of another
            architecture.
    """
    directory = pathlib.Path(model_dir)
    if not (directory / "config.gin").is_file() or not (directory / "dataset.json").is_file():
        raise UserError(
            f"{directory} is not a model directory: it has no config.gin or dataset.json. Give the "
            "--model_dir of a `t2aux train` run."
        )
    text = config.parse([str(directory / "config.gin")], gin_params)
    info = DatasetInfo.from_json(files.read_json(directory / "dataset.json"))
    with config.user_errors():
        bindings = gin.get_bindings("train")
        classifier = bindings.get("model", Classifier)(info, seed=0)
        source = configured()
        makers = bindings.get("auxiliary_losses", ()) if auxiliary else ()
        losses = tuple(make(classifier) for make in makers)
    networks = {"auxiliary": checkpoints.named_losses(losses)} if auxiliary else {}
    networks["classifier"] = classifier
    if checkpoint is None:
        path = checkpoints.restore_latest(directory, **networks)
        if path is None:
            raise UserError(f"{directory} has no checkpoint yet: train it first.")
    else:
        # Of one checkpoint there are several files, and a shell completes the name of one.
        path = re.sub(r"\.(index|data-\d{5}-of-\d{5}|seal\.json)$", "", checkpoint)
        if not pathlib.Path(path).parent.name:
            path = str(directory / "checkpoints" / path)
        checkpoints.restore_named(path, **networks)
    step = checkpoints.step_of(path)
    return Run(directory, classifier, info, step, path, text, losses, source)
