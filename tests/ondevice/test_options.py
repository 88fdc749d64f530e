"""The command lines of both clients for devices: options and inputs in any order."""

import json
import subprocess
import sys

import numpy as np
import pytest

from t2aux_ondevice import litert
from tests import cli_helpers, small_exports
from tests.ondevice.test_cpp_example import answers, fails, run, sequence_of


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    place = tmp_path_factory.mktemp("export")
    small_exports.write(place / "vectors", small_exports.VECTORS)
    small_exports.write(place / "text", small_exports.TEXT)
    return place


# t2aux-ondevice.


def python(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "t2aux_ondevice", *map(str, arguments)],
        capture_output=True,
        text=True,
        env=cli_helpers.environment(
            PYTHONPATH=f"{cli_helpers.ROOT / 'export/ondevice/python'}:{cli_helpers.ROOT}"
        ),
        timeout=120,
    )


@pytest.fixture
def arrays(tmp_path):
    np.savez(tmp_path / "x.npz", inputs=np.random.default_rng(0).random([1, 16, 2]))
    np.savez(tmp_path / "y.npz", inputs=np.random.default_rng(1).random([1, 16, 2]))
    return tmp_path / "x.npz", tmp_path / "y.npz"


def test_inputs_stand_before_between_and_after_the_options(export, arrays):
    model, (x, y) = export / "vectors" / litert.STREAM, arrays
    expected = python(model, x, y, "--stream", "--segment=8", "--top=2")
    assert expected.returncode == 0, expected.stderr
    assert expected.stdout.count("16 steps") == 2
    for arguments in (
        [model, "--stream", "--segment=8", "--top=2", x, y],
        ["--stream", "--segment", "8", "--top", "2", model, x, y],
        ["--stream", model, "--segment=8", x, "--top", "2", y],
        [model, x, "--stream", y, "--segment=8", "--top=2"],
        ["--stream", "--segment=8", "--top=2", "--", model, x, y],
        [model, "--top=2", "--segment=8", x, "--stream", "--", y],
    ):
        done = python(*arguments)
        assert (done.returncode, done.stdout) == (0, expected.stdout), done.stderr


def test_texts_go_between_the_options(export):
    model = export / "text" / litert.WHOLE
    done = python("--json", "--text", "abc", model, "--top=1", "--text=-1")
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["input"] for line in done.stdout.splitlines()] == ["abc", "-1"]


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["M", "x.npz", "--segmnt=28"], [" --segmnt", " --segment"]),
        (["M", "--steam", "x.npz"], [" --steam", " --stream"]),
        (["M", "-z", "x.npz"], [" -z", "--help"]),
        (["M", "--segment=-3", "x.npz"], ["--segment", "whole number"]),
        (["M", "x.npz", "--segment"], ["--segment", "one argument"]),
        (["--stream"], ["model"]),
        (["M", "--stream"], ["nothing to classify"]),
    ],
)
def test_mistakes_are_one_sentence(arguments, parts):
    done = python(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("t2aux-ondevice: error: ")
    assert done.stderr.count("\n") == 1
    for part in parts:
        assert part in done.stderr


# The example in C++.


def test_the_cpp_example_takes_options_anywhere(classify, export, tmp_path):
    sequence = sequence_of(small_exports.VECTORS, 16)
    (tmp_path / "x.f32").write_bytes(sequence.tobytes())
    model, options = str(export / "vectors" / litert.STREAM), ["--every", "--segment=5"]
    raw = "--input=raw"
    steps, expected = answers(classify, raw, *options, model, given=sequence.tobytes())
    assert steps == [5, 10, 15, 16]
    file = str(tmp_path / "x.f32")
    for arguments in (
        [model, raw, *options],
        [raw, model, *options],
        [model, "--input", "raw", "--every", "--segment", "5"],
        [raw, *options, "--", model],
    ):
        found = answers(classify, *arguments, given=sequence.tobytes())
        np.testing.assert_array_equal(found[1], expected)
        for place in range(arguments.index(model) + 1, len(arguments) + 1):
            if place and arguments[place - 1] in ("--input", "--segment"):
                continue
            given = [*arguments[:place], file, *arguments[place:]]
            np.testing.assert_array_equal(answers(classify, *given, given=b"")[1], expected)


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ([], [" model"]),
        ([""], [" model"]),
        (["--every"], [" model"]),
        (["--segment=0", "m"], ["--segment", "'0'", "whole number"]),
        (["--segment=", "m"], ["--segment", "''"]),
        (["--segment=3x", "m"], ["'3x'"]),
        (["--segment=-3", "m"], ["'-3'"]),
        (["m", "--segment", "-3"], ["'-3'"]),
        (["m", "--segment=9999999999"], ["'9999999999'"]),
        (["m", "--segment"], ["--segment ", "no value"]),
        (["m", "--input=float"], ["'float'", "raw"]),
        (["m", "--segmnt=28"], [" --segmnt", " --segment"]),
        (["m", "--evry"], [" --evry", " --every"]),
        (["--nonsense", "m"], [" --nonsense", "--help"]),
        (["-x", "m"], [" -x", "--help"]),
        (["--every=yes", "m"], ["--every", "no value"]),
        (["m", "--help=1"], ["--help", "no value"]),
        (["m", "x", "y"], ["y"]),
    ],
)
def test_wrong_options_of_the_cpp_example_are_errors(classify, arguments, parts):
    done = run(classify, *arguments)
    assert (done.returncode, done.stdout) == (2, b"")
    error = done.stderr.decode()
    assert error.startswith("classify: error: ")
    assert error.count("\n") == 1
    for part in parts:
        assert part in error


def test_the_cpp_example_says_what_it_takes(classify):
    for arguments in (["--help"], ["m", "--help"], ["-h"]):
        done = run(classify, *arguments)
        assert (done.returncode, done.stderr) == (0, b"")
        assert b"--segment=N" in done.stdout


def test_the_cpp_example_names_inputs_that_are_invalid(classify, export, tmp_path):
    text = ["--input=bytes", str(export / "text" / litert.WHOLE)]
    for name in ("hidden.csv", "hidden.JSONL", "a.zip"):
        (tmp_path / name).write_text("a,b\n")
        assert f"{tmp_path / name} is a table" in fails(classify, *text, str(tmp_path / name))
    assert " absent.txt" in fails(classify, *text, "absent.txt")
    assert "Is a directory" in fails(classify, *text, str(tmp_path))
    assert "NUL" in fails(classify, *text, given=b"abc\0def")
