"""The folder of a run: kept for one process, and left as it was where nothing was trained."""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
from collections.abc import Callable, Iterator

from t2aux import files
from t2aux.training import best, checkpoints, identity

# What a run writes beside its logs and checkpoints.
DIVISION = "split.json"  # The test examples, where the data has no test set.
FILES = (
    *("config.gin", "operative_config.gin", "dataset.json", identity.FILE, "metrics.jsonl"),
    best.FILE,
    DIVISION,
)
_MADE = (*FILES, "train.log", "tensorboard", "checkpoints", ".lock")


@contextlib.contextmanager
def claimed(directory: pathlib.Path, has_trained: Callable[[], bool]) -> Iterator[None]:
    """Makes a run directory and keeps it for this process alone, until the block ends.

    If an exception ends the block before anything was trained, what was made is removed: files of
    a run that were not there before, and the folder and its parents where they are new.

    Args:
        directory: The run directory.
        has_trained: Says whether a step was made.

    Raises:
        UserError: Another process has the directory, or it can't be made or written to.
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
            # Only those that are empty.
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
