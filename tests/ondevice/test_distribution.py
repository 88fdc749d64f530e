"""The client for devices: a separate distribution, where nothing else is installed."""

import importlib.metadata
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from packaging.requirements import Requirement
from PIL import Image

import t2aux
import t2aux_ondevice
from t2aux_ondevice import litert
from tests import small_exports

SOURCE = pathlib.Path(__file__).resolve().parents[2] / "export/ondevice/python"


def needed(requirements):
    """The distributions that requirements lead to here, with all that those need."""
    found, waiting = {}, list(requirements)
    while waiting:
        requirement = Requirement(waiting.pop())
        marker = requirement.marker
        if requirement.name in found or (marker and not marker.evaluate({"extra": ""})):
            continue
        found[requirement.name] = importlib.metadata.distribution(requirement.name)
        waiting += found[requirement.name].requires or []
    return found


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    place = tmp_path_factory.mktemp("wheel")
    # Building leaves files beside the sources.
    copy = place / "source"
    subprocess.run(["cp", "-r", SOURCE, copy], check=True)
    pip = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-index", "--quiet"]
    subprocess.run([*pip, "--no-build-isolation", "-w", place, copy], check=True)
    (file,) = place.glob("*.whl")
    return file


@pytest.fixture(scope="module")
def bare(wheel, tmp_path_factory):
    """A virtual environment with the distribution, and of what is here only what it asks for."""
    place = tmp_path_factory.mktemp("bare") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", place], check=True)
    python = place / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index"]
    subprocess.run([*pip, "--quiet", wheel], check=True)
    (packages,) = place.glob("lib/python*/site-packages")
    (information,) = packages.glob("t2aux_ondevice-*.dist-info")
    requested = importlib.metadata.Distribution.at(information).requires
    for distribution in needed(requested).values():
        for top in {file.parts[0] for file in distribution.files} - {"..", "__pycache__"}:
            if not (packages / top).exists():
                (packages / top).symlink_to(distribution.locate_file(top))
    return place


def run(bare, *arguments):
    """Runs the program of the bare environment."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    return subprocess.run(
        [bare / "bin" / arguments[0], *map(str, arguments[1:])],
        capture_output=True,
        text=True,
        env=kept,
        cwd=bare,
        timeout=120,
    )


@pytest.fixture(scope="module")
def exports(tmp_path_factory):
    """A folder with an export of each kind."""
    place = tmp_path_factory.mktemp("exports")
    for name in ("IMAGES", "TEXT", "VECTORS"):
        small_exports.write(place / name.lower(), getattr(small_exports, name))
    return place


def sequences(info):
    rng = np.random.default_rng(0)
    if info.is_text:
        return rng.integers(0, info.vocabulary_size, [3, 16])
    return rng.random([3, 16, info.channels]).astype(np.float32)


def test_it_asks_for_numpy_and_litert_alone(bare):
    (packages,) = bare.glob("lib/python*/site-packages")
    (information,) = packages.glob("t2aux_ondevice-*.dist-info")
    lines = importlib.metadata.Distribution.at(information).requires
    requested = {Requirement(line).name for line in lines if "extra" not in line}
    assert requested == {"ai-edge-litert", "numpy"}
    for absent in ("tensorflow", "t2aux", "PIL", "absl"):
        assert run(bare, "python", "-c", f"import {absent}").returncode
    assert t2aux_ondevice.__version__ == t2aux.__version__


@pytest.mark.parametrize("kind", ["images", "text", "vectors"])
@pytest.mark.parametrize("form", litert.FORMS)
def test_it_classifies_where_nothing_else_is(bare, exports, tmp_path, kind, form):
    path = exports / kind / litert.file_name(form)
    classifier = litert.LiteRTClassifier(path)
    given = sequences(classifier.info)
    np.savez(tmp_path / "given.npz", inputs=given)
    done = run(bare, "t2aux-ondevice", path, tmp_path / "given.npz", "--json", "--top=3")
    assert (done.returncode, done.stderr) == (0, "")
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(answers) == 3
    for sequence, answer in zip(given, answers, strict=True):
        found = {entry["label"]: entry["probability"] for entry in answer["top"]}
        expected = classifier.probabilities(sequence)
        assert found == pytest.approx({k: expected[k] for k in found}, abs=1e-6)
    streamed = run(bare, "t2aux-ondevice", path, tmp_path / "given.npz", "--stream", "--segment=16")
    assert streamed.returncode == 0
    assert streamed.stdout.count("16 steps") == 3


def test_images_need_pillow_unless_they_have_the_size(bare, exports, tmp_path):
    pixels = np.arange(16, dtype=np.uint8).reshape(4, 4)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    model = exports / "images" / litert.WHOLE
    done = run(bare, "t2aux-ondevice", model, tmp_path / "a.png")
    assert done.returncode == 1
    assert "pip install pillow" in done.stderr
    assert done.stderr.count("\n") == 1
    # As the same image through Pillow, in this environment.
    code = (
        "import sys, numpy as np\nfrom t2aux_ondevice import litert\n"
        "c = litert.LiteRTClassifier(sys.argv[1])\n"
        "image = np.arange(16, dtype=np.uint8).reshape(4, 4)\n"
        "print(c.probabilities(c.info.image_sequence(image)).tolist())"
    )
    done = run(bare, "python", "-c", code, model)
    assert done.returncode == 0, done.stderr
    classifier = litert.LiteRTClassifier(model)
    expected = classifier.probabilities(classifier.info.image_sequence(Image.fromarray(pixels)))
    np.testing.assert_allclose(json.loads(done.stdout), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["absent.tflite", "a.npz"], " absent.tflite: "),
        (["MODEL", "absent.npz"], " absent.npz: "),
        (["MODEL", "--text=hello"], "sequences of vectors"),
    ],
)
def test_mistakes_are_reported_in_a_sentence(bare, exports, arguments, part):
    model = str(exports / "vectors" / litert.WHOLE)
    done = run(bare, "t2aux-ondevice", *(model if a == "MODEL" else a for a in arguments))
    assert done.returncode == 1
    assert part in done.stderr
    assert done.stderr.startswith("t2aux-ondevice: error: ")
    assert done.stderr.count("\n") == 1


def test_wrong_flags_are_errors(bare, exports):
    model = exports / "vectors" / litert.WHOLE
    for wrong in ("--top=0", "--top=two", "--segment=-1", "--nonsense", ""):
        done = run(bare, "t2aux-ondevice", model, *([wrong] if wrong else []))
        assert done.returncode == 2
        assert "Traceback" not in done.stderr
        flag = wrong.split("=")[0]
        assert (f"error: argument {flag}: " in done.stderr) == ("=" in wrong)
