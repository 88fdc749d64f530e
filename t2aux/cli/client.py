r"""Classifies images, texts and arrays on a server: TensorFlow Serving, or `t2aux serve`.

Usage: t2aux client --server=grpc://HOST:PORT --model=NAME INPUT...

The inputs and the output are the same as for `t2aux classify`: images, .txt files, or .npz files of
sequences. The server reports what the model reads. With --stream, a sequence is sent segment by
segment, and the client keeps its state. If the server is busy or not running yet, the request is
retried with increasing delays. TensorFlow is not imported. For a table, a folder or many files, use
`t2aux predict --model=grpc://HOST:PORT/NAME`.

Examples:
  t2aux client --server=grpc://localhost:8500 --model=digits digit.png
  t2aux client --server=http://localhost:8501 --model=digits --stream --segment=8 --top=1 digit.png
  t2aux client --server=grpc://localhost:8500 --model=news --text='A village in Norway.' --top=3
  t2aux client --server=grpc://localhost:8500 --model=digits --json --batch=64 *.png > answers.jsonl
  t2aux client --server=grpcs://HOST:8500 --ca_file=ca.pem --model=digits digit.png
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from absl import flags

from t2aux.cli import answering, connecting

_SERVER = flags.DEFINE_string(
    "server",
    None,
    "The server: grpc://HOST:PORT, or http://HOST:PORT for its REST API; with TLS, grpcs:// or "
    "https://.",
)
_MODEL = flags.DEFINE_string("model", None, "The model's name on the server.")
flags.mark_flags_as_required(["server", "model"])
_SIGNATURE = flags.DEFINE_string(
    "signature",
    "serving_default",
    "The signature for whole sequences; it must have the inputs and outputs of the default one.",
)
_BATCH = flags.DEFINE_integer("batch", 1, "Inputs per request; not with --stream.", lower_bound=1)


def main(argv: Sequence[str]) -> None:
    """Runs the command. argv[1:] are the files."""
    answering.check_inputs(argv[1:])
    classifier = connecting.connection().open(_SERVER.value, _MODEL.value, _SIGNATURE.value)
    with contextlib.closing(classifier):
        answering.show(classifier, argv[1:], _BATCH.value)
