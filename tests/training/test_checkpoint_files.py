"""Damage to checkpoints: found whatever it is, logged, and the one before is used."""

import os
import pathlib
import re
import shutil

import hypothesis
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import strategies as st

from t2aux.errors import FileError, ModelError
from t2aux.training import checkpoints, restoring
from t2aux.training.position import Position

DATA, INDEX = ".data-00000-of-00001", ".index"


class Network(tf.Module):
    def __init__(self, value=0.0):
        super().__init__()
        self.kernel = tf.Variable(tf.fill([50], value), name="kernel")


def manager_of(directory, kept=3):
    network = Network()
    manager = checkpoints.Manager(tf.train.Checkpoint(classifier=network), directory, kept)
    return manager, network


def write(directory, steps, kept=3):
    manager, network = manager_of(directory, kept)
    manager.recover()
    for step in steps:
        network.kernel.assign(tf.fill([50], float(step)))
        manager.save(step)
    return manager


def recovered(directory):
    """The value that a run continues from, or None."""
    manager, network = manager_of(directory)
    path = manager.recover()
    if path is None:
        return None
    checkpoints.read(manager.checkpoint, path).assert_existing_objects_matched()
    return float(network.kernel[0])


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    directory = tmp_path_factory.mktemp("made") / "run" / "checkpoints"
    write(directory, [1, 2])
    return directory


@pytest.fixture
def folder(made, tmp_path):
    shutil.copytree(made, tmp_path / "run" / "checkpoints")
    return tmp_path / "run" / "checkpoints"


def names(directory):
    return sorted(path.name for path in directory.iterdir())


def of_step(step):
    return [f"ckpt-{step}{suffix}" for suffix in (DATA, INDEX)]


def test_what_is_written_is_verified_and_old_ones_are_removed(tmp_path):
    write(tmp_path, [1, 2, 3, 40], kept=2)
    assert names(tmp_path) == ["checkpoint", *of_step(3), *of_step(40)]
    assert tf.train.latest_checkpoint(str(tmp_path)) == str(tmp_path / "ckpt-40")
    assert recovered(tmp_path) == 40.0
    network = Network()
    restoring.restore(str(tmp_path / "ckpt-3"), classifier=network)
    np.testing.assert_array_equal(network.kernel, np.full(50, 3.0))


@hypothesis.settings(max_examples=150, deadline=None)
@hypothesis.given(data=st.data())
def test_any_byte_that_changes_and_any_cut_is_noticed(made, data):
    name = data.draw(st.sampled_from(of_step(2)))
    whole = (made / name).read_bytes()
    at = data.draw(st.integers(0, len(whole) - 1))
    if data.draw(st.booleans()):
        damaged = whole[:at]
    else:
        damaged = whole[:at] + bytes([whole[at] ^ data.draw(st.integers(1, 255))]) + whole[at + 1 :]
    try:
        (made / name).write_bytes(damaged)
        found = checkpoints.newest(made)
        if name.endswith(INDEX) and len(damaged) == len(whole) and not found.damaged:
            # Bytes that TensorFlow does not read: what it reads is right.
            manager, network = manager_of(made)
            checkpoints.read(manager.checkpoint, found.path).assert_existing_objects_matched()
            np.testing.assert_array_equal(network.kernel, np.full(50, 2.0))
            return
    finally:
        (made / name).write_bytes(whole)
    assert found.path == str(made / "ckpt-1")
    assert list(found.damaged) == [str(made / "ckpt-2")]
    assert found.damaged[str(made / "ckpt-2")]


