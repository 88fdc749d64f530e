"""A classifier to be exported, with its data set and its origin."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import gin
import keras

from t2aux.data.loading import folder_of
from t2aux.data.tfds_sets import TfdsSource
from t2aux.errors import ModelError, SettingError, UserError
from t2aux.export.keras_models import info_of
from t2aux.model import inference
from t2aux.model.classifier import BaseClassifier
from t2aux.model.core import Core
from t2aux.model.heads import Head
from t2aux.model.inputs import InputLayer
from t2aux.run import Run
from t2aux.training.model import SequenceClassifier
from t2aux_ondevice.errors import printable
from t2aux_ondevice.preprocessing import DatasetInfo

_PAPER = "(Trinh et al., ICML 2018, arXiv 1803.00144)"


@dataclasses.dataclass(frozen=True)
class Model:
    """A classifier to be exported.

    Attributes:
        classifier: The classifier with its weights.
        info: The description of its data.
        dataset: The name of the data; empty if unknown.
        trained: How it was trained, for the card, after "that ... at its end, ".
        source: Where its weights come from, for the card; empty if unknown.
        reference: What the artefacts are compared with: "checkpoint" or "model".
        origin: The entries of metadata.json about its origin.
    """

    classifier: BaseClassifier
    info: DatasetInfo
    dataset: str
    trained: str
    source: str = ""
    reference: str = "model"
    origin: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @classmethod
    def of_run(cls, run: Run) -> Model:
        """Makes the model of a run, whose configuration must be the current gin configuration.

        Raises:
            UserError: The run's model is a Transformer, or its core's state can't be exported.
        """
        classifier = run.classifier
        if not isinstance(classifier, BaseClassifier):
            raise ModelError(
                f"t2aux export can't export a {type(classifier).__name__}: use `t2aux classify "
                f"--model={run.model_dir}` or `t2aux evaluate --model_dir={run.model_dir}`."
            )
        inference.initial_state(classifier.core)
        name = printable(run.model_dir.resolve().name)
        losses = [make().name for make in gin.get_bindings("train").get("auxiliary_losses", ())]
        checkpoint = {"run": name, "name": pathlib.Path(run.checkpoint).name, "step": run.step}
        if run.note:
            checkpoint["note"] = run.note
        return cls(
            classifier,
            run.info,
            _dataset(run),
            f"trained by t2aux with truncated backpropagation and {_with(losses)} {_PAPER}",
            source=f"{run.described}{',' if run.note else ''} of the run {name}",
            reference="checkpoint",
            origin={"checkpoint": checkpoint, "configuration": run.config},
        )

    @classmethod
    def of_keras(
        cls, model: SequenceClassifier, *, dataset: str = "", length: int | None = None
    ) -> Model:
        """Makes the model of a Keras model.

        Args:
            model: The Keras model with its weights.
            dataset: The name of the data; empty if unknown.
            length: The number of steps of every sequence; None for any number.

        Raises:
            UserError: It is not a SequenceClassifier, has no weights yet, or has a core whose state
                can't be exported.
        """
        if not isinstance(model, SequenceClassifier):
            hint = "export other Keras models with model.export()"
            if isinstance(getattr(model, "model", None), SequenceClassifier):
                hint = "give its attribute `model`"
            raise SettingError(
                f"The model is a {type(model).__name__}, but export_model needs a "
                f"t2aux.SequenceClassifier: {hint}."
            )
        info = info_of(model, name=dataset, length=length)
        inference.initial_state(model.core)
        trained = (
            "made with t2aux.SequenceClassifier for training with truncated backpropagation and "
            f"{_with([loss.name for loss in model.auxiliary])} {_PAPER}"
        )
        return cls(model, info, dataset, trained)

    @property
    def input_layer(self) -> InputLayer:
        """The layer from tokens to the core's input."""
        return self.classifier.input_layer

    @property
    def core(self) -> Core:
        """The recurrent core."""
        return self.classifier.core

    @property
    def head(self) -> Head:
        """The layers from the core's output to the classes' logits."""
        return self.classifier.head

    @property
    def parts(self) -> tuple[keras.layers.Layer, ...]:
        """All layers that inference needs."""
        return self.input_layer, self.core, self.head


def _dataset(run: Run) -> str:
    """The name of the data, with that of its folder if the source is only a file format."""
    name = run.info.name
    if not run.source.in_folder or isinstance(run.source, TfdsSource):
        return name
    try:
        folder = folder_of(gin.query_parameter("dataset.data_dir"))
    except (ValueError, UserError):  # Not configured, or a reference.
        folder = folder_of(None)
    return name if folder is None else f"{pathlib.Path(folder).resolve().name} ({name})"


def _with(losses: Sequence[str]) -> str:
    """The names of the auxiliary losses for the card."""
    if not losses:
        return "no auxiliary loss"
    return f"the auxiliary loss{'es' * (len(losses) > 1)} {', '.join(losses)}"
