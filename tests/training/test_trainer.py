"""The truncated gradients against plainer ways to compute them."""

import numpy as np
import pytest
import tensorflow as tf

from t2aux.errors import SettingError
from t2aux.losses.base import stream
from t2aux.losses.prediction import Prediction
from t2aux.losses.reconstruction import Reconstruction
from t2aux.model.lstm import LSTMState
from t2aux.training.trainer import Trainer
from t2aux.training.truncation import align_ends, group_anchors
from tests import grids, networks

SEED = tf.constant([5, 11])


def step(trainer, batch, progress=0.5, supervised=True):
    """Not compiled, which takes a tenth of the time. `compiled` is the same."""
    return trainer.step(batch, seed=SEED, progress=tf.constant(progress), supervised=supervised)


def compiled(trainer, batch, **more):
    return tf.function(lambda: step(trainer, batch, **more), autograph=False)()


def by_name(trainer, gradients):
    return {
        f"{i}:{v.name}": g.numpy()
        for i, (v, g) in enumerate(zip(trainer.variables_in_order, gradients, strict=True))
    }


def assert_same(trainer, got, want, tolerance=1e-5):
    got, want = by_name(trainer, got), by_name(trainer, want)
    for name, value in want.items():
        scale = max(np.abs(value).max(), 1e-3)
        np.testing.assert_allclose(got[name] / scale, value / scale, atol=tolerance, err_msg=name)


KINDS = {
    "pixels": (networks.vectors_info(channels=2, length=20), [20] * 4),
    "ragged": (networks.vectors_info(channels=1), [20, 13, 9, 17]),
    "text": (networks.text_info(), [20, 13, 9, 17]),
}
LOSSES = {
    "lstm": [],
    "r": [(Reconstruction, {"anchors": 1, "length": 5})],
    "r many": [(Reconstruction, {"anchors": 4, "length": 3})],
    "r plain": [
        (
            Reconstruction,
            {
                "length": 5,
                "scheduled_sampling": False,
                "reverse": False,
                "distant_past": False,
                "weight": 0.5,
            },
        )
    ],
    "p": [(Prediction, {"anchors": 1, "length": 5})],
    "p many": [(Prediction, {"anchors": 3, "length": 4})],
    "r and p": [(Reconstruction, {"length": 4}), (Prediction, {"length": 6})],
}


def make(kind, losses, **truncation):
    info, lengths = KINDS[kind]
    classifier = networks.classifier(info)
    made = [loss(head_size=6, **parameters) for loss, parameters in LOSSES[losses]]
    return Trainer(classifier, made, **truncation), networks.batch(info, lengths)


@grids.halved(
    kind=list(KINDS),
    case=[("lstm", True), ("r", True), ("r", False), ("r many", True), ("r plain", False)],
)
def test_windows_as_long_as_the_sequence_equal_one_pass(kind, case):
    losses, supervised = case
    full, batch = make(kind, losses, supervised_bptt="full", auxiliary_bptt="full")
    # 99 steps are more than there are: the same gradient, the other way.
    swept, _ = make(kind, losses, supervised_bptt=99, auxiliary_bptt=99)
    want, got = step(full, batch, supervised=supervised), step(swept, batch, supervised=supervised)
    for name, value in want.metrics.items():
        np.testing.assert_allclose(got.metrics[name], value, rtol=1e-5, err_msg=name)
    assert_same(full, got.gradients, want.gradients)


@grids.halved(kind=list(KINDS), losses=["p", "p many", "r and p"])
def test_prediction_has_the_same_loss_swept_and_in_one_pass(kind, losses):
    full, batch = make(kind, losses, supervised_bptt="full", auxiliary_bptt="full")
    swept, _ = make(kind, losses, supervised_bptt=99, auxiliary_bptt=99)
    want, got = step(full, batch), step(swept, batch)
    for name, value in want.metrics.items():
        np.testing.assert_allclose(got.metrics[name], value, rtol=1e-5, err_msg=name)


@pytest.mark.parametrize(
    ("kind", "losses", "bptt", "supervised"),
    [
        ("ragged", "r and p", 4, True),
        ("text", "r many", 99, True),
        ("pixels", "r plain", "full", False),
        ("ragged", "p many", "full", True),
    ],
)
def test_a_compiled_step_is_the_same(kind, losses, bptt, supervised):
    trainer, batch = make(kind, losses, supervised_bptt=bptt, auxiliary_bptt=bptt)
    want = step(trainer, batch, supervised=supervised)
    got = compiled(trainer, batch, supervised=supervised)
    assert got.metrics.keys() == want.metrics.keys()
    for name, value in want.metrics.items():
        np.testing.assert_allclose(got.metrics[name], value, rtol=1e-5, err_msg=name)
    assert_same(trainer, got.gradients, want.gradients)


def reference_states(classifier, tokens, state, mask=None):
    """All states, one step at a time: `step` is checked against Keras elsewhere."""
    states = [state]
    for t in range(tokens.shape[1]):
        new = classifier.step(tokens[:, t], states[-1])
        if mask is not None:
            here = mask[:, t, tf.newaxis]
            new = tf.nest.map_structure(lambda n, s: tf.where(here, n, s), new, states[-1])  # noqa: B023
        states.append(new)
    return states


