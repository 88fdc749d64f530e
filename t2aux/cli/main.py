"""The program `t2aux`: finds the command and runs it."""

from __future__ import annotations

import importlib
import sys

import t2aux
from t2aux import text_tables
from t2aux.cli import common
from t2aux.errors import SettingError, did_you_mean

COMMANDS = {
    "demo": "train, export and classify real digits, in a few minutes and without internet",
    "data": "list the data sets; prepare, summarize or convert one",
    "configs": "list the gin files; explain a file, a configurable or a macro",
    "train": "train a classifier, or resume a run",
    "evaluate": "measure the accuracy, confusion matrix and a table by class of a run",
    "reconstructions": "measure and draw what an r-LSTM remembers",
    "export": "export a run as a SavedModel and TensorFlow Lite files",
    "serve": "serve exports over TensorFlow Serving's gRPC and REST protocols",
    "predict": "write predictions for a table, a folder or a file of arrays",
    "classify": "classify images, texts or arrays with a run or an export",
    "client": "classify images, texts or arrays on TensorFlow Serving or t2aux serve",
    "demo-page": "build and serve a page that classifies drawings or texts in the browser",
    "reproduce": "train the rows of the paper's tables and figures",
    "report": "write the paper's numbers beside the measured ones, as HTML and Markdown",
    "completion": "print a script that completes commands and flags in bash or zsh",
}

_HELP = """t2aux: recurrent networks that classify very long sequences, with auxiliary losses.

Usage: t2aux COMMAND [flags]

Commands:
{commands}

`t2aux COMMAND --help` describes a command. To begin:
  t2aux train --model_dir=runs/quick --gin_file=quickstart
  t2aux export --model_dir=runs/quick --export_dir=exports/quick
"""


def help_text() -> str:
    """The output of `t2aux --help`."""
    commands = text_tables.table(list(COMMANDS.items()), left=(0, 1), indent="  ")
    return _HELP.format(commands=commands)


def module_of(command: str) -> str:
    """The name of a command's module."""
    return f"t2aux.cli.{command.replace('-', '_')}"


def main() -> None:
    """Runs the command given in the process's arguments, and exits with its status."""
    common.entry(_main)


def _main() -> int | None:
    arguments = sys.argv[1:]
    if arguments and arguments[0] == "help":
        arguments = [*arguments[1:2], "--help"]
    if not arguments or arguments[0] in ("--help", "-h", "-help", "--helpfull"):
        print(help_text())
        return 0
    if arguments[0] == "--version":
        print(t2aux.__version__)
        return 0
    name = arguments[0]
    if name not in COMMANDS:
        hint = did_you_mean(name, COMMANDS, f"there are {', '.join(COMMANDS)}.")
        raise SettingError(f"Unknown command {name!r}: {hint}")
    # Only the command that runs is imported: classifying on a device must not load TensorFlow.
    module = importlib.import_module(module_of(name))
    return common.run(module.main, module.__doc__, [f"t2aux {name}", *arguments[1:]])


if __name__ == "__main__":
    main()
