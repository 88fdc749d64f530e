"""The TensorFlow Lite files: three forms of a classifier, in variants.

All take one sequence at a time, with real values that are not normalised (the files normalise them
first, in float32), and have one signature, `serving_default`:

| form | inputs | outputs | the recurrence |
|---|---|---|---|
| whole | inputs [1, T, C] float32 or [1, T] int32 | probabilities [1, K] | a loop |
| stream | segment [1, S, C] or [1, S], the state | probabilities, the state | a loop |
| stateful | segment [1, S, C] or [1, S] | probabilities | a fused LSTM that keeps its state |

For an LSTM, the state is h and c, [1, H] each; for a GRU, h; in general, the tensors named by
`StatelessClassifier.state`. T is fixed if all sequences have the same length. Otherwise, like S of
the streaming form, it may be any number: LiteRT's signature runner resizes the input automatically.
S of the stateful form is fixed, because LiteRT loses the state when an input is resized;
`reset_all_variables()` sets it to zeros. Only an LSTM has the stateful form, see `forms`. The forms
are separate files, since a file with two signatures would contain the weights twice.
"""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf
from tensorflow.lite.python.convert_phase import ConverterError

from t2aux import logs
from t2aux.errors import ModelError
from t2aux.export import flatbuffer, saved_model, variants
from t2aux.export.lstm import is_lstm
from t2aux.export.recurrence import UnrolledRecurrence
from t2aux.export.stateless import StatelessClassifier
from t2aux.export.variants import Variant
from t2aux.model import inference, lstm
from t2aux.model.classifier import BaseClassifier
from t2aux.model.inputs import reader
from t2aux.model.lstm import LSTMState
from t2aux.model.normalization import normalized
from t2aux_ondevice import litert
from t2aux_ondevice.sequences import segments

if TYPE_CHECKING:
    from t2aux.export.model import Model

FUSED = "UNIDIRECTIONAL_SEQUENCE_LSTM"
_LOOP = "WHILE"
# Other cores have no stateful form, because `reset_all_variables()` does not reset the resource
# variables that would hold the state. They have no int8 variant, either.
NO_STATEFUL_FORM = "LiteRT can reset the state of a fused LSTM only"
# Calibrating a loop crashes the converter.
_NO_INTEGERS = "TensorFlow's converter can quantise a fused LSTM to integers, but not a loop"
# The scope of the head's operations, which identifies its tensors.
_HEAD = "head"


def forms(
    classifier: BaseClassifier | Model, variant: Variant = variants.VARIANTS["float32"]
) -> tuple[str, ...]:
    """The forms of a variant that can be made of a classifier.

    Raises:
        UserError: There are none.
    """
    found = tuple(f for f in variant.forms if f != litert.STATEFUL_FORM or is_lstm(classifier.core))
    if not found:
        core = inference.name_of(classifier.core)
        raise ModelError(f"The variant {variant.name} can't be made of a {core}: {_NO_INTEGERS}.")
    return found


def convert(
    classifier: BaseClassifier | Model,
    form: str,
    variant: Variant = variants.VARIANTS["float32"],
    *,
    segment: int = 28,
    calibration: Iterable[np.ndarray] = (),
) -> bytes:
    """Makes a file.

    Args:
        classifier: The classifier with its weights.
        form: One of `litert.FORMS` that the variant has.
        variant: How the weights are stored.
        segment: The longest segment S of the stateful form; see `stateful_segment`.
        calibration: For the variant int8, sequences in the classifier's form, [T, C] or [T].

    Returns:
        The flatbuffer.

    Raises:
        UserError: The converter made a wrong file: the LSTM was not fused, weights are not stored
            as the variant requires, or an operation is not one of LiteRT's own.
    """
    if form not in forms(classifier, variant):
        raise ModelError(f"The form {form} can't be made: {NO_STATEFUL_FORM}.")
    name = litert.file_name(form, variant.name)
    if form == litert.STATEFUL_FORM:
        segment = stateful_segment(classifier.info.length, segment)
        content = _stateful(classifier, variant, segment, calibration)
        flatbuffer.check_operators(content, required={FUSED: 1}, forbidden={_LOOP})
    else:
        content = (_whole if form == litert.WHOLE_FORM else _stream)(classifier, variant)
        flatbuffer.check_operators(content, required={}, forbidden={FUSED})
    if variant.name == variants.INT4_HEAD:
        content = variants.quantise_head(content, f".*{_HEAD}/.*")
    if not variant.is_exact:
        flatbuffer.check_weights(content, set(variant.types), name)
    info = classifier.info
    if info.mean is None:
        return content
    return flatbuffer.with_normalization(content, litert.INPUTS[form], info.mean, info.deviation)


def stateful_segment(length: int | None, longest: int) -> int:
    """The number of steps S in the stateful form's segments.

    Args:
        length: T, or None if lengths vary.
        longest: The maximum number of steps.

    Returns:
        The largest such number that divides all lengths; 1 if they vary.
    """
    if length is None:
        return 1
    return next(s for s in range(min(longest, length), 0, -1) if length % s == 0)


