"""The program itself, in subprocesses."""

import subprocess
import sys

import pytest

import t2aux as package
from t2aux.cli.main import COMMANDS
from tests.cli_helpers import assert_one_sentence, environment, t2aux


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"], ["help"]])
def test_help_lists_the_commands(arguments):
    out = t2aux(*arguments).stdout
    for name in COMMANDS:
        assert f"\n  {name} " in out
    assert max(map(len, out.splitlines())) <= 100


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_help_of_its_own(name):
    for arguments in ([name, "--help"], ["help", name]):
        out = t2aux(*arguments).stdout
        assert "Example" in out
        assert "\nFlags:\n" in out
        # The libraries' flags are not in it.
        assert "--showprefixforinfo" not in out
        assert max(map(len, out.splitlines())) <= 100


def test_helpfull_has_the_libraries_flags_as_well():
    assert "--verbosity" in t2aux("train", "--helpfull").stdout


def test_version():
    assert t2aux("--version").stdout.strip() == package.__version__


def test_mistakes():
    assert_one_sentence(t2aux("trian", check=False), "'trian'", " train?")
    done = t2aux("train", "--modle_dir=x", check=False)
    assert_one_sentence(done, " --modle_dir: ", " --model_dir?")
    done = t2aux("train", "--model_dir=x", "stray", check=False)
    assert_one_sentence(done, "'stray'")


def test_help_does_not_load_tensorflow():
    code = (
        "import sys; from t2aux.cli import main\n"
        "sys.argv = ['t2aux', '--help']\n"
        "try: main.main()\n"
        "except SystemExit: pass\n"
        "assert 'tensorflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], env=environment(), check=True, capture_output=True)


@pytest.mark.parametrize(
    ("flag", "content", "part"),
    [
        ("--noallow_changes=1", b"", "noallow_changes"),
        ("--allow_changes=maybe", b"", "--allow_changes=maybe"),
        ("--flagfile=flags", "--data_dir=\xe9".encode("latin-1"), "UTF-8"),
        ("--flagfile=absent", b"", "absent"),
    ],
)
def test_a_wrong_flag_is_one_sentence(tmp_path, monkeypatch, flag, content, part):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "flags").write_bytes(content)
    done = t2aux("train", "--model_dir=run", "--gin_file=quickstart", flag, check=False)
    assert_one_sentence(done, part)
    assert "ERROR::" not in done.stderr
    assert not (tmp_path / "run").exists()
