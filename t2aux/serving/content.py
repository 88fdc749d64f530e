"""Checks whether the folder of a version has changed, and whether it is complete.

A version may be copied file by file, replaced under the same number, or removed and copied again
with its old times. An export of t2aux has the SHA-256 of its files in metadata.json, which proves
that it is complete; any other SavedModel is loaded when its files have stopped changing.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import pathlib

from t2aux.data.manifest import sha256
from t2aux_ondevice import litert

_MODEL = "saved_model.pb"
# The files of a SavedModel. Others, such as those for LiteRT, are ignored.
_FILES = (_MODEL, "fingerprint.pb", litert.METADATA)
_FOLDERS = ("variables", "assets", "assets.extra")


@dataclasses.dataclass(frozen=True)
class Look:
    """The files of a SavedModel at one moment.

    Attributes:
        files: The relative path of each file, its size in bytes, and the times in ns when its
            content and its inode last changed. The latter is new for a file that was copied with
            its old times.
        inodes: The inode numbers of the files. They differ if a file was replaced by renaming, but
            some file systems also change them spontaneously.
    """

    files: tuple[tuple[str, int, int, int], ...] = ()
    inodes: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True)
class Findings:
    """The result of reading the files of a `Look`.

    Attributes:
        missing: What is incomplete, for a message; "" if nothing is known to be missing.
        is_proven: Whether metadata.json proves that the folder is complete.
        digest: The digest of all files except metadata.json; "" if something is missing.
    """

    missing: str = ""
    is_proven: bool = False
    digest: str = ""


def look(directory: pathlib.Path) -> Look:
    """Lists a version's files. Those that disappear at the same time are left out."""
    paths = [directory / name for name in _FILES]
    for name in _FOLDERS:
        for folder, _, names in os.walk(directory / name):
            paths += [pathlib.Path(folder, file) for file in names]
    found = []
    for path in paths:
        try:
            status = path.stat()
        except OSError:
            continue
        name = path.relative_to(directory).as_posix()
        found.append((name, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino))
    found.sort()
    return Look(tuple(f[:4] for f in found), tuple(f[4] for f in found))


def read(directory: pathlib.Path, seen: Look) -> Findings:
    """Compares a version's files with its metadata.json, if it has that of an export.

    Args:
        directory: The version's folder.
        seen: The files of the version.

    Returns:
        The findings.
    """
    sizes = {name: size for name, size, _, _ in seen.files}
    try:
        if _MODEL not in sizes:
            (directory / _MODEL).stat()
            return Findings(f"{_MODEL} is not a readable file")
        described = _described(directory) if litert.METADATA in sizes else {}
        for name, entry in described.items():
            if name not in sizes:
                return Findings(f"{name} is missing")
            if entry.get("bytes") != sizes[name]:
                return Findings(f"{name} is not as {litert.METADATA} describes it")
        whole = hashlib.sha256()
        for name in sizes:
            if name == litert.METADATA:
                continue
            digest = sha256(directory / name)
            if name in described and described[name].get("sha256") != digest:
                return Findings(f"{name} is not as {litert.METADATA} describes it")
            whole.update(f"{os.fsencode(name).hex()} {digest}\n".encode())
    except FileNotFoundError as error:
        return Findings(f"{pathlib.Path(error.filename).name} is missing")
    except OSError as error:
        return Findings(f"{pathlib.Path(error.filename or directory).name}: {error.strerror}")
    except ValueError:
        return Findings(f"{litert.METADATA} is not valid JSON")
    return Findings(is_proven=_MODEL in described, digest=whole.hexdigest())


def _described(directory: pathlib.Path) -> dict[str, dict]:
    """The SavedModel's files in metadata.json; empty if it is not that of an export."""
    content = json.loads((directory / litert.METADATA).read_bytes())
    if not isinstance(content, dict) or content.get("format") != litert.FORMAT:
        return {}
    files = content.get("files")
    if not isinstance(files, dict):
        return {}
    return {
        name: entry
        for name, entry in files.items()
        if (name in _FILES or name.partition("/")[0] in _FOLDERS) and isinstance(entry, dict)
    }
