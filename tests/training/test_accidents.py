"""Accidents, with real processes: SIGTERM at any time, a second process, damage, a full disk."""

import contextlib
import errno
import fcntl
import json
import os
import pathlib
import signal
import subprocess

import pytest

from t2aux import files
from t2aux.errors import FileError
from tests.fork_server import Server

SETTINGS = [
    "--gin_file=quickstart_lstm",
    "--gin_param=dataset.max_examples = 100",
    "--gin_param=Classifier.hidden_size = 4",
    "--gin_param=Classifier.projection_size = 2",
    "--gin_param=RunConfig.checkpoint_minutes = 0",
    "--gin_param=RunConfig.steps_per_call = 1",
    "--gin_param=RunConfig.log_every = 10",
    "--gin_param=BATCH_SIZE = 10",
]
LONG = [*SETTINGS, "--gin_param=JOINT_EPOCHS = 100000"]


@pytest.fixture(scope="module")
def server():
    with Server(TF_NUM_INTRAOP_THREADS="1") as started:
        yield started


@pytest.fixture(scope="module")
def trained(server, tmp_path_factory):
    model_dir = tmp_path_factory.mktemp("accidents") / "run"
    done = server.run(
        model_dir.parent / "log",
        *("train", f"--model_dir={model_dir}", *SETTINGS, "--gin_param=JOINT_EPOCHS = 2"),
    )
    assert done.returncode == 0, done.stderr
    return model_dir


@pytest.fixture
def copied(trained, tmp_path):
    subprocess.run(["cp", "-r", trained, tmp_path / "run"], check=True)
    return tmp_path / "run"


def saved(model_dir):
    return sorted(
        int(path.name.split("-")[1].split(".")[0])
        for path in (model_dir / "checkpoints").glob("*.index")
    )


def assert_one_error(done, *parts):
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("t2aux: error: ")]
    assert len(errors) == 1, done.stderr
    for part in parts:
        assert part in errors[0], errors[0]


@pytest.mark.long
def test_a_second_process_is_refused_and_reading_is_not(server, tmp_path):
    train = ["train", f"--model_dir={tmp_path / 'run'}", *LONG]
    first = server.start(tmp_path / "first", *train)
    first.wait_until(lambda: saved(tmp_path / "run"))
    second = server.run(tmp_path / "second", *train)
    assert_one_error(second, "process", f" {tmp_path / 'run'}: ")
    evaluated = server.run(tmp_path / "evaluate", "evaluate", f"--model_dir={tmp_path / 'run'}")
    assert evaluated.returncode == 0, evaluated.stderr
    assert first.poll() is None, first.stderr
    first.kill()
    # The lock's file is still there; that the process is not is what counts.
    assert (tmp_path / "run" / ".lock").exists()
    third = server.start(tmp_path / "third", *train)
    third.wait_until(lambda: "Continuing from" in third.stderr)
    # In TensorFlow, at a step's border: saved.
    third.wait_until(lambda: "steps/s" in third.stderr)
    third.send_signal(signal.SIGTERM)
    third.send_signal(signal.SIGTERM)
    assert third.wait() == 75, third.stderr
    assert f"the run is saved at step {saved(tmp_path / 'run')[-1]}." in third.stderr
    assert "Traceback" not in third.stderr


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 75), (signal.SIGHUP, 75), (signal.SIGINT, 130)]
)
def test_a_signal_before_there_is_anything_to_save(server, tmp_path, number, status):
    """While the data is read: a named pipe in its place never gives any."""
    os.mkfifo(tmp_path / "train.csv")
    process = server.start(
        tmp_path / "log",
        *("train", f"--model_dir={tmp_path / 'run'}", "--gin_file=base"),
        *("--gin_file=models/lstm", "--gin_file=datasets/csv", f"--data_dir={tmp_path}"),
        *("--gin_param=PRETRAIN_EPOCHS = 0", "--gin_param=JOINT_EPOCHS = 1"),
    )
    # Opening it succeeds when the other end is open, and then it waits.
    with (tmp_path / "train.csv").open("wb"):
        process.send_signal(number)
        assert process.wait() == status, process.stderr
    assert "nothing to save" in process.stderr
    assert "Traceback" not in process.stderr
    assert not (tmp_path / "run").exists()


def test_ctrl_c_saves_and_so_does_a_terminal_that_closes(server, tmp_path):
    small = ["--gin_param=digits.side = 2", "--gin_param=SUPERVISED_BPTT = 2"]
    train = ["train", f"--model_dir={tmp_path / 'run'}", *LONG, *small]
    for number, status, name in ((signal.SIGINT, 130, "Ctrl-C"), (signal.SIGHUP, 75, "SIGHUP")):
        process = server.start(tmp_path / "log", *train)
        process.wait_until(lambda: "steps/s" in process.stderr)  # noqa: B023
        # Once more while it saves, and when it is about to end.
        process.send_signal(number)
        process.send_signal(number)
        assert process.wait() == status, process.stderr
        step = saved(tmp_path / "run")[-1]
        assert f"Stopped by {name}; the run is saved at step {step}." in process.stderr
        assert "same command" in process.stderr
        assert str(tmp_path / "run") in process.stderr
        assert "Traceback" not in process.stderr
        assert not list((tmp_path / "run" / "checkpoints").glob("*temp*"))
    assert "Continuing from" in process.stderr


