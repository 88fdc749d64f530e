"""Prints a script that completes t2aux's commands, flags and their values in bash or zsh.

The script contains all names and does not start Python, so a completion takes milliseconds. Print
it again after updating t2aux.

Usage: t2aux completion bash|zsh

Examples:
  t2aux completion bash > ~/.local/share/bash-completion/completions/t2aux
  t2aux completion zsh > ~/.zfunc/_t2aux    (a folder in $fpath, before compinit)
  source <(t2aux completion bash)           (for this shell only)
"""

from __future__ import annotations

from collections.abc import Sequence

from t2aux.cli import commands, completion_scripts
from t2aux.errors import SettingError, did_you_mean


def main(argv: Sequence[str]) -> None:
    """Runs the command. argv[1] is the shell."""
    shells = " or ".join(commands.SHELLS)
    if len(argv) != 2:
        raise SettingError(f"Name the shell, {shells}: t2aux completion bash.")
    if argv[1] not in commands.SHELLS:
        hint = did_you_mean(argv[1], commands.SHELLS, f"there are {shells}.")
        raise SettingError(f"Unknown shell {argv[1]!r}: {hint}")
    print(completion_scripts.script(argv[1], commands.read()), end="")
