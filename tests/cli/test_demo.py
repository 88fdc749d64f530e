"""The demo: in seconds as far as the commands go, in minutes for what it promises."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import types

import pytest

from t2aux.cli import demo
from t2aux.errors import ModelError
from t2aux_ondevice import litert
from tests.cli.conftest import SHORT
from tests.cli_helpers import environment, t2aux


def accuracy(model_dir):
    return json.loads((model_dir / "evaluation/test/evaluation.json").read_text())["accuracy"]


def test_the_demo_walks_the_whole_way(trained, tmp_path, monkeypatch, capsys):
    root = tmp_path / "demo"
    # As it would be after Ctrl-C: its first run is done.
    shutil.copytree(trained, root / "r_lstm")
    settings = [flag.removeprefix("--gin_param=") for flag in SHORT[1:]]
    flags = (("_OUTPUT_DIR", str(root)), ("_GIN_PARAM", settings))
    for name, value in flags:
        monkeypatch.setattr(demo, name, types.SimpleNamespace(value=value))

    def run(*arguments):
        print("$ t2aux", *arguments)
        # The README's commands make a SavedModel, too.
        less = ["--formats=tflite", "--parity_examples=10"] if arguments[0] == "export" else []
        print(t2aux(*arguments, *less).stdout)

    # Forked, which spares the import of TensorFlow in each.
    monkeypatch.setattr(demo, "_run", run)
    assert demo.main(["t2aux"]) == 0
    printed = capsys.readouterr().out
    for command in ("train", "evaluate", "export", "classify"):
        assert f"$ t2aux {command} " in printed
    version = root / "export" / "1"
    for path in (
        root / "r_lstm",
        root / "lstm",
        root / "r_lstm" / "evaluation" / "test" / "confusion.png",
        version / litert.WHOLE,
        version / litert.STREAM,
        version / "parity.json",
        root / "digit.png",
    ):
        assert path.exists()
        assert str(path) in printed


def test_a_command_of_the_demo_is_shown_and_may_fail(capfd):
    # A command that does not import TensorFlow.
    with pytest.raises(ModelError, match=r"t2aux classify .* 1: "):
        demo._run("classify", "--model=no_model_has_this_name", "x")
    printed = capfd.readouterr()
    assert printed.out.startswith("\n$ t2aux classify --model=no_model_has_this_name x\n")
    assert "no_model_has_this_name" in printed.err


@pytest.mark.long
def test_ctrl_c_saves_the_run_in_progress(tmp_path):
    command = [sys.executable, "-m", "t2aux", "demo", f"--output_dir={tmp_path}"]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            [
                *command,
                "--gin_param=dataset.max_examples = 40",
                "--gin_param=RunConfig.log_every = 1",
            ],
            env=environment(),
            stdout=log,
            stderr=log,
            # A terminal sends it to all processes of the group.
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
    deadline = time.monotonic() + 120
    while "steps/s" not in (tmp_path / "log").read_text() and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(120) == 130
    said = (tmp_path / "log").read_text()
    assert "the run is saved at step" in said
    assert "same command" in said
    assert "Traceback" not in said
    assert list((tmp_path / "r_lstm" / "checkpoints").glob("*.index"))


@pytest.mark.long
def test_the_demo_keeps_its_promise(tmp_path):
    t2aux("demo", f"--output_dir={tmp_path}", timeout=900)
    # Again: the runs are done already, and the next version is made.
    again = t2aux("demo", f"--output_dir={tmp_path}", timeout=900)
    assert str(tmp_path / "export" / "2") in again.stdout
    r_lstm, lstm = accuracy(tmp_path / "r_lstm"), accuracy(tmp_path / "lstm")
    assert r_lstm >= 0.9
    assert lstm < r_lstm - 0.3
    artefacts = json.loads((tmp_path / "export/1/parity.json").read_text())["artefacts"]
    assert abs(artefacts[litert.WHOLE]["accuracy"] - r_lstm) <= 0.002
    operative = (tmp_path / "r_lstm" / "config.gin").read_text()
    assert "SUPERVISED_BPTT = 8" in operative  # Of 64 steps.
