"""Our messages have the bytes of tensorflow-serving-api's, in both directions."""

import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import descriptor
from tensorflow_serving.apis import (
    get_model_status_pb2,
    model_pb2,
    predict_pb2,
    prediction_log_pb2,
)

from t2aux.tf_serving import protos
from tests.cli_helpers import environment

ARRAYS = [
    np.array([[0.5, -1.25], [3e-9, 7.0]], np.float32),
    np.array([0.1, 2.0]),
    np.arange(6, dtype=np.int32).reshape(1, 2, 3) - 3,
    np.array([2**40, -1]),
    np.array([["a", "ünïcode ☃"]]),
    np.array([b"\xff\x00", b""], object),
    np.zeros([0, 3], np.float32),
    np.float32(4),
]


@pytest.mark.parametrize("array", ARRAYS, ids=lambda a: f"{a.dtype}{list(a.shape)}")
def test_tensors_are_tensorflow_s(array):
    ours = protos.to_tensor(array)
    theirs = tf.make_tensor_proto(array)
    as_theirs = tf.make_ndarray(type(theirs).FromString(ours.SerializeToString()))
    np.testing.assert_array_equal(as_theirs, tf.make_ndarray(theirs))
    # As TF Serving answers: each value in a field of its type.
    for tensor in (
        theirs,
        tf.make_tensor_proto(array.tolist(), tf.as_dtype(theirs.dtype), shape=array.shape),
    ):
        found = protos.to_array(protos.Tensor.FromString(tensor.SerializeToString()))
        np.testing.assert_array_equal(found, tf.make_ndarray(theirs))
        assert found.dtype == tf.make_ndarray(theirs).dtype


def test_a_value_stands_for_the_rest():
    filled = protos.filled_tensor((2, 3), 0.5, np.float32)
    np.testing.assert_array_equal(protos.to_array(filled), np.full([2, 3], 0.5, np.float32))
    theirs = tf.make_tensor_proto(0.5, shape=[2, 3])
    assert filled.SerializeToString() == theirs.SerializeToString()


@pytest.mark.parametrize("change", [{"dtype": 14}, {"float_val": [1.0] * 7}, {"float_val": []}])
def test_tensors_that_are_invalid(change):
    tensor = protos.filled_tensor((2, 3), 0.5, np.float32)
    for name, value in change.items():
        tensor.ClearField(name)
        setattr(tensor, name, value) if name == "dtype" else tensor.float_val.extend(value)
    with pytest.raises(ValueError, match=r"type 14|reshape"):
        protos.to_array(tensor)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (protos.PredictRequest, predict_pb2.PredictRequest),
        (protos.PredictResponse, predict_pb2.PredictResponse),
        (protos.ModelSpec, model_pb2.ModelSpec),
        (protos.PredictionLog, prediction_log_pb2.PredictionLog),
        (protos.GetModelStatusRequest, get_model_status_pb2.GetModelStatusRequest),
        (protos.GetModelStatusResponse, get_model_status_pb2.GetModelStatusResponse),
    ],
    ids=lambda c: c.DESCRIPTOR.name,
)
def test_every_field_is_that_of_tensorflow_serving_api(ours, theirs):
    assert_same_fields(ours.DESCRIPTOR, theirs.DESCRIPTOR, set())


def assert_same_fields(ours, theirs, seen):
    if ours.full_name in seen:
        return
    seen.add(ours.full_name)
    kinds = descriptor.FieldDescriptor
    for field in ours.fields:
        other = theirs.fields_by_number[field.number]
        assert (field.name, field.is_repeated) == (other.name, other.is_repeated)
        same_on_the_wire = {
            (kinds.TYPE_INT32, kinds.TYPE_ENUM),
            (kinds.TYPE_BYTES, kinds.TYPE_MESSAGE),
        }
        assert field.type == other.type or (field.type, other.type) in same_on_the_wire
        assert field.is_packed == other.is_packed
        if field.message_type is not None:
            assert_same_fields(field.message_type, other.message_type, seen)


def test_states_are_named_as_in_tensorflow_serving_api():
    assert dict(get_model_status_pb2.ModelVersionStatus.State.items()) == {
        name: number for number, name in protos.STATES.items()
    }


def test_tensorflow_is_not_imported():
    code = (
        "import sys; sys.modules['tensorflow'] = sys.modules['tensorflow_serving'] = None\n"
        "import numpy as np; from t2aux.tf_serving import protos\n"
        "assert protos.to_array(protos.to_tensor(np.ones([2]))).sum() == 2"
    )
    subprocess.run([sys.executable, "-c", code], env=environment(), check=True)
