"""Builds versions of an export in a hidden folder, so that each is complete or absent."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import pathlib
from collections.abc import Iterator

from t2aux import files
from t2aux.errors import FileError, UserError


def versions(export_dir: str | os.PathLike[str]) -> list[int]:
    """The versions in an export's base directory, ascending; none if it does not exist."""
    base = pathlib.Path(export_dir)
    if not base.is_dir():
        return []
    return sorted(int(p.name) for p in base.iterdir() if files.is_version(p.name) and p.is_dir())


@dataclasses.dataclass
class Staging:
    """A folder for a version that is being built; see `staged`.

    Attributes:
        directory: The folder to write to.
        published: The version's final directory, once it exists.
    """

    directory: pathlib.Path
    published: pathlib.Path | None = None


@contextlib.contextmanager
def staged(export_dir: str | os.PathLike[str], version: int | None = None) -> Iterator[Staging]:
    """Makes a hidden folder that becomes EXPORT_DIR/VERSION when the block succeeds.

    A server that watches EXPORT_DIR never sees an incomplete version, and a failed export leaves
    nothing behind. Folders of killed exports are removed.

    Args:
        export_dir: The base directory, which is created if it does not exist.
        version: The version; defaults to the newest plus one.

    Yields:
        The folder.

    Raises:
        UserError: The version already exists, or the directory can't be written (no permission,
            disk full).
    """
    base = pathlib.Path(export_dir)
    existed = base.exists()
    files.ensure_directory(base)
    if version is not None and (base / str(version)).exists():
        raise _taken(base, version)
    try:
        with files.temporary_folder(base, ".export-") as directory:
            staging = Staging(directory)
            yield staging
            staging.published = _publish(directory, base, version)
    except OSError as error:
        raise FileError(
            f"Can't write the export to {base} ({error.strerror or error}): free some space, or "
            "choose another directory."
        ) from error
    finally:
        if not existed:
            with contextlib.suppress(OSError):  # It is not empty if there is an export.
                base.rmdir()


def _publish(directory: pathlib.Path, base: pathlib.Path, version: int | None) -> pathlib.Path:
    """Renames a finished folder to its version."""
    while True:
        number = max(versions(base), default=0) + 1 if version is None else version
        target = base / str(number)
        try:
            directory.rename(target)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise
            # Another export took the number in the meantime. A given number can't be changed.
            if version is not None:
                raise _taken(base, version) from error
        else:
            return target


def _taken(base: pathlib.Path, version: int) -> UserError:
    newest = max(versions(base), default=0)
    return FileError(f"{base} already has a version {version}: give none, for {newest + 1}.")
