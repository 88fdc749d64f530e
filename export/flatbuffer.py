"""What is in a `.tflite` file: its operations, its weights and the types they are stored in."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Sequence
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from t2aux.errors import UserError

# The least values of a matrix that the converter quantises; the scales of a smaller one would
# outweigh it.
LEAST_QUANTISED = 1024

# Where the table of a fused LSTM's options has its field cell_clip, and that of a tensor its shape
# and its shape_signature (the same with -1 for sizes that may be set later).
_CELL_CLIP = 6
_SHAPES = (4, 18)
_BUILTIN_NAMES = {
    value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)
}
_TYPE_NAMES = {
    value: name.lower() for name, value in vars(schema.TensorType).items() if isinstance(value, int)
}
_BITS = {"float32": 32, "float16": 16, "int8": 8, "int4": 4, "int16": 16, "int32": 32, "int64": 64}


def operators(content: bytes) -> list[str]:
    """The names of a file's operations, over all its subgraphs; custom ones as `CUSTOM:name`."""
    model = schema.Model.GetRootAsModel(content, 0)
    codes = [model.OperatorCodes(i) for i in range(model.OperatorCodesLength())]
    names = []
    for code in codes:
        # Converters before 2020 filled only the old field, which holds codes up to 127.
        name = _BUILTIN_NAMES[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())]
        custom = code.CustomCode()
        names.append(f"CUSTOM:{custom.decode()}" if custom else name)
    return [
        names[graph.Operators(i).OpcodeIndex()]
        for graph in map(model.Subgraphs, range(model.SubgraphsLength()))
        for i in range(graph.OperatorsLength())
    ]


def check_operators(content: bytes, required: dict[str, int], forbidden: set[str]) -> None:
    """Raises UserError where a file's operations are not as they should be.

    Args:
        content: The flatbuffer.
        required: How many there must be of these.
        forbidden: These, and custom and Flex operations, must not be there.
    """
    found = Counter(operators(content))
    wrong = sorted(n for n in found if n in forbidden or n.startswith(("CUSTOM", "Flex")))
    missing = sorted(n for n, count in required.items() if found[n] != count)
    if wrong or missing:
        raise UserError(
            "TensorFlow's converter made another TensorFlow Lite file than it should: "
            f"{'it has ' + ', '.join(wrong) + '; ' if wrong else ''}"
            f"{'it lacks ' + ', '.join(missing) + '; ' if missing else ''}use the TensorFlow "
            "version that t2aux's constraints name."
        )


