"""A run's data and settings are part of it: others are refused before anything is written."""

import json
import pathlib
import re
import shutil

import numpy as np
import pytest

from t2aux import config, data, files
from t2aux.data import convert
from t2aux.errors import DataError, ModelError, SettingError
from t2aux.evaluation import other_data
from t2aux.run import load_run
from t2aux.training import checkpoints, distribution, identity, training_loop
from t2aux.training import train as train_module
from tests import sources

CLASSES = ["ant", "bee", "cat"]
# Read again, with other comments and in another order, it must mean the same.
CONFIG = """
include 'base.gin'
include 'datasets/npz.gin'
include 'models/lstm.gin'
JOINT_EPOCHS = 2
PRETRAIN_EPOCHS = 0
BATCH_SIZE = 4
LEARNING_RATE = 0.002
Classifier.hidden_size = 4
Classifier.head_size = 4
RunConfig.checkpoint_minutes = 60
"""
SAME = """
# The same.
include 'base.gin'
include 'models/lstm.gin'
train.clip_norm = 1  # The default.
RATE = 2e-3
HIDDEN = 4
LEARNING_RATE = %RATE
Classifier.head_size = %HIDDEN
Classifier.hidden_size = %HIDDEN
PRETRAIN_EPOCHS = 0
JOINT_EPOCHS = 2
BATCH_SIZE = 4
include 'datasets/npz.gin'
"""


def write_data(folder, classes=CLASSES, edit=lambda arrays: None):
    """Twelve sequences of five steps for training, six for the test."""
    folder.mkdir(parents=True, exist_ok=True)
    numbers = np.random.default_rng(0)
    for split, count in (("train", 12), ("test", 6)):
        arrays = {
            "inputs": numbers.random((count, 5, 2), np.float32),
            "labels": np.arange(count) % len(classes),
        }
        if split == "train":
            arrays["classes"] = np.array(classes)
            edit(arrays)
        np.savez(folder / f"{split}.npz", **arrays)
    return folder


def train(model_dir, folder, *settings, text=CONFIG, name="config.gin", **options):
    path = pathlib.Path(model_dir).parent / name
    path.write_text(text)
    parsed = config.parse([str(path)], [f"dataset.data_dir = {str(folder)!r}", *settings])
    return train_module.train(str(model_dir), parsed, **options)


def content(folder):
    """All files below a folder but the lock, and what is in them."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A run that is done, and its data."""
    root = tmp_path_factory.mktemp("identity")
    assert train(root / "run", write_data(root / "data"))
    return root


@pytest.fixture
def run(done, tmp_path):
    shutil.copytree(done / "run", tmp_path / "run")
    return tmp_path / "run"


def refused(run, folder, *settings, kind=ModelError, **options):
    """The message of a refusal that has changed nothing."""
    before = content(run)
    with pytest.raises(kind) as caught:
        train(run, folder, *settings, **options)
    assert content(run) == before
    return str(caught.value)


def last_step(run):
    return checkpoints.steps(run / "checkpoints")[-1]


def test_classes_in_another_order(run, tmp_path):
    other = write_data(tmp_path / "other", ["bee", "ant", "cat"])
    message = refused(run, other)
    assert "classes: 'ant', 'bee', 'cat' -> 'bee', 'ant', 'cat'" in message
    assert "--model_dir" in message
    # Not even if changes are allowed.
    assert "'bee', 'ant', 'cat'" in refused(run, other, allow_changes=True)


def edited(name, change):
    def edit(arrays):
        arrays[name] = change(arrays[name].copy())

    return edit


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("inputs", lambda a: a * np.float32(1.0001), "values .*training"),
        ("inputs", lambda a: a[::-1], "values .*training"),
        ("labels", lambda a: a[::-1], "labels .*training"),
        ("inputs", lambda a: a[:, :4], "length: 5 -> 4"),
        ("inputs", lambda a: np.pad(a, [(0, 0), (0, 0), (0, 1)]), "channels: 2 -> 3"),
    ],
)
def test_other_examples(run, tmp_path, name, change, message):
    other = write_data(tmp_path / "other", edit=edited(name, change))
    if "->" in message:
        # The test split has to agree with the training split.
        arrays = dict(np.load(other / "test.npz"))
        np.savez(other / "test.npz", **{**arrays, name: change(arrays[name])})
    assert re.search(message, refused(run, other))


def test_another_number_of_examples_and_another_test_split(run, done, tmp_path):
    message = refused(run, done / "data", "dataset.max_examples = 5")
    assert "training examples: 12 -> 5" in message
    assert "test examples: 6 -> 5" in message
    other = shutil.copytree(done / "data", tmp_path / "other")
    arrays = dict(np.load(other / "test.npz"))
    np.savez(other / "test.npz", **{**arrays, "labels": arrays["labels"][::-1]})
    assert re.search("labels .*test", refused(run, other))


