"""The forms in which `SequenceClassifier` takes sequences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from t2aux.errors import UserError, listing


def shape_of_inputs(shape: Any) -> tuple[int | None, ...]:
    """The shape of the inputs alone, where lengths or a mask come with them."""
    if isinstance(shape, Mapping):
        shape = shape["inputs"]
    elif not isinstance(shape, tf.TensorShape) and isinstance(shape[0], Sequence | tf.TensorShape):
        shape = shape[0]
    return tuple(shape)


def shapes(x: Any) -> Any:
    """The shapes of arrays, tensors or their specifications."""
    if isinstance(x, (tf.RaggedTensor, tf.RaggedTensorSpec)):
        return tuple(x.shape)
    return tf.nest.map_structure(lambda t: tf.TensorShape(t.shape), x)


def sequences(
    given: Any, mask: tf.Tensor | None = None, *, is_text: bool
) -> tuple[tf.Tensor, tf.Tensor | None]:
    """Inputs and lengths of a batch.

    Args:
        given: [B, T, C] or ids [B, T]; a pair of them and lengths [B] or a mask [B, T]; a
            dictionary of "inputs" and "lengths" or "mask"; or a RaggedTensor.
        mask: [B, T] bool: the steps that count.
        is_text: Whether the inputs are ids.

    Returns:
        [B, T, C] float32 or [B, T] int32, and lengths [B] int32; None: all steps count.
    """
    lengths = None
    if isinstance(mask, (list, tuple)):
        # Keras gives a mask for each part of a pair.
        mask = mask[0]
    if isinstance(given, Mapping):
        given = (given["inputs"], given["mask"] if "mask" in given else given["lengths"])
    if isinstance(given, (list, tuple)):
        given, more = given
        if len(more.shape) == 2:
            mask = more
        else:
            lengths = tf.cast(more, tf.int32)
    if isinstance(given, tf.RaggedTensor):
        lengths = tf.cast(given.row_lengths(), tf.int32)
        given = given.to_tensor()
    tokens = tf.cast(given, tf.int32 if is_text else tf.float32)
    if mask is not None:
        # The masked steps go to the end.
        mask = tf.cast(mask, tf.bool)
        order = tf.argsort(tf.cast(tf.logical_not(mask), tf.int32), axis=1, stable=True)
        tokens = tf.gather(tokens, order, axis=1, batch_dims=1)
        lengths = tf.reduce_sum(tf.cast(mask, tf.int32), axis=1)
    return tokens, lengths


def check(tokens: tf.Tensor, lengths: tf.Tensor | None, y: tf.Tensor, *, classes: int) -> None:
    """Checks a batch while it is trained on, where it comes from a dataset."""
    if y.dtype.is_integer and y.shape.rank is not None and y.shape.rank < 2:
        tf.debugging.assert_less(tf.cast(y, tf.int64), tf.cast(classes, tf.int64), _labels(classes))
        tf.debugging.assert_non_negative(y, _labels(classes))
    if lengths is not None:
        tf.debugging.assert_less_equal(
            lengths, tf.shape(tokens)[1], "A sequence's length is more than the steps there are."
        )
        tf.debugging.assert_positive(lengths, "A sequence has no step: every one needs one.")


def prepared(x: Any, y: Any, *, classes: int, sizes: dict[str, Any]) -> tuple[Any, Any]:
    """What Keras takes of what the user gave, checked where it is in memory.

    Args:
        x: See `SequenceClassifier`; anything but arrays, lists and RaggedTensors is left as it is.
        y: Labels [N], [N, 1] or one-hot [N, K]; None.
        classes: K.
        sizes: The model's, of which "vocabulary_size" counts.

    Returns:
        The two, for `keras.Model.fit`.

    Raises:
        UserError: A label or an id is out of range, a length is not that of a sequence, or a value
            is NaN or infinite.
    """
    if isinstance(x, tf.RaggedTensor):
        x = [row.numpy() for row in x]
    if isinstance(x, list) and x:
        x = _padded(x)
    if isinstance(x, Mapping):
        x = (x["inputs"], x["mask"] if "mask" in x else x["lengths"])
    if isinstance(x, tuple) and len(x) == 2 and hasattr(x[0], "__array__"):
        x = (np.asarray(x[0]), np.asarray(x[1]))
        _check_lengths(*x)
    inputs = x[0] if isinstance(x, tuple) else x
    if isinstance(inputs, np.ndarray):
        _check_values(inputs, sizes["vocabulary_size"])
    if isinstance(y, (list, np.ndarray, tf.Tensor)):
        y = _checked_labels(np.asarray(y), classes)
    return x, y


def prepared_data(given: Any, *, classes: int, sizes: dict[str, Any]) -> Any:
    """As `prepared`, for (x, y) or (x, y, sample_weight); anything else is left as it is."""
    if not isinstance(given, (list, tuple)) or len(given) < 2:
        return given
    x, y = prepared(given[0], given[1], classes=classes, sizes=sizes)
    return (x, y, *given[2:])


def _padded(rows: Sequence[Any]) -> tuple[np.ndarray, np.ndarray]:
    """[N, T, ...], padded with zeros at the ends, and lengths [N], of arrays [t, ...]."""
    rows = [np.asarray(row) for row in rows]
    shapes = {row.shape[1:] for row in rows}
    if any(row.ndim not in (1, 2) or not len(row) for row in rows) or len(shapes) > 1:
        raise UserError(
            "The sequences in the list must be arrays [steps, channels], or ids [steps], each of "
            "at least one step and all of the same channels; their shapes are "
            f"{listing(map(str, sorted({row.shape for row in rows})))}."
        )
    lengths = np.array([len(row) for row in rows], np.int32)
    padded = np.zeros((len(rows), lengths.max(), *rows[0].shape[1:]), rows[0].dtype)
    for row, target in zip(rows, padded, strict=True):
        target[: len(row)] = row
    return padded, lengths


def _check_lengths(inputs: np.ndarray, more: np.ndarray) -> None:
    if len(inputs) != len(more):
        raise UserError(f"There are {len(inputs)} sequences, but {len(more)} lengths or masks.")
    if more.ndim == 2:
        if more.shape != inputs.shape[:2]:
            raise UserError(f"The mask has the shape {more.shape}, the inputs {inputs.shape}.")
        more = more.astype(bool).sum(axis=1)
    elif not np.issubdtype(more.dtype, np.integer):
        raise UserError(f"Lengths must be whole numbers, but are {more.dtype}.")
    if len(more) and (more.min() < 1 or more.max() > inputs.shape[1]):
        raise UserError(
            f"Lengths must be from 1 to the {inputs.shape[1]} steps that the inputs have, but are "
            f"from {more.min()} to {more.max()}."
        )


def _check_values(inputs: np.ndarray, vocabulary_size: int | None) -> None:
    if vocabulary_size is None:
        if inputs.dtype.kind == "f" and not np.isfinite(inputs).all():
            raise UserError("The inputs hold NaN or an infinite value: correct the data.")
        return
    if not np.issubdtype(inputs.dtype, np.integer):
        raise UserError(
            f"The inputs must be ids, whole numbers below vocabulary_size = {vocabulary_size}, but "
            f"are {inputs.dtype}."
        )
    if inputs.size and not 0 <= inputs.min() <= inputs.max() < vocabulary_size:
        raise UserError(
            f"The inputs hold ids from {inputs.min()} to {inputs.max()}: they must be from 0 to "
            f"{vocabulary_size - 1}, see vocabulary_size."
        )


def _checked_labels(y: np.ndarray, classes: int) -> np.ndarray:
    one_hot = y.ndim == 2 and y.shape[1] == classes and classes > 1
    if one_hot:
        return y
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim != 1 or y.dtype.kind not in "iub":
        raise UserError(
            f"The labels must be whole numbers [N], or one-hot [N, {classes}], but are {y.dtype} "
            f"of the shape {y.shape}; np.unique(..., return_inverse=True) numbers other labels."
        )
    if len(y) and not 0 <= y.min() <= y.max() < classes:
        raise UserError(f"{_labels(classes)} They are from {y.min()} to {y.max()}.")
    return y


def _labels(classes: int) -> str:
    return f"Labels must be from 0 to {classes - 1}, for there are {classes} classes."
