"""A source, a core and a loss of a user's own: a module and a gin line, in every command."""

import copy
import json
import re

import gin
import numpy as np
import pytest
from gin import config as gin_config

from t2aux import config, data
from t2aux.errors import DataError, DependencyError, SettingError
from t2aux.training import train  # noqa: F401  Its configurables.
from t2aux.training.classifier import make_classifier
from tests import networks
from tests.cli_helpers import ROOT
from tests.fork_server import Server

WAVES = '''
"""Sine and square waves."""

from __future__ import annotations

import dataclasses

import gin
import numpy as np

from t2aux import data


@gin.configurable
@dataclasses.dataclass(frozen=True)
class Waves(data.Source):
    """Sine and square waves."""

    steps: int = 16
    in_folder = False

    def read(self, split, options):
        random = np.random.default_rng(split == "train")
        labels = np.arange(24) % 2
        phases = random.random((24, 1)) + np.linspace(0, 2, self.steps)
        waves = np.sin(2 * np.pi * phases)
        waves = np.where(labels[:, None] == 1, np.sign(waves), waves)
        rows = waves[:, :, None].astype(np.float32)
        info = data.DatasetInfo(
            "waves", "vectors", ("sine", "square"), channels=1, length=self.steps
        )
        return info, data.Table.of_rows(rows, labels)
'''
GIN = """
import my_package.waves

include 'base.gin'
include 'models/lstm.gin'

train.data = @Waves()
Waves.steps = 12
JOINT_EPOCHS = 1
BATCH_SIZE = 8
Classifier.hidden_size = 4
Classifier.projection_size = None
Classifier.head_size = 4
"""
HALF = """
import dataclasses

import gin
import numpy as np

from t2aux import data


@gin.configurable
@dataclasses.dataclass(frozen=True)
class Half(data.Source):
    whole: data.Source

    def read(self, split, options):
        options = dataclasses.replace(options, source="digits", side=self.whole.side, resize=True)
        info, table = self.whole.read(split, options)
        return info, table.take(np.arange(0, len(table.labels), 2))


@gin.configurable
def small_digits():
    return data.Digits()
"""
NETWORKS = """
import gin

from t2aux.model.lstm import LSTM
from t2aux.losses.reconstruction import Reconstruction


@gin.configurable
class OwnCore(LSTM):
    pass


@gin.configurable
class OwnLoss(Reconstruction):
    pass
"""


