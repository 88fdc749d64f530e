"""Which log records are this program's own."""

from __future__ import annotations

import logging
import pathlib

import t2aux

# Not the package's whole search path: in a checkout that holds a virtual environment as well.
_FOLDERS = tuple(
    str(folder) + "/"
    for root in t2aux.__path__
    for folder in (pathlib.Path(root), pathlib.Path(root) / "export")
    if folder.name in ("t2aux", "export") and (folder / "__init__.py").is_file()
)


def is_ours(record: logging.LogRecord) -> bool:
    """A logging filter: lets t2aux's records pass, and others' from warnings on.

    TensorFlow logs through absl as this program does, and tells much that nobody asked for.
    """
    return record.levelno >= logging.WARNING or record.pathname.startswith(_FOLDERS)
