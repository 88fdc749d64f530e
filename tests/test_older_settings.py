"""Settings of `train` by their older names mean what they did."""

import dataclasses
import json
import shutil

import gin
import numpy as np
import pytest

from t2aux import config, data
from t2aux.errors import ModelError, SettingError
from t2aux.evaluation import other_data
from t2aux.reproduce import recipes, results, rows
from t2aux.reproduce.experiments import EXPERIMENTS
from t2aux.run import load_run
from t2aux.training import run_config, train
from tests.cli_helpers import ROOT

REST = """
train.auxiliary_losses = []
train.phases = [@Phase()]
Phase.epochs = 1
train.batch_size = 4
Classifier.hidden_size = 4
Classifier.head_size = 4
"""
# What such a version called settings that do not change what is learned.
OLDER_NAMES = {
    "train.checkpoint_minutes": "RunConfig.checkpoint_minutes",
    "train.checkpoints_kept": "RunConfig.checkpoints_kept",
    "train.steps_per_call": "RunConfig.steps_per_call",
    "train.deterministic": "RunConfig.deterministic",
    "train.log_every": "RunConfig.log_every",
    "train.strategy": "RunConfig.strategy",
}
OLDER_VALUES = {
    "train.checkpoint_minutes": "7.5",
    "train.checkpoints_kept": "9",
    "train.steps_per_call": "2",
    "train.deterministic": "False",
    "train.log_every": "7",
    "train.strategy": "@MirroredStrategy",
}
# What has no effect any more.
REMOVED = {
    "train.on_nan": "@BackOff()",
    "train.nan_rate_factor": "0.25",
    "train.nan_back_offs": "5",
    "BackOff.rate_factor": "0.25",
    "BackOff.times": "5",
}
OLDER_TRAIN = "".join(f"{name} = {v}\n" for name, v in {**OLDER_VALUES, **REMOVED}.items())


def values():
    bindings = gin.get_bindings("RunConfig", resolve_references=False)
    return {f"RunConfig.{name}": value for name, value in bindings.items()}


TODAY = {OLDER_NAMES[name]: gin.config.parse_value(value) for name, value in OLDER_VALUES.items()}


def test_parameters_of_train_that_are_those_of_others_now(tmp_path, caplog):
    for name, value in OLDER_VALUES.items():
        config.parse(["quickstart"], [f"{name} = {value}"])
        today = OLDER_NAMES[name]
        assert values() == {"RunConfig.log_every": 250, today: TODAY[today]}
        assert f"{name} is an older name" in caplog.text
        assert f"write {today} = {value}" in caplog.text
    mine = tmp_path / "mine.gin"
    mine.write_text(f"include 'quickstart.gin'\n{OLDER_TRAIN}")
    config.parse([str(mine)], [])
    assert values() == TODAY
    block = "".join(f"  {name.partition('.')[2]} = {v}\n" for name, v in OLDER_VALUES.items())
    mine.write_text(f"include 'quickstart.gin'\ntrain:\n{block}")
    config.parse([str(mine)], [])
    assert values() == TODAY
    # What it is written as today is read as the same, in silence.
    caplog.clear()
    (tmp_path / "today.gin").write_text(gin.config_str())
    config.parse([str(tmp_path / "today.gin")], [])
    assert values() == TODAY
    assert not caplog.records


@pytest.mark.parametrize("value", ["'stop'", "'back_off'", "@BackOff()"])
def test_what_has_no_effect_any_more_is_read(tmp_path, caplog, value):
    mine = tmp_path / "mine.gin"
    text = f"include 'quickstart.gin'\ntrain.on_nan = {value}\nBackOff:\n  times = 2\n"
    mine.write_text(text)
    config.parse([str(mine)], ["BackOff.rate_factor = 0.5", "train.nan_back_offs = 3"])
    for name in ("train.on_nan", "BackOff.times", "BackOff.rate_factor", "train.nan_back_offs"):
        assert name in caplog.text
    assert "on_nan" not in gin.config_str()
    assert "BackOff" not in gin.config_str()


