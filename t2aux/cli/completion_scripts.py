"""The scripts that complete t2aux's command line in bash and zsh.

No library is used: argcomplete starts Python for every completion and needs argparse, and the bash
scripts of shtab 1.13 do not complete --flag=value, the form used in the help texts.
"""

from __future__ import annotations

import pathlib
import shlex
import textwrap
from collections.abc import Sequence

import t2aux
from t2aux.cli.commands import FILE, FOLDER, Command, Flag
from t2aux.templates import render

_MAX_ABOUT = 80


def script(shell: str, commands: Sequence[Command]) -> str:
    """The script for "bash" or "zsh"."""
    gin_files = next((f.values for c in commands for f in c.flags if f.name == "gin_file"), ())
    return render(
        pathlib.Path(__file__).with_name(f"completion.{shell}.jinja"),
        version=t2aux.__version__,
        commands=commands,
        gin_files=shlex.join(gin_files),
        quote=shlex.quote,
        escaped=_escaped,
        shortened=lambda text: textwrap.shorten(text, _MAX_ABOUT, placeholder=" ..."),
        action_of=_zsh_action,
    )


def _zsh_action(completed: Flag | Command) -> str:
    """The action that completes a flag's value or an argument: a list, a function, or nothing."""
    if completed.values:
        return f"({' '.join(map(_escaped, completed.values))})"
    return {FILE: "_files", FOLDER: "_files -/"}.get(completed.kind or "", "")


def _escaped(text: str) -> str:
    """Escapes the characters that are special to _arguments and _describe."""
    return "".join(f"\\{c}" if c in "\\[]:()" else c for c in text)