@pytest.mark.parametrize(
    ("name", "damage", "why"),
    [
        (f"ckpt-2{DATA}", lambda whole: whole[:60] + b"?" + whole[61:], "."),
        (f"ckpt-2{INDEX}", lambda whole: whole[:-1] + b"?", "."),
        (f"ckpt-2{DATA}", lambda whole: whole[:9], "."),
        (f"ckpt-2{INDEX}", lambda whole: b"", "."),
        (f"ckpt-2{DATA}", None, "."),
        (f"ckpt-2{INDEX}", None, "ckpt-2.index is missing"),
    ],
)
def test_the_one_before_is_taken_and_both_are_named(folder, caplog, name, damage, why):
    path = folder / name
    path.write_bytes(damage(path.read_bytes())) if damage else path.unlink()
    # A command that reads the run changes nothing in it.
    before = names(folder)
    assert checkpoints.latest(folder.parent) == str(folder / "ckpt-1")
    assert names(folder) == before
    caplog.clear()
    assert recovered(folder) == 1.0
    (message,) = caplog.messages
    assert re.search(rf"ckpt-2 \(.*{why}.*; continuing from {folder / 'ckpt-1'}\.$", message)
    # The step is made again, and the newest is found: nothing of the damaged one is in its way.
    assert not list(folder.glob("ckpt-2*"))
    write(folder, [2])
    assert recovered(folder) == 2.0


def test_what_is_damaged_is_kept_and_temporary_files_are_removed(folder):
    write(folder, [3])
    (folder / f"ckpt-3{INDEX}").unlink()
    (folder / f"ckpt-2{DATA}").write_bytes(b"")
    for temporary in (folder / "ckpt-4_temp", folder / checkpoints.WRITING):
        temporary.mkdir()
        (temporary / "part-00000-of-00001.data-00000-of-00001").write_bytes(b"half")
    (folder / ".ckpt-4.seal.json.abcdefgh").write_bytes(b"half")
    assert recovered(folder) == 1.0
    assert names(folder) == ["checkpoint", *of_step(1), "damaged"]
    assert names(folder / "damaged") == [*of_step(2), f"ckpt-3{DATA}"]


def test_swapped_checkpoints_are_found(tmp_path):
    position = Position(0, 1, 1)
    checkpoint = tf.train.Checkpoint(position=position)
    manager = checkpoints.Manager(checkpoint, tmp_path, 3)
    for step in (1, 2):
        position.step.assign(step)
        manager.save(step)
    for suffix in (DATA, INDEX):
        shutil.copy(tmp_path / f"ckpt-1{suffix}", tmp_path / f"ckpt-3{suffix}")
    # All of a checkpoint, and one file of two.
    assert checkpoints.newest(tmp_path).path == str(tmp_path / "ckpt-2")
    shutil.copy(tmp_path / f"ckpt-1{DATA}", tmp_path / f"ckpt-2{DATA}")
    found = checkpoints.newest(tmp_path)
    assert found.path == str(tmp_path / "ckpt-1")
    paths = [str(tmp_path / f"ckpt-{step}") for step in (3, 2)]
    assert list(found.damaged) == paths


def test_checkpoints_with_a_seal_of_an_earlier_version_are_read(folder):
    for step in (1, 2):
        (folder / f"ckpt-{step}.seal.json").write_text("{}")
    assert recovered(folder) == 2.0
    (folder / f"ckpt-2{DATA}").write_bytes(b"")
    assert recovered(folder) == 1.0
    assert names(folder / "damaged") == [*of_step(2), "ckpt-2.seal.json"]
    write(folder, [3, 4], kept=2)
    assert names(folder) == ["checkpoint", *of_step(3), *of_step(4), "damaged"]


@pytest.mark.parametrize(
    "content", [b"", b"\xff\x00 no text", b'model_checkpoint_path: "ckpt-9"\n']
)
def test_the_file_that_names_the_newest_may_be_damaged_or_out_of_date(folder, content):
    (folder / checkpoints.STATE).write_bytes(content)
    assert recovered(folder) == 2.0


