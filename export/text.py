"""Converts text to ids in a SavedModel's graph, like `DatasetInfo.text_ids`."""

from __future__ import annotations

import tensorflow as tf
import tensorflow_text as tf_text

from t2aux_ondevice.preprocessing import DatasetInfo


class TextIds(tf.Module):
    """Converts a batch of strings to padded ids with tensorflow-text.

    Equal to `DatasetInfo.text_ids` for every text that it accepts. A text of only white space is
    not rejected, because in TF Serving it shares a batch with other requests.
    """

    def __init__(self, info: DatasetInfo) -> None:
        """Makes the tokenizer and, for characters, the table of ids.

        Args:
            info: The description of a text data set.
        """
        super().__init__(name="text_ids")
        self._max_length = info.max_length
        self._table = None
        if info.tokens == "bytes":
            self._splitter = tf_text.ByteSplitter()
            return
        self._splitter = tf_text.UnicodeCharTokenizer()
        code_points = tf.constant([ord(character) for character in info.vocabulary], tf.int32)
        ids = tf.range(len(info.vocabulary), dtype=tf.int32)
        # A hash table, since a gather would need 128,000 rows for a vocabulary with an emoji.
        self._table = tf.lookup.StaticHashTable(
            tf.lookup.KeyValueTensorInitializer(tf.cast(code_points, tf.int64), ids),
            default_value=0,
        )

    def __call__(self, text: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Tokenizes a batch.

        Args:
            text: [B] strings, UTF-8.

        Returns:
            ids [B, T] int32, padded with 0 on the right, and lengths [B] int32, which are 0 for
            empty texts.
        """
        if self._table is None:
            ragged = tf.cast(self._splitter.split(text), tf.int32)
        else:
            code_points = tf.cast(self._splitter.tokenize(text), tf.int64)
            ragged = code_points.with_flat_values(self._table.lookup(code_points.flat_values))
        if self._max_length is not None:
            ragged = ragged[:, : self._max_length]
        return ragged.to_tensor(), tf.cast(ragged.row_lengths(), tf.int32)
