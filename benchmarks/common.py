"""What the benchmarks share: training steps on made-up images, as the training loop does them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from t2aux.data import Batch
from t2aux.model.classifier import Classifier
from t2aux.model.prediction import Prediction
from t2aux.model.reconstruction import Reconstruction
from t2aux.preprocessing import DatasetInfo
from t2aux.training.trainer import Trainer

LOSSES = {
    "LSTM": [],
    "r-LSTM 1x600": [(Reconstruction, 1, 600)],
    "r-LSTM 20x30": [(Reconstruction, 20, 30)],
    "p-LSTM 1x600": [(Prediction, 1, 600)],
}


@dataclasses.dataclass(frozen=True)
class Size:
    """The size of a step."""

    batch: int
    length: int
    hidden: int = 128
    channels: int = 1
    classes: int = 10


def random_batch(size: Size) -> Batch:
    """A batch of noise in [0, 1]."""
    rng = np.random.default_rng(0)
    inputs = rng.random((size.batch, size.length, size.channels), np.float32)
    labels = rng.integers(0, size.classes, size.batch).astype(np.int32)
    lengths = np.full(size.batch, size.length, np.int32)
    return Batch(tf.constant(inputs), tf.constant(lengths), tf.constant(labels))


def ours(name: str, size: Size, bptt: int | str) -> Callable[[Batch], None]:
    """A compiled training step of ours: gradients, clipping and RMSProp."""
    info = DatasetInfo(
        name="noise",
        kind="vectors",
        classes=tuple(map(str, range(size.classes))),
        channels=size.channels,
        length=size.length,
        max_length=None,
        side=None,
        permutation_seed=None,
        tokens=None,
        vocabulary=None,
    )
    classifier = Classifier(info, hidden_size=size.hidden, seed=0)
    losses = [make(classifier, anchors=n, length=length) for make, n, length in LOSSES[name]]
    trainer = Trainer(classifier, losses, supervised_bptt=bptt, auxiliary_bptt=bptt)
    optimizer = keras.optimizers.RMSprop(1e-3)
    optimizer.build(trainer.variables_in_order)
    count = tf.Variable(0)

    @tf.function(reduce_retracing=True)
    def step(batch: Batch) -> None:
        seed = tf.stack([0, count.assign_add(1)])
        result = trainer.step(batch, seed=seed, progress=tf.constant(0.5), supervised=True)
        gradients, _ = tf.clip_by_global_norm(result.gradients, 1.0)
        optimizer.apply(gradients, trainer.variables_in_order)

    return step


def keras_full(size: Size) -> Callable[[Batch], None]:
    """The peer: Keras's LSTM with the same input layer and head, full BPTT."""
    model = keras.Sequential(
        [
            keras.layers.Input((None, size.channels)),
            keras.layers.Dense(128),
            keras.layers.LSTM(size.hidden),
            keras.layers.Dense(256, activation="relu"),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(size.classes),
        ]
    )
    optimizer = keras.optimizers.RMSprop(1e-3)
    variables = [v.value for v in model.trainable_variables]
    optimizer.build(variables)

    @tf.function
    def step(batch: Batch) -> None:
        with tf.GradientTape() as tape:
            logits = model(batch.inputs, training=True)
            loss = tf.reduce_mean(
                tf.nn.sparse_softmax_cross_entropy_with_logits(batch.labels, logits)
            )
        gradients, _ = tf.clip_by_global_norm(tape.gradient(loss, variables), 1.0)
        optimizer.apply(gradients, variables)

    return step
