"""Files and folders that are complete or absent: written under a temporary name, then renamed."""

from __future__ import annotations

import contextlib
import glob
import json
import os
import pathlib
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import IO, Any

from t2aux.errors import FileError
from t2aux_ondevice import paths
from t2aux_ondevice.files import read_json

__all__ = [
    "Lines",
    "atomic_write",
    "cache_directory",
    "clear_temporary",
    "ensure_directory",
    "for_tensorflow",
    "locked",
    "read_json",
    "temporary_folder",
    "write_json",
]

# Paths that TensorFlow takes literally even where it accepts glob patterns or URLs.
_PLAIN = re.compile(r"[A-Za-z0-9_./ +-]*")
_DESCRIPTORS = "/proc/self/fd"


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str], mode: str = "w") -> Iterator[IO[Any]]:
    """Opens a temporary file beside `path` that is renamed to it if the block succeeds.

    Args:
        path: The file to write. Its folder must exist.
        mode: "w" for UTF-8 text (file names that are not UTF-8 are escaped) or "wb" for bytes.

    Yields:
        The open file.

    Raises:
        UserError: The file can't be written (no such folder, no permission, disk full). Nothing is
            left behind, and an existing file of that name is unchanged.
    """
    path = pathlib.Path(path)
    temporary = None
    try:
        # Named before it is created, because a signal handler may raise right afterwards. The name
        # ends with 8 random characters, as `clear_temporary` expects.
        temporary = path.parent / f".{path.name}.{secrets.token_urlsafe(6)}"
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        text = {} if "b" in mode else {"encoding": "utf-8", "errors": "backslashreplace"}
        with os.fdopen(descriptor, mode, **text) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        # Until here, only its owner can read it.
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, path)
        temporary = None
    except OSError as error:
        raise FileError(
            f"Can't write {path}: {error.strerror or error}. Free some space there, or choose a "
            "folder that you may write to."
        ) from error
    finally:
        if temporary is not None:
            # The file may not have been created.
            with contextlib.suppress(OSError):
                os.unlink(temporary)


def clear_temporary(path: str | os.PathLike[str]) -> None:
    """Removes what an `atomic_write` of `path` left behind when its process was killed.

    No other process may be writing the file.
    """
    path = pathlib.Path(path)
    for left in path.parent.glob(f".{glob.escape(path.name)}.????????"):
        left.unlink(missing_ok=True)


