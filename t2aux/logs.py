"""Filters and a file handler for t2aux's log records, and suppression of library output."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator

import absl.logging

from t2aux import files
from t2aux.errors import UserError

_FOLDERS = tuple(
    f"{folder}/"
    for name in ("t2aux", "t2aux.export")
    for folder in importlib.util.find_spec(name).submodule_search_locations
)


def is_ours(record: logging.LogRecord) -> bool:
    """A logging filter that passes t2aux's records, and others from the level of warnings on.

    TensorFlow logs through absl, too, and most of its records are irrelevant to users.
    """
    return record.levelno >= logging.WARNING or record.pathname.startswith(_FOLDERS)


def is_only_ours(record: logging.LogRecord) -> bool:
    """A logging filter that passes only t2aux's records."""
    return record.pathname.startswith(_FOLDERS)


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
    """Hides the output of libraries in the block, in Python or C++, from the terminal.

    With --verbosity=1, nothing is hidden. If the block fails with anything but a UserError, the
    output is printed afterwards.
    """
    if absl.logging.level_debug():
        yield
        return
    with tempfile.TemporaryFile("w+", errors="backslashreplace") as printed:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(AttributeError, OSError, ValueError):  # None, or closed.
                stream.flush()
        saved = {}
        for descriptor in (1, 2):
            with contextlib.suppress(OSError):  # It is closed.
                saved[descriptor] = os.dup(descriptor)
                os.dup2(printed.fileno(), descriptor)
        failed = False
        try:
            with (
                contextlib.redirect_stdout(printed),
                contextlib.redirect_stderr(printed),
                warnings.catch_warnings(),
            ):
                warnings.simplefilter("ignore")
                yield
        except UserError:
            raise
        except Exception:
            failed = True
            raise
        finally:
            printed.flush()
            for descriptor, copy in saved.items():
                os.dup2(copy, descriptor)
                os.close(copy)
            if failed and sys.stderr is not None:
                printed.seek(0)
                sys.stderr.write(printed.read())


def quiet_tensorflow() -> None:
    """Imports TensorFlow without printing its notes on the import.

    If the user has set TF_CPP_MIN_LOG_LEVEL to 0, all of them are printed.
    """
    level = os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if level == "0" or "tensorflow" in sys.modules:
        return
    # Otherwise tensorflow-datasets looks for Google's cloud, which is slow without a network.
    os.environ.setdefault("NO_GCE_CHECK", "true")
    # Some notes are written before the log level is read. Errors are still raised as exceptions.
    from t2aux_ondevice.answers import without_notes

    with without_notes():
        import tensorflow as tf

        tf.config.list_physical_devices()


class FileHandler(logging.Handler):
    """Appends t2aux's records with the time to a file.

    If the file can't be written, the logging call raises UserError, whereas Python's handlers print
    a traceback and continue.
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
        """Appends a record. Raises UserError if it can't be written."""
        self._lines.write(self.format(record) + "\n")

    def close(self) -> None:
        """Closes the file."""
        self._lines.close()
        super().close()
