"""Converts between TensorProto messages and arrays, like TF Serving."""

from __future__ import annotations

import math

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2, types_pb2

from t2aux.serving.status import ServingError, invalid

# The supported types, with the field that holds their individual values.
_FIELDS = {
    "half_val": (tf.float16,),
    "float_val": (tf.float32,),
    "double_val": (tf.float64,),
    "int_val": (tf.int8, tf.uint8, tf.int16, tf.uint16, tf.int32),
    "uint32_val": (tf.uint32,),
    "int64_val": (tf.int64,),
    "uint64_val": (tf.uint64,),
    "bool_val": (tf.bool,),
    "string_val": (tf.string,),
}
_FIELD_OF_TYPE = {t.as_datatype_enum: field for field, types in _FIELDS.items() for t in types}
# Every version of numpy supports at least this many dimensions.
_MAX_RANK = 32


def to_array(tensor: tensor_pb2.TensorProto, name: str, max_bytes: int) -> np.ndarray:
    """Reads a tensor with `tf.make_ndarray`, which itself does not limit the size.

    Args:
        tensor: A tensor with `tensor_content` or with individual values; if these are fewer than
            the shape requires, the last one is repeated.
        name: The name of the tensor in messages.
        max_bytes: The maximum size of the array in bytes.

    Returns:
        The values; strings are bytes in an array of objects.

    Raises:
        ServingError: INVALID_ARGUMENT: the message is not a valid tensor, or is too large.
    """
    if tensor.dtype not in _FIELD_OF_TYPE:
        raise _wrong(name, f"its type is {_type_name(tensor.dtype)}")
    shape = [dimension.size for dimension in tensor.tensor_shape.dim]
    if tensor.tensor_shape.unknown_rank or min(shape, default=0) < 0:
        raise _wrong(name, "its shape is not known")
    count = math.prod(shape)
    size = count * np.dtype(tf.as_dtype(tensor.dtype).as_numpy_dtype).itemsize
    if size > max_bytes or len(shape) > _MAX_RANK:
        raise _wrong(name, f"its shape {shape} is more than the {max_bytes:,} bytes allowed")
    if tensor.tensor_content:
        if tensor.dtype == types_pb2.DT_STRING or len(tensor.tensor_content) != size:
            raise _wrong(name, "its tensor_content does not have the size of its shape")
        return tf.make_ndarray(tensor)
    values = getattr(tensor, _FIELD_OF_TYPE[tensor.dtype])
    if len(values) > count:
        raise _wrong(name, f"it has {len(values)} values, its shape {count}")
    if tensor.dtype == types_pb2.DT_STRING and not values:
        return np.full(shape, b"", object)  # `make_ndarray` would return str.
    try:
        return tf.make_ndarray(tensor)
    except OverflowError as error:
        raise _wrong(name, f"a value is not {_type_name(tensor.dtype)}") from error


def to_proto(array: np.ndarray) -> tensor_pb2.TensorProto:
    """Writes an array as individual values, like TF Serving, since clients may read `float_val`."""
    proto = tensor_pb2.TensorProto(
        dtype=tf.as_dtype(array.dtype).as_datatype_enum,
        tensor_shape=tf.TensorShape(array.shape).as_proto(),
    )
    values = array.view(np.uint16) if array.dtype == np.float16 else array
    getattr(proto, _FIELD_OF_TYPE[proto.dtype]).extend(values.ravel().tolist())
    return proto


def _type_name(number: int) -> str:
    """The name of a DataType in TensorFlow's messages: "float", "int32"."""
    name = types_pb2.DataType.Name(number) if number in types_pb2.DataType.values() else "unknown"
    return name.removeprefix("DT_").lower()


def _wrong(name: str, why: str) -> ServingError:
    return invalid(f"tensor parsing error: {name}: {why}.")
