"""The signatures that clients can call, and the checks of a request before it joins a batch."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.example import example_pb2

from t2aux.serving.status import ServingError, invalid
from t2aux_ondevice.preprocessing import DatasetInfo

DEFAULT_SIGNATURE = "serving_default"
CLASSIFY = "tensorflow/serving/classify"
# Methods whose input is serialized tf.Examples.
_OF_EXAMPLES = (CLASSIFY, "tensorflow/serving/regress")
# The segments of its input may be empty for sequences that have ended.
_SEGMENTS = "step_segment"
# Keyed by the field of a tf.Example's feature.
_KINDS = {
    "bytes_list": "strings (bytes)",
    "float_list": "numbers with a decimal point (float)",
    "int64_list": "whole numbers (int64)",
}


@dataclasses.dataclass(frozen=True)
class Signature:
    """A signature that clients can call.

    Attributes:
        name: The name of the signature.
        method_name: Its method: TensorFlow Serving's predict or classify.
        inputs: The inputs by name.
        outputs: The outputs by name.
        info: The description of the model's data, if the model provides it, as exports of t2aux do.
    """

    name: str
    method_name: str
    inputs: dict[str, tf.TensorSpec]
    outputs: dict[str, tf.TensorSpec]
    info: DatasetInfo | None = None

    @property
    def batches(self) -> bool:
        """Whether dimension 0 of every input and output is the batch."""
        specs = [*self.inputs.values(), *self.outputs.values()]
        return bool(self.inputs) and all(s.shape.rank and s.shape[0] is None for s in specs)

    @property
    def pads(self) -> bool:
        """Whether sequences of different lengths may share a batch: lengths are an input."""
        return "lengths" in self.inputs

    @property
    def reads_examples(self) -> bool:
        """Whether the input is serialized tf.Examples."""
        return self.method_name in _OF_EXAMPLES

    @property
    def sequences(self) -> str | None:
        """The name of the input [B, T, ...] that `lengths` refers to, or None."""
        if not (self.pads and self.batches):
            return None
        found = [n for n, s in self.inputs.items() if s.shape[:2].as_list() == [None, None]]
        return found[0] if len(found) == 1 else None

    def check(self, inputs: dict[str, np.ndarray]) -> None:
        """Checks a request's tensors.

        Args:
            inputs: The inputs by name; strings are arrays of objects. Steps after a sequence's
                length are set to 0.

        Raises:
            ServingError: Names, types, shapes or lengths are wrong, or a value is NaN or infinite.
        """
        extra = sorted(inputs.keys() - self.inputs)
        missing = sorted(self.inputs.keys() - inputs)
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
                raise invalid(f"The inputs of {self.name!r} differ in their batch sizes: {sizes}.")
            if not all(sizes.values()):
                raise invalid(f"The batch of {self.name!r} is empty: send at least one sequence.")
        self._check_lengths(inputs)
        for name, value in inputs.items():
            if self.reads_examples and value.dtype == object:
                check_examples(value.flat, self.info)
            # TensorFlow Serving would return NaN.
            if value.dtype.kind == "f" and not np.isfinite(value).all():
                raise invalid(f"Input {name!r} of {self.name!r} holds NaN or an infinite value.")
        self._check_steps(inputs)

    def check_answer(self, outputs: dict[str, np.ndarray]) -> None:
        """Checks that outputs are finite, as required by JSON.

        Raises:
            ServingError: A number is NaN or infinite.
        """
        for name, value in outputs.items():
            if value.dtype.kind == "f" and not np.isfinite(value).all():
                raise invalid(
                    f"The output {name!r} of {self.name!r} is NaN or infinite: the values are too "
                    "large for the model."
                )

    def _check_lengths(self, inputs: dict[str, np.ndarray]) -> None:
        """Checks lengths before the request joins a batch, and sets the padding to 0."""
        name = self.sequences
        if name is None:
            return
        sequences, lengths = inputs[name], inputs["lengths"]
        minimum, steps = 0 if self.name == _SEGMENTS else 1, sequences.shape[1]
        if lengths.min() < minimum:
            raise invalid(f"A length is {lengths.min()} and must be at least {minimum}.")
        if lengths.max() > steps:
            raise invalid(f"A length is {lengths.max()}, more than the steps given, {steps}.")
        if lengths.min() < steps:
            # Padding may hold any value, but NaN would be rejected.
            sequences = sequences.copy()
            sequences[np.arange(steps) >= lengths[:, np.newaxis]] = 0
            inputs[name] = sequences

    def _check_steps(self, inputs: dict[str, np.ndarray]) -> None:
        """Checks that sequences have the length that the model requires, if any.

        A segment of a sequence must not be longer than that.
        """
        if self.info is None or self.info.length is None or self.sequences is None:
            return
        lengths = inputs["lengths"]
        if self.name == _SEGMENTS:
            if lengths.max() > self.info.length:
                raise _wrong_length(lengths.max(), self.info.length)
        elif self.name == DEFAULT_SIGNATURE:
            for length in lengths[lengths != self.info.length]:
                raise _wrong_length(length, self.info.length)

    def _check_one(self, name: str, value: np.ndarray, spec: tf.TensorSpec) -> None:
        if value.dtype != spec.dtype.as_numpy_dtype:
            found = "string" if value.dtype == object else value.dtype.name
            raise invalid(
                f"Input {name!r} of {self.name!r} is {found}, expected {spec.dtype.name}."
            )
        if not spec.shape.is_compatible_with(value.shape):
            found, wanted = list(value.shape), [-1 if n is None else n for n in spec.shape]
            raise invalid(
                f"Input {name!r} of {self.name!r} has the shape {found}, expected {wanted}."
            )


def check_examples(contents: Iterable[bytes], info: DatasetInfo | None) -> None:
    """Checks serialized tf.Examples, with more helpful messages than TensorFlow's.

    Args:
        contents: The serialized examples.
        info: The description of the model's data. None if unknown; then only non-finite values are
            rejected.

    Raises:
        ServingError: A content is not a tf.Example, or a feature has the wrong type, holds NaN or
            an infinite value, or does not have the length that the model requires.
    """
    kinds = {} if info is None else {"inputs": "int64_list" if info.reads_ids else "float_list"}
    if info is not None and info.is_text:
        kinds["text"] = "bytes_list"
    for content in contents:
        try:
            features = example_pb2.Example.FromString(content).features.feature
        except DecodeError as error:
            raise invalid("Could not parse example input: it is not a tf.Example.") from error
        for name in features if info is None else kinds:
            if name not in features:
                continue  # The graph will report a missing feature.
            feature = features[name]
            kind = feature.WhichOneof("kind")
            wanted = kinds.get(name, kind)
            if kind not in (None, wanted):
                raise invalid(
                    f"The feature {name!r} holds {_KINDS[kind]} and must hold {_KINDS[wanted]}."
                )
            if kind == "float_list":
                values = np.fromiter(feature.float_list.value, np.float32)
                if not np.isfinite(values).all():
                    raise invalid(f"The feature {name!r} holds NaN or an infinite value.")
                if info is not None and info.length is not None:
                    steps, rest = divmod(len(values), info.channels)
                    if steps and not rest and steps != info.length:
                        raise _wrong_length(steps, info.length)


def _wrong_length(steps: int, wanted: int) -> ServingError:
    plural = "" if steps == 1 else "s"
    return invalid(f"A sequence has {steps} step{plural} where the classifier reads {wanted}.")