@pytest.mark.parametrize("name", ["config.gin", "operative_config.gin"])
def test_a_run_logs_nothing_of_its_older_names(tmp_path, caplog, name):
    (tmp_path / name).write_text(f"include 'quickstart.gin'\n{OLDER_TRAIN}")
    config.parse([str(tmp_path / name)], [])
    assert values() == TODAY
    assert not caplog.records


@pytest.mark.parametrize(
    ("params", "value"),
    [
        (["train.steps_per_call = 4", "RunConfig.steps_per_call = 2"], 2),
        (["RunConfig.steps_per_call = 2", "train.steps_per_call = 4"], 4),
        (["t2aux.training.loop.train.steps_per_call = 4"], 4),
        (["loop.train.steps_per_call = 4"], 4),
        (["STEPS = 4", "train.steps_per_call = %STEPS"], 4),
    ],
)
def test_the_later_one_of_two_names_counts(params, value):
    config.parse(["quickstart"], params)
    assert run_config.RunConfig().steps_per_call == value


@pytest.mark.parametrize(
    ("params", "message"),
    [
        (["train.steps_per_call = 'a'"], r"RunConfig\.steps_per_call .*whole number, .*'a'"),
        (["train.checkpoints_keep = 3"], r"^train .*'checkpoints_keep' .*run_config"),
        (["dataset.steps_per_call = 3"], "^dataset .*'steps_per_call' .*data_dir"),
        (["dataset.on_nan = 'stop'"], "^dataset .*'on_nan' .*data_dir"),
        (["x/train.steps_per_call = 3"], r"scope 'x' .*x/train\.steps_per_call"),
    ],
)
def test_older_names_are_checked_as_those_of_today(params, message):
    with pytest.raises(SettingError, match=message):
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
    text = "\n".join(
        line for line in config_gin.read_text().splitlines() if "RunConfig" not in line
    )
    config_gin.write_text(f"{text}\n{OLDER_TRAIN}")
    run_json = root / "run" / "run.json"
    stored = json.loads(run_json.read_text())
    for name, today in OLDER_NAMES.items():
        stored["settings"].pop(today, None)
        stored["settings"][name] = OLDER_VALUES[name]
    stored["settings"] |= REMOVED
    del stored["settings"]["train.run_config"]
    assert not any(name.startswith("RunConfig") for name in stored["settings"])
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
    other = ["RunConfig.checkpoints_kept = 4", "train.on_nan = @BackOff()", "BackOff.times = 1"]
    assert train.train(str(run), parsed(older_run, "RunConfig.steps_per_call = 3", *other))
    with pytest.raises(ModelError, match=r"dataset\.bucket_batches: 16 -> 2"):
        train.train(str(run), parsed(older_run, "dataset.bucket_batches = 2"))
    with pytest.raises(ModelError, match="training examples: 12 -> 5"):
        train.train(str(run), parsed(older_run, "dataset.max_examples = 5"))


def test_results_that_are_committed_are_those_of_todays_rows(tmp_path):
    for name in ("mnist", "cifar10", "debian_sections"):
        (tmp_path / name).mkdir()
    every = {cell.id: cell for experiment in EXPERIMENTS.values() for cell in experiment.rows}
    paths = sorted((ROOT / "results" / "reproduce").glob("*.seed*.json"))
    assert len(paths) > 50
    models = set()
    for path in paths:
        found = results.read(path)
        row = every[found.row]
        wanted = rows.configuration(row, found.budget, str(tmp_path), found.seed)
        made = recipes.of_flags(found.flags, found.of_budget)
        was, now = recipes.read([made, wanted])
        assert was.error is None
        assert was.in_effect == now.in_effect, path.name
        if (found.budget, row.dataset, row.model) in models:
            continue
        models.add((found.budget, row.dataset, row.model))
        # Kept in a result, what the budget sets stands for its file.
        flags = [flag for flag in wanted.flags() if not flag.startswith("--data_dir=")]
        kept = dataclasses.replace(found, flags=flags, of_budget=now.of_budget)
        (again,) = recipes.read([recipes.of_flags(kept.flags, kept.of_budget)])
        assert again.in_effect == now.in_effect, path.name
        # And the report can have both.
        assert results.by_row([found, dataclasses.replace(kept, seed=9)], found.budget)
        assert not any("load." in flag for flag in found.flags)
