"""Checkpoints that can be trusted: sealed when they are written, verified when they are read.

A checkpoint of step N is TensorFlow's ckpt-N.index and ckpt-N.data-*, and ckpt-N.seal.json, the
size and the SHA-256 of each. The seal is written last, when the others are on the disk and have
been read back; so what has none was not finished. They are found by listing the folder:
TensorFlow's file `checkpoint`, which names the newest, may itself be damaged or out of date.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import re
import shutil
from collections.abc import Iterator

import tensorflow as tf
from google.protobuf import message as protobuf

from t2aux import files

SEAL = ".seal.json"
# Where checkpoints that were found damaged are kept.
ASIDE = "damaged"
# TensorFlow's file that names the newest checkpoint.
STATE = "checkpoint"
# What TensorFlow raises for missing, cut and changed files.
DAMAGE = (tf.errors.OpError, ValueError, IndexError, RuntimeError, OSError, protobuf.DecodeError)
_FILE = re.compile(r"ckpt-(\d+)(\.index|\.data-\d+-of-\d+|\.seal\.json)")
# What a process that was killed leaves: TensorFlow's folders and our own temporary files.
_HALF_WRITTEN = re.compile(r"ckpt-\d+_temp|\.ckpt-\d+\.seal\.json\..*|\.checkpoint\..*")
# What `files.for_tensorflow` calls a folder; the messages name it by its own name.
_ALIAS = re.compile(r"/proc/self/fd/\d+/")


class Broken(Exception):
    """What was written does not read back."""


@dataclasses.dataclass(frozen=True)
class Skipped:
    """A checkpoint that can't be used.

    Attributes:
        path: Its path, without a suffix.
        problem: What is wrong with it.
        unfinished: Whether its writing was never finished; if so, nothing is lost with it.
    """

    path: str
    problem: str
    unfinished: bool

    def __str__(self) -> str:
        return f"{pathlib.Path(self.path).name} ({self.problem})"


@dataclasses.dataclass(frozen=True)
class Found:
    """The newest checkpoint that can be used, and what is newer.

    Attributes:
        path: Its path, without a suffix; None: there is none.
        skipped: Newer ones, the newest first.
        lost: Whether there is none although there was one once.
    """

    path: str | None
    skipped: tuple[Skipped, ...]
    lost: bool


def seal(path: str) -> None:
    """Brings a checkpoint that was just written to the disk, reads it back and seals it.

    Args:
        path: Its path, without a suffix.

    Raises:
        Broken: It does not read back as it was written.
        UserError: The seal can't be written.
        OSError: The files can't be brought to the disk.
    """
    parts = _parts(path)
    for part in parts:
        _sync(part)
    _sync(pathlib.Path(path).parent)
    problem = _unreadable(path)
    if problem:
        raise Broken(problem)
    with files.atomic_write(path + SEAL) as file:
        file.write(_described(parts))


def remove(path: str) -> None:
    """Removes what there is of a checkpoint, the index first: without it, nothing is read."""
    for part in (path + ".index", *map(str, _parts(path)), path + SEAL):
        pathlib.Path(part).unlink(missing_ok=True)


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
    return sorted({step for step, _ in _listed(directory)})


def prefix(directory: pathlib.Path, step: int) -> str:
    """The path of a step's checkpoint, without a suffix."""
    return str(directory / f"ckpt-{step}")


def problem(path: str) -> str | None:
    """Says what is wrong with a checkpoint; None: nothing.

    One without a seal, as earlier versions wrote them, is right if TensorFlow can read all of it.

    Args:
        path: Its path, without a suffix.
    """
    if not pathlib.Path(path + SEAL).is_file():
        return _unreadable(path)
    return _broken_seal(path)


def newest(directory: pathlib.Path, before: int | None = None) -> Found:
    """Finds the newest checkpoint that can be used.

    One without a seal can be used if TensorFlow can read all of it and nothing older has a seal;
    then an earlier version of this program wrote it.

    Args:
        directory: The folder of the checkpoints. It may be written to meanwhile.
        before: Only older ones than that of this step; None: all.
    """
    while True:
        listed = _listed(directory)
        older = {part for part in listed if before is None or part[0] < before}
        found = _newest(directory, older)
        # Where a training process has removed it meanwhile, there is a newer one.
        if found.path is not None or _listed(directory) == listed:
            return found


