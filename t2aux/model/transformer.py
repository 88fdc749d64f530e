"""A Transformer encoder that classifies whole sequences: the baseline of Table 3 and Figure 3.

The paper says only that its Transformer is of comparable size. This is a plain one with about half
a million weights [us], built from Keras's layers: pre-norm encoder layers (Xiong et al. 2020),
sinusoidal positions (Vaswani et al. 2017, section 3.5), which allow any length, and a mean over the
true steps before a dense layer to the classes. Attention takes most of the time, so there are two
layers with wide feed-forward parts instead of three with narrow ones.

Dropout is a function of the batch's seed; no random state is stored in a variable. The attention
scores, T x T for every sequence and head, are computed for one block of heads and queries at a
time, and recomputed in the backward pass, so that memory grows with T and not with its square.
"""

from __future__ import annotations

import functools
from typing import ClassVar

import gin
import keras
import numpy as np
import tensorflow as tf

from t2aux.configurable import Configurable
from t2aux.errors import SettingError
from t2aux.losses.base import Objective
from t2aux.model import initializers, inputs
from t2aux.model.core import check_sizes
from t2aux.model.normalization import normalized
from t2aux.model.share import Share
from t2aux_ondevice.preprocessing import DatasetInfo

# Attention scores that are computed at once, over sequences, heads, queries and keys: 4 MiB.
_SCORES = 2**20


@gin.configurable(denylist=["info", "seed", "objective"])
class Transformer(Configurable, keras.Model):
    """Classifies a sequence with attention over all of it. It has no state for streaming."""

    checkpoint_names: ClassVar = {
        "input_layer": "input",
        "blocks": "layers",
        "output_layer": "output",
    }

    def __init__(
        self,
        info: DatasetInfo,
        *,
        model_size: int = 128,
        heads: int = 4,
        feed_forward_size: int = 768,
        layers: int = 2,
        dropout: float = 0.1,
        seed: int = 0,
        objective: Objective | None = None,
    ) -> None:
        """Creates the weights.

        Args:
            info: The data set, which gives the classes and the channels or the vocabulary.
            model_size: D, the size of the vector at every step.
            heads: The number of attention heads, of D / heads values each.
            feed_forward_size: The number of hidden units of each layer's feed-forward part.
            layers: The number of encoder layers.
            dropout: The dropout rate in training, applied to the input and to the outputs of both
                halves of every layer.
            seed: The seed of the initial weights.
            objective: Must have no auxiliary losses; its truncation is ignored.

        Raises:
            UserError: A size or the dropout rate is out of range, D is odd or not a multiple of
                `heads`, there are auxiliary losses, or the precision is not float32.
        """
        super().__init__(name="classifier", dtype="float32")
        check_sizes(
            "Transformer",
            model_size=model_size,
            heads=heads,
            feed_forward_size=feed_forward_size,
            layers=layers,
        )
        if objective is not None and objective.auxiliary:
            raise SettingError(
                "train.auxiliary_losses need a recurrent network's state, and train.model is a "
                "Transformer: set train.auxiliary_losses = [] (models/transformer does, after any "
                "other file of models/), or train.model = @Classifier."
            )
        if objective is not None and objective.precision != "float32":
            raise SettingError(
                f"train.precision = {objective.precision!r} is for LSTMs, and train.model is a "
                "Transformer: leave it out."
            )
        if model_size % heads or model_size % 2:
            raise SettingError(
                "Transformer.model_size must be even and a multiple of Transformer.heads, but they "
                f"are {model_size} and {heads}."
            )
        if not 0 <= dropout < 1:
            raise SettingError(f"Transformer.dropout must be in [0, 1), but is {dropout}.")
        self.info = info
        self.seed = seed
        self.model_size = model_size
        self.dropout = dropout
        token_size = info.vocabulary_size if info.is_text else info.channels
        self.input_layer = inputs.build(token_size, model_size, is_text=info.is_text, seed=seed)
        self.blocks = [
            _EncoderLayer(model_size, heads, feed_forward_size, seed, f"layer_{i}")
            for i in range(layers)
        ]
        self.norm = _KerasLayer(_norm(model_size), seed, "norm")
        self.output_layer = _KerasLayer(_dense(model_size, info.num_classes), seed, "output")
        self.built = True

    def call(self, tokens: tf.Tensor, lengths: tf.Tensor | None = None) -> tf.Tensor:
        """The probabilities [B, K] of the classes, see `logits_of`."""
        return tf.nn.softmax(self.logits_of(tokens, lengths))

    def logits_of(
        self,
        tokens: tf.Tensor,
        lengths: tf.Tensor | None = None,
        seed: tf.Tensor | None = None,
        share: Share | None = None,
    ) -> tf.Tensor:
        """Classifies whole sequences.

        Args:
            tokens: [B, T, C] float32 or [B, T] int32, padded at the end.
            lengths: [B] int32 true lengths; all T by default.
            seed: [2] int32 for dropout in this batch; None: no dropout (inference).
            share: Which rows of a larger batch these are; None: all.

        Returns:
            The logits [B, K].
        """
        key_padding_mask = None
        if lengths is not None and self.info.length is None:
            key_padding_mask = tf.sequence_mask(lengths, tf.shape(tokens)[1])
        # Vaswani et al. 2017, section 3.4.
        x = self.input_layer(normalized(self.info, tokens)) * self.model_size**0.5
        x = self._drop(x + positions(tf.shape(x)[1], self.model_size), seed, 0, share)
        for i, layer in enumerate(self.blocks):
            x += self._drop(layer.attend(x, key_padding_mask), seed, 2 * i + 1, share)
            x += self._drop(layer.feed_forward(x), seed, 2 * i + 2, share)
        x = self.norm(x)
        if key_padding_mask is None:
            return self.output_layer(tf.reduce_mean(x, axis=1))
        weights = tf.cast(key_padding_mask, tf.float32)[:, :, tf.newaxis]
        return self.output_layer(tf.reduce_sum(x * weights, 1) / tf.reduce_sum(weights, 1))

    def _drop(
        self, x: tf.Tensor, seed: tf.Tensor | None, index: int, share: Share | None
    ) -> tf.Tensor:
        if seed is None or self.dropout == 0:
            return x
        seed = tf.random.experimental.stateless_fold_in(seed, index)
        if share is None:
            return tf.nn.experimental.stateless_dropout(x, self.dropout, seed=seed)
        # The same values of a row are dropped, whichever replica has it.
        ones = tf.ones(tf.concat([[share.size], tf.shape(x)[1:]], 0))
        kept = tf.nn.experimental.stateless_dropout(ones, self.dropout, seed=seed)
        return x * share.rows(kept, axis=0)


