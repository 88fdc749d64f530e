"""Which log records are this program's own, and the file that they go to."""

from __future__ import annotations

import logging
import os
import pathlib

import t2aux
from t2aux import files

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


class FileHandler(logging.Handler):
    """Adds this program's records to a file, with the time.

    Where the file can't be written, the call that logs raises UserError, rather than that Python
    prints a traceback and goes on.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Opens the file.

        Raises:
            UserError: It can't be written.
        """
        super().__init__()
        self._lines = files.Lines(path)
        self.addFilter(is_ours)
        self.setFormatter(logging.Formatter("%(asctime)s %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        """Adds a record. Raises UserError if it can't be written."""
        self._lines.write(self.format(record) + "\n")

    def close(self) -> None:
        """Closes the file."""
        self._lines.close()
        super().close()
