"""NaN and Inf: the run stops before they reach the weights."""

import gin
import numpy as np
import pytest
import tensorflow as tf

from t2aux import config, data
from t2aux.errors import DivergenceError, SettingError
from t2aux.training import train as train_module
from t2aux.training import trainer as trainer_module
from t2aux.training.trainer import Step, Trainer

SETTINGS = [
    "dataset.max_examples = 40",
    "JOINT_EPOCHS = 3",
    "PRETRAIN_EPOCHS = 0",
    "BATCH_SIZE = 8",
    "Classifier.hidden_size = 4",
    "Classifier.projection_size = 2",
    "Classifier.head_size = 4",
    "RunConfig.log_every = 2",
    "train.evaluate_every = 0",
    "RunConfig.steps_per_call = 2",
    "RunConfig.checkpoint_minutes = 0",
    "train.optimizer = @SGD",
]


class Poisoned(Trainer):
    """A trainer whose step AT gives NaN, Inf or a huge gradient."""

    at, poison = 7, "loss"

    def step(self, batch, *, seed, **more):
        step = super().step(batch, seed=seed, **more)
        bad = tf.equal(seed[1], self.at)
        gradients, metrics = list(step.gradients), dict(step.metrics)
        if self.poison == "loss":
            for name in ("loss", "supervised_loss"):
                metrics[name] += tf.where(bad, np.nan, 0.0)
        gradients[1] += tf.where(
            bad, {"loss": np.nan, "gradient": np.inf}.get(self.poison, 1e15), 0.0
        )
        return Step(gradients, metrics)


def train(model_dir, *more):
    text = config.parse(["quickstart_lstm"], [*SETTINGS, *more])
    try:
        return train_module.train(str(model_dir), text)
    finally:
        gin.clear_config()


def stored(model_dir):
    reader = tf.train.load_checkpoint(str(model_dir / "checkpoints"))
    return {n: reader.get_tensor(n) for n in reader.get_variable_to_shape_map() if "/" in n}


def assert_same(got, want):
    assert got.keys() == want.keys()
    for name, value in want.items():
        np.testing.assert_array_equal(got[name], value, err_msg=name)


@pytest.fixture
def poisoned(monkeypatch):
    monkeypatch.setattr(trainer_module, "Trainer", Poisoned)

    def set_to(**attributes):
        for name, value in attributes.items():
            monkeypatch.setattr(Poisoned, name, value)

    return set_to


@pytest.mark.parametrize(
    ("poison", "what"),
    [
        ("loss", r" 7 updates loss .*nan, supervised_loss .*nan, gradient_norm .*nan, "),
        ("gradient", r" 7 updates gradient_norm .*inf, "),
    ],
)
def test_the_run_stops_before_the_update(tmp_path, poisoned, poison, what):
    poisoned(poison=poison)
    with pytest.raises(DivergenceError, match=what) as error:
        train(tmp_path)
    # Step 7 is the third batch of the second epoch of 5.
    gin.parse_config("dataset.max_examples = 40")
    split = data.load(data.Digits(side=6, border=1), "train", max_examples=40)
    examples = ", ".join(map(str, split.order(8, seed=0, epoch=1)[16:24]))
    for part in ("batch 2 ", "epoch 1 ", "joint ", examples, "ckpt-6", "--allow_changes"):
        assert part in str(error.value)
    assert examples in (tmp_path / "train.log").read_text()
    assert all(np.isfinite(value).all() for value in stored(tmp_path).values())
    if poison == "gradient":
        return  # The rest is the same for both.
    # Started again, it meets the same; without the fault, it ends as if nothing had been.
    with pytest.raises(DivergenceError, match=" 7 updates"):
        train(tmp_path)
    poisoned(at=-1)
    assert train(tmp_path)
    assert train(tmp_path / "quiet")
    assert_same(stored(tmp_path), stored(tmp_path / "quiet"))


def test_weights_that_are_not_finite_get_into_no_checkpoint(tmp_path, poisoned):
    # A gradient that is finite, of which the rate makes weights that are not.
    poisoned(at=0, poison="weights")
    settings = ["train.clip_norm = None", "LEARNING_RATE = 1e30", "RunConfig.steps_per_call = 1"]
    with pytest.raises(DivergenceError, match=r" 1 updates .*batch 0 .*epoch 0 "):
        train(tmp_path, *settings)
    assert not list((tmp_path / "checkpoints").glob("*"))


def test_bad_values(tmp_path):
    with pytest.raises(SettingError, match=r"RunConfig\.checkpoints_kept .* 2, .* 1\."):
        train(tmp_path / "run", "RunConfig.checkpoints_kept = 1")
    assert not (tmp_path / "run").exists()
