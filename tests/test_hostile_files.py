"""Configurations and descriptions that somebody made in order to harm."""

import json

import numpy as np
import pytest

import t2aux.training.train  # noqa: F401  Its configurables.
from t2aux import config, files
from t2aux.errors import UserError
from t2aux.tf_serving import protos
from t2aux_ondevice.answers import Answer
from t2aux_ondevice.errors import printable
from t2aux_ondevice.litert import LiteRTClassifier
from t2aux_ondevice.preprocessing import DatasetInfo
from tests import small_exports


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        (["A = %B", "B = %A", "train.seed = %A"], "holds itself"),
        (["A = [%A]", "Adam.learning_rate = {'a': %A}"], "holds itself"),
        (["train.seed = " + "[" * 3000 + "]" * 3000], "nested too deep"),
        (["train.seed = " + "[" * 60 + "]" * 60], "nested too deep"),
        (["Adam.learning_rate = @Adam()"], "calls Adam again"),
        (
            ["A = @x/Adam()", "x/Adam.learning_rate = [%A]", "train.seed = %A"],
            "remove one",
        ),
        (["dataset.data_dir = {[1]: 2}"], "can't be read"),
        (["import os"], "nothing that a configuration can name"),
        (["train.seed = __import__('os').getpid()"], "Can't read the setting"),
        (["include '" + "x" * 5000 + "'"], "no gin file"),
        (["include 'a\\x00b'"], "no gin file"),
    ],
    ids=range(11),
)
def test_gin_text(settings, part):
    with pytest.raises(UserError, match=part) as caught:
        config.parse(["quickstart"], settings)
    assert "\n" not in printable(str(caught.value))


def test_a_gin_file_under_many_names(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.gin").write_text("include 'sub/../a.gin'\n")
    with pytest.raises(UserError, match="includes it in turn"):
        config.parse([str(tmp_path / "a.gin")], [])


def test_deep_json(tmp_path):
    (tmp_path / "dataset.json").write_text("[" * 100_000)
    with pytest.raises(UserError, match="not valid JSON"):
        files.read_json(tmp_path / "dataset.json")


def test_a_description_can_not_ask_for_any_memory():
    described = small_exports.IMAGES.to_json()
    with pytest.raises(UserError, match="too many"):
        DatasetInfo.from_json({**described, "side": 10**6, "length": 10**12})
    described = {**described, "border": 10**9, "permutation_seed": 1}
    with pytest.raises(UserError, match="too many"):
        DatasetInfo.from_json({**described, "length": (4 + 2 * 10**9) ** 2})


def test_a_variant_is_not_a_path(tmp_path):
    small_exports.write(tmp_path / "it", small_exports.VECTORS)
    path = tmp_path / "it" / "metadata.json"
    metadata = json.loads(path.read_text())
    metadata["artefacts"]["classifier.tflite"]["variant"] = "/../../../other"
    path.write_text(json.dumps(metadata))
    with pytest.raises(UserError, match="damaged in its entry `artefacts`"):
        LiteRTClassifier(tmp_path / "it" / "classifier.tflite")


def test_a_server_can_not_ask_for_any_memory():
    for shape in ((2**40,), (2**20, 2**20), (-1,)):
        tensor = protos.filled_tensor(shape, 0.5, np.float32)
        with pytest.raises(ValueError, match="a tensor of the shape"):
            protos.to_array(tensor)


def test_names_do_not_control_the_terminal():
    name = "\x1b[2Jcat\n\r\u202e"
    answer = Answer("x", name, (name, name), (0, 1), (0.75, 0.25), 1, 1)
    shown = [answer.heading(), answer.line(), *answer.lines().split("\n")]
    assert len(shown) == 5
    for line in shown:
        assert line.isprintable(), line
        assert "\\x1b[2Jcat" in line
    assert printable("é ☃") == "é ☃"
    assert len(printable("a" * 10_000)) < 2100
