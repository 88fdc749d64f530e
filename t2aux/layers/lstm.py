"""`keras.layers.LSTM` on the CPU's fused kernel."""

from __future__ import annotations

import functools
import sys
from typing import Any

import keras
import tensorflow as tf
from absl import logging

from t2aux.kernels import ops
from t2aux.layers.on_cell import OnCell
from t2aux.model.lstm import LSTMRecurrence

# What makes graphs that other programs run, which have no op of ours.
_EXPORTERS = (
    "keras.src.export.",
    "keras.src.backend.tensorflow.export",
    "tensorflow.lite.",
    "tensorflow.python.saved_model.",
    "tf2onnx.",
)


@keras.saving.register_keras_serializable(package="t2aux")
class LSTM(OnCell, LSTMRecurrence, keras.layers.LSTM):
    """A drop-in for `keras.layers.LSTM` that is several times faster on a CPU.

    It takes the same arguments and has the same weights in the same order, the same values and the
    same gradients, in training and in inference:

    >>> layer = t2aux.layers.LSTM(8)
    >>> layer(tf.zeros([4, 100, 3])).shape
    TensorShape([4, 8])
    >>> keras_layer = keras.layers.LSTM(8)
    >>> keras_layer.build((4, 100, 3))
    >>> layer.set_weights(keras_layer.get_weights())

    The kernel runs where the layer computes in float32 with the default activations and without
    dropout in training, on a CPU with a C++ compiler, which compiles it on first use. Everything
    else is computed by Keras, unchanged: other activations, dropout, float16 and bfloat16, GPUs.
    Exported graphs (`model.export`, `tf.saved_model.save`, TensorFlow Lite) are Keras's own and
    run without t2aux. The environment variable T2AUX_KERNEL=off turns the kernel off.

    With `precision="bfloat16"` the kernel's products have operands that are rounded to bfloat16 in
    training, where the processor multiplies those (AVX512-BF16; elsewhere they are float32, and the
    log says so). Sums, states, weights and gradients are float32, and so are all of inference,
    what is saved and what is exported. An input of up to 4 features is not rounded.

    To load a `.keras` file that holds this layer, import `t2aux.layers` first. Inside of a
    `tf.function` with `jit_compile=True` use Keras's layer: XLA can't compile the kernel.

    Call arguments:
        sequence: [batch, steps, features].
        mask: [batch, steps] bool; a step that is not set leaves state and output as they are.
        training: Whether dropout applies.
        initial_state: A list of the output and the cell before the first step, [batch, units] each.

    Returns:
        The last output [batch, units]; with `return_sequences` all outputs [batch, steps, units];
        with `return_state` also the last output and the last cell, [batch, units] each.
    """

    def __init__(
        self, units: int, *arguments: Any, precision: ops.Precision = "float32", **kwargs: Any
    ) -> None:
        """Makes the layer.

        Args:
            units: H.
            *arguments: Of `keras.layers.LSTM`.
            precision: Of the products in training, "float32" or "bfloat16".
            **kwargs: Of `keras.layers.LSTM`.

        Raises:
            UserError: The precision is unknown.
        """
        super().__init__(units, *arguments, **kwargs)
        ops.check_precision("LSTM.precision", precision)
        self.precision = precision
        # XLA has no op of ours.
        self.supports_jit = False

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().get_config(), "precision": self.precision}

    @property
    def bias(self) -> tf.Tensor | keras.Variable:
        """[4H]; zeros without `use_bias`."""
        return tf.zeros([4 * self.units]) if self.cell.bias is None else self.cell.bias

    @property
    def is_standard(self) -> bool:
        """Whether the recurrence is the one that the kernel computes, in training too."""
        return self._computes_standard() and not (self.dropout or self.recurrent_dropout)

    def inner_loop(
        self,
        sequences: tf.Tensor,
        initial_state: list[tf.Tensor],
        mask: tf.Tensor | None,
        training: bool = False,
    ) -> tuple[tf.Tensor, tf.Tensor, list[tf.Tensor]]:
        """Runs the recurrence, see `keras.layers.RNN`.

        Returns:
            The last output [B, H]; all outputs [B, T, H], or the last alone [B, 1, H] unless
            `return_sequences`; and the state after the last step.
        """
        if not self._kernel_applies(training):
            if training and self.precision != "float32":
                _log_float32(self.name)
            return super().inner_loop(sequences, initial_state, mask, training)
        if isinstance(mask, (list, tuple)):
            mask = mask[0]
        if self.go_backwards:
            sequences = tf.reverse(sequences, [1])
            mask = None if mask is None else tf.reverse(mask, [1])
        weights = (self.kernel, self.bias, self.recurrent_kernel)
        weights = ops.Weights(*map(tf.convert_to_tensor, weights))
        lengths = None
        if mask is not None:
            # The kernel takes sequences that end early: the masked steps go to the end.
            order = tf.argsort(tf.cast(tf.logical_not(mask), tf.int32), axis=1, stable=True)
            sequences = tf.gather(sequences, order, axis=1, batch_dims=1)
            lengths = tf.reduce_sum(tf.cast(mask, tf.int32), axis=1)
        all_ = self.return_sequences
        # Where a trainer says what training is done in, a layer that says nothing does as well.
        rounded = training and self.precision != "float32"
        with ops.products_in(self.precision if rounded else None):
            last, cell_state, outputs = _scan(
                sequences, weights, initial_state, lengths, all_=all_, train=training
            )
        output = last
        if mask is not None:
            # Keras's output is zero until the first step that is not masked.
            output = tf.where(lengths[:, tf.newaxis] > 0, last, 0.0)
            if self.return_sequences:
                done = tf.cumsum(tf.cast(mask, tf.int32), axis=1)
                outputs = tf.gather(outputs, tf.maximum(done - 1, 0), axis=1, batch_dims=1)
                outputs = tf.where(done[..., tf.newaxis] > 0, outputs, 0.0)
        if not self.return_sequences:
            outputs = output[:, tf.newaxis]
        return output, outputs, [last, cell_state]

    def _kernel_applies(self, training: bool) -> bool:
        """Whether the kernel computes just what this layer is configured to."""
        return (
            self._computes_standard()
            and not (training and (self.dropout or self.recurrent_dropout))
            and not _exporting()
            and ops.enabled()
        )

    def _computes_standard(self) -> bool:
        cell = self.cell
        return (
            cell.activation is keras.activations.tanh
            and cell.recurrent_activation is keras.activations.sigmoid
            and cell.compute_dtype == "float32"
            and cell.variable_dtype == "float32"
            and cell.quantization_mode is None
        )


