"""`t2aux export` as users run it."""

import os
import signal

import pytest

from t2aux import run
from t2aux.errors import FileError, SettingError
from t2aux.export.pipeline import export
from t2aux_ondevice import litert
from tests.cli_helpers import assert_one_sentence, fork_server, t2aux
from tests.export.conftest import load


def command(model_dir, base, *more):
    arguments = [f"--model_dir={model_dir}", f"--export_dir={base}", "--checkpoint=ckpt-3", *more]
    return ["export", *arguments]


def names(base):
    return sorted(p.name for p in base.iterdir())


def test_exports_and_shows_the_table(model_dirs, tmp_path):
    model_dir = model_dirs("vectors")
    done = t2aux(*command(model_dir, tmp_path, "--version=7", "--parity_examples=5"))
    assert names(tmp_path) == ["7"]
    assert {litert.WHOLE, litert.STREAM, "saved_model.pb", "variables", "metadata.json"} <= set(
        names(tmp_path / "7")
    )
    lines = done.stdout.splitlines()
    assert lines[0] == f"The artefacts on 5 test examples of {model_dir.parent.name} (npz):"
    assert [line.split()[0] for line in lines[2:8]] == ["checkpoint"] + ["SavedModel"] * 3 + [
        litert.WHOLE,
        litert.STREAM,
    ]
    assert f"Exported to {tmp_path / '7'}" in done.stdout
    assert "Converting to TensorFlow Lite" in done.stderr


@pytest.mark.parametrize(
    ("flags", "parts"),
    [
        (["--version=0"], ["--version"]),
        (["extra"], ["'extra'", "--flag=value"]),
        (["--serving_batch_sizes=1,two"], ["--serving_batch_sizes", "two"]),
        (["--model_dir=/nowhere"], ["/nowhere", "--model_dir"]),
    ],
)
def test_mistakes_on_the_command_line(tmp_path, flags, parts):
    base = tmp_path / "base"
    done = t2aux(*command("x", base, *flags), check=False)
    assert_one_sentence(done, *parts)
    assert not base.exists()


@pytest.mark.parametrize("flag", ["export_dir", "model_dir"])
def test_flags_that_must_be_given(flag):
    other = {"export_dir": "--model_dir=x", "model_dir": "--export_dir=x"}[flag]
    assert_one_sentence(t2aux("export", other, check=False), f"--{flag}")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"formats": ["onnx"]}, "'onnx'.*saved_model.*tflite"),
        ({"formats": []}, "''.*saved_model.*tflite"),
        ({"segment": 0}, "segment .* 0 steps"),
        ({"serving_batch_sizes": [2, 1]}, "serving .* 2, 1"),
    ],
)
def test_mistakes(model_dirs, tmp_path, arguments, message):
    base = tmp_path / "base"
    with pytest.raises(SettingError, match=message):
        export(load(model_dirs("vectors")), base, **arguments)
    assert not base.exists()


def test_missing_test_data(model_dirs, tmp_path):
    settings = ["dataset.data_dir = '/nowhere'"]
    loaded = run.load_run(model_dirs("vectors"), "ckpt-3", settings)
    with pytest.raises(FileError, match="/nowhere"):
        export(loaded, tmp_path / "base")
    assert not (tmp_path / "base").exists()


def test_a_full_disk_leaves_nothing(model_dirs, tmp_path):
    base = tmp_path / "base"
    done = t2aux(*command(model_dirs("vectors"), base), check=False, limit=20_000)
    assert_one_sentence(done, str(base))
    assert not base.exists()


def test_a_stopped_export_leaves_nothing(model_dirs, tmp_path):
    base = tmp_path / "base"
    process = fork_server().start(tmp_path / "log", *command(model_dirs("vectors"), base))
    process.wait_until(lambda: "Writing the SavedModel" in process.stderr)
    assert any(name.startswith(".export-") for name in os.listdir(base))
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 128 + signal.SIGTERM
    assert "Traceback" not in process.stderr
    assert not base.exists()