# A loss as Keras's, which give a value for each row.
ROWS = """
import gin
import tensorflow as tf

from t2aux.losses import AuxiliaryLoss, StatesAt


@gin.configurable
class Rows(AuxiliaryLoss):
    def build(self, network):
        pass

    def declare(self, sequences, seed):
        return StatesAt(sequences.steps[tf.newaxis], tf.size(sequences.all_starts))

    def call(self, given):
        return tf.reduce_sum(given.states.h, axis=-1)
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    (folder / "lib" / "my_package").mkdir(parents=True)
    (folder / "lib" / "my_package" / "waves.py").write_text(WAVES)
    (folder / "lib" / "my_package" / "rows.py").write_text(ROWS)
    (folder / "mine.gin").write_text(GIN)
    return folder


@pytest.fixture(scope="module")
def command(place):
    with Server(PYTHONPATH=f"{ROOT}:{place / 'lib'}") as server:

        def run(*arguments, status=0):
            done = server.run(place / "log", *arguments)
            text = (place / "log").read_text()
            assert done.returncode == status, text
            return text

        yield run


def test_a_source_of_ones_own_in_every_command(place, command):
    run, mine = f"--model_dir={place / 'run'}", f"--gin_file={place / 'mine.gin'}"
    command("train", run, mine)
    stored = (place / "run" / "config.gin").read_text()
    assert stored.startswith("import my_package.waves\n")
    # Resumed as it was configured, from its own configuration.
    assert "done already" in command("train", run)
    assert re.search(r"longest +12 +12\n", command("data", mine))
    other = command("data", "Waves", mine, "--gin_param=Waves.steps = 3")
    assert re.search(r"longest +3 +3\n", other)
    command("evaluate", run)
    found = json.loads((place / "run/evaluation/test/evaluation.json").read_text())
    assert (found["dataset"], found["examples"]) == ("waves", 24)
    command("evaluate", run, "--gin_param=dataset.max_examples = 6")
    assert (place / "run/evaluation/test-max_examples_6").is_dir()
    exported = place / "exports"
    command("export", run, f"--export_dir={exported}", "--formats=tflite", "--parity_examples=6")
    np.savez(place / "some.npz", inputs=np.zeros([2, 12, 1], np.float32))
    for model in (place / "run", exported):
        assert "square" in command("classify", f"--model={model}", place / "some.npz")


def test_a_loss_with_a_value_for_each_row_is_one_sentence(place, command):
    rows = place / "rows.gin"
    rows.write_text(f"import my_package.rows\n{GIN}\ntrain.auxiliary_losses = [@Rows]\n")
    text = command("train", f"--model_dir={place / 'rows'}", f"--gin_file={rows}", status=1)
    last = text.splitlines()[-1]
    assert last.startswith("t2aux: error: Rows.call ")
    assert "scalar" in last
    assert not (place / "rows").exists()


def test_a_core_and_a_loss_of_ones_own(tmp_path, monkeypatch):
    (tmp_path / "own_networks.py").write_text(NETWORKS)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "own.gin").write_text(
        "import own_networks\nClassifier.core = @OwnCore\ntrain.auxiliary_losses = [@OwnLoss]\n"
        "OwnLoss.length = 4\nOwnLoss.layers = 1\nOwnCore.forget_bias = 0.5\n"
    )
    text = config.parse(["quickstart", str(tmp_path / "own.gin")], [])
    assert text.startswith("import own_networks\n")
    (tmp_path / "config.gin").write_text(text)
    assert config.parse([str(tmp_path / "config.gin")], []) == text
    classifier = make_classifier(networks.vectors_info(length=12), seed=0)
    assert type(classifier.core).__name__ == "OwnCore"
    (make,) = gin.get_bindings("train")["auxiliary_losses"]
    assert make().length == 4


def test_a_label_that_is_no_class_is_one_sentence():
    class Wrong(data.Source):
        def read(self, split, options):
            info = data.DatasetInfo("wrong", "vectors", ("a", "b"), channels=1, length=2)
            return info, data.Table.of_rows(np.zeros([3, 2, 1], np.float32), np.array([0, 1, 2]))

    with pytest.raises(DataError, match=r"^Wrong .*label 2, .* 0 to 1"):
        data.load(Wrong(), "train")


@pytest.mark.parametrize(
    ("content", "line", "kind", "message"),
    [
        ("x = 1 / 0", "import own_broken_0", SettingError, "own_broken_0, .*ZeroDivisionError"),
        (
            "import nothing_of_this",
            "import own_broken_1",
            SettingError,
            "own_broken_1, .*nothing_of",
        ),
        ("", "import own_broken_2.more", DependencyError, "module own_broken_2.more: .*PYTHONPATH"),
        ("", "import os", SettingError, "imports os, "),
        ("", "from os import system", SettingError, "imports os.system, "),
        ("", "import t2aux.__main__", SettingError, "imports t2aux.__main__, "),
        ("", "from __gin__ import dynamic_registration", SettingError, "dynamic_registration, "),
    ],
)
def test_an_import_that_fails_is_one_sentence(tmp_path, monkeypatch, content, line, kind, message):
    name = line.split()[1].partition(".")[0]
    if name.startswith("own_"):
        (tmp_path / f"{name}.py").write_text(content)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "own.gin").write_text(f"\n{line}\n")
    with pytest.raises(kind, match=message) as caught:
        config.parse([str(tmp_path / "own.gin")], [])
    assert "own.gin, line 2" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_source_may_read_another(tmp_path, monkeypatch):
    (tmp_path / "own_half.py").write_text(HALF)
    (tmp_path / "own.gin").write_text(
        "import own_half\ntrain.data = @Half()\nHalf.whole = @digits()\ndigits.side = 4\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    config.parse(["quickstart_lstm", str(tmp_path / "own.gin")], ["digits.border = 0"])
    split = data.load(data.configured(), "test")
    assert (len(split), split.info.side, split.info.border) == (180, 4, 0)
    config.parse([str(tmp_path / "own.gin")], [])
    with gin.unlock_config():
        del gin_config._CONFIG["", "own_half.Half"]
    with pytest.raises(SettingError, match=r"--gin_param='Half\.whole = "), config.user_errors():
        data.configured()
    # As a function makes it.
    config.parse(["quickstart_lstm", str(tmp_path / "own.gin")], ["train.data = @small_digits()"])
    assert data.configured() == data.Digits(side=4, border=1)


def test_a_name_of_ours_is_not_to_be_taken(tmp_path, monkeypatch):
    (tmp_path / "own_csv.py").write_text(
        "import gin\nfrom t2aux import data\n@gin.configurable('csv')\nclass Mine(data.Npz): pass\n"
    )
    (tmp_path / "own.gin").write_text("import own_csv\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    # Its own copy() would share the tree of names.
    monkeypatch.setattr(gin_config, "_REGISTRY", copy.deepcopy(gin_config._REGISTRY))
    with pytest.raises(SettingError, match=r"own\.gin, line 1 .* csv, own_csv\.csv "):
        config.parse([str(tmp_path / "own.gin")], [])


def test_a_file_beside_a_gin_file_is_not_imported(tmp_path):
    (tmp_path / "own_beside.py").write_text("")
    (tmp_path / "config.gin").write_text("import own_beside\n")
    with pytest.raises(DependencyError, match=r"config\.gin, line 1 .*own_beside: .*PYTHONPATH"):
        config.parse([str(tmp_path / "config.gin")], [])
