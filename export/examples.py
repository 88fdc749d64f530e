"""Converts tf.Example messages to sequences in a SavedModel's graph, for TF Serving's Classify."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from t2aux.export.text import TextIds
from t2aux_ondevice.preprocessing import DatasetInfo


class Examples(tf.Module):
    """Converts a batch of serialized tf.Examples to padded sequences.

    Features: `inputs`, a float_list of the T * C values of a sequence, step by step, or, for a
    classifier of text or ids, an int64_list of T ids; or, for a text classifier, `text`, a
    bytes_list of one UTF-8 text. Other features are ignored. The sequences may differ in length.
    """

    def __init__(self, info: DatasetInfo, text_ids: TextIds | None) -> None:
        """Makes the parser.

        Args:
            info: The description of the classifier's data.
            text_ids: The conversion of texts, for a text classifier.
        """
        super().__init__(name="examples")
        self._info = info
        self._text_ids = text_ids

    def __call__(self, serialized: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Parses a batch.

        Args:
            serialized: [B] strings.

        Returns:
            Real values [B, T, C] float32 or ids [B, T] int32, padded with 0 on the right, and
            positive lengths [B] int32.
        """
        if not self._info.reads_ids:
            return self._values(serialized)
        return self._ids(serialized) if self._text_ids is None else self._texts(serialized)

    def _values(self, serialized: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        channels = self._info.channels
        values = _parse(serialized, inputs=tf.float32)["inputs"]
        counts = values.row_lengths()
        checks = [
            tf.debugging.assert_positive(counts, "An example has no feature `inputs`."),
            tf.debugging.assert_equal(
                counts % channels,
                tf.zeros_like(counts),
                f"The feature `inputs` of an example must hold {channels} values for each step.",
            ),
        ]
        with tf.control_dependencies(checks):
            dense = values.to_tensor()
        shape = [tf.shape(dense)[0], tf.shape(dense)[1] // channels, channels]
        return tf.reshape(dense, shape), tf.cast(counts // channels, tf.int32)

    def _ids(self, serialized: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        ids = _parse(serialized, inputs=tf.int64)["inputs"]
        lengths = ids.row_lengths()
        check = tf.debugging.assert_positive(lengths, "An example has no feature `inputs`.")
        with tf.control_dependencies([check]):
            return _as_int32(ids), tf.cast(lengths, tf.int32)

    def _texts(self, serialized: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        features = _parse(serialized, inputs=tf.int64, text=tf.string)
        ids, texts = features["inputs"], features["text"]
        is_text = texts.row_lengths() > 0
        checks = [
            tf.debugging.assert_less_equal(
                texts.row_lengths(), tf.constant(1, tf.int64), "An example has more than one text."
            ),
            tf.debugging.Assert(
                tf.reduce_all(is_text != (ids.row_lengths() > 0)),
                ["An example must have either the feature `text` or the feature `inputs`."],
            ),
        ]
        with tf.control_dependencies(checks):
            text = tf.strings.reduce_join(texts, axis=1)
        ids = _as_int32(ids)
        of_text, text_lengths = self._text_ids(text)
        steps = tf.maximum(tf.shape(ids)[1], tf.shape(of_text)[1])
        tokens = tf.where(is_text[:, tf.newaxis], _widened(of_text, steps), _widened(ids, steps))
        given = tf.cast(features["inputs"].row_lengths(), tf.int32)
        lengths = tf.where(is_text, text_lengths, given)
        empty = tf.debugging.assert_positive(lengths, "A text is empty.")
        with tf.control_dependencies([empty]):
            return tf.identity(tokens), tf.identity(lengths)


def serialized(sequence: np.ndarray) -> bytes:
    """A sequence, real values [T, C] or ids [T], as a tf.Example."""
    feature = tf.train.Feature()
    values = feature.int64_list if sequence.dtype.kind in "iu" else feature.float_list
    values.value.extend(sequence.ravel().tolist())
    features = tf.train.Features(feature={"inputs": feature})
    return tf.train.Example(features=features).SerializeToString(deterministic=True)


def _parse(serialized: tf.Tensor, **types: tf.DType) -> dict[str, tf.RaggedTensor]:
    """The features [B, ...] with the given names and types; empty if an example has none."""
    features = {
        name: tf.io.RaggedFeature(dtype, row_splits_dtype=tf.int64) for name, dtype in types.items()
    }
    return tf.io.parse_example(serialized, features)


def _as_int32(ids: tf.RaggedTensor) -> tf.Tensor:
    """Ids [B, T], clipped, since their range is checked later."""
    return tf.cast(tf.clip_by_value(ids.to_tensor(), -1, tf.int32.max), tf.int32)


def _widened(ids: tf.Tensor, steps: tf.Tensor) -> tf.Tensor:
    return tf.pad(ids, [[0, 0], [0, steps - tf.shape(ids)[1]]])