def positions(steps: tf.Tensor, size: int) -> tf.Tensor:
    """Sines, then cosines of the positions, [steps, size] (Vaswani et al. 2017, section 3.5)."""
    rates = 10000.0 ** (-np.arange(0, size, 2, dtype=np.float32) / size)
    angles = tf.range(tf.cast(steps, tf.float32))[:, tf.newaxis] * rates
    return tf.concat([tf.sin(angles), tf.cos(angles)], -1)


class _EncoderLayer(keras.layers.Layer):
    # The two halves of a pre-norm encoder layer; both return what is added to x [B, T, D].

    checkpoint_names: ClassVar = {"output_layer": "output"}

    def __init__(self, size: int, heads: int, hidden: int, seed: int, name: str) -> None:
        super().__init__(name=name, dtype="float32")
        self._heads = heads
        self.attention_norm = _KerasLayer(_norm(size), seed, f"{name}/attention_norm")
        self.query, self.key, self.value, self.attention_output = (
            _KerasLayer(_dense(size, size), seed, f"{name}/{part}")
            for part in ("query", "key", "value", "attention_output")
        )
        self.feed_forward_norm = _KerasLayer(_norm(size), seed, f"{name}/feed_forward_norm")
        self.hidden = _KerasLayer(_dense(size, hidden), seed, f"{name}/hidden")
        self.output_layer = _KerasLayer(_dense(hidden, size), seed, f"{name}/output")
        self.built = True

    def attend(self, x: tf.Tensor, key_padding_mask: tf.Tensor | None) -> tf.Tensor:
        x = self.attention_norm(x)
        projected = [self.query(x), self.key(x), self.value(x)]
        return self.attention_output(attention(*projected, key_padding_mask, heads=self._heads))

    def feed_forward(self, x: tf.Tensor) -> tf.Tensor:
        return self.output_layer(tf.nn.relu(self.hidden(self.feed_forward_norm(x))))


