"""Standard streams that are closed, full, cut off or not UTF-8, and a user without a home."""

import json
import shlex
import shutil
import subprocess
import sys

import pytest

from t2aux.errors import FileError
from tests.cli_helpers import environment
from tests.small_exports import IMAGES, write
from tests.sources import load

LIGHT = [["--help"], ["--version"], ["train", "--help"], ["train", "--helpfull"], ["data"]]
WRONG = ["train", "--modle_dir=x"]
UID = 54321  # No user has it.


def shell(line, module="t2aux", arguments=(), **variables):
    """Runs a line of the shell in which COMMAND stands for the program."""
    command = shlex.join([sys.executable, "-m", module, *map(str, arguments)])
    return subprocess.run(
        ["bash", "-c", line.replace("COMMAND", command)],
        capture_output=True,
        # Buffered, as by default.
        env=environment(**{"PYTHONUNBUFFERED": "", **variables}),
        timeout=300,
    )


@pytest.mark.parametrize("arguments", LIGHT, ids=" ".join)
def test_help_and_lists(arguments):
    done = shell(
        "COMMAND >&- 2>&- <&-; echo $?; COMMAND > /dev/full; echo $?;"
        "COMMAND | head -c 1 >/dev/null; echo ${PIPESTATUS[0]}; COMMAND 2>/dev/full | wc -c",
        arguments=arguments,
    )
    closed, full, cut, size = done.stdout.decode().split()
    assert (closed, full, cut) == ("0", "1", "0")
    assert int(size) > 5
    (line,) = done.stderr.decode().splitlines()
    assert line.startswith("t2aux: error: ")
    assert "standard output" in line


def test_the_status_reports_a_mistake_that_can_not_be_written():
    done = shell("COMMAND 2>&-; echo $?; COMMAND 2>/dev/full; echo $?", arguments=WRONG)
    assert done.stdout.split() == [b"1", b"1"]


def test_a_command_does_its_work_with_closed_streams(tmp_path):
    # The files that it writes must not take the place of a closed stream.
    arguments = ["data", "digits", f"--picture={tmp_path / 'digits.png'}"]
    done = shell("COMMAND >&- 2>&- <&-; echo $?", arguments=arguments)
    assert done.stdout.split() == [b"0"], done.stderr
    assert (tmp_path / "digits.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.long
def test_tensorflow_does_its_work_with_closed_streams(trained, tmp_path):
    done = shell(
        "COMMAND >&- 2>&- <&-; echo $?",
        arguments=["evaluate", f"--model_dir={trained}", f"--output_dir={tmp_path}"],
    )
    assert done.stdout.split() == [b"0"], done.stderr
    assert json.loads((tmp_path / "evaluation.json").read_text())["examples"] > 0
    assert (tmp_path / "confusion.png").read_bytes().startswith(b"\x89PNG")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export") / "1"
    write(folder, IMAGES)
    from PIL import Image

    Image.new("L", (4, 4)).save(folder / "image.png")
    return folder


@pytest.mark.parametrize("module", ["t2aux_ondevice", "t2aux"])
def test_answers(model, module):
    arguments = [model / "classifier.tflite", model / "image.png"]
    if module == "t2aux":
        arguments = ["classify", f"--model={arguments[0]}", arguments[1]]
    done = shell(
        "COMMAND >&- 2>&-; echo $?; COMMAND > /dev/full; echo $?; COMMAND 2>&- | wc -l; "
        "COMMAND --help >/dev/full; echo $?; COMMAND --help | head -c 1 >/dev/null",
        module=module,
        arguments=arguments,
    )
    closed, full, lines, helped = done.stdout.split()
    assert (closed, full, helped) == (b"0", b"1", b"1")
    assert int(lines) > 2
    errors = done.stderr.decode().splitlines()
    assert len(errors) == 2, errors
    assert all(" error: " in line for line in errors), errors


@pytest.mark.parametrize(
    "variables",
    [
        {"PYTHONIOENCODING": "latin-1"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ],
    ids=["latin-1", "C"],
)
def test_a_terminal_that_lacks_characters_shows_escapes(tmp_path, variables):
    rows = "".join(f"\u65e5\u672c,words {i}\nca\u00fe,others {i}\n" for i in range(4))
    for split in ("train", "test"):
        (tmp_path / f"{split}.csv").write_text(rows, "utf-8")
    done = shell("COMMAND", arguments=["data", "csv", f"--data_dir={tmp_path}"], **variables)
    assert done.returncode == 0, done.stderr
    assert b"\\u65e5\\u672c" in done.stdout
    wrong = [f"{tmp_path}/\u65e5\u672c"]
    done = shell("COMMAND", arguments=["data", "csv", f"--data_dir={wrong[0]}"], **variables)
    assert done.returncode == 1
    assert b"Traceback" not in done.stderr


def as_nobody(*arguments, folder, **variables):
    """Runs a command with a user id that has no name and no home folder, and without HOME."""
    unshare = ["unshare", "--user", f"--map-user={UID}", f"--map-group={UID}"]
    kept = ("PATH", "PYTHONPATH", "TF_CPP_MIN_LOG_LEVEL")
    return subprocess.run(
        [*unshare, sys.executable, "-m", "t2aux", *map(str, arguments)],
        env={**{name: v for name, v in environment().items() if name in kept}, **variables},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.skipif(
    shutil.which("unshare") is None
    or subprocess.run(["unshare", "--user", f"--map-user={UID}", "true"], check=False).returncode,
    reason="unshare (util-linux) can't make another user here",
)
def test_a_user_without_home_and_name(trained, tmp_path):
    compiler = tmp_path / "c++"
    compiler.write_text("#!/bin/sh\ntest $1 = --version\n")
    compiler.chmod(0o755)
    folder = tmp_path / "mine"
    folder.mkdir()
    flags = [f"--model_dir={trained}", f"--output_dir={folder}"]
    done = as_nobody("evaluate", *flags, folder=folder, CXX=str(compiler))
    assert done.returncode == 0, done.stderr
    # It runs without the kernel, and says nothing else.
    assert "HOME" in done.stderr
    assert "Plain TensorFlow" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Matplotlib" not in done.stderr
    assert sorted(p.name for p in folder.iterdir()) == ["confusion.png", "evaluation.json"]


def test_tensorflow_datasets_needs_a_home_or_a_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", "")
    monkeypatch.delenv("T2AUX_DATA_DIR", raising=False)
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileError, match="--data_dir"):
        load("train", name="mnist")
    assert not list(tmp_path.iterdir())


def test_no_folder_for_temporary_files_is_one_sentence():
    code = (
        "import tempfile; from t2aux.cli import common; tempfile._candidate_tempdir_list = list\n"
    )
    code += "common.entry(tempfile.mkdtemp)"
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True)
    assert done.returncode == 1
    assert done.stderr.startswith(b"t2aux: error: ")
    assert b"TMPDIR" in done.stderr
    assert len(done.stderr.splitlines()) == 1
