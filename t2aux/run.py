"""A trained run, loaded from its directory."""

from __future__ import annotations

import dataclasses
import pathlib
import re
from collections.abc import Sequence

import gin
import tensorflow as tf
from absl import logging

from t2aux import config, files
from t2aux.data import Digits, Source, configured
from t2aux.errors import ModelError
from t2aux.losses.base import AuxiliaryLoss, Objective
from t2aux.model import weights
from t2aux.model.transformer import Transformer

# Imports train for its configurables, to which a run's configuration refers.
from t2aux.training import best, restoring, train  # noqa: F401
from t2aux.training.classifier import make_classifier
from t2aux.training.model import SequenceClassifier
from t2aux_ondevice.preprocessing import DatasetInfo

_OBJECTIVE = ("supervised_bptt", "auxiliary_bptt", "precision")
BEST, LATEST, NAMED = "best", "latest", "named"
_NOTES = {
    BEST: "the best by validation accuracy",
    LATEST: "the newest",
    NAMED: "",
}


@dataclasses.dataclass(frozen=True)
class Run:
    """A trained classifier and its origin.

    Attributes:
        model_dir: The run directory.
        classifier: The classifier with the checkpoint's weights.
        info: The data set that it was trained on.
        step: The step of the checkpoint.
        checkpoint: The checkpoint's path.
        config: The run's configuration as gin text.
        losses: The auxiliary networks with the checkpoint's weights, if `auxiliary` was set.
        choice: How the checkpoint was chosen: BEST, LATEST or NAMED.
        note: A note on the choice if the run has a validation set; else "".
        source: The source of the data set.
    """

    model_dir: pathlib.Path
    classifier: SequenceClassifier | Transformer
    info: DatasetInfo
    step: int
    checkpoint: str
    config: str
    losses: tuple[AuxiliaryLoss, ...] = ()
    choice: str = LATEST
    note: str = ""
    source: Source = dataclasses.field(default_factory=Digits)

    @property
    def described(self) -> str:
        """A description for users, such as "step 120, the best by validation accuracy"."""
        return f"step {self.step}, {self.note}" if self.note else f"step {self.step}"


def load_run(
    model_dir: str | pathlib.Path,
    checkpoint: str | None = None,
    gin_params: Sequence[str] = (),
    *,
    auxiliary: bool = False,
) -> Run:
    """Loads a run: parses its config.gin and restores its classifier.

    Args:
        model_dir: The run directory of `t2aux train`.
        checkpoint: BEST, the best by validation; LATEST, the newest undamaged; or a name or path.
            By default the best or, if the run has no validation set or was not evaluated on it yet,
            the newest.
        gin_params: Bindings that override the configuration's, such as the folder of the data.
        auxiliary: Whether to load the auxiliary networks, too.

    Returns:
        The run.

    Raises:
        UserError: The directory is not a run, or the checkpoint is missing, damaged or of another
            architecture. A damaged best checkpoint is not replaced by the newest.
    """
    directory = pathlib.Path(model_dir)
    if not (directory / "config.gin").is_file() or not (directory / "dataset.json").is_file():
        raise ModelError(
            f"{directory} is not a model directory: it has no config.gin or dataset.json. Give the "
            "--model_dir of a `t2aux train` run."
        )
    text = config.parse([str(directory / "config.gin")], gin_params)
    info = DatasetInfo.from_json(files.read_json(directory / "dataset.json", ModelError))
    with config.user_errors():
        bindings = gin.get_bindings("train")
        source = configured()
        makers = bindings.get("auxiliary_losses", ()) if auxiliary else ()
        losses = tuple(make() for make in makers)
        settings = {name: bindings[name] for name in _OBJECTIVE if name in bindings}
        objective = Objective(losses, **settings)
        classifier = bindings.get("model", make_classifier)(info, seed=0, objective=objective)
    networks = {"auxiliary": restoring.named_losses(losses)} if auxiliary else {}
    networks["classifier"] = weights.tree(classifier)
    path, choice = _restore(directory, checkpoint, networks)
    step, note = restoring.step_of(path), ""
    if (directory / best.FILE).exists():
        note = _NOTES[choice]
        logging.info("Using %s, step %d%s.", path, step, f", {note}" if note else "")
    return Run(directory, classifier, info, step, path, text, losses, choice, note, source)


def _restore(
    directory: pathlib.Path, checkpoint: str | None, networks: dict[str, tf.Module]
) -> tuple[str, str]:
    """Restores networks from the requested checkpoint. Returns its path and the choice."""
    if checkpoint in (None, BEST):
        found = best.restore(directory, **networks)
        if found is not None:
            return best.path_of(directory, found.step), BEST
        _check_may_have_no_best(directory, is_asked_for=checkpoint == BEST)
    if checkpoint in (None, LATEST):
        path = restoring.restore_latest(directory, **networks)
        if path is None:
            raise ModelError(f"{directory} has no checkpoint yet: train it first.")
        return path, LATEST
    # A checkpoint has several files, and the shell may have completed the name of one of them.
    name = re.sub(r"\.(index|data-\d{5}-of-\d{5}|seal\.json)$", "", checkpoint)
    own = directory / "checkpoints"
    places = [str(own / name), str(own / best.FOLDER / name)]
    if pathlib.Path(name).parent.name:
        places = [name, str(own / name)]
    existing = (place for place in places if pathlib.Path(f"{place}.index").exists())
    path = next(existing, places[0])
    restoring.restore(path, **networks)
    return path, NAMED


def _check_may_have_no_best(directory: pathlib.Path, *, is_asked_for: bool) -> None:
    """Raises UserError if a run without a best checkpoint should have one."""
    has_validation = gin.get_bindings("train").get("validation") is not None
    if has_validation and not (directory / best.FILE).exists():
        raise ModelError(
            f"{directory / best.FILE} is missing, but is needed to find the best checkpoint: put "
            "back a copy of it, or give --checkpoint=latest for the newest one."
        )
    if is_asked_for:
        why = "it has no validation set (train.validation)"
        if has_validation:
            why = "it was not evaluated on its validation set yet"
        raise ModelError(
            f"{directory} has no best checkpoint, as {why}: give --checkpoint=latest for the "
            "newest one."
        )
