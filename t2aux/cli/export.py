r"""Exports a run as a SavedModel and TensorFlow Lite files, and measures each on the test set.

Writes EXPORT_DIR/VERSION with saved_model.pb, TensorFlow Lite files, metadata.json, parity.json and
README.md (a model card with instructions for use). The version is written completely or not at all,
so a server may watch EXPORT_DIR. If the SavedModel or a float32 file differs from the checkpoint by
more than the tolerances, nothing is exported. Another variant that differs by more, or that can't
be made, is left out, and the exit status is 1.

The variants are float32, float16, dynamic_int8 (a third of the size, faster),
dynamic_int8_int4_head (a quarter of the size: the head is in int4; needs the extra `quantization`)
and int8 (integers only, for processors without floating point; calibrated on training data). There
are three forms of files: classifier_VARIANT.tflite (whole sequences),
classifier_stream_VARIANT.tflite (segments, with the state as input and output) and
classifier_stateful_VARIANT.tflite (segments, with the state kept inside the interpreter; only for
an LSTM, in float32 and in int8, for which it is the only form). The names of the float32 files have
no _VARIANT.

Examples:
  t2aux export --model_dir=runs/quick --export_dir=exports/quick
  t2aux export --model_dir=runs/mnist --export_dir=exports/mnist --data_dir=data/mnist \
      --parity_examples=1000
  t2aux export --model_dir=runs/quick --export_dir=exports/quick --formats=tflite --version=7
  t2aux export --model_dir=runs/mnist --export_dir=exports/mnist \
      --variants=float32,float16,dynamic_int8,dynamic_int8_int4_head,int8
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence

from absl import flags

from t2aux import logs, tf_serving
from t2aux.cli import common, next_steps
from t2aux.errors import ModelError

common.define_model_dir("Folder of the run to export.")
common.define_data_dir()
_EXPORT_DIR = common.define_path(
    "export_dir", None, "Folder of the versions, one subfolder each.", required=True
)
_VERSION = flags.DEFINE_integer(
    "version", None, "The version; by default the newest plus one.", lower_bound=1
)
_FORMATS = flags.DEFINE_list("formats", "saved_model,tflite", "Which artefacts to make.")
_VARIANTS = flags.DEFINE_list(
    "variants", ["float32"], "How the TensorFlow Lite files store the weights."
)
_CALIBRATION = flags.DEFINE_integer(
    "calibration_examples",
    200,
    "How many training examples to calibrate the variant int8 on.",
    lower_bound=1,
)
_CHECKPOINT = common.define_checkpoint()
_EXAMPLES = flags.DEFINE_integer(
    "parity_examples",
    None,
    "How many test examples to measure, chosen at random with a fixed seed; all by default. With "
    "0, nothing is measured and no test data is needed.",
    lower_bound=0,
)
_MODEL_NAME = flags.DEFINE_string(
    "model_name", None, "The model's name in the model card; by default the name of --export_dir."
)
_SEGMENT = flags.DEFINE_integer(
    "segment",
    28,
    "Steps per segment when streaming is measured. A stateful file's segment has the largest "
    "number of steps, up to this one, that divides the length of the sequences; 1 if that varies.",
    lower_bound=1,
)
_SERVING_BATCH_SIZES = flags.DEFINE_list(
    "serving_batch_sizes",
    None,
    "The batch sizes to warm a server up for, which must be those that it forms; by default the "
    "powers of 2 up to 128, as in export/deploy/batching.config.",
)
_ACCURACY = flags.DEFINE_float(
    "accuracy_tolerance", 0.2, "Points that a float32 artefact's accuracy may be off."
)
_QUANTISED_ACCURACY = flags.DEFINE_float(
    "quantised_accuracy_tolerance", 1.0, "Points that another variant's accuracy may be off."
)
_QUANTISED_PROBABILITY = flags.DEFINE_float(
    "quantised_probability_tolerance",
    None,
    "How far any probability of another variant may be off; not limited by default, but a "
    "difference of more than 0.1 is reported.",
)
_PROBABILITY = flags.DEFINE_float(
    "probability_tolerance", 1e-3, "How far any probability of a float32 artefact may be off."
)


def main(argv: Sequence[str]) -> None:
    """Runs the command."""
    common.no_arguments(argv)
    logs.quiet_tensorflow()
    from t2aux import run
    from t2aux.export.comparison import Tolerance
    from t2aux.export.pipeline import export

    stopped = False

    def stop(*_: object) -> None:
        # Unwinds the program like Ctrl-C, so that the partial version is removed.
        nonlocal stopped
        stopped = True
        sys.exit(128 + signal.SIGTERM)

    def check() -> None:
        # An exception that a signal raises inside a destructor or a callback does not propagate.
        if stopped:
            sys.exit(128 + signal.SIGTERM)

    batch_sizes = tf_serving.BATCH_SIZES
    if _SERVING_BATCH_SIZES.value is not None:
        batch_sizes = common.whole_numbers("serving_batch_sizes", _SERVING_BATCH_SIZES.value)
    signal.signal(signal.SIGTERM, stop)
    loaded = run.load_run(flags.FLAGS.model_dir, _CHECKPOINT.value, common.gin_params())
    directory, measured = export(
        loaded,
        _EXPORT_DIR.value,
        version=_VERSION.value,
        formats=_FORMATS.value,
        variants=_VARIANTS.value,
        calibration_examples=_CALIBRATION.value,
        examples=_EXAMPLES.value,
        segment=_SEGMENT.value,
        tolerance=Tolerance(
            _ACCURACY.value,
            _PROBABILITY.value,
            _QUANTISED_ACCURACY.value,
            _QUANTISED_PROBABILITY.value,
        ),
        serving_batch_sizes=batch_sizes,
        model_name=_MODEL_NAME.value,
        before_publishing=check,
    )
    print(measured.table())
    print(f"\nExported to {directory}; {directory / 'README.md'} says how to use it.")
    next_steps.show(*next_steps.of_export(directory))
    if measured.failed:
        raise ModelError(f"{'; '.join(measured.failures())}. Everything else was exported.")
