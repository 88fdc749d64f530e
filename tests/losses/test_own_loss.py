"""Auxiliary losses of a user's own: one for each declaration, with every core and truncation."""

import importlib.util
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import t2aux
from t2aux.errors import SettingError
from t2aux.losses import AuxiliaryLoss, OutputsFrom, OutputsOfAll, Reconstruction, StatesAt
from t2aux.model.gru import GRU
from t2aux.model.lstm import LSTM, LSTMState
from t2aux.model.mingru import MinGRU
from t2aux.training.trainer import Trainer
from tests import networks
from tests.cli_helpers import ROOT, environment
from tests.training.test_shares import assert_shares_add_up
from tests.training.test_trainer import assert_same, reference_states, step

EXAMPLE = ROOT / "examples" / "own_loss.py"
CORES = {"lstm": LSTM, "gru": GRU, "mingru": MinGRU}


def example():
    spec = importlib.util.spec_from_file_location("own_loss", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


MeanToken = example().MeanToken


class Surprise(AuxiliaryLoss):
    """From the outputs of a range, by an LSTM of its own, the size of the next token's change."""

    def __init__(self, *, length=12, bptt=None, whole=False):
        super().__init__(weight=2.0, bptt=bptt)
        self.length = length
        self.whole = whole

    def build(self, network):
        self.lstm = LSTM(network.hidden_size, 3, seed=1, name="surprise_lstm")
        self.dense = keras.layers.Dense(1, use_bias=False)
        self.dense.build((None, 3))

    def declare(self, sequences, seed):
        lengths = sequences.steps - sequences.all_starts
        if self.whole:
            return OutputsOfAll(tf.reduce_sum(tf.cast(lengths - 1, tf.float32)))
        position = sequences.steps - 1 - self.length
        predicted = tf.cast(tf.minimum(lengths - 1, self.length), tf.float32)
        return OutputsFrom(position[tf.newaxis], self.length, tf.reduce_sum(predicted))

    def initial_carry(self, states):
        return self.lstm.init_state(tf.shape(states.h)[0])

    def call(self, given):
        outputs, carry = self.lstm.outputs_time_major(given.outputs, given.carry, given.active)
        change = tf.reduce_sum(tf.abs(given.targets - given.tokens), axis=-1)
        predicted = self.dense(tf.reshape(outputs, [-1, 3]))
        predicted = tf.reshape(predicted, tf.shape(change))
        return tf.reduce_sum((predicted - change) ** 2 * given.mask), carry


def make(kind, core, loss, **truncation):
    length = 20 if kind == "fixed" else None
    lengths = [20] * 4 if kind == "fixed" else [20, 13, 9, 17]
    info = networks.vectors_info(channels=2, length=length)
    classifier = networks.classifier(info, core=CORES[core])
    keras.utils.set_random_seed(0)
    return Trainer(classifier, [loss()], **truncation), networks.batch(info, lengths)


def cut(state):
    return tf.nest.map_structure(tf.stop_gradient, state)


def states_of(trainer, tokens, cuts):
    """All states of one sequence [1, T, C], the gradient stopped before the steps `cuts`."""
    states = [trainer.classifier.init_state(1)]
    for t in range(tokens.shape[1]):
        before = cut(states[-1]) if t in cuts else states[-1]
        states.append(reference_states(trainer.classifier, tokens[:, t : t + 1], before)[-1])
    return states


def assert_gradient(trainer, batch, objective):
    got = step(trainer, batch, supervised=False)
    with tf.GradientTape() as tape:
        mean = objective()
        weighted = trainer.losses[0].weight * mean
    np.testing.assert_allclose(got.metrics[trainer.losses[0].name + "_loss"], mean, rtol=1e-5)
    want = tape.gradient(weighted, trainer.variables_in_order, unconnected_gradients="zero")
    assert_same(trainer, got.gradients, [tf.convert_to_tensor(g) for g in want])


@pytest.mark.parametrize(
    ("core", "kind", "bptt"),
    [("lstm", "fixed", "full"), ("lstm", "ragged", 0), *((c, "ragged", 4) for c in CORES)],
)
def test_the_examples_gradient_reaches_back_as_far_as_it_should(core, kind, bptt):
    trainer, batch = make(kind, core, MeanToken, supervised_bptt=300, auxiliary_bptt=bptt)
    (loss,) = trainer.losses
    loss.kernel.assign(tf.random.stateless_normal(loss.kernel.shape, [3, 4]))

    def objective():
        total = 0.0
        for b, length in enumerate(batch.lengths.numpy()):
            tokens = batch.inputs[b : b + 1, :length]
            cuts = {} if bptt == "full" else {length - bptt}
            state = states_of(trainer, tokens, cuts)[-1]
            h = tf.stop_gradient(state.h) if bptt == 0 else state.h
            total += tf.reduce_sum((h @ loss.kernel - tf.reduce_mean(tokens, 1)) ** 2)
        return total / len(batch.lengths)

    assert_gradient(trainer, batch, objective)


@pytest.mark.parametrize(
    ("core", "kind", "bptt"), [("lstm", "fixed", "full"), *((c, "ragged", 4) for c in CORES)]
)
def test_a_loss_on_outputs_with_a_recurrence_of_its_own(core, kind, bptt):
    trainer, batch = make(kind, core, Surprise, supervised_bptt=300, auxiliary_bptt=bptt)
    assert_gradient(trainer, batch, lambda: surprise(trainer, batch, begin=7, bptt=bptt))


@pytest.mark.parametrize(("kind", "bptt"), [("fixed", "full"), ("ragged", 4)])
def test_a_loss_on_all_outputs_with_a_recurrence_of_its_own(kind, bptt):
    trainer, batch = make(
        kind, "gru", lambda: Surprise(whole=True), supervised_bptt=300, auxiliary_bptt=bptt
    )
    assert_gradient(trainer, batch, lambda: surprise(trainer, batch, begin=0, bptt=bptt))


def surprise(trainer, batch, begin, bptt):
    """`Surprise` over the steps from `begin` to the last but one, a sequence at a time."""
    (loss,) = trainer.losses
    longest, total, count = int(max(batch.lengths)), 0.0, 0
    windows = set() if bptt == "full" else set(range(begin + bptt, longest, bptt))
    for b, length in enumerate(batch.lengths.numpy()):
        tokens = batch.inputs[b : b + 1, :length]
        own = {t - (longest - length) for t in windows | {begin}}
        states = states_of(trainer, tokens, own)
        carry = LSTMState(tf.zeros([1, 3]), tf.zeros([1, 3]))
        for t in range(max(begin - (longest - length), 0), length - 1):
            if t in own:
                carry = cut(carry)
            output, carry = loss.lstm.step(states[t + 1].h, carry)
            change = tf.reduce_sum(tf.abs(tokens[:, t + 1] - tokens[:, t]))
            total += (tf.reduce_sum(output @ loss.dense.kernel) - change) ** 2
            count += 1
    return total / count


def test_a_loss_may_say_itself_how_far_its_gradient_reaches():
    own, batch = make("ragged", "lstm", lambda: Surprise(bptt=4), auxiliary_bptt=99)
    given, _ = make("ragged", "lstm", Surprise, auxiliary_bptt=4)
    want = step(given, batch).gradients
    for a, b in zip(step(own, batch).gradients, want, strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(SettingError, match=r"Surprise\.bptt .*'full' .* -1"):
        make("ragged", "lstm", lambda: Surprise(bptt=-1))


@pytest.mark.parametrize("loss", [MeanToken, Surprise, lambda: Surprise(whole=True)])
def test_the_shares_of_replicas_add_up(loss):
    trainer, batch = make("ragged", "lstm", loss, supervised_bptt=4, auxiliary_bptt=3)
    assert_shares_add_up(trainer, batch, 2)


def test_full_backpropagation_passes_the_beginning_of_the_range():
    trainer, batch = make("fixed", "lstm", Surprise, supervised_bptt="full", auxiliary_bptt="full")
    first = step(trainer, batch, supervised=False).gradients
    stopped, _ = make("fixed", "lstm", Surprise, supervised_bptt=300, auxiliary_bptt="full")
    other = step(stopped, batch, supervised=False).gradients
    assert max(np.abs(a - b).max() for a, b in zip(first, other, strict=True)) > 1e-4


@pytest.mark.parametrize(
    ("declaration", "message"),
    [
        (lambda steps, count: steps, r"Wrong\.declare .*StatesAt"),
        (lambda steps, count: StatesAt(steps, count), r"Wrong\.declare .*\[n\] int32, .*\(\)"),
        (lambda steps, count: StatesAt([0.5], count), r"Wrong\.declare .*\[n\] int32, .*float32"),
        (lambda steps, count: OutputsFrom(steps, 2, count), r"Wrong\.declare .*\[n\] int32"),
    ],
)
def test_a_wrong_declaration_is_an_error(declaration, message):
    class Wrong(MeanToken):
        def declare(self, sequences, seed):
            return declaration(sequences.steps, super().declare(sequences, seed).count)

    trainer, batch = make("fixed", "lstm", Wrong)
    with pytest.raises(SettingError, match=message):
        step(trainer, batch)


def test_a_count_may_be_an_integer():
    class Whole(MeanToken):
        def declare(self, sequences, seed):
            return super().declare(sequences, seed)._replace(count=tf.size(sequences.starts))

    trainers = [make("fixed", "lstm", loss)[0] for loss in (MeanToken, Whole)]
    batch = make("fixed", "lstm", Whole)[1]
    values = [float(step(trainer, batch).metrics["loss"]) for trainer in trainers]
    assert values[0] == values[1]


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda total: total * tf.ones([3]), r"float32 of shape \(3,\)"),
        (lambda total: tf.cast(total, tf.int32), "int32"),
        (lambda total: None, "NoneType"),
        (lambda total: (total * tf.ones([3]), ()), r"float32 of shape \(3,\)"),
    ],
)
def test_a_loss_that_is_not_a_scalar_is_an_error(change, found):
    class Changed(MeanToken):
        def call(self, given):
            return change(super().call(given))

    trainer, batch = make("fixed", "lstm", Changed)
    with pytest.raises(SettingError, match=rf"Changed\.call .*scalar float32 .*{found}"):
        step(trainer, batch)


