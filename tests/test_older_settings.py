"""Settings of versions that had one configurable `load` for all data mean what they did."""

import json
import re
import shutil

import gin
import numpy as np
import pytest

from t2aux import config, data
from t2aux.errors import UserError
from t2aux.evaluation import other_data
from t2aux.reproduce import results, rows
from t2aux.reproduce.experiments import EXPERIMENTS
from t2aux.run import load_run
from t2aux.training import train
from tests.cli_helpers import ROOT

# What a configuration of such a version said of the data, all defaults among it.
DEFAULTS = {
    "allow": "()",
    "border": "0",
    "grey": "False",
    "max_length": "None",
    "permutation_seed": "None",
    "side": "None",
    "splits": "None",
    "tokens": "'characters'",
    "vocabulary_size": "256",
}
REST = """
train.auxiliary_losses = []
train.phases = [@Phase()]
Phase.epochs = 1
train.batch_size = 4
Classifier.hidden_size = 4
Classifier.head_size = 4
"""


def older(**settings):
    """What gin.config_str gave, in its order."""
    values = {**DEFAULTS, **{name: repr(value) for name, value in settings.items()}}
    return "".join(f"load.{name} = {value}\n" for name, value in sorted(values.items())) + REST


def source_of(path, params=()):
    config.parse([str(path)], params)
    return gin.get_bindings("train")["data"]


@pytest.mark.parametrize(
    ("settings", "source"),
    [
        ({"name": "digits", "side": 6, "border": 1}, data.Digits(side=6, border=1)),
        ({"name": "mnist"}, data.Mnist()),
        ({"name": "mnist", "permutation_seed": 92916}, data.Mnist(permutation_seed=92916)),
        ({"name": "idx", "permutation_seed": 7}, data.Idx(permutation_seed=7)),
        ({"name": "image_folder", "grey": True}, data.ImageFolder(grey=True)),
        ({"name": "csv", "max_length": 9, "tokens": "bytes"}, data.Csv("bytes", 9)),
        ({"name": "npz"}, data.Npz()),
        ({"name": "emnist/letters", "side": 9}, data.Tfds("emnist/letters", side=9)),
        ({"name": "tfds:quickdraw_bitmap"}, data.Tfds("quickdraw_bitmap")),
        # What was no error, and did nothing.
        ({"name": "idx", "tokens": "bytes", "grey": True}, data.Idx()),
        ({"name": "npz", "splits": ("a", "b")}, data.Npz()),
        ({"name": "shards", "side": 6, "border": 1}, data.ShardFolder()),
    ],
)
def test_the_configuration_of_an_older_run(tmp_path, caplog, settings, source):
    path = tmp_path / "config.gin"
    path.write_text(older(max_examples=20, data_dir="/data", bucket_batches=3, **settings))
    assert source_of(path) == source
    bound = gin.get_bindings("dataset")
    assert bound.pop("splits", None) is None
    assert bound == {"max_examples": 20, "data_dir": "/data", "bucket_batches": 3, "allow": ()}
    assert "load." not in gin.config_str()
    assert not caplog.records
    # With other data.
    assert source_of(path, ["train.data = @csv()"]) == data.Csv()


def test_without_a_name_the_digits_were_meant(tmp_path):
    path = tmp_path / "config.gin"
    path.write_text("load.side = 5\n" + REST)
    config.parse([str(path)], [])
    assert data.Digits().side == 5


@pytest.mark.parametrize(
    ("files", "params", "source"),
    [
        (["quickstart"], ["load.side = 12"], data.Digits(side=12, border=1)),
        (["quickstart"], ["load.name = 'idx'"], data.Idx(side=6, border=1)),
        (["quickstart", "datasets/csv"], ["load.tokens = 'bytes'"], data.Csv("bytes")),
        # In any order: they were the parameters of one configurable.
        (["base"], ["load.side = 3", "load.name = 'idx'"], data.Idx(side=3)),
        (["quickstart"], ["load.name = 'npz'", "load.side = None", "load.border = 0"], data.Npz()),
        # The data set was another form of the same, not another one.
        (["paper/pmnist"], ["load.name = 'idx'"], data.Idx(permutation_seed=92916)),
        (["paper/dbpedia"], ["load.name = 'csv'"], data.Csv(max_length=1024)),
        (["paper/stanford_dogs"], ["SIDE = 40", "load.name = 'image_folder'"], None),
    ],
)
def test_settings_of_the_user(caplog, files, params, source):
    config.parse([*files, "models/lstm"], ["PRETRAIN_EPOCHS = 1", "JOINT_EPOCHS = 1", *params])
    assert gin.get_bindings("train")["data"] == (source or data.ImageFolder(side=40))
    said = [record.getMessage() for record in caplog.records]
    assert said
    assert all(re.search(r"load\.\w+ .*: write [\w.]+ = ", message) for message in said)


