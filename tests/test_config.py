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
from t2aux.errors import UserError
from t2aux.training.schedule import Phase

MISTAKES = [
    # A macro.
    (["BATCH_SZIE = 3"], ["macro BATCH_SZIE", "nothing uses it: did you mean BATCH_SIZE?"]),
    (["SHORT_EXAMPLES = 3"], ["macro SHORT_EXAMPLES", "nothing uses it"]),
    (["train.batch_size = 3", "BATCH_SIZE = 4"], ["BATCH_SIZE is set", "remove one of the two"]),
    (["train.seed = %CHRONO_STEPS"], ["%CHRONO_STEPS", "the files of cores/ do"]),
    (["train.seed = %SEEED"], ["%SEEED", "nothing defines it: did you mean SEED?"]),
    # A configurable, a reference, a parameter.
    (["trian.seed = 3"], ["configurable 'trian'", "did you mean train?"]),
    (["train.auxiliary_losses = [@Recnstruction]"], ["did you mean Reconstruction?"]),
    (["train.sede = 3"], ["no parameter 'sede'", "did you mean seed?"]),
    (["joint/Phase.epoch = 3"], ["no parameter 'epoch'", "did you mean epochs?"]),
    (["train.model_dir = 'x'"], ["no parameter 'model_dir'"]),
    # A scope.
    (["Joint/Phase.epochs = 3"], ["scope 'Joint'", "did you mean joint?"]),
    (["finetune/Phase.epochs = 3"], ["scope 'finetune'", "remove"]),
    (["Classifier.info = None"], ["no parameter 'info'"]),
    # A type.
    (["BATCH_SIZE = '64'"], ["train.batch_size must be a whole number, but is '64' (str)"]),
    (["BATCH_SIZE = True"], ["must be a whole number, but is True"]),
    (["BATCH_SIZE = 6.4"], ["must be a whole number, but is 6.4"]),
    (["BATCH_SIZE = None"], ["must be a whole number, but is None"]),
    (["joint/Phase.supervised = 1"], ["joint/Phase.supervised must be True or False"]),
    (["SUPERVISED_BPTT = 'fll'"], ["a whole number or 'full'"]),
    (["dataset.data_dir = 3"], ["a text in quotes or None"]),
    (["train.optimizer = 'adam'"], ["a reference such as @name"]),
    (["train.phases = 'joint'"], ["train.phases must be a list"]),
    # A required value.
    (["PRETRAIN_EPOCHS = %gin.REQUIRED"], ["PRETRAIN_EPOCHS must be set"]),
    (["train.seed = %gin.REQUIRED"], ["train.seed must be set"]),
    # Syntax.
    (["train.seed == 3"], ["Can't read the setting", "train.seed == 3"]),
    (["train.seed = @"], ["Can't read the setting"]),
    (["train.seed = digits"], ["Can't read the setting", "'train.seed = digits': Failed to parse"]),
    ([" "], ["--gin_param is empty"]),
    (["import os"], ["imports os", "nothing that a configuration can name"]),
    # A data source.
    (["csv.side = 3"], ["csv has no parameter 'side'", "max_length, separator"]),
    (["digits.sied = 3"], ["digits has no parameter 'sied'", "did you mean side?"]),
    (["mnist.side = 3"], ["mnist.side", "@digits()", "train.data = @mnist()"]),
    (["train.data = @minst()"], ["did you mean mnist?"]),
    (["train.data = @mnist"], ["write @mnist()"]),
    (["train.data = @dataset()"], ["@dataset(), which is not a data source"]),
    (["train.data = @LSTM()"], ["@LSTM(), which is not a data source"]),
    (["train.data = 'mnist'"], ["train.data must be a reference to a Source"]),
    (["train.data = %gin.REQUIRED"], ["no data set", "datasets/mnist"]),
    (["train.optimizer = @LSTM"], ["train.optimizer", "@LSTM", "Optimizer"]),
    (["train.optimizer = @RMSprop()"], ["@RMSprop(), with parentheses"]),
    (["Classifier.core = @Prediction"], ["Classifier.core", "Core"]),
    (["train.model = @GRU"], ["Classifier or Transformer"]),
    (["train.auxiliary_losses = [@LSTM]"], ["AuxiliaryLoss"]),
    (["train.auxiliary_losses = [@Reconstruction()]"], ["@Reconstruction(), with parentheses"]),
    (["train.auxiliary_losses = @Reconstruction"], ["a list of a reference", "is @Reconstruction"]),
    (["train.phases = [@joint/Phase]"], ["@joint/Phase, without parentheses"]),
    (["train.phases = [@GRU()]"], ["train.phases", "Phase"]),
    (["include 'models/lst.gin'"], ["no gin file 'models/lst.gin'", "models/lstm"]),
]


@pytest.mark.parametrize(("params", "parts"), MISTAKES, ids=[m[0][0] for m in MISTAKES])
def test_a_mistake_is_one_sentence(params, parts):
    with pytest.raises(UserError) as caught:
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
        with pytest.raises(UserError, match=f"mine.gin, line {line}"):
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
    with pytest.raises(UserError, match="names no data set"):
        config.parse([str(tmp_path / "own.gin")], [])


def test_modules_may_be_renamed_without_changes_to_gin_files():
    """Names in full, by the module where a configurable was first."""
    for name in ("train", "loop.train", "training.loop.train", "t2aux.training.loop.train"):
        assert "train.seed = 77" in config.parse(["quickstart"], [f"{name}.seed = 77"])


def test_files_that_include_each_other_are_refused(tmp_path):
    (tmp_path / "a.gin").write_text("include 'b.gin'\n")
    (tmp_path / "b.gin").write_text("include 'a.gin'\n")
    with pytest.raises(UserError, match="includes it in turn"):
        config.parse([str(tmp_path / "a.gin")], [])


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"SEED = 'unfinished\n"])
def test_a_damaged_file_is_refused(tmp_path, content):
    (tmp_path / "bad.gin").write_bytes(content)
    with pytest.raises(UserError, match=r"bad\.gin"):
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
    with pytest.raises(UserError, match=r"needs\.value must be set"), config.user_errors():
        needs()
    config.parse([], ["needs.value = 3", "needs.choice = 'b'"])
    assert needs() == (3, "b")
    with pytest.raises(UserError, match=r"needs\.choice must be 'a' or 'b', but is 'c'"):
        config.parse([], ["needs.value = 3", "needs.choice = 'c'"])


def test_bundled_files_are_listed_by_name():
    names = config.list_bundled()
    assert {"base", "quickstart", "paper/mnist", "models/r_lstm"} <= set(names)
    for name in names:
        assert pathlib.Path(config.bundled_gin_dir(), f"{name}.gin").read_text().startswith("#")
