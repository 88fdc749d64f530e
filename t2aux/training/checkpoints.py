"""Checkpoints on disk: written under a temporary name, verified, renamed, and found again.

The checkpoint of step N consists of TensorFlow's ckpt-N.data-* and ckpt-N.index. They are written
to the folder `.writing`, flushed to disk, read back and renamed, the index last: a checkpoint with
an index is complete. TensorFlow checks a CRC-32C of every tensor and of the index when it reads
them, so a checkpoint is verified by reading all of it. Checkpoints are found by listing the folder,
because TensorFlow's file `checkpoint`, which names the newest one, may be damaged or out of date.
Checkpoints of older versions also have a ckpt-N.seal.json, which is not read.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import re
import shutil
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import tensorflow as tf
from absl import logging
from google.protobuf import message as protobuf

from t2aux import files
from t2aux.errors import FileError, ModelError, UserError

# The folder for damaged checkpoints.
DAMAGED = "damaged"
# TensorFlow's file that names the newest checkpoint.
STATE = "checkpoint"
# The folder in which a checkpoint is written until it is verified.
WRITING = ".writing"
# The errors that TensorFlow raises for missing, truncated and changed files.
DAMAGE = (tf.errors.OpError, ValueError, IndexError, RuntimeError, OSError, protobuf.DecodeError)
_FILE = re.compile(r"ckpt-(\d+)\.(?:index|data-\d+-of-\d+|seal\.json)")
# Files that a killed process leaves behind, also one of an older version.
_TEMPORARY = re.compile(r"\.writing|ckpt-\d+_temp|\.ckpt-\d+\.seal\.json\..*|\.checkpoint\..*")
# The alias of a folder from `files.for_tensorflow`; messages use the folder's real name.
_ALIAS = re.compile(r"/proc/self/fd/\d+/")
_STEP = "position/step/.ATTRIBUTES/VARIABLE_VALUE"


class Found(NamedTuple):
    """The newest usable checkpoint, and the damaged ones that are newer.

    Attributes:
        path: The path of the usable one, without a suffix, or None if there is none.
        damaged: What is wrong with the newer ones, by path, the newest first.
    """

    path: str | None
    damaged: dict[str, str]


@dataclasses.dataclass
class Manager:
    """Manages the checkpoints of a run: writes and verifies them, and removes old ones.

    Attributes:
        checkpoint: The objects to save and restore.
        directory: The folder of the checkpoints, created when it is needed.
        kept: How many of the newest checkpoints are kept, at least 2; None: all.
        resumed_from: The checkpoints that the run is resumed from; None: these.
        latest_checkpoint: The path of the newest undamaged checkpoint, without a suffix, or None if
            there is none. Set by `recover`.
    """

    checkpoint: tf.train.Checkpoint
    directory: pathlib.Path
    kept: int | None
    resumed_from: Manager | None = None
    latest_checkpoint: str | None = dataclasses.field(default=None, init=False)

    def recover(self) -> str | None:
        """Finds the newest undamaged checkpoint, and moves newer damaged ones away.

        Only the process that holds the run's lock may call it.

        Returns:
            The path of the checkpoint, without a suffix; None if the run begins.

        Raises:
            UserError: See `newest`; no file is moved.
        """
        self.latest_checkpoint, damaged = newest(self.directory, warn=True)
        clear(self.directory, damaged)
        return self.latest_checkpoint

    def save(self, step: int) -> None:
        """Writes the checkpoint of a step, unless it exists.

        After it is verified, the oldest checkpoints are removed, except for the number to keep.

        Raises:
            UserError: The checkpoint can't be written, or can't be read back. No incomplete files
                are left behind, and earlier checkpoints are unchanged.
        """
        path = prefix(self.directory, step)
        if path == self.latest_checkpoint:
            return
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            self._write(pathlib.Path(path))
        except (tf.errors.OpError, OSError, UserError) as error:
            remove(path)
            last = (self.resumed_from or self).latest_checkpoint
            resume = f"The run can be resumed from {last}." if last else "None was saved before."
            raise FileError(
                f"Can't write a checkpoint to {self.directory} ({_reason(error)}): free some space "
                "there, make it writable or use another disk, and give the same command again. "
                f"{resume}"
            ) from error
        self.latest_checkpoint = path
        found = steps(self.directory)
        old = [] if self.kept is None else found[: -self.kept]
        # For `tf.train.latest_checkpoint`; t2aux does not rely on it.
        lines = [f'model_checkpoint_path: "ckpt-{step}"']
        lines += [f'all_model_checkpoint_paths: "ckpt-{kept}"' for kept in found[len(old) :]]
        with files.atomic_write(self.directory / STATE) as file:
            file.write("\n".join(lines) + "\n")
        for step in old:
            self.remove(step)

    def remove(self, step: int) -> None:
        """Removes the checkpoint of a step."""
        path = prefix(self.directory, step)
        remove(path)
        if self.latest_checkpoint == path:
            self.latest_checkpoint = None

    def _write(self, target: pathlib.Path) -> None:
        """Writes the checkpoint, verifies it, and renames it."""
        temporary = self.directory / WRITING
        clear(self.directory)
        try:
            temporary.mkdir()
            with for_tensorflow(str(temporary / target.name)) as alias:
                self.checkpoint.write(alias)
            # The index is the last.
            parts = sorted(_parts(temporary / target.name))
            for part in parts:
                _sync(part)
            if wrong := problem(str(temporary / target.name)):
                raise OSError(f"{target.name} does not read back as it was written: {wrong}")
            remove(str(target))
            for part in parts:
                part.replace(self.directory / part.name)
            _sync(self.directory)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def latest(model_dir: pathlib.Path) -> str | None:
    """The path of the newest undamaged checkpoint in a run directory, or None; see `newest`."""
    return newest(model_dir / "checkpoints", warn=True).path


def newest(directory: pathlib.Path, *, warn: bool = False) -> Found:
    """Finds the newest usable checkpoint.

    Args:
        directory: The folder of the checkpoints. Another process may be writing to it.
        warn: Whether to log which newer checkpoints are damaged.

    Raises:
        UserError: There are or were checkpoints, but none can be used.
    """
    while True:
        listed, damaged = steps(directory), {}
        path = None
        was_begun = (directory / STATE).exists() or any(directory.glob("ckpt-*.index"))
        for step in reversed(listed):
            path = prefix(directory, step)
            wrong = problem(path)
            if wrong is None:
                break
            damaged[path], path = wrong, None
        # If the training process has removed it since, there is a newer one.
        if path is not None or steps(directory) == listed:
            break
    what = "; ".join(f"{pathlib.Path(p).name} ({why})" for p, why in damaged.items())
    if path is None and was_begun:
        raise ModelError(
            f"No checkpoint in {directory} is undamaged: {what or 'all were removed'}. Put "
            f"back a copy of one, or remove {directory} to train from the start."
        )
    if damaged and warn:
        instead = f"continuing from {path}" if path else "no older one can be used"
        logging.warning("Not usable in %s: %s; %s.", directory, what, instead)
    return Found(path, damaged)


def read(checkpoint: tf.train.Checkpoint, path: str) -> Any:
    """Restores the objects of a checkpoint. Returns TensorFlow's load status.

    Raises:
        UserError: The checkpoint is damaged.
    """
    try:
        with for_tensorflow(path) as alias:
            return checkpoint.read(alias)
    except DAMAGE as error:
        raise damaged_error(path, first_line(error)) from error


def remove(path: str) -> None:
    """Removes the files of a checkpoint, the index first: without it, the others are not read."""
    for part in sorted(_parts(pathlib.Path(path)), key=lambda part: part.suffix != ".index"):
        part.unlink(missing_ok=True)


@contextlib.contextmanager
def for_tensorflow(path: str) -> Iterator[str]:
    """Yields a checkpoint's path in the form for TensorFlow; see `files.for_tensorflow`.

    Args:
        path: The path, without a suffix. Its folder must exist.
    """
    own = pathlib.Path(path)
    with files.for_tensorflow(own.parent) as folder:
        yield os.path.join(folder, own.name)


def steps(directory: pathlib.Path) -> list[int]:
    """The steps that have a checkpoint or a part of one, in ascending order."""
    names = os.listdir(directory) if directory.is_dir() else []
    return sorted({int(match[1]) for match in map(_FILE.fullmatch, names) if match})


def prefix(directory: pathlib.Path, step: int) -> str:
    """The path of a step's checkpoint, without a suffix."""
    return str(directory / f"ckpt-{step}")


