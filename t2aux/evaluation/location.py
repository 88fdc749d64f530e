"""Finds a classifier: a `.tflite` or `.keras` file, an export or a run.

TensorFlow is not imported with this module or to classify with a `.tflite` file; the other forms
need it.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
from typing import TYPE_CHECKING

from t2aux import files
from t2aux.errors import FileError, SettingError
from t2aux_ondevice import litert

if TYPE_CHECKING:
    from t2aux.export.runtimes import BatchClassifier


@dataclasses.dataclass(frozen=True)
class Location:
    """The place and form of a classifier.

    Attributes:
        form: "litert", "saved_model", "run" or "keras".
        path: The `.tflite` or `.keras` file, the directory of the export's version, or the run's
            directory.
    """

    form: str
    path: pathlib.Path

    @property
    def needs_tensorflow(self) -> bool:
        """Whether `load` imports TensorFlow."""
        return self.form != "litert"

    def load(self, checkpoint: str | None = None) -> BatchClassifier | litert.LiteRTClassifier:
        """Loads the classifier.

        Args:
            checkpoint: The checkpoint of a run, as for `t2aux.run.load_run`.

        Raises:
            UserError: A file is missing or damaged, or a checkpoint is given although the
                classifier is not a run.
        """
        if checkpoint is not None and self.form != "run":
            what = "a .keras file" if self.form == "keras" else "an export"
            raise SettingError(
                f"The checkpoint {checkpoint} is one of a run, but {self.path} is {what}: "
                "leave it out."
            )
        if self.form == "litert":
            return litert.LiteRTClassifier(self.path)
        from t2aux.export import runtimes

        if self.form == "saved_model":
            return runtimes.SavedModelClassifier(self.path)
        if self.form == "keras":
            return runtimes.CheckpointClassifier.of_file(self.path)
        return runtimes.CheckpointClassifier.of_run(self.path, checkpoint)


def locate(model: str | os.PathLike[str]) -> Location:
    """Finds the classifier at a path.

    Args:
        model: A `.tflite` file of an export; a `.keras` file; an export's directory, of one version
            or the base directory, whose newest version is used; or a run's directory.

    Returns:
        The form and the path. An export without a SavedModel runs in LiteRT.

    Raises:
        UserError: The path does not exist, or is not one of these.
    """
    path = pathlib.Path(model)
    if os.path.isfile(path):
        if path.suffix == ".keras":
            return Location("keras", path)
        return Location("litert", path)
    if not os.path.isdir(path):
        raise FileError(
            f"{path} does not exist: give a .tflite or .keras file, an export's directory or a "
            "model_dir."
        )
    found = _locate_in(path)
    if found is None:
        try:
            versions = [p for p in path.iterdir() if files.is_version(p.name)]
        except OSError as error:
            raise FileError(f"Can't read {path}: {error.strerror or error}.") from error
        by_age = sorted(versions, key=lambda p: int(p.name), reverse=True)
        found = next(filter(None, map(_locate_in, by_age)), None)
    if found is None:
        raise FileError(
            f"{path} holds no model: give a .tflite or .keras file, a directory that `t2aux "
            "export` made, or a --model_dir of `t2aux train`."
        )
    return found


def _locate_in(path: pathlib.Path) -> Location | None:
    if (path / "config.gin").is_file() or (path / "dataset.json").is_file():
        return Location("run", path)
    if (path / "saved_model.pb").is_file():
        return Location("saved_model", path)
    names = sorted(file.name for file in path.glob("classifier*.tflite") if file.is_file())
    if names:
        # Prefers the file for whole sequences in float32; else uses the first of the others.
        return Location("litert", path / (litert.WHOLE if litert.WHOLE in names else names[0]))
    # `load` reports missing files.
    return Location("saved_model", path) if (path / litert.METADATA).is_file() else None
