"""One version of a model: a SavedModel with its signatures."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.example import example_pb2
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2

from t2aux import files
from t2aux.serving.status import ServingError, invalid

DEFAULT_SIGNATURE = "serving_default"
CLASSIFY = "tensorflow/serving/classify"
# Its segments may be empty for sequences that have ended.
_SEGMENTS = "step_segment"
_WARM_UP = pathlib.Path("assets.extra") / "tf_serving_warmup_requests"


@dataclasses.dataclass(frozen=True)
class TensorSpec:
    """A signature's input or output.

    Attributes:
        shape: With None for a dimension of any size; None where the rank is any, too.
        dtype: TensorFlow's.
    """

    shape: tuple[int | None, ...] | None
    dtype: tf.DType

    @property
    def numpy_dtype(self) -> type:
        """Of the arrays that stand for it; object for strings."""
        return object if self.dtype == tf.string else self.dtype.as_numpy_dtype


@dataclasses.dataclass(frozen=True)
class Signature:
    """What a client can call.

    Attributes:
        name: Its name.
        method_name: What it is for: TensorFlow Serving's predict or classify.
        inputs: By name.
        outputs: By name.
        batches: Whether requests may be put together along dimension 0.
    """

    name: str
    method_name: str
    inputs: dict[str, TensorSpec]
    outputs: dict[str, TensorSpec]

    @property
    def batches(self) -> bool:
        """Whether dimension 0 of every input and output is the batch."""
        specs = [*self.inputs.values(), *self.outputs.values()]
        return bool(self.inputs) and all(s.shape and s.shape[0] is None for s in specs)

    @property
    def pads(self) -> bool:
        """Whether sequences of different lengths may be put together, since lengths are sent."""
        return "lengths" in self.inputs

    @property
    def sequences(self) -> str | None:
        """The input [B, T, ...] that `lengths` is of; None where there is none."""
        if not (self.pads and self.batches):
            return None
        found = [n for n, s in self.inputs.items() if s.shape and s.shape[:2] == (None, None)]
        return found[0] if len(found) == 1 else None

    def check(self, inputs: dict[str, np.ndarray]) -> None:
        """Checks a request's tensors.

        Args:
            inputs: By name; strings as arrays of objects. What is behind a sequence's length
                becomes 0.

        Raises:
            ServingError: Names, types, shapes or lengths are wrong, or a value is NaN or infinite.
        """
        extra, missing = (
            sorted(set(inputs) - set(self.inputs)),
            sorted(set(self.inputs) - {*inputs}),
        )
        if extra or missing:
            raise invalid(
                f"input size does not match signature {self.name!r}: {len(inputs)} != "
                f"{len(self.inputs)}. Sent extra: {{{', '.join(extra)}}}. Missing but required: "
                f"{{{', '.join(missing)}}}."
            )
        for name, value in inputs.items():
            self._check_one(name, value, self.inputs[name])
        if self.batches:
            sizes = {name: value.shape[0] for name, value in inputs.items()}
            if len(set(sizes.values())) > 1:
                raise invalid(
                    f"The inputs of {self.name!r} differ in dimension 0, the batch: {sizes}."
                )
            if not all(sizes.values()):
                raise invalid(f"The batch of {self.name!r} is empty: send at least one sequence.")
        self._check_lengths(inputs)
        if self.method_name == CLASSIFY:
            _check_examples(inputs)
        for name, value in inputs.items():
            # TensorFlow Serving computes with them, and answers NaN.
            if value.dtype.kind == "f" and not np.isfinite(value).all():
                raise invalid(f"Input {name!r} of {self.name!r} holds NaN or an infinite value.")

    def _check_lengths(self, inputs: dict[str, np.ndarray]) -> None:
        """Checks lengths before a batch is run for others, too; clears what is behind them."""
        name = self.sequences
        if name is None:
            return
        sequences, lengths = inputs[name], inputs["lengths"]
        least, steps = 0 if self.name == _SEGMENTS else 1, sequences.shape[1]
        if lengths.min() < least:
            raise invalid(f"A length is less than {least}, the least there may be.")
        if lengths.max() > steps:
            raise invalid("A length is more than the number of steps given.")
        if lengths.min() < steps:
            # It does not matter, whatever it is; NaN would be refused.
            sequences = sequences.copy()
            sequences[np.arange(steps) >= lengths[:, np.newaxis]] = 0
            inputs[name] = sequences

    def _check_one(self, name: str, value: np.ndarray, spec: TensorSpec) -> None:
        if value.dtype != spec.numpy_dtype:
            raise invalid(
                f"Input {name!r} of {self.name!r} is {value.dtype.name}, expected "
                f"{spec.dtype.name}."
            )
        if spec.shape is not None and (
            value.ndim != len(spec.shape)
            or any(w not in (None, n) for n, w in zip(value.shape, spec.shape, strict=True))
        ):
            wanted = [-1 if n is None else n for n in spec.shape]
            raise invalid(
                f"Input {name!r} of {self.name!r} has the shape {list(value.shape)}, expected "
                f"{wanted}."
            )


class Servable:
    """A loaded version.

    Attributes:
        name: The model's.
        version: Its number.
        signature_defs: The SavedModel's messages, by name.
        signatures: What can be called.
    """

    def __init__(self, name: str, version: int, directory: pathlib.Path) -> None:
        """Loads a SavedModel.

        Args:
            name: The model's.
            version: Its number.
            directory: With saved_model.pb.

        Raises:
            ServingError: It is missing or damaged.
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
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise ServingError(
                "FAILED_PRECONDITION", f"Can't load the SavedModel in {directory}: {reason}"
            ) from error
        self.signature_defs: dict[str, meta_graph_pb2.SignatureDef] = {
            n: s for n, s in graph.signature_def.items() if not n.startswith("__")
        }
        self.signatures = {
            n: Signature(n, s.method_name, _specs(s.inputs), _specs(s.outputs))
            for n, s in self.signature_defs.items()
        }

    def signature(self, name: str, missing: str = "INVALID_ARGUMENT") -> Signature:
        """A signature by its name.

        Args:
            name: The signature's; the default one for "".
            missing: The code of the error where there is no such signature.

        Raises:
            ServingError: There is none.
        """
        name = name or DEFAULT_SIGNATURE
        if name not in self.signatures:
            raise ServingError(missing, f'Serving signature key "{name}" not found.')
        return self.signatures[name]

    def run(self, signature: Signature, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Runs a signature on checked inputs.

        Raises:
            ServingError: The graph refuses them, or fails.
        """
        tensors = {n: tf.constant(v, signature.inputs[n].dtype) for n, v in inputs.items()}
        try:
            answers = self._module.signatures[signature.name](**tensors)
            return {name: value.numpy() for name, value in answers.items()}
        except tf.errors.OpError as error:
            code = type(error).__name__.removesuffix("Error")
            message = _first_sentence(error.message)
            if code == "InvalidArgument":
                raise invalid(message) from error
            if code == "ResourceExhausted":
                raise ServingError("RESOURCE_EXHAUSTED", message) from error
            raise ServingError("INTERNAL", message) from error

    def warm_up(self) -> int:
        """Runs the warm-up requests that came with the SavedModel; returns how many.

        Raises:
            ServingError: One fails.
        """
        path = self._directory / _WARM_UP
        if not path.is_file():
            return 0
        from tensorflow_serving.apis import prediction_log_pb2

        count = 0
        for record in _records(path):
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


def _records(path: pathlib.Path) -> Iterator[bytes]:
    with files.for_tensorflow(path.parent) as folder:
        yield from tf.data.TFRecordDataset(os.path.join(folder, path.name)).as_numpy_iterator()


def _check_examples(inputs: dict[str, np.ndarray]) -> None:
    """Checks tf.Examples: TensorFlow would fail to quote their bytes as text."""
    for content in np.concatenate([value.reshape(-1) for value in inputs.values()]):
        try:
            example_pb2.Example.FromString(content)
        except DecodeError as error:
            raise invalid("Could not parse example input: it is no tf.Example.") from error


def _load(directory: str) -> Any:
    try:
        return tf.saved_model.load(directory)
    except (RuntimeError, tf.errors.NotFoundError) as error:
        # A text classifier has operations of tensorflow-text, which takes seconds to import.
        if "registered" not in str(error) and "Op type" not in str(error):
            raise
        import tensorflow_text  # noqa: F401

        return tf.saved_model.load(directory)


def _specs(infos: Any) -> dict[str, TensorSpec]:
    return {
        name: TensorSpec(
            None
            if info.tensor_shape.unknown_rank
            else tuple(None if d.size < 0 else d.size for d in info.tensor_shape.dim),
            tf.as_dtype(info.dtype),
        )
        for name, info in infos.items()
    }


def _first_sentence(message: str) -> str:
    """What a failed operation says, without the names of nodes around it."""
    # An assertion's own words come first in what it prints.
    found = re.search(r"assertion failed: \[(.*?)\]", message)
    if found:
        return found[1].rstrip(". ") + "."
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    lines = [
        line for line in lines if not line.startswith(("Graph execution error", "Detected at"))
    ]
    return lines[0].split(" [[")[0] if lines else "The graph failed."
