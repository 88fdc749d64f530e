"""A version is complete or absent."""

import os
import shutil
import signal
import stat
import subprocess
import sys

import pytest

from t2aux import files
from t2aux.errors import FileError
from t2aux.export import staging
from tests.cli_helpers import environment


def names(base):
    return sorted(p.name for p in base.iterdir())


def make(base, version=None, meanwhile=lambda: None):
    with staging.staged(base, version) as stage:
        (stage.directory / "file").write_text("content")
        meanwhile()
    return stage.published


def fail(base, error):
    def meanwhile():
        raise error

    make(base, meanwhile=meanwhile)


def test_versions_count_up(tmp_path):
    base = tmp_path / "a" / "base"
    assert make(base).name == "1"
    assert make(base).name == "2"
    assert make(base, 10).name == "10"
    for name in ("notes", "\u0663\u0663", "\u00b2"):  # Arabic digits, a superscript.
        (base / name).mkdir()
    (base / "99").write_text("no version")
    assert make(base).name == "11"
    assert staging.versions(base) == [1, 2, 10, 11]
    assert (base / "11" / "file").read_text() == "content"


def test_a_version_is_never_overwritten(tmp_path):
    make(tmp_path, 3)
    with pytest.raises(FileError, match=rf"^{tmp_path} .* 3: .* 4"):
        make(tmp_path, 3)
    assert names(tmp_path) == ["3"]


def test_a_number_that_was_taken_meanwhile(tmp_path):
    with staging.staged(tmp_path) as first, staging.staged(tmp_path) as second:
        for stage in (first, second):
            (stage.directory / "file").write_text("content")
    assert {first.published.name, second.published.name} == {"1", "2"}
    with pytest.raises(FileError, match=f"^{tmp_path} .* 5: .* 6"):
        make(tmp_path, 5, meanwhile=lambda: make(tmp_path, 5))
    assert names(tmp_path) == ["1", "2", "5"]


def test_a_version_is_hidden_until_it_is_complete(tmp_path):
    with staging.staged(tmp_path) as stage:
        (hidden,) = names(tmp_path)
        assert hidden == stage.directory.parent.name
        assert hidden.startswith(".")
        assert staging.versions(tmp_path) == []


def test_others_may_read_it(tmp_path):
    old = os.umask(0o022)
    try:
        assert stat.S_IMODE(make(tmp_path).stat().st_mode) == 0o755
    finally:
        os.umask(old)


@pytest.mark.parametrize("error", [FileError("no"), ValueError("no"), KeyboardInterrupt()])
def test_a_failure_leaves_nothing(tmp_path, error):
    base = tmp_path / "base"
    with pytest.raises(type(error)):
        fail(base, error)
    assert not base.exists()
    make(base)
    with pytest.raises(type(error)):
        fail(base, error)
    assert names(base) == ["1"]


def test_a_full_disk_is_an_error(tmp_path):
    with pytest.raises(FileError, match=rf" {tmp_path} .*No space left on device"):
        fail(tmp_path, OSError(28, os.strerror(28)))
    assert names(tmp_path) == []


def test_a_directory_that_can_not_be_made_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match=f" {tmp_path / 'file' / 'base'}: "):
        make(tmp_path / "file" / "base")


def test_what_a_killed_export_left_is_cleared(tmp_path):
    code = (
        "import os, signal, sys\n"
        "from t2aux.export import staging\n"
        "with staging.staged(sys.argv[1]) as stage:\n"
        "    (stage.directory / 'file').write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(tmp_path)], env=environment())
    assert killed.returncode == -signal.SIGKILL
    assert len(names(tmp_path)) == 1
    assert staging.versions(tmp_path) == []
    # One that is still at work is left alone.
    with staging.staged(tmp_path) as other:
        assert names(tmp_path) == [other.directory.parent.name]
        assert make(tmp_path).name == "1"
        assert names(tmp_path) == sorted([other.directory.parent.name, "1"])
    assert names(tmp_path) == ["1", "2"]


def test_a_folder_that_another_process_locks_first_is_made_again(tmp_path, monkeypatch):
    acquired, taken = files._acquired, []

    def acquire(path):
        if taken:
            return acquired(path)
        # The other process takes it for one that a killed process left.
        taken.append(path.parent)
        shutil.rmtree(path.parent)
        return None

    monkeypatch.setattr(files, "_acquired", acquire)
    with files.temporary_folder(tmp_path, ".made-") as folder:
        assert folder.is_dir()
        assert folder.parent != taken[0]
    assert not list(tmp_path.iterdir())
