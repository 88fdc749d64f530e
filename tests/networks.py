"""Small networks and batches that several tests use."""

import numpy as np
import tensorflow as tf

from t2aux.data import Batch
from t2aux.training.classifier import make_classifier
from t2aux_ondevice.preprocessing import DatasetInfo


def vectors_info(channels=1, length=None, classes=3):
    return DatasetInfo(
        name="made up",
        kind="vectors",
        classes=tuple(f"class {i}" for i in range(classes)),
        channels=channels,
        length=length,
        max_length=None,
        side=None,
        permutation_seed=None,
        tokens=None,
        vocabulary=None,
    )


def text_info(vocabulary=7, classes=3):
    return DatasetInfo(
        name="made up text",
        kind="text",
        classes=tuple(f"class {i}" for i in range(classes)),
        channels=None,
        length=None,
        max_length=100,
        side=None,
        permutation_seed=None,
        tokens="characters",
        vocabulary=("\ufffd", *"abcdefghijklmnopqrstuvwxyz"[: vocabulary - 1]),
    )


def classifier(info, hidden=5, **parameters):
    parameters = {"projection_size": 4, "head_size": 6, "dropconnect": 0.0, **parameters}
    return make_classifier(info, hidden_size=hidden, seed=3, **parameters)


def batch(info, lengths, seed=0):
    """A random batch, padded at the ends with values that no result may depend on."""
    rng = np.random.default_rng(seed)
    lengths = np.asarray(lengths, np.int32)
    shape = (len(lengths), lengths.max())
    if info.is_text:
        inputs = rng.integers(0, info.vocabulary_size, shape).astype(np.int32)
    else:
        inputs = rng.random((*shape, info.channels)).astype(np.float32)
    labels = rng.integers(0, info.num_classes, len(lengths)).astype(np.int32)
    return Batch(tf.constant(inputs), tf.constant(lengths), tf.constant(labels))
