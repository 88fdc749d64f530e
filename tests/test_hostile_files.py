"""Configurations and descriptions that were made to do harm."""

import json

import numpy as np
import pytest

import t2aux.training.train  # noqa: F401  Its configurables.
from t2aux import config, files
from t2aux.errors import DataError, ModelError, SettingError
from t2aux.tf_serving import protos
from t2aux_ondevice.answers import Answer
from t2aux_ondevice.errors import printable
from t2aux_ondevice.litert import LiteRTClassifier
from t2aux_ondevice.preprocessing import DatasetInfo
from tests import small_exports


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        (["A = %B", "B = %A", "train.seed = %A"], "^A .*itself"),
        (["A = [%A]", "Adam.learning_rate = {'a': %A}"], "^A .*itself"),
        (["train.seed = " + "[" * 3000 + "]" * 3000], "--gin_param='train.seed = .*nested"),
        (["train.seed = " + "[" * 60 + "]" * 60], r"^train\.seed .*nested"),
        (["Adam.learning_rate = @Adam()"], "^Adam refers to itself"),
        (
            ["A = @x/Adam()", "x/Adam.learning_rate = [%A]", "train.seed = %A"],
            "^A refers to itself",
        ),
        (["dataset.data_dir = {[1]: 2}"], "--gin_param=.*data_dir .*unhashable"),
        (["import os"], "--gin_param='import os' "),
        (["train.seed = __import__('os').getpid()"], r"--gin_param=.*getpid\(\).*'__import__'"),
        (["include '" + "x" * 5000 + "'"], "gin file 'xxx.*datasets/csv"),
        (["include 'a\\x00b'"], r"gin file 'a\\x00b' .*datasets/csv"),
    ],
    ids=range(11),
)
def test_gin_text(settings, part):
    with pytest.raises(SettingError, match=part) as caught:
        config.parse(["quickstart"], settings)
    assert "\n" not in printable(str(caught.value))


def test_a_gin_file_under_many_names(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.gin").write_text("include 'sub/../a.gin'\n")
    with pytest.raises(SettingError, match=r"/a\.gin .*sub/\.\./a\.gin, "):
        config.parse([str(tmp_path / "a.gin")], [])


def test_deep_json(tmp_path):
    (tmp_path / "dataset.json").write_text("[" * 100_000)
    with pytest.raises(DataError, match=r"/dataset\.json .*JSON .*recursion"):
        files.read_json(tmp_path / "dataset.json")


def test_a_description_can_not_ask_for_any_memory():
    described = small_exports.IMAGES.to_json()
    with pytest.raises(ModelError, match=r"dataset\.json .* 1,000,000,000,000 pixels"):
        DatasetInfo.from_json({**described, "side": 10**6, "length": 10**12})
    described = {**described, "border": 10**9, "permutation_seed": 1}
    with pytest.raises(ModelError, match=r"dataset\.json .* 4,000,000,016,000,000,016 pixels"):
        DatasetInfo.from_json({**described, "length": (4 + 2 * 10**9) ** 2})


def test_a_variant_is_not_a_path(tmp_path):
    small_exports.write(tmp_path / "it", small_exports.VECTORS)
    path = tmp_path / "it" / "metadata.json"
    metadata = json.loads(path.read_text())
    metadata["artefacts"]["classifier.tflite"]["variant"] = "/../../../other"
    path.write_text(json.dumps(metadata))
    with pytest.raises(ModelError, match=r"/metadata\.json .*`artefacts`"):
        LiteRTClassifier(tmp_path / "it" / "classifier.tflite")


def test_a_server_can_not_ask_for_any_memory():
    for shape in ((2**40,), (2**20, 2**20), (-1,)):
        tensor = protos.filled_tensor(shape, 0.5, np.float32)
        with pytest.raises(ValueError, match=rf"\[{shape[0]}\b"):
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
