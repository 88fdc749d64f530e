"""The input formats of `SequenceClassifier`."""

from __future__ import annotations

import numbers
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from t2aux import rows
from t2aux.errors import DataError, SettingError, listing
from t2aux_ondevice.sequences import padded

_NO_LABELS = "Labels are missing: give y, or a dataset of pairs of inputs and labels."


def shape_of_inputs(shape: Any) -> tuple[int | None, ...]:
    """The shape of the inputs, without that of lengths or a mask that come with them."""
    if isinstance(shape, Mapping):
        shape = shape["inputs"]
    elif not isinstance(shape, tf.TensorShape) and isinstance(shape[0], Sequence | tf.TensorShape):
        shape = shape[0]
    return tuple(shape)


def check_shape(shape: tuple[int | None, ...], *, is_text: bool) -> None:
    """Raises UserError if the inputs do not have the shape of a batch of sequences."""
    if not is_text and len(shape) == 3 and shape[2] is None:
        raise DataError(
            "The dataset does not say how many channels its inputs have: use tf.ensure_shape in a "
            "map."
        )
    if len(shape) != (2 if is_text else 3):
        wanted = "ids [batch, steps]" if is_text else "[batch, steps, channels]"
        hint = "" if is_text else "; give ids a vocabulary_size, and single values one channel"
        raise DataError(f"The inputs have the shape {shape}, but must be {wanted}{hint}.")


def shapes(x: Any) -> Any:
    """The shapes of the inputs: of arrays, tensors, tensor specifications or a dataset."""
    if isinstance(x, tf.data.Dataset):
        if not isinstance(x.element_spec, tuple):
            raise DataError(_NO_LABELS)
        x = x.element_spec[0]
    if isinstance(x, (tf.RaggedTensor, tf.RaggedTensorSpec)):
        return tuple(x.shape)

    def shape(part: Any) -> tuple[int | None, ...]:
        dimensions = tf.TensorShape(part.shape)
        if dimensions.rank is None:
            raise DataError(
                "The dataset does not say which shapes its inputs have: give from_generator an "
                "output_signature, or use tf.ensure_shape in a map."
            )
        return (None, *dimensions.as_list()[1:])

    if isinstance(x, Mapping):
        return {name: shape(part) for name, part in x.items()}
    return tuple(map(shape, x)) if isinstance(x, (list, tuple)) else shape(x)


def sequences(
    given: Any, mask: tf.Tensor | None = None, *, is_text: bool
) -> tuple[tf.Tensor, tf.Tensor | None]:
    """Converts a batch to inputs and lengths.

    Args:
        given: Inputs [B, T, C] or ids [B, T]; a pair of them and lengths [B] or a mask [B, T]; a
            dictionary of "inputs" and "lengths" or "mask"; or a RaggedTensor.
        mask: [B, T] bool, false at padding.
        is_text: Whether the inputs are ids.

    Returns:
        Inputs [B, T, C] float32 or [B, T] int32, and lengths [B] int32, or None if there is no
        padding.
    """
    lengths = None
    if isinstance(mask, (list, tuple)):
        # Keras passes a mask for each part of a pair.
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
        # Masked steps are moved to the end.
        mask = tf.cast(mask, tf.bool)
        order = tf.argsort(tf.cast(tf.logical_not(mask), tf.int32), axis=1, stable=True)
        tokens = tf.gather(tokens, order, axis=1, batch_dims=1)
        lengths = tf.reduce_sum(tf.cast(mask, tf.int32), axis=1)
    return tokens, lengths


def checked_labels(tokens: tf.Tensor, lengths: Any, y: Any, *, classes: int) -> tf.Tensor:
    """Checks the labels and lengths of a batch in `fit` and `evaluate`.

    Args:
        tokens: [B, T, ...].
        lengths: [B], or None.
        y: The labels.
        classes: K, the number of classes.

    Returns:
        The labels, which depend on the checks.

    Raises:
        UserError: The labels are missing, or their shape is unknown.
    """
    if y is None:
        raise DataError(_NO_LABELS)
    y = tf.convert_to_tensor(y)  # A NumPy array in eager mode.
    if y.dtype == tf.string:
        raise DataError(
            "The labels are strings, but must be numbers of classes: map them with "
            "keras.layers.StringLookup(vocabulary=..., num_oov_indices=0)."
        )
    if y.shape.rank is None:
        raise DataError(
            "The dataset does not say which shape its labels have: give from_generator an "
            "output_signature, or use tf.ensure_shape in a map."
        )
    checks = []
    if y.dtype.is_integer and y.shape.rank < 2:
        checks += [
            tf.debugging.assert_less(
                tf.cast(y, tf.int64), tf.cast(classes, tf.int64), _labels(classes)
            ),
            tf.debugging.assert_non_negative(y, _labels(classes)),
        ]
    if lengths is not None:
        checks += [
            tf.debugging.assert_less_equal(
                lengths,
                tf.shape(tokens)[1],
                "A sequence's length exceeds the number of steps.",
            ),
            tf.debugging.assert_positive(lengths, "A sequence has no steps: it needs at least 1."),
        ]
    # In eager mode, checks have already run and are None.
    with tf.control_dependencies([check for check in checks if check is not None]):
        return tf.identity(y)


