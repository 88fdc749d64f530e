"""The folder of a run: locked by one process, and restored if nothing was trained."""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
from collections.abc import Callable, Iterator

from t2aux import files
from t2aux.training import best, checkpoints, identity

# Files that a run writes in addition to its logs and checkpoints.
DIVISION = "split.json"  # The test examples, if the data has no test set.
FILES = (
    *("config.gin", "operative_config.gin", "dataset.json", identity.FILE, "metrics.jsonl"),
    best.FILE,
    DIVISION,
)
_MADE = (*FILES, "train.log", "tensorboard", "checkpoints", ".lock")


@contextlib.contextmanager
def claimed(directory: pathlib.Path, has_trained: Callable[[], bool]) -> Iterator[None]:
    """Creates a run directory and locks it for this process until the block ends.

    If an exception ends the block before anything was trained, everything new is removed: files of
    the run, the folder and its parents.

    Args:
        directory: The run directory.
        has_trained: Returns whether a step was made.

    Raises:
        UserError: Another process uses the directory, or it can't be created or written to.
    """
    new_folders = [path for path in (directory, *directory.parents) if not path.exists()]
    before = set(os.listdir(directory)) if directory.is_dir() else set()
    try:
        files.ensure_directory(directory)
        with files.locked(directory):
            try:
                yield
            except BaseException:
                if not has_trained() and not checkpoints.steps(directory / "checkpoints"):
                    _remove(directory, before)
                raise
    finally:
        for path in new_folders:
            # Only empty folders.
            with contextlib.suppress(OSError):
                path.rmdir()


def _remove(directory: pathlib.Path, before: set[str]) -> None:
    for name in _MADE:
        if name in before:
            continue
        path = directory / name
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                path.unlink()
