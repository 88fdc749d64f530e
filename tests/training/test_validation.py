"""The validation set: what is held out, the best checkpoint, early stopping, and resuming."""

import contextlib
import json
import pathlib
import shutil
import signal

import gin
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from t2aux import config, data, files
from t2aux.data import Table, convert, part
from t2aux.errors import DivergenceError, ModelError, SettingError
from t2aux.evaluation.location import locate
from t2aux.run import load_run
from t2aux.training import (
    best,
    checkpoints,
    evaluation,
    progress,
    training_loop,
    validation,
)
from t2aux.training import train as train_module
from t2aux.training import trainer as trainer_module
from t2aux.training.trainer import Step, Trainer
from tests import networks
from tests.cli_helpers import t2aux
from tests.fork_server import Server

CLASSES = 4
# 40 training examples, of which 8 are held out: 4 batches of 8 an epoch.
SETTINGS = [
    "SEED = 1",
    "JOINT_EPOCHS = 4",
    "PRETRAIN_EPOCHS = 0",
    "BATCH_SIZE = 8",
    "LEARNING_RATE = 0.02",
    "SUPERVISED_BPTT = 'full'",
    "Classifier.hidden_size = 4",
    "Classifier.projection_size = 2",
    "Classifier.head_size = 4",
    "RunConfig.log_every = 4",
    "RunConfig.steps_per_call = 2",
    "RunConfig.checkpoint_minutes = 0",
    "RunConfig.checkpoints_kept = 2",
    "train.validation = 0.2",
]
FILES = ["base", "datasets/npz", "models/lstm"]
STEPS = 16


class Quick(Trainer):
    """Instead of gradients, numbers that depend on the weights, the batch and the seed."""

    def step(self, batch, *, seed, **_):
        scale = 0.1 + tf.reduce_mean(batch.inputs) * tf.reduce_mean(
            tf.cast(batch.labels, "float32")
        )
        gradients = [
            scale * tf.random.stateless_normal(variable.shape, seed + number) - 0.01 * variable
            for number, variable in enumerate(self.trained_variables(auxiliary=False))
        ]
        return Step(gradients, {"loss": scale, "supervised_loss": scale, "correct": scale})


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(trainer_module, "Trainer", Quick)


def write_data(folder, counts=(("train", 40), ("test", 12)), seed=0):
    folder.mkdir(parents=True, exist_ok=True)
    numbers = np.random.default_rng(seed)
    for split, count in counts:
        labels = np.arange(count) % CLASSES
        inputs = numbers.random((count, 6, 2)) + labels[:, np.newaxis, np.newaxis] / 2
        lengths = numbers.integers(3, 7, count)
        np.savez(folder / f"{split}.npz", inputs=inputs, labels=labels, lengths=lengths)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data"))


def train(model_dir, folder, *more, **options):
    text = config.parse(FILES, [*SETTINGS, f"dataset.data_dir = {str(folder)!r}", *more])
    try:
        return train_module.train(str(model_dir), text, **options)
    finally:
        gin.clear_config()


@pytest.fixture(scope="module")
def quiet(folder, tmp_path_factory):
    """A run that was never interrupted."""
    model_dir = tmp_path_factory.mktemp("quiet") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer_module, "Trainer", Quick)
        assert train(model_dir, folder)
    return model_dir


