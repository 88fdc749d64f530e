"""`t2aux export` as users run it."""

import os
import resource
import signal
import subprocess
import sys

import pytest

from t2aux import run
from t2aux.errors import UserError
from t2aux.export.pipeline import export
from t2aux_ondevice import litert
from tests.cli_helpers import assert_one_sentence, environment, t2aux
from tests.export.conftest import load


def command(model_dir, base, *more):
    arguments = [f"--model_dir={model_dir}", f"--export_dir={base}", "--checkpoint=ckpt-3", *more]
    return [sys.executable, "-m", "t2aux", "export", *arguments]


def names(base):
    return sorted(p.name for p in base.iterdir())


def test_exports_and_shows_the_table(model_dirs, tmp_path):
    done = subprocess.run(
        command(model_dirs("grey"), tmp_path, "--version=7", "--parity_examples=5"),
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert names(tmp_path) == ["7"]
    assert {litert.WHOLE, litert.STREAM, "saved_model.pb", "variables", "metadata.json"} <= set(
        names(tmp_path / "7")
    )
    lines = done.stdout.splitlines()
    assert lines[0] == "The artefacts on 5 test examples of digits:"
    assert [line.split()[0] for line in lines[2:9]] == ["checkpoint"] + ["SavedModel"] * 4 + [
        litert.WHOLE,
        litert.STREAM,
    ]
    assert f"Exported to {tmp_path / '7'}" in done.stdout
    assert "Converting to TensorFlow Lite" in done.stderr


@pytest.mark.parametrize(
    ("flags", "parts"),
    [
        (["--version=0"], ["--version"]),
        (["extra"], ["takes flags only", "extra"]),
        (["--serving_batch_sizes=1,two"], ["--serving_batch_sizes", "two"]),
        (["--model_dir=/nowhere"], ["/nowhere is not a model directory"]),
    ],
)
def test_mistakes_on_the_command_line(tmp_path, flags, parts):
    base = tmp_path / "base"
    done = subprocess.run(
        command("x", base, *flags), env=environment(), capture_output=True, text=True
    )
    assert_one_sentence(done, *parts)
    assert not base.exists()


@pytest.mark.parametrize("flag", ["export_dir", "model_dir"])
def test_flags_that_must_be_given(flag):
    other = {"export_dir": "--model_dir=x", "model_dir": "--export_dir=x"}[flag]
    assert_one_sentence(t2aux("export", other, check=False), f"--{flag}")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"formats": ["onnx"]}, "'onnx': .*saved_model or tflite"),
        ({"formats": []}, "'': .*saved_model or tflite"),
        ({"segment": 0}, "A segment has 0 steps"),
        ({"serving_batch_sizes": [2, 1]}, "The batch sizes for serving are 2, 1"),
    ],
)
def test_mistakes(model_dirs, tmp_path, arguments, message):
    base = tmp_path / "base"
    with pytest.raises(UserError, match=message):
        export(load(model_dirs("vectors")), base, **arguments)
    assert not base.exists()


def test_missing_test_data(model_dirs, tmp_path):
    settings = ["dataset.data_dir = '/nowhere'"]
    loaded = run.load_run(model_dirs("vectors"), "ckpt-3", settings)
    with pytest.raises(UserError, match="/nowhere"):
        export(loaded, tmp_path / "base")
    assert not (tmp_path / "base").exists()


def test_a_full_disk_leaves_nothing(model_dirs, tmp_path):
    base = tmp_path / "base"
    done = subprocess.run(
        command(model_dirs("vectors"), base),
        env=environment(),
        capture_output=True,
        text=True,
        # No file may grow beyond this: like a full disk, it comes during the write.
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)),
    )
    assert_one_sentence(done, "Can't write", str(base))
    assert not base.exists()


def test_a_stopped_export_leaves_nothing(model_dirs, tmp_path):
    base = tmp_path / "base"
    process = subprocess.Popen(
        command(model_dirs("vectors"), base),
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
    )
    for line in process.stderr:
        if line.startswith("Writing the SavedModel"):
            break
    assert any(name.startswith(".export-") for name in os.listdir(base))
    process.send_signal(signal.SIGTERM)
    rest = process.communicate()[1]
    assert process.returncode == 128 + signal.SIGTERM
    assert "Traceback" not in rest
    assert not base.exists()
