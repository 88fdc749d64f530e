"""TensorFloat-32: products on a GPU with 10 bits of the operands' fractions, instead of 23.

TensorFlow multiplies so by default on GPUs of 2020 and later. A trained classifier is to give the
same probabilities on a GPU and on a CPU, so it is off wherever one is evaluated, compared with its
exports or asked: probabilities differed by 1.4e-3 with it and by 9e-7 without it.
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