def metrics(model_dir, split=None):
    lines = [json.loads(line) for line in (model_dir / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        line.pop("steps_per_second", None)
    return [line for line in lines if split in (None, line["split"])]


def weights(path):
    reader = tf.train.load_checkpoint(path)
    return {n: reader.get_tensor(n) for n in reader.get_variable_to_shape_map() if "/" in n}


def best_steps(model_dir):
    return checkpoints.steps(model_dir / "checkpoints" / "best")


def assert_same_run(got, want):
    """The same history, bit for bit: the weights of the newest and of the best checkpoint, too."""
    assert (got / best.FILE).read_bytes() == (want / best.FILE).read_bytes()
    ours, theirs = (
        # A line of training has the means since the last one or since the run was resumed.
        [line if line["split"] != "train" else line["step"] for line in metrics(model_dir)]
        for model_dir in (got, want)
    )
    assert ours == theirs
    assert best_steps(got) == best_steps(want)
    assert checkpoints.latest(got).rsplit("-")[-1] == checkpoints.latest(want).rsplit("-")[-1]
    of_best = best.path_of(pathlib.Path(), best.read(want).best.step)
    for one, other in (
        (checkpoints.latest(got), checkpoints.latest(want)),
        (str(got / of_best), str(want / of_best)),
    ):
        ours, theirs = weights(one), weights(other)
        assert ours.keys() == theirs.keys()
        for name, value in theirs.items():
            np.testing.assert_array_equal(ours[name], value, err_msg=name)


def split_of(counts, lengths=None, text=False):
    labels = np.repeat(np.arange(len(counts)), counts).astype(np.int32)
    labels = np.random.default_rng(1).permutation(labels)
    lengths = np.full(len(labels), 5) if lengths is None else lengths
    numbers = np.random.default_rng(2)
    info = networks.vectors_info(2, 5 if len(set(lengths)) == 1 else None, len(counts))
    values = numbers.random((sum(lengths), 2)).astype(np.float32)
    if text:
        info = networks.text_info(classes=len(counts))
        values = numbers.integers(0, 7, sum(lengths)).astype(np.uint8)
    return data.Split(info, Table.of_lengths(values, lengths, labels), bucket_batches=3)


@pytest.mark.parametrize(
    ("counts", "fraction", "held_out"),
    [
        ((40, 40, 20), 0.1, (4, 4, 2)),
        ((100, 100), 0.29, (29, 29)),
        ((1, 30, 9), 0.1, (0, 3, 1)),
        ((2, 2, 2), 0.9, (1, 1, 1)),
        ((5, 0, 5), 0.4, (2, 0, 2)),
    ],
)
def test_each_class_is_held_out_alike(counts, fraction, held_out):
    split = split_of(counts)
    trained, validated = part.hold_out(split, fraction, seed=0)
    np.testing.assert_array_equal(
        np.bincount(validated.labels, minlength=3)[: len(counts)], held_out
    )
    everything = np.concatenate([trained.fingerprints(), validated.fingerprints()])
    assert sorted(everything) == sorted(split.fingerprints())
    again = part.hold_out(split, fraction, seed=0)[1]
    np.testing.assert_array_equal(again.fingerprints(), validated.fingerprints())
    other = part.hold_out(split_of((40, 40, 20)), 0.1, seed=1)[1]
    first = part.hold_out(split_of((40, 40, 20)), 0.1, seed=0)[1]
    assert not np.array_equal(other.fingerprints(), first.fingerprints())


def test_many_small_classes_share_what_is_held_out():
    _, validated = part.hold_out(split_of([4] * 60), 0.1, seed=0)
    assert len(validated) == 24
    assert np.bincount(validated.labels).max() == 1
    assert "36 classes have no validation example" in validated.notes[0]


@pytest.mark.parametrize(("counts", "fraction"), [((3, 1), 0.1), ((1, 1, 1), 0.5)])
def test_nothing_to_hold_out(counts, fraction):
    with pytest.raises(SettingError, match=f" {fraction} .* {sum(counts)} "):
        part.hold_out(split_of(counts), fraction, seed=0)


@pytest.mark.parametrize("text", [False, True])
def test_a_part_is_a_split_of_its_examples(text):
    lengths = np.random.default_rng(0).integers(1, 9, 30)
    whole = split_of([15, 15], lengths, text)
    chosen = np.sort(np.random.default_rng(3).permutation(30)[:17])
    sequences = [whole.values[s:e] for s, e in zip(*bounds(lengths), strict=True)]
    table = Table.of_lengths(
        np.concatenate([sequences[i] for i in chosen]), lengths[chosen], whole.labels[chosen]
    )
    alone, some = data.Split(whole.info, table, bucket_batches=3), part.PartSplit(whole, chosen)
    for one, other in (
        (
            some.batches(4, seed=5, epoch=1, first_batch=1),
            alone.batches(4, seed=5, epoch=1, first_batch=1),
        ),
        (
            some.shares(4, [(0, 2), (1, 2)], seed=5),
            alone.shares(4, [(0, 2), (1, 2)], seed=5),
        ),
    ):
        for ours, theirs in zip(one, other, strict=True):
            tf.nest.map_structure(np.testing.assert_array_equal, ours, theirs)
    for ours, theirs in zip(some.chunks(), alone.chunks(), strict=True):
        np.testing.assert_array_equal(ours[0], theirs[0])
        np.testing.assert_array_equal(ours[1], theirs[1])
    np.testing.assert_array_equal(some.fingerprints(), alone.fingerprints())
    np.testing.assert_array_equal(some.example(-1), alone.example(-1))
    np.testing.assert_array_equal(some.origin(np.array([0, 16])), chosen[[0, 16]])


def bounds(lengths):
    ends = np.cumsum(lengths)
    return ends - lengths, ends


def test_shards_stay_in_their_files(folder, quiet, tmp_path, monkeypatch):
    read = {s: data.loading.read(data.Npz(), s, data_dir=str(folder)) for s in ("train", "test")}
    examples = {split: found[1] for split, found in read.items()}
    convert.convert(read["train"][0], examples, tmp_path / "shards", shards=3)
    read_at_once = []
    monkeypatch.setattr(data.shards.Shards, "table", lambda self: read_at_once.append(self))
    # The same data in another form: the same run, down to the best checkpoint.
    assert train(tmp_path / "run", tmp_path / "shards", "train.data = @shards()")
    assert not read_at_once
    assert_same_run(tmp_path / "run", quiet)


def test_a_run_with_a_validation_set(quiet, folder):
    validated = metrics(quiet, "validation")
    assert [line["step"] for line in validated] == [4, 8, 12, 16]
    (tested,) = metrics(quiet, "test")
    top = max(validated, key=lambda line: (line["accuracy"], -line["loss"], -line["step"]))
    assert (tested["step"], tested["checkpoint"]) == (STEPS, f"best/ckpt-{top['step']}")
    stored = files.read_json(quiet / best.FILE)
    assert (stored["examples"], stored["best"]) == (8, top["step"])
    tags = {
        value.tag
        for path in (quiet / "tensorboard").iterdir()
        for event in tf.compat.v1.train.summary_iterator(str(path))
        for value in event.summary.value
    }
    assert {"validation/accuracy", "validation/loss", "test/accuracy"} <= tags
    # What is evaluated now is what validation.json says of it.
    run = load_run(quiet)
    assert (run.choice, run.step) == ("best", top["step"])
    name, whole = validation.load_whole("validation", run.source, run.info)
    assert name == "train"
    split = validation.part_of("validation", whole, is_own=True)
    found = evaluation.evaluate(lambda b: run.classifier.logits_of(b.inputs, b.lengths), split, 8)
    assert found.accuracy == top["accuracy"]
    assert found.loss == pytest.approx(top["loss"], rel=1e-5)
    assert len(validation.part_of("train", whole, is_own=True)) == 32
    with pytest.raises(ModelError, match=r"training data: .*--split"):
        validation.part_of("validation", whole, is_own=False)


def script(monkeypatch, outcomes):
    """Makes the evaluations on the validation set come out so. Returns the sizes of all splits."""
    sizes, left = [], list(outcomes)

    def evaluate(predict, split, *_):
        sizes.append(len(split))
        confusion = np.diag([1, 0, 0, 0])
        if len(split) != 8:
            return evaluation.Evaluation(split.info.classes, confusion, 0.5)
        right, loss = left.pop(0)
        confusion = np.array([[right, 8 - right], [0, 0]])
        return evaluation.Evaluation(split.info.classes, confusion, loss)

    monkeypatch.setattr(evaluation, "evaluate", evaluate)
    return sizes


@pytest.mark.parametrize(
    ("outcomes", "step"),
    [
        ([(0.5, 1.0), (0.75, 2.0), (0.6, 0.1)], 2),  # Accuracy, not loss.
        ([(0.5, 1.0), (0.75, 2.0), (0.75, 1.0), (0.75, 1.5)], 3),  # The lower loss of equal ones.
        ([(0.75, 1.0), (0.7, 1.0), (0.75, 1.0)], 1),  # The earliest of equal ones.
        ([(0.75, np.nan), (0.75, 9.0), (0.75, np.nan)], 2),
        ([(0.0, np.inf), (0.0, np.nan)], 1),
    ],
)
def test_which_is_the_best(outcomes, step):
    found = best.Evaluations(best.Evaluated(i + 1, *o) for i, o in enumerate(outcomes))
    assert found.best.step == step
    assert found.until(1).best.step == 1
    assert best.Evaluations.of_rows(found.rows()).best.step == step
    assert found.without_better(0) == len(outcomes) - step


def test_the_best_is_kept(folder, tmp_path, monkeypatch):
    sizes = script(monkeypatch, [(4, 1.0), (6, np.nan), (6, np.nan), (3, 0.1)])
    assert train(tmp_path, folder)
    assert best_steps(tmp_path) == [8]
    # Of the others, two.
    assert checkpoints.steps(tmp_path / "checkpoints") == [STEPS - 2, STEPS]
    assert [load_run(tmp_path, name).step for name in (None, "best", "ckpt-8")] == [8, 8, 8]
    assert load_run(tmp_path, "latest").step == STEPS
    # The test set at the end only.
    assert sizes == [8, 8, 8, 8, 12]
    # Done already: nothing is evaluated once more.
    assert train(tmp_path, folder)
    assert len(sizes) == 5


class Killed(BaseException):
    pass


@contextlib.contextmanager
def killed(where, at):
    """Ends the process, so to speak, in one of the writes of an evaluation at a step."""
    save, add, write, prune = (
        checkpoints.Manager.save,
        best.Best.add,
        progress.RunLog.write,
        best.Best.prune,
    )

    def saved(self, step):
        of_best = self.directory.name == best.FOLDER
        if step == at and where == ("before the best" if of_best else "before the checkpoint"):
            raise Killed
        save(self, step)

    def written(self, step, values):
        if (where, step, values["split"]) == ("before the line", at, "validation"):
            raise Killed
        write(self, step, values)

    def added(self, evaluated, **more):
        if (where, evaluated.step) == ("before it counts", at):
            raise Killed
        add(self, evaluated, **more)

    def pruned(self):
        if (where, self.evaluations.last_step) == ("before the old one goes", at):
            raise Killed
        prune(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoints.Manager, "save", saved)
        patch.setattr(progress.RunLog, "write", written)
        patch.setattr(best.Best, "add", added)
        patch.setattr(best.Best, "prune", pruned)
        with pytest.raises(Killed):
            yield


def test_a_killed_run_has_the_same_best_and_the_same_end(folder, quiet, tmp_path):
    top = best.read(quiet).best.step
    for where in (
        "before the best",
        "before the line",
        "before it counts",
        "before the old one goes",
        "before the checkpoint",
    ):
        with killed(where, top):
            train(tmp_path, folder)
        if where == "before the best":
            # In the midst of writing it, with the one before it the best still.
            half = pathlib.Path(best.path_of(tmp_path, top))
            half.with_suffix(".index").write_bytes(b"half")
            half.with_name(f"{half.name}_temp").mkdir()
            assert load_run(tmp_path).step == 8 < top
    assert train(tmp_path, folder)
    assert {path.name.split(".")[0] for path in half.parent.iterdir()} == {"checkpoint", half.name}
    assert_same_run(tmp_path, quiet)


def test_killed_in_the_middle_of_epochs_with_early_stopping(folder, tmp_path):
    settings = ["train.patience = 3", "JOINT_EPOCHS = 12"]
    assert train(tmp_path / "quiet", folder, *settings)
    (end,) = [line["step"] for line in metrics(tmp_path / "quiet", "test")]
    assert 8 < end < 48
    shutil.copytree(tmp_path / "quiet", tmp_path / "run")
    # As a kill leaves it: the newest checkpoint is an earlier one.
    (tmp_path / "run/checkpoints/checkpoint").write_text(
        f'model_checkpoint_path: "ckpt-{end - 2}"\nall_model_checkpoint_paths: "ckpt-{end - 2}"\n'
    )
    for path in (tmp_path / "run/checkpoints").glob(f"ckpt-{end}.*"):
        path.unlink()
    assert train(tmp_path / "run", folder, *settings)
    assert_same_run(tmp_path / "run", tmp_path / "quiet")


def test_sigterm_in_evaluations(folder, quiet, tmp_path, monkeypatch):
    evaluate, count = evaluation.evaluate, []

    def terminated(predict, split, batch_size, look, *more):
        count.append(len(split))
        # In the second one on the validation set, and in that on the test set.
        if count in ([8, 8], [*[8] * 5, 12]):
            signal.raise_signal(signal.SIGTERM)
        return evaluate(predict, split, batch_size, look, *more)

    monkeypatch.setattr(evaluation, "evaluate", terminated)
    assert not train(tmp_path, folder)
    assert [line["step"] for line in metrics(tmp_path, "validation")] == [4]
    assert checkpoints.steps(tmp_path / "checkpoints")[-1] == 8
    # Killed in the evaluation that is repeated, when its line is written.
    with killed("before it counts", 8):
        train(tmp_path, folder)
    count.pop()
    assert not train(tmp_path, folder)
    assert not metrics(tmp_path, "test")
    assert train(tmp_path, folder)
    assert_same_run(tmp_path, quiet)


def test_early_stopping_ends_the_run(folder, tmp_path, monkeypatch):
    lines = []
    monkeypatch.setattr(
        training_loop.logging, "info", lambda text, *more: lines.append(text % more)
    )
    sizes = script(monkeypatch, [(4, 1.0), (6, 2.0), (5, 0.1), (6, 2.0), (5, 1.0), (8, 0.1)])
    settings = ["JOINT_EPOCHS = 20", "train.patience = 2"]
    assert train(tmp_path, folder, *settings)
    assert checkpoints.steps(tmp_path / "checkpoints")[-1] == 16
    assert sizes == [8, 8, 8, 8, 12]
    assert any("Stopping early, at step 16" in line and "at step 8" in line for line in lines)
    lines.clear()
    assert train(tmp_path, folder, *settings)
    assert any("done already, at step 16, early" in line for line in lines)
    assert len(sizes) == 5
    # More patience is another schedule.
    more = ["JOINT_EPOCHS = 6", "train.patience = 4"]
    with pytest.raises(ModelError, match=r"train\.patience: 2 -> 4"):
        train(tmp_path, folder, *more)
    assert train(tmp_path, folder, *more, allow_changes=True)
    assert checkpoints.steps(tmp_path / "checkpoints")[-1] == 24
    assert [line["step"] for line in metrics(tmp_path, "test")] == [16, 24]
    assert load_run(tmp_path).step == 24


def test_patience_is_of_the_last_phase(folder, tmp_path, monkeypatch):
    script(monkeypatch, [(8, 0.1), *[(1, 1.0)] * 9])
    assert train(
        *(tmp_path, folder, "train.patience = 2", "PRETRAIN_EPOCHS = 3"),
        *("train.phases = [@pretrain/Phase(), @joint/Phase()]", "pretrain/Phase.supervised = True"),
    )
    # Three evaluations in the first phase; two in the second without a better one.
    assert [line["step"] for line in metrics(tmp_path, "validation")] == [4, 8, 12, 16, 20]
    assert load_run(tmp_path).step == 4


def test_weights_that_are_not_finite_are_not_the_best(folder, tmp_path):
    more = ["train.clip_norm = None", "LEARNING_RATE = 1e30", "train.optimizer = @SGD"]
    with pytest.raises(DivergenceError, match=r"finite|nan|inf"):
        train(tmp_path, folder, *more, "RunConfig.checkpoint_minutes = 60")
    assert not best_steps(tmp_path)


def copy(run, tmp_path):
    return pathlib.Path(shutil.copytree(run, tmp_path / "copy"))


def test_a_damaged_best_checkpoint_is_named(quiet, folder, tmp_path):
    run = copy(quiet, tmp_path)
    top = best.read(run).best.step
    path = pathlib.Path(best.path_of(run, top) + ".data-00000-of-00001")
    content = path.read_bytes()
    for damaged in (content[:-9], content[:-1] + b"x", None):
        path.unlink() if damaged is None else path.write_bytes(damaged)
        for checkpoint in (None, "best"):
            with pytest.raises(ModelError, match=rf"/ckpt-{top} .*--checkpoint=latest"):
                load_run(run, checkpoint)
    assert load_run(run, "latest").described == f"step {STEPS}, the newest"
    assert locate(run).load("latest")
    # A run that is resumed says so, too, and is done.
    lines = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(best.logging, "warning", lambda text, *more: lines.append(text % more))
        assert train(run, folder)
    assert top != STEPS
    assert any(f"/ckpt-{top} " in line for line in lines)
    path.write_bytes(content)
    assert load_run(run).step == top


def test_a_damaged_best_checkpoint_of_the_newest_step_is_written_again(
    folder, tmp_path, monkeypatch
):
    script(monkeypatch, [(1, 1.0), (2, 1.0), (3, 1.0), (4, 1.0)])
    assert train(tmp_path, folder)
    path = pathlib.Path(best.path_of(tmp_path, STEPS) + ".data-00000-of-00001")
    content = path.read_bytes()
    path.write_bytes(content[:-1] + b"x")
    assert train(tmp_path, folder)
    assert path.read_bytes() == content


def test_the_evaluations_file_is_part_of_the_run(quiet, folder, tmp_path):
    run = copy(quiet, tmp_path)
    content = (run / best.FILE).read_text()
    for damaged in (content[:-20], content.replace('"accuracy": 0', '"accuracy": "0'), "[]", "{}"):
        (run / best.FILE).write_text(damaged)
        with pytest.raises(ModelError, match=r"/validation\.json .*damaged"):
            load_run(run)
        assert load_run(run, "latest").step == STEPS
    (run / best.FILE).unlink()
    for act in (lambda: load_run(run), lambda: train(run, folder)):
        with pytest.raises(ModelError, match=r"/validation\.json .*missing"):
            act()


def test_a_run_without_a_validation_set(folder, tmp_path):
    """As before there was one: the test set is evaluated, and the newest checkpoint is taken."""
    assert train(tmp_path, folder, "train.validation = None")
    assert [line["step"] for line in metrics(tmp_path, "test")] == [4 + 1, 10, 15, 20]
    assert not (tmp_path / best.FILE).exists()
    assert not (tmp_path / "checkpoints" / best.FOLDER).exists()
    run = load_run(tmp_path)
    assert (run.choice, run.described) == ("latest", "step 20")
    with pytest.raises(ModelError, match=f"{tmp_path} .*--checkpoint=latest"):
        load_run(tmp_path, "best")
    with pytest.raises(ModelError, match=r"train\.validation .*None: .*--split"):
        validation.load_whole("validation", run.source, run.info)
    # How often it is evaluated is free there, and a validation set is another run.
    assert train(tmp_path, folder, "train.validation = None", "train.evaluate_every = 2")
    with pytest.raises(ModelError, match=r"train\.validation: None -> 0\.2"):
        train(tmp_path, folder)


def test_what_is_held_out_belongs_to_the_run(quiet, folder, tmp_path):
    run = copy(quiet, tmp_path)
    before = (run / best.FILE).read_bytes()
    for setting, message in (
        ("train.validation = 0.25", "train.validation: 0.2 -> 0.25"),
        ("train.validation = None", "train.validation: 0.2 -> None"),
        ("SEED = 2", r"train.seed \(SEED\): 1 -> 2"),
        ("train.evaluate_every = 2", "train.evaluate_every: 1 -> 2"),
    ):
        with pytest.raises(ModelError, match=message):
            train(run, folder, setting)
    assert (run / best.FILE).read_bytes() == before
    assert train(run, folder, "train.evaluate_every = 2", allow_changes=True)
    # A run whose run.json was lost trains on fewer examples than there are.
    (run / "run.json").unlink()
    assert train(run, folder, "train.evaluate_every = 2", allow_changes=True)


def test_a_split_of_its_own(folder, tmp_path):
    own = shutil.copytree(folder, tmp_path / "data")
    setting = "train.validation = 'held'"
    with pytest.raises(SettingError, match=r"train\.validation .*'held': .* held\.npz"):
        train(tmp_path / "run", own, setting)
    shutil.copy(own / "test.npz", own / "held.npz")
    with pytest.raises(SettingError, match=r"train\.validation .*'held', .*test split"):
        train(tmp_path / "run", own, setting)
    assert not (tmp_path / "run").exists()
    write_data(own, [("held", 8)], seed=3)
    assert train(tmp_path / "run", own, setting, "dataset.max_examples = 16")
    assert files.read_json(tmp_path / "run" / best.FILE)["examples"] == 8
    assert [line["step"] for line in metrics(tmp_path / "run", "validation")] == [2, 4, 6, 8]
    run = load_run(tmp_path / "run")
    assert validation.load_whole("validation", run.source, run.info)[0] == "validation"
    # It is compared like the others.
    write_data(own, [("held", 8)], seed=4)
    with pytest.raises(ModelError, match=r"values .*validation"):
        train(tmp_path / "run", own, setting, "dataset.max_examples = 16")


def test_max_examples_comes_before_the_fraction(folder, tmp_path):
    assert train(tmp_path, folder, "dataset.max_examples = 20", "JOINT_EPOCHS = 1")
    assert files.read_json(tmp_path / best.FILE)["examples"] == 4
    assert metrics(tmp_path)[-1]["step"] == 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        *(([f"train.validation = {v}"], rf"train\.validation .* {v}: ") for v in (0, 1, 1.5, -0.1)),
        (["train.validation = True"], r"train\.validation .* True "),
        (["train.validation = 'test'"], r"train\.validation .*'test': "),
        (["train.validation = ''"], r"train\.validation .*'': "),
        (["train.validation = [0.1]"], r"train\.validation .*\[0\.1\] "),
        (["train.validation = '../secret'"], r"train\.validation .*'\.\./secret': .*/"),
        (["train.validation = 0.001"], r"train\.validation .* 40 "),
        (["SEED = -1"], r"train\.seed .* -1: "),
        (["train.patience = 0"], r"train\.patience .* 0: "),
        (["train.patience = 2.5"], r"train\.patience .* 2\.5 "),
        (["train.patience = True"], r"train\.patience .* True "),
        (
            ["train.patience = 2", "train.validation = None"],
            r"patience .* 2, .*validation .*None: ",
        ),
        (
            ["train.patience = 2", "train.evaluate_every = 0"],
            r"patience .* 2, .*evaluate_every .* 0: ",
        ),
    ],
)
def test_bad_values(folder, tmp_path, settings, message):
    with pytest.raises(SettingError, match=message) as error:
        train(tmp_path / "run", folder, *settings)
    assert "\n" not in str(error.value).split("\n  In call to configurable")[0]
    assert not (tmp_path / "run").exists()


