"""Classifies images, texts and arrays with a .tflite file of an export of t2aux."""

from __future__ import annotations

import argparse
import difflib
import signal
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from t2aux_ondevice import __version__, answers, litert, reading, streams
from t2aux_ondevice.errors import UserError, printable
from t2aux_ondevice.paths import local

# An interrupted program's status, by convention: 128 + SIGINT.
_INTERRUPTED = 128 + signal.SIGINT


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the program. Returns the exit status."""
    streams.prepare()
    try:
        try:
            return _main(arguments)
        finally:
            sys.stdout.flush()
    except UserError as error:
        streams.complain(f"t2aux-ondevice: error: {printable(str(error))}")
        return 1
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:
        # The reader closed the pipe.
        streams.drop_output()
        return 1
    except OSError as error:
        if error.filename is not None:
            raise
        streams.complain(f"t2aux-ondevice: error: Can't write the predictions: {error.strerror}.")
        streams.drop_output()
        return 1


def _main(arguments: Sequence[str] | None) -> int:
    parser = _parser()
    options = parser.parse(sys.argv[1:] if arguments is None else arguments)
    if not options.inputs and not options.text:
        parser.error("there is nothing to classify: give files, or --text")
    show = answers.Show(options.top, options.segment if options.stream else None, options.json)
    with answers.without_notes():
        classifier = litert.LiteRTClassifier(local(options.model, "The model"))
    show(classifier, reading.read_inputs(classifier.info, options.inputs, options.text))
    return 0


class _Parser(argparse.ArgumentParser):
    """Accepts the model and the inputs before, between and after the options."""

    def parse(self, arguments: Sequence[str]) -> argparse.Namespace:
        """Parses the command line. Exits with status 2 if it is wrong."""
        # No options follow "--". argparse's own handling of it depends on its version.
        end = arguments.index("--") if "--" in arguments else len(arguments)
        options, left = self.parse_known_args([*arguments[:end]])
        number = self._negative_number_matcher.match
        unknown = [a for a in left if a.startswith("-") and a != "-" and not number(a)]
        if unknown:
            name = unknown[0].partition("=")[0]
            near = difflib.get_close_matches(name, self._option_string_actions, n=1)
            hint = f"did you mean {near[0]}?" if near else "--help lists the options."
            self.error(f"unknown option {name}: {hint}")
        files = [*options.files, *left, *arguments[end + 1 :]]
        if not files:
            self.error("give a model, a .tflite file, and what to classify")
        options.model, *options.inputs = files
        return options

    def error(self, message: str) -> NoReturn:
        """Prints the message on one line, without the usage, and exits."""
        self.exit(2, f"{self.prog}: error: {printable(message)}\n")

    def _print_message(self, message: str, file: Any = None) -> None:
        # argparse's own method ignores errors, such as a full disk.
        if message and file is sys.stdout:
            print(message, end="", flush=True)
        else:
            super()._print_message(message, file)


def _parser() -> _Parser:
    parser = _Parser(
        "t2aux-ondevice",
        usage="%(prog)s [options] MODEL.tflite INPUT... (in any order)",
        description=__doc__,
    )
    parser.add_argument(
        "files",
        nargs="*",
        metavar="MODEL.tflite INPUT",
        help="the model, with the export's metadata.json beside it; then images (these need "
        "Pillow), .txt files, or .npz files of arrays",
    )
    parser.add_argument("--text", action="append", default=[], help="a text; repeatable")
    parser.add_argument(
        "--top", type=_positive, default=5, help="how many classes to show (%(default)s)"
    )
    parser.add_argument(
        "--stream",
        action="store_true",
        help="read each input by segments, and show how the prediction changes",
    )
    parser.add_argument(
        "--segment", type=_positive, default=28, help="steps per segment (%(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object per line")
    parser.add_argument("--version", action="version", version=__version__)
    return parser


def _positive(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError("give a whole number from 1 on")
    return value


if __name__ == "__main__":
    sys.exit(main())
