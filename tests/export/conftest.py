"""Runs with random weights, one of each kind of data, exported once for all tests."""

import contextlib
import functools
import json
import pickle
import types

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from t2aux import config, data, run
from t2aux.data import normalization
from t2aux.export.pipeline import export
from t2aux.export.runtimes import CheckpointClassifier, SavedModelClassifier
from t2aux.model import weights
from t2aux.training.classifier import make_classifier
from t2aux_ondevice import litert
from tests import shared, sources

KINDS = ("rgb", "characters", "vectors")
# What differs in them has tests without an export, and `small_exports.IMAGES` are grey.
MORE_KINDS = ("grey", "bytes")
TEXTS = (
    "good film",
    "bad Film!",
    "naïve café",
    "日本 ☃ 語",
    "a",
    "a long text, long enough to cut",
)


def write_data(kind, folder):
    """Writes the data of a kind; returns the settings that read it."""
    rng = np.random.default_rng(0)
    if kind == "grey":
        return ["train.data = @digits()", "digits.side = 5", "dataset.max_examples = 24"]
    if kind == "rgb":
        for split, label, number in np.ndindex(2, 3, 4):
            path = folder / ("train", "test")[split] / f"class {label}" / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (6, 6, 3), np.uint8)).save(path)
        return [
            "train.data = @image_folder()",
            "image_folder.side = 5",
            "image_folder.permutation_seed = 7",
        ]
    if kind in ("characters", "bytes"):
        for split in ("train", "test"):
            rows = [f'{i % 3},"{text}"\n' for i, text in enumerate(TEXTS)]
            (folder / f"{split}.csv").write_text("".join(rows), encoding="utf-8")
        return [
            "train.data = @csv()",
            f"csv.tokens = '{kind}'",
            "csv.max_length = 20",
            "csv.vocabulary_size = 16",
        ]
    lengths = np.array([1, 9, 4, 12, 7, 12])
    for split in ("train", "test"):
        arrays = {"inputs": rng.random((6, 12, 2)), "labels": np.arange(6) % 3}
        if kind == "vectors":
            # In float32 a large mean leaves little of what differs.
            arrays["inputs"] = arrays["inputs"] * [4, 1e-2] + [12345.6, -70]
            arrays["lengths"] = lengths
        np.savez(folder / f"{split}.npz", **arrays)
    return ["train.data = @npz()"]


def make_run(kind, folder, *more):
    """Makes a run directory with random weights, large enough for answers that differ.

    `more` are settings.
    """
    folder.mkdir(parents=True)
    settings = write_data(kind, folder)
    settings += [f"dataset.data_dir = '{folder}'", "Classifier.hidden_size = 8"]
    settings += [f"Classifier.projection_size = {None if kind == 'rgb' else 6}", *more]
    model_dir = folder / "run"
    model_dir.mkdir()
    (model_dir / "config.gin").write_text("\n".join(settings))
    config.parse([str(model_dir / "config.gin")], [])
    info = sources.configured("train").info
    if kind == "vectors":
        info = normalization.fitted(sources.configured("train"))
    (model_dir / "dataset.json").write_text(json.dumps(info.to_json()))
    classifier = make_classifier(info, seed=1)
    rng = np.random.default_rng(2)
    for variable in classifier.weights:
        variable.assign(2 * variable + rng.normal(scale=0.3, size=variable.shape))
    tf.train.Checkpoint(classifier=weights.tree(classifier)).write(
        str(model_dir / "checkpoints" / "ckpt-3")
    )
    return model_dir


@functools.cache
def model_dir_of(kind):
    """The run directory of a kind, which all tests share."""
    return shared.made_once(f"{kind}_run", functools.partial(make_run, kind)) / "run"


def export_of(kind):
    """The export of that run, which all tests share, and its parity."""

    def make(base):
        base.mkdir()
        _, parity = export(load(model_dir_of(kind)), base / "export", segment=3)
        (base / "parity").write_bytes(pickle.dumps(parity))

    base = shared.made_once(f"{kind}_export", make)
    return base / "export" / "1", pickle.loads((base / "parity").read_bytes())


@pytest.fixture(scope="session")
def model_dirs():
    """Gives the run directory of a kind."""
    return model_dir_of


@contextlib.contextmanager
def shifted_bias(classifier, most):
    """Another network, while the block runs: the biases of the classes' logits are shifted."""
    bias = classifier.head.output_bias
    kept = bias.numpy()
    bias.assign(kept + np.linspace(0, most, len(kept)))
    try:
        yield
    finally:
        bias.assign(kept)


def load(model_dir):
    return run.load_run(model_dir, checkpoint="ckpt-3")


@pytest.fixture(scope="session")
def exports(model_dirs):
    """Gives the export of a kind, with everything that it can be compared with."""

    @functools.cache
    def exported(kind):
        loaded = load(model_dirs(kind))
        split = data.load(loaded.source, "test", loaded.info)
        directory, parity = export_of(kind)
        return types.SimpleNamespace(
            run=loaded,
            info=loaded.info.without_normalization(),  # What the export says.
            directory=directory,
            parity=parity,
            sequences=[split.example(i) for i in range(len(split))],
            checkpoint=CheckpointClassifier(loaded.classifier),
            saved_model=SavedModelClassifier(directory),
            whole=litert.LiteRTClassifier(directory / litert.WHOLE),
        )

    return exported


def kinds(*names):
    """Parameters: those of MORE_KINDS are in the long tier, each export of which takes seconds."""
    return [pytest.param(n, marks=pytest.mark.long if n in MORE_KINDS else []) for n in names]


@pytest.fixture(params=kinds(*KINDS, *MORE_KINDS))
def exported(request, exports):
    """The export of each kind in turn."""
    return exports(request.param)