def cut(state):
    return LSTMState(*map(tf.stop_gradient, state))


@grids.halved(kind=list(KINDS), truncation=[0, 1, 4, 7])
def test_supervised_gradient_equals_a_hand_truncated_one(kind, truncation):
    trainer, batch = make(kind, "lstm", supervised_bptt=truncation)
    classifier = trainer.classifier
    got = step(trainer, batch).gradients
    total = 0.0
    with tf.GradientTape() as tape:
        for b, length in enumerate(batch.lengths.numpy()):
            tokens = batch.inputs[b : b + 1, :length]
            begin = max(length - truncation, 0)
            state = reference_states(classifier, tokens[:, :begin], classifier.init_state(1))[-1]
            state = reference_states(classifier, tokens[:, begin:], cut(state))[-1]
            total += tf.nn.sparse_softmax_cross_entropy_with_logits(
                batch.labels[b : b + 1], classifier.logits(state.h)
            )[0]
        total /= len(batch.lengths)
    want = tape.gradient(total, trainer.variables_in_order, unconnected_gradients="zero")
    assert_same(trainer, got, [tf.convert_to_tensor(g) for g in want])


def test_no_supervised_gradient_flows_into_the_recurrence_at_zero_steps():
    trainer, batch = make("pixels", "lstm", supervised_bptt=0)
    gradients = dict(
        zip(
            (v.ref() for v in trainer.variables_in_order),
            step(trainer, batch).gradients,
            strict=True,
        )
    )
    for variable in trainer.classifier.recurrent_variables:
        assert not np.any(gradients[variable.ref()]), variable.name
    assert np.any(gradients[trainer.classifier.head.hidden_kernel.value.ref()])


@pytest.mark.parametrize("truncation", [2, 4, 6])
def test_reconstruction_gradient_equals_a_hand_truncated_one(truncation):
    trainer, batch = make("pixels", "r plain", auxiliary_bptt=truncation)
    (loss,) = trainer.losses
    classifier = trainer.classifier
    got = step(trainer, batch, supervised=False)
    steps = batch.inputs.shape[1]
    anchor = int(loss.draw(stream(SEED, 1), tf.zeros([4], tf.int32), tf.constant(steps))[0])
    assert loss.length + 1 <= anchor <= steps
    with tf.GradientTape() as tape:
        begin = max(anchor - truncation, 0)
        state = classifier.init_state(4)
        state = reference_states(classifier, batch.inputs[:, :begin], state)[-1]
        state = reference_states(classifier, batch.inputs[:, begin:anchor], cut(state))[-1]
        carried = [state, classifier.init_state(4)]
        segment = batch.inputs[:, anchor - loss.length - 1 : anchor]
        total = 0.0
        for t in range(loss.length):
            if t and t % truncation == 0:
                carried = [cut(s) for s in carried]
            x = classifier.input_layer(segment[:, t])
            for i, layer in enumerate(loss.layers):
                x, carried[i] = layer.step(x, carried[i])
            total += tf.reduce_sum((loss.head(x) - segment[:, t + 1]) ** 2)
        mean = total / (4 * loss.length)
        objective = loss.weight * mean
    np.testing.assert_allclose(got.metrics["reconstruction_loss"], mean, rtol=1e-5)
    want = tape.gradient(objective, trainer.variables_in_order, unconnected_gradients="zero")
    assert_same(trainer, got.gradients, [tf.convert_to_tensor(g) for g in want])


@grids.halved(
    kind=list(KINDS),
    bptt=[(2, 300), (5, 300), (9, 300), ("full", 300), ("full", "full")],
)
def test_prediction_gradient_equals_a_hand_truncated_one(kind, bptt):
    truncation, supervised = bptt
    trainer, batch = make(kind, "p", auxiliary_bptt=truncation, supervised_bptt=supervised)
    # In pretraining as in the joint phase, only full BPTT of both losses passes the anchor.
    at_anchor = (lambda state: state) if supervised == "full" else cut
    truncation = 99 if truncation == "full" else truncation
    (loss,) = trainer.losses
    classifier = trainer.classifier
    got = step(trainer, batch, supervised=False)
    tokens = align_ends(batch.inputs, batch.lengths)
    steps = tokens.shape[1]
    starts = steps - batch.lengths
    anchor = int(loss.draw(stream(SEED, 1), starts, tf.constant(steps))[0])
    assert 0 <= anchor <= steps - 1 - loss.length
    mask = tf.range(steps)[tf.newaxis] >= starts[:, tf.newaxis]
    batch_size = len(batch.lengths)
    with tf.GradientTape() as tape:
        zero = classifier.init_state(batch_size)
        main = at_anchor(reference_states(classifier, tokens[:, :anchor], zero, mask)[-1])
        carried = [main, zero]
        total, count = 0.0, 0.0
        for t in range(loss.length):
            if t and t % truncation == 0:
                main, carried = cut(main), [cut(s) for s in carried]
            here = mask[:, anchor + t, tf.newaxis]
            new = classifier.step(tokens[:, anchor + t], main)
            main = LSTMState(*[tf.where(here, n, s) for n, s in zip(new, main, strict=True)])
            x = main.h
            for i, layer in enumerate(loss.layers):
                _, new = layer.step(x, carried[i])
                carried[i] = LSTMState(
                    *[tf.where(here, n, s) for n, s in zip(new, carried[i], strict=True)]
                )
                x = carried[i].h
            target = tokens[:, anchor + t + 1]
            prediction = loss.head(x)
            if classifier.info.is_text:
                losses = tf.nn.sparse_softmax_cross_entropy_with_logits(target, prediction)
            else:
                losses = tf.reduce_sum((prediction - target) ** 2, -1)
            total += tf.reduce_sum(tf.where(here[:, 0], losses, 0.0))
            count += tf.reduce_sum(tf.cast(here, tf.float32))
        mean = total / count
    np.testing.assert_allclose(got.metrics["prediction_loss"], mean, rtol=1e-5)
    want = tape.gradient(mean, trainer.variables_in_order, unconnected_gradients="zero")
    assert_same(trainer, got.gradients, [tf.convert_to_tensor(g) for g in want])


