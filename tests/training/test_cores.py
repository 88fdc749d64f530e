"""The auxiliary losses on other cores than the LSTM, and runs of these and of a Transformer."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from t2aux.data import Batch
from t2aux.errors import SettingError
from t2aux.losses.base import Sequences, States
from t2aux.losses.prediction import Prediction
from t2aux.losses.reconstruction import Reconstruction
from t2aux.losses.whole_sequence import LanguageModel
from t2aux.model.gru import GRU
from t2aux.model.mingru import MinGRU
from t2aux.training.trainer import Trainer
from tests import networks
from tests.cli_helpers import assert_one_sentence, t2aux
from tests.training import test_trainer, test_training_loop
from tests.training.test_trainer import KINDS, assert_same, step

CORES = {"GRU": GRU, "MinGRU": functools.partial(MinGRU, layers=2)}
# What is costly is in the long tier for the second.
ONE_CORE = ["GRU", pytest.param("MinGRU", marks=pytest.mark.long)]
LOSSES = {
    "none": [],
    "r": [(Reconstruction, {"length": 5})],
    "r many": [(Reconstruction, {"anchors": 4, "length": 3})],
    "p": [(Prediction, {"length": 5})],
    "language model": [(LanguageModel, {})],
    "r and p": [(Reconstruction, {"length": 4}), (Prediction, {"length": 6})],
}


def make(core, kind, losses, **truncation):
    info, lengths = KINDS[kind]
    classifier = networks.classifier(info, core=CORES[core])
    made = [loss(head_size=6, **parameters) for loss, parameters in LOSSES[losses]]
    return Trainer(classifier, made, **truncation), networks.batch(info, lengths)


@pytest.mark.parametrize(
    ("losses", "kind"),
    [
        ("none", "ragged"),
        pytest.param("r", "pixels", marks=pytest.mark.long),
        pytest.param("r many", "ragged", marks=pytest.mark.long),
        ("r many", "text"),
    ],
)
@pytest.mark.parametrize("core", ONE_CORE)
def test_windows_as_long_as_the_sequence_equal_one_pass(core, losses, kind):
    full, batch = make(core, kind, losses, supervised_bptt="full", auxiliary_bptt="full")
    swept, _ = make(core, kind, losses, supervised_bptt=99, auxiliary_bptt=99)
    want, got = step(full, batch), step(swept, batch)
    for name, value in want.metrics.items():
        np.testing.assert_allclose(got.metrics[name], value, rtol=1e-5, err_msg=name)
    assert_same(full, got.gradients, want.gradients)
    for variable, gradient in zip(full.variables_in_order, want.gradients, strict=True):
        assert np.any(gradient), variable.name


@pytest.mark.parametrize("losses", [pytest.param("p", marks=pytest.mark.long), "r and p"])
@pytest.mark.parametrize("core", ONE_CORE)
def test_prediction_has_the_same_loss_swept_and_in_one_pass(core, losses):
    full, batch = make(core, "ragged", losses, supervised_bptt="full", auxiliary_bptt="full")
    swept, _ = make(core, "ragged", losses, supervised_bptt=99, auxiliary_bptt=99)
    want, got = step(full, batch), step(swept, batch)
    for name, value in want.metrics.items():
        np.testing.assert_allclose(got.metrics[name], value, rtol=1e-5, err_msg=name)


@pytest.mark.parametrize("truncation", [0, 4])
@pytest.mark.parametrize("core", CORES)
def test_supervised_gradient_equals_a_hand_truncated_one(core, truncation):
    trainer, batch = make(core, "pixels", "none", supervised_bptt=truncation)
    classifier = trainer.classifier
    got = step(trainer, batch).gradients
    begin = batch.inputs.shape[1] - truncation
    zero = classifier.init_state(len(batch.labels))
    with tf.GradientTape() as tape:
        state = test_trainer.reference_states(classifier, batch.inputs[:, :begin], zero)[-1]
        state = tf.nest.map_structure(tf.stop_gradient, state)
        state = test_trainer.reference_states(classifier, batch.inputs[:, begin:], state)[-1]
        loss = tf.reduce_mean(
            tf.nn.sparse_softmax_cross_entropy_with_logits(batch.labels, classifier.logits(state.h))
        )
    want = tape.gradient(loss, trainer.variables_in_order, unconnected_gradients="zero")
    assert_same(trainer, got, [tf.convert_to_tensor(g) for g in want])


@pytest.mark.parametrize("core", CORES)
def test_weight_zero_leaves_the_plain_gradient_bit_for_bit(core):
    plain, batch = make(core, "pixels", "none", supervised_bptt=4)
    classifier = networks.classifier(KINDS["pixels"][0], core=CORES[core])
    loss = Reconstruction(length=5, weight=0.0)
    both = Trainer(classifier, [loss], supervised_bptt=4, auxiliary_bptt=4)
    want, got = step(plain, batch).gradients, step(both, batch).gradients
    for a, b in zip(want, got[: len(want)], strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("core", CORES)
def test_the_reconstructions_gradient_reaches_back_as_far_as_it_should(core):
    trainer, batch = make(core, "pixels", "r", auxiliary_bptt=4)
    (loss,) = trainer.losses
    seed = test_trainer.stream(test_trainer.SEED, 1)
    steps = batch.inputs.shape[1]
    anchor = int(loss.draw(seed, tf.zeros([4], tf.int32), tf.constant(steps))[0])
    got = step(trainer, batch, supervised=False).gradients

    def gradient(first):
        classifier = trainer.classifier
        with tf.GradientTape() as tape:
            state = classifier.init_state(4)
            state = test_trainer.reference_states(classifier, batch.inputs[:, :first], state)[-1]
            state = tf.nest.map_structure(tf.stop_gradient, state)
            part = batch.inputs[:, first:anchor]
            state = test_trainer.reference_states(classifier, part, state)[-1]
            tokens = tf.transpose(batch.inputs, [1, 0, 2])
            starts = tf.zeros([4], tf.int32)
            sequences = Sequences(tokens, starts, batch.labels, padded=False)
            given = States(
                states=state,
                positions=tf.constant([anchor]),
                sequences=sequences,
                input_layer=classifier.input_layer,
                seed=seed,
                progress=tf.constant(0.5),
                bptt=4,
            )
            value = loss.call(given) / (4 * loss.length)
        want = tape.gradient(value, trainer.variables_in_order, unconnected_gradients="zero")
        return [tf.convert_to_tensor(g) for g in want]

    assert_same(trainer, got, gradient(anchor - 4))
    with pytest.raises(AssertionError):
        assert_same(trainer, got, gradient(anchor - 5))


@pytest.mark.parametrize("kind", ["text", pytest.param("ragged", marks=pytest.mark.long)])
@pytest.mark.parametrize(
    "losses", ["r and p", pytest.param("language model", marks=pytest.mark.long)]
)
@pytest.mark.parametrize("core", ONE_CORE)
def test_batches_of_any_size_need_no_step_of_their_own(core, losses, kind):
    # As the training loop compiles it: with no size of the batch known.
    trainer, batch = make(core, kind, losses, supervised_bptt=4, auxiliary_bptt=6)
    shapes = [tf.TensorSpec([*[None] * len(x.shape[:2]), *x.shape[2:]], x.dtype) for x in batch]

    @tf.function(input_signature=shapes, autograph=False)
    def run(*parts):
        return trainer.step(
            Batch(*parts), seed=test_trainer.SEED, progress=tf.constant(0.5), supervised=True
        )

    assert_same(trainer, run(*batch).gradients, step(trainer, batch).gradients)


MODELS = {
    "GRU": ["--gin_file=cores/gru"],
    "MinGRU": ["--gin_file=cores/mingru"],
    "Transformer": [
        "--gin_file=models/transformer",
        "--gin_param=train.auxiliary_losses = []",
        "--gin_param=Transformer.model_size = 8",
        "--gin_param=JOINT_EPOCHS = 5",
    ],
}


def run(model_dir, model):
    return t2aux(*test_training_loop.arguments(model_dir, *MODELS[model]), check=False)


# Their graphs take long to build, three times in this test; that of an LSTM is killed in test_loop.
@pytest.mark.long
@pytest.mark.parametrize("model", MODELS)
def test_a_run_learns_and_continues_after_a_kill_with_the_same_weights(model, tmp_path):
    done = run(tmp_path / "quiet", model)
    assert done.returncode == 0, done.stderr
    lines = [
        line for line in test_training_loop.metrics(tmp_path / "quiet") if line["split"] == "train"
    ]
    if model == "Transformer":
        assert lines[-1]["loss"] < 0.95 * lines[0]["loss"]
    else:
        for name in ("reconstruction_loss", "prediction_loss"):
            assert lines[-1][name] < 0.9 * lines[0][name]

    process = test_training_loop.start_and_wait_for_step(tmp_path / "run", 5, *MODELS[model])
    process.kill()
    again = run(tmp_path / "run", model)
    assert again.returncode == 0, again.stderr
    assert "Continuing from" in again.stderr
    test_training_loop.assert_same_weights(tmp_path / "run", tmp_path / "quiet")

    # The finished run, as everything else reads it.
    accuracy = test_training_loop.metrics(tmp_path / "run")[-1]["accuracy"]
    assert (
        f"accuracy {100 * accuracy:.2f} %"
        in t2aux("evaluate", f"--model_dir={tmp_path / 'run'}").stdout
    )
    sequences = tmp_path / "digit.png"
    save_digit(sequences)
    classify = ["classify", f"--model={tmp_path / 'run'}", sequences]
    assert "digit.png" in t2aux(*classify).stdout
    stream = t2aux(*classify, "--stream", check=False)
    export = ["export", f"--model_dir={tmp_path / 'run'}", f"--export_dir={tmp_path / 'x'}"]
    export = t2aux(*export, check=False)
    if model == "Transformer":
        assert_one_sentence(export, "t2aux export", model, "t2aux classify --model=")
        assert not (tmp_path / "x").exists()
        assert_one_sentence(stream, model, "--stream")
    else:
        assert export.returncode == 0, export.stderr
        assert stream.returncode == 0, stream.stderr


def save_digit(path):
    from PIL import Image
    from sklearn.datasets import load_digits

    pixels = (load_digits().images[0] * 15.9).astype(np.uint8)
    Image.fromarray(pixels).save(path)


def test_a_transformer_takes_no_auxiliary_loss(tmp_path):
    done = t2aux(
        *("train", f"--model_dir={tmp_path / 'run'}", *test_training_loop.SETTINGS),
        *MODELS["Transformer"],
        "--gin_param=train.auxiliary_losses = [@Prediction]",
        check=False,
    )
    assert_one_sentence(done, "train.auxiliary_losses", "Transformer", "models/transformer")


def test_an_unknown_core_is_one_sentence(tmp_path):
    done = t2aux(
        *("train", f"--model_dir={tmp_path / 'run'}", "--gin_file=quickstart"),
        "--gin_param=Classifier.core = @GRUU",
        check=False,
    )
    assert_one_sentence(done, "GRUU", " GRU?")


def test_a_core_must_be_one():
    with pytest.raises(SettingError, match=r"Classifier\.core .* Module"):
        networks.classifier(KINDS["pixels"][0], core=lambda *_, **__: tf.Module())