def _newest(directory: pathlib.Path, listed: set[tuple[int, str]]) -> Found:
    sealed = {step for step, suffix in listed if suffix == SEAL}
    finished = bool(sealed) or (directory / STATE).exists()
    skipped: list[Skipped] = []
    for step in sorted({step for step, _ in listed}, reverse=True):
        path = prefix(directory, step)
        unfinished = False
        if step in sealed:
            wrong = _broken_seal(path)
        elif min(sealed, default=step) < step:
            wrong, unfinished = "it has no seal: its writing was not finished", True
        else:
            wrong = _unreadable(path)
            # Without a seal anywhere, the file that TensorFlow writes last tells.
            unfinished = not finished
        if wrong is None:
            return Found(path, tuple(skipped), lost=False)
        skipped.append(Skipped(path, wrong, unfinished))
    return Found(None, tuple(skipped), lost=finished)


def clear(directory: pathlib.Path, found: Found) -> None:
    """Makes place for the run to go on: nothing is left that is newer than where it goes on from.

    What was never finished is removed, and what is damaged goes into the folder `damaged`. Only for
    the process that has the run's lock.
    """
    if not directory.is_dir():
        return
    for entry in list(directory.iterdir()):
        if _HALF_WRITTEN.fullmatch(entry.name):
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    for skipped in found.skipped:
        if skipped.unfinished:
            remove(skipped.path)
            continue
        aside = directory / ASIDE
        aside.mkdir(exist_ok=True)
        for part in (*_parts(skipped.path), pathlib.Path(skipped.path + SEAL)):
            if part.exists():
                part.replace(aside / part.name)


def _listed(directory: pathlib.Path) -> set[tuple[int, str]]:
    """Steps and suffixes of the files that are parts of checkpoints."""
    if not directory.is_dir():
        return set()
    matches = (_FILE.fullmatch(entry.name) for entry in directory.iterdir())
    return {(int(match[1]), match[2]) for match in matches if match}


def _parts(path: str) -> list[pathlib.Path]:
    """TensorFlow's files of a checkpoint, sorted."""
    own = pathlib.Path(path)
    return sorted(
        [
            *own.parent.glob(f"{own.name}.data-*-of-*"),
            *own.parent.glob(f"{own.name}.index"),
        ]
    )


def _described(parts: list[pathlib.Path]) -> str:
    """The text of the seal of such files. A function of them: it differs if any byte does."""
    contents = {}
    for part in parts:
        with part.open("rb") as file:
            digest = hashlib.sha256()
            while block := file.read(1 << 20):
                digest.update(block)
            contents[part.name] = {"bytes": file.tell(), "sha256": digest.hexdigest()}
    return json.dumps({"format": "t2aux-seal", "files": contents}, indent=2) + "\n"


def _broken_seal(path: str) -> str | None:
    """What is wrong with a sealed checkpoint, or None."""
    try:
        text = pathlib.Path(path + SEAL).read_bytes()
        now = _described(_parts(path))
    except OSError as error:
        name = pathlib.Path(error.filename or path).name
        return f"{name} can't be read: {error.strerror or error}"
    if text == now.encode():
        return None
    try:
        stored = json.loads(text)["files"]
        sealed = {str(name): (part["bytes"], part["sha256"]) for name, part in stored.items()}
        if not all(name.startswith(f"{pathlib.Path(path).name}.") for name in sealed):
            return "its seal is damaged"
    except (ValueError, KeyError, TypeError, AttributeError):
        return "its seal is damaged"
    there = {name: (p["bytes"], p["sha256"]) for name, p in json.loads(now)["files"].items()}
    for name, (size, digest) in sealed.items():
        if name not in there:
            return f"{name} is missing"
        if there[name][0] != size:
            return f"{name} has {there[name][0]} bytes instead of {size}"
        if there[name][1] != digest:
            return f"{name} has changed since it was written"
    return "its seal is damaged"


def _unreadable(path: str) -> str | None:
    """Has TensorFlow read all of a checkpoint, with its checksums; what is wrong, or None."""
    try:
        with for_tensorflow(path) as alias:
            reader = tf.train.load_checkpoint(alias)
            for key in reader.get_variable_to_shape_map():
                reader.get_tensor(key)
    except DAMAGE as error:
        return first_line(error)
    return None


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
    """The first line of what an exception says."""
    text = getattr(error, "message", None) or getattr(error, "strerror", None) or str(error)
    text = text.strip() or type(error).__name__
    return _ALIAS.sub("", text.splitlines()[0]).rstrip(".")
