"""Processes that are killed at random: nothing incomplete is ever used."""

import collections
import json
import pathlib
import random
import signal
import time

import numpy as np
import pytest
import tensorflow as tf

from t2aux.training import checkpoints
from t2aux_ondevice import litert
from tests.fork_server import Server

KILLS, EXPORT_KILLS = 30, 8
SETTINGS = [
    "--gin_file=quickstart_lstm",
    "--gin_param=dataset.max_examples = 100",
    "--gin_param=Classifier.hidden_size = 4",
    "--gin_param=Classifier.projection_size = 2",
    "--gin_param=BATCH_SIZE = 10",
    "--gin_param=JOINT_EPOCHS = 60",
    "--gin_param=RunConfig.checkpoint_minutes = 0",
    "--gin_param=RunConfig.steps_per_call = 1",
    "--gin_param=RunConfig.log_every = 10",
    "--gin_param=train.evaluate_every = 5",
]
STEPS = 600


@pytest.fixture(scope="module")
def server():
    with Server(TF_NUM_INTRAOP_THREADS="1") as started:
        yield started


@pytest.fixture(scope="module")
def quiet(server, tmp_path_factory):
    folder = tmp_path_factory.mktemp("faults")
    done = server.run(folder / "log", "train", f"--model_dir={folder / 'quiet'}", *SETTINGS)
    assert done.returncode == 0, done.stderr
    return folder / "quiet"


def weights(model_dir):
    reader = tf.train.load_checkpoint(str(model_dir / "checkpoints" / f"ckpt-{STEPS}"))
    return {n: reader.get_tensor(n) for n in reader.get_variable_to_shape_map() if "/" in n}


def rows(model_dir):
    lines = (model_dir / "metrics.jsonl").read_text().splitlines()
    return [(json.loads(line)["split"], json.loads(line)["step"]) for line in lines]


def unfinished(folder):
    """Whether a checkpoint is just being written."""
    return (folder / checkpoints.WRITING).exists()


def wait(process, condition, seconds):
    """Until a condition holds, the process has ended, or so many seconds are over."""
    until = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < until:
        if condition():
            return True
    return False


def freeze_in_writing(process, folder):
    """Stops the process in the midst of writing a checkpoint. Returns whether it came to that."""
    until = time.monotonic() + 30
    while time.monotonic() < until and wait(process, lambda: unfinished(folder), 30):
        process.send_signal(signal.SIGSTOP)
        if wait(process, lambda: is_stopped(process), 30) and unfinished(folder):
            return True
        process.send_signal(signal.SIGCONT)
    return False


def is_stopped(process):
    try:
        stats = [p.read_text() for p in pathlib.Path(f"/proc/{process.pid}/task").glob("*/stat")]
    except OSError:  # A thread has just ended.
        return False
    return {stat.rpartition(")")[2].split()[0] for stat in stats} == {"T"}


@pytest.mark.long
def test_30_random_kills_in_training(server, quiet, tmp_path):
    chance = random.Random(6)
    checkpoints = tmp_path / "run" / "checkpoints"
    counts = collections.Counter()
    command = ["train", f"--model_dir={tmp_path / 'run'}", *SETTINGS]

    def newest():
        found = checkpoints.glob("ckpt-*.index")
        return max((int(path.name[5:].split(".")[0]) for path in found), default=0)

    for number in range(KILLS):
        before, frozen = newest(), False
        # Not only by time: on a fast machine the run would be over before the last kill.
        enough = before + chance.randrange(1, 12)
        process = server.start(tmp_path / "log", *command)
        kind = ("start", "training", "writing")[number % 3]
        if kind == "start":
            wait(process, lambda enough=enough: newest() >= enough, chance.uniform(0, 4))
        else:
            wait(process, lambda before=before: newest() > before, 120)
            wait(process, lambda enough=enough: newest() >= enough, chance.uniform(0, 0.4))
        if kind == "writing":
            frozen = freeze_in_writing(process, checkpoints)
            counts["seen in writing"] += frozen
        assert process.poll() is None, process.stderr
        sent = chance.choice([signal.SIGKILL, signal.SIGTERM])
        process.send_signal(sent)
        process.send_signal(signal.SIGCONT)
        status = process.wait()
        allowed = [75 if sent == signal.SIGTERM else -9]
        if kind == "start":
            allowed.append(-sent)  # The command had not begun.
        assert status in allowed, process.stderr
        assert "Traceback" not in process.stderr, process.stderr
        counts[f"{sent.name} {kind}"] += 1
        counts["left unfinished"] += unfinished(checkpoints)
        assert unfinished(checkpoints) or not (frozen and sent == signal.SIGKILL)
    counts["step after the kills"] = newest()
    done = server.run(tmp_path / "log", *command)
    print(dict(counts))
    assert done.returncode == 0, done.stderr
    assert counts["seen in writing"] >= KILLS // 3 - 2
    assert counts["left unfinished"]
    got, want = weights(tmp_path / "run"), weights(quiet)
    assert got.keys() == want.keys()
    for name, value in want.items():
        np.testing.assert_array_equal(got[name], value, err_msg=name)
    assert rows(tmp_path / "run") == rows(quiet)


def assert_whole(version):
    """Asserts that a version has all of its files, as it says."""
    described = json.loads((version / litert.METADATA).read_text())
    assert described["files"]
    for name, digest in described["files"].items():
        assert litert.digest((version / name).read_bytes()) == digest, name
    assert json.loads((version / "parity.json").read_text())
    assert (version / "README.md").read_text().strip()


@pytest.mark.long
def test_random_kills_in_export(server, quiet, tmp_path):
    chance = random.Random(7)
    base = tmp_path / "exports"
    command = ["export", f"--model_dir={quiet}", f"--export_dir={base}", "--parity_examples=10"]
    command += ["--serving_batch_sizes=1"]
    began = time.monotonic()
    assert server.run(tmp_path / "log", *command).returncode == 0
    quiet_seconds = time.monotonic() - began
    left = 0
    for number in range(EXPORT_KILLS):
        process = server.start(tmp_path / "log", *command)
        if number % 4 == 3:
            # The last file: the version is about to get its name.
            wait(process, lambda: list(base.glob(".export-*/README.md")), 120)
        else:
            wait(process, lambda: False, chance.uniform(0, quiet_seconds))
        process.send_signal(chance.choice([signal.SIGKILL, signal.SIGTERM]))
        assert process.wait() in (0, -9, 128 + signal.SIGTERM, -signal.SIGTERM), process.stderr
        left += bool(list(base.glob(".export-*")))
        for version in base.iterdir():
            if version.name.isdecimal():
                assert_whole(version)
    assert left
    done = server.run(tmp_path / "log", *command)
    assert done.returncode == 0, done.stderr
    assert all(path.name.isdecimal() for path in base.iterdir()), list(base.iterdir())
    print({"versions": len(list(base.iterdir())), "left something": left})