class Lines:
    """A text file to which lines are appended. A failed write leaves no partial text."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Opens the file for appending.

        Raises:
            UserError: The file can't be written.
        """
        self._path = pathlib.Path(path)
        try:
            self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        except OSError as error:
            raise FileError(f"Can't write {path}: {error.strerror}.") from error

    def write(self, text: str) -> None:
        """Appends text to the file.

        Raises:
            UserError: The file can't be written; it is unchanged.
        """
        # Without a buffer, which would be written again when the file is closed.
        content = text.encode("utf-8", "backslashreplace")
        size = os.fstat(self._descriptor).st_size
        try:
            while content:
                content = content[os.write(self._descriptor, content) :]
        except OSError as error:
            os.ftruncate(self._descriptor, size)
            raise FileError(
                f"Can't write {self._path}: {error.strerror}. Free some space there, and give the "
                "same command again."
            ) from error

    def close(self) -> None:
        """Closes the file; may be called again."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Writes `value` atomically as indented JSON. Raises UserError, see `atomic_write`."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:  # It contains a file name that is not UTF-8.
        text = json.dumps(value, indent=2)
    with atomic_write(path) as file:
        file.write(text + "\n")


def ensure_directory(path: str | os.PathLike[str]) -> pathlib.Path:
    """Creates a directory and its parents, and checks that it is writable.

    Raises:
        UserError: The directory can't be created, is a file, or can't be written to.
    """
    path = pathlib.Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except (FileExistsError, NotADirectoryError) as error:
        raise FileError(
            f"Can't write to the directory {path}: it is a file, or in one. Choose another."
        ) from error
    except OSError as error:
        raise FileError(
            f"Can't write to the directory {path}: {error.strerror or error}. Choose another, or "
            "change its permissions."
        ) from error
    return path


def cache_directory() -> pathlib.Path | None:
    """The user's cache folder: T2AUX_CACHE_DIR, or that of the system.

    Returns:
        The folder, which may not exist; None if the user has no home folder, either.

    Raises:
        UserError: T2AUX_CACHE_DIR is not a valid folder on this machine.
    """
    own = os.environ.get("T2AUX_CACHE_DIR")
    if own:
        return pathlib.Path(paths.local(own, "T2AUX_CACHE_DIR"))
    base = os.environ.get("XDG_CACHE_HOME")
    home = paths.home()
    if not base and home is None:
        return None
    return (pathlib.Path(base) if base else pathlib.Path(home, ".cache")) / "t2aux"


@contextlib.contextmanager
def for_tensorflow(directory: str | os.PathLike[str]) -> Iterator[str]:
    """Yields a path of a directory that TensorFlow takes literally, whatever its name is.

    In places, TensorFlow treats the paths of checkpoints and SavedModels as glob patterns: if a
    name has `[`, `*`, `?` or a backslash, it finds nothing, or files of another folder. It also
    rejects names that are not UTF-8.

    Args:
        directory: The directory, which must exist.

    Yields:
        `directory` itself if its name is plain, else an alias that is valid inside the block.

    Raises:
        OSError: `directory` does not exist or is not a directory.
    """
    name = os.fspath(directory)
    if _PLAIN.fullmatch(name):
        yield name
        return
    with contextlib.ExitStack() as stack:
        descriptor = os.open(name, os.O_RDONLY | os.O_DIRECTORY)
        stack.callback(os.close, descriptor)
        alias = f"{_DESCRIPTORS}/{descriptor}"
        if not os.path.isdir(alias):
            # Not Linux. The system's temporary folder may have such a name, too.
            place = tempfile.gettempdir()
            place = place if _PLAIN.fullmatch(place) else "/tmp"
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="t2aux-", dir=place))
            alias = os.path.join(folder, "link")
            os.symlink(os.path.abspath(name), alias)
        yield alias


@contextlib.contextmanager
def locked(directory: str | os.PathLike[str]) -> Iterator[None]:
    """Locks a directory for this process until the block or the process ends.

    Raises:
        UserError: Another process has locked the directory, or it can't be locked.
    """
    path = pathlib.Path(directory) / ".lock"
    try:
        held = _acquired(path)
    except (OSError, NotImplementedError) as error:
        raise FileError(
            f"Can't lock {path}: {getattr(error, 'strerror', None) or error}. Choose a directory "
            "that you may write to, on a file system that has locks."
        ) from error
    if held is None:
        raise FileError(
            f"Another process is training in {directory}: wait until it is done or stop it, or "
            "give another directory."
        )
    with held:
        yield


@contextlib.contextmanager
def temporary_folder(parent: str | os.PathLike[str], prefix: str) -> Iterator[pathlib.Path]:
    """Creates an empty folder to be renamed when it is complete.

    It is in a hidden folder, which is removed when the block ends. Hidden folders with the same
    prefix that killed processes left behind are removed, too; a lock distinguishes them from
    folders that are in use.

    Args:
        parent: An existing folder on the file system of the folder's final name.
        prefix: The beginning of the hidden folder's name.

    Yields:
        The folder. If the block does not rename it, nothing remains.

    Raises:
        OSError: The folder can't be created.
    """
    parent = pathlib.Path(parent)
    for left in parent.glob(f"{glob.escape(prefix)}*"):
        with contextlib.suppress(OSError):  # It was just removed, or belongs to another user.
            if (held := _acquired(left / "lock")) is not None:
                with held:
                    shutil.rmtree(left, ignore_errors=True)
    outer, held = _locked_folder(parent, prefix)
    try:
        with held:
            folder = outer / "new"
            folder.mkdir()
            yield folder
    finally:
        shutil.rmtree(outer, ignore_errors=True)


def _locked_folder(
    parent: pathlib.Path, prefix: str
) -> tuple[pathlib.Path, AbstractContextManager[Any]]:
    while True:
        outer = pathlib.Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        # Before it is locked, another process may consider it abandoned and remove it.
        if (held := _acquired(outer / "lock")) is not None:
            return outer, held


def _acquired(path: pathlib.Path) -> AbstractContextManager[Any] | None:
    """Locks a file. Returns None if another process has locked it; raises OSError if it can't."""
    import filelock

    lock = filelock.FileLock(path, blocking=False)
    try:
        held = lock.acquire()
    except filelock.Timeout:
        return None
    # A process that ended between opening and locking may have removed the file and its folder.
    if not path.exists():
        lock.release()
        return None
    return held


def is_version(name: str) -> bool:
    """Whether a folder's name is an export's version number, written with the digits 0 to 9."""
    return name.isascii() and name.isdecimal()