def test_a_file_of_the_user(tmp_path, caplog):
    mine = tmp_path / "mine.gin"
    mine.write_text("load.max_length = 9\nload.name = 'csv'\ninclude 'models/lstm.gin'\n")
    assert source_of(mine) == data.Csv(max_length=9)
    assert "write train.data = @csv()" in caplog.text
    assert "write csv.max_length = 9" in caplog.text


@pytest.mark.parametrize(
    ("params", "message"),
    [
        (["load.max_length = 3"], "digits has no parameter 'max_length'"),
        (["load.sied = 3"], "load has no parameter 'sied' .*did you mean side"),
        (["load.name = 'csv'"], r"keeps the side .* write train\.data = @csv\(\)"),
        (["load.name = 'npz'", "load.border = 0", "load.side = 3"], "npz has no parameter"),
        (["NAME = 'idx'", "load.name = %NAME"], r"train\.data = @NAME\(\)"),
        (["train.data = %gin.REQUIRED", "load.side = 3"], "no data set is named"),
        (["x/load.side = 3"], "no configurable 'load'"),
    ],
)
def test_what_they_can_not_mean_is_one_sentence(params, message):
    with pytest.raises(UserError, match=message):
        config.parse(["quickstart"], params)


def write_npz(folder):
    numbers = np.random.default_rng(0)
    folder.mkdir()
    for split in ("train", "test"):
        inputs, labels = numbers.random((12, 5, 2), np.float32), np.arange(12) % 3
        np.savez(folder / f"{split}.npz", inputs=inputs, labels=labels)


NEW = f"train.data = @npz()\n{REST}"


@pytest.fixture(scope="module")
def older_run(tmp_path_factory):
    """A run as an older version left it, and its data."""
    root = tmp_path_factory.mktemp("older")
    write_npz(root / "data")
    (root / "new.gin").write_text(NEW)
    assert train.train(str(root / "run"), parsed(root))
    config_gin = root / "run" / "config.gin"
    text = older(name="npz", data_dir=str(root / "data"))
    config_gin.write_text(text)
    run_json = root / "run" / "run.json"
    stored = json.loads(run_json.read_text())
    ours = {name: value for name, value in stored["settings"].items() if name != "train.data"}
    assert any(name.startswith("dataset.") for name in ours)
    stored["settings"] = {re.sub(r"^dataset\.", "load.", name): v for name, v in ours.items()} | {
        f"load.{name}": value for name, value in DEFAULTS.items() if name not in ("allow", "splits")
    }
    stored["settings"]["load.name"] = "'npz'"
    run_json.write_text(json.dumps(stored))
    return root


def parsed(root, *params):
    return config.parse([str(root / "new.gin")], [f"dataset.data_dir = '{root}/data'", *params])


@pytest.mark.parametrize("has_run_json", [True, False])
def test_an_older_run_is_evaluated_and_resumed(older_run, tmp_path, has_run_json):
    run = tmp_path / "run"
    shutil.copytree(older_run / "run", run)
    if not has_run_json:
        (run / "run.json").unlink()
    loaded = load_run(run)
    assert loaded.source == data.Npz()
    split = data.load(loaded.source, "test", loaded.info)
    assert len(split) == 12
    assert other_data.of(loaded, [], "test", split) is None
    # Under its own names and under those of today it is the same run.
    assert train.train(str(run), config.parse([str(run / "config.gin")], []))
    assert train.train(str(run), parsed(older_run))
    with pytest.raises(UserError, match=r"dataset\.bucket_batches: 16 -> 2"):
        train.train(str(run), parsed(older_run, "dataset.bucket_batches = 2"))
    with pytest.raises(UserError, match="number of training examples: 12 -> 5"):
        train.train(str(run), parsed(older_run, "dataset.max_examples = 5"))


def test_results_that_are_committed_are_those_of_todays_rows(tmp_path):
    for name in ("mnist", "cifar10", "debian_sections"):
        (tmp_path / name).mkdir()
    every = {cell.id: cell for experiment in EXPERIMENTS.values() for cell in experiment.rows}
    paths = sorted((ROOT / "results" / "reproduce").glob("*.seed*.json"))
    assert len(paths) > 50
    for path in paths:
        found = results.read(path)
        row = every[found.row]
        wanted = rows.configuration(row, found.budget, str(tmp_path), found.seed).flags()
        assert found.flags == [f for f in wanted if not f.startswith("--data_dir=")], path.name
        assert not any("load." in flag for flag in found.flags)
