"""`SequenceClassifier`s: their `.keras` files, and the description of their data."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import re
import zipfile
import zlib

import keras

# Imported so that Keras finds the losses and layers by their registered names.
from t2aux import layers, losses  # noqa: F401
from t2aux.errors import FileError, ModelError, SettingError, UserError
from t2aux.training.model import SequenceClassifier
from t2aux_ondevice.errors import reason
from t2aux_ondevice.preprocessing import DatasetInfo


def load(path: str | os.PathLike[str]) -> SequenceClassifier:
    """Loads a file that `SequenceClassifier.save` wrote.

    Args:
        path: The `.keras` file.

    Returns:
        The model, compiled if it was.

    Raises:
        UserError: The file is missing or damaged, contains another kind of model, or refers to a
            class that is not known in this process.
    """
    path = pathlib.Path(path)
    _check_archive(path)
    try:
        model = keras.saving.load_model(path)
    except UserError:
        raise
    except Exception as error:  # Keras and its dependencies raise many kinds of errors.
        raise _unreadable(path, error) from error
    if not isinstance(model, SequenceClassifier):
        raise ModelError(
            f"{path} has a {type(model).__name__}, not a t2aux.SequenceClassifier: load it with "
            "keras.saving.load_model."
        )
    return model


def info_of(model: SequenceClassifier, *, name: str = "", length: int | None = None) -> DatasetInfo:
    """The description of a model's data.

    Args:
        model: The model.
        name: The name of the data set; empty if unknown.
        length: The number of steps of every sequence; None for any number.

    Raises:
        UserError: The model has no weights yet, or requires another length.
    """
    if (info := model.info) is not None:
        if length is not None and info.length not in (None, length):
            raise SettingError(f"steps is {length}, but the model reads {info.length} steps.")
        return dataclasses.replace(info, name=name or info.name, length=length or info.length)
    network = getattr(model, "network", None)
    if network is None:
        raise ModelError("The model has no weights: call fit, or build with the inputs' shape.")
    return DatasetInfo(
        name=name,
        kind="ids" if network.is_text else "vectors",
        classes=model.classes,
        channels=None if network.is_text else network.token_size,
        length=length,
        ids=network.token_size if network.is_text else None,
    )


def _check_archive(path: pathlib.Path) -> None:
    """Raises UserError if a file is not a complete zip archive. Keras does not check all of it."""
    try:
        with zipfile.ZipFile(path) as archive:
            part = archive.testzip()
    except OSError as error:
        raise FileError(f"Can't read {path}: {error.strerror or error}.") from error
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError) as error:
        part = error
    if part:
        raise ModelError(f"{path} is damaged ({part}): save the model again.")


def _unreadable(path: pathlib.Path, error: Exception) -> UserError:
    # The name is deep inside Keras's message.
    unknown = re.search(r"Could not locate (?:class|function) '([^']+)'", str(error))
    if unknown:
        return ModelError(
            f"{path} names {unknown[1]}, which is not known: register it with "
            "keras.saving.register_keras_serializable, and import its module first. A command "
            "can't import it: use t2aux.load or t2aux.export_model in a program."
        )
    return ModelError(f"Keras can't load {path} ({reason(error)}): save the model again.")
