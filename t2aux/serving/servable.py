"""One version of a model: a SavedModel with its signatures."""

from __future__ import annotations

import json
import os
import pathlib
import re
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2

from t2aux import files, tf_serving
from t2aux.errors import UserError
from t2aux.serving.signature import DEFAULT_SIGNATURE, Signature
from t2aux.serving.status import ServingError, invalid
from t2aux_ondevice import litert
from t2aux_ondevice.preprocessing import DatasetInfo

# The signature of an export that returns its description.
_DESCRIBE = "describe"
# The text around the reason in TensorFlow's messages: whole lines, and parts of the reason's line.
_NO_REASON = (
    "Graph execution error",
    "Detected at",
    "<stack traces",
    "Stack trace",
    'File "',
    "Traceback",
    "[[",
)
_AROUND = re.compile(
    r"^\d+ root error\(s\) found\.|^\(\d+\) [A-Z_]+:|\{\{function_node [^}]*\}\}|\[\[.*$|"
    r"\[Op:\w+\].*$"
)
_MAX_LENGTH = 500
_CODES = {
    tf.errors.InvalidArgumentError: "INVALID_ARGUMENT",
    tf.errors.ResourceExhaustedError: "RESOURCE_EXHAUSTED",
}


class Servable:
    """A loaded version.

    Attributes:
        name: The model's name.
        version: The version's number.
        signature_defs: The SignatureDefs of the SavedModel, by name.
        signatures: The signatures that can be called.
    """

    def __init__(self, name: str, version: int, directory: pathlib.Path) -> None:
        """Loads a SavedModel.

        Args:
            name: The model's name.
            version: The version's number.
            directory: The folder with saved_model.pb.

        Raises:
            ServingError: The SavedModel is missing or damaged.
        """
        self.name = name
        self.version = version
        self._directory = directory
        try:
            content = (directory / "saved_model.pb").read_bytes()
            graph = saved_model_pb2.SavedModel.FromString(content).meta_graphs[0]
            with files.for_tensorflow(directory) as folder:
                self._module = _load(folder)
        except Exception as error:  # TensorFlow reports damage by any exception.
            raise _failed(f"Can't load the SavedModel in {directory}", error) from error
        self.signature_defs: dict[str, meta_graph_pb2.SignatureDef] = {
            n: s for n, s in graph.signature_def.items() if not n.startswith("__")
        }
        info = self._info()
        self.signatures = {
            n: Signature(n, s.method_name, _specs(s.inputs), _specs(s.outputs), info)
            for n, s in self.signature_defs.items()
        }

    def _info(self) -> DatasetInfo | None:
        """The description of the model's data, if its graph contains it."""
        if _DESCRIBE not in self.signature_defs:
            return None
        try:
            answer = self._module.signatures[_DESCRIBE](batch=tf.zeros([1], tf.int32))
            described = json.loads(answer["metadata"].numpy()[0])
            return litert.check_description(described, self._directory)
        except (UserError, ValueError, LookupError, TypeError, tf.errors.OpError):
            return None  # Another model's signature of that name.

    def signature(self, name: str, missing: str = "INVALID_ARGUMENT") -> Signature:
        """A signature by its name.

        Args:
            name: The signature's name; "" for the default one.
            missing: The code of the error if the signature does not exist.

        Raises:
            ServingError: The signature does not exist.
        """
        name = name or DEFAULT_SIGNATURE
        if name not in self.signatures:
            raise ServingError(missing, f'Serving signature key "{name}" not found.')
        return self.signatures[name]

    def run(self, signature: Signature, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Runs a signature on checked inputs.

        Raises:
            ServingError: The graph rejects the inputs, or fails.
        """
        tensors = {n: tf.constant(v, signature.inputs[n].dtype) for n, v in inputs.items()}
        try:
            answers = self._module.signatures[signature.name](**tensors)
            return {name: value.numpy() for name, value in answers.items()}
        except UnicodeDecodeError as error:  # TensorFlow quotes bytes that are not text.
            raise invalid("The values are not valid text.") from error
        except tf.errors.OpError as error:
            code = _CODES.get(type(error), "INTERNAL")
            raise ServingError(
                code, _first_sentence(error.message) or "The model failed."
            ) from error

    def warm_up(self) -> int:
        """Runs the warm-up requests of the SavedModel, and returns their number.

        Raises:
            ServingError: A request fails, or the requests can't be read.
        """
        path = self._directory / tf_serving.WARM_UP
        if not path.is_file():
            return 0
        try:
            return self._run_records(path)
        except Exception as error:  # TensorFlow reports damage by any exception.
            raise _failed(f"Can't run the warm-up requests in {path}", error) from error

    def _run_records(self, path: pathlib.Path) -> int:
        from tensorflow_serving.apis import prediction_log_pb2

        count = 0
        with files.for_tensorflow(path.parent) as folder:
            dataset = tf.data.TFRecordDataset(os.path.join(folder, path.name))
            for record in dataset.as_numpy_iterator():
                log = prediction_log_pb2.PredictionLog.FromString(record)
                kind = log.WhichOneof("log_type")
                if kind == "predict_log":
                    request = log.predict_log.request
                    inputs = {n: tf.make_ndarray(t) for n, t in request.inputs.items()}
                elif kind == "classify_log":
                    request = log.classify_log.request
                    examples = [e.SerializeToString() for e in request.input.example_list.examples]
                    inputs = {"inputs": np.array(examples, object)}
                else:
                    continue
                self.run(self.signature(request.model_spec.signature_name), inputs)
                count += 1
        return count


def _load(directory: str) -> Any:
    try:
        return tf.saved_model.load(directory)
    except (RuntimeError, tf.errors.NotFoundError) as error:
        # A text classifier needs the operations of tensorflow-text, which takes seconds to import.
        if "registered" not in str(error) and "Op type" not in str(error):
            raise
        import tensorflow_text  # noqa: F401

        return tf.saved_model.load(directory)


def _specs(infos: Any) -> dict[str, tf.TensorSpec]:
    return {n: tf.TensorSpec(tf.TensorShape(i.tensor_shape), i.dtype) for n, i in infos.items()}


def _failed(what: str, error: Exception) -> ServingError:
    reason = _first_sentence(str(error)) or type(error).__name__
    return ServingError("FAILED_PRECONDITION", f"{what}: {reason}")


def _first_sentence(message: str) -> str:
    """The reason in an operation's error, without the names of nodes; "" if there is none."""
    # The message of an assertion comes first in its output.
    found = re.search(r"assertion failed: \[(.*?)\]", message)
    if found:
        return found[1].rstrip(". ") + "."
    for line in map(str.strip, message.splitlines()):
        line = _AROUND.sub("", line).strip()
        if line and not line.startswith(_NO_REASON):
            return line[:_MAX_LENGTH]
    return ""