def problem(path: str) -> str | None:
    """Reads all of a checkpoint. Returns what is wrong with it, or None.

    Args:
        path: The path of the checkpoint, without a suffix.
    """
    name = pathlib.Path(path).name
    if not pathlib.Path(f"{path}.index").exists():
        return f"{name}.index is missing"
    try:
        with for_tensorflow(path) as alias:
            reader = tf.train.load_checkpoint(alias)
            keys = reader.get_variable_to_shape_map()
            for key in keys:
                reader.get_tensor(key)
            step = int(reader.get_tensor(_STEP)) if _STEP in keys else None
    except DAMAGE as error:
        return first_line(error)
    # Renamed files are undamaged, but belong to another step.
    is_other = step is not None and name.startswith("ckpt-") and name != f"ckpt-{step}"
    return f"it is the checkpoint of step {step}" if is_other else None


def clear(directory: pathlib.Path, damaged: Iterable[str] = ()) -> None:
    """Removes temporary files, and moves damaged checkpoints into the folder `damaged`.

    Only the process that holds the run's lock may call it.

    Args:
        directory: The folder of the checkpoints.
        damaged: The paths of damaged checkpoints, without a suffix.
    """
    for entry in list(directory.iterdir()) if directory.is_dir() else []:
        if _TEMPORARY.fullmatch(entry.name):
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    for path in damaged:
        (directory / DAMAGED).mkdir(exist_ok=True)
        for part in _parts(pathlib.Path(path)):
            part.replace(directory / DAMAGED / part.name)


def first_line(error: Exception) -> str:
    """The first line of an exception's message."""
    text = getattr(error, "message", None) or getattr(error, "strerror", None) or str(error)
    text = text.strip() or type(error).__name__
    return _ALIAS.sub("", text.splitlines()[0]).rstrip(".")


def damaged_error(path: str, why: str) -> UserError:
    """The error for a checkpoint that can't be read."""
    return ModelError(
        f"The checkpoint {path} is missing or damaged ({why}): give another one, or none for the "
        "newest undamaged one."
    )


def _parts(path: pathlib.Path) -> list[pathlib.Path]:
    return list(path.parent.glob(f"{path.name}.*"))


def _sync(path: pathlib.Path) -> None:
    """Flushes a file or a folder to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
        if hasattr(os, "posix_fadvise") and path.is_file():
            # Drops it from the cache, so that it is read back from the disk.
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


def _reason(error: Exception) -> str:
    cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
    if isinstance(cause, OSError):
        return first_line(cause)
    # TensorFlow's message begins with the operation and the temporary file.
    return first_line(error).rsplit(";", 1)[-1].split(" [Op:")[0].strip()
