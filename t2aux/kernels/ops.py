"""The kernel's ops with their gradients, and whether they are used.

`T2AUX_KERNEL=off` in the environment turns the kernel off, `on` makes it an error that it can't be
compiled; otherwise it is used where there is a compiler and no GPU.

The products' operands are float32, or within `products_in("bfloat16")` bfloat16 where the processor
multiplies those; sums, states, gates and what is given and returned are float32 in any case.
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

# What the products' operands may be.
Precision = Literal["float32", "bfloat16"]

# Of the thread that makes the graph: replicas and models in one process may differ.
_precision = contextvars.ContextVar("precision", default="float32")


class Weights(NamedTuple):
    """An LSTM's weights, gates in Keras's order (input, forget, candidate, output).

    Attributes:
        input_kernel: [D, 4H], or for ids a table [V, 4H] with the bias in it.
        bias: [4H]; None for ids.
        recurrent_kernel: [H, 4H].
    """

    input_kernel: tf.Tensor
    bias: tf.Tensor | None
    recurrent_kernel: tf.Tensor


class Scan(NamedTuple):
    """A scan over a segment: its initial state, and what it returns.

    Attributes:
        state: The state before the segment, a NamedTuple or list of tensors [B, ...].
        positions: [M] int32 positions in 0..T, in any order: the states before those steps are
            returned.
        active: The first step of each sequence and one past its last, [B] int32 each; it keeps its
            state at other steps. None for one of them, or both: as far as the segment goes.
        outputs: Return all outputs, too.
        gradient: Whether a gradient may be taken. Without one nothing is stored, and without
            outputs memory does not grow with T.
    """

    state: Any
    positions: tf.Tensor
    active: tuple[tf.Tensor | None, tf.Tensor | None] | None = None
    outputs: bool = False
    gradient: bool = True


class Result(NamedTuple):
    """What the LSTM gives.

    Attributes:
        h: [M, B, H]: the outputs at the positions.
        c: [M, B, H]: the cells at the positions.
        outputs: [T, B, H], all outputs, or [0, B, H] where they are not wanted.
    """

    h: tf.Tensor
    c: tf.Tensor
    outputs: tf.Tensor


class Decoded(NamedTuple):
    """What the decoder gives.

    Attributes:
        outputs: [T, B, H] of the top layer.
        h: [B, H], a layer: after the last step.
        c: [B, H], a layer.
        last: [B, C] or [B]: the sampled token after the last step.
    """

    outputs: tf.Tensor
    h: list[tf.Tensor]
    c: list[tf.Tensor]
    last: tf.Tensor


def enabled() -> bool:
    """Whether the kernel is used; compiles and loads it at the first call.

    Raises:
        UserError: T2AUX_KERNEL is neither off, on nor auto; or on, and the kernel can't be had.
    """
    return _library(_mode()) is not None


def check_precision(parameter: str, precision: str) -> None:
    """Raises UserError where a precision is unknown."""
    if precision not in ("float32", "bfloat16"):
        raise SettingError(f"{parameter} must be 'float32' or 'bfloat16', but is {precision!r}.")


@contextlib.contextmanager
def products_in(precision: Precision | None) -> Iterator[None]:
    """Within it, `lstm` and `decode` are made with products of this precision, gradients included.

    Where the processor has no products of bfloat16, or the kernel is not used, they are float32 all
    the same, and the log says so once.

    Args:
        precision: Of the operands; None: as around it.
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
    """An LSTM over time-major input.

    Args:
        x: [T, B, D] float32, or [T, B] int32 ids.
        weights: The LSTM's.
        scan: The scan; its state is the output and the cell, [B, H] each.
        input_gradient: Whether one with respect to x may be, too.

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
    """Stacked LSTM layers that read given tokens or the ones that a head makes of their outputs.

    The gradient flows through the layers; the fed tokens pass none, nor does the head here.

    Args:
        given: [T, B, C] float32 or [T, B] int32.
        previous: [B, C] or [B]: the sampled token before step 0.
        use_sampled: [T, B] bool: whether step t reads the sampled token.
        uniforms: [T, B] in [0, 1): ids are sampled by them from the head's softmax; None for real
            values.
        head: The head's hidden kernel and bias, output kernel and bias.
        layers: Bottom first: input kernel (or table, with no bias), bias, recurrent kernel.
        h0: [B, H], a layer.
        c0: [B, H], a layer.

    Returns:
        What it gives.

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
            "The LSTM kernel can't be used: %s. Plain TensorFlow does the work, several times "
            "slower.",
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
