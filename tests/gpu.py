"""A plugin of pytest for `make test-gpu`."""

import subprocess
import sys

import keras
import tensorflow as tf

from tests import cli_helpers

# As in `t2aux train`: runs are compared bit by bit.
tf.config.experimental.enable_op_determinism()
keras.utils.set_random_seed(0)
# The tests' tolerances are float32's. XLA ignores NVIDIA_TF32_OVERRIDE, which the Makefile sets for
# cuBLAS and cuDNN.
tf.config.experimental.enable_tensor_float_32_execution(False)


def _in_a_new_process(*arguments, check=True, timeout=300, code=None, bare=False, **variables):
    del bare  # Nothing has been imported there.
    command = [sys.executable, *(["-m", "t2aux"] if code is None else ["-c", code])]
    done = subprocess.run(
        [*command, *map(str, arguments)],
        env=cli_helpers.environment(**variables),
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    if check:
        assert done.returncode == 0, done.stderr + done.stdout
    return done


# On the machine with an H100, the fork server had several threads after importing TensorFlow, and
# only a process with one thread can be forked safely.
cli_helpers.t2aux = _in_a_new_process
