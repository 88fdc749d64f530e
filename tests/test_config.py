"""Strict configuration: every mistake is one sentence with the nearest right name."""

import contextlib
import pathlib
import typing

import gin
import pytest
from hypothesis import given
from hypothesis import strategies as st

import t2aux.training.train  # noqa: F401  Its configurables.
from t2aux import config
from t2aux.errors import DataError, SettingError, UserError
from t2aux.training.schedule import Phase

MISTAKES = [
    # A macro.
    (["BATCH_SZIE = 3"], ["macro BATCH_SZIE ", "'BATCH_SZIE = 3'", " BATCH_SIZE?"]),
    (["SHORT_EXAMPLES = 3"], ["macro SHORT_EXAMPLES ", "'SHORT_EXAMPLES = 3'", "remove"]),
    (
        ["train.batch_size = 3", "BATCH_SIZE = 4"],
        ["macro BATCH_SIZE ", "replaced"],
    ),
    (["train.seed = %CHRONO_STEPS"], ["%CHRONO_STEPS", "cores/", "CHRONO_STEPS = "]),
    (["train.seed = %SEEED"], ["%SEEED", "'train.seed = %SEEED'", " SEED?"]),
    # A configurable, a reference, a parameter.
    (["trian.seed = 3"], ["configurable 'trian'", " train?"]),
    (
        ["train.auxiliary_losses = [@Recnstruction]"],
        ["'Recnstruction'", " Reconstruction?"],
    ),
    (["train.sede = 3"], ["train ", "parameter 'sede'", " seed?"]),
    (["joint/Phase.epoch = 3"], ["Phase ", "parameter 'epoch'", " epochs?"]),
    (["train.model_dir = 'x'"], ["train ", "parameter 'model_dir'"]),
    # A scope.
    (["Joint/Phase.epochs = 3"], ["scope 'Joint'", " joint?"]),
    (["finetune/Phase.epochs = 3"], ["scope 'finetune'", "remove"]),
    (["Classifier.info = None"], ["Classifier ", "parameter 'info'"]),
    # A type.
    (["BATCH_SIZE = '64'"], ["train.batch_size ", "whole number", "'64' (str)"]),
    (["BATCH_SIZE = True"], ["train.batch_size ", "whole number", "True (bool)"]),
    (["BATCH_SIZE = 6.4"], ["train.batch_size ", "whole number", "6.4 (float)"]),
    (["BATCH_SIZE = None"], ["train.batch_size ", "whole number", "None (NoneType)"]),
    (["joint/Phase.supervised = 1"], ["joint/Phase.supervised ", "True or False", "1 (int)"]),
    (["SUPERVISED_BPTT = 'fll'"], ["train.supervised_bptt ", "'full'", "'fll'"]),
    (["dataset.data_dir = 3"], ["dataset.data_dir ", "None", "3 (int)"]),
    (["train.optimizer = 'adam'"], ["train.optimizer ", "@name", "'adam'"]),
    (["train.phases = 'joint'"], ["train.phases ", "list", "Phase", "@name()", "'joint'"]),
    # A required value.
    (
        ["PRETRAIN_EPOCHS = %gin.REQUIRED"],
        ["--gin_param='PRETRAIN_EPOCHS = ...'"],
    ),
    (["train.seed = %gin.REQUIRED"], ["train.seed ", "--gin_param='train.seed = ...'"]),
    # Syntax.
    (["train.seed == 3"], ["--gin_param='train.seed == 3'"]),
    (["train.seed = @"], ["--gin_param='train.seed = @'"]),
    (["train.seed = digits"], ["--gin_param='train.seed = digits'", " 'digits'"]),
    ([" "], ["--gin_param ", "'NAME = VALUE'"]),
    (["import os"], ["--gin_param='import os'", " os, "]),
    # A data source.
    (["csv.side = 3"], ["csv ", "parameter 'side'", "max_length, separator"]),
    (["digits.sied = 3"], ["digits ", "parameter 'sied'", " side?"]),
    (["mnist.side = 3"], ["mnist.side", "@digits()", "train.data = @mnist()"]),
    (["train.data = @minst()"], ["configurable 'minst'", " mnist?"]),
    (["train.data = @mnist"], ["train.data ", "@mnist, ", " @mnist()."]),
    (["train.data = @dataset()"], ["train.data ", "@dataset()", "@mnist()"]),
    (["train.data = @LSTM()"], ["train.data ", "@LSTM()", "@mnist()"]),
    (["train.data = 'mnist'"], ["train.data ", "Source", "@name()", "'mnist'"]),
    (["train.data = %gin.REQUIRED"], ["--gin_file", "datasets/mnist"]),
    (["train.optimizer = @LSTM"], ["train.optimizer", "@LSTM", "Optimizer"]),
    (["train.optimizer = @RMSprop()"], ["train.optimizer ", "@RMSprop(), ", " @RMSprop."]),
    (["Classifier.core = @Prediction"], ["Classifier.core", "Core"]),
    (["train.model = @GRU"], ["train.model ", "@GRU", "Classifier", "Transformer"]),
    (["train.auxiliary_losses = [@LSTM]"], ["train.auxiliary_losses ", "@LSTM", "AuxiliaryLoss"]),
    (
        ["train.auxiliary_losses = [@Reconstruction()]"],
        ["@Reconstruction(),", " @Reconstruction."],
    ),
    (
        ["train.auxiliary_losses = @Reconstruction"],
        ["list", "@Reconstruction (type)"],
    ),
    (["train.phases = [@joint/Phase]"], ["train.phases ", "@joint/Phase, ", " @joint/Phase()."]),
    (["train.phases = [@GRU()]"], ["train.phases", "Phase"]),
    (["include 'models/lst.gin'"], ["gin file 'models/lst.gin'", " models/lstm?"]),
]


