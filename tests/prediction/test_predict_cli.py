"""The real command: standard streams, ends in the middle, help, and what it points to."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time

import pytest

from tests.cli_helpers import assert_one_sentence, environment, t2aux
from tests.prediction.conftest import read_csv

COMMAND = [sys.executable, "-m", "t2aux", "predict"]
# What TensorFlow would take seconds to import is not needed for a .tflite file.
WITHOUT_TENSORFLOW = """
import sys
from t2aux.cli import main
try:
    main.main()
except SystemExit as end:
    assert not end.code, end.code
assert "tensorflow" not in sys.modules
"""
# A shell's background processes, such as these tests may be, ignore Ctrl-C.
WITH_SIGINT = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from t2aux.cli import main
main.main()
"""


def write_table(folder, rows=9):
    lines = [f'{i},"abc, {"d" * i}",class {i % 3}\n' for i in range(rows)]
    (folder / "t.csv").write_text(",text,label\n" + "".join(lines))
    return folder / "t.csv"


def test_a_table_is_answered_counted_and_scored(models, tmp_path):
    place = models("texts").place["tflite"]
    table = write_table(tmp_path)
    flags = [f"--model={place}", f"--data={table}", f"--report={tmp_path / 'report'}"]
    flags += [f"--output={tmp_path / 'o.csv'}", "--probabilities"]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TENSORFLOW, "predict", *flags],
        capture_output=True,
        text=True,
        env=environment(),
    )
    assert done.returncode == 0, done.stderr
    found = read_csv(tmp_path / "o.csv")
    assert found["input"] == list(range(9))
    assert list(found)[4:] == [f"probability_class {i}" for i in range(3)]
    for part in ("class 0", "accuracy", "9 rows: ", "evaluation.json", "pandas.read_csv("):
        assert part in done.stdout
    assert "the class is the column 'label', and the text is 'text'" in done.stderr
    accuracy = json.loads((tmp_path / "report" / "evaluation.json").read_text())["accuracy"]
    right = [c == la for c, la in zip(found["class"], found["label"], strict=True)]
    assert accuracy == pytest.approx(sum(right) / 9)


def test_a_run_over_a_data_set_that_gin_names(models, tmp_path):
    place = models("vectors").place["run"]
    import numpy as np

    for split in ("train", "test"):
        labels = np.arange(6) % 3
        classes = np.array(["class 0", "class 1", "class 2"])
        arrays = {"inputs": np.ones((6, 4, 2)), "lengths": [4, 1, 2, 3, 4, 4]}
        np.savez(tmp_path / f"{split}.npz", labels=labels, classes=classes, **arrays)
    given = [f"--model={place}", "--gin_param=train.data = @npz()", f"--data_dir={tmp_path}"]
    done = t2aux("predict", *given, f"--output={tmp_path / 'o.parquet'}")
    assert "6 rows" in done.stdout
    assert "accuracy" in done.stdout
    done = t2aux("predict", *given, "--data=x.csv", "--output=o.csv", check=False)
    assert_one_sentence(done, "--data", "--gin_param")


def test_the_next_command_draws_the_report(models, tmp_path):
    place = models("texts").place["tflite"]
    flags = [f"--model={place}", f"--data={write_table(tmp_path)}", "--text_column=text"]
    done = t2aux("predict", *flags, "--keep_columns", f"--output={tmp_path / 'o.csv'}")
    line = done.stdout.split("Next:")[1].strip()
    program, *words = shlex.split(line)
    assert program == "t2aux"
    assert {*flags, "--keep_columns"} < set(words)
    done = t2aux(*words)
    assert (tmp_path / "o_report" / "confusion.png").is_file()
    assert "Next:" not in done.stdout


def test_standard_input_to_standard_output(models):
    place = models("texts").place["tflite"]
    text = "".join(f'"abc",{i}\n' for i in range(3))
    done = subprocess.run(
        [*COMMAND, f"--model={place}", "--data=-", "--output=-", "--text_column=text"],
        input="text,n\n" + text,
        capture_output=True,
        text=True,
        env=environment(),
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == '"input","class","probability"'
    assert len(done.stdout.splitlines()) == 4
    assert "3 rows" in done.stderr


def wait_for(condition, process):
    end = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGKILL, -9)]
)
def test_an_end_in_the_middle_leaves_no_output(models, tmp_path, number, status):
    place = models("texts").place["tflite"]
    output = tmp_path / "o.csv"
    flags = [f"--model={place}", "--data=-", "--data_format=lines", f"--output={output}"]
    process = subprocess.Popen(
        [sys.executable, "-c", WITH_SIGINT, "predict", *flags],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    with process:
        process.stdin.write("abc\n" * 3000)
        process.stdin.flush()
        wait_for(lambda: os.listdir(tmp_path), process)
        # Standard input stays open, as that of a program that has not yet ended.
        process.send_signal(number)
        assert process.wait(60) == status
        errors = process.stderr.read()
    assert "Traceback" not in errors
    assert "Fatal" not in errors
    left = os.listdir(tmp_path)
    if number != signal.SIGKILL:
        assert left == []
        return
    # A name of its own, which the next run removes.
    assert [name.startswith(".o.csv.") for name in left] == [True]
    (tmp_path.parent / "t.txt").write_text("abc\n")
    t2aux(
        "predict", f"--model={place}", f"--data={tmp_path.parent / 't.txt'}", f"--output={output}"
    )
    assert os.listdir(tmp_path) == ["o.csv"]


def test_mistakes_are_one_sentence(models, tmp_path):
    place = models("texts").place["tflite"]
    table = write_table(tmp_path)
    model, data = f"--model={place}", f"--data={table}"
    for flags, parts in (
        ([model, "--output=o.csv"], ["--data "]),
        ([model, data], ["--output "]),
        ([data, "--output=o.csv"], ["--model "]),
        ([model, data, f"--output={table}"], ["t.csv ", "--overwrite"]),
        ([model, data, "--output=o.csv", "--label_column=labl"], ["'labl'", "'label'"]),
        ([model, data, "--output=o.csv", "--report=/proc/x"], ["/proc/x"]),
    ):
        assert_one_sentence(t2aux("predict", *flags, check=False), *parts)


def test_help_and_where_classify_points():
    assert "predict" in t2aux("--help").stdout
    text = t2aux("predict", "--help").stdout
    for flag in ("--label_column", "--on_error", "--ca_file", "--gin_file", "--report"):
        assert flag in text
    assert "t2aux predict" in t2aux("classify", "--help").stdout


def test_classify_points_a_table_and_a_folder_here(models, tmp_path):
    place = models("texts").place["tflite"]
    for path in (write_table(tmp_path), tmp_path):
        done = t2aux("classify", f"--model={place}", path, check=False)
        assert_one_sentence(done, "t2aux predict --data=")
