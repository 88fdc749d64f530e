"""Seeded initial weights: they depend on the seed and the weight's name only."""

from __future__ import annotations

import zlib

import keras
import tensorflow as tf

from t2aux.errors import SettingError


def _seed_for(seed: int, name: str) -> int:
    # Each weight has its own stream, so that adding an auxiliary network does not change the
    # initial weights of other networks.
    return zlib.crc32(f"{seed}/{name}".encode()) & 0x7FFFFFFF


def glorot(shape: tuple[int, ...], seed: int, name: str) -> keras.Variable:
    """A Glorot-uniform variable of the given shape."""
    initializer = keras.initializers.GlorotUniform(seed=_seed_for(seed, name))
    return variable(initializer(shape, dtype="float32"), name)


def orthogonal_gates(size: int, seed: int, name: str, gates: int = 4) -> keras.Variable:
    """An orthogonal recurrent kernel [size, gates * size], as in Keras's LSTM."""
    initializer = keras.initializers.Orthogonal(seed=_seed_for(seed, name))
    return variable(initializer((size, gates * size), dtype="float32"), name)


def glorot_gates(size: int, seed: int, name: str) -> keras.Variable:
    """A Glorot-uniform recurrent kernel [size, 4 * size]."""
    return glorot((size, 4 * size), seed, name)


def chrono(size: int, steps: int, seed: int, name: str, *, parameter: str) -> tf.Tensor:
    """Forget biases [size] for dependencies of up to `steps` steps.

    The biases are log u with u uniform in [1, steps - 1] (chrono initialisation: Tallec and
    Ollivier 2018, equation 16).

    Raises:
        UserError: `steps`, which `parameter` of the configuration sets, is below 3.
    """
    if steps < 3:
        raise SettingError(f"{parameter} must be at least 3 or None, but is {steps}.")
    uniform = keras.initializers.RandomUniform(1.0, steps - 1.0, seed=_seed_for(seed, name))
    return tf.math.log(uniform((size,), dtype="float32"))


def zeros(shape: tuple[int, ...], name: str) -> keras.Variable:
    """A variable of zeros."""
    return variable(tf.zeros(shape), name)


def variable(value: tf.Tensor, name: str) -> keras.Variable:
    """A variable with an initial value; its name is the last part of `name` ("b" of "a/b")."""
    return keras.Variable(value, dtype="float32", name=name.rpartition("/")[2])
