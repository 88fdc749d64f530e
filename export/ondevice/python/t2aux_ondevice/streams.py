"""Standard input, output and error, which may be closed, full, or without UTF-8."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from typing import TextIO


def prepare() -> None:
    """Makes the three streams usable. Call it before anything is opened.

    A closed stream becomes /dev/null: otherwise the next file that is opened would take its number,
    and get what libraries write to the terminal. Characters that a terminal lacks are escaped.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            # The lowest that is free, which is this one.
            os.open(os.devnull, os.O_RDWR)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode, encoding="utf-8"))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def complain(message: str) -> None:
    """Writes a line to standard error, if that can be written."""
    try:
        print(message, file=sys.stderr, flush=True)
    except (OSError, ValueError):
        _drop(sys.stderr)


def drop_output() -> None:
    """Drops what standard output could not write; Python would try again at its end."""
    _drop(sys.stdout)


def _drop(stream: TextIO) -> None:
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
