"""The commands that may come next are right, and can be pasted into a shell."""

import os
import shlex
import shutil
import subprocess

import numpy as np
import pytest

from t2aux.cli import next_steps
from tests.cli_helpers import t2aux


def commands(printed):
    """The commands that a command showed at its end, as words."""
    lines = printed.splitlines()
    (heading,) = (i for i, line in enumerate(lines) if line.startswith("Next"))
    assert lines[heading - 1] == ""
    shown = lines[heading + 1 :]
    assert all(line.startswith("  t2aux ") for line in shown)
    return [shlex.split(line)[1:] for line in shown]


@pytest.mark.parametrize(
    "value",
    [
        "runs/a b",
        "it's",
        "$HOME `x` \\",
        "new\nline",
        b"\xff'\\\x1b".decode("utf-8", "surrogateescape"),
    ],
)
def test_values_reach_the_command_through_a_shell(value):
    line = next_steps.command(
        "train", model_dir=value, gin_param=["A = 1", "B = 'x'"], data_dir=None
    )
    for shell in filter(shutil.which, ("bash", "zsh")):
        given = subprocess.run(
            [shell, "-c", f't2aux() {{ printf "%s\\0" "$@"; }}; {line}'],
            capture_output=True,
            check=True,
        ).stdout.split(b"\0")[:-1]
        expected = ["train", f"--model_dir={value}", "--gin_param=A = 1", "--gin_param=B = 'x'"]
        assert given == [os.fsencode(word) for word in expected]


def test_only_what_needs_a_users_file_has_a_placeholder():
    assert "YOUR_DATA is a file" in next_steps.text(next_steps.predict("exports/a"))
    assert next_steps.text("t2aux data") == "\nNext:\n  t2aux data"


def test_an_export_is_used_as_what_was_made(tmp_path):
    version = tmp_path / "digits" / "1"
    version.mkdir(parents=True)
    (version / "saved_model.pb").touch()
    predict, serve = (shlex.split(line) for line in next_steps.of_export(version))
    assert predict[1:3] == ["predict", f"--model={tmp_path / 'digits'}"]
    assert serve[1:] == ["serve", f"--model_base_path={tmp_path / 'digits'}"]
    (version / "saved_model.pb").unlink()
    for name in ("classifier_stream.tflite", "classifier_int8.tflite"):
        (version / name).touch()
    (line,) = next_steps.of_export(version)
    assert f"--model={version / 'classifier_int8.tflite'}" in shlex.split(line)


def write_series(folder):
    folder.mkdir()
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        np.savez(folder / f"{split}.npz", inputs=rng.random([8, 50, 2]), labels=np.arange(8) % 2)


def test_from_data_to_an_export_by_the_commands_that_are_shown(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_series(tmp_path / "my series")
    shown = t2aux("data", "npz", "--data_dir=my series", "--gin_param=dataset.max_examples = 6")
    ((*train,),) = commands(shown.stdout)
    assert "--data_dir=my series" in train
    assert "--gin_param=dataset.max_examples = 6" in train
    nothing = ["--gin_param=UPDATES = 1", "--gin_param=JOINT_EPOCHS = 1"]
    trained = t2aux(*train, *nothing, "--gin_param=BATCH_SIZE = 6")
    evaluate, predict, export = commands(trained.stdout)
    assert evaluate == ["evaluate", "--model_dir=runs/npz"]
    assert predict[:2] == ["predict", "--model=runs/npz"]
    assert commands(t2aux(*evaluate).stdout) == [predict, export]
    exported = commands(t2aux(*export, "--formats=tflite").stdout)
    assert [words[0] for words in exported] == ["predict"]
    assert os.path.isfile(exported[0][1].removeprefix("--model="))
    # The folder of the run is there now.
    ((*again,),) = commands(t2aux("data", "npz", "--data_dir=my series", "--nobaseline").stdout)
    assert "--model_dir=runs/npz-2" in again


def test_shards_are_trained_on_with_the_files_that_are_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_series(tmp_path / "series")
    done = t2aux("data", "convert", "npz", "--data_dir=series", "--output_dir=shards")
    ((*train,),) = commands(done.stdout)
    assert train[-1] == "--data_dir=shards"
    t2aux(*train, "--gin_param=PRETRAIN_EPOCHS = 0", "--gin_param=JOINT_EPOCHS = 0")


def test_a_configuration_that_reads_the_data_is_enough(tmp_path):
    write_series(tmp_path / "series")
    for source, files in (("series", ["sequences"]), ("npz", ["sequences", "datasets/npz"])):
        done = t2aux("data", source, f"--data_dir={tmp_path / 'series'}", "--nobaseline")
        ((*train,),) = commands(done.stdout)
        given = [word for word in train if word.startswith("--gin_file")]
        assert given == [f"--gin_file={file}" for file in files]


def test_a_flag_without_a_value():
    assert next_steps.command("predict", overwrite=True) == "t2aux predict --overwrite"


def test_a_data_set_without_a_gin_file_is_named_by_parameters():
    assert next_steps.naming("fashion_mnist") == ["train.data = @fashion_mnist()"]
    assert next_steps.naming("svhn") == ["train.data = @tfds()", "tfds.name = 'svhn'"]