def _whole(classifier: BaseClassifier | Model, variant: Variant) -> bytes:
    network, recurrence = _unrolled(classifier, variant)

    def classify(inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        state = recurrence(inputs[0], network.init_state(1))
        return {"probabilities": _probabilities(network, state.h)}

    return _convert(
        classify, [network.tokens_spec(1, classifier.info.length, "inputs")], network, variant
    )


def _stream(classifier: BaseClassifier | Model, variant: Variant) -> bytes:
    network, recurrence = _unrolled(classifier, variant)

    def step_segment(segment: tf.Tensor, *state: tf.Tensor) -> dict[str, tf.Tensor]:
        after = recurrence(segment[0], network.packed(state))
        return {**network.named(after), "probabilities": _probabilities(network, after.h)}

    specs = [network.tokens_spec(1, None, "segment"), *network.state_specs(1)]
    return _convert(step_segment, specs, network, variant)


def _stateful(
    classifier: BaseClassifier | Model,
    variant: Variant,
    segment: int,
    calibration: Iterable[np.ndarray],
) -> bytes:
    network = StatelessClassifier(classifier)
    # The rows of an embedding are inputs of the fused operation; the projection of real values is
    # folded into the kernel.
    core = classifier.core
    kernel, bias = core.kernel, core.bias
    if not classifier.info.reads_ids:
        kernel, bias, _ = classifier.input_layer.fold(kernel, bias)
    # The fusion requires weights that are tensors, not variables.
    weights = (kernel, core.recurrent_kernel, bias)
    weights = [tf.constant(tf.convert_to_tensor(w).numpy()) for w in weights]

    def classify(segment: tf.Tensor) -> dict[str, tf.Tensor]:
        x = classifier.input_layer(segment) if classifier.info.reads_ids else segment
        # The fused operation keeps a constant initial state in variables, and continues from it.
        last = _fusible_lstm(x, network.init_state(1), *weights)
        return {"probabilities": _probabilities(network, last)}

    def representative() -> Iterable[dict[str, np.ndarray]]:
        # The converter does not reset the state between sequences, so the ranges include first
        # steps after another sequence.
        for sequence in calibration:
            for _, part in segments(normalized(classifier.info, sequence), segment):
                yield {"segment": part[np.newaxis]}

    specs = [network.tokens_spec(1, segment, "segment")]
    content = _convert(classify, specs, network, variant, representative)
    return flatbuffer.without_cell_clip(content)


def _unrolled(
    classifier: BaseClassifier | Model, variant: Variant
) -> tuple[StatelessClassifier, UnrolledRecurrence]:
    network = StatelessClassifier(classifier, batches=False)
    integer_table = variant.name == variants.INT4_HEAD
    return network, UnrolledRecurrence(network, variant.unroll, integer_table=integer_table)


def _probabilities(network: StatelessClassifier, h: tf.Tensor) -> tf.Tensor:
    with tf.name_scope(_HEAD):
        return network.probabilities(h)


def _fusible_lstm(
    inputs: tf.Tensor,
    state: LSTMState,
    kernel: tf.Tensor,
    recurrent_kernel: tf.Tensor,
    bias: tf.Tensor,
) -> tf.Tensor:
    """Runs an LSTM over [1, T, D] in the form that the converter replaces by the fused operation.

    The converter recognises Keras 2's LSTM by its function's attributes, arguments and five
    results: the last output, all outputs, h, c, and a constant. If the results h and c are used, it
        silently
    does not fuse it.

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
        # The part after the underscore identifies the layer.
        "api_implements": f"lstm_{uuid.uuid4()}",
        "time_major": False,
        "go_backwards": False,
    }
    fusible = tf.function(layer, autograph=False, experimental_attributes=attributes)
    return fusible(inputs, state.h, state.c, kernel, recurrent_kernel, bias)[0]


def _convert(
    function: Callable,
    specs: list[tf.TensorSpec],
    tracked: tf.Module,
    variant: Variant,
    calibration: Callable[[], Iterable[dict[str, np.ndarray]]] | None = None,
) -> bytes:
    """Converts a function. `tracked` holds its variables."""
    concrete = tf.function(function, input_signature=specs, autograph=False).get_concrete_function()
    # The converter itself would also write a SavedModel, but if it can't, it converts in a
    # different way, without fusion.
    with tempfile.TemporaryDirectory() as directory:
        saved_model.write(tracked, directory, {"serving_default": concrete})
        with logs.quiet_libraries():
            converter = tf.lite.TFLiteConverter.from_saved_model(directory)
            variants.configure(converter, variant, calibration)
            try:
                return converter.convert()
            except (ConverterError, RuntimeError, ValueError) as error:
                raise variants.failed("TensorFlow's converter", variant.name, error) from error