@functools.cache
def _log_float32(name: str) -> None:
    logging.warning(
        "The layer %s has precision bfloat16, but Keras computes it, in float32: its products are "
        "bfloat16 only where the CPU's kernel computes it.",
        name,
    )


def _scan(
    sequences: tf.Tensor,
    weights: ops.Weights,
    state: list[tf.Tensor],
    lengths: tf.Tensor | None,
    *,
    all_: bool,
    train: bool,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """The last output and cell [B, H], and the outputs [B, T, H]; none of them unless `all_`."""

    def scan(store: bool, x: tf.Tensor, h: tf.Tensor, c: tf.Tensor, *weights: tf.Tensor) -> list:
        result = ops.lstm(
            tf.transpose(x, [1, 0, 2]),
            ops.Weights(*weights),
            ops.Scan((h, c), tf.shape(x)[1:2], (None, lengths), outputs=all_, gradient=store),
            input_gradient=True,
        )
        return [result.h[0], result.c[0], tf.transpose(result.outputs, [1, 0, 2])]

    @tf.custom_gradient
    def without_storing(*arguments: tf.Tensor) -> tuple[list, Any]:
        # Inference stores no activations; a gradient that is taken all the same computes them.
        def gradient(*upstream: tf.Tensor) -> list[tf.Tensor]:
            with tf.GradientTape() as tape:
                tape.watch(arguments)
                again = scan(True, *arguments)
            return tape.gradient(again, arguments, upstream)

        return scan(False, *arguments), gradient

    arguments = (sequences, *state, *weights)
    return tuple(scan(True, *arguments) if train else without_storing(*arguments))


def _exporting() -> bool:
    """Whether the graph that is being made is one to be exported.

    TensorFlow and Keras say so nowhere; the callers on the stack do.
    """
    frame = sys._getframe()
    while frame is not None:
        if frame.f_globals.get("__name__", "").startswith(_EXPORTERS):
            return True
        frame = frame.f_back
    return False
