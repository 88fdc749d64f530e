"""Odd paths: every path flag of every command, and runs and exports whose folders have any name."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import urllib.request

import numpy as np
import pytest
from PIL import Image

from t2aux.cli.main import COMMANDS
from t2aux.data import digits
from tests.cli.conftest import SHORT
from tests.cli_helpers import assert_one_sentence, environment, t2aux

# All in one name: patterns, quotes, control characters, other scripts, and bytes that are no UTF-8.
ODD = os.fsdecode(
    b"-[a]*?\\{b,c}:;%s#&$x!'\"(d)=|<e>@\n\t\x7f~ \xc3\xa9 e\xcc\x81 \xf0\x9f\x98\x80 \xe9 "
)
# What may look like a path and is none.
NOT_PATHS = {"gin_param", "host", "metadata_name", "model_name", "rows", "server", "signature"}
NOT_PATHS |= {"compression", "formats", "seeds", "serving_batch_sizes", "text", "variants"}
NOT_PATHS |= {"encoding", "label_column", "text_column", "split", "runner"}
# Each command in a process of its own: their flags have the same names.
EACH_COMMAND = """
import importlib, json, os, sys
from t2aux.cli import common, main
from t2aux_ondevice.errors import UserError
for name in main.COMMANDS:
    if os.fork():
        assert os.wait()[1] == 0
        continue
    importlib.import_module("t2aux.cli." + name.replace("-", "_"))
    for flag in common.own_flags():
        is_path, refused = isinstance(flag.parser, common.PathParser), []
        for value in json.loads(sys.argv[1]) if is_path else ():
            try:
                flag.parse(value)
            except UserError as error:
                refused.append(str(error))
        takes_text = type(flag.parser).__name__ in ("ArgumentParser", "ListParser", "CsvListParser")
        is_path = is_path and ("urls" if flag.parser.urls else "path")
        print(json.dumps([name, flag.name, is_path, takes_text, refused]), flush=True)
    os._exit(0)
