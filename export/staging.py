"""Versions of an export: built in a hidden folder, so that each is complete or absent."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator

from t2aux import files
from t2aux.errors import UserError

_PREFIX = ".export-"


def versions(export_dir: str | os.PathLike[str]) -> list[int]:
    """The versions in an export's base directory, in rising order; none if it does not exist."""
    base = pathlib.Path(export_dir)
    if not base.is_dir():
        return []
    return sorted(int(p.name) for p in base.iterdir() if files.is_version(p.name) and p.is_dir())


@dataclasses.dataclass
class Staging:
    """A folder for a version that is being built; see `staged`.

    Attributes:
        directory: Where to write.
        published: The version's directory, once it exists.
    """

    directory: pathlib.Path
    published: pathlib.Path | None = None


@contextlib.contextmanager
def staged(export_dir: str | os.PathLike[str], version: int | None = None) -> Iterator[Staging]:
    """Makes a hidden folder that becomes EXPORT_DIR/VERSION when the block ends well.

    A server that watches EXPORT_DIR never sees an incomplete version, and a failed export leaves
    nothing. Folders of exports that were killed are removed.

    Args:
        export_dir: The base directory; made if it does not exist.
        version: The version; by default one more than the newest.

    Yields:
        The folder.

    Raises:
        UserError: The version exists already, or the directory can't be written (no permission,
            disk full).
    """
    base = pathlib.Path(export_dir)
    existed = base.exists()
    files.ensure_directory(base)
    if version is not None and (base / str(version)).exists():
        raise _taken(base, version)
    _clear_abandoned(base)
    directory = lock = None
    try:
        directory = pathlib.Path(tempfile.mkdtemp(prefix=_PREFIX, dir=base))
        lock = os.open(directory, os.O_RDONLY)
        fcntl.flock(lock, fcntl.LOCK_EX)
        staging = Staging(directory)
        yield staging
        # mkdtemp makes folders that only their owner can enter, and a server is another user.
        umask = os.umask(0)
        os.umask(umask)
        directory.chmod(0o777 & ~umask)
        staging.published = _publish(directory, base, version)
        directory = None
    except OSError as error:
        raise UserError(
            f"Can't write the export to {base} ({error.strerror or error}): free some space, or "
            "choose another directory."
        ) from error
    finally:
        if directory is not None:
            shutil.rmtree(directory, ignore_errors=True)
            if not existed:
                # Another export may have written to it meanwhile.
                with contextlib.suppress(OSError):
                    base.rmdir()
        if lock is not None:
            os.close(lock)


def _publish(directory: pathlib.Path, base: pathlib.Path, version: int | None) -> pathlib.Path:
    """Gives a finished folder its version's name."""
    while True:
        number = max(versions(base), default=0) + 1 if version is None else version
        target = base / str(number)
        try:
            directory.rename(target)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise
            # Another export took the number meanwhile. A number that was given can't change.
            if version is not None:
                raise _taken(base, version) from error
        else:
            return target


def _taken(base: pathlib.Path, version: int) -> UserError:
    newest = max(versions(base), default=0)
    return UserError(f"{base} already has a version {version}: give none, for {newest + 1}.")


def _clear_abandoned(base: pathlib.Path) -> None:
    """Removes the folders of exports that were killed, which nobody locks any more."""
    for path in base.glob(f"{_PREFIX}*"):
        try:
            lock = os.open(path, os.O_RDONLY)
        except OSError:
            continue  # It was published or removed meanwhile, or is another user's.
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path, ignore_errors=True)
        except OSError:
            continue  # Its export is still running.
        finally:
            os.close(lock)
