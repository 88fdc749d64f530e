"""Checkpoints on the disk: written under a temporary name, verified, renamed, and found again.

A checkpoint of step N is TensorFlow's ckpt-N.data-* and ckpt-N.index. They are written in the
folder `.writing`, brought to the disk, read back and renamed, the index last: what has an index is
complete. TensorFlow checks a CRC-32C of every tensor and of the index when it reads them, so a
checkpoint is verified by reading all of it. Checkpoints are found by listing the folder:
TensorFlow's file `checkpoint`, which names the newest, may itself be damaged or out of date.
Checkpoints of older versions have a ckpt-N.seal.json, too, which is not read.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping

import tensorflow as tf
from google.protobuf import message as protobuf

from t2aux import files

# Where checkpoints that were found damaged are kept.
DAMAGED = "damaged"
# TensorFlow's file that names the newest checkpoint.
STATE = "checkpoint"
# Where a checkpoint is written until it is verified.
WRITING = ".writing"
# What TensorFlow raises for missing, truncated and changed files.
DAMAGE = (tf.errors.OpError, ValueError, IndexError, RuntimeError, OSError, protobuf.DecodeError)
_FILE = re.compile(r"ckpt-(\d+)\.(?:index|data-\d+-of-\d+|seal\.json)")
# What a process that was killed leaves, those of older versions too.
_TEMPORARY = re.compile(r"\.writing|ckpt-\d+_temp|\.ckpt-\d+\.seal\.json\..*|\.checkpoint\..*")
# What `files.for_tensorflow` calls a folder; messages have the folder's real name.
_ALIAS = re.compile(r"/proc/self/fd/\d+/")
_STEP = "position/step/.ATTRIBUTES/VARIABLE_VALUE"


class NotReadableError(Exception):
    """A checkpoint that was just written does not read back."""


@dataclasses.dataclass(frozen=True)
class Found:
    """The newest checkpoint that can be used, and what is newer.

    Attributes:
        path: Its path, without a suffix; None: there is none.
        damaged: What is wrong with newer ones, by path, the newest first.
        lost: Whether there is none although there was one once.
    """

    path: str | None
    damaged: Mapping[str, str]
    lost: bool

    def describe_damaged(self) -> str:
        """Names the damaged checkpoints and says what is wrong with them."""
        return "; ".join(f"{pathlib.Path(p).name} ({why})" for p, why in self.damaged.items())


def write(checkpoint: tf.train.Checkpoint, path: str) -> None:
    """Writes a checkpoint, verifies it, and gives it its name.

    Args:
        checkpoint: What is saved.
        path: Its path, without a suffix. What has that name is replaced.

    Raises:
        NotReadableError: It does not read back as it was written.
        OSError, tf.errors.OpError: It can't be written. Nothing of it is left behind.
    """
    target = pathlib.Path(path)
    temporary = target.parent / WRITING
    clear(target.parent)
    try:
        temporary.mkdir(parents=True)
        with for_tensorflow(str(temporary / target.name)) as alias:
            checkpoint.write(alias)
        # The index is the last.
        parts = sorted(_parts(temporary / target.name))
        for part in parts:
            _sync(part)
        if wrong := problem(str(temporary / target.name)):
            raise NotReadableError(wrong)
        remove(path)
        for part in parts:
            part.replace(target.parent / part.name)
        _sync(target.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def remove(path: str) -> None:
    """Removes the files of a checkpoint, the index first: without it, nothing is read."""
    for part in sorted(_parts(pathlib.Path(path)), key=lambda part: part.suffix != ".index"):
        part.unlink(missing_ok=True)


@contextlib.contextmanager
def for_tensorflow(path: str) -> Iterator[str]:
    """Yields a checkpoint's path as TensorFlow takes it; see `files.for_tensorflow`.

    Args:
        path: The path, without a suffix. Its folder must exist.
    """
    own = pathlib.Path(path)
    with files.for_tensorflow(own.parent) as folder:
        yield os.path.join(folder, own.name)


def steps(directory: pathlib.Path) -> list[int]:
    """The steps of which there is a checkpoint, or a part of one, in rising order."""
    names = os.listdir(directory) if directory.is_dir() else []
    return sorted({int(match[1]) for match in map(_FILE.fullmatch, names) if match})


def prefix(directory: pathlib.Path, step: int) -> str:
    """The path of a step's checkpoint, without a suffix."""
    return str(directory / f"ckpt-{step}")


def problem(path: str) -> str | None:
    """Says what is wrong with a checkpoint, all of which is read; None: nothing.

    Args:
        path: Its path, without a suffix.
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
    # Files that were renamed are whole, but those of another step.
    is_other = step is not None and name.startswith("ckpt-") and name != f"ckpt-{step}"
    return f"it is the checkpoint of step {step}" if is_other else None


def newest(directory: pathlib.Path) -> Found:
    """Finds the newest checkpoint that can be used.

    Args:
        directory: The folder of the checkpoints. It may be written to meanwhile.
    """
    while True:
        listed, damaged = steps(directory), {}
        lost = (directory / STATE).exists() or any(directory.glob("ckpt-*.index"))
        for step in reversed(listed):
            path = prefix(directory, step)
            wrong = problem(path)
            if wrong is None:
                return Found(path, damaged, lost=False)
            damaged[path] = wrong
        # Where a training process has removed it meanwhile, there is a newer one.
        if steps(directory) == listed:
            return Found(None, damaged, lost)


def clear(directory: pathlib.Path, damaged: Iterable[str] = ()) -> None:
    """Removes temporary files, and moves damaged checkpoints into the folder `damaged`.

    Only for the process that has the run's lock.

    Args:
        directory: The folder of the checkpoints.
        damaged: The paths of damaged ones, without a suffix.
    """
    for entry in list(directory.iterdir()) if directory.is_dir() else []:
        if _TEMPORARY.fullmatch(entry.name):
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    for path in damaged:
        (directory / DAMAGED).mkdir(exist_ok=True)
        for part in _parts(pathlib.Path(path)):
            part.replace(directory / DAMAGED / part.name)


def _parts(path: pathlib.Path) -> list[pathlib.Path]:
    return list(path.parent.glob(f"{path.name}.*"))


def _sync(path: pathlib.Path) -> None:
    """Brings a file or a folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
        if hasattr(os, "posix_fadvise") and path.is_file():
            # So that what is read back comes from the disk, not from memory.
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


def first_line(error: Exception) -> str:
    """The first line of an exception's message."""
    text = getattr(error, "message", None) or getattr(error, "strerror", None) or str(error)
    text = text.strip() or type(error).__name__
    return _ALIAS.sub("", text.splitlines()[0]).rstrip(".")
