"""Seeded initial weights: the same seed and name give the same weights, whatever else there is."""

from __future__ import annotations

import zlib

import keras
import tensorflow as tf

from t2aux.errors import SettingError


def _seed_for(seed: int, name: str) -> int:
    # Each weight has its own stream, so that adding an auxiliary network changes no other
    # network's initial weights.
    return zlib.crc32(f"{seed}/{name}".encode()) & 0x7FFFFFFF


def glorot(shape: tuple[int, ...], seed: int, name: str) -> keras.Variable:
    """A Glorot-uniform variable of that shape."""
    initializer = keras.initializers.GlorotUniform(seed=_seed_for(seed, name))
    return variable(initializer(shape, dtype="float32"), name)


def orthogonal_gates(size: int, seed: int, name: str, gates: int = 4) -> keras.Variable:
    """A recurrent kernel [size, gates * size]: orthogonal, as Keras initialises its LSTM."""
    initializer = keras.initializers.Orthogonal(seed=_seed_for(seed, name))
    return variable(initializer((size, gates * size), dtype="float32"), name)


def glorot_gates(size: int, seed: int, name: str) -> keras.Variable:
    """A Glorot-uniform recurrent kernel [size, 4 * size]."""
    return glorot((size, 4 * size), seed, name)


def chrono(size: int, steps: int, seed: int, name: str, *, parameter: str) -> tf.Tensor:
    """Forget biases [size] for memories of up to `steps` steps.

    They are log u with u uniform in [1, steps - 1] (chrono initialisation: Tallec and Ollivier
    2018, equation 16).

    Raises:
        UserError: `steps`, of the configuration's `parameter`, is below 3.
    """
    if steps < 3:
        raise SettingError(f"{parameter} must be at least 3 or None, but is {steps}.")
    uniform = keras.initializers.RandomUniform(1.0, steps - 1.0, seed=_seed_for(seed, name))
    return tf.math.log(uniform((size,), dtype="float32"))


def zeros(shape: tuple[int, ...], name: str) -> keras.Variable:
    """A variable of zeros."""
    return variable(tf.zeros(shape), name)


def variable(value: tf.Tensor, name: str) -> keras.Variable:
    """A variable that starts with a value; of a name "a/b" it has the last part."""
    return keras.Variable(value, dtype="float32", name=name.rpartition("/")[2])
