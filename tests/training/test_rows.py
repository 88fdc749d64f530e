"""`rows`: an auxiliary loss on a random share of the batch's rows."""

import collections
import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

import t2aux
from t2aux.data import Batch
from t2aux.errors import SettingError
from t2aux.losses import LanguageModel, Prediction, Reconstruction, SequenceAutoencoder, Sequences
from t2aux.model.share import Share
from t2aux.training import plan
from t2aux.training.trainer import Trainer
from tests import networks
from tests.losses.test_own_loss import MeanToken, Surprise
from tests.training.test_shares import assert_shares_add_up

# "ragged" has sequences that are too short for the segments of some anchors.
KINDS = {
    "pixels": (networks.vectors_info(channels=2, length=20), [20] * 4),
    "ragged": (networks.vectors_info(channels=2), [20, 6, 9, 17]),
    "text": (networks.text_info(), [20, 13, 3, 17]),
}
LOSSES = {
    "r": lambda: [Reconstruction(anchors=2, length=5, head_size=6, weight=0.5)],
    "r plain": lambda: [Reconstruction(length=5, head_size=6, scheduled_sampling=False)],
    "p": lambda: [Prediction(anchors=2, length=5, head_size=6)],
    "p measured": lambda: [Prediction(length=5, head_size=6, weight=0.0)],
    "r and p": lambda: [*LOSSES["r"](), Prediction(length=6, head_size=6)],
    "lm": lambda: [LanguageModel(head_size=6)],
    "sa": lambda: [SequenceAutoencoder(head_size=6)],
    "own states": lambda: [MeanToken()],
    "own outputs": lambda: [Surprise(length=7)],
}
FULL = {"supervised_bptt": "full", "auxiliary_bptt": "full"}
CUT = {"supervised_bptt": 4, "auxiliary_bptt": 3}


def make(kind, losses, rows, bptt, **parameters):
    info, lengths = KINDS[kind]
    keras.utils.set_random_seed(0)
    made = LOSSES[losses]()
    for loss in made:
        loss.rows = rows
    classifier = networks.classifier(info, **parameters)
    return Trainer(classifier, made, **bptt), networks.batch(info, lengths)


def stepping(trainer, batch, compiled=False, **arguments):
    """A step as a function of the seed; not compiled, which takes a tenth of the time."""
    arguments = {"progress": tf.constant(0.6), "supervised": True, **arguments}

    def step(seed):
        return trainer.step(batch, seed=seed, **arguments)._replace(logits=())

    if compiled:
        step = tf.function(step, autograph=False)
    return lambda *seed: step(tf.constant(seed or [5, 11]))


def assert_close(got, want):
    for name, value in want.metrics.items():
        np.testing.assert_allclose(got.metrics[name], value, rtol=2e-5, err_msg=name)
    for a, b in zip(got.gradients, want.gradients, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6 + 1e-5 * np.abs(b).max())


@pytest.fixture
def given(monkeypatch):
    """A variable that says which rows are drawn; what they count for stays as it is."""
    rows, draw = tf.Variable([0, 1], trainable=False), plan.draw_rows
    monkeypatch.setattr(plan, "draw_rows", lambda *a: (rows.read_value(), draw(*a)[1]))
    return rows


UNBIASED = [
    ("pixels", "r and p", FULL, True),
    ("ragged", "r", FULL, False),
    ("ragged", "r and p", CUT, True),
    ("text", "p", CUT, False),
    ("text", "r", CUT, False),
    ("ragged", "p measured", CUT, True),
    ("text", "lm", CUT, False),
    ("ragged", "sa", CUT, True),
    ("ragged", "own states", CUT, True),
    ("ragged", "own outputs", CUT, False),
]


# The others are in the long tier.
SHORT = (1, 3, 5, 6, 8)


