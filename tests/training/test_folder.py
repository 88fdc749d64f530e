"""A run that fails before its first step leaves the disk as it was."""

import fcntl
import os
import signal

import pytest

from t2aux import config, files
from t2aux.errors import DataError, FileError, ModelError, SettingError
from t2aux.training import folder, stopping, train, training_loop

SETTINGS = ["dataset.max_examples = 20", "BATCH_SIZE = 10", "JOINT_EPOCHS = 1"]
SETTINGS += ["Classifier.hidden_size = 4", "digits.side = 2", "SUPERVISED_BPTT = 2"]


def fail(model_dir, *settings, kind, match):
    # The digits' side does nothing to other data.
    own = [s for s in SETTINGS if "train.data = @csv()" not in settings or "digits" not in s]
    with pytest.raises(kind, match=match):
        train.train(str(model_dir), config.parse(["quickstart_lstm"], [*own, *settings]))


@pytest.mark.parametrize(
    ("settings", "kind", "match"),
    [
        (["train.data = @csv()", "dataset.data_dir = '/nowhere'"], FileError, "/nowhere"),
        (["dataset.splits = ('a', 'b')"], SettingError, "splits"),
        (["Classifier.dropconnect = 7.0"], SettingError, r"dropconnect .* 7\.0"),
        (
            ["train.auxiliary_losses = [@Reconstruction]", "Reconstruction.length = 900"],
            SettingError,
            r"Reconstruction\.length .* 901 ",
        ),
    ],
)
def test_no_folder_is_left_of_what_was_made(tmp_path, settings, kind, match):
    (tmp_path / "mine").mkdir()
    fail(tmp_path / "mine" / "new" / "run", *settings, kind=kind, match=match)
    assert not list((tmp_path / "mine").iterdir())
    fail(tmp_path / "mine", *settings, kind=kind, match=match)
    assert not list((tmp_path / "mine").iterdir())


def break_before_the_first_step(monkeypatch):
    def broken(*_):
        raise DataError("The first batch can't be read.")

    monkeypatch.setattr(training_loop.TrainingLoop, "_epoch", broken)


def test_nor_of_what_was_written_before_the_first_batch(tmp_path, monkeypatch):
    break_before_the_first_step(monkeypatch)
    fail(tmp_path / "new" / "run", kind=DataError, match="first batch")
    assert not (tmp_path / "new").exists()
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "notes.txt").write_text("mine")
    (mine / "train.log").write_text("mine, too")
    fail(mine, kind=DataError, match="first batch")
    assert sorted(path.name for path in mine.iterdir()) == ["notes.txt", "train.log"]


def test_what_was_trained_is_kept(tmp_path, monkeypatch):
    def broken(*_):
        raise FileError("The disk is full.")

    monkeypatch.setattr(training_loop.TrainingLoop, "_save", broken)
    fail(tmp_path / "new" / "run", kind=FileError, match="disk is full")
    assert (tmp_path / "new" / "run" / "metrics.jsonl").read_text()
    # A run that has trained is not taken away by a later mistake.
    monkeypatch.undo()
    assert train.train(str(tmp_path / "run"), config.parse(["quickstart_lstm"], SETTINGS))
    before = sorted(tmp_path.joinpath("run").iterdir())
    fail(tmp_path / "run", "SEED = 1", kind=ModelError, match=r"train\.seed .*0 -> 1")
    assert sorted(tmp_path.joinpath("run").iterdir()) == before


def test_the_lock_of_a_folder_that_was_removed_does_not_count(tmp_path, monkeypatch):
    flock = fcntl.flock

    def remove_first(file, how):
        (tmp_path / ".lock").unlink()
        flock(file, how)

    monkeypatch.setattr(fcntl, "flock", remove_first)
    with pytest.raises(FileError, match=f"process .*{tmp_path}: "), files.locked(tmp_path):
        pass


def test_a_folder_that_another_process_has_is_left(tmp_path):
    (tmp_path / "run").mkdir()
    with (
        files.locked(tmp_path / "run"),
        pytest.raises(FileError, match=f"process .*{tmp_path / 'run'}: "),
        folder.claimed(tmp_path / "run", lambda: False),
    ):
        pass
    assert (tmp_path / "run" / ".lock").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_just_before_the_first_step(tmp_path, monkeypatch, number):
    """Nothing is said to be saved, and no folder is left."""
    text = config.parse(["quickstart_lstm"], SETTINGS)
    handler = signal.signal(number, signal.SIG_DFL)
    monkeypatch.setattr(training_loop.data, "log_summary", lambda _: os.kill(os.getpid(), number))
    try:
        with pytest.raises(stopping.Stopped) as stopped:
            train.train(str(tmp_path / "run"), text)
    finally:
        signal.signal(number, handler)
    assert stopped.value.signal == number
    assert not (tmp_path / "run").exists()