@pytest.mark.parametrize(("params", "parts"), MISTAKES, ids=[m[0][0] for m in MISTAKES])
def test_a_mistake_is_one_sentence(params, parts):
    with pytest.raises(SettingError) as caught:
        config.parse(["quickstart"], params)
    assert "\n" not in str(caught.value)
    for part in parts:
        assert part in str(caught.value)


def test_an_error_in_a_file_names_file_and_line(tmp_path):
    for text, line in (
        ("include 'quickstart.gin'\n\ntrain.sede = 3\n", 3),
        ("include 'quickstart.gin'\nSEDE = 3\n", 2),
        ("# A comment.\ntrain.seed = = 3\n", 2),
    ):
        path = tmp_path / "mine.gin"
        path.write_text(text)
        with pytest.raises(SettingError, match=f"mine.gin, line {line}"):
            config.parse([str(path)], [])


def test_names_are_found_with_and_without_suffix_and_in_the_search_path(tmp_path, monkeypatch):
    text = config.parse(["quickstart"], [])
    assert config.parse(["quickstart.gin"], []) == text
    (tmp_path / "own.gin").write_text("include 'quickstart.gin'\nSEED = 7\n")
    assert "SEED = 7" in config.parse(["own"], [], [str(tmp_path)])
    monkeypatch.chdir(tmp_path)
    assert "SEED = 7" in config.parse(["own"], [])
    # A file beside the including one goes before a bundled one of that name.
    (tmp_path / "quickstart.gin").write_text("include 'base.gin'\nJOINT_EPOCHS = 3\n")
    with pytest.raises(SettingError, match=r"--gin_file=NAME.*datasets/csv"):
        config.parse([str(tmp_path / "own.gin")], [])


def test_modules_may_be_renamed_without_changes_to_gin_files():
    """Names in full, by the module where a configurable was first."""
    for name in ("train", "loop.train", "training.loop.train", "t2aux.training.loop.train"):
        assert "train.seed = 77" in config.parse(["quickstart"], [f"{name}.seed = 77"])