def test_all_damaged_is_an_error_and_nothing_is_touched(folder):
    for step in (1, 2):
        (folder / f"ckpt-{step}{DATA}").write_bytes(b"")
    before = names(folder)
    for look in (lambda: recovered(folder), lambda: checkpoints.latest(folder.parent)):
        with pytest.raises(ModelError, match=rf"{folder} .*: ckpt-2 \(.*; ckpt-1 \("):
            look()
    assert names(folder) == before


def test_all_removed_but_the_state_is_an_error(folder):
    for path in folder.glob("ckpt-*"):
        path.unlink()
    with pytest.raises(ModelError, match=f"{folder} ") as error:
        recovered(folder)
    assert "ckpt-" not in str(error.value)


@pytest.mark.parametrize("there", [[DATA], [DATA, INDEX], []])
def test_a_run_that_was_killed_in_its_first_checkpoint_begins_again(folder, there):
    whole = there == [DATA, INDEX]
    for path in folder.iterdir():
        if path.name not in [f"ckpt-1{suffix}" for suffix in there]:
            path.unlink()
    (folder / "ckpt-1_temp").mkdir()
    assert recovered(folder) == (1.0 if whole else None)
    assert names(folder) == (of_step(1) if whole else ["damaged"] if there else [])


def test_checkpoints_of_earlier_versions_have_no_seals(tmp_path):
    network = Network()
    checkpoint = tf.train.Checkpoint(classifier=network)
    manager = tf.train.CheckpointManager(checkpoint, str(tmp_path), max_to_keep=3)
    for step in (1, 2):
        network.kernel.assign(tf.fill([50], float(step)))
        manager.save(step)
    assert recovered(tmp_path) == 2.0
    write(tmp_path, [3])
    assert recovered(tmp_path) == 3.0
    (tmp_path / f"ckpt-3{DATA}").write_bytes(b"")
    assert recovered(tmp_path) == 2.0
    (tmp_path / f"ckpt-2{DATA}").write_bytes((tmp_path / f"ckpt-2{DATA}").read_bytes()[:-9])
    assert recovered(tmp_path) == 1.0
    (tmp_path / f"ckpt-1{INDEX}").unlink()
    with pytest.raises(ModelError, match=rf"{tmp_path} .*: ckpt-1 \("):
        recovered(tmp_path)


def test_the_one_that_is_asked_for_is_not_replaced_by_another(folder):
    (folder / f"ckpt-2{DATA}").write_bytes(b"")
    with pytest.raises(ModelError, match=r"/ckpt-2 .*damaged \("):
        restoring.restore(str(folder / "ckpt-2"), classifier=Network())
    with pytest.raises(ModelError, match=r"/ckpt-7 .*missing"):
        restoring.restore(str(folder / "ckpt-7"), classifier=Network())


def test_what_does_not_read_back_is_no_checkpoint(folder, monkeypatch):
    manager, _ = manager_of(folder, kept=2)
    manager.recover()
    fsync = os.fsync

    def corrupting(descriptor):
        fsync(descriptor)
        path = pathlib.Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        if path.name == f"ckpt-3{DATA}":
            path.write_bytes(bytes(path.stat().st_size))

    monkeypatch.setattr(os, "fsync", corrupting)
    with pytest.raises(FileError, match=r"ckpt-3 .*read back.*/ckpt-2\.$"):
        manager.save(3)
    assert names(folder) == ["checkpoint", *of_step(1), *of_step(2)]
    assert recovered(folder) == 2.0


def test_one_that_is_removed_while_it_is_read(folder, monkeypatch):
    """Another process trains: it writes newer ones, and removes the one that was found."""
    restore = restoring.restore

    def slow(path, **objects):
        if path.endswith("-2"):
            write(folder, [3, 4], kept=2)
        restore(path, **objects)

    monkeypatch.setattr(restoring, "restore", slow)
    network = Network()
    path = restoring.restore_latest(folder.parent, classifier=network)
    assert path == str(folder / "ckpt-4")
    assert float(network.kernel[0]) == 4.0
