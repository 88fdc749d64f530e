"""The variants of the TensorFlow Lite files: how the weights are stored and used.

| variant | weights | computed in | forms |
|---|---|---|---|
| `float32` | float32 | float32 | whole, stream, stateful |
| `float16` | float16 | float32 | whole, stream |
| `dynamic_int8` | int8 | int8 products, the rest float32 | whole, stream |
| `dynamic_int8_int4_head` | int8, the head int4 | int8 products, the rest float32 | whole, stream |
| `int8` | int8 | integers only, the cell in 16 bits | stateful |

Except in `int8`, matrices of less than 1,024 values (the kernel of a few input channels) and biases
stay in float32. `int8` is for processors without floating point and slow on others; it is
calibrated on training data. Only an LSTM has the stateful form, and therefore `int8`; see
`tflite.forms`. Real values are normalised before the network, in float32 in every variant.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable

import numpy as np
import tensorflow as tf

from t2aux import logs
from t2aux.errors import DependencyError, ModelError, SettingError, UserError
from t2aux.export import flatbuffer
from t2aux_ondevice import litert
from t2aux_ondevice.errors import reason

INT4_HEAD = "dynamic_int8_int4_head"


@dataclasses.dataclass(frozen=True)
class Variant:
    """One way to store the weights.

    Attributes:
        name: The name in the table above.
        types: The types of the larger matrices, see `flatbuffer.weights`.
        unroll: Steps per pass through the loop; see `recurrence`.
        forms: The forms of the variant.
    """

    name: str
    types: frozenset[str]
    unroll: int
    forms: tuple[str, ...]

    @property
    def is_exact(self) -> bool:
        """Whether its predictions equal the checkpoint's except for rounding."""
        return self.name == "float32"


VARIANTS = {
    variant.name: variant
    for variant in (
        Variant("float32", frozenset({"float32"}), 2, litert.FORMS),
        Variant("float16", frozenset({"float16"}), 2, (litert.WHOLE_FORM, litert.STREAM_FORM)),
        Variant("dynamic_int8", frozenset({"int8"}), 4, (litert.WHOLE_FORM, litert.STREAM_FORM)),
        Variant(INT4_HEAD, frozenset({"int8", "int4"}), 4, (litert.WHOLE_FORM, litert.STREAM_FORM)),
        Variant("int8", frozenset({"int8"}), 1, (litert.STATEFUL_FORM,)),
    )
}
# Every network has this variant, even one that is too small to quantise.
DEFAULT = ("float32",)


def named(names: Iterable[str]) -> list[Variant]:
    """The variants with the given names, in the order of the table.

    Raises:
        UserError: A variant does not exist, or none is named.
    """
    names = list(names)
    unknown = [name for name in names if name not in VARIANTS]
    if unknown or not names:
        name = unknown[0] if unknown else ""
        raise SettingError(f"Unknown variant {name!r}: give some of {', '.join(VARIANTS)}.")
    return [variant for name, variant in VARIANTS.items() if name in names]


def configure(
    converter: tf.lite.TFLiteConverter,
    variant: Variant,
    calibration: Callable[[], Iterable[dict[str, np.ndarray]]] | None,
) -> None:
    """Configures TensorFlow's converter.

    Args:
        converter: The converter of a network in float32.
        variant: The variant to make.
        calibration: For "int8", returns inputs in the form that the network will get.
    """
    if variant.name in ("float32", INT4_HEAD):
        return
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if variant.name == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if variant.name == "int8":
        converter.representative_dataset = calibration
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]


def quantise_head(content: bytes, head: str) -> bytes:
    """Quantises the recurrence to int8 and the head to int4, by channel.

    Args:
        content: A file in float32.
        head: A regular expression for the names of the head's tensors.

    Returns:
        The file with quantised weights.

    Raises:
        UserError: ai-edge-quantizer is not installed, or fails.
    """
    try:
        from ai_edge_quantizer import quantizer, recipe
    except ImportError as error:
        raise DependencyError(
            f"The variant {INT4_HEAD} needs ai-edge-quantizer ({error}): run `pip install "
            "'t2aux[quantization]'`, or leave it out."
        ) from error
    in_eight_bits, in_four_bits = recipe.dynamic_wi8_afp32(), recipe.dynamic_wi4_afp32()
    for rule in (*in_eight_bits, *in_four_bits):
        rule["op_config"]["min_weight_elements"] = flatbuffer.MIN_QUANTISED
    for rule in in_eight_bits:
        # Scales and zero points for each of the 4H channels would be a tenth of the kernel's size.
        rule["op_config"]["weight_tensor_config"]["granularity"] = "TENSORWISE"
    for rule in in_four_bits:
        rule["regex"] = head
    with logs.quiet_libraries():
        try:
            made = quantizer.Quantizer(bytearray(content), in_eight_bits + in_four_bits)
            return bytes(made.quantize().quantized_model)
        except (RuntimeError, ValueError) as error:
            raise failed("ai-edge-quantizer", INT4_HEAD, error) from error


def failed(tool: str, variant: str, error: Exception) -> UserError:
    """The error for a variant that a tool can't make."""
    lacking = sorted(set(re.findall(r"'tf\.(\w+)' op is neither a custom op nor", str(error))))
    if lacking:
        return ModelError(
            f"The variant {variant} can't be made: LiteRT has no {', '.join(lacking)}; use another "
            "operation in the core's step, or --formats=saved_model."
        )
    return DependencyError(
        f"{tool} can't make the variant {variant} ({reason(error)}): use the versions in t2aux's "
        "constraints, or leave it out."
    )
