"""TF Serving's messages, as far as a client and warm-up requests need them.

`tensorflow-serving-api` has the same, but importing any of it imports TensorFlow, which takes
seconds that a client has no use for, and `t2aux export` must work where it is not installed. The
messages here have the same fields with the same numbers, and so the same bytes; tests compare them
with those of `tensorflow-serving-api`. They live in a pool of their own and don't clash with it.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_Field = descriptor_pb2.FieldDescriptorProto
_TYPES = {
    "int32": _Field.TYPE_INT32,
    "int64": _Field.TYPE_INT64,
    "float": _Field.TYPE_FLOAT,
    "double": _Field.TYPE_DOUBLE,
    "string": _Field.TYPE_STRING,
    "bytes": _Field.TYPE_BYTES,
}
# Each field: its type, its name and its number. An enumeration is an int32 on the wire, and a
# message of which only the bytes are wanted may stand as `bytes`.
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
_MOST_VALUES = 1 << 26
_VALUES = {1: "float_val", 2: "double_val", 3: "int_val", _STRING: "string_val", 9: "int64_val"}


def _describe() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(
        name="t2aux/tf_serving/protos.proto", package=_PACKAGE, syntax="proto3"
    )
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field in fields:
            *repeated, kind, field_name, number = field.split()
            added = message.field.add(name=field_name, number=int(number))
            added.label = _Field.LABEL_REPEATED if repeated else _Field.LABEL_OPTIONAL
            if repeated == ["map"]:
                entry = "".join(part.title() for part in field_name.split("_")) + "Entry"
                nested = message.nested_type.add(name=entry)
                nested.options.map_entry = True
                nested.field.add(
                    name="key", number=1, type=_Field.TYPE_STRING, label=_Field.LABEL_OPTIONAL
                )
                _set_type(nested.field.add(name="value", number=2, label=1), kind)
                kind = f"{name}.{entry}"
            _set_type(added, kind)
    return file


def _set_type(field: Any, kind: str) -> None:
    if kind in _TYPES:
        field.type = _TYPES[kind]
    else:
        field.type = _Field.TYPE_MESSAGE
        field.type_name = f".{_PACKAGE}.{kind}"


_pool = descriptor_pool.DescriptorPool()
_pool.Add(_describe())


def _message(name: str) -> Any:
    return message_factory.GetMessageClass(_pool.FindMessageTypeByName(f"{_PACKAGE}.{name}"))


Tensor = _message("Tensor")
ModelSpec = _message("ModelSpec")
PredictRequest = _message("PredictRequest")
PredictResponse = _message("PredictResponse")
PredictionLog = _message("PredictionLog")
GetModelStatusRequest = _message("GetModelStatusRequest")
GetModelStatusResponse = _message("GetModelStatusResponse")


def to_tensor(array: np.ndarray) -> Any:
    """A `Tensor` of an array: of float32, float64, int32 or int64, or of str or bytes objects."""
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
    """A `Tensor` that holds one value everywhere, of the size of that value alone."""
    tensor = Tensor(dtype=next(n for n, d in _NUMPY_OF_DTYPE.items() if d == dtype))
    for size in shape:
        tensor.tensor_shape.dim.add(size=size)
    # Where there are fewer values than elements, the last one stands for the rest.
    getattr(tensor, _VALUES[tensor.dtype]).append(value)
    return tensor


def to_array(tensor: Any) -> np.ndarray:
    """The array of a `Tensor`; strings are bytes objects.

    Raises:
        ValueError: Its type is none of those that `to_tensor` knows, its values do not fill its
            shape, or they are more than any answer has.
    """
    shape = [dim.size for dim in tensor.tensor_shape.dim]
    # One value may stand for all, so a server could ask for any amount of memory.
    if min(shape, default=0) < 0 or math.prod(shape) > _MOST_VALUES:
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