def attention(
    queries: tf.Tensor,
    keys: tf.Tensor,
    values: tf.Tensor,
    key_padding_mask: tf.Tensor | None,
    *,
    heads: int,
) -> tf.Tensor:
    """Multi-head attention (Vaswani et al. 2017, section 3.2) with memory linear in T.

    Args:
        queries: [B, T, D].
        keys: [B, T, D].
        values: [B, T, D].
        key_padding_mask: [B, T] bool: which keys are attended to; None: all.
        heads: The number of heads, of D / heads values each.

    Returns:
        [B, T, D].
    """
    batch, steps, size = tf.shape(queries)[0], tf.shape(queries)[1], queries.shape[-1]
    # Every head of a sequence is a separate row, so that its keys and values stay in the CPU's
    # cache. Keras's dot_product_attention would copy all keys and values for every block.
    rows = tf.clip_by_value(_SCORES // (steps * steps), 1, tf.maximum(batch * heads, 1))
    block = tf.clip_by_value(_SCORES // steps, 1, steps)

    def split(x: tf.Tensor) -> tf.Tensor:
        x = tf.reshape(x, [batch, steps, heads, size // heads])
        return tf.reshape(tf.transpose(x, [0, 2, 1, 3]), [-1, steps, size // heads])

    def rows_attend(parts: list[tf.Tensor]) -> tf.Tensor:
        queries, keys, values, *mask = parts
        mask = mask[0][:, tf.newaxis] if mask else None

        @tf.recompute_grad
        def attend(queries: tf.Tensor, keys: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
            scores = tf.matmul(queries, keys, transpose_b=True)
            if mask is not None:
                scores = tf.where(mask, scores, scores.dtype.min)
            return tf.matmul(tf.nn.softmax(scores), values)

        blocks = _blocks(tf.transpose(queries, [1, 0, 2]), block)
        blocks = tf.transpose(blocks, [0, 2, 1, 3])
        done = tf.map_fn(lambda q: attend(q, keys, values), blocks, parallel_iterations=1)
        done = tf.reshape(tf.transpose(done, [1, 0, 2, 3]), [rows, -1, size // heads])
        return done[:, :steps]

    parts = [_blocks(split(x), rows) for x in (queries * (size // heads) ** -0.5, keys, values)]
    if key_padding_mask is not None:
        parts.append(_blocks(tf.repeat(key_padding_mask, heads, axis=0), rows))
    done = tf.map_fn(rows_attend, parts, fn_output_signature=tf.float32, parallel_iterations=1)
    done = tf.reshape(done, [-1, steps, size // heads])[: batch * heads]
    done = tf.transpose(tf.reshape(done, [batch, heads, steps, size // heads]), [0, 2, 1, 3])
    return tf.reshape(done, [batch, steps, size])


def _blocks(x: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """[N, ...] -> [N / size, size, ...], the last block padded with zeros."""
    missing = -tf.shape(x)[0] % size
    x = tf.pad(x, [[0, missing]] + [[0, 0]] * (x.shape.rank - 1))
    return tf.reshape(x, tf.concat([[-1, size], tf.shape(x)[1:]], 0))


class _KerasLayer(keras.layers.Layer):
    # A Keras layer with our own weights: seeded by us, and under our names in checkpoints.

    def __init__(self, layer: keras.layers.Layer, seed: int, name: str) -> None:
        super().__init__(name=name.replace("/", "_"), dtype="float32")
        for variable in layer.trainable_variables:
            own = f"{name}/{variable.name}"
            if variable.name == "kernel":
                weight = initializers.glorot(tuple(variable.shape), seed, own)
            else:
                weight = initializers.variable(variable.numpy(), own)
            setattr(self, variable.name, weight)
        names = [variable.name for variable in layer.trainable_variables]
        # A closure, because Keras would otherwise track the layer's own weights.
        self._call = lambda x: layer.stateless_call([getattr(self, n).value for n in names], [], x)[
            0
        ]
        self.built = True

    def call(self, x: tf.Tensor) -> tf.Tensor:
        return self._call(x)


@functools.cache
def _dense(size: int, units: int) -> keras.layers.Layer:
    with tf.init_scope():
        layer = keras.layers.Dense(units)
        layer.build((None, None, size))
    return layer


@functools.cache
def _norm(size: int) -> keras.layers.Layer:
    with tf.init_scope():
        layer = keras.layers.LayerNormalization(epsilon=1e-6)
        layer.build((None, None, size))
    return layer
