"""The programs in examples/ run as they stand; shortened, or whole in the long tier."""

import functools
import importlib.util
import json
import subprocess
import sys

import keras
import numpy as np
import pytest
from sklearn.datasets import load_digits

import t2aux
from tests.cli_helpers import ROOT, environment, python

EXAMPLES = ROOT / "examples"


def module(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def run(*command, **variables):
    done = subprocess.run(
        [sys.executable, *command],
        capture_output=True,
        text=True,
        env=environment(TF_CPP_MIN_LOG_LEVEL="3", **variables),
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


_PREDICT = """
import sys
import keras, numpy as np, t2aux
x = np.load(sys.argv[2])
np.save(sys.argv[3], keras.saving.load_model(sys.argv[1]).predict(x, verbose=0))
"""


@pytest.mark.parametrize("epochs", [1, pytest.param(40, marks=pytest.mark.long)])
def test_keras_fit(tmp_path, monkeypatch, epochs):
    example, digits, fit = module("keras_fit"), load_digits(), t2aux.SequenceClassifier.fit
    if epochs == 1:
        digits.images, digits.target = digits.images[:1420], digits.target[:1420]
        monkeypatch.setattr(example, "load_digits", lambda: digits)
        monkeypatch.setattr(
            *(t2aux.SequenceClassifier, "fit"),
            lambda self, x, y, **more: fit(self, x[:40], y[:40], **more),
        )
        export = functools.partial(t2aux.export_model, formats=["tflite"])
        monkeypatch.setattr(t2aux, "export_model", export)
    accuracy = example.main(tmp_path, epochs)
    # Seeds 0 to 3 gave 0.86 to 0.93.
    if epochs == 40:
        assert accuracy > 0.85
    parity = json.loads(next((tmp_path / "exports/digits").glob("*/parity.json")).read_text())
    assert parity["passed"]
    x = (digits.images[1400:] / 16).reshape(-1, 64, 1).astype("float32")
    want = keras.saving.load_model(tmp_path / "digits.keras").predict(x, verbose=0)
    np.save(tmp_path / "x.npy", x)
    # In another process: the import of t2aux makes its classes known to Keras.
    python(_PREDICT, *(tmp_path / name for name in ("digits.keras", "x.npy", "y.npy")))
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), want, atol=1e-6)


@pytest.mark.long
def test_own_cell():
    assert module("own_cell").main(30) > 0.6


@pytest.mark.long
def test_drop_in_lstm():
    text = run(EXAMPLES / "drop_in_lstm.py")
    assert float(text.split("largest difference: ")[1].split()[0]) < 1e-5
    assert "t2aux.layers.LSTM: " in text


@pytest.mark.long
def test_the_notebook(tmp_path):
    cells = json.loads((EXAMPLES / "digits.ipynb").read_text())["cells"]
    code = "\n\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "code")
    (tmp_path / "digits.py").write_text(code)
    text = run(tmp_path / "digits.py", MPLBACKEND="Agg")
    accuracies = dict(
        line.split(": ") for line in text.splitlines() if " of the test digits" in line
    )
    with_it, without = (
        float(accuracies[name].split("%")[0]) for name in ("with reconstruction", "without")
    )
    assert with_it > without
    assert "classifier.tflite" in text