@pytest.mark.parametrize(
    ("kind", "losses", "bptt", "supervised"),
    [
        pytest.param(*case, marks=[] if i in SHORT else pytest.mark.long)
        for i, case in enumerate(UNBIASED)
    ],
)
def test_the_mean_over_all_draws_is_the_loss_and_its_gradient(
    given, kind, losses, bptt, supervised
):
    whole, batch = make(kind, losses, 1.0, bptt)
    want = stepping(whole, batch, supervised=supervised)()
    half, _ = make(kind, losses, 0.5, bptt)
    step, steps = stepping(half, batch, supervised=supervised), []
    for rows in itertools.combinations(range(4), 2):
        given.assign(rows)
        steps.append(step())
    assert_close(tf.nest.map_structure(lambda *values: np.mean(values, axis=0), *steps), want)
    name = f"{half.losses[-1].name}_loss"
    assert np.std([step.metrics[name] for step in steps]) > 1e-4


@pytest.mark.parametrize(
    ("losses", "bptt"),
    [("r plain", FULL), ("r plain", CUT), ("p", FULL), ("p", CUT), ("lm", CUT), ("sa", CUT)],
)
def test_it_is_the_loss_of_a_batch_of_these_rows(given, losses, bptt):
    part, batch = make("pixels", losses, 0.5, bptt)
    rows = [1, 3]
    given.assign(rows)
    alone, _ = make("pixels", losses, 1.0, bptt)
    of_rows = Batch(*(tf.gather(values, rows) for values in batch))
    want = stepping(alone, of_rows, supervised=False)()
    assert_close(stepping(part, batch, supervised=False)(), want)


def test_the_supervised_loss_is_of_all_rows():
    (want, got) = (stepping(*make("text", "p measured", rows, CUT))() for rows in (1.0, 0.5))
    for a, b in zip(got.gradients, want.gradients, strict=True):
        np.testing.assert_array_equal(a, b)
    assert got.metrics["prediction_loss"] != want.metrics["prediction_loss"]


@pytest.mark.parametrize(("kind", "losses"), [("ragged", "r"), ("text", "sa")])
def test_all_rows_give_the_same_bits_as_no_draw(kind, losses, monkeypatch):
    # ceil(4 * 0.8) rows are all four.
    got = stepping(*make(kind, losses, 0.8, CUT))()
    monkeypatch.setattr(plan, "draw_rows", None)
    want = stepping(*make(kind, losses, 1.0, CUT))()
    tf.nest.map_structure(np.testing.assert_array_equal, got, want)


def test_a_draw_is_a_function_of_the_seed():
    step, again = (stepping(*make("ragged", "p", 0.5, CUT)) for _ in range(2))
    first = step(5, 11)
    tf.nest.map_structure(np.testing.assert_array_equal, again(5, 11), first)
    assert step(5, 13).metrics["prediction_loss"] != first.metrics["prediction_loss"]


def drawn(size, rows, share=None):
    """The draw of a batch as a compiled function of the seed."""
    zeros = tf.zeros([size], tf.int32)
    sequences = Sequences(tf.zeros([3, size, 1]), zeros, zeros, padded=False, share=share)
    return tf.function(lambda seed: plan.draw_rows(sequences, rows, seed))


def test_every_set_of_rows_is_drawn_as_often():
    draw, counts = drawn(5, 0.4), collections.Counter()
    for i in range(2000):
        rows, scale = draw(tf.constant([3, i]))
        assert scale == 2.5
        counts[tuple(rows.numpy())] += 1
    assert set(counts) == set(itertools.combinations(range(5), 2))
    # 200 each; five standard deviations.
    assert all(abs(count - 200) < 5 * 200**0.5 for count in counts.values())


@pytest.mark.parametrize(
    ("size", "rows", "count"),
    [(128, 0.25, 32), (5, 0.5, 3), (100, 0.07, 7), (3, 1 / 3, 1), (1, 0.01, 1), (4, 0.999, 4)],
)
def test_how_many_rows_are_drawn(size, rows, count):
    graph = drawn(size, rows).get_concrete_function(tf.constant([0, 1]))
    assert graph.structured_outputs[0].shape == [count]
    assert int(plan.row_count(tf.constant(size), rows)) == count


@pytest.mark.parametrize("replicas", [2, 3, 9])
def test_replicas_draw_together_what_one_draws(replicas):
    size = 7
    numbers = range(min(replicas, size))
    shares = [Share(replica, replicas, tf.fill([size], 3)) for replica in numbers]
    parts = [drawn(len(range(share.replica, size, replicas)), 0.4, share) for share in shares]
    whole = drawn(size, 0.4)
    for i in range(20):
        seed = tf.constant([1, i])
        want, scale = whole(seed)
        got = []
        for replica, part in zip(numbers, parts, strict=True):
            rows, factor = part(seed)
            assert len(rows) >= 1
            assert factor in (0, scale)
            if factor:
                got += [replica + replicas * row for row in rows.numpy()]
        assert sorted(got) == want.numpy().tolist()


