"""What `import t2aux` gives: light, and each name with an example that runs."""

import doctest
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import t2aux
from t2aux.errors import SettingError
from t2aux.training.model import SequenceClassifier

NAMES = {
    "": ["SequenceClassifier", "load", "predict", "export_model", "callbacks", "layers", "losses"],
    "layers": ["LSTM", "GRU", "MinGRU", "get"],
    "losses": ["Reconstruction", "Prediction", "LanguageModel", "SequenceAutoencoder"],
    "callbacks": ["Pretrain"],
}


def test_names_are_listed_and_imported_on_use():
    heavy = "{'tensorflow', 'keras'} & set(sys.modules)"
    code = f"import sys, t2aux; assert not {heavy}; print(*dir(t2aux))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(NAMES[""]) < set(done.stdout.split())
    for module, names in NAMES.items():
        place = getattr(t2aux, module) if module else t2aux
        assert all(hasattr(place, name) for name in names)
    with pytest.raises(AttributeError, match="no_such_name"):
        t2aux.no_such_name  # noqa: B018


@pytest.fixture(scope="module")
def names():
    rng = np.random.default_rng(0)
    keras.utils.set_random_seed(0)
    x, y = rng.random([48, 64, 1], np.float32), np.arange(48) % 10
    return {"keras": keras, "np": np, "tf": tf, "t2aux": t2aux, "x": x, "y": y}


# The first makes the model that others use. `load`, `predict`, `export_model` and `LSTM` are in
# tests of their own, with what they need.
@pytest.mark.parametrize(
    "name",
    [
        "SequenceClassifier",
        *("callbacks.Pretrain", "layers.GRU", "layers.MinGRU", "layers.get"),
        *(f"losses.{name}" for name in NAMES["losses"]),
    ],
)
def test_examples_of_docstrings_run(name, names):
    value = t2aux
    for part in name.split("."):
        value = getattr(value, part)
    if name == "callbacks.Pretrain":
        loss = t2aux.losses.Reconstruction(length=8)
        names["model"] = t2aux.SequenceClassifier(classes=10, auxiliary=[loss])
        names["model"].compile("adam")
    (example,) = doctest.DocTestFinder(recurse=False).find(value, name, globs=names)
    assert example.examples
    # Not compiled, as they train for a step or two.
    tf.config.run_functions_eagerly(True)
    try:
        assert not doctest.DocTestRunner().run(example).failed
    finally:
        tf.config.run_functions_eagerly(False)


def test_a_core_by_name_or_class():
    for core in ("lstm", "LSTM", t2aux.layers.LSTM):
        assert SequenceClassifier(classes=2, core=core)._given_core.units == 128
    with pytest.raises(SettingError, match=r"'rnn'.*lstm, gru, mingru"):
        SequenceClassifier(classes=2, core="rnn")
