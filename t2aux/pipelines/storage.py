"""Files on any of Beam's file systems: local ones, gs://, s3://, hdfs://, ..."""

from __future__ import annotations

import contextlib
import glob
import os
import pathlib
import re
import shutil
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from typing import IO

from apache_beam.io.filesystem import BeamIOError, CompressionTypes
from apache_beam.io.filesystems import FileSystems

from t2aux.errors import FileError, UserError

_NO_PATTERN = re.compile(r"[^[*?]*")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_COPIED_AT_ONCE = 1 << 22
# Temporary folders are beside the output, so that files can be renamed on the same file system.
_TEMPORARY = ".t2aux-temporary-"


def is_url(path: str) -> bool:
    """Whether a path is not local."""
    return _URL.match(path) is not None


def join(folder: str, *names: str) -> str:
    """A path in a folder."""
    return (
        "/".join([folder.rstrip("/"), *names])
        if is_url(folder)
        else str(pathlib.Path(folder, *names))
    )


def parent(path: str) -> str:
    """The folder that a file is in."""
    return path.rpartition("/")[0] if is_url(path) else str(pathlib.Path(path).parent)


@contextlib.contextmanager
def errors(path: str) -> Iterator[None]:
    """Turns errors of Beam's file systems into a UserError that names the path."""
    try:
        yield
    except UserError:
        raise
    except ValueError as error:
        if "Unable to get filesystem" not in str(error):
            raise
        scheme = path.partition("://")[0]
        extra = {"gs": "gcp", "s3": "aws", "hdfs": "hadoop", "azfs": "azure"}.get(scheme)
        how = f"install apache-beam[{extra}]" if extra else "give gs://, s3://, hdfs:// or a path"
        raise FileError(f"Beam can't read or write {scheme}://, for {path}: {how}.") from error
    except (BeamIOError, OSError) as error:
        raise FileError(f"Can't read or write {path}: {str(error).splitlines()[0]}") from error


def open_file(path: str) -> IO[bytes]:
    """Opens a file for reading, without unpacking compressed files."""
    return FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED)


def read(path: str) -> bytes:
    """The content of a file. Raises UserError if it can't be read."""
    with errors(path), open_file(path) as file:
        return file.read()


def write(path: str, content: bytes) -> None:
    """Writes a file, replacing an existing one. Raises UserError if it can't be written."""
    with errors(path):
        # HDFS does not replace a file that an earlier attempt may have written.
        if FileSystems.exists(path):
            FileSystems.delete([path])
        with create(path) as file:
            file.write(content)


def create(path: str) -> IO[bytes]:
    """Opens a new file for writing. Its folder must exist if the file system has folders."""
    return FileSystems.create(path, compression_type=CompressionTypes.UNCOMPRESSED)


def make_folder(path: str) -> None:
    """Makes a folder and its parents, if the file system has folders."""
    with contextlib.suppress(BeamIOError, OSError):  # It exists; otherwise the first write fails.
        FileSystems.mkdirs(path)


def exists(path: str) -> bool:
    """Whether a file exists or, if the file system has folders, a folder."""
    with errors(path):
        return FileSystems.exists(path)


def matching(pattern: str) -> list[str]:
    """The files that a pattern matches, sorted by name.

    Args:
        pattern: May contain `*` for any characters except "/", `?` and `[...]`, and end in `**` for
            all files in a folder and its subfolders.

    Raises:
        UserError: The file system can't be read.
    """
    if not is_url(pattern):  # Beam does not accept relative paths.
        return sorted(filter(os.path.isfile, glob.glob(pattern, recursive=True)))
    return [path for path, size in _entries(pattern) if size or not _is_folder(path)]


def files_in(folder: str) -> list[str]:
    """The sorted paths of all files in a folder and its subfolders; none if it does not exist."""
    with errors(folder):
        has_folders = is_url(folder) and FileSystems.get_filesystem(folder).has_dirs()
    if not has_folders:
        return matching(join(folder, "**"))
    found = []
    for path, size in _entries(join(folder, "*")):
        found += files_in(path) if not size and _is_folder(path) else [path]
    return sorted(found)


