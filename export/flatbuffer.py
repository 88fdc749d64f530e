"""Reads and edits `.tflite` files: their operations, their weights and the types of the weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from t2aux.errors import DependencyError, ModelError

# The converter quantises matrices with at least this many values; for smaller ones, the scales
# would take more space than is saved.
MIN_QUANTISED = 1024

_BUILTIN_NAMES = {
    value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)
}
_TYPE_NAMES = {
    value: name.lower() for name, value in vars(schema.TensorType).items() if isinstance(value, int)
}
_BITS = {"float32": 32, "float16": 16, "int8": 8, "int4": 4, "int16": 16, "int32": 32, "int64": 64}


def _read(content: bytes) -> schema.ModelT:
    return schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(content, 0))


def _write(model: schema.ModelT) -> bytes:
    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def operators(content: bytes) -> list[str]:
    """The names of the operations in all subgraphs of a file; custom ones are `CUSTOM:name`."""
    model = _read(content)
    names = []
    for code in model.operatorCodes:
        # Converters before 2020 filled only the old field, which holds codes up to 127.
        name = _BUILTIN_NAMES[max(code.builtinCode, code.deprecatedBuiltinCode)]
        names.append(f"CUSTOM:{code.customCode.decode()}" if code.customCode else name)
    return [names[o.opcodeIndex] for graph in model.subgraphs for o in graph.operators or ()]


def check_operators(content: bytes, required: dict[str, int], forbidden: set[str]) -> None:
    """Raises UserError if a file has the wrong operations.

    Args:
        content: The flatbuffer.
        required: The required number of each operation.
        forbidden: Operations that the file must not contain, in addition to custom and Flex ones.
    """
    found = Counter(operators(content))
    faults = [f"has {n}" for n in found if n in forbidden or n.startswith(("CUSTOM", "Flex"))]
    faults += [f"lacks {n}" for n, count in required.items() if found[n] != count]
    if faults:
        raise DependencyError(
            f"TensorFlow's converter made a file that {', '.join(sorted(faults))}: use the version "
            "of TensorFlow in t2aux's constraints."
        )


def weights(content: bytes) -> dict[str, list[int]]:
    """The sizes of a file's constants.

    Args:
        content: The flatbuffer.

    Returns:
        For each storage type ("float32", "float16", "int8", "int4"; biases of integer networks are
        "int32"), the number of values of each constant with more than one axis, the largest first.
        A constant that is shared by several operations counts once.
    """
    model = _read(content)
    constants: dict[int, tuple[str, int]] = {}
    for tensor in (tensor for graph in model.subgraphs for tensor in graph.tensors):
        data = model.buffers[tensor.buffer].data
        if data is not None and len(data) and tensor.shape is not None and len(tensor.shape) > 1:
            name = _TYPE_NAMES[tensor.type]
            constants[tensor.buffer] = (name, len(data) * 8 // _BITS[name])
    found: dict[str, list[int]] = {}
    for name, count in constants.values():
        found.setdefault(name, []).append(count)
    return {name: sorted(counts, reverse=True) for name, counts in sorted(found.items())}


def check_weights(content: bytes, allowed: set[str], name: str) -> None:
    """Raises UserError if a matrix is stored in a type that is not allowed.

    Matrices of less than 1,024 values may stay in float32. The converter also silently keeps larger
    ones in float32 if it can't quantise them.

    Args:
        content: The flatbuffer.
        allowed: The types of the larger matrices. Each of them must occur.
        name: The name of the file in the message.
    """
    large = {t: [n for n in c if n >= MIN_QUANTISED] for t, c in weights(content).items()}
    found = {kind for kind, counts in large.items() if counts}
    if found == allowed:
        return
    if not found:
        raise ModelError(
            f"The network is too small for {name}: no matrix has {MIN_QUANTISED:,} values; export "
            "it in float32."
        )
    wanted = " and ".join(sorted(allowed))
    kept = ", ".join(f"{max(large[kind]):,} values in {kind}" for kind in sorted(found - allowed))
    raise DependencyError(
        f"TensorFlow's converter did not store the weights of {name} in {wanted} (it kept "
        f"{kept or 'none'}): use the version in t2aux's constraints, or leave the variant out."
    )


def fused_options(model: schema.ModelT) -> list[schema.UnidirectionalSequenceLSTMOptionsT]:
    """The options of a file's fused LSTMs."""
    kind = schema.BuiltinOptions.UnidirectionalSequenceLSTMOptions
    found = [o for graph in model.subgraphs for o in graph.operators]
    return [o.builtinOptions for o in found if o.builtinOptionsType == kind]


