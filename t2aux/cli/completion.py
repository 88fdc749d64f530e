"""Prints a script that completes t2aux's commands, flags and their values in bash or zsh.

The script has all names in it and starts no Python, so that a Tab takes milliseconds. Print it
again after an update of t2aux.

Usage: t2aux completion bash|zsh

Examples:
  t2aux completion bash > ~/.local/share/bash-completion/completions/t2aux
  t2aux completion zsh > ~/.zfunc/_t2aux    (a folder in $fpath, before compinit)
  source <(t2aux completion bash)           (in this shell alone)
"""

from __future__ import annotations

from collections.abc import Sequence

from t2aux.cli import common, completion_scripts
from t2aux.errors import UserError, nearest

_SCRIPTS = {"bash": completion_scripts.bash, "zsh": completion_scripts.zsh}


def main(argv: Sequence[str]) -> None:
    """Runs the command; argv[1] is the shell."""
    from t2aux.cli import commands

    shells = " or ".join(_SCRIPTS)
    if len(argv) != 2:
        raise UserError(f"Name the shell, {shells}: t2aux completion bash.")
    if argv[1] not in _SCRIPTS:
        near = nearest(argv[1], _SCRIPTS)
        hint = f"did you mean {near}?" if near else f"there are {shells}."
        raise UserError(f"There is no completion for the shell {argv[1]!r}: {hint}")
    print(_SCRIPTS[argv[1]](commands.read()), end="")


if __name__ == "__main__":
    common.run(main)
