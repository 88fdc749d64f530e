"""The run: resuming after a kill, SIGTERM, what it writes, and mistakes."""

import json
import pathlib
import re
import resource
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf

from t2aux import config, files
from t2aux.training import train, training_loop
from tests.cli_helpers import assert_one_sentence, environment, fork_server, t2aux

# Small, with everything random in it that there is: both auxiliary losses, scheduled sampling,
# DropConnect, two phases.
SETTINGS = [
    "--gin_file=quickstart",
    "--gin_param=train.auxiliary_losses = [@Reconstruction, @Prediction]",
    "--gin_param=PRETRAIN_EPOCHS = 2",
    "--gin_param=JOINT_EPOCHS = 3",
    "--gin_param=dataset.max_examples = 200",
    "--gin_param=Classifier.hidden_size = 8",
    "--gin_param=Classifier.projection_size = 4",
    "--gin_param=RunConfig.log_every = 2",
    "--gin_param=train.evaluate_every = 1",
    "--gin_param=RunConfig.steps_per_call = 1",
    "--gin_param=RunConfig.checkpoint_minutes = 0",
    "--gin_param=BATCH_SIZE = 32",
]
STEPS = 5 * 7


def arguments(model_dir, *more):
    return ["train", f"--model_dir={model_dir}", *SETTINGS, *more]


# From a step on, each checkpoint is followed by a pause until SIGTERM comes: on no machine is the
# run over before it is stopped.
BRAKED = """
import sys, time
from t2aux.training import training_loop
save, step = training_loop.TrainingLoop._save, int(sys.argv.pop(1))
def save_and_wait(run):
    save(run)
    end = time.monotonic() + 300
    while run._position.step >= step and not run._stop.requested and time.monotonic() < end:
        time.sleep(0.01)
training_loop.TrainingLoop._save = save_and_wait
sys.argv[0] = "t2aux"
from t2aux.cli import main
main.main()
"""


def weights(model_dir):
    reader = tf.train.load_checkpoint(str(model_dir / "checkpoints"))
    return {
        name: reader.get_tensor(name)
        for name in reader.get_variable_to_shape_map()
        if name.startswith(("classifier/", "auxiliary/", "optimizer/", "position/"))
    }


