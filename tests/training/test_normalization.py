"""A run, and a Keras model, take values as they are: the network normalises them."""

import dataclasses
import json
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf

import t2aux
from t2aux import data
from t2aux.data import Batch, normalization
from t2aux.errors import ModelError, SettingError
from t2aux.losses import Reconstruction
from t2aux.losses.base import Objective
from t2aux.model.transformer import Transformer
from t2aux.run import load_run
from t2aux.training import checkpoints, identity
from t2aux.training.classifier import make_classifier
from tests import networks
from tests.training.test_identity import train

MEAN, DEVIATION = (1e4, -3.0), (2.0, 0.01)


def write_data(folder):
    """Twelve sequences of five steps for training, six for the test, far from 0."""
    folder.mkdir(parents=True, exist_ok=True)
    numbers = np.random.default_rng(0)
    for split, count in (("train", 12), ("test", 6)):
        inputs = numbers.normal(size=(count, 5, 2)) * DEVIATION + MEAN
        np.savez(folder / f"{split}.npz", inputs=inputs, labels=np.arange(count) % 3)
    return folder


def raw_and_by_hand(info, lengths=(9, 4, 6)):
    """A batch as the data has it, and one whose values are normalised by hand."""
    batch = networks.batch(info, lengths)
    raw = batch.inputs * DEVIATION + MEAN
    return Batch(raw, *batch[1:]), Batch((raw - MEAN) / DEVIATION, *batch[1:])


