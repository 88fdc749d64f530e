"""An export's description: metadata.json."""

from __future__ import annotations

import datetime
import importlib.metadata
import pathlib
import platform
from typing import Any

import numpy as np
import tensorflow as tf

import t2aux
from t2aux import logs, tf_serving
from t2aux.export import flatbuffer, saved_model
from t2aux.export.model import Model
from t2aux.export.variants import VARIANTS
from t2aux.model import inference
from t2aux_ondevice import litert

_PACKAGES = (
    "tensorflow",
    "keras",
    "tensorflow-text",
    "tensorflow-datasets",
    "ai-edge-litert",
    "gin-config",
    "numpy",
)


def describe(model: Model, directory: pathlib.Path, name: str = "classifier") -> dict[str, Any]:
    """Describes an export whose artefacts are written.

    Args:
        model: The exported model.
        directory: A directory that contains only the artefacts.
        name: The name of the model.

    Returns:
        The content of metadata.json:
        format, format_version: "t2aux-export" and 1.
        name: The name of the model.
        created: The time of the export in UTC.
        kind, classes: The kind of the data ("image", "text", "vectors" or "ids"), and the names of
            the classes by label.
        preprocessing: `DatasetInfo.to_json()`.
        state: The shapes of the tensors of the core's state, without the batch, by their names in
            the streaming signatures.
        model: The input layer, the core's class and the sizes; and, if the artefacts normalise
            their inputs, `normalization`, the mean and the deviation of each channel.
        artefacts: By name, the tensors of each signature with shapes (null: any size) and types
            (for a SavedModel, also TF Serving's method and the path of the warm-up requests). For a
            TensorFlow Lite file, its form and variant (`t2aux.export.tflite`), the steps per call
            of the stateful form, its operations, and the number of values of its matrices by
            storage type.
        files: The sizes in bytes and the SHA-256 of the artefacts' files, by relative path.
        checkpoint: For a run, the checkpoint's name and step, the run's name and, if the run has a
            validation set, a note that says whether it is the best one.
        configuration: For a run, its configuration as gin text.
        packages: The versions of the packages that made the export.
    """
    normalization = {}
    if model.info.mean is not None:
        values = {"mean": list(model.info.mean), "deviation": list(model.info.deviation)}
        normalization["normalization"] = values
    return {
        **litert.description(model.info, inference.state_shapes(model.core)),
        "name": name,
        "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "model": {
            "input_layer": type(model.input_layer).__name__,
            "input_size": model.input_layer.output_size,
            "core": inference.name_of(model.core),
            "hidden_size": model.classifier.hidden_size,
            "head_size": int(model.head.hidden_bias.shape[0]),
            "classes": model.info.num_classes,
            "weights": int(sum(np.prod(w.shape) for part in model.parts for w in part.weights)),
            **normalization,
        },
        "artefacts": _artefacts(directory),
        "files": {
            path.relative_to(directory).as_posix(): litert.digest(path.read_bytes())
            for path in sorted(directory.rglob("*"))
            if path.is_file()
        },
        **model.origin,
        "packages": {
            "t2aux": t2aux.__version__,
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in _PACKAGES},
        },
    }


def _artefacts(directory: pathlib.Path) -> dict[str, Any]:
    described: dict[str, Any] = {}
    if (directory / "saved_model.pb").exists():
        described["SavedModel"] = {"signatures": _signatures(directory)}
        if (directory / tf_serving.WARM_UP).exists():
            described["SavedModel"]["warmup"] = tf_serving.WARM_UP
    for variant in VARIANTS.values():
        for form in variant.forms:
            path = directory / litert.file_name(form, variant.name)
            if path.exists():
                described[path.name] = _tflite(path, form, variant.name)
    return described


def _tflite(path: pathlib.Path, form: str, variant: str) -> dict[str, Any]:
    with logs.quiet_libraries():
        model = litert.LiteRTModel(path)
    content = path.read_bytes()
    described = {
        "form": form,
        "variant": variant,
        "signatures": {
            "serving_default": {
                "inputs": _litert_tensors(model.inputs),
                "outputs": _litert_tensors(model.outputs),
            }
        },
        "operators": flatbuffer.operators(content),
        "weights": {kind: sum(n) for kind, n in flatbuffer.weights(content).items()},
    }
    if form == litert.STATEFUL_FORM:
        described["segment"] = int(model.inputs["segment"]["shape"][1])
    return described


def _signatures(directory: pathlib.Path) -> dict[str, Any]:
    """Reads the signatures from the SavedModel itself."""
    loaded = saved_model.read_signatures(directory)
    return {
        name: {
            "method": signature.method_name,
            "inputs": _tensors(signature.inputs),
            "outputs": _tensors(signature.outputs),
        }
        for name, signature in sorted(loaded.items())
    }


def _tensors(infos: Any) -> dict[str, Any]:
    return {
        name: {
            "shape": tf.TensorShape(info.tensor_shape).as_list(),
            "dtype": tf.as_dtype(info.dtype).name,
        }
        for name, info in sorted(infos.items())
    }


def _litert_tensors(details: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return {
        name: {
            "shape": [None if d < 0 else int(d) for d in detail["shape_signature"]],
            "dtype": np.dtype(detail["dtype"]).name,
        }
        for name, detail in sorted(details.items())
    }