def test_weight_zero_leaves_the_plain_gradient_bit_for_bit():
    plain, batch = make("pixels", "lstm", supervised_bptt=4)
    info, _ = KINDS["pixels"]
    classifier = networks.classifier(info)
    loss = Reconstruction(length=5, weight=0.0)
    both = Trainer(classifier, [loss], supervised_bptt=4, auxiliary_bptt=4)
    want, got = compiled(plain, batch).gradients, compiled(both, batch).gradients
    for a, b in zip(want, got[: len(want)], strict=True):
        np.testing.assert_array_equal(a, b)


def test_anchors_and_segments_are_drawn_again_for_every_batch():
    loss = Reconstruction(anchors=2, length=3)
    starts, steps = tf.zeros([4], tf.int32), tf.constant(20)
    tokens = tf.reshape(tf.range(80, dtype=tf.float32), [20, 4, 1]) * tf.ones([1, 1, 2])
    anchors, firsts = set(), set()

    @tf.function(autograph=False)
    def draw(seed):
        drawn = loss.draw(seed, starts, steps)
        return drawn, *loss.segments(seed, tokens, starts, drawn)

    for i in range(200):
        drawn, segments, valid_mask = draw(tf.constant([0, i]))
        assert valid_mask.numpy().all()
        for n, anchor in enumerate(drawn.numpy()):
            segment = segments.numpy()[:, n * 4, 0] / 4
            np.testing.assert_array_equal(np.diff(segment), -1)  # reversed, and consecutive
            assert segment[0] < anchor
            anchors.add(int(anchor))
            firsts.add(int(segment[-1]))
    # Uniform over all that fit: 4..20 and 0..16; 400 draws miss one of 17 once in 1e9.
    assert anchors == set(range(4, 21))
    assert firsts == set(range(17))


@pytest.mark.parametrize("truncation", [1, 3, 10, 40])
def test_windows_are_disjoint_and_hold_every_anchor(truncation):
    rng = np.random.default_rng(truncation)
    for _ in range(20):
        anchors = rng.integers(1, 60, rng.integers(1, 9)).astype(np.int32)
        windows = group_anchors(tf.constant(anchors), truncation)
        count = int(windows.count)
        first, end = windows.first.numpy()[:count], windows.end.numpy()[:count]
        for anchor, group, begin in zip(
            anchors, windows.group.numpy(), windows.begin.numpy(), strict=True
        ):
            assert begin == first[group]
            assert first[group] < anchor <= end[group]
            assert anchor - begin <= truncation
        assert (end[1:] <= first[:-1]).all()
        assert end[0] - first[0] == min(truncation, anchors.max())


def test_a_segment_longer_than_the_sequence_is_refused():
    network = networks.classifier(KINDS["pixels"][0]).network
    with pytest.raises(SettingError, match=r"Reconstruction\.length = 20 .* 21 "):
        Reconstruction(length=20).build(network)
    Reconstruction(length=19).build(network)


def test_sampling_grows_to_its_final_probability():
    def gradients(final, progress):
        info, lengths = KINDS["pixels"]
        classifier = networks.classifier(info)
        loss = Reconstruction(head_size=6, length=5, final_sampling=final)
        batch = networks.batch(info, lengths)
        trainer = Trainer(classifier, [loss], supervised_bptt=4, auxiliary_bptt=4)
        return step(trainer, batch, progress=progress).gradients

    for got, want in zip(gradients(0.5, 1.0), gradients(1.0, 0.5), strict=True):
        np.testing.assert_array_equal(got, want)
    assert any(
        (a.numpy() != b.numpy()).any()
        for a, b in zip(gradients(0.0, 1.0), gradients(1.0, 1.0), strict=True)
    )
    with pytest.raises(SettingError, match=r"final_sampling .* 1\.5"):
        gradients(1.5, 1.0)
