"""TensorFloat-32: products on a GPU with 10 bits of the operands' fractions, instead of 23.

TensorFlow multiplies so by default on GPUs of 2020 and later. A trained classifier gives the same
probabilities on a GPU and on a CPU, and passes its export's comparison, only without it. So it is
off wherever a classifier is evaluated, exported or used.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import tensorflow as tf


def enable(on: bool) -> None:
    """Has this process's products on a GPU computed in TensorFloat-32, or in full float32."""
    tf.config.experimental.enable_tensor_float_32_execution(on)


@contextlib.contextmanager
def off() -> Iterator[None]:
    """Computes in full float32 while the block (or the function that it decorates) runs."""
    before = tf.config.experimental.tensor_float_32_execution_enabled()
    enable(False)
    try:
        yield
    finally:
        enable(before)
