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

# Modules that make graphs for other programs, which do not have our ops.
_EXPORTERS = (
    "keras.src.export.",
    "keras.src.backend.tensorflow.export",
    "tensorflow.lite.",
    "tensorflow.python.saved_model.",
    "tf2onnx.",
)


@keras.saving.register_keras_serializable(package="t2aux")
class LSTM(OnCell, LSTMRecurrence, keras.layers.LSTM):
    """A drop-in replacement for `keras.layers.LSTM` that is several times faster on a CPU.

    It takes the same arguments, and has the same weights in the same order, the same outputs and
    the same gradients, in training and in inference:

    >>> layer = t2aux.layers.LSTM(8)
    >>> layer(tf.zeros([4, 100, 3])).shape
    TensorShape([4, 8])
    >>> keras_layer = keras.layers.LSTM(8)
    >>> keras_layer.build((4, 100, 3))
    >>> layer.set_weights(keras_layer.get_weights())

    The kernel is used on a CPU if the layer computes in float32 with the default activations and
    without dropout in training. It is compiled on first use, which needs a C++ compiler. In all
    other cases (other activations, dropout, float16, bfloat16, GPUs) Keras computes the layer.
    Exported graphs (`model.export`, `tf.saved_model.save`, TensorFlow Lite) are Keras's own and
    run without t2aux. The environment variable T2AUX_KERNEL=off turns the kernel off, which second
    derivatives (a gradient penalty) need.

    With `precision="bfloat16"`, the operands of the kernel's products are rounded to bfloat16 in
    training if the processor supports it (AVX512-BF16); otherwise they are float32, and the log
    says so. Sums, states, weights and gradients are float32, and so is everything in inference, in
    saved files and in exports. An input of up to 4 features is not rounded.

    To load a `.keras` file that holds this layer, import `t2aux.layers` first. In a `tf.function`
    with `jit_compile=True`, use Keras's layer, because XLA can't compile the kernel.

    Call arguments:
        sequence: [batch, steps, features].
        mask: [batch, steps] bool; state and output do not change at a step where it is false.
        training: Whether dropout is applied.
        initial_state: A list of the output and the cell before the first step, [batch, units] each.

    Returns:
        The last output [batch, units], or, with `return_sequences`, all outputs [batch, steps,
        units]. With `return_state`, also the last output and the last cell, [batch, units] each.
    """

    def __init__(
        self, units: int, *arguments: Any, precision: ops.Precision = "float32", **kwargs: Any
    ) -> None:
        """Creates the layer.

        Args:
            units: H, the size of the output.
            *arguments: Arguments of `keras.layers.LSTM`.
            precision: The precision of the products in training, "float32" or "bfloat16".
            **kwargs: Arguments of `keras.layers.LSTM`.

        Raises:
            UserError: The precision is unknown.
        """
        super().__init__(units, *arguments, **kwargs)
        ops.check_precision("LSTM.precision", precision)
        self.precision = precision
        # XLA does not support our ops.
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
            The last output [B, H]; all outputs [B, T, H], or only the last one [B, 1, H] without
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
        # Keras multiplies integers, too.
        sequences = tf.cast(sequences, self.compute_dtype)
        weights = (self.kernel, self.bias, self.recurrent_kernel)
        weights = ops.Weights(*map(tf.convert_to_tensor, weights))
        lengths = None
        if mask is not None:
            # Moves masked steps to the end, because the kernel takes lengths and not masks.
            order = tf.argsort(tf.cast(tf.logical_not(mask), tf.int32), axis=1, stable=True)
            sequences = tf.gather(sequences, order, axis=1, batch_dims=1)
            lengths = tf.reduce_sum(tf.cast(mask, tf.int32), axis=1)
        all_ = self.return_sequences
        # A layer without its own precision uses the one that the trainer has set.
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
            if self.zero_output_for_mask:  # Bidirectional sets it.
                output = tf.where(mask[:, -1:], output, 0.0)
                if self.return_sequences:
                    outputs = tf.where(mask[..., tf.newaxis], outputs, 0.0)
        if not self.return_sequences:
            outputs = output[:, tf.newaxis]
        return output, outputs, [last, cell_state]

    def _kernel_applies(self, training: bool) -> bool:
        """Whether the kernel can compute this layer as it is configured."""
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
        # Inference stores no activations; if a gradient is taken after all, they are recomputed.
        def gradient(*upstream: tf.Tensor) -> list[tf.Tensor]:
            with tf.GradientTape() as tape:
                tape.watch(arguments)
                again = scan(True, *arguments)
            return tape.gradient(again, arguments, upstream)

        return scan(False, *arguments), gradient

    arguments = (sequences, *state, *weights)
    return tuple(scan(True, *arguments) if train else without_storing(*arguments))


def _exporting() -> bool:
    """Whether the current graph is being made for an export.

    TensorFlow and Keras do not tell, so the callers on the stack are inspected.
    """
    frame = sys._getframe()
    while frame is not None:
        if frame.f_globals.get("__name__", "").startswith(_EXPORTERS):
            return True
        frame = frame.f_back
    return False