def _entries(pattern: str) -> list[tuple[str, int]]:
    """The matches on another file system with their sizes in bytes; folders have size 0.

    HDFS lists a single folder, and can't list one that does not exist.
    """
    with errors(pattern):
        system = FileSystems.get_filesystem(pattern)
        folder = _NO_PATTERN.match(pattern)[0].rpartition("/")[0]
        if system.has_dirs() and not system.exists(folder):
            return []
        (found,) = system.match([pattern])
    return sorted((item.path, item.size_in_bytes) for item in found.metadata_list)


def _is_folder(path: str) -> bool:
    """Whether an entry of size 0 is a folder, that is, can be listed."""
    system = FileSystems.get_filesystem(path)
    if not system.has_dirs():
        return False
    try:
        system.match([join(path, "*")])
    except BeamIOError:
        return False
    return True


def copy(source: str, target: str) -> None:
    """Copies a file, replacing an existing one."""
    with errors(source), open_file(source) as read, create(target) as write:
        shutil.copyfileobj(read, write, _COPIED_AT_ONCE)


def move(source: str, target: str) -> None:
    """Renames a file on the same file system, replacing an existing one.

    On an object store, this is a copy; the target appears when it is complete.
    """
    with errors(target):
        try:
            FileSystems.rename([source], [target])
        except (BeamIOError, OSError):
            if not FileSystems.exists(target):
                raise
            # HDFS does not replace a file.
            FileSystems.delete([target])
            FileSystems.rename([source], [target])


def remove(path: str) -> None:
    """Removes a folder with its content, if it exists."""
    if not is_url(path):
        shutil.rmtree(path, ignore_errors=True)
        return
    with contextlib.suppress(BeamIOError, OSError, UserError):
        FileSystems.delete([path])


class Staged:
    """Local copies of files on another file system, which exist as long as the object."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="t2aux-")
        self._count = 0

    def files(self, paths: Sequence[str]) -> pathlib.Path:
        """Copies files of one folder, and returns the folder of the copies."""
        self._count += 1
        folder = pathlib.Path(self._folder.name, str(self._count))
        folder.mkdir()
        for path in paths:
            copy(path, str(folder / path.rpartition("/")[2]))
        return folder

    def tree(self, path: str) -> pathlib.Path:
        """Copies a file, or a folder with its content. Raises UserError if it does not exist."""
        found = matching(path)
        if found == [path]:
            return self.files([path]) / path.rpartition("/")[2]
        found = files_in(path)
        if not found:
            raise FileError(f"Can't find the file or folder {path}: check its name.")
        self._count += 1
        root = pathlib.Path(
            self._folder.name, str(self._count), path.rstrip("/").rpartition("/")[2]
        )
        for name in found:
            target = root / name[len(path) + 1 :]
            target.parent.mkdir(parents=True, exist_ok=True)
            copy(name, str(target))
        return root

    def close(self) -> None:
        """Removes the copies."""
        self._folder.cleanup()


def temporary_prefix(output: str) -> str:
    """The prefix of the names of an output's temporary folders."""
    folder, _, name = output.rstrip("/").rpartition("/")
    named = f".{name.replace('*', '_')}{_TEMPORARY}"
    return f"{folder}/{named}" if folder or output.startswith("/") else named


@contextlib.contextmanager
def temporary_folder(output: str) -> Iterator[str]:
    """Makes a folder beside an output, and removes it with its content afterwards.

    First removes what killed runs for the same output left behind.
    """
    prefix = temporary_prefix(output)
    clear(prefix)
    folder = f"{prefix}{uuid.uuid4().hex[:12]}"
    make_folder(folder)
    try:
        yield folder
    finally:
        remove(folder)
        clear(folder)


def clear(prefix: str) -> None:
    """Removes all files and folders whose paths begin with a prefix."""
    if not is_url(prefix):
        place = pathlib.Path(prefix)
        for left in place.parent.glob(f"{glob.escape(place.name)}*"):
            remove(str(left))
        return
    found = [path for path, _ in _entries(f"{prefix}**")]
    if found:
        with errors(prefix):
            FileSystems.delete(found)