def test_all_differences_are_listed(run, done):
    message = refused(
        *(run, done / "data", "SEED = 1", "BATCH_SIZE = 6", "Classifier.hidden_size = 8"),
        *("train.optimizer = @SGD", "LEARNING_RATE = 0.5"),
    )
    for part in (
        "train.seed (SEED): 0 -> 1",
        "train.batch_size (BATCH_SIZE): 4 -> 6",
        "Classifier.hidden_size: 4 -> 8",
        "train.optimizer: @RMSprop -> @SGD",
        "joint/Phase.learning_rate (LEARNING_RATE): 0.002 -> 0.5",
    ):
        assert part in message


def test_long_values_are_shortened_to_where_they_differ():
    names = tuple(f"class {number}" for number in range(100))
    other = (*names[:98], names[99], names[98])
    difference = identity._of_values("the data's classes", names, other)
    assert re.fullmatch(
        "the data's classes .*98.*: 'class 98', 'class 99' -> 'class 99', 'class 98'",
        str(difference),
    )
    longer = identity._of_values("the data's classes", names, (*names, "new"))
    assert "(100 -> 101)" in str(longer)
    assert "'new'" in str(longer)
    assert len(str(identity.Difference("x", "a" * 1000, "b" * 1000))) < 200


def test_the_same_settings_in_other_words(run, done):
    assert train(run, done / "data", text=SAME, name="same.gin")
    assert last_step(run) == 6


def test_how_a_run_is_watched_and_saved_may_change(run, done):
    assert train(
        *(run, done / "data", "RunConfig.log_every = 7", "RunConfig.steps_per_call = 2"),
        *(
            "RunConfig.checkpoint_minutes = 1",
            "RunConfig.checkpoints_kept = 5",
            "train.evaluate_every = 2",
        ),
        "RunConfig.strategy = @MirroredStrategy",
    )
    assert "RunConfig.log_every = 7" in (run / "config.gin").read_text()


def test_the_same_data_elsewhere(run, done, tmp_path):
    shutil.copytree(done / "data", tmp_path / "moved")
    assert train(run, tmp_path / "moved")
    assert config.parse([str(run / "config.gin")], [])
    assert f"'{tmp_path / 'moved'}'" in (run / "config.gin").read_text()


def to_shards(folder, output, **options):
    read = {
        split: sources.read(split, name="npz", data_dir=str(folder)) for split in ("train", "test")
    }
    info = read["train"][0]
    convert.convert(info, {split: found[1] for split, found in read.items()}, output, **options)
    return output


def test_the_same_data_as_shards_and_back(run, done, tmp_path):
    shards = to_shards(done / "data", tmp_path / "shards")
    as_shards = "train.data = @shards()"
    assert train(run, shards, as_shards)
    # From now on only the manifest is compared; other files of the same data are the same data.
    assert json.loads((run / identity.FILE).read_text())["data"]["train"]["files"]
    packed = to_shards(done / "data", tmp_path / "packed", compression="zlib", shards=3)
    assert train(run, packed, as_shards)
    assert train(run, done / "data")
    other = write_data(tmp_path / "other", edit=edited("inputs", lambda a: a[::-1]))
    message = refused(run, to_shards(other, tmp_path / "other_shards"), as_shards)
    assert re.search("values .*training", message)


def test_a_changed_learning_rate_needs_the_flag(run, done, monkeypatch):
    lines = []
    monkeypatch.setattr(
        training_loop.logging, "info", lambda text, *more: lines.append(text % more)
    )
    changes = ["LEARNING_RATE = 0.25", "JOINT_EPOCHS = 3", "RMSprop.rho = 0.5"]
    message = refused(run, done / "data", *changes)
    for part in ("0.002 -> 0.25", "epochs (JOINT_EPOCHS): 2 -> 3", "RMSprop.rho: 0.9 -> 0.5"):
        assert part in message
    assert "--allow_changes" in message
    assert train(run, done / "data", *changes, allow_changes=True)
    assert last_step(run) == 9
    recorded = json.loads((run / identity.FILE).read_text())["changes"]
    assert [change["step"] for change in recorded] == [6]
    change = recorded[0]["settings"]["joint/Phase.learning_rate (LEARNING_RATE)"]
    assert change == {"old": "0.002", "new": "0.25"}
    assert "Changed from step 6 on: RMSprop.rho: 0.9 -> 0.5" in lines
    # From now on that is what the run has.
    assert "0.25 -> 0.002" in refused(run, done / "data", "JOINT_EPOCHS = 3", "RMSprop.rho = 0.5")
    assert train(run, done / "data", *changes)


def test_a_run_keeps_its_precision(run, done):
    message = refused(run, done / "data", "train.precision = 'bfloat16'", allow_changes=True)
    assert "train.precision: 'float32' -> 'bfloat16'" in message


def test_epochs_that_were_trained_can_not_be_taken_back(run, done):
    message = refused(run, done / "data", "JOINT_EPOCHS = 1", kind=SettingError, allow_changes=True)
    assert re.search(r"Phase\.epochs .*joint .* 1, .* 2", message)


