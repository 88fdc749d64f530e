"""The kernel's ops with their gradients, and whether they are used.

The environment variable `T2AUX_KERNEL=off` turns the kernel off. With `on`, it is an error if the
kernel can't be compiled. Otherwise it is used if there is a compiler and no GPU.

The operands of products are float32, or, within `products_in("bfloat16")`, bfloat16 if the
processor supports it. Sums, states, gates, arguments and results are always float32.
"""

from __future__ import annotations

import contextlib
import contextvars
import ctypes
import functools
import os
import types
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import tensorflow as tf
from absl import logging

from t2aux import files
from t2aux.errors import DependencyError, SettingError
from t2aux.kernels import build

# The types of the products' operands.
Precision = Literal["float32", "bfloat16"]

# Specific to the thread that builds the graph: replicas and models in one process may differ.
_precision = contextvars.ContextVar("precision", default="float32")


class Weights(NamedTuple):
    """An LSTM's weights, gates in Keras's order (input, forget, candidate, output).

    Attributes:
        input_kernel: [D, 4H], or for ids a table [V, 4H] with the bias included.
        bias: [4H]; None for ids.
        recurrent_kernel: [H, 4H].
    """

    input_kernel: tf.Tensor
    bias: tf.Tensor | None
    recurrent_kernel: tf.Tensor


class Scan(NamedTuple):
    """Describes a scan over a segment: the initial state, and what to return.

    Attributes:
        state: The state before the segment, a NamedTuple or list of tensors [B, ...].
        positions: [M] int32 positions in 0..T, in any order; the states before those steps are
            returned.
        active: The first step of each sequence and one past its last, [B] int32 each; its state
            does not change at other steps. Either or both may be None: the bounds of the segment.
        outputs: Whether to return all outputs, too.
        gradient: Whether gradients must be supported. If not, no activations are stored, and memory
            does not grow with T unless `outputs` is set.
    """

    state: Any
    positions: tf.Tensor
    active: tuple[tf.Tensor | None, tf.Tensor | None] | None = None
    outputs: bool = False
    gradient: bool = True


class Result(NamedTuple):
    """The results of the LSTM.

    Attributes:
        h: [M, B, H], the outputs at the positions.
        c: [M, B, H], the cells at the positions.
        outputs: [T, B, H], all outputs, or [0, B, H] if they were not requested.
    """

    h: tf.Tensor
    c: tf.Tensor
    outputs: tf.Tensor


class Decoded(NamedTuple):
    """The results of the decoder.

    Attributes:
        outputs: [T, B, H], the outputs of the top layer.
        h: [B, H] for each layer, the output after the last step.
        c: [B, H] for each layer, the cell after the last step.
        last: [B, C] or [B], the sampled token after the last step.
    """

    outputs: tf.Tensor
    h: list[tf.Tensor]
    c: list[tf.Tensor]
    last: tf.Tensor


def enabled() -> bool:
    """Whether the kernel is used; compiles and loads it at the first call.

    Raises:
        UserError: T2AUX_KERNEL is not off, on or auto, or is on although the kernel can't be used.
    """
    return _library(_mode()) is not None


def check_precision(parameter: str, precision: str) -> None:
    """Raises UserError if a precision is unknown."""
    if precision not in ("float32", "bfloat16"):
        raise SettingError(f"{parameter} must be 'float32' or 'bfloat16', but is {precision!r}.")


@contextlib.contextmanager
def products_in(precision: Precision | None) -> Iterator[None]:
    """A context in which `lstm` and `decode` compute their products in this precision.

    This includes the gradients. If the processor does not support bfloat16 products, or the kernel
    is not used, the products are float32, and the log says so once.

    Args:
        precision: The precision of the operands; None: the one outside the context.
    """
    if precision == "bfloat16":
        _has_bfloat16(_mode())
    token = _precision.set(_precision.get() if precision is None else precision)
    try:
        yield
    finally:
        _precision.reset(token)


def _in_effect() -> Precision:
    wanted = _precision.get()
    return wanted if wanted == "float32" or _has_bfloat16(_mode()) else "float32"


