r"""Classifies images, texts and arrays.

Usage: t2aux classify --model=MODEL INPUT...

MODEL is a .tflite file (which runs in LiteRT, without TensorFlow), a directory written by
`t2aux export`, the model_dir of a run, or the .keras file of a t2aux.SequenceClassifier. INPUTs are
images, .txt files, or .npz files of sequences in the form that the classifier reads: `inputs`
[N, T, C] or [N, T] and, if the sequences differ in length, `lengths` [N]. For a table, a folder or
many files, use `t2aux predict`, which writes the predictions to a file.

Examples:
  t2aux classify --model=exports/quick/1/classifier.tflite digit.png
  t2aux classify --model=exports/quick --stream --segment=8 --top=1 digit.png
  t2aux classify --model=runs/dbpedia --text='A village in the north of Norway.' --top=3
  t2aux classify --model=runs/quick --json *.png > answers.jsonl
"""

from __future__ import annotations

from collections.abc import Sequence

from absl import flags

from t2aux import logs
from t2aux.cli import answering, common

_MODEL = common.define_path(
    "model", None, "A .tflite or .keras file, an export's directory, or the model_dir of a run."
)
flags.mark_flag_as_required("model")
_CHECKPOINT = common.define_checkpoint()


def main(argv: Sequence[str]) -> None:
    """Runs the command. argv[1:] are the files."""
    from t2aux.evaluation.location import locate
    from t2aux_ondevice import answers

    answering.check_inputs(argv[1:])
    location = locate(_MODEL.value)
    if location.needs_tensorflow:
        logs.quiet_tensorflow()
        classifier = location.load(_CHECKPOINT.value)
    else:
        with answers.without_notes():
            classifier = location.load(_CHECKPOINT.value)
    answering.show(classifier, argv[1:])
