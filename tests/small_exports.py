"""Exports of small, untrained classifiers, for tests of what reads exports."""

import dataclasses
import functools
import hashlib
import pathlib
import shutil

import numpy as np
import tensorflow as tf

from t2aux import files
from t2aux.export import metadata, saved_model, tflite, warmup
from t2aux.export.model import Model
from t2aux.export.stateless import StatelessClassifier
from t2aux.model import inference
from t2aux.model.lstm import LSTM
from t2aux.run import Run
from t2aux_ondevice import litert
from t2aux_ondevice.preprocessing import DatasetInfo
from tests import networks, shared

IMAGES = DatasetInfo(
    "made up images", "image", ("cat", "dog", "eel"), channels=1, length=16, side=4
)
TEXT = networks.text_info()
# Its sequences are about (0, 1).
VECTORS = dataclasses.replace(
    networks.vectors_info(channels=2), mean=(0.4, -1.25), deviation=(0.25, 3.0)
)


def write(directory, info, formats=("tflite",), poison=0.0, core=LSTM):
    """Writes an export as `t2aux export` does, but measures nothing; returns its classifier.

    Its files are made once in a test session. `poison` is added to its weights.
    """
    classifier = networks.classifier(info, core=core)
    # Untrained, it would answer much the same to everything.
    for variable in classifier.trainable_variables:
        variable.assign(variable * 3.0 + poison)
    directory = pathlib.Path(directory)
    directory.mkdir(parents=True)
    key = hashlib.sha256(repr((info, poison, core)).encode()).hexdigest()[:16]
    makers = {"saved_model": _make_saved_model, "tflite": _make_tflite}
    for name in formats:
        make = functools.partial(makers[name], classifier)
        files_of_format = shared.made_once(f"{name}-{key}", make)
        shutil.copytree(files_of_format, directory, dirs_exist_ok=True)
    run = Run(pathlib.Path("runs/made_up"), classifier, info, 7, "checkpoints/ckpt-7", "A = 1\n")
    files.write_json(directory / litert.METADATA, metadata.describe(Model.of_run(run), directory))
    return classifier


def _make_saved_model(classifier, directory):
    info = classifier.info
    saved_model.save(StatelessClassifier(classifier), directory)
    lengths = np.array([info.length or 9])
    state = inference.state_shapes(classifier.core)
    warmup.write(directory, info, state, lengths, 4, (1, 2))


def _make_tflite(classifier, directory):
    directory.mkdir()
    for form in tflite.forms(classifier):
        (directory / litert.file_name(form)).write_bytes(tflite.convert(classifier, form))


class _Quick(tf.Module):
    """Answers as a classifier of IMAGES, from the mean of a sequence."""

    def __init__(self, factor):
        super().__init__()
        self._factor = tf.Variable(factor)

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, None, 1], tf.float32, "inputs"),
            tf.TensorSpec([None], tf.int32, "lengths"),
        ]
    )
    def classify(self, inputs, lengths):
        means = tf.reduce_sum(inputs, [1, 2]) / tf.cast(lengths, tf.float32)
        return {"probabilities": tf.nn.softmax(self._factor * means[:, tf.newaxis] * [1.0, 2, 3])}


def write_quick(directory, factor=1.0):
    """Writes a SavedModel that loads at once, for tests of what surrounds a model.

    It has `serving_default` alone, no warm-up requests and no metadata.json.
    """

    def make(path):
        module = _Quick(factor)
        tf.saved_model.save(module, str(path), {"serving_default": module.classify})

    shutil.copytree(shared.made_once(f"quick-{factor}", make), directory)
