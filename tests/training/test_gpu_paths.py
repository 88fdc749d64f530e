"""The paths that training takes on a GPU, run on a CPU: Keras's LSTM instead of cuDNN's."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

import t2aux
from t2aux.losses import (
    LanguageModel,
    Prediction,
    Reconstruction,
    SequenceAutoencoder,
    decoder_xla,
)
from t2aux.model import cudnn
from t2aux.model.core import Active, Scan
from t2aux.training.trainer import Trainer
from tests import grids, networks

PIXELS, TEXT = networks.vectors_info(channels=2, length=13), networks.text_info()
# 11 steps are two iterations of the compiled loop and one step more, which
# `test_fit_on_the_paths_of_a_gpu_is_the_same` has in the default tier.
LOSSES = {
    "none": lambda: [],
    "reconstruction": lambda: [Reconstruction(anchors=2, length=11, head_size=5)],
    "without sampling": lambda: [Reconstruction(length=4, head_size=5, scheduled_sampling=False)],
    "prediction": lambda: [Prediction(anchors=2, length=5, head_size=5)],
    "language model": lambda: [LanguageModel(head_size=5)],
    "autoencoder": lambda: [SequenceAutoencoder(head_size=5)],
}
WHOLE, PADDED = [13, 13, 13], [13, 12, 1]
SHORT = [
    ("none", PIXELS, "full", WHOLE),
    ("none", TEXT, 6, PADDED),
    ("prediction", PIXELS, 6, WHOLE),
    ("autoencoder", TEXT, "full", PADDED),
]
LONG = [
    case
    for case in itertools.product(LOSSES, (PIXELS, TEXT), (6, "full"), (WHOLE, PADDED))
    if case not in SHORT
]
CASES = [*SHORT, *(pytest.param(*case, marks=pytest.mark.long) for case in LONG)]


def steps(info, losses, lengths, **bptt):
    """A training step's metrics and gradients, and the evaluated logits."""
    classifier = networks.classifier(info)
    trainer = Trainer(classifier, losses, **bptt)
    batch = networks.batch(info, lengths)
    # Not compiled, which takes a tenth of the time; in `fit` below it is.
    made = trainer.step(
        batch,
        seed=tf.constant([3, 1]),
        progress=tf.constant(0.5),
        supervised=True,
        padded=len(set(lengths)) > 1,
    )
    return made.metrics, made.gradients, classifier.logits_of(batch.inputs, batch.lengths)


@pytest.mark.parametrize(
    ("losses", "info", "bptt", "lengths"), CASES, ids=lambda x: getattr(x, "kind", str(x))
)
def test_a_step_on_the_paths_of_a_gpu_is_the_same(monkeypatch, losses, info, bptt, lengths):
    bptt = {"supervised_bptt": bptt, "auxiliary_bptt": bptt}
    monkeypatch.setattr(cudnn, "on_gpu", lambda: False)
    want = steps(info, LOSSES[losses](), lengths, **bptt)
    monkeypatch.setattr(cudnn, "on_gpu", lambda: True)
    calls = []
    outputs = cudnn.outputs
    monkeypatch.setattr(cudnn, "outputs", lambda *a: calls.append(1) or outputs(*a))
    got = steps(info, LOSSES[losses](), lengths, **bptt)
    assert calls
    assert got[0].keys() == want[0].keys()
    for name, value in want[0].items():
        np.testing.assert_allclose(got[0][name], value, rtol=1e-5, err_msg=name)
    for a, b in zip(got[1], want[1], strict=True):
        np.testing.assert_allclose(a, b, atol=2e-6)
    np.testing.assert_allclose(got[2], want[2], atol=1e-6)


def test_fit_on_the_paths_of_a_gpu_is_the_same(monkeypatch):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(6, 13, 2)).astype(np.float32), rng.integers(0, 3, 6)
    # Of 5 steps, too, two iterations of the compiled loop and one step more: XLA takes long to
    # compile it, once for each size of a batch.
    monkeypatch.setattr(decoder_xla, "_UNROLL", 2)

    def fitted(on_gpu):
        monkeypatch.setattr(cudnn, "on_gpu", lambda: on_gpu)
        keras.utils.set_random_seed(0)
        model = t2aux.SequenceClassifier(
            classes=3,
            core=t2aux.layers.LSTM(5),
            auxiliary=[Reconstruction(anchors=2, length=5, head_size=5, layers=1)],
            **{"supervised_bptt": 6, "auxiliary_bptt": 6, "projection_size": 4, "head_size": 6},
        )
        model.compile(keras.optimizers.SGD(0.1), run_eagerly=not on_gpu)
        # The last batch is smaller: Keras leaves the number of sequences open.
        model.fit(x, y, batch_size=4, verbose=0, shuffle=False)
        return model.get_weights()

    for a, b in zip(fitted(True), fitted(False), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


@grids.pairwise(
    positions=[[0], [5, 0, 5, 9], [9, 3], [9]],
    gradient=[True, False],
    bounds=[None, ([0, 3, 9, 12], None), (None, [9, 0, 4, 20]), ([-2, 4, 0, 6], [3, 7, 0, 5])],
)
def test_states_at_any_positions(positions, bounds, gradient):
    rng = np.random.default_rng(0)
    info = networks.vectors_info(channels=2)
    core = networks.classifier(info, projection_size=3).core
    layer = networks.classifier(info, projection_size=3).input_layer
    tokens = tf.constant(rng.normal(size=(9, 4, 2)), tf.float32)
    state = type(core.init_state(4))(*tf.constant(rng.normal(size=(2, 4, 5)), tf.float32))
    active = bounds and Active(*(None if bound is None else tf.constant(bound) for bound in bounds))
    scan = Scan(state, tf.constant(positions), active, outputs=gradient, gradient=gradient)
    found = {}
    for name, on_gpu in (("want", False), ("got", True)):
        with pytest.MonkeyPatch.context() as patch, tf.GradientTape() as tape:
            patch.setattr(cudnn, "on_gpu", lambda on_gpu=on_gpu: on_gpu)
            tape.watch(state)
            at, outputs = core.states_at(tokens, layer, scan)
            found[name] = [*at]
            if gradient:
                sources = [*state, *(v.value for v in core.trainable_variables)]
                value = tf.reduce_sum(at.h**2) + tf.reduce_sum(tf.sin(at.c))
                value += tf.reduce_sum(outputs**3)
                found[name] += [outputs, *tape.gradient(value, sources)]
    for a, b in zip(found["got"], found["want"], strict=True):
        np.testing.assert_allclose(a, b, atol=5e-6)
