"""Handles standard input, output and error that are closed, full, or without UTF-8."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from typing import TextIO


def prepare() -> None:
    """Makes the three streams usable. Call it before anything is opened.

    A closed stream is replaced by /dev/null: otherwise the next opened file would get its number,
    and receive what libraries write to the terminal. Characters that a terminal can't show are
    escaped.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            # Opens with the lowest free number, which is this one.
            os.open(os.devnull, os.O_RDWR)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode, encoding="utf-8"))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def complain(message: str) -> None:
    """Writes a line to standard error, if possible."""
    try:
        print(message, file=sys.stderr, flush=True)
    except (OSError, ValueError):
        _drop(sys.stderr)


def drop_output() -> None:
    """Drops unwritten standard output, which Python would otherwise try to write at exit."""
    _drop(sys.stdout)


def _drop(stream: TextIO) -> None:
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
