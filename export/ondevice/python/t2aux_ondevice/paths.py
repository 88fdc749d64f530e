"""Checks paths that a user gave, before anything is read or written.

Any name that the system accepts is valid, except a URL.
"""

from __future__ import annotations

import errno
import os
import re

from t2aux_ondevice.errors import FileError, SettingError

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
# Path joins and normalisations make one slash of two, and Databricks writes dbfs:/ to begin with.
_REMOTE = re.compile(
    r"(gs|gcs|s3[an]?|hdfs|viewfs|webhdfs|https?|ftps?|sftp|ssh|file|dbfs|az|adl|abfss?|wasbs?|oss|"
    r"cos|obs|swift|ram|tfds|memory):/",
    re.IGNORECASE,
)
_SHOWN = 100
# In bytes, of a name and of a path; with space for the files of a run in it.
_MAX_NAME = 255
_MAX_PATH = 3800


def home() -> str | None:
    """The user's home folder; None where neither HOME nor the password database has one."""
    if os.environ.get("HOME") == "":
        return None
    found = os.path.expanduser("~")
    return None if found == "~" else found


def local(value: str | os.PathLike[str], what: str) -> str:
    """Checks a path of this machine's and replaces "~" and "~user" at its beginning.

    Args:
        value: The path. It need not exist.
        what: What it was given as, such as "--model_dir", for messages.

    Returns:
        The path.

    Raises:
        UserError: It is empty, a URL (gs://, s3://, ...), names a home folder that does not exist,
            or can't be a path: a name in it is too long, or holds a NUL character.
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
    except ValueError as error:  # A NUL character; or what this system's names can't be written in.
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
        # A file of that name, such as an editor's copy, and not a user's folder.
        return os.path.join(os.curdir, path)
    why = f"{user} is not a user here" if user else "HOME is not set, and this user has no home"
    raise FileError(f"Can't find the folder {path} ({what}): {why}; give the whole path.")
