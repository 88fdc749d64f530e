"""The two TensorFlow Lite files: whole sequences with a fused LSTM, and streaming segments.

Both take one sequence at a time, in float32, and have one signature, `serving_default`:

| file | inputs | outputs |
|---|---|---|
| whole | inputs [1, T, C] float32 or ids [1, T] int32 | probabilities [1, K] |
| streaming | segment [1, S, C] or [1, S], h [1, H], c [1, H] | probabilities [1, K], h, c |

T is fixed where the data has one length, and otherwise, like S, any number: LiteRT's signature
runner resizes the input by itself. They are two files since one with two signatures would hold the
weights twice.
"""

from __future__ import annotations

import struct
import tempfile
import uuid
from collections import Counter
from collections.abc import Callable

import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema

from t2aux.errors import UserError
from t2aux.export import saved_model
from t2aux.export.twin import Twin
from t2aux.model import lstm
from t2aux.model.classifier import Classifier
from t2aux.model.inputs import reader
from t2aux.model.lstm import LSTMState

FUSED = "UNIDIRECTIONAL_SEQUENCE_LSTM"
_LOOP = "WHILE"
# Where the table of a fused LSTM's options has its field cell_clip.
_CELL_CLIP = 6
_BUILTIN_NAMES = {
    value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)
}


def convert_whole(classifier: Classifier) -> bytes:
    """Makes the whole-sequence file.

    Args:
        classifier: With its weights.

    Returns:
        The flatbuffer.

    Raises:
        UserError: The LSTM did not fuse, or an operation is not one of LiteRT's own.
    """
    twin = Twin(classifier)
    # An embedding's rows go into the fused operation one by one; real values need no layer of
    # their own, since the projection is folded into the kernel.
    kernel, bias = twin.kernel, twin.bias
    if classifier.info.is_text:
        kernel, bias = classifier.lstm.kernel, classifier.lstm.bias
    # The fusion wants weights that are tensors, not variables.
    weights = [tf.constant(w.numpy()) for w in (kernel, twin.recurrent_kernel, bias)]

    def classify(inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        x = classifier.input(inputs) if classifier.info.is_text else inputs
        last = _fusible_lstm(x, _zero_state(inputs, twin.hidden_size), *weights)
        return {"probabilities": twin.probabilities(last)}

    spec = twin.tokens_spec(1, classifier.info.length, "inputs")
    content = _convert(classify, [spec], classifier)
    check_operators(content, required={FUSED: 1}, forbidden={_LOOP})
    return _without_cell_clip(content)


def convert_stream(classifier: Classifier) -> bytes:
    """Makes the streaming file. See `convert_whole`."""
    twin = Twin(classifier)

    def step_segment(segment: tf.Tensor, h: tf.Tensor, c: tf.Tensor) -> dict[str, tf.Tensor]:
        state = twin.scan(segment, LSTMState(h, c))
        return {**state._asdict(), "probabilities": twin.probabilities(state.h)}

    specs = [twin.tokens_spec(1, None, "segment"), *twin.state_spec(1)]
    content = _convert(step_segment, specs, twin)
    check_operators(content, required={_LOOP: 1}, forbidden=set())
    return content


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


def _without_cell_clip(content: bytes) -> bytes:
    """Turns off the clipping of the cells.

    The converter has the fused operation clip them at 10, as no LSTM here was trained to. Trained
    cells do grow larger, and then the answers differ.
    """
    patched = bytearray(content)
    for options in fused_options(content):
        offset = options._tab.Offset(_CELL_CLIP)
        if offset:  # Where it is not stored, it is 0.
            struct.pack_into("<f", patched, options._tab.Pos + offset, 0.0)
    return bytes(patched)


def _fusible_lstm(
    inputs: tf.Tensor,
    state: LSTMState,
    kernel: tf.Tensor,
    recurrent_kernel: tf.Tensor,
    bias: tf.Tensor,
) -> tf.Tensor:
    """Runs an LSTM over [1, T, D] in the form that the converter replaces by the fused operation.

    The converter knows Keras 2's LSTM by its function's attributes, arguments and five results:
    the last output, all outputs, h, c, and a constant. It fuses, or silently does not, only where
    the results h and c are not used.

    Returns:
        The last output, [1, H].
    """

    def layer(
        inputs: tf.Tensor,
        init_h: tf.Tensor,
        init_c: tf.Tensor,
        kernel: tf.Tensor,
        recurrent_kernel: tf.Tensor,
        bias: tf.Tensor,
    ) -> tuple[tf.Tensor, ...]:
        x = tf.transpose(inputs, [1, 0, 2])
        read = reader(x, kernel, bias, differentiable=True)
        final, states = lstm.run(
            read, 0, tf.shape(x)[0], LSTMState(init_h, init_c), recurrent_kernel, collect=True
        )
        outputs = tf.transpose(states.h, [1, 0, 2])
        return final.h, outputs, final.h, final.c, tf.constant(0.0)

    attributes = {
        # What follows the underscore tells one layer's functions from another's.
        "api_implements": f"lstm_{uuid.uuid4()}",
        "time_major": False,
        "go_backwards": False,
    }
    fusible = tf.function(layer, autograph=False, experimental_attributes=attributes)
    return fusible(inputs, state.h, state.c, kernel, recurrent_kernel, bias)[0]


def _zero_state(inputs: tf.Tensor, hidden_size: int) -> LSTMState:
    """Zeros [1, H] that the converter can't know to be constant.

    The fused operation keeps a constant initial state in a variable and goes on from there at the
    next call, which would make a file's second answer depend on its first input. Zeros computed
    from the input are anew at each call, in every runtime. h and c must be different tensors, since
    the operation works in them.
    """
    first = tf.cast(tf.reshape(inputs[:, 0], [1, -1])[:, :1], tf.float32)
    zero = tf.minimum(tf.abs(first), 0.0)
    ones = tf.ones([1, hidden_size])
    return LSTMState(zero * ones, zero * -ones)


def _convert(function: Callable, specs: list[tf.TensorSpec], tracked: tf.Module) -> bytes:
    """Converts a function; `tracked` holds its variables."""
    concrete = tf.function(function, input_signature=specs, autograph=False).get_concrete_function()
    # The converter itself would go through a SavedModel too, and, where it can't write one, take
    # another way, on which nothing fuses.
    with tempfile.TemporaryDirectory() as directory:
        saved_model.write(tracked, directory, {"serving_default": concrete})
        return tf.lite.TFLiteConverter.from_saved_model(directory).convert()