@pytest.mark.parametrize(
    ("kind", "losses", "bptt", "replicas"),
    [pytest.param("text", "r", CUT, 4, marks=pytest.mark.long), ("pixels", "p", FULL, 3)],
)
def test_the_shares_of_a_step_add_up(kind, losses, bptt, replicas):
    # 3 of 4 rows; with four replicas one has none of them.
    assert_shares_add_up(*make(kind, losses, 0.75, bptt, dropconnect=0.5), replicas)


@pytest.mark.parametrize(
    ("supervised", "passes"),
    [(True, [("without", 7), ("with", 3)]), (False, [("without", 3), ("with", 3)])],
)
def test_the_loss_costs_its_share(supervised, passes, monkeypatch):
    classifier = networks.classifier(KINDS["pixels"][0])
    passed, decoded = [], []
    states_at = classifier.states_at

    def noting_passes(tokens, scan):
        passed.append(("with" if scan.gradient else "without", tokens.shape[1]))
        return states_at(tokens, scan)

    monkeypatch.setattr(classifier, "states_at", noting_passes)
    loss = Reconstruction(anchors=2, length=5, head_size=6, rows=0.4)
    call = loss.call

    def noting(given):
        decoded.append((given.sequences.tokens.shape[1], given.states.h.shape[0]))
        return call(given)

    monkeypatch.setattr(loss, "call", noting)
    trainer = Trainer(classifier, [loss], **CUT)
    batch = networks.batch(KINDS["pixels"][0], [20] * 7)
    stepping(trainer, batch, compiled=True, supervised=supervised)()
    # ceil(7 * 0.4) rows for each of two anchors, known before anything runs.
    assert set(decoded) == {(3, 6)}
    assert passed == passes


@pytest.mark.parametrize("rows", [0, -0.5, 1.5, float("nan"), "half", None])
@pytest.mark.parametrize("loss", [Reconstruction, MeanToken])
def test_a_share_out_of_range_is_refused(loss, rows):
    with pytest.raises(SettingError, match=rf"{loss.__name__}\.rows .* 0 .* 1, .* {rows!r}\."):
        loss(rows=rows)


@pytest.mark.parametrize("loss", [Reconstruction, Prediction, LanguageModel, SequenceAutoencoder])
def test_it_is_a_part_of_the_configuration(loss):
    assert loss().get_config()["rows"] == 1
    assert loss.from_config(loss(rows=0.25).get_config()).rows == 0.25


def test_a_loss_of_ones_own_has_it():
    assert MeanToken.from_config(MeanToken(rows=0.5).get_config()).rows == 0.5
    # One whose constructor does not take it.
    assert "rows" not in MeanToken().get_config()


def test_fit_and_a_file_know_it(tmp_path):
    info = networks.vectors_info(channels=2)
    x, lengths, y = (part.numpy() for part in networks.batch(info, [20, 13, 9, 17, 20, 11]))

    def fitted(rows, model=None):
        model = model or t2aux.SequenceClassifier(
            classes=3,
            core=t2aux.layers.LSTM(5),
            auxiliary=[Reconstruction(length=5, head_size=6, rows=rows)],
            **{**CUT, "projection_size": 4, "head_size": 6},
        )
        model.compile(keras.optimizers.SGD(0.1), run_eagerly=True)
        model.fit((x, lengths), y, batch_size=4, verbose=0, shuffle=False)
        return model

    keras.utils.set_random_seed(0)
    model = fitted(0.5)
    model.save(tmp_path / "model.keras")
    loaded = t2aux.load(tmp_path / "model.keras").model
    assert loaded.auxiliary[0].rows == 0.5
    # The same numbers are drawn, test_a_draw_is_a_function_of_the_seed.
    keras.utils.set_random_seed(0)
    other = fitted(1.0).get_weights()
    assert any((a != b).any() for a, b in zip(other, model.get_weights(), strict=True))
