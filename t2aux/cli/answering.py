"""What `t2aux classify` and `t2aux client` share: what is classified, and how answers are shown."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from absl import flags

from t2aux.errors import UserError

if TYPE_CHECKING:
    from t2aux import classify, reading

_TEXT = flags.DEFINE_multi_string("text", [], "A text to classify. Repeatable.")
_TOP = flags.DEFINE_integer("top", 5, "How many of the best classes to show.", lower_bound=1)
_STREAM = flags.DEFINE_bool(
    "stream", False, "Read each input segment by segment, and show how the answer changes."
)
_SEGMENT = flags.DEFINE_integer("segment", 28, "Steps of a segment.", lower_bound=1)
_JSON = flags.DEFINE_bool(
    "json", False, "Print one JSON object a line: for each input or, with --stream, each segment."
)


def check_inputs(paths: Sequence[str]) -> None:
    """Raises UserError where there is nothing to classify."""
    if not paths and not _TEXT.value:
        raise UserError("There is nothing to classify: give files, or --text.")


def show(
    classifier: classify.SequenceClassifier | classify.BatchClassifier,
    paths: Sequence[str],
    batch: int = 1,
) -> None:
    """Classifies what the command line names, and prints the answers as they come.

    Args:
        classifier: In any form.
        paths: Files.
        batch: How many sequences to classify at once; more than 1 for a `BatchClassifier` only.

    Raises:
        UserError: An input is missing, damaged or none for this classifier. What comes before it
            is answered.
    """
    from t2aux import classify, reading

    if isinstance(sys.stdout, io.TextIOWrapper):
        # Names may hold what the terminal can't show.
        sys.stdout.reconfigure(errors="backslashreplace")
    items = reading.read_inputs(classifier.info, paths, _TEXT.value)
    if batch > 1 and not _STREAM.value:
        _show_batches(classifier, items, batch)
        return
    for item in items:
        if not _STREAM.value:
            _print([classify.classify(classifier, item, _TOP.value)])
            continue
        answers = classify.stream(classifier, item, _SEGMENT.value, _TOP.value)
        for number, answer in enumerate(answers):
            if not _JSON.value and number == 0:
                print(answer.heading())
            print(json.dumps(answer.to_json()) if _JSON.value else answer.line(), flush=True)


def _show_batches(
    classifier: classify.BatchClassifier, items: Iterable[reading.Input], batch: int
) -> None:
    waiting: list[reading.Input] = []
    try:
        for item in items:
            waiting.append(item)
            if len(waiting) == batch:
                taken, waiting = waiting, []
                _answer(classifier, taken)
    except UserError:
        # Where the next input can't be read, those before it are answered.
        _answer(classifier, waiting)
        raise
    _answer(classifier, waiting)


def _answer(classifier: classify.BatchClassifier, items: list[reading.Input]) -> None:
    from t2aux import classify

    if items:
        _print(classify.classify_batch(classifier, items, _TOP.value))


def _print(answers: Iterable[classify.Answer]) -> None:
    for answer in answers:
        print(json.dumps(answer.to_json()) if _JSON.value else answer.lines(), flush=True)
