"""The scripts that complete the command line, in the shells themselves."""

import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import time

import pytest

from t2aux import config
from t2aux.cli.main import COMMANDS
from tests.cli_helpers import assert_one_sentence, environment, t2aux


@pytest.fixture(scope="module")
def scripts(tmp_path_factory):
    """The scripts' paths, by shell."""
    folder = tmp_path_factory.mktemp("completion")
    paths = {"bash": folder / "t2aux.bash", "zsh": folder / "_t2aux"}
    for shell, path in paths.items():
        path.write_text(t2aux("completion", shell).stdout)
    return paths


@pytest.fixture
def place(tmp_path):
    """A working directory with some files."""
    (tmp_path / "my data").mkdir()
    (tmp_path / "runs" / "quick").mkdir(parents=True)
    for name in ("mine.gin", "photo one.png"):
        (tmp_path / name).touch()
    return tmp_path


def in_bash(script, place, line, breaks="=:"):
    """What bash completes the last word of a line with."""
    words = line.split(" ")
    if "=" in breaks:
        # As readline divides them.
        words = [part for w in words for part in filter(None, w.replace("=", "\0=\0").split("\0"))]
        words += [""] if line.endswith(" ") else []
    code = """
        complete() { function="${@: -2:1}"; }
        source "$1"; shift
        COMP_WORDS=("$@"); COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
        "$function"; printf '%s\\n' "${COMPREPLY[@]}"
    """
    done = subprocess.run(
        ["bash", "-c", code, "bash", script, *words],
        cwd=place,
        env={"HOME": str(place), "PATH": ""},
        capture_output=True,
        text=True,
        executable=shutil.which("bash"),
    )
    assert not done.stderr
    return done.stdout.rstrip("\n").split("\n") if done.stdout.strip() else []


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("t2aux eva", ["evaluate "]),
        ("t2aux train --mod", ["--model_dir="]),
        ("t2aux train --noal", ["--noallow_changes "]),
        ("t2aux train --gin_file=paper/mn", ["paper/mnist "]),
        ("t2aux train --gin_file paper/mn", ["paper/mnist "]),
        ("t2aux train --gin_file=min", ["mine.gin"]),
        (
            "t2aux train --gin_file=quickstart --gin_file=budgets/s",
            ["budgets/short ", "budgets/smoke "],
        ),
        ("t2aux train --model_dir=r", ["runs"]),
        ("t2aux train --model_dir=p", []),
        ("t2aux train --allow_changes r", []),
        ("t2aux evaluate --split=va", ["validation "]),
        ("t2aux evaluate --split=", ["test ", "train ", "validation "]),
        ("t2aux evaluate --checkpoint=b", ["best "]),
        ("t2aux data dig", ["digits "]),
        ("t2aux data --picture=pho", ["photo one.png"]),
        ("t2aux classify --model=m pho", ["photo one.png"]),
        ("t2aux reproduce figure", ["figure3 ", "figure4 ", "figure5 ", "figure6 "]),
        ("t2aux completion ", ["bash ", "zsh "]),
        ("t2aux help tr", ["train "]),
        ("t2aux nonsense --mod", []),
    ],
)
def test_bash_completes(scripts, place, line, found):
    started = time.monotonic()
    assert in_bash(scripts["bash"], place, line) == found
    assert time.monotonic() - started < 0.3 * 5  # The machine may be busy; 10 ms is common.


def test_bash_completes_where_words_are_not_divided_at_equals_signs(scripts, place):
    found = in_bash(scripts["bash"], place, "t2aux train --gin_file=paper/mn", breaks="")
    assert found == ["--gin_file=paper/mnist "]
    found = in_bash(scripts["bash"], place, "t2aux data --picture=mi", breaks="")
    assert found == ["--picture=mine.gin"]


def test_every_command_flag_and_gin_file_is_completed(scripts, place):
    assert {word.strip() for word in in_bash(scripts["bash"], place, "t2aux ")} == {
        *COMMANDS,
        *("help", "--help", "--version"),
    }
    found = in_bash(scripts["bash"], place, "t2aux train --gin_file=")
    assert [word.strip() for word in found] == config.list_bundled()
    for name in ("serve", "train", "demo-page"):
        described = t2aux(name, "--help").stdout
        flags = in_bash(scripts["bash"], place, f"t2aux {name} --")
        for flag in flags:
            with_value = flag.endswith("=")
            line = (
                f"\n  {flag}...\n" if with_value else f"\n  {flag.strip().replace('--no', '--')}\n"
            )
            assert line in described or flag == "--help ", flag
        assert described.count("\n  --") == len([f for f in flags if f.endswith("=")]) + sum(
            f.startswith("--no") for f in flags
        )


@pytest.mark.skipif(not shutil.which("zsh"), reason="zsh is not installed")
def test_zsh_completes(scripts, place):
    functions = scripts["zsh"].parent
    pid, terminal = pty.fork()
    if not pid:
        os.chdir(place)
        os.execvpe("zsh", ["zsh", "-f", "-i"], {**os.environ, "TERM": "dumb"})
    try:
        setup = f"fpath=({functions} $fpath); autoload -Uz compinit; compinit -u -D; echo rea''dy\n"
        shows(terminal, setup, "ready")
        for line, found in (
            ("t2aux eva\t", "t2aux evaluate "),
            ("t2aux train --mod\t", "--model_dir="),
            ("t2aux train --gin_file=paper/mn\t", "--gin_file=paper/mnist "),
            ("t2aux train --model_dir=r\t", "--model_dir=runs/"),
            ("t2aux evaluate --split=va\t", "--split=validation "),
            ("t2aux classify --model=m pho\t", "photo\\ one.png"),
        ):
            shows(terminal, line, found)
            os.write(terminal, b"\x15")  # Ctrl-U: the line is empty again.
    finally:
        os.close(terminal)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def shows(terminal, typed, awaited):
    """Asserts that a terminal shows something after something was typed."""
    os.write(terminal, typed.encode())
    deadline = time.monotonic() + 30
    shown = b""
    while awaited.encode() not in shown:
        assert time.monotonic() < deadline, shown
        if select.select([terminal], [], [], 0.1)[0]:
            shown += os.read(terminal, 65536)


def test_mistakes():
    assert_one_sentence(t2aux("completion", check=False), "bash or zsh", "t2aux completion bash")
    assert_one_sentence(t2aux("completion", "bsh", check=False), "'bsh'", " bash?")


def test_it_does_not_load_tensorflow():
    code = (
        "import sys\n"
        "from t2aux.cli import commands\n"
        "commands.read()\n"
        "assert 'tensorflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], env=environment(), check=True)
