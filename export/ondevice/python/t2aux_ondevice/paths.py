"""Checks paths given by a user, before anything is read or written.

Any name that the system accepts is valid, except a URL.
"""

from __future__ import annotations

import errno
import os
import re

from t2aux_ondevice.errors import FileError, SettingError

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
# Joining and normalising paths turns two slashes into one, and Databricks itself writes dbfs:/.
_REMOTE = re.compile(
    r"(gs|gcs|s3[an]?|hdfs|viewfs|webhdfs|https?|ftps?|sftp|ssh|file|dbfs|az|adl|abfss?|wasbs?|oss|"
    r"cos|obs|swift|ram|tfds|memory):/",
    re.IGNORECASE,
)
_SHOWN = 100
# Limits of a name and a path in bytes, with space for the files of a run.
_MAX_NAME = 255
_MAX_PATH = 3800


def home() -> str | None:
    """The user's home folder; None if neither HOME nor the password database has one."""
    if os.environ.get("HOME") == "":
        return None
    found = os.path.expanduser("~")
    return None if found == "~" else found


def local(value: str | os.PathLike[str], what: str) -> str:
    """Checks a local path, and expands "~" and "~user" at its beginning.

    Args:
        value: The path. It need not exist.
        what: The name of the flag or argument for messages, such as "--model_dir".

    Returns:
        The path.

    Raises:
        UserError: The path is empty or a URL (gs://, s3://, ...), refers to a home folder that does
            not exist, or is invalid: a name in it is too long, or contains a NUL character.
    """
    path = os.fspath(value)
    if not path:
        raise SettingError(f"{what} is empty: give a path.")
    shown = path if len(path) <= _SHOWN else f"{path[:_SHOWN]}..."
    if _URL.match(path.lstrip()) or _REMOTE.match(path.lstrip()):
        raise SettingError(
            f"{what} is {shown}, which is not on this machine: copy or mount it, and give a local "
            "path."
        )
    try:
        if path.startswith("~"):
            path = _expanded(path, what)
        parts = os.fsencode(path).split(os.fsencode(os.sep))
        os.lstat(path)
    except ValueError as error:  # A NUL character, or one that this system's names can't contain.
        raise SettingError(f"{what} is {shown}, which can't be a path: {error}.") from error
    except OSError as error:
        # The system checks a name's length only if its folder exists.
        long = max(map(len, parts)) > _MAX_NAME or sum(map(len, parts)) > _MAX_PATH
        if long or error.errno == errno.ENAMETOOLONG:
            raise SettingError(f"{what} is {shown}, which is too long for a path.") from error
    return path


def _expanded(path: str, what: str) -> str:
    user = path[1:].partition(os.sep)[0]
    found = os.path.expanduser(path) if user or home() else path
    if found != path:
        return found
    if user and os.path.lexists(path):
        # A file of that name, such as an editor's backup, rather than a user's folder.
        return os.path.join(os.curdir, path)
    why = f"{user} is not a user here" if user else "HOME is not set, and this user has no home"
    raise FileError(f"Can't find the folder {path} ({what}): {why}; give the whole path.")