def cross_entropy(
    logits: tf.Tensor, y: tf.Tensor, sample_weight: tf.Tensor | None = None
) -> tf.Tensor:
    """The mean cross-entropy, from logits, because a probability of 0 has no logarithm.

    Args:
        logits: [B, K].
        y: Labels [B] or [B, 1], or one-hot [B, K].
        sample_weight: [B].

    Returns:
        A scalar.
    """
    if y.shape.rank == 2 and y.shape[1] == logits.shape[1] > 1:
        losses = tf.nn.softmax_cross_entropy_with_logits(tf.cast(y, tf.float32), logits)
    else:
        labels = tf.cast(tf.reshape(y, [-1]), tf.int32)
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
    if sample_weight is not None:
        losses *= tf.cast(tf.reshape(sample_weight, [-1]), tf.float32)
    return tf.reduce_mean(losses)


def prepared(x: Any, y: Any, *, classes: int, sizes: dict[str, Any]) -> tuple[Any, Any]:
    """Converts the user's data for Keras, and checks what is in memory.

    Args:
        x: See `SequenceClassifier`. Anything but arrays, lists and RaggedTensors is returned
            unchanged.
        y: Labels [N], [N, 1] or one-hot [N, K]; or None.
        classes: K, the number of classes.
        sizes: "vocabulary_size" and "channels" of the model; None for what it does not have.

    Returns:
        `x` and `y` for `keras.Model.fit`.

    Raises:
        UserError: A label, an id or a length is out of range, or a value is NaN or infinite.
    """
    if isinstance(x, tf.RaggedTensor):
        x = [row.numpy() for row in x]
    if isinstance(x, list) and x:
        x = _padded(x)
    if isinstance(x, Mapping):
        if "inputs" not in x or not {"mask", "lengths"} & set(x):
            raise DataError(
                f'The dictionary has {listing(map(str, x))}: it must have "inputs", and '
                '"lengths" or "mask".'
            )
        x = (x["inputs"], x["mask"] if "mask" in x else x["lengths"])
    if isinstance(x, list) and not x:
        raise DataError("The list of sequences is empty.")
    if isinstance(x, tuple) and len(x) == 2 and hasattr(x[0], "__array__"):
        x = (np.asarray(x[0]), np.asarray(x[1]))
        rows.check_lengths(*x)
    if isinstance(x, tf.Tensor) and tf.executing_eagerly():
        x = np.asarray(x)
    inputs = x[0] if isinstance(x, tuple) else x
    if isinstance(inputs, np.ndarray):
        _check_values(inputs, sizes["vocabulary_size"], sizes["channels"])
    if isinstance(y, (list, np.ndarray, tf.Tensor)):
        y = np.asarray(y)
        is_one_hot = y.ndim == 2 and y.shape[1] == classes and classes > 1
        y = y if is_one_hot else rows.labels(y, classes)
    return x, y


def _padded(given: Sequence[Any]) -> tuple[np.ndarray, np.ndarray]:
    """Pads arrays [t, ...] with zeros at the end. Returns [N, T, ...] and lengths [N]."""
    arrays = [np.asarray(row) for row in given]
    shapes = {row.shape[1:] for row in arrays}
    if any(row.ndim not in (1, 2) or not len(row) for row in arrays) or len(shapes) > 1:
        raise DataError(
            "The sequences in the list must be arrays [steps, channels], or ids [steps], each of "
            "at least one step and all of the same channels; their shapes are "
            f"{listing(map(str, sorted({row.shape for row in arrays})))}."
        )
    return padded(arrays)


def _check_values(inputs: np.ndarray, vocabulary_size: int | None, channels: int | None) -> None:
    if vocabulary_size is None:
        if channels is not None and inputs.shape[2:] != (channels,):
            raise DataError(
                f"The inputs have the shape {inputs.shape}, but the model reads [batch, steps, "
                f"{channels}]."
            )
        if inputs.dtype.kind not in "fiub":
            raise DataError(f"The inputs must be real numbers, but are {inputs.dtype}.")
        if inputs.dtype.kind == "f" and not np.isfinite(inputs).all():
            raise DataError("The inputs hold NaN or an infinite value: correct the data.")
        return
    if not np.issubdtype(inputs.dtype, np.integer):
        raise DataError(
            f"The inputs must be ids, whole numbers below vocabulary_size = {vocabulary_size}, but "
            f"are {inputs.dtype}."
        )
    if inputs.size and not 0 <= inputs.min() <= inputs.max() < vocabulary_size:
        raise DataError(
            f"The inputs hold ids from {inputs.min()} to {inputs.max()}: they must be from 0 to "
            f"{vocabulary_size - 1}, see vocabulary_size."
        )


def _labels(classes: int) -> str:
    return f"Labels must be from 0 to {classes - 1}, because there are {classes} classes."


def class_names(classes: int | Sequence[str]) -> tuple[str, ...]:
    """The names of the classes: as given, or "0", "1", ... for a number. Raises UserError."""
    is_number = isinstance(classes, numbers.Integral) and not isinstance(classes, bool)
    names = range(classes) if is_number else classes
    names = tuple(map(str, names)) if isinstance(names, Iterable) and names != str(names) else ()
    if not names or len(set(names)) != len(names):
        raise SettingError(
            f"classes must be a number from 1, or different names, but is {classes!r}."
        )
    return names


def check_dtype(policy: keras.DTypePolicy) -> None:
    """Raises UserError if a model would not compute in float32."""
    if policy.compute_dtype != "float32":
        raise SettingError(
            f"The dtype is {policy.name}, but SequenceClassifier computes in float32: give it and "
            'its core dtype="float32" (precision="bfloat16" multiplies in bfloat16 in training).'
        )