def test_files_of_the_split_s_name(tmp_path):
    for split, count in (("train", 6), ("test", 3), ("held-out", 2)):
        rows = [f'"{i % 2}","a text of {split} number {i}"\n' for i in range(count)]
        (tmp_path / f"{split}.csv").write_text("".join(rows))
        for i in range(count):
            place = tmp_path / split / f"class {i % 2}"
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((4, 4, 3), 9 * i, np.uint8)).save(place / f"{i}.png")
    for source in (data.Csv(), data.ImageFolder()):
        info = data.load(source, "train", data_dir=str(tmp_path)).info
        split = data.load(source, "held-out", info, data_dir=str(tmp_path))
        assert (len(split), split.info) == (2, info)


def test_sources_without_such_a_split():
    for source in (data.Digits(), data.Idx()):
        name = source.gin_name
        with pytest.raises(SettingError, match=rf"'validation': {name} .*train .*test "):
            data.load(source, "validation")


def test_evaluate_says_which_checkpoint(quiet, tmp_path):
    run, top = copy(quiet, tmp_path), best.read(quiet).best
    done = t2aux("evaluate", f"--model_dir={run}", "--split=validation")
    assert f"npz, validation, step {top.step}, the best by validation accuracy" in done.stdout
    report = files.read_json(run / "evaluation/validation/evaluation.json")
    assert (report["step"], report["choice"], report["examples"]) == (top.step, "best", 8)
    assert report["accuracy"] == top.accuracy


@pytest.mark.long
def test_killed_for_good(folder, tmp_path):
    settings = [f"--gin_param={setting}" for setting in SETTINGS]
    command = ["train", f"--data_dir={folder}", *(f"--gin_file={name}" for name in FILES)]
    command += settings
    run, killed_run = tmp_path / "run", tmp_path / "killed"
    with Server(TF_NUM_INTRAOP_THREADS="1") as server:
        done = server.run(tmp_path / "log", *command, f"--model_dir={run}")
        assert done.returncode == 0, done.stderr
        assert "32 training, 8 validation and 12 test sequences" in done.stderr
        assert f"the best checkpoint's, step {best.read(run).best.step}" in done.stderr
        process = server.start(tmp_path / "log", *command, f"--model_dir={killed_run}")
        process.wait_until((killed_run / "checkpoints" / best.FOLDER).exists)
        process.kill()
        done = server.run(tmp_path / "log", *command, f"--model_dir={killed_run}")
        assert done.returncode == 0, done.stderr
    assert_same_run(killed_run, run)
