"""Small models of each kind of data in every form, and rows for them with what is right."""

import contextlib
import functools
import types

import numpy as np
import pyarrow.csv
import pytest
import tensorflow as tf
from PIL import Image

from t2aux import files
from t2aux.model import weights
from t2aux_ondevice import litert
from tests import small_exports
from tests.client import servers

KINDS = {
    "images": small_exports.IMAGES,
    "texts": small_exports.TEXT,
    "vectors": small_exports.VECTORS,
}
FORMS = ("run", "export", "tflite", "keras", "grpc", "http")
SIZES = "Classifier.hidden_size = 5\nClassifier.projection_size = 4\nClassifier.head_size = 6\n"


def write_run(directory, classifier):
    """A run's directory, as `t2aux train` makes it."""
    directory.mkdir()
    (directory / "config.gin").write_text(SIZES)
    files.write_json(directory / "dataset.json", classifier.info.to_json())
    checkpoint = tf.train.Checkpoint(classifier=weights.tree(classifier))
    checkpoint.save(str(directory / "checkpoints" / "ckpt"))


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """Gives the model of a kind of data: `classifier`, `info`, and `place` by form."""
    with contextlib.ExitStack() as stack:

        @functools.cache
        def made(kind):
            folder = tmp_path_factory.mktemp(kind)
            directory = folder / "export" / "1"
            classifier = small_exports.write(directory, KINDS[kind], ("saved_model", "tflite"))
            write_run(folder / "run", classifier)
            classifier.save(folder / "model.keras")
            served = stack.enter_context(servers.serving(servers.Model(directory)))
            return types.SimpleNamespace(
                classifier=classifier,
                info=classifier.info,
                place={
                    "run": str(folder / "run"),
                    "export": str(directory.parent),
                    "tflite": str(directory / litert.WHOLE),
                    "keras": str(folder / "model.keras"),
                    **{scheme: f"{served[scheme]}/{servers.Model.name}" for scheme in served},
                },
            )

        yield made


def expected(classifier, sequences):
    """The probabilities, one sequence at a time, [N, K]."""
    return np.stack([classifier(tf.constant(s[np.newaxis]))[0].numpy() for s in sequences])


@pytest.fixture
def photos(tmp_path):
    """A folder of images in folders of classes, one of which the classifier does not know."""
    rng = np.random.default_rng(1)
    for name, count in (("cat", 4), ("dog", 3), ("yak", 2)):
        for number in range(count):
            path = tmp_path / "photos" / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (8, 8), np.uint8)).save(path)
    return tmp_path / "photos"


def read_csv(path):
    """The columns of an output, by name; numbers are numbers, and what is missing is None."""
    options = pyarrow.csv.ConvertOptions(strings_can_be_null=True, quoted_strings_can_be_null=False)
    return pyarrow.csv.read_csv(path, convert_options=options).to_pydict()