def test_an_optimizer_that_needs_more_than_the_checkpoint_has(run, done):
    message = refused(run, done / "data", "RMSprop.momentum = 0.9", allow_changes=True)
    assert re.search(r"optimizer, .*train\.optimizer ", message)


def test_a_run_of_a_version_without_the_record(run, done, tmp_path):
    (run / identity.FILE).unlink()
    other = write_data(tmp_path / "other", ["bee", "ant", "cat"])
    assert "classes: 'ant', 'bee', 'cat' -> 'bee'" in refused(run, other)
    message = refused(run, done / "data", "dataset.max_examples = 5", "LEARNING_RATE = 0.5")
    assert "training examples: 12 -> 5" in message
    assert "dataset.max_examples: None -> 5" in message
    assert "(LEARNING_RATE): 0.002 -> 0.5" in message
    assert train(run, done / "data", text=SAME, name="same.gin")
    # Now it has one.
    other = write_data(tmp_path / "others", edit=edited("inputs", lambda a: a[::-1]))
    assert re.search("values .*training", refused(run, other))


def test_a_damaged_record_is_named(run, done):
    path = run / identity.FILE
    stored = json.loads(path.read_text())
    for damage in ({}, [], {**stored, "version": 2}, {**stored, "data": {}}):
        path.write_text(json.dumps(damage))
        assert f"{path} " in refused(run, done / "data")


def test_a_run_without_a_checkpoint_begins_with_what_is_given_now(run, done, tmp_path):
    shutil.rmtree(run / "checkpoints")
    other = write_data(tmp_path / "other", ["bee", "ant", "cat"])
    assert train(run, other, "JOINT_EPOCHS = 1", "SEED = 5")
    assert files.read_json(run / "dataset.json")["classes"] == ["bee", "ant", "cat"]
    assert last_step(run) == 3


@pytest.mark.parametrize("how", ["setting", "environment"])
def test_the_folder_of_the_data_is_stored_absolute(done, tmp_path, monkeypatch, how):
    shutil.copytree(done / "data", tmp_path / "here")
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "config.gin"
    path.write_text(CONFIG)
    settings = ["JOINT_EPOCHS = 1"]
    if how == "setting":
        settings += ["FOLDER = 'here'", "dataset.data_dir = %FOLDER"]
    else:
        monkeypatch.setenv("T2AUX_DATA_DIR", "here")
    assert train_module.train("run", config.parse([str(path)], settings))
    monkeypatch.delenv("T2AUX_DATA_DIR", raising=False)
    monkeypatch.chdir("/")
    text = config.parse([str(tmp_path / "run" / "config.gin")], [])
    assert f"'{tmp_path / 'here'}'" in text
    assert len(sources.configured("test")) == 6
    # As does the run itself, from anywhere.
    assert train_module.train(
        str(tmp_path / "run"), config.parse([str(tmp_path / "run/config.gin")], [])
    )


def test_all_workers_refuse_what_the_chief_refuses():
    class Failing(distribution.Replicas):
        """Of which another one, the chief, has found a difference."""

        worker = 1

        def total(self, values):
            return values + 1

    with pytest.raises(ModelError, match="worker 0"), train_module._together(Failing()):
        pass
    with (
        pytest.raises(DataError, match="its own"),
        train_module._together(distribution.Replicas()),
    ):
        raise DataError("its own")
    with train_module._together(distribution.Replicas()):
        pass


def test_evaluate_knows_the_run_s_own_data_wherever_it_lies(done, run, tmp_path):
    def of(folder):
        params = [f"dataset.data_dir = {str(folder)!r}"]
        loaded = load_run(run, gin_params=params)
        return other_data.of(loaded, params, "test", data.load(loaded.source, "test", loaded.info))

    moved = shutil.copytree(done / "data", tmp_path / "moved")
    assert of(moved) is None
    test = dict(np.load(moved / "test.npz"))
    test["labels"] = test["labels"][::-1]
    np.savez(moved / "test.npz", **test)
    other = of(moved)
    assert other.data_dir == str(moved)
    # An evaluation that Ctrl-C ended has left a folder and no result.
    first = other_data.folder(None, load_run(run), "evaluation", "test", other)
    assert other_data.folder(None, load_run(run), "evaluation", "test", other) == first


def test_a_checkpoint_may_be_named_by_one_of_its_files(run):
    name = f"ckpt-{last_step(run)}"
    for file in (name, f"{name}.index", f"{name}.data-00000-of-00001"):
        assert load_run(run, file).step == last_step(run)


def test_data_that_changed_where_it_lies_is_other_data(tmp_path):
    folder = write_data(tmp_path / "data")
    assert train(tmp_path / "run", folder)
    loaded = load_run(tmp_path / "run")
    write_data(folder, edit=lambda arrays: arrays.update(labels=arrays["labels"][::-1]))
    name = "train"
    found = other_data.of(loaded, [], name, data.load(loaded.source, name, loaded.info))
    assert "changed" in found.title
    assert other_data.of(loaded, [], "test", data.load(loaded.source, "test", loaded.info)) is None
