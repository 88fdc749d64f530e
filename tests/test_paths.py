"""Paths that are checked, and the names by which TensorFlow gets a folder."""

import os
import pathlib

import pytest

from t2aux import files
from t2aux.errors import FileError
from t2aux_ondevice import paths


@pytest.mark.parametrize("name", ["plain", "[a]*", "b\\?", os.fsdecode(b"caf\xe9"), "x:y\n"])
@pytest.mark.parametrize("descriptors", ["/proc/self/fd", "/nowhere"])
def test_tensorflow_gets_a_plain_name(tmp_path, monkeypatch, name, descriptors):
    monkeypatch.setattr(files, "_DESCRIPTORS", descriptors)
    folder = tmp_path / name
    folder.mkdir()
    opened = os.listdir("/proc/self/fd")
    with files.for_tensorflow(folder) as alias:
        assert alias.isascii()
        assert not set(alias) & set("[]*\\?:\n")
        pathlib.Path(alias, "file").write_text("x")
    assert (folder / "file").read_text() == "x"
    # Nothing is left, in memory or on the disk.
    assert (alias == str(folder)) == (name == "plain")
    assert name == "plain" or not os.path.exists(alias)
    assert len(os.listdir("/proc/self/fd")) == len(opened)


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError), files.for_tensorflow(tmp_path / "[a]"):
        pass


def test_local(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/my/own")
    assert paths.local("~", "x") == "/my/own"
    assert paths.local("~/a~", "x") == "/my/own/a~"
    assert paths.local("a/~", "x") == "a/~"
    assert paths.local("gs", "x") == "gs"
    assert paths.local("a:/b", "x") == "a:/b"
    assert paths.local("./gs:/b", "x") == "./gs:/b"
    # An editor's copy, which a shell hands over as it stands.
    (tmp_path / "~nobody99.txt").write_text("")
    assert paths.local("~nobody99.txt", "x") == "./~nobody99.txt"
    monkeypatch.setenv("HOME", "")
    with pytest.raises(FileError, match=r"~/a \(x\): HOME "):
        paths.local("~/a", "x")
    assert paths.home() is None


def test_names_that_are_not_utf8_are_kept_in_json(tmp_path):
    name = os.fsdecode(b"caf\xe9 \xc3\xa9")
    files.write_json(tmp_path / "x.json", {name: name})
    assert files.read_json(tmp_path / "x.json") == {name: name}
    with files.atomic_write(tmp_path / "x.md") as file:
        file.write(name)
    assert (tmp_path / "x.md").read_text("utf-8") == "caf\\udce9 \u00e9"