def without_cell_clip(content: bytes) -> bytes:
    """Turns off the clipping of the cells of fused LSTMs.

    The converter makes the fused operation clip cells at 10, but LSTMs here are trained without
    clipping. Trained cells do exceed this value, and then the predictions would differ.
    """
    model = _read(content)
    for options in fused_options(model):
        options.cellClip = 0.0
    return _write(model)


def with_normalization(
    content: bytes, name: str, mean: Sequence[float], deviation: Sequence[float]
) -> bytes:
    """Adds a subtraction and a division, in float32, before the network.

    If the network itself normalised its input, the converter would treat the numbers as weights and
    store them in fewer bits, so a large mean would lose precision.

    Args:
        content: A file with one signature.
        name: The name of an input, float32 [..., C].
        mean: C numbers to subtract from the input.
        deviation: C numbers to divide the difference by.

    Returns:
        The file, whose input has the same name and shape.
    """
    model = _read(content)
    graph, (signature,) = model.subgraphs[0], model.signatureDefs
    (entry,) = (found for found in signature.inputs if found.name in (name, name.encode()))
    normalized = graph.tensors[entry.tensorIndex]

    def tensor(what: str, like: Any = None, values: Sequence[float] = ()) -> int:
        made = schema.TensorT()
        # Without a rank, LiteRT's C interface would treat the shape as fixed.
        made.name, made.buffer, made.hasRank = f"normalization/{what}", 0, True
        if like is None:
            stored = schema.BufferT()
            stored.data = np.frombuffer(np.array(values, "<f4").tobytes(), np.uint8)
            made.shape, made.buffer = [len(values)], len(model.buffers)
            model.buffers.append(stored)
        else:
            made.shape, made.shapeSignature = like.shape, like.shapeSignature
        graph.tensors.append(made)
        return len(graph.tensors) - 1

    def operator(kind: str, inputs: list[int], output: int) -> Any:
        code, made = schema.OperatorCodeT(), schema.OperatorT()
        code.builtinCode = code.deprecatedBuiltinCode = getattr(
            schema.BuiltinOperator, kind.upper()
        )
        code.version = 1
        made.opcodeIndex, made.inputs, made.outputs = len(model.operatorCodes), inputs, [output]
        made.builtinOptionsType = getattr(schema.BuiltinOptions, f"{kind}Options")
        made.builtinOptions = getattr(schema, f"{kind}OptionsT")()
        model.operatorCodes.append(code)
        return made

    raw, centred = tensor("input", like=normalized), tensor("centred", like=normalized)
    graph.operators[:0] = [
        operator("Sub", [raw, tensor("mean", values=mean)], centred),
        operator("Div", [centred, tensor("deviation", values=deviation)], entry.tensorIndex),
    ]
    # The input keeps its name, since runtimes without signatures show it.
    graph.tensors[raw].name, normalized.name = normalized.name, "normalization/normalized"
    graph.inputs = [raw if index == entry.tensorIndex else index for index in graph.inputs]
    entry.tensorIndex = raw
    return _write(model)


def with_steps(content: bytes, steps: int) -> bytes:
    """Fixes the variable sizes of the inputs.

    LiteRT's interpreter resizes inputs to its arrays; LiteRT.js can't.

    Args:
        content: A file of the streaming form.
        steps: The number of steps.

    Returns:
        The file, whose inputs then have this fixed size.
    """
    model = _read(content)
    graph = model.subgraphs[0]
    for tensor in (graph.tensors[index] for index in graph.inputs):
        if tensor.shapeSignature is not None:
            sizes = np.where(tensor.shapeSignature == -1, steps, tensor.shapeSignature)
            tensor.shape = tensor.shapeSignature = sizes.astype(np.int32)
    return _write(model)
