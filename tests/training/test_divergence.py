"""NaN and Inf: the run stops before they reach the weights, or goes back with a lower rate."""

import json

import gin
import numpy as np
import pytest
import tensorflow as tf

from t2aux import config, data
from t2aux.errors import UserError
from t2aux.training import checkpoints, divergence
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
STEPS = 15


class Poisoned(Trainer):
    """A trainer whose step AT gives something else, as long as the run has not gone back."""

    at, poison = 7, "loss"
    factor: tf.Variable

    def step(self, batch, *, seed, **more):
        step = super().step(batch, seed=seed, **more)
        bad = tf.equal(seed[1], self.at) & tf.equal(self.factor, 1.0)
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


def events(model_dir):
    return json.loads((model_dir / "not_finite.json").read_text())["events"]


@pytest.fixture
def poisoned(monkeypatch):
    monkeypatch.setattr(trainer_module, "Trainer", Poisoned)
    monkeypatch.setattr(Poisoned, "factor", tf.Variable(1.0), raising=False)

    def set_to(**attributes):
        for name, value in attributes.items():
            monkeypatch.setattr(Poisoned, name, value)

    return set_to


@pytest.fixture
def curable(monkeypatch, poisoned):
    """Lets the trainer see what the rate is multiplied by."""
    factor_of = divergence.History.factor

    def factor(self, step):
        Poisoned.factor.assign(factor_of(self, step))
        return factor_of(self, step)

    monkeypatch.setattr(divergence.History, "factor", factor)


@pytest.mark.parametrize(
    ("poison", "told"),
    [
        ("loss", r"After 7 updates loss is nan, supervised_loss is nan, gradient_norm is nan, in"),
        ("gradient", r"After 7 updates gradient_norm is inf, in"),
    ],
)
def test_the_run_stops_before_the_update(tmp_path, poisoned, poison, told):
    poisoned(poison=poison)
    with pytest.raises(UserError, match=told) as error:
        train(tmp_path)
    # Step 7 is the third batch of the second epoch of 5.
    assert "batch 2 of epoch 1 of joint (from 0), training examples" in str(error.value)
    assert "the last good checkpoint is ckpt-6" in str(error.value)
    (event,) = events(tmp_path)
    gin.parse_config("dataset.max_examples = 40")
    split = data.load(data.Digits(side=6, border=1), "train", max_examples=40)
    assert event["examples"] == split.order(8, seed=0, epoch=1)[16:24].tolist()
    assert (event["step"], event["epoch"], event["batch"]) == (7, 1, 2)
    assert event["checkpoint"] == "ckpt-6"
    assert all(np.isfinite(value).all() for value in stored(tmp_path).values())
    # Started again, it meets the same; without the fault, it ends as if nothing had been.
    with pytest.raises(UserError, match="After 7 updates"):
        train(tmp_path)
    assert len(events(tmp_path)) == 1
    poisoned(at=-1)
    assert train(tmp_path)
    assert train(tmp_path / "quiet")
    assert_same(stored(tmp_path), stored(tmp_path / "quiet"))


def test_weights_that_are_not_finite_get_into_no_checkpoint(tmp_path, poisoned):
    # A gradient that is finite, of which the rate makes weights that are not.
    poisoned(at=0, poison="weights")
    settings = ["train.clip_norm = None", "LEARNING_RATE = 1e30", "RunConfig.steps_per_call = 1"]
    with pytest.raises(UserError, match=r"After 1 updates .* is not finite, in batch 0 of epoch 0"):
        train(tmp_path, *settings)
    assert not list((tmp_path / "checkpoints").glob("*"))
    (event,) = events(tmp_path)
    assert event["checkpoint"] is None
    assert set(event["not_finite"].values()) == {"not finite"}


def rates(model_dir):
    lines = (model_dir / "metrics.jsonl").read_text().splitlines()
    entries = [json.loads(line) for line in lines]
    return {e["step"]: e["learning_rate"] for e in entries if e["split"] == "train"}


@pytest.mark.usefixtures("curable")
@pytest.mark.parametrize("lost", [False, True])
def test_it_goes_back_with_a_lower_rate_and_so_does_a_killed_run(tmp_path, monkeypatch, lost):
    settings = ["train.on_nan = 'back_off'", "BackOff.rate_factor = 0.25"]
    settings += ["RunConfig.checkpoints_kept = 99"]
    assert train(tmp_path / "quiet", *settings)
    (event,) = events(tmp_path / "quiet")
    assert (event["step"], event["back_to"], event["rate_factor"]) == (7, 6, 0.25)
    # Every line once, and the lower rate from step 6 on.
    high, low = np.float32(3e-3), np.float32(3e-3 / 4)
    assert rates(tmp_path / "quiet") == {
        step: pytest.approx(high if step <= 6 else low) for step in (*range(2, 15, 2), 15)
    }

    class Killed(BaseException):
        pass

    save = checkpoints.Manager.save

    def killed(self, step):
        if step == 12:
            raise Killed
        save(self, step)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints.Manager, "save", killed)
        with pytest.raises(Killed):
            train(tmp_path / "killed", *settings)
    if lost:
        # It goes on from before the step from which on the rate is lower.
        for path in (tmp_path / "killed" / "checkpoints").glob("ckpt-*"):
            if step_of(path) > 2:
                path.unlink()
    assert train(tmp_path / "killed", *settings)
    assert_same(stored(tmp_path / "killed"), stored(tmp_path / "quiet"))
    assert rates(tmp_path / "killed") == rates(tmp_path / "quiet")


