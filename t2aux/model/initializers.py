"""Seeded initial weights: the same seed and name give the same weights, whatever else there is."""

from __future__ import annotations

import zlib

import keras
import tensorflow as tf


def _seed_for(seed: int, name: str) -> int:
    # Each weight has a stream of its own, so that adding an auxiliary network changes no other
    # network's initial weights.
    return zlib.crc32(f"{seed}/{name}".encode()) & 0x7FFFFFFF


def glorot(shape: tuple[int, ...], seed: int, name: str) -> tf.Variable:
    """A Glorot-uniform variable of that shape."""
    initializer = keras.initializers.GlorotUniform(seed=_seed_for(seed, name))
    return tf.Variable(initializer(shape, dtype="float32"), name=name)


def orthogonal_gates(size: int, seed: int, name: str) -> tf.Variable:
    """A recurrent kernel [size, 4 * size]: orthogonal, as Keras initialises its LSTM."""
    initializer = keras.initializers.Orthogonal(seed=_seed_for(seed, name))
    return tf.Variable(initializer((size, 4 * size), dtype="float32"), name=name)


def glorot_gates(size: int, seed: int, name: str) -> tf.Variable:
    """A Glorot-uniform recurrent kernel [size, 4 * size]."""
    return glorot((size, 4 * size), seed, name)


def chrono(size: int, steps: int, seed: int, name: str) -> tf.Tensor:
    """Forget biases [size] for memories of up to `steps` steps (Tallec and Ollivier 2018)."""
    uniform = keras.initializers.RandomUniform(1.0, steps - 1.0, seed=_seed_for(seed, name))
    return tf.math.log(uniform((size,), dtype="float32"))


def zeros(shape: tuple[int, ...], name: str) -> tf.Variable:
    """A variable of zeros."""
    return tf.Variable(tf.zeros(shape), name=name)
