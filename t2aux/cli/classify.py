r"""Classifies images, texts and arrays.

Usage: t2aux classify --model=MODEL INPUT...

MODEL is a .tflite file (which runs in LiteRT, without TensorFlow), a directory that `t2aux export`
made, or the model_dir of a run. INPUTs are images, .txt files, or .npz files of sequences as the
classifier reads them: `inputs` [N, T, C] or [N, T] and, where they differ, `lengths` [N].

Examples:
  t2aux classify --model=exports/quick/1/classifier.tflite digit.png
  t2aux classify --model=exports/quick --stream --segment=8 --top=1 digit.png
  t2aux classify --model=runs/dbpedia --text='A village in the north of Norway.' --top=3
  t2aux classify --model=runs/quick --json *.png > answers.jsonl
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from collections.abc import Iterator, Sequence

from absl import flags

from t2aux.cli import common
from t2aux.errors import UserError

_MODEL = flags.DEFINE_string(
    "model", None, "A .tflite file, an export's directory, or the model_dir of a run."
)
flags.mark_flag_as_required("model")
_TEXT = flags.DEFINE_multi_string("text", [], "A text to classify. Repeatable.")
_TOP = flags.DEFINE_integer("top", 5, "How many of the best classes to show.", lower_bound=1)
_STREAM = flags.DEFINE_bool(
    "stream", False, "Read each input segment by segment, and show how the answer changes."
)
_SEGMENT = flags.DEFINE_integer("segment", 28, "Steps of a segment.", lower_bound=1)
_JSON = flags.DEFINE_bool(
    "json", False, "Print one JSON object a line: for each input or, with --stream, each segment."
)


def main(argv: Sequence[str]) -> int | None:
    """Runs the command; argv[1:] are the files."""
    from t2aux import classify, reading

    if len(argv) == 1 and not _TEXT.value:
        raise UserError("There is nothing to classify: give files, or --text.")
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Names may hold what the terminal can't show.
        sys.stdout.reconfigure(errors="backslashreplace")
    location = classify.locate(_MODEL.value)
    if location.needs_tensorflow:
        common.quiet_tensorflow()
        classifier = location.load()
    else:
        with _without_notes():
            classifier = location.load()
    for item in reading.read_inputs(classifier.info, argv[1:], _TEXT.value):
        if not _STREAM.value:
            answer = classify.classify(classifier, item, _TOP.value)
            print(json.dumps(answer.to_json()) if _JSON.value else answer.lines(), flush=True)
            continue
        answers = classify.stream(classifier, item, _SEGMENT.value, _TOP.value)
        for number, answer in enumerate(answers):
            if not _JSON.value and number == 0:
                print(answer.heading())
            print(json.dumps(answer.to_json()) if _JSON.value else answer.line(), flush=True)
    return None


@contextlib.contextmanager
def _without_notes() -> Iterator[None]:
    """Keeps off the terminal what LiteRT writes while it loads; what fails is an exception too."""
    if sys.stderr is None:  # Closed by who started this.
        yield
        return
    sys.stderr.flush()
    stderr = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)


if __name__ == "__main__":
    common.run(main)