@functools.cache
def _has_bfloat16(mode: str) -> bool:
    if _library(mode) is None:
        reason = "the LSTM kernel is not used"
    elif not _load().has_bfloat16:
        reason = "this processor has no AVX512-BF16 instructions"
    else:
        by = " by AMX" if _load().uses_amx else ""
        logging.info("The LSTM kernel's products are computed in bfloat16%s.", by)
        return True
    logging.warning("Products in bfloat16 are configured, but are computed in float32: %s.", reason)
    return False


def lstm(
    x: tf.Tensor,
    weights: Weights,
    scan: Scan,
    *,
    input_gradient: bool = False,
) -> Result:
    """Runs an LSTM over time-major input.

    Args:
        x: [T, B, D] float32, or [T, B] int32 ids.
        weights: The LSTM's weights.
        scan: The scan; its state is the output and the cell, [B, H] each.
        input_gradient: Whether gradients with respect to x must be supported, too.

    Returns:
        The states and outputs.

    Raises:
        tf.errors.InvalidArgumentError: Shapes do not fit, or an id or a position is out of range.
    """
    none = tf.zeros([0], tf.int32)
    first, last = (none if bound is None else bound for bound in scan.active or (None, None))
    h_at, c_at, all_h, _ = _require().t2aux_lstm(
        x=x,
        input_kernel=weights.input_kernel,
        bias=tf.zeros([0]) if weights.bias is None else weights.bias,
        recurrent_kernel=weights.recurrent_kernel,
        h0=scan.state[0],
        c0=scan.state[1],
        first=first,
        last=last,
        positions=scan.positions,
        outputs=scan.outputs,
        save=scan.gradient,
        input_gradient=input_gradient,
        precision=_in_effect(),
    )
    return Result(h_at, c_at, all_h)


def decode(
    given: tf.Tensor,
    previous: tf.Tensor,
    use_sampled: tf.Tensor,
    uniforms: tf.Tensor | None,
    head: list[tf.Tensor],
    layers: list[tuple[tf.Tensor, tf.Tensor | None, tf.Tensor]],
    h0: list[tf.Tensor],
    c0: list[tf.Tensor],
) -> Decoded:
    """Runs stacked LSTM layers that read given tokens, or tokens sampled from their own outputs.

    A head computes the sampled tokens. Gradients flow through the layers, but not through the
    sampled tokens and the head.

    Args:
        given: [T, B, C] float32 or [T, B] int32.
        previous: [B, C] or [B], the sampled token before step 0.
        use_sampled: [T, B] bool, whether step t reads the sampled token.
        uniforms: [T, B] in [0, 1), the random numbers with which ids are sampled from the head's
            softmax; None for real values.
        head: The head's hidden kernel and bias, output kernel and bias.
        layers: Bottom first: input kernel (or table, with no bias), bias, recurrent kernel.
        h0: [B, H] for each layer.
        c0: [B, H] for each layer.

    Returns:
        The results of the decoder.

    Raises:
        tf.errors.InvalidArgumentError: Shapes do not fit, or an id is out of range.
    """
    kernels, biases, recurrent = zip(*layers, strict=True)
    result = _require().t2aux_lstm_decode(
        given=given,
        previous=previous,
        use_sampled=use_sampled,
        uniforms=tf.zeros([0]) if uniforms is None else uniforms,
        head_hidden_kernel=head[0],
        head_hidden_bias=head[1],
        head_output_kernel=head[2],
        head_output_bias=head[3],
        kernels=kernels,
        biases=[tf.zeros([0]) if bias is None else bias for bias in biases],
        recurrent_kernels=recurrent,
        h0=h0,
        c0=c0,
        precision=_in_effect(),
    )
    return Decoded(result.outputs[-1], list(result.h), list(result.c), result.last)


def _mode() -> str:
    return os.environ.get("T2AUX_KERNEL", "auto")


class _Library(NamedTuple):
    ops: types.ModuleType
    has_bfloat16: bool
    uses_amx: bool


@functools.cache
def _library(mode: str) -> _Library | None:
    if mode not in ("auto", "on", "off"):
        raise SettingError(f"T2AUX_KERNEL must be off, on or auto, but is {mode!r}.")
    if mode == "off":
        return None
    if mode == "auto" and tf.config.list_logical_devices("GPU"):
        logging.info("There is a GPU: the CPU's LSTM kernel is not used.")
        return None
    try:
        return _load()
    except build.BuildError as error:
        if mode == "on":
            raise DependencyError(
                f"T2AUX_KERNEL=on, but the LSTM kernel can't be used: {error}."
            ) from error
        logging.warning(
            "The LSTM kernel can't be used: %s. Plain TensorFlow is used instead, which is several "
            "times slower.",
            error,
        )
        return None