def weights(content: bytes) -> dict[str, list[int]]:
    """What a file's constants hold.

    Args:
        content: The flatbuffer.

    Returns:
        By the type they are stored in ("float32", "float16", "int8", "int4"; biases of integer
        networks are "int32"), the number of values of each constant that has more than one axis,
        the largest first. A constant that several operations share counts once.
    """
    model = schema.Model.GetRootAsModel(content, 0)
    seen: dict[int, tuple[str, int]] = {}
    for graph in map(model.Subgraphs, range(model.SubgraphsLength())):
        for tensor in map(graph.Tensors, range(graph.TensorsLength())):
            stored = model.Buffers(tensor.Buffer()).DataLength()
            if stored and tensor.ShapeLength() > 1:
                name = _TYPE_NAMES[tensor.Type()]
                seen[tensor.Buffer()] = (name, stored * 8 // _BITS[name])
    found: dict[str, list[int]] = {}
    for name, count in seen.values():
        found.setdefault(name, []).append(count)
    return {name: sorted(counts, reverse=True) for name, counts in sorted(found.items())}


def check_weights(content: bytes, allowed: set[str], name: str) -> None:
    """Raises UserError where a matrix is not stored in the types that it should be.

    Matrices of less than 1,024 values may stay in float32. The converter leaves larger ones there,
    too, without a word, where it does not know how to quantise them.

    Args:
        content: The flatbuffer.
        allowed: The types of the larger matrices. Each must be there.
        name: What to call the file.
    """
    large = {t: [n for n in c if n >= LEAST_QUANTISED] for t, c in weights(content).items()}
    found = {kind for kind, counts in large.items() if counts}
    if found == allowed:
        return
    if not found:
        raise UserError(
            f"The network is too small for {name}: none of its matrices has {LEAST_QUANTISED:,} "
            "values; export it in float32."
        )
    wanted = " and ".join(sorted(allowed))
    kept = ", ".join(f"{max(large[kind]):,} values in {kind}" for kind in sorted(found - allowed))
    raise UserError(
        f"TensorFlow's converter did not store the weights of {name} in {wanted}"
        f"{f' but kept {kept}' if kept else ''}: use the TensorFlow version that t2aux's "
        "constraints name, or export without this variant."
    )


def fused_options(content: bytes) -> list[schema.UnidirectionalSequenceLSTMOptions]:
    """The options of a file's fused LSTMs."""
    found = []
    model = schema.Model.GetRootAsModel(content, 0)
    for graph in map(model.Subgraphs, range(model.SubgraphsLength())):
        for operator in map(graph.Operators, range(graph.OperatorsLength())):
            kind = operator.BuiltinOptionsType()
            if kind == schema.BuiltinOptions.UnidirectionalSequenceLSTMOptions:
                table = operator.BuiltinOptions()
                options = schema.UnidirectionalSequenceLSTMOptions()
                options.Init(table.Bytes, table.Pos)
                found.append(options)
    return found


def without_cell_clip(content: bytes) -> bytes:
    """Turns off the clipping of the cells of fused LSTMs.

    The converter has the fused operation clip them at 10, as no LSTM here was trained to. Trained
    cells do grow larger, and then the answers differ.
    """
    patched = bytearray(content)
    for options in fused_options(content):
        offset = options._tab.Offset(_CELL_CLIP)
        if offset:  # Where it is not stored, it is 0.
            struct.pack_into("<f", patched, options._tab.Pos + offset, np.float32(0.0))
    return bytes(patched)


def with_normalization(
    content: bytes, name: str, mean: Sequence[float], deviation: Sequence[float]
) -> bytes:
    """Has a file subtract and divide, in float32, before anything else.

    Of a network that does so itself, the converter would store the numbers in fewer bits, as it
    does with weights: a large mean would no longer be the values' mean.

    Args:
        content: A file with one signature.
        name: An input of it, float32 [..., C].
        mean: Is subtracted from the input, C numbers.
        deviation: The difference is divided by it, C numbers.

    Returns:
        The file, whose input has the same name and shape.
    """
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(content, 0))
    graph, (signature,) = model.subgraphs[0], model.signatureDefs
    (entry,) = (found for found in signature.inputs if found.name in (name, name.encode()))
    normalized = graph.tensors[entry.tensorIndex]

    def tensor(what: str, like: Any = None, values: Sequence[float] = ()) -> int:
        made = schema.TensorT()
        # Without a rank LiteRT's C interface takes the shape as fixed.
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

    given, centred = tensor("given", like=normalized), tensor("centred", like=normalized)
    graph.operators[:0] = [
        operator("Sub", [given, tensor("mean", values=mean)], centred),
        operator("Div", [centred, tensor("deviation", values=deviation)], entry.tensorIndex),
    ]
    # The input keeps its name, which runtimes without signatures show.
    graph.tensors[given].name, normalized.name = normalized.name, "normalization/normalized"
    graph.inputs = [given if index == entry.tensorIndex else index for index in graph.inputs]
    entry.tensorIndex = given
    builder = flatbuffers.Builder(len(content))
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def with_steps(content: bytes, steps: int) -> bytes:
    """Fixes the sizes of the inputs that are open.

    LiteRT's interpreter sets them to those of what it is given; LiteRT.js can't.

    Args:
        content: A file of the streaming form.
        steps: What they become.

    Returns:
        The file, of the same length, that takes inputs of this size only.
    """
    fixed = bytearray(content)
    graph = schema.Model.GetRootAsModel(content, 0).Subgraphs(0)
    for tensor in map(graph.Tensors, map(graph.Inputs, range(graph.InputsLength()))):
        for axis in range(tensor.ShapeSignatureLength()):
            if tensor.ShapeSignature(axis) == -1:
                for field in _SHAPES:
                    vector = tensor._tab.Vector(tensor._tab.Offset(field))
                    struct.pack_into("<i", fixed, vector + 4 * axis, steps)
    return bytes(fixed)
