"""Files that one process of a test session makes, and all of them read."""

import fcntl
import os
import pathlib
import shutil
import tempfile

import pytest

_folder: list[pathlib.Path] = []


@pytest.fixture(scope="session", autouse=True)
def _shared_folder(tmp_path_factory):
    """Under pytest-xdist the parent of each process's folder is that of the session."""
    base = tmp_path_factory.getbasetemp()
    _folder.append(base.parent if "PYTEST_XDIST_WORKER" in os.environ else base)


def made_once(name, make):
    """The path `name` in a folder of the session; made by `make(path)` where it does not exist.

    Tests copy what is in it, or leave it as it is.
    """
    if not _folder:  # Outside of pytest, such as `python -m tests.fuzz`.
        _folder.append(pathlib.Path(tempfile.mkdtemp()))
    path = _folder[0] / "shared" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(f"{path}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        made = path.with_name(f"{name}.made")
        if not made.exists():
            shutil.rmtree(path, ignore_errors=True)  # Of a maker that failed.
            make(path)
            made.touch()
    return path