@functools.cache
def _load() -> _Library:
    path = build.library()
    try:
        with files.for_tensorflow(path.parent) as folder:
            name = os.path.join(folder, path.name)
            library = tf.load_op_library(name)
            compiled = ctypes.CDLL(name)
            queries = compiled.t2aux_has_bfloat16, compiled.t2aux_uses_amx
            for function in queries:
                function.restype = ctypes.c_bool
            return _Library(library, *(function() for function in queries))
    except (tf.errors.OpError, OSError) as error:
        build.forget(path)
        raise build.BuildError(f"{path} does not load ({str(error).splitlines()[0]})") from error


def _require() -> types.ModuleType:
    library = _library(_mode())
    if library is None:
        raise RuntimeError("the kernel is not enabled: call `enabled` first")
    return library.ops


@tf.RegisterGradient("T2auxLstm")
def _lstm_gradient(op: tf.Operation, *gradients: tf.Tensor) -> list[tf.Tensor | None]:
    x, input_kernel, _, recurrent_kernel, h0, c0, first, last, positions = op.inputs
    d_h, d_c, d_outputs, _ = gradients
    wanted = op.get_attr("input_gradient") and x.dtype != tf.int32
    result = _load().ops.t2aux_lstm_grad(
        x=x,
        input_kernel=input_kernel,
        recurrent_kernel=recurrent_kernel,
        h0=h0,
        c0=c0,
        first=first,
        last=last,
        positions=positions,
        saved=op.outputs[3],
        d_h_at=d_h,
        d_c_at=d_c,
        d_all_h=d_outputs,
        outputs=op.get_attr("outputs"),
        input_gradient=wanted,
        precision=op.get_attr("precision"),
    )
    return [
        result.d_x if wanted else None,
        result.d_input_kernel,
        None if x.dtype == tf.int32 else result.d_bias,
        result.d_recurrent_kernel,
        result.d_h0,
        result.d_c0,
        None,
        None,
        None,
    ]


@tf.RegisterGradient("T2auxLstmDecode")
def _decode_gradient(op: tf.Operation, *gradients: tf.Tensor) -> list[tf.Tensor | None]:
    layers = op.get_attr("layers")
    kernels, _, recurrent, h0, c0 = _split(op.inputs[8:], layers)
    outputs, _, _, saved = _split(op.outputs[2:], layers)
    d_outputs, d_h, d_c, _ = _split(gradients[2:], layers)
    fed = op.outputs[0]
    steps = tf.shape(fed)[:1]
    none = tf.zeros([0], tf.int32)
    by_layer = []
    # Only the layer above reads a lower layer's outputs.
    above = d_outputs[-1]
    for k in reversed(range(layers)):
        result = _load().ops.t2aux_lstm_grad(
            x=outputs[k - 1] if k else fed,
            input_kernel=kernels[k],
            recurrent_kernel=recurrent[k],
            h0=h0[k],
            c0=c0[k],
            first=none,
            last=none,
            positions=steps,
            saved=saved[k],
            d_h_at=d_h[k][tf.newaxis],
            d_c_at=d_c[k][tf.newaxis],
            d_all_h=above,
            outputs=True,
            input_gradient=k > 0,
            precision=op.get_attr("precision"),
        )
        above = result.d_x
        by_layer.insert(0, result)
    ids = fed.dtype == tf.int32
    return [
        *[None] * 8,
        *[r.d_input_kernel for r in by_layer],
        *[None if ids and k == 0 else r.d_bias for k, r in enumerate(by_layer)],
        *[r.d_recurrent_kernel for r in by_layer],
        *[r.d_h0 for r in by_layer],
        *[r.d_c0 for r in by_layer],
    ]


def _split(values: list[tf.Tensor], size: int) -> list[list[tf.Tensor]]:
    return [list(values[i : i + size]) for i in range(0, len(values), size)]
