"""TensorProto messages to arrays and back, as TF Serving reads and writes them."""

from __future__ import annotations

import math

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2, types_pb2

from t2aux.serving.status import ServingError, invalid

# The types that are read, by the field that holds their values one by one.
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
# numpy's arrays have at least so many dimensions, in every version of it.
_MAX_RANK = 32


def to_array(tensor: tensor_pb2.TensorProto, name: str, max_bytes: int) -> np.ndarray:
    """Reads a tensor with `tf.make_ndarray`, which itself allocates any size.

    Args:
        tensor: Values in `tensor_content` or one by one; where there are fewer than the shape says,
            the last one is repeated.
        name: What to call it in messages.
        max_bytes: The most bytes that the array may take.

    Returns:
        The values; strings as bytes in an array of objects.

    Raises:
        ServingError: INVALID_ARGUMENT: it is not a tensor, or too large.
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
        return np.full(shape, b"", object)  # `make_ndarray` gives str here.
    try:
        return tf.make_ndarray(tensor)
    except OverflowError as error:
        raise _wrong(name, f"a value is not {_type_name(tensor.dtype)}") from error


def to_proto(array: np.ndarray) -> tensor_pb2.TensorProto:
    """Writes an array, value by value, as TF Serving does: clients may read `float_val`."""
    proto = tensor_pb2.TensorProto(
        dtype=tf.as_dtype(array.dtype).as_datatype_enum,
        tensor_shape=tf.TensorShape(array.shape).as_proto(),
    )
    values = array.view(np.uint16) if array.dtype == np.float16 else array
    getattr(proto, _FIELD_OF_TYPE[proto.dtype]).extend(values.ravel().tolist())
    return proto


def _type_name(number: int) -> str:
    """A DataType as TensorFlow writes it in messages: "float", "int32"."""
    name = types_pb2.DataType.Name(number) if number in types_pb2.DataType.values() else "unknown"
    return name.removeprefix("DT_").lower()


def _wrong(name: str, why: str) -> ServingError:
    return invalid(f"tensor parsing error: {name}: {why}.")