@pytest.mark.long
def test_the_examples_program_trains_and_evaluates(tmp_path):
    def run(*arguments):
        subprocess.run(
            [sys.executable, EXAMPLE, *arguments, f"--model_dir={tmp_path / 'run'}"],
            check=True,
            env=environment(),
        )

    run(
        *("train", "--gin_file=quickstart"),
        "--gin_param=train.auxiliary_losses = [@MeanToken]",
        "--gin_param=dataset.max_examples = 32",
        *("--gin_param=PRETRAIN_EPOCHS = 1", "--gin_param=JOINT_EPOCHS = 1"),
    )
    assert '"mean_token_loss"' in (tmp_path / "run" / "metrics.jsonl").read_text()
    run("evaluate", "--gin_param=dataset.max_examples = 8")


def named_supervised():
    return MeanToken(name="supervised")


@pytest.mark.parametrize(
    ("losses", "message"),
    [
        ([MeanToken, MeanToken], " 2 .* mean_token, "),
        ([MeanToken, named_supervised], " supervised, "),
    ],
)
def test_names_that_others_have_are_refused(losses, message):
    classifier = networks.classifier(networks.vectors_info())
    with pytest.raises(SettingError, match=message):
        Trainer(classifier, [loss() for loss in losses])


def test_a_subclass_of_a_loss_has_a_name_of_its_own():
    class Shorter(Reconstruction):
        pass

    classifier = networks.classifier(networks.vectors_info())
    made = [loss(length=4) for loss in (Reconstruction, Shorter)]
    assert [loss.name for loss in Trainer(classifier, made).losses] == ["reconstruction", "shorter"]


def test_a_keras_model_is_trained_with_it_and_saved(tmp_path):
    batch = networks.batch(networks.vectors_info(channels=2), [20, 13, 9, 17])
    x, lengths, y = (part.numpy() for part in batch)
    model = t2aux.SequenceClassifier(3, core=t2aux.layers.GRU(4), auxiliary=[MeanToken()])
    model.compile("adam")
    history = model.fit((x, lengths), y, verbose=0).history
    assert set(history) == {"loss", "mean_token_loss", "supervised_loss"}
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.auxiliary[0].kernel, model.auxiliary[0].kernel)
