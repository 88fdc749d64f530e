"""Evaluates a classifier on a split: accuracy, loss, confusion matrix and a table by class."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf

from t2aux import data, tf32
from t2aux.training.scores import Evaluation

if TYPE_CHECKING:
    from t2aux.model.transformer import Transformer
    from t2aux.training import distribution
    from t2aux.training.model import SequenceClassifier


def logits_function(
    classifier: SequenceClassifier | Transformer,
) -> Callable[[data.Batch], tf.Tensor]:
    """Returns a function that computes a batch's logits [B, K], for `evaluate`."""
    return tf.function(
        lambda batch: classifier.logits_of(batch.inputs, batch.lengths),
        reduce_retracing=True,
        autograph=False,
    )


@data.user_errors()
@tf32.off()
def evaluate(
    predict: Callable[[data.Batch], tf.Tensor],
    split: data.Split,
    batch_size: int = 128,
    progress: Callable[[int], None] | None = None,
    replicas: distribution.Replicas | None = None,
) -> Evaluation:
    """Classifies a split and compares the predictions with the labels.

    Args:
        predict: The result of `logits_function`.
        split: The data.
        batch_size: B; the last batch may be smaller.
        progress: Called after every batch with the number of sequences done.
        replicas: The replicas whose processes share the batches; all processes must call this
            function. None: this process evaluates all batches.

    Returns:
        The result.
    """
    count = split.info.num_classes
    confusion = np.zeros((count, count), np.int64)
    loss = 0.0
    batches = split.batches(batch_size)
    if replicas is not None and replicas.workers > 1:
        batches = batches.shard(replicas.workers, replicas.worker)
    for batch in batches:
        logits = predict(batch)
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(batch.labels, logits)
        loss += float(tf.reduce_sum(tf.cast(losses, tf.float64)))
        np.add.at(confusion, (batch.labels.numpy(), np.argmax(logits, axis=-1)), 1)
        if progress is not None:
            progress(int(confusion.sum()))
    if replicas is not None:
        sums = replicas.total(np.append(confusion.astype(np.float64), loss))
        confusion, loss = sums[:-1].astype(np.int64).reshape(confusion.shape), float(sums[-1])
    return Evaluation(split.info.classes, confusion, loss / len(split))
