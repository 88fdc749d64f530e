"""The input and output code shared by `t2aux classify` and `t2aux client`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from absl import flags

from t2aux.errors import SettingError

if TYPE_CHECKING:
    from t2aux_ondevice import answers

_TEXT = flags.DEFINE_multi_string("text", [], "A text to classify. Repeatable.")
_TOP = flags.DEFINE_integer("top", 5, "Most probable classes to show.", lower_bound=1)
_STREAM = flags.DEFINE_bool(
    "stream", False, "Read each input segment by segment and show how the prediction changes."
)
_SEGMENT = flags.DEFINE_integer("segment", 28, "Steps per segment.", lower_bound=1)
_JSON = flags.DEFINE_bool(
    "json", False, "Print one JSON object per line: for each input or, with --stream, each segment."
)


def check_inputs(paths: Sequence[str]) -> None:
    """Raises UserError if there is nothing to classify."""
    if not paths and not _TEXT.value:
        raise SettingError("There is nothing to classify: give files, or --text.")


def show(
    classifier: answers.SequenceClassifier | answers.BatchClassifier,
    paths: Sequence[str],
    batch: int = 1,
) -> None:
    """Classifies the inputs given on the command line and prints each prediction when it is ready.

    Args:
        classifier: The classifier, in any form.
        paths: The files to classify.
        batch: How many sequences to classify at once; more than 1 for a `BatchClassifier` only.

    Raises:
        UserError: An input is missing, damaged or not for this classifier. The inputs before it
            have been classified.
    """
    from t2aux_ondevice import answers, reading

    segment = _SEGMENT.value if _STREAM.value else None
    items = reading.read_inputs(classifier.info, paths, _TEXT.value)
    answers.Show(_TOP.value, segment, _JSON.value, batch)(classifier, items)
