"""What can't be made, or is too far off, is named and left out; what is right is exported."""

import subprocess
import sys

import pytest

from t2aux import files, run
from t2aux.errors import FileError, ModelError, SettingError
from t2aux.export import tflite
from t2aux.export.comparison import Tolerance
from t2aux.export.pipeline import export
from t2aux_ondevice import litert
from tests.cli_helpers import assert_one_sentence, environment
from tests.export.conftest import load, shifted_bias
from tests.export.test_export_cli import command

FLOAT32 = {litert.file_name(form) for form in litert.FORMS}


def made(directory):
    return {path.name for path in directory.glob("*.tflite")}


def test_the_command_names_the_failed_variant_last_and_exports_the_others(model_dirs, tmp_path):
    flags = ["--formats=tflite", "--variants=dynamic_int8,float32", "--parity_examples=3"]
    flags += ["--quantised_probability_tolerance=0"]
    arguments = command(model_dirs("vectors"), tmp_path / "base", *flags)
    # Where TensorFlow is not imported yet, for how much it says is set before.
    done = subprocess.run(
        [sys.executable, "-m", "t2aux", *arguments],
        env=environment(),
        capture_output=True,
        text=True,
    )
    directory = tmp_path / "base" / "1"
    assert_one_sentence(done, "dynamic_int8 ", "_tolerance=0")
    assert f"Exported to {directory}" in done.stdout
    assert made(directory) == FLOAT32
    # All lines are ours.
    ours = ("Converting", "Measuring", "Measured", "t2aux: error")
    assert all(line.startswith(ours) for line in done.stderr.splitlines()), done.stderr


@pytest.fixture(scope="module")
def spoilt_files():
    """By form: made once, of the same run."""
    return {}


@pytest.fixture
def spoilt(monkeypatch, spoilt_files):
    """float16 files become those of another network, in float32."""
    convert = tflite.convert

    def convert_wrongly(classifier, form, variant, **kwargs):
        if variant.name != "float16":
            return convert(classifier, form, **kwargs)
        if form not in spoilt_files:
            with shifted_bias(classifier, 3):
                spoilt_files[form] = convert(classifier, form, **kwargs)
        return spoilt_files[form]

    monkeypatch.setattr(tflite, "convert", convert_wrongly)


def test_a_variant_that_is_too_far_off_is_left_out(model_dirs, tmp_path, spoilt):
    directory, measured = export(
        load(model_dirs("grey")),
        tmp_path,
        formats=["tflite"],
        variants=["float32", "float16"],
        tolerance=Tolerance(quantised_accuracy=100, quantised_probability=0.01),
    )
    assert made(directory) == FLOAT32 == set(measured.artefacts)
    metadata = litert.read_metadata(directory)
    assert set(metadata["artefacts"]) == set(metadata["files"]) == FLOAT32
    (failure,) = measured.failures()
    (off,) = measured.failed["float16"].artefacts.values()
    assert off.largest_difference > 0.01
    parts = ("float16", f"{off.largest_difference:.2g}", "quantised_probability_tolerance=0.01")
    written = files.read_json(directory / "parity.json")
    assert set(written["artefacts"]) == FLOAT32
    for text in (failure, str(written["failed"]), (directory / "README.md").read_text()):
        for part in parts:
            assert part in text


def test_a_variant_that_drifts_is_exported_and_pointed_out(model_dirs, tmp_path, spoilt):
    directory, measured = export(
        load(model_dirs("grey")),
        tmp_path,
        formats=["tflite"],
        variants=["float16"],
        tolerance=Tolerance(quantised_accuracy=100),
    )
    assert not measured.failed
    name = litert.file_name("whole", "float16")
    comparison = measured.artefacts[name]
    assert comparison.drifts
    assert files.read_json(directory / "parity.json")["artefacts"][name]["drifts"]
    for text in (measured.table(), (directory / "README.md").read_text()):
        (line,) = [line for line in text.splitlines() if f"{name} drifts" in line]
        assert f"{comparison.largest_difference:.2f}" in line
        assert f"{1 - comparison.agreement:.2%}" in line


def test_nothing_is_exported_where_nothing_is_left(model_dirs, tmp_path):
    with pytest.raises(ModelError, match=r"dynamic_int8 .*--quantised_\w+_tolerance=0"):
        export(
            load(model_dirs("vectors")),
            tmp_path / "base",
            formats=["tflite"],
            variants=["dynamic_int8"],
            tolerance=Tolerance(quantised_probability=0),
        )
    assert not (tmp_path / "base").exists()


def test_without_data_nothing_is_measured_and_that_is_said(model_dirs, tmp_path):
    loaded = run.load_run(model_dirs("vectors"), "ckpt-3", ["dataset.data_dir = '/nowhere'"])
    with pytest.raises(FileError, match=r"/nowhere.*--parity_examples=0"):
        export(loaded, tmp_path)
    variants = ["float32", "int8"]
    directory, measured = export(
        loaded, tmp_path, examples=0, formats=["tflite"], variants=variants
    )
    assert made(directory) == FLOAT32
    written = files.read_json(directory / "parity.json")
    assert written["measured"] is False
    assert written["checkpoint_accuracy"] is None
    assert not written["artefacts"]
    for part in ("int8", "needs training data", "/nowhere"):
        assert part in measured.failures()[0]
    assert "Nothing was measured" in measured.table()
    card = (directory / "README.md").read_text()
    assert "not measured" in card
    assert "was not exported" in card


def test_four_bits_under_the_former_name(tmp_path):
    from t2aux.export import variants

    with pytest.raises(SettingError, match=r"dynamic_int4'.*dynamic_int8_int4_head"):
        variants.named(["float32", "dynamic_int4"])


@pytest.mark.parametrize("closed", ["", "2>&-", ">&-", ">&- 2>&-"])
def test_libraries_are_kept_quiet(closed, tmp_path):
    code = (
        "import os, sys, warnings\n"
        "from t2aux import logs\n"
        "from t2aux.errors import UserError\n"
        "def noise():\n"
        "    print('noise'); print('noise', file=sys.stderr); warnings.warn('noise')\n"
        "    for d in (1, 2):\n"
        "        try: os.write(d, b'noise\\n')\n"
        "        except OSError: pass\n"
        "try:\n"
        "    with logs.quiet_libraries(): noise(); raise UserError('ours')\n"
        "except UserError: pass\n"
        "if sys.stdout: print('out', flush=True)\n"
        "if sys.stderr: print('err', file=sys.stderr, flush=True)\n"
        "try:\n"
        "    with logs.quiet_libraries(): os.write(2, b'the reason\\n'); raise RuntimeError\n"
        "except RuntimeError: pass\n"
    )
    done = subprocess.run(
        ["sh", "-c", f'exec "$0" -c "$1" {closed}', sys.executable, code],
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == ("" if " >&-" in f" {closed}" else "out\n")
    assert done.stderr == ("" if "2>&-" in closed else "err\nthe reason\n")
