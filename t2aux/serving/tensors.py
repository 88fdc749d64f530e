"""TensorProto messages to arrays and back, as TF Serving reads and writes them."""

from __future__ import annotations

import math

import numpy as np
from tensorflow.core.framework import tensor_pb2, types_pb2

from t2aux.serving.status import ServingError, invalid

# By DataType: the array's type, and the field that holds values one by one.
_KINDS = {
    types_pb2.DT_HALF: (np.float16, "half_val"),
    types_pb2.DT_FLOAT: (np.float32, "float_val"),
    types_pb2.DT_DOUBLE: (np.float64, "double_val"),
    types_pb2.DT_INT8: (np.int8, "int_val"),
    types_pb2.DT_UINT8: (np.uint8, "int_val"),
    types_pb2.DT_INT16: (np.int16, "int_val"),
    types_pb2.DT_UINT16: (np.uint16, "int_val"),
    types_pb2.DT_INT32: (np.int32, "int_val"),
    types_pb2.DT_UINT32: (np.uint32, "uint32_val"),
    types_pb2.DT_INT64: (np.int64, "int64_val"),
    types_pb2.DT_UINT64: (np.uint64, "uint64_val"),
    types_pb2.DT_BOOL: (np.bool_, "bool_val"),
    types_pb2.DT_STRING: (np.object_, "string_val"),
}
_BY_ARRAY = {np.dtype(kind): number for number, (kind, _) in _KINDS.items()}


def type_name(number: int) -> str:
    """A DataType as TensorFlow writes it in messages: "float", "int32"."""
    name = types_pb2.DataType.Name(number) if number in types_pb2.DataType.values() else "unknown"
    return name.removeprefix("DT_").lower()


def array_type(number: int) -> np.dtype | None:
    """The array's type of a DataType, or None where there is none here."""
    return np.dtype(_KINDS[number][0]) if number in _KINDS else None


def to_array(tensor: tensor_pb2.TensorProto, name: str, most_bytes: int) -> np.ndarray:
    """Reads a tensor.

    Args:
        tensor: Values in `tensor_content` or one by one; where there are fewer than the shape says,
            the last one is repeated.
        name: What to call it in messages.
        most_bytes: The most that it may take.

    Returns:
        The values; strings as bytes in an array of objects.

    Raises:
        ServingError: INVALID_ARGUMENT: it is no tensor, or too large.
    """
    kind = _KINDS.get(tensor.dtype)
    if kind is None:
        raise _wrong(name, f"its type is {type_name(tensor.dtype)}")
    dtype, field = kind
    shape = tuple(dimension.size for dimension in tensor.tensor_shape.dim)
    if tensor.tensor_shape.unknown_rank or any(size < 0 for size in shape):
        raise _wrong(name, "its shape is not known")
    count = math.prod(shape)
    if count * np.dtype(dtype).itemsize > most_bytes or len(shape) > 32:
        raise _wrong(name, f"its shape {list(shape)} is more than the {most_bytes:,} bytes allowed")
    content = tensor.tensor_content
    if content:
        if dtype is np.object_ or len(content) != count * np.dtype(dtype).itemsize:
            raise _wrong(name, "its tensor_content does not have the size of its shape")
        # A copy: the batcher may write into it, and it may outlive the message.
        return np.frombuffer(content, np.dtype(dtype).newbyteorder("<")).reshape(shape).copy()
    values = getattr(tensor, field)
    if len(values) > count:
        raise _wrong(name, f"it has {len(values)} values, its shape {count}")
    if dtype is np.object_:
        array = np.empty([count], np.object_)
        array[: len(values)] = values
        array[len(values) :] = values[-1] if values else b""
        return array.reshape(shape)
    if field == "half_val":  # Their bits.
        wide = np.fromiter((v & 0xFFFF for v in values), np.uint16, len(values)).view(dtype)
    else:
        wide = np.fromiter(values, np.int64 if field == "int_val" else dtype, len(values))
    if field == "int_val":
        limits = np.iinfo(dtype)
        if len(wide) and (wide.min() < limits.min or wide.max() > limits.max):
            raise _wrong(name, f"a value is no {type_name(tensor.dtype)}")
    array = np.empty([count], dtype)
    array[: len(wide)] = wide
    array[len(wide) :] = wide[-1] if len(wide) else 0
    return array.reshape(shape)


def to_proto(array: np.ndarray) -> tensor_pb2.TensorProto:
    """Writes an array, value by value, as TF Serving does: clients may read `float_val`."""
    number = _BY_ARRAY.get(array.dtype)
    if number is None:
        raise TypeError(f"no TensorProto for {array.dtype}")
    proto = tensor_pb2.TensorProto(dtype=number)
    for size in array.shape:
        proto.tensor_shape.dim.add(size=size)
    values = array.ravel()
    if number == types_pb2.DT_HALF:
        values = values.view(np.uint16)
    getattr(proto, _KINDS[number][1]).extend(values.tolist())
    return proto


def _wrong(name: str, why: str) -> ServingError:
    return invalid(f"tensor parsing error: {name}: {why}.")
