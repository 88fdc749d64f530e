"""Settings as editors on other systems save them: byte order marks, UTF-16, line ends, capitals."""

import codecs
import pathlib

import pytest

import t2aux.training.train  # noqa: F401  Its configurables.
from t2aux import config
from t2aux.errors import DataError, SettingError, nearest
from t2aux.serving import configuration
from t2aux.serving.batching import BatchingOptions
from t2aux.serving.ssl_config import read_ssl_config

GIN = "# caf\u00e9\ninclude 'quickstart.gin'\nSEED = 7\n"
MODELS = "model_config_list { config { name: 'm' base_path: '/x' } }  # caf\u00e9\n"
BATCHING = "max_batch_size { value: 3 }  # caf\u00e9\n"
MONITORING = "prometheus_config { enable: true path: '/caf\u00e9' }\n"
READ = {
    "BOM": lambda text: codecs.BOM_UTF8 + text.encode(),
    "CRLF": lambda text: text.replace("\n", "\r\n").encode(),
    "BOM, CRLF": lambda text: codecs.BOM_UTF8 + text.replace("\n", "\r\n").encode(),
    "CR": lambda text: text.replace("\n", "\r").encode(),
    "no line end": lambda text: text.rstrip("\n").encode(),
}
REFUSED = {
    "latin-1": "UTF-8",
    "cp1252": "UTF-8",
    "utf-16": "UTF-16",  # With a byte order mark.
    "utf-16-le": "UTF-16",
    "utf-16-be": "UTF-16",
    "utf-32": "UTF-32",
}


def read_gin(path):
    text = config.parse([str(path)], [])
    assert "SEED = 7" in text


def read_models(path):
    (found,) = configuration.read_models(str(path))
    assert (found.name, found.base_path) == ("m", pathlib.Path("/x"))


def read_batching(path):
    assert configuration.read_batching(str(path), BatchingOptions()).max_batch_size == 3


def read_monitoring(path):
    assert configuration.read_monitoring_path(str(path)) == "/caf\u00e9"


FILES = {
    "gin": (GIN, read_gin),
    "models": (MODELS, read_models),
    "batching": (BATCHING, read_batching),
    "monitoring": (MONITORING, read_monitoring),
}


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("form", READ)
def test_a_file_is_read_with_any_mark_and_line_ends(tmp_path, file, form):
    if form == "CR" and file != "gin":
        pytest.skip("protobuf's comments end at a line feed")
    text, read = FILES[file]
    path = tmp_path / "file"
    path.write_bytes(READ[form](text))
    read(path)


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("encoding", REFUSED)
def test_another_encoding_is_named(tmp_path, file, encoding):
    text, read = FILES[file]
    path = tmp_path / "file"
    path.write_bytes(text.encode(encoding))
    with pytest.raises(DataError, match=REFUSED[encoding]) as caught:
        read(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_included_file_and_an_ssl_config_in_another_encoding(tmp_path):
    (tmp_path / "inner.gin").write_bytes("SEED = 7\n".encode("utf-16"))
    (tmp_path / "outer.gin").write_text("include 'inner.gin'\n")
    with pytest.raises(DataError, match=r"/inner\.gin .*UTF-8 .*UTF-16"):
        config.parse([str(tmp_path / "outer.gin")], [])
    (tmp_path / "ssl").write_bytes(codecs.BOM_UTF8 + b"server_key: 'x'")
    with pytest.raises(SettingError, match=r"/ssl .*server_key: .*-----BEGIN"):
        read_ssl_config(str(tmp_path / "ssl"))


@pytest.mark.parametrize(
    "setting", ["dataset.data_dir = 'caf\udce9'", "dataset.splits = ('\x7f', '\udce9')"]
)
def test_a_setting_of_other_bytes_is_read(setting):
    text = config.parse(["quickstart"], [setting])
    assert text.isascii()
    assert "\\udce9" in text


@pytest.mark.parametrize(
    "setting", ["caf\udce9 = 3", "dataset.data_dir = 'a\0b'", "\ufeffSEED = 7"]
)
def test_a_setting_that_is_not_text_is_one_sentence(setting):
    with pytest.raises(SettingError, match="--gin_param") as caught:
        config.parse(["quickstart"], [setting])
    assert "\n" not in str(caught.value)
    assert "configurable '" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "meant"),
    [
        (["batch_size=64"], "BATCH_SIZE"),
        (["Batch_Size=64"], "BATCH_SIZE"),
        (["batchsize=64"], "BATCH_SIZE"),
        (["train.seed = %seed"], "SEED"),
        (["Train.seed = 3"], "train"),
        (["train.SEED = 3"], "seed"),
        (["TRAIN.auxiliary_losses = []"], "train"),
        (["train.auxiliary_losses = [@reconstruction]"], "Reconstruction"),
        (["include 'Models/LSTM.gin'"], "models/lstm"),
    ],
    ids=lambda value: str(value),
)
def test_capitals_do_not_hide_the_nearest_name(settings, meant):
    with pytest.raises(SettingError, match=rf": .* {meant}\?$"):
        config.parse(["quickstart"], settings)


def test_nearest():
    assert nearest("LR", ["lr", "LRS"]) == "lr"
    assert nearest("Lr", ["lr", "LR", "Lr"]) == "Lr"
    assert nearest("zzz", ["abc"]) is None
    assert nearest("x", []) is None
    assert nearest("x" * 10**6, ["x"]) is None