def test_files_that_include_each_other_are_refused(tmp_path):
    (tmp_path / "a.gin").write_text("include 'b.gin'\n")
    (tmp_path / "b.gin").write_text("include 'a.gin'\n")
    with pytest.raises(SettingError, match=r"/b\.gin .* a\.gin, "):
        config.parse([str(tmp_path / "a.gin")], [])


@pytest.mark.parametrize(
    ("content", "kind"), [(b"\xff\xfe\x00", DataError), (b"SEED = 'unfinished\n", SettingError)]
)
def test_a_damaged_file_is_refused(tmp_path, content, kind):
    (tmp_path / "bad.gin").write_bytes(content)
    with pytest.raises(kind, match=r"bad\.gin"):
        config.parse([str(tmp_path / "bad.gin")], [])


def test_later_settings_win_and_reach_the_call():
    config.parse(["quickstart"], ["JOINT_EPOCHS = 5", "LEARNING_RATE = 1"])
    with gin.config_scope("joint"):
        phase = Phase()
    assert (phase.name, phase.epochs, phase.learning_rate) == ("joint", 5, 1)


def test_what_a_replaced_setting_used_is_no_error():
    # SIDE must be set, but nothing uses it any more.
    files = ["paper/stanford_dogs", "models/lstm"]
    text = config.parse(files, ["stanford_dogs.side = 64"])
    assert "SIDE" not in text
    # Nor is what only an unused macro uses, nor what is set for a budget that is not named.
    assert "EPOCHS" not in config.parse(["models/lstm"], ["Phase.epochs = 1", "train.phases = []"])
    assert "SHORT_EXAMPLES" not in config.parse(["paper/mnist", "models/lstm"], [])
    # Nor is a scope that nothing refers to.
    config.parse(["base", "datasets/digits", "models/lstm"], ["JOINT_EPOCHS = 1"])


@pytest.mark.parametrize("name", ["quickstart", "quickstart_lstm", "paper/mnist", "paper/dbpedia"])
def test_the_parsed_text_parses_to_itself(name, tmp_path):
    text = config.parse([name, "models/lstm"], [])
    (tmp_path / "config.gin").write_text(text)
    assert config.parse([str(tmp_path / "config.gin")], []) == text


@given(st.integers(0, 2**31), st.sampled_from(["'full'", 0, 1, 300]))
def test_valid_values_pass(seed, bptt):
    config.parse(["quickstart"], [f"SEED = {seed}", f"SUPERVISED_BPTT = {bptt}"])
    assert gin.get_bindings("train")["seed"] == seed


@given(st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\r\n"), max_size=30))
def test_any_text_is_parsed_or_refused(setting):
    # Anything but a UserError fails the test.
    with contextlib.suppress(UserError):
        config.parse(["quickstart"], [setting])


@gin.configurable
def needs(value: int = gin.REQUIRED, choice: typing.Literal["a", "b"] = "a") -> tuple:
    return value, choice


def test_a_required_parameter_is_asked_for_at_the_call():
    config.parse([], ["needs.choice = 'b'"])
    with (
        pytest.raises(SettingError, match=r"--gin_param='needs\.value = "),
        config.user_errors(),
    ):
        needs()
    config.parse([], ["needs.value = 3", "needs.choice = 'b'"])
    assert needs() == (3, "b")
    with pytest.raises(SettingError, match=r"needs\.choice .*'a' or 'b', .*'c' \(str\)"):
        config.parse([], ["needs.value = 3", "needs.choice = 'c'"])


def test_bundled_files_are_listed_by_name():
    names = config.list_bundled()
    assert {"base", "quickstart", "paper/mnist", "models/r_lstm"} <= set(names)
    for name in names:
        assert pathlib.Path(config.bundled_gin_dir(), f"{name}.gin").read_text().startswith("#")
