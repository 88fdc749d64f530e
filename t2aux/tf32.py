"""TensorFloat-32: products on a GPU with 10 instead of 23 bits of the operands' fractions.

TensorFlow uses it by default on GPUs from 2020 on. Only without it does a trained classifier give
the same probabilities on a GPU and on a CPU, and pass the comparison with its export. So it is
turned off wherever a classifier is evaluated, exported or used.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import tensorflow as tf


def enable(on: bool) -> None:
    """Turns TensorFloat-32 on or off for products on a GPU in this process."""
    tf.config.experimental.enable_tensor_float_32_execution(on)


@contextlib.contextmanager
def off() -> Iterator[None]:
    """Computes in full float32 while the block or the decorated function runs."""
    before = tf.config.experimental.tensor_float_32_execution_enabled()
    enable(False)
    try:
        yield
    finally:
        enable(before)
