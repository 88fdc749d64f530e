"""TensorFloat-32 is off wherever a classifier is evaluated, whatever it is elsewhere."""

import numpy as np
import pytest
import tensorflow as tf

from t2aux import tf32
from t2aux.data import Split
from t2aux.data.table import Table
from t2aux.export.runtimes import CheckpointClassifier
from t2aux.training import evaluation
from tests import networks

is_on = tf.config.experimental.tensor_float_32_execution_enabled


@pytest.fixture(params=[True, False])
def default(request):
    before = is_on()
    tf32.enable(request.param)
    yield request.param
    tf32.enable(before)


def test_off_restores_what_was(default):
    @tf32.off()
    def fail():
        assert not is_on()
        raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert is_on() is default


def test_an_evaluation_is_in_full_float32(default):
    info = networks.vectors_info(channels=1, length=3)
    table = Table.of_lengths(np.zeros([12, 1], np.float32), [3] * 4, [0, 1, 2, 0])
    split = Split(info, table)
    seen = []

    def predict(batch):
        seen.append(is_on())
        return tf.zeros([len(batch.labels), 3])

    evaluation.evaluate(predict, split, 2)
    assert seen == [False, False]
    assert is_on() is default


def test_a_classifier_that_is_asked_answers_in_full_float32(default):
    info = networks.vectors_info(channels=1)
    classifier = CheckpointClassifier(networks.classifier(info))
    seen, whole, step = [], classifier._whole, classifier._step
    classifier._whole = lambda *a: seen.append(is_on()) or whole(*a)
    classifier._step = lambda *a: seen.append(is_on()) or step(*a)
    sequence = np.ones([3, 1], np.float32)
    classifier.probabilities(sequence)
    list(classifier.stream(sequence, 2))
    classifier.start().read(sequence)
    assert seen == [False] * 4
    assert is_on() is default
