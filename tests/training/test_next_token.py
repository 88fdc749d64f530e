"""LM-LSTM's and SA-LSTM's pretraining against a plain one, a sequence and a step at a time."""

import numpy as np
import pytest
import tensorflow as tf

from t2aux.errors import SettingError
from t2aux.losses.whole_sequence import LanguageModel, SequenceAutoencoder
from t2aux.model import weights
from t2aux.model.gru import GRU
from t2aux.training.trainer import Trainer
from tests import networks
from tests.training.test_trainer import KINDS, assert_same, step

LOSSES = {"lm": LanguageModel, "sa": SequenceAutoencoder}


def make(kind, loss, truncation, core=None, **parameters):
    info, lengths = KINDS[kind]
    classifier = networks.classifier(info, **({} if core is None else {"core": core}))
    made = LOSSES[loss](head_size=6, **parameters)
    trainer = Trainer(classifier, [made], supervised_bptt=4, auxiliary_bptt=truncation)
    return trainer, networks.batch(info, lengths)


def cut(state):
    return tf.nest.map_structure(tf.stop_gradient, state)


def cuts_of(loss, length, longest, truncation):
    """Before which of its own steps a sequence's state passes no gradient.

    Windows are the batch's, whose sequences are aligned at their ends; own steps begin where the
    sequence does.
    """
    if loss == "lm":
        # Windows from the longest sequence's first step on, over all steps but the last.
        return {c - (longest - length) for c in range(truncation, longest, truncation)}
    # Windows that meet at the end of the reading; the one that the end lies in also holds
    # `truncation` steps of the reading, the last of which predicts the first token.
    behind = range(length - 1 + truncation, 2 * length, truncation)
    return {length - truncation, *behind}


def reference(trainer, batch, loss_name, truncation):
    (loss,) = trainer.losses
    classifier = trainer.classifier
    longest = int(max(batch.lengths))
    total, count = 0.0, 0
    for b, length in enumerate(batch.lengths.numpy()):
        tokens = batch.inputs[b : b + 1, :length]
        if loss_name == "lm":
            read, predicted = tokens[:, :-1], tokens[:, 1:]
            silent = 0
        else:
            read, predicted = tf.concat([tokens, tokens[:, :-1]], 1), tokens
            silent = length - 1
        cuts = cuts_of(loss_name, length, longest, truncation)
        state = classifier.init_state(1)
        for t in range(read.shape[1]):
            state = classifier.step(read[:, t], cut(state) if t in cuts else state)
            if t < silent:
                continue
            target, prediction = predicted[:, t - silent], loss.head(state.h)
            if classifier.info.is_text:
                total += tf.nn.sparse_softmax_cross_entropy_with_logits(target, prediction)[0]
            else:
                total += tf.reduce_sum((prediction - target) ** 2)
            count += 1
    return total / count


@pytest.mark.parametrize(
    "truncation", [3, "full", *(pytest.param(n, marks=pytest.mark.long) for n in (1, 7))]
)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("loss", LOSSES)
def test_the_gradient_equals_a_hand_truncated_one(loss, kind, truncation):
    trainer, batch = make(kind, loss, truncation, weight=0.5)
    got = step(trainer, batch, supervised=False)
    with tf.GradientTape() as tape:
        mean = reference(trainer, batch, loss, 10_000 if truncation == "full" else truncation)
        objective = 0.5 * mean
    want = tape.gradient(objective, trainer.variables_in_order, unconnected_gradients="zero")
    np.testing.assert_allclose(got.metrics[f"{trainer.losses[0].name}_loss"], mean, rtol=1e-5)
    np.testing.assert_allclose(got.metrics["loss"], objective, rtol=1e-5)
    assert_same(trainer, got.gradients, [tf.convert_to_tensor(g) for g in want])


@pytest.mark.parametrize("loss", LOSSES)
def test_the_reading_learns_where_the_autoencoder_alone_is_trained(loss):
    trainer, batch = make("text", loss, 2)
    gradients = step(trainer, batch, supervised=False).gradients
    by_variable = dict(zip((v.ref() for v in trainer.variables_in_order), gradients, strict=True))
    for variable in trainer.classifier.recurrent_variables:
        assert np.any(by_variable[variable.ref()]), variable.name
    for variable in trainer.classifier.head.trainable_variables:
        assert not np.any(by_variable[variable.value.ref()]), variable.name


@pytest.mark.parametrize("loss", LOSSES)
def test_another_core(loss):
    trainer, batch = make("text", loss, 4, core=GRU)
    got = step(trainer, batch, supervised=False)
    with tf.GradientTape() as tape:
        mean = reference(trainer, batch, loss, 4)
    want = tape.gradient(mean, trainer.variables_in_order, unconnected_gradients="zero")
    assert_same(trainer, got.gradients, [tf.convert_to_tensor(g) for g in want])


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("supervised_bptt", [4, "full"])
def test_beside_the_supervised_loss_the_gradients_add_up(loss, supervised_bptt):
    trainer, batch = make("ragged", loss, "full")
    trainer.supervised_bptt = supervised_bptt
    both = step(trainer, batch)
    alone = step(trainer, batch, supervised=False)
    plain = step(Trainer(trainer.classifier, supervised_bptt=supervised_bptt), batch)
    zeros = [tf.zeros_like(v) for v in weights.in_order(trainer.losses[0])]
    want = [a + b for a, b in zip(alone.gradients, [*plain.gradients, *zeros], strict=True)]
    assert_same(trainer, both.gradients, want)
    np.testing.assert_allclose(
        both.metrics["loss"], alone.metrics["loss"] + plain.metrics["loss"], rtol=1e-6
    )


def test_an_autoencoder_needs_no_second_token():
    trainer, _ = make("text", "sa", 3)
    batch = networks.batch(KINDS["text"][0], [1, 1])
    mean = step(trainer, batch, supervised=False).metrics["sequence_autoencoder_loss"]
    np.testing.assert_allclose(mean, reference(trainer, batch, "sa", 3), rtol=1e-6)
    trainer, _ = make("text", "lm", 3)
    got = step(trainer, batch, supervised=False)
    assert got.metrics["language_model_loss"] == 0
    assert not any(np.any(g) for g in got.gradients)


@pytest.mark.parametrize("loss", LOSSES)
def test_a_truncation_of_zero_steps_is_refused(loss):
    with pytest.raises(SettingError, match=f" = 0 .* {LOSSES[loss].__name__} "):
        make("text", loss, 0)
