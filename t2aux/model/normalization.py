"""The normalisation of real-valued sequences, as a part of the network, which reads raw values.

The mean and the standard deviation of each channel of the training data are in the `DatasetInfo`
(`t2aux.data.normalization` computes them), and thus in a run's dataset.json and in a `.keras` file.
Stored data and data from clients are never normalised.
"""

from __future__ import annotations

import tensorflow as tf

from t2aux_ondevice.preprocessing import DatasetInfo


def normalized(info: DatasetInfo | None, tokens: tf.Tensor) -> tf.Tensor:
    """(value - mean) / deviation for each channel, if the data set has a mean and a deviation.

    The mean is subtracted first. If a large mean were folded into the weights that follow, small
    differences would be lost in float32.

    Args:
        info: The data set; None if unknown: tokens are returned unchanged.
        tokens: [..., C] float32, or ids, which are returned unchanged.

    Returns:
        The same shape and type as `tokens`. Padding may not be zero, without effect.
    """
    if info is None or info.mean is None:
        return tokens
    return (tokens - tf.constant(info.mean, tf.float32)) / tf.constant(info.deviation, tf.float32)
