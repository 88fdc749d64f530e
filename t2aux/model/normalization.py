"""The normalisation of real-valued sequences: a part of the network, so that raw values go in.

The mean and the standard deviation of each channel of the training data stand in the `DatasetInfo`
(`t2aux.data.normalization` finds them), and so in a run's dataset.json and in a `.keras` file.
Stored data and what clients send are never normalised.
"""

from __future__ import annotations

import tensorflow as tf

from t2aux_ondevice.preprocessing import DatasetInfo


def normalized(info: DatasetInfo | None, tokens: tf.Tensor) -> tf.Tensor:
    """(value - mean) / deviation of each channel, where the data set has these.

    The mean is subtracted before anything else: folded into the weights behind it, a large one
    would leave nothing of small differences in float32.

    Args:
        info: The data set; None: not known, so that nothing is done.
        tokens: [..., C] float32, or ids, which stay as they are.

    Returns:
        As `tokens`. Steps that pad a sequence are not zeros then; they are without effect, whatever
        they hold.
    """
    if info is None or info.mean is None:
        return tokens
    return (tokens - tf.constant(info.mean, tf.float32)) / tf.constant(info.deviation, tf.float32)