def test_sigterm_in_an_evaluation(server, copied):
    """It is made when the run is started again, and stands in metrics.jsonl once."""
    lines = (copied / "metrics.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["split"] == "test"
    whole = [json.loads(line) for line in lines]
    (copied / "metrics.jsonl").write_text("\n".join(lines[:-1]) + "\n")
    for _ in range(2):
        done = server.run(copied.parent / "log", "train", f"--model_dir={copied}")
        assert done.returncode == 0, done.stderr
        now = [json.loads(x) for x in (copied / "metrics.jsonl").read_text().splitlines()]
        assert now == whole


def test_what_reads_a_run_passes_over_damage_too(server, copied):
    newest = copied / "checkpoints" / f"ckpt-{saved(copied)[-1]}"
    before = copied / "checkpoints" / f"ckpt-{saved(copied)[-2]}"
    pathlib.Path(f"{newest}.data-00000-of-00001").write_bytes(b"")
    done = server.run(copied.parent / "log", "evaluate", f"--model_dir={copied}")
    assert done.returncode == 0, done.stderr
    assert f"{newest.name} (" in done.stderr
    assert f"continuing from {before}" in done.stderr
    named = server.run(
        copied.parent / "log", "evaluate", f"--model_dir={copied}", f"--checkpoint={newest.name}"
    )
    assert_one_error(named, str(newest), "damaged")
    for step in saved(copied):
        path = copied / "checkpoints" / f"ckpt-{step}.data-00000-of-00001"
        path.write_bytes(path.read_bytes()[:-1])
    for command in ("evaluate", "train"):
        done = server.run(copied.parent / "log", command, f"--model_dir={copied}")
        assert_one_error(done, f" {copied / 'checkpoints'} ", f"{newest.name} (")


@contextlib.contextmanager
def small_disk(path, kilobytes):
    """A file system of its own, or skips the test."""
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(path)]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("A file system can't be mounted here.")
    try:
        yield path
    finally:
        subprocess.run(["umount", str(path)], check=True)


def test_a_disk_that_fills_up(server, trained, tmp_path):
    """The run continues where it stopped, once there is space."""
    with small_disk(tmp_path / "disk", 160) as disk:
        train = ["train", f"--model_dir={disk / 'run'}", *LONG]
        done = server.run(tmp_path / "log", *train)
        assert_one_error(done, "No space left on device")
        last = saved(disk / "run")[-1]
        left = [path.name for path in (disk / "run" / "checkpoints").iterdir()]
        assert sorted(left) == sorted(
            ["checkpoint"]
            + [
                f"ckpt-{step}{suffix}"
                for step in saved(disk / "run")
                for suffix in (".data-00000-of-00001", ".index")
            ]
        )
        for line in (disk / "run" / "metrics.jsonl").read_text().splitlines():
            json.loads(line)
        for path in (disk / "run" / "tensorboard").iterdir():
            path.unlink()
        again = server.start(tmp_path / "log", *train)
        again.wait_until(lambda: f"ckpt-{last}, step {last}." in again.stderr)
        again.kill()


@pytest.mark.parametrize(("minutes", "what"), [(0, "checkpoints"), (60, "tensorboard")])
def test_a_file_that_can_not_grow(server, tmp_path, minutes, what):
    run = tmp_path / "run"
    more = [
        f"--gin_param=RunConfig.checkpoint_minutes = {minutes}",
        "--gin_param=RunConfig.log_every = 1",
    ]
    done = server.run(tmp_path / "log", "train", f"--model_dir={run}", *LONG, *more, limit=20_000)
    assert_one_error(done, f" {run / what} ", "File too large")
    for line in (run / "metrics.jsonl").read_text().splitlines():
        json.loads(line)
    assert not [path for path in run.rglob(".*") if path.name != ".lock"]
    assert not list(run.glob("checkpoints/*"))


@pytest.mark.parametrize("name", ["metrics.jsonl", "train.log"])
def test_a_log_that_can_not_grow(server, copied, name):
    path = copied / name
    lines = path.read_text().splitlines()
    path.write_text(lines[0] + "\n" + " " * 30_000 + "\n")
    if name == "metrics.jsonl":
        path.write_text(lines[0][:-1] + " " * 30_000 + "}\n")
    before = path.read_text()
    done = server.run(
        *(copied.parent / "log", "train", f"--model_dir={copied}"),
        *("--gin_param=train.evaluate_every = 1", "--gin_param=JOINT_EPOCHS = 3"),
        "--allow_changes",
        limit=len(before) + 10,
    )
    assert_one_error(done, f" {path}: File too large")
    assert path.read_text() == before


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.EAGAIN, "process"),
        (errno.EACCES, "process"),
        (errno.ENOLCK, r"/\.lock: No locks available"),
        (errno.EOPNOTSUPP, r"/\.lock: Operation not supported"),
    ],
)
def test_a_lock_that_can_not_be_had_says_why(tmp_path, monkeypatch, number, message):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(FileError, match=message), files.locked(tmp_path):
        pass


def test_lines_are_written_whole_or_not(tmp_path):
    with pytest.raises(FileError, match=str(tmp_path / "no" / "file")):
        files.Lines(tmp_path / "no" / "file")
    lines = files.Lines(tmp_path / "file")
    lines.write("one\n")
    lines.close()
    lines.close()
    lines = files.Lines(tmp_path / "file")
    lines.write("two\n")
    lines.close()
    assert (tmp_path / "file").read_text() == "one\ntwo\n"


def test_what_a_killed_process_left_is_cleared(tmp_path):
    (tmp_path / ".config.gin.abcd_123").write_text("half")
    (tmp_path / ".config.gin.orig").write_text("the user's")
    files.clear_temporary(tmp_path / "config.gin")
    assert [path.name for path in tmp_path.iterdir()] == [".config.gin.orig"]