def normalising(info):
    return dataclasses.replace(info, mean=MEAN, deviation=DEVIATION)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A run that is done, and its data."""
    root = tmp_path_factory.mktemp("normalization")
    assert train(root / "run", write_data(root / "data"))
    return root


@pytest.fixture(scope="module")
def plain(done):
    """A run on the same data without the numbers, after its first epoch."""
    run = done / "plain"
    assert train(run, done / "data", "train.normalize = False", "JOINT_EPOCHS = 1")
    return run


def stored(run):
    return json.loads((run / "dataset.json").read_text())


def test_a_run_keeps_the_numbers_of_its_training_data(done):
    values = np.load(done / "data" / "train.npz")["inputs"].reshape(-1, 2)
    found = stored(done / "run")
    np.testing.assert_allclose(found["mean"], values.mean(0), rtol=1e-6)
    np.testing.assert_allclose(found["deviation"], values.std(0), rtol=1e-4)
    run = load_run(done / "run")
    assert run.classifier.info == run.info == data.DatasetInfo.from_json(found)
    plain = make_classifier(run.info.without_normalization(), hidden_size=4, head_size=4)
    plain.set_weights(run.classifier.get_weights())
    test = data.load(run.source, "test", run.info)
    inputs = np.stack([test.example(i) for i in range(6)])
    by_hand = (inputs - np.float32(found["mean"])) / np.float32(found["deviation"])
    wanted = plain.predict(by_hand, verbose=0)
    np.testing.assert_allclose(run.classifier.predict(inputs, verbose=0), wanted, atol=1e-6)
    assert np.abs(wanted[0] - wanted[1]).max() > 1e-3


def test_a_run_is_resumed_with_its_own_numbers(done, tmp_path, monkeypatch):
    run = tmp_path / "run"
    assert train(run, done / "data", "JOINT_EPOCHS = 1")
    before = stored(run)

    def never(split):
        raise AssertionError("The run has its numbers.")

    monkeypatch.setattr(normalization, "fitted", never)
    assert train(run, done / "data", allow_changes=True)
    assert stored(run) == before
    newest = [checkpoints.newest(r / "checkpoints").path for r in (run, done / "run")]
    weights = [tf.train.load_checkpoint(path) for path in newest]
    for name in weights[0].get_variable_to_shape_map():
        if name.startswith("classifier"):
            np.testing.assert_array_equal(*(reader.get_tensor(name) for reader in weights))


def test_a_run_without(done, plain):
    assert "mean" not in stored(plain)
    assert load_run(plain).info.mean is None
    with pytest.raises(ModelError, match=r"train\.normalize: False -> True"):
        train(plain, done / "data")
    with pytest.raises(ModelError, match=r"train\.normalize: True -> False"):
        train(done / "run", done / "data", "train.normalize = False")


@pytest.mark.parametrize("setting", [(), ("train.normalize = False",)])
def test_a_run_of_an_older_version_stays_as_it_is(done, plain, tmp_path, setting):
    run = shutil.copytree(plain, tmp_path / "run")
    path = run / identity.FILE
    written = json.loads(path.read_text())
    del written["settings"]["train.normalize"]
    path.write_text(json.dumps(written))
    config_file = run / "config.gin"
    config_file.write_text(config_file.read_text().replace("train.normalize = False\n", ""))
    assert train(run, done / "data", *setting, allow_changes=True)
    assert "mean" not in stored(run)
    assert load_run(run).info.mean is None


def test_training_sees_normalised_values_in_the_auxiliary_losses_too():
    info = networks.vectors_info(channels=2)
    raw, by_hand = raw_and_by_hand(info)
    steps = []
    for of_classifier, batch in ((normalising(info), raw), (info, by_hand)):
        objective = Objective([Reconstruction(length=3)], 3, 3)
        trainer = networks.classifier(of_classifier, objective=objective).trainer
        steps.append(
            trainer.step(
                batch, seed=tf.constant([0, 1]), progress=tf.constant(0.5), supervised=True
            )
        )
    for name, value in steps[1].metrics.items():
        np.testing.assert_allclose(steps[0].metrics[name], value, rtol=1e-4)
    for found, wanted in zip(steps[0].gradients, steps[1].gradients, strict=True):
        np.testing.assert_allclose(found, wanted, atol=2e-3 * np.abs(wanted).max())
    assert float(steps[0].metrics["reconstruction_loss"]) < 10


def test_a_transformer_normalises(tmp_path):
    info = networks.vectors_info(channels=2)
    raw, by_hand = raw_and_by_hand(info)
    answers = [
        Transformer(of_model, seed=0, model_size=8, heads=2, layers=1).logits_of(*batch[:2])
        for of_model, batch in ((normalising(info), raw), (info, by_hand))
    ]
    np.testing.assert_allclose(*answers, atol=1e-3)


def test_steps_that_pad_are_without_effect():
    info = normalising(networks.vectors_info(channels=2))
    classifier = networks.classifier(info)
    raw, _ = raw_and_by_hand(info)
    longer = tf.pad(raw.inputs, [[0, 0], [0, 5], [0, 0]], constant_values=1e9)
    np.testing.assert_array_equal(
        classifier.logits_of(raw.inputs, raw.lengths), classifier.logits_of(longer, raw.lengths)
    )
    for row, length in enumerate(raw.lengths.numpy()):
        np.testing.assert_allclose(
            classifier.logits_of(raw.inputs[row : row + 1, :length])[0],
            classifier.logits_of(longer, raw.lengths)[row],
            atol=1e-6,
        )


def test_a_keras_model_keeps_them_in_its_file(tmp_path):
    model = networks.classifier(normalising(networks.vectors_info(channels=2, length=5)))
    numbers = np.random.default_rng(0).normal(size=(8, 5, 2)) * DEVIATION + MEAN
    model.compile(keras.optimizers.Adam(1e-2))
    history = model.fit(numbers, np.arange(8) % 3, epochs=2, verbose=0)
    assert np.isfinite(history.history["loss"]).all()
    wanted = model.predict(numbers, verbose=0)
    assert np.abs(wanted[0] - wanted[1]).max() > 1e-4
    model.save(tmp_path / "model.keras")
    loaded = t2aux.load(tmp_path / "model.keras").model
    assert loaded.info == model.info
    np.testing.assert_allclose(loaded.predict(numbers, verbose=0), wanted, atol=1e-6)


def test_phases_of_at_least_so_many_updates(done, tmp_path):
    run = tmp_path / "run"
    # Three updates an epoch.
    cosine = "joint/Phase.decay_schedule = 'cosine'"
    settings = ["joint/Phase.min_updates = 7", cosine, "JOINT_EPOCHS = 1"]
    assert train(run, done / "data", *settings)
    assert checkpoints.steps(run / "checkpoints")[-1] == 9
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    rates = {line["learning_rate"] for line in lines if "learning_rate" in line}
    # That of the last of nine steps.
    assert min(rates) == pytest.approx(0.002 * (1 + np.cos(np.pi * 8 / 9)) / 2)
    assert train(run, done / "data", *settings)


def test_noise_is_of_training_alone_and_a_function_of_the_seed():
    info = normalising(networks.vectors_info(channels=2))
    raw, _ = raw_and_by_hand(info)

    def step(noise, seed=0):
        trainer = networks.classifier(info, noise=noise).trainer
        progress = tf.constant(0.5)
        made = trainer.step(raw, seed=tf.constant([seed, 1]), progress=progress, supervised=True)
        return made.logits.numpy()

    np.testing.assert_array_equal(step(0.5), step(0.5))
    assert np.abs(step(0.5) - step(0.0)).max() > 1e-3
    assert np.abs(step(0.5) - step(0.5, seed=1)).max() > 1e-3
    np.testing.assert_array_equal(step(0.0), step(0.0, seed=1))
    answers = [networks.classifier(info, noise=n).logits_of(*raw[:2]) for n in (0.0, 0.5)]
    np.testing.assert_array_equal(*answers)


def test_noise_that_can_not_be(tmp_path):
    with pytest.raises(SettingError, match=r"\.noise .* 0, .* -1"):
        networks.classifier(networks.vectors_info(), noise=-1)
    with pytest.raises(SettingError, match=r"\.noise = 0\.1 "):
        networks.classifier(networks.text_info(), noise=0.1)
    model = t2aux.SequenceClassifier(2, noise=0.25)
    assert t2aux.SequenceClassifier.from_config(model.get_config()).noise == 0.25
