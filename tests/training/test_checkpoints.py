"""Checkpoints: damage and other architectures are each one sentence."""

import pathlib

import numpy as np
import pytest
import tensorflow as tf

from t2aux.errors import ModelError
from t2aux.training import checkpoints, restoring


class Network(tf.Module):
    def __init__(self, value, width=500):
        super().__init__()
        self.kernel = tf.Variable(tf.fill([width], value), name="kernel")


@pytest.fixture
def saved(tmp_path):
    checkpoint = tf.train.Checkpoint(classifier=Network(3.0))
    manager = tf.train.CheckpointManager(checkpoint, str(tmp_path), max_to_keep=1)
    return manager.save()


def test_a_checkpoint_restores(saved):
    network = Network(0.0)
    assert checkpoints.latest(pathlib.Path(saved).parent.parent) is None
    restoring.restore(saved, classifier=network)
    np.testing.assert_array_equal(network.kernel, np.full(500, 3.0))


@pytest.mark.parametrize("suffix", [".data-00000-of-00001", ".index"])
@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda whole: whole[: len(whole) // 3], id="cut"),
        pytest.param(lambda whole: b"", id="empty"),
        pytest.param(lambda whole: bytes(len(whole)), id="zeros"),
        pytest.param(lambda whole: whole[:60] + bytes(64) + whole[124:], id="changed"),
    ],
)
def test_damage_is_found(saved, suffix, damage):
    path = pathlib.Path(saved + suffix)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ModelError, match=f"{saved} .*damaged"):
        restoring.restore(saved, classifier=Network(0.0))


def test_a_missing_file_is_found(saved):
    pathlib.Path(saved + ".data-00000-of-00001").unlink()
    with pytest.raises(ModelError, match=f"{saved} .*damaged"):
        restoring.restore(saved, classifier=Network(0.0))


def test_another_shape_is_refused(saved):
    with pytest.raises(ModelError, match=f"{saved} .*architecture.*499"):
        restoring.restore(saved, classifier=Network(0.0, width=499))
