"""The messages of TF Serving that a client and warm-up requests need.

`tensorflow-serving-api` has the same messages, but importing it imports TensorFlow, which takes
seconds, and `t2aux export` must work without it. The messages here have the same fields with the
same numbers, and therefore the same bytes; tests compare them. A separate pool avoids conflicts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_Field = descriptor_pb2.FieldDescriptorProto
_SCALARS = ("int32", "int64", "float", "double", "string", "bytes", "bool")
# See `message_classes`. On the wire, an enumeration is an int32, and a message whose fields are not
# needed may be `bytes`.
_MESSAGES = {
    "Dim": ("int64 size 1",),
    "TensorShape": ("repeated Dim dim 2",),
    "Tensor": (
        "int32 dtype 1",
        "TensorShape tensor_shape 2",
        "bytes tensor_content 4",
        "repeated float float_val 5",
        "repeated double double_val 6",
        "repeated int32 int_val 7",
        "repeated bytes string_val 8",
        "repeated int64 int64_val 10",
    ),
    "Version": ("int64 value 1",),
    "ModelSpec": ("string name 1", "Version version 2", "string signature_name 3"),
    "PredictRequest": (
        "ModelSpec model_spec 1",
        "map Tensor inputs 2",
        "repeated string output_filter 3",
    ),
    "PredictResponse": ("map Tensor outputs 1", "ModelSpec model_spec 2"),
    "ExampleList": ("repeated bytes examples 1",),
    "Input": ("ExampleList example_list 1",),
    "ClassificationRequest": ("ModelSpec model_spec 1", "Input input 2"),
    "PredictLog": ("PredictRequest request 1",),
    "ClassifyLog": ("ClassificationRequest request 1",),
    "PredictionLog": ("ClassifyLog classify_log 2", "PredictLog predict_log 6"),
    "Status": ("int32 error_code 1", "string error_message 2"),
    "GetModelStatusRequest": ("ModelSpec model_spec 1",),
    "VersionStatus": ("int64 version 1", "int32 state 2", "Status status 3"),
    "GetModelStatusResponse": ("repeated VersionStatus model_version_status 1",),
}
_PACKAGE = "t2aux.tf_serving"

# The states of a version (ModelVersionStatus.State), by their names in the REST API.
STATES = {0: "UNKNOWN", 10: "START", 20: "LOADING", 30: "AVAILABLE", 40: "UNLOADING", 50: "END"}
# tensorflow.DataType.
_NUMPY_OF_DTYPE = {1: np.float32, 2: np.float64, 3: np.int32, 9: np.int64}
_STRING = 7
_MAX_VALUES = 1 << 26
_VALUES = {1: "float_val", 2: "double_val", 3: "int_val", _STRING: "string_val", 9: "int64_val"}


def message_classes(messages: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Makes classes of messages, in a separate pool.

    Args:
        messages: The fields of each message, by its name. A field is "[repeated | map] TYPE NAME
            NUMBER", where TYPE is a scalar type or one of the messages; a map's keys are strings.

    Returns:
        The classes by name.
    """
    file = descriptor_pb2.FileDescriptorProto(name="t2aux.proto", package=_PACKAGE, syntax="proto3")
    for name, fields in messages.items():
        message = file.message_type.add(name=name)
        for field in fields:
            *label, kind, field_name, number = field.split()
            if label == ["map"]:
                entry = "".join(part.title() for part in field_name.split("_")) + "Entry"
                nested = message.nested_type.add(name=entry)
                nested.options.map_entry = True
                _add_field(nested, "string", "key", 1)
                _add_field(nested, kind, "value", 2)
                kind = f"{name}.{entry}"
            _add_field(message, kind, field_name, int(number), repeated=bool(label))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}"))
        for name in messages
    }


def _add_field(
    message: descriptor_pb2.DescriptorProto,
    kind: str,
    name: str,
    number: int,
    repeated: bool = False,
) -> None:
    field = message.field.add(name=name, number=number)
    field.label = _Field.LABEL_REPEATED if repeated else _Field.LABEL_OPTIONAL
    if kind in _SCALARS:
        field.type = getattr(_Field, f"TYPE_{kind.upper()}")
    else:
        field.type, field.type_name = _Field.TYPE_MESSAGE, f".{_PACKAGE}.{kind}"


_classes = message_classes(_MESSAGES)
Tensor = _classes["Tensor"]
ModelSpec = _classes["ModelSpec"]
PredictRequest = _classes["PredictRequest"]
PredictResponse = _classes["PredictResponse"]
PredictionLog = _classes["PredictionLog"]
GetModelStatusRequest = _classes["GetModelStatusRequest"]
GetModelStatusResponse = _classes["GetModelStatusResponse"]


def to_tensor(array: np.ndarray) -> Any:
    """Makes a `Tensor` from an array of float32, float64, int32, int64, or str or bytes objects."""
    array = np.asarray(array)
    tensor = Tensor()
    for size in array.shape:
        tensor.tensor_shape.dim.add(size=size)
    if array.dtype.kind in "OSU":
        tensor.dtype = _STRING
        values = (v.encode() if isinstance(v, str) else v for v in array.ravel().tolist())
        tensor.string_val.extend(values)
        return tensor
    tensor.dtype = next(n for n, dtype in _NUMPY_OF_DTYPE.items() if dtype == array.dtype)
    tensor.tensor_content = array.astype(array.dtype.newbyteorder("<")).tobytes()
    return tensor


def filled_tensor(shape: tuple[int, ...], value: int | float, dtype: type) -> Any:
    """Makes a `Tensor` filled with one value, which is stored only once."""
    tensor = Tensor(dtype=next(n for n, d in _NUMPY_OF_DTYPE.items() if d == dtype))
    for size in shape:
        tensor.tensor_shape.dim.add(size=size)
    # If there are fewer values than elements, the last one is repeated.
    getattr(tensor, _VALUES[tensor.dtype]).append(value)
    return tensor


def to_array(tensor: Any) -> np.ndarray:
    """Converts a `Tensor` to an array; strings are bytes objects.

    Raises:
        ValueError: The type is not supported by `to_tensor`, the number of values does not match
            the shape, or the array would be larger than that of any response.
    """
    shape = [dim.size for dim in tensor.tensor_shape.dim]
    # One value may be repeated, so a server could request any amount of memory.
    if min(shape, default=0) < 0 or math.prod(shape) > _MAX_VALUES:
        raise ValueError(f"a tensor of the shape {shape[:10]}")
    if tensor.dtype not in _VALUES:
        raise ValueError(f"a tensor of the type {tensor.dtype}")
    dtype = np.dtype(_NUMPY_OF_DTYPE.get(tensor.dtype, object))
    if tensor.tensor_content:
        values = np.frombuffer(tensor.tensor_content, dtype.newbyteorder("<")).astype(dtype)
    else:
        values = np.array(list(getattr(tensor, _VALUES[tensor.dtype])), dtype)
    size = math.prod(shape)
    if 0 < len(values) < size:
        values = np.concatenate([values, np.full(size - len(values), values[-1], dtype)])
    return values.reshape(shape)