def step_of(path):
    return int(path.name.split("-")[1].split(".")[0])


@pytest.mark.parametrize("on_nan", ["'back_off'", "@BackOff()"])
def test_it_goes_back_to_its_beginning_and_so_often_only(tmp_path, poisoned, on_nan):
    poisoned(at=1)
    with pytest.raises(UserError, match=r"the run has gone back 2 times \(BackOff.times\)"):
        train(
            tmp_path,
            f"train.on_nan = {on_nan}",
            "BackOff.times = 2",
            "RunConfig.checkpoint_minutes = 60",
        )
    *back, last = events(tmp_path)
    assert [event["back_to"] for event in back] == [0, 0]
    assert last["back_to"] is None
    assert last["checkpoint"] == "ckpt-0"


def test_it_goes_back_further_than_to_the_step_itself(tmp_path, monkeypatch, poisoned):
    """With the same weights and the same batch no rate would help: a checkpoint before is taken."""
    factor_of = divergence.History.factor

    def factor(self, step):
        # Step 7 is cured by a lower rate of the step before it.
        Poisoned.factor.assign(factor_of(self, step - 1))
        return factor_of(self, step)

    monkeypatch.setattr(divergence.History, "factor", factor)
    assert train(tmp_path, "train.on_nan = 'back_off'", "RunConfig.steps_per_call = 1")
    (event,) = events(tmp_path)
    assert (event["step"], event["checkpoint"], event["back_to"]) == (7, "ckpt-7", 6)


def test_a_run_whose_last_weights_are_not_finite_is_not_done(tmp_path, monkeypatch):
    check, wrong = divergence.check_weights, []

    def found_once(variables):
        if not wrong and step_now() == STEPS:
            wrong.append(True)
            raise divergence.NotFinite({"kernel": None})
        check(variables)

    def step_now():
        lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
        return json.loads(lines[-1])["step"] if lines else 0

    monkeypatch.setattr(divergence, "check_weights", found_once)
    settings = ["train.on_nan = 'back_off'", "RunConfig.checkpoint_minutes = 60"]
    assert train(tmp_path, *settings)
    (event,) = events(tmp_path)
    assert (event["step"], event["back_to"]) == (STEPS, 0)
    assert max(map(step_of, (tmp_path / "checkpoints").glob("ckpt-*.index"))) == STEPS
    assert (tmp_path / "metrics.jsonl").read_text().count('"test"') == 1


def test_the_rate_is_a_function_of_the_step(tmp_path):
    history = divergence.History(tmp_path)
    event = {"phase": "joint", "epoch": 0, "batch": 0, "examples": [], "not_finite": {}}
    for step, back_to in ((9, 6), (9, 6), (30, 20)):
        history.add(
            divergence.Event(
                step=step, checkpoint=f"ckpt-{back_to}", back_to=back_to, rate_factor=0.5, **event
            )
        )
    for history_now in (history, divergence.History(tmp_path)):
        assert [history_now.factor(step) for step in (0, 5, 6, 19, 20)] == [1, 1, 0.25, 0.25, 0.125]
        assert [history_now.next_change(step) for step in (0, 6, 19, 20)] == [6, 20, 20, None]
    content = (tmp_path / "not_finite.json").read_text()
    for damaged in (content[:-9], content.replace("0.5", '"0.5"'), "[]", '{"events": [{}]}'):
        (tmp_path / "not_finite.json").write_text(damaged)
        with pytest.raises(UserError, match=r"not_finite\.json is damaged"):
            divergence.History(tmp_path)


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("train.on_nan = 'go_on'", "train.on_nan must be 'stop', 'back_off' or @BackOff"),
        ("train.on_nan = @BackOff", "train.on_nan must be .* a reference to a BackOff"),
        ("BackOff.rate_factor = 1.0", "BackOff.rate_factor must be between 0 and 1"),
        ("BackOff.rate_factor = 0.0", "BackOff.rate_factor must be between 0 and 1"),
        ("BackOff.times = 0", "BackOff.times must be at least 1, but is 0"),
        (
            "RunConfig.checkpoints_kept = 1",
            "RunConfig.checkpoints_kept must be at least 2, but is 1",
        ),
    ],
)
def test_bad_values(tmp_path, setting, told):
    with pytest.raises(UserError, match=told):
        train(tmp_path / "run", setting)
    assert not (tmp_path / "run").exists()
