"""Workers on loopback, as real processes: they train as one, and stop together."""

import json
import os
import random
import re
import signal
import socket
import time

import numpy as np
import pytest
import tensorflow as tf

from t2aux import files
from t2aux.training import best
from tests.cli_helpers import t2aux
from tests.fork_server import Server
from tests.training import test_training_loop

# Texts of various lengths, both auxiliary losses with all that is random in them, and 41 examples
# in batches of 8: of the last batch of an epoch, the second worker has none.
EXAMPLES, BATCH, EPOCHS = 41, 8, 3
# Others, the same in every worker, are its validation set.
HELD_OUT = 10
STEPS = EPOCHS * -(-EXAMPLES // BATCH)
SETTINGS = [
    "--gin_file=base",
    "--gin_file=datasets/csv",
    "--gin_file=models/rp_lstm",
    "--gin_param=train.phases = [@joint/Phase()]",
    f"--gin_param=JOINT_EPOCHS = {EPOCHS}",
    "--gin_param=PRETRAIN_EPOCHS = 0",
    f"--gin_param=BATCH_SIZE = {BATCH}",
    "--gin_param=SEGMENT_LENGTH = 6",
    "--gin_param=ANCHORS = 2",
    "--gin_param=SUPERVISED_BPTT = 9",
    "--gin_param=AUXILIARY_BPTT = 5",
    "--gin_param=Classifier.hidden_size = 8",
    "--gin_param=Classifier.projection_size = 4",
    "--gin_param=Classifier.head_size = 8",
    "--gin_param=Reconstruction.head_size = 8",
    "--gin_param=Prediction.head_size = 8",
    "--gin_param=dataset.bucket_batches = 2",
    # Unlike RMSprop it would show a gradient that was summed twice.
    "--gin_param=train.optimizer = @SGD",
    "--gin_param=SGD.momentum = 0.9",
    "--gin_param=LEARNING_RATE = 0.1",
    "--gin_param=RunConfig.log_every = 1",
    "--gin_param=RunConfig.steps_per_call = 2",
    "--gin_param=train.evaluate_every = 2",
    "--gin_param=train.validation = 0.2",
    "--gin_param=RunConfig.checkpoint_minutes = 0",
    "--gin_param=RunConfig.checkpoints_kept = 100",
]
WORKERS = "--gin_file=training/multi_worker"


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("texts")
    numbers = np.random.default_rng(0)
    for split, count in (("train", EXAMPLES + HELD_OUT), ("test", 19)):
        rows = []
        for i in range(count):
            text = "".join(numbers.choice(list("abcd efg"), numbers.integers(8, 28)))
            rows.append(f'"{i % 3}","{text.strip()}."\n')
        (folder / f"{split}.csv").write_text("".join(rows))
    return folder


def free_ports(count):
    """Free ports, from below those that the system gives out by itself."""
    found = []
    while len(found) < count:
        port = random.SystemRandom().randrange(12_000, 32_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in found:
            found.append(port)
    return found


def tf_config(ports, index):
    cluster = {"worker": [f"localhost:{port}" for port in ports]}
    return json.dumps({"cluster": cluster, "task": {"type": "worker", "index": index}})


class Workers:
    """Two workers that train; what they say goes to files. The second's directory is its own."""

    def __init__(self, folder, texts, *more, count=2, settings=SETTINGS):
        self.model_dir, self.folder = folder / "run", folder
        folder.mkdir(exist_ok=True)
        ports = free_ports(2)
        self.names = [f"localhost:{port}" for port in ports]
        self.processes = []
        more = [*settings, WORKERS, *([f"--data_dir={texts}"] if texts else []), *more]
        for index in range(count):
            place = self.model_dir if index == 0 else folder / "elsewhere"
            server = Server(TF_CONFIG=tf_config(ports, index), TF_NUM_INTRAOP_THREADS="1")
            command = ["train", f"--model_dir={place}", *more]
            self.processes.append(server.start(folder / f"{index}.log", *command))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self.processes:
            process.kill()
            process.wait()
        # A worker that is not the chief writes nothing.
        assert not (self.folder / "elsewhere").exists()

    def log(self, index):
        return (self.folder / f"{index}.log").read_text()

    def wait(self, index, timeout=240):
        return self.processes[index].wait(timeout)

    def wait_for_step(self, step):
        """Until the chief has saved a checkpoint of at least this step. Returns its step."""
        deadline = time.monotonic() + 240
        while time.monotonic() < deadline and self.processes[0].poll() is None:
            saved = last_step(self.model_dir)
            if saved >= step:
                return saved
            time.sleep(0.01)
        raise AssertionError(self.log(0) + self.log(1))

    def stopped_by_sigterm_to(self, index):
        """Stops both in the middle of the run. Returns the step at which it is saved."""
        self.wait_for_step(2)
        self.processes[index].send_signal(signal.SIGTERM)
        assert [self.wait(0), self.wait(1)] == [75, 75], self.log(0) + self.log(1)
        stopped = last_step(self.model_dir)
        assert 2 < stopped < STEPS
        return stopped

    def end_well(self, timeout=240):
        for index in range(len(self.processes)):
            assert self.wait(index, timeout) == 0, self.log(index)


def last_step(model_dir):
    found = tf.train.latest_checkpoint(str(model_dir / "checkpoints"))
    return int(found.rsplit("-", 1)[1]) if found else 0


@pytest.fixture(scope="module")
def pair(tmp_path_factory, texts):
    """A run of two workers that was never interrupted."""
    with Workers(tmp_path_factory.mktemp("pair"), texts) as workers:
        workers.end_well()
    return workers


@pytest.fixture(scope="module")
def single(tmp_path_factory, texts):
    model_dir = tmp_path_factory.mktemp("single") / "run"
    t2aux("train", f"--model_dir={model_dir}", *SETTINGS, f"--data_dir={texts}")
    return model_dir


def assert_same_run(got, want, tolerance):
    """The losses of every step, the evaluations, and the weights."""
    ours, theirs = test_training_loop.metrics(got), test_training_loop.metrics(want)
    assert [line["step"] for line in ours] == [line["step"] for line in theirs]
    assert max(line["step"] for line in ours) == STEPS
    validated = [line["step"] for line in ours if line["split"] == "validation"]
    assert validated == [STEPS // EPOCHS * 2, STEPS]
    assert files.read_json(got / best.FILE)["examples"] == HELD_OUT
    for one, other in zip(ours, theirs, strict=True):
        assert one.keys() - {"steps_per_second"} == other.keys() - {"steps_per_second"}
        for name in other.keys() - {"steps_per_second", "split", "phase"}:
            assert one[name] == pytest.approx(other[name], abs=tolerance), (name, one, other)
    ours, theirs = test_training_loop.weights(got), test_training_loop.weights(want)
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        np.testing.assert_allclose(ours[name], value, atol=tolerance, err_msg=name)


@pytest.mark.long
def test_two_workers_are_one(pair, single):
    assert_same_run(pair.model_dir, single, 1e-5)
    accuracy = re.findall(r"test accuracy .*", pair.log(0))
    assert accuracy
    # All workers evaluate, a share each, and know the outcome.
    assert re.findall(r"test accuracy .*", pair.log(1)) == accuracy


ONE_LOSS = "--gin_param=train.auxiliary_losses = [@Reconstruction]"


@pytest.mark.parametrize("more", [(ONE_LOSS,), pytest.param((), marks=pytest.mark.long)])
def test_two_replicas_of_a_machine_are_one(texts, tmp_path, more):
    mirrored = ["--gin_file=training/mirrored", "--gin_param=MirroredStrategy.cpus = 2"]
    arguments = ["train", *SETTINGS, *more, f"--data_dir={texts}"]
    t2aux(*arguments, f"--model_dir={tmp_path / 'single'}")
    done = t2aux(*arguments, *mirrored, f"--model_dir={tmp_path / 'run'}")
    assert "MirroredStrategy has 2 replicas on the CPU" in done.stderr
    assert_same_run(tmp_path / "run", tmp_path / "single", 1e-5)


def assert_says_start_again(workers, index, *parts):
    assert workers.wait(index) == 75, workers.log(index)
    log = workers.log(index)
    assert "Traceback" not in log
    errors = [line for line in log.splitlines() if line.startswith("t2aux: error: ")]
    assert len(errors) == 1, log
    for part in parts:
        assert part in errors[0]


# The whole story, since every start takes seconds: stopped, then one killed, then to its end.
@pytest.mark.long
def test_workers_stop_together_and_continue(pair, texts, tmp_path):
    with Workers(tmp_path / "job", texts) as workers:
        stopped = workers.stopped_by_sigterm_to(1)
    for index, by in ((0, "another worker"), (1, "SIGTERM")):
        assert f"Stopped by {by}; the run is saved at step {stopped}." in workers.log(index)

    with Workers(tmp_path / "job", texts) as workers:
        at = workers.wait_for_step(stopped + 2)
        assert f"Continuing from {workers.model_dir}/checkpoints/ckpt-{stopped}" in workers.log(0)
        workers.processes[1].kill()
        assert_says_start_again(
            workers, 0, f"Lost worker 1 ({workers.names[1]})", "start the same command again"
        )
    assert at <= last_step(workers.model_dir) < STEPS

    with Workers(tmp_path / "job", texts) as workers:
        workers.end_well()
    # And so do two runs of the same seed and cluster.
    assert_same_run(workers.model_dir, pair.model_dir, 0.0)


@pytest.mark.long
def test_one_continues_where_two_were_stopped(single, texts, tmp_path):
    with Workers(tmp_path / "job", texts) as workers:
        workers.stopped_by_sigterm_to(0)
    t2aux("train", f"--model_dir={workers.model_dir}", *SETTINGS, f"--data_dir={texts}")
    assert_same_run(workers.model_dir, single, 1e-5)


# With such a rate the first update makes weights that give no number any more.
TOO_HIGH = "--gin_param=LEARNING_RATE = 1e30"


@pytest.mark.long
def test_workers_stop_together_at_nan(texts, tmp_path):
    with Workers(tmp_path / "job", texts, TOO_HIGH) as workers:
        assert [workers.wait(0), workers.wait(1)] == [1, 1], workers.log(0) + workers.log(1)
    for index, message in ((0, "After 1 updates loss is "), (1, "the chief, worker 0, says where")):
        log = workers.log(index)
        assert "Traceback" not in log
        (error,) = [line for line in log.splitlines() if line.startswith("t2aux: error: ")]
        assert message in error
    assert last_step(workers.model_dir) <= 1


@pytest.mark.long
def test_a_worker_that_never_comes(texts, tmp_path):
    more = ["--gin_param=MultiWorkerMirroredStrategy.start_seconds = 3"]
    with Workers(tmp_path / "job", texts, *more, count=1) as workers:
        assert_says_start_again(workers, 0, "Not all of the 2 workers", "within 3 seconds")
    assert not workers.model_dir.exists()


@pytest.mark.long
def test_the_chief_is_killed(pair, texts, tmp_path):
    with Workers(tmp_path / "job", texts) as workers:
        workers.wait_for_step(4)
        workers.processes[0].kill()
        assert_says_start_again(workers, 1, f"Lost worker 0 ({workers.names[0]})")
    with Workers(tmp_path / "job", texts) as workers:
        workers.end_well()
    assert_same_run(workers.model_dir, pair.model_dir, 0.0)


@pytest.mark.long
@pytest.mark.parametrize("index", [0, 1])
def test_a_worker_that_does_not_answer(texts, tmp_path, index):
    more = ["--gin_param=MultiWorkerMirroredStrategy.check_seconds = 1"]
    with Workers(tmp_path / "job", texts, *more) as workers:
        workers.wait_for_step(2)
        # As a machine that is gone: its connections stay open.
        os.kill(workers.processes[index].pid, signal.SIGSTOP)
        assert_says_start_again(workers, 1 - index, f"Lost worker {index}")


@pytest.mark.long
@pytest.mark.parametrize("model", ["r_lstm", "p_lstm"])
def test_fifty_steps_of_the_papers_size(tmp_path, model):
    settings = [
        *("--gin_file=base", "--gin_file=datasets/digits", f"--gin_file=models/{model}"),
        # 1,438 real digits of 28 x 28 pixels: 60 steps, the last of each epoch incomplete.
        *("--gin_param=digits.side = 26", "--gin_param=digits.border = 1"),
        *("--gin_param=PRETRAIN_EPOCHS = 0", "--gin_param=JOINT_EPOCHS = 5"),
        *("--gin_param=RunConfig.log_every = 1", "--gin_param=train.evaluate_every = 0"),
        # At 1e-3 rounding grows to 1e-2 within 50 steps, one worker's too: see
        # benchmarks/distributed.py --control.
        "--gin_param=LEARNING_RATE = 1e-4",
    ]
    t2aux("train", f"--model_dir={tmp_path / 'one'}", *settings, timeout=3000)
    with Workers(tmp_path / "job", None, settings=settings) as workers:
        workers.end_well(timeout=3000)
    ours, theirs = (
        [line for line in test_training_loop.metrics(path) if line["split"] == "train"]
        for path in (workers.model_dir, tmp_path / "one")
    )
    assert len(theirs) >= 50
    for one, other in zip(ours, theirs, strict=True):
        for name in [name for name in other if name.endswith("loss")]:
            assert one[name] == pytest.approx(other[name], abs=1e-4), (name, one, other)