def metrics(model_dir):
    return [json.loads(line) for line in (model_dir / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def quiet_run(tmp_path_factory):
    model_dir = tmp_path_factory.mktemp("runs") / "quiet"
    done = t2aux(*arguments(model_dir))
    return model_dir, done.stderr


def start_and_wait_for_step(model_dir, step, *more):
    """A run that has come to a step, and makes at most 8 more steps until it gets a signal."""
    log = model_dir.with_name(f"{model_dir.name}.log")
    process = fork_server().start(log, step + 8, *arguments(model_dir, *more), code=BRAKED)
    deadline = time.monotonic() + 300
    state = model_dir / "checkpoints" / "checkpoint"
    while time.monotonic() < deadline and process.poll() is None:
        found = tf.train.latest_checkpoint(str(state.parent)) if state.exists() else None
        if found and int(found.rsplit("-", 1)[1]) >= step:
            return process
        time.sleep(0.01)
    process.kill()
    raise AssertionError(process.stderr)


def assert_same_weights(got, want):
    got, want = weights(got), weights(want)
    assert got.keys() == want.keys()
    for name, value in want.items():
        np.testing.assert_array_equal(got[name], value, err_msg=name)


def test_a_run_explains_itself(quiet_run):
    model_dir, log = quiet_run
    assert f"step {STEPS}/{STEPS}" in log
    assert "left" in log
    assert "test accuracy" in (model_dir / "train.log").read_text()
    assert list((model_dir / "tensorboard").glob("events.out.tfevents.*"))
    assert "BATCH_SIZE = 32" in (model_dir / "config.gin").read_text()
    assert "Classifier.dropconnect = 0.5" in (model_dir / "operative_config.gin").read_text()
    lines = metrics(model_dir)
    assert [line["step"] for line in lines if line["split"] == "test"] == [21, 28, 35]
    pretrain = [line for line in lines if line.get("phase") == "pretrain"]
    assert all("supervised_loss" not in line for line in pretrain)
    for line in lines:
        if line["split"] == "train":
            assert np.isfinite([line["loss"], line["gradient_norm"], line["learning_rate"]]).all()
            assert {"reconstruction_loss", "prediction_loss"} <= line.keys()


# In pretraining, across the phases' border, in the joint phase; the last one's newest checkpoint is
# damaged, too.
@pytest.mark.parametrize(
    ("step", "damaged"),
    [*(pytest.param(step, False, marks=pytest.mark.long) for step in (3, 13, 24)), (24, True)],
)
def test_a_killed_run_ends_with_the_same_weights(quiet_run, tmp_path, step, damaged):
    run = tmp_path / "run"
    process = start_and_wait_for_step(run, step)
    process.kill()
    newest = pathlib.Path(tf.train.latest_checkpoint(str(run / "checkpoints")) + ".index")
    before = int(newest.stem.rsplit("-", 1)[1])
    if damaged:
        newest.write_bytes(newest.read_bytes()[:100])
        before -= 1
    again = t2aux("train", f"--model_dir={run}")
    assert f"ontinuing from {run / 'checkpoints'}/ckpt-{before}" in again.stderr
    assert (f"{newest.stem} (" in again.stderr) == damaged
    assert_same_weights(run, quiet_run[0])
    assert [(line["split"], line["step"]) for line in metrics(run)] == [
        (line["split"], line["step"]) for line in metrics(quiet_run[0])
    ]


def test_a_slow_run_says_where_it_is_between_lines_of_metrics(tmp_path, monkeypatch):
    lines = []
    monkeypatch.setattr(training_loop, "_QUIET", 0.0)
    monkeypatch.setattr(
        training_loop.logging, "info", lambda text, *more: lines.append(text % more)
    )
    settings = ["dataset.max_examples = 20", "BATCH_SIZE = 5", "JOINT_EPOCHS = 1"]
    settings += [
        "Classifier.hidden_size = 4",
        "RunConfig.log_every = 3",
        "RunConfig.steps_per_call = 1",
    ]
    assert train.train(str(tmp_path), config.parse(["quickstart_lstm"], settings))
    log = "\n".join(lines)
    found = re.findall(r"joint  epoch 1/1  step (\d)/4  (loss)?.* steps/s  \S+ left", log)
    assert found == [("1", ""), ("2", ""), ("3", "loss"), ("4", "loss")]
    assert re.search(r"sequences: 5 of 20, \S+ a second, \S+ left", log)
    assert [entry["step"] for entry in metrics(tmp_path)] == [3, 4, 4]


@pytest.mark.long
def test_sigterm_saves_and_says_start_again(quiet_run, tmp_path):
    process = start_and_wait_for_step(tmp_path / "run", 4)
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 75, process.stderr
    assert "Traceback" not in process.stderr
    stopped = int(tf.train.latest_checkpoint(str(tmp_path / "run/checkpoints")).rsplit("-", 1)[1])
    assert 4 <= stopped < STEPS
    # No --gin_file: it continues as it was configured.
    done = t2aux("train", f"--model_dir={tmp_path / 'run'}")
    assert f"step {stopped}." in done.stderr
    assert_same_weights(tmp_path / "run", quiet_run[0])
    again = t2aux("train", f"--model_dir={tmp_path / 'run'}")
    assert "done already" in again.stderr


def test_a_run_of_other_settings_is_refused(quiet_run):
    model_dir, _ = quiet_run
    before = (model_dir / "config.gin").read_text()
    for setting, part in (
        ("Classifier.hidden_size = 9", "Classifier.hidden_size: 8 -> 9"),
        (
            "train.auxiliary_losses = [@Reconstruction]",
            "train.auxiliary_losses: [@Reconstruction, @Prediction] -> [@Reconstruction]",
        ),
        ("LEARNING_RATE = 0.1", "--allow_changes"),
        ("Classifier.core = @GRU", "Classifier.core: @LSTM -> @GRU"),
    ):
        done = t2aux(*arguments(model_dir, f"--gin_param={setting}"), check=False)
        assert_one_sentence(done, part)
    assert (model_dir / "config.gin").read_text() == before


def test_a_directory_that_another_process_trains_in_is_refused(quiet_run):
    model_dir, _ = quiet_run
    with files.locked(model_dir):
        done = t2aux(*arguments(model_dir), check=False)
    assert_one_sentence(done, "process", f" {model_dir}: ")


def test_mistakes_are_one_sentence_each(tmp_path):
    run = f"--model_dir={tmp_path / 'run'}"
    (tmp_path / "file").write_text("")
    for arguments, parts in (
        ([run], ["--gin_file"]),
        ([run, "--gin_file=quikstart"], ["'quikstart'", " quickstart?"]),
        ([run, "--gin_fil=quickstart"], ["--gin_fil: ", " --gin_file?"]),
        (["--gin_file=quickstart"], ["--model_dir"]),
        ([run, "--gin_file=quickstart", "--gin_param=ANCHRS = 2"], ["ANCHRS", " ANCHORS?"]),
        ([run, *SETTINGS, "--gin_param=SEGMENT_LENGTH = 64"], [" 65 ", " 64: "]),
        ([run, *SETTINGS, "--gin_param=BATCH_SIZE = 0"], ["train.batch_size", " 1, ", " 0."]),
        ([f"--model_dir={tmp_path / 'file'}", *SETTINGS], [f" {tmp_path / 'file'}: "]),
    ):
        assert_one_sentence(t2aux("train", *arguments, check=False), *parts)
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_sequences_too_short_for_a_segment(tmp_path):
    inputs, labels = np.random.default_rng(0).random((8, 5, 2)), np.arange(8) % 2
    for split in ("train", "test"):
        np.savez(tmp_path / f"{split}.npz", inputs=inputs, labels=labels, lengths=2 + labels * 3)
    settings = [
        "--gin_file=base",
        "--gin_file=models/r_lstm",
        "--gin_file=datasets/npz",
        f"--data_dir={tmp_path}",
        "--gin_param=PRETRAIN_EPOCHS = 1",
        "--gin_param=JOINT_EPOCHS = 0",
        f"--model_dir={tmp_path / 'run'}",
    ]
    done = t2aux("train", *settings, "--gin_param=SEGMENT_LENGTH = 5", check=False)
    assert_one_sentence(done, " 6 steps", " npz has 5: ", " 2")
    assert not (tmp_path / "run" / "checkpoints").exists()
    # The other half of the sequences is long enough for this one.
    done = t2aux("train", *settings, "--gin_param=SEGMENT_LENGTH = 4")
    assert "4 of the 8 training sequences have fewer than the 5 steps" in done.stderr
    assert metrics(tmp_path / "run")[0]["reconstruction_loss"] > 0


@pytest.mark.long
def test_a_full_disk_is_one_sentence(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "t2aux", *arguments(tmp_path / "run")],
        env=environment(),
        capture_output=True,
        text=True,
        # No file may grow beyond this: like a full disk, it comes in the midst of writing.
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)),
    )
    folder = tmp_path / "run" / "checkpoints"
    assert_one_sentence(done, f" {folder} (File too large)")
    assert not list(folder.iterdir())