"""
REFUSED = ["", "gs://bucket/x", "s3://b/x", "hdfs://h:1/x", "gs:/bucket", "S3:/b", "file:///tmp/x"]
REFUSED += ["dbfs:/x", "anything+else://x", "~nobody99/x", "x" * 300, "no/" + "x" * 256]
REFUSED += ["x/" * 3000, " gs://bucket/x", "a\0b"]


def test_every_path_flag_of_every_command_refuses_what_is_no_path():
    done = subprocess.run(
        [sys.executable, "-c", EACH_COMMAND, json.dumps(REFUSED)],
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert {command for command, *_ in found} == COMMANDS.keys() - {"completion"}  # Has none.
    for command, name, is_path, takes_text, refused in found:
        known = name in NOT_PATHS or (command, name) in (("client", "model"), ("predict", "model"))
        assert is_path or known or not takes_text, f"{command} --{name}: is it a path?"
        assert not (is_path and known), (command, name)
        if is_path:
            # With --runner these may be URLs; tests/pipelines has them without it.
            urls = [value for value in REFUSED if "://" in value and value[0] != " "]
            expected = len(REFUSED) - (len(urls) if is_path == "urls" else 0)
            assert len(refused) == expected, (command, name, refused)
            assert all(f"--{name}" in message and "\n" not in message for message in refused)
    paths = {(command, name) for command, name, is_path, *_ in found if is_path}
    urls = {(command, name) for command, name, is_path, *_ in found if is_path == "urls"}
    assert urls == {
        *(("predict", "data"), ("predict", "output")),
        *(("data", "data_dir"), ("data", "output_dir")),
    }
    assert {("train", "model_dir"), ("train", "gin_file"), ("serve", "ssl_config_file")} < paths
    assert {("export", "export_dir"), ("data", "picture"), ("classify", "model")} < paths


@pytest.mark.parametrize(
    ("arguments", "variables"),
    [
        (["train", "--model_dir=gs://bucket/runs/1", *SHORT], {}),
        (["train", "--model_dir=", *SHORT], {}),
        (["data", "csv"], {"T2AUX_DATA_DIR": "s3://bucket/x"}),
        (["data", "csv", "--gin_param=dataset.data_dir = 'gs://bucket/x'"], {}),
        (["data", "csv", "--gin_param=dataset.data_dir = ''"], {}),
        (["data", "csv", "--data_dir=~nobody99/x"], {}),
        (["data", "csv", "--data_dir=~/x"], {"HOME": ""}),
        (["report", "gs://bucket/x"], {}),
    ],
)
def test_nothing_is_written_before_a_path_is_refused(tmp_path, monkeypatch, arguments, variables):
    monkeypatch.chdir(tmp_path)
    assert_one_sentence(t2aux(*arguments, check=False, **variables))
    assert not list(tmp_path.iterdir())


def test_home_is_meant_by_a_tilde(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    home = tmp_path / "home"
    (home / "data").mkdir(parents=True)
    rows = "a,some words\nb,other words\na,and more\nb,and less\n" * 4
    for split in ("train", "test"):
        (home / "data" / f"{split}.csv").write_text(rows)
    for arguments, variables in (
        (["--data_dir=~/data"], {}),
        ([], {"T2AUX_DATA_DIR": "~/data"}),
        (["--gin_param=dataset.data_dir = '~/data'"], {"T2AUX_DATA_DIR": "/nowhere"}),
    ):
        done = t2aux("data", "csv", *arguments, HOME=str(home), **variables)
        assert "16" in done.stdout
    # A variable that is set to nothing is not set.
    assert_one_sentence(t2aux("data", "csv", check=False, T2AUX_DATA_DIR=""), "--data_dir")


@pytest.fixture(scope="module")
def odd(server, trained, tmp_path_factory):
    """A folder of such a name, with a run that was trained under a plain one."""
    folder = tmp_path_factory.mktemp("odd") / ODD
    folder.mkdir()
    shutil.copytree(trained, folder / ODD)
    # Siblings that a pattern would match as well.
    (folder.parent / "-a").mkdir()
    return folder


@pytest.fixture
def command(server, tmp_path):
    def run(*arguments):
        process = server.run(tmp_path / "log", *arguments)
        assert process.returncode == 0, process.stderr
        return process.stderr

    return run


@pytest.fixture(scope="module")
def exported(server, odd, tmp_path_factory):
    log = tmp_path_factory.mktemp("log") / "log"
    arguments = [f"--model_dir={odd / ODD}", f"--export_dir={odd / 'export'}"]
    process = server.run(log, "export", *arguments, "--parity_examples=5")
    assert process.returncode == 0, process.stderr
    return odd / "export"


def test_a_run_is_trained_and_resumed_there(command, odd):
    run = odd / f"new {ODD}"
    log = command("train", f"--model_dir={run}", *SHORT)
    assert "accuracy" in log
    assert list((run / "tensorboard").iterdir())
    assert sorted((run / "checkpoints").glob("ckpt-*.index"))
    # Done already: the checkpoint is found.
    before = (run / "metrics.jsonl").read_text()
    command("train", f"--model_dir={run}")
    assert (run / "metrics.jsonl").read_text() == before


def test_a_run_that_was_moved_there_is_read(command, odd):
    output = odd / f"evaluation {ODD}"
    command("evaluate", f"--model_dir={odd / ODD}", f"--output_dir={output}")
    assert json.loads((output / "evaluation.json").read_text())["examples"] > 0


def test_an_export_is_made_and_classified_with(command, odd, exported):
    image = odd / f"{ODD}.png"
    Image.fromarray(np.asarray(digits.test_image(3)[0], np.uint8)).save(image)
    for model in (exported, exported / "1" / "classifier.tflite", odd / ODD):
        answer = json.loads(
            command("classify", f"--model={model}", "--json", image).splitlines()[-1]
        )
        assert answer["input"] == str(image)


def test_an_export_is_served_from_there(server, odd, exported, tmp_path):
    base = odd / f"served {ODD}"
    shutil.copytree(exported, base)
    flags = ["--port=0", "--rest_api_port=0", "--model_name=m", f"--model_base_path={base}"]
    process = server.start(tmp_path / "log", "serve", *flags)
    process.wait_until(lambda: "REST at " in process.stderr)
    url = process.stderr.split("REST at ")[1].split()[0]
    body = json.dumps({"signature_name": "initial_state", "inputs": [0]}).encode()
    with urllib.request.urlopen(f"{url}:predict", body) as answer:
        assert "outputs" in json.load(answer)
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 0
    # Its own name can't be a model's.
    process = server.run(tmp_path / "log", "serve", *flags[:2], f"--model_base_path={base}")
    assert process.returncode == 1
    assert "--model_name" in process.stderr


def test_shards_are_written_and_read_there(command, odd):
    shards = odd / f"shards {ODD}"
    command(
        "data", "convert", "digits", f"--output_dir={shards}", "--gin_param=dataset.max_examples=20"
    )
    told = command("data", "shards", f"--data_dir={shards}", "--verify")
    assert "as they were written" in told
    picture = odd / f"{ODD}.png"
    command("data", "shards", f"--data_dir={shards}", f"--picture={picture}")
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("command", "flag"),
    [
        ("train", "--model_dir"),
        ("data", "--picture"),
        ("data", "--data_dir"),
        ("evaluate", "--output_dir"),
        ("serve", "--model_config_file"),
        ("train", "--gin_file"),
    ],
)
def test_a_folder_for_a_file_and_the_other_way_round(server, trained, tmp_path, command, flag):
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "file").write_text("x")
    takes_file = flag in ("--picture", "--model_config_file", "--gin_file")
    value = tmp_path / ("folder.png" if takes_file else "file")
    others = {
        "train": [] if flag == "--gin_file" else SHORT,
        "data": ["digits"] if flag == "--picture" else ["csv"],
        "evaluate": [f"--model_dir={trained}"],
        "serve": [],
    }[command]
    if flag == "--gin_file":
        others = [f"--model_dir={tmp_path / 'run'}"]
    process = server.run(tmp_path / "log", command, *others, f"{flag}={value}")
    errors = [line for line in process.stderr.splitlines() if line.startswith("t2aux: error: ")]
    assert process.returncode == 1, process.stderr
    assert len(errors) == 1, process.stderr
    assert "Traceback" not in process.stderr
    assert str(value) in errors[0]
    assert pathlib.Path(tmp_path / "file").read_text() == "x"
