"""Training with the kernel against training without."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from t2aux.kernels import ops
from t2aux.losses.base import stream
from t2aux.losses.prediction import Prediction
from t2aux.losses.reconstruction import Reconstruction
from t2aux.model import weights
from t2aux.model.lstm import LSTMState
from t2aux.training.trainer import Trainer
from tests import grids, networks

KINDS = {
    "pixels": (networks.vectors_info(channels=2, length=20), [20] * 4),
    "ragged": (networks.vectors_info(channels=1), [20, 13, 9, 17]),
    "text": (networks.text_info(), [20, 13, 9, 17]),
}


def without_kernel(monkeypatch):
    monkeypatch.setattr(ops, "enabled", lambda: False)


@grids.pairwise(kind=KINDS, sampling=[0.0, 0.5, 1.0], truncation=[None, 3])
def test_decoding_equals_plain_tensorflow(kind, sampling, truncation, monkeypatch):
    info, lengths = KINDS[kind]
    classifier = networks.classifier(info, hidden=18)
    loss = Reconstruction(length=8, head_size=70)
    loss.build(classifier.network)
    tokens = tf.transpose(
        networks.batch(info, lengths).inputs, [1, 0] if info.is_text else [1, 0, 2]
    )
    states = LSTMState(*[tf.random.stateless_normal([4, 18], [i, 0]) for i in (1, 2)])

    def decoded():
        with tf.GradientTape() as tape:
            tape.watch(states)
            made = loss.decode(
                classifier.input_layer,
                states,
                tokens[:8],
                seed=tf.constant([3, 4]),
                sampling=tf.constant(sampling),
                bptt=truncation,
            )
            value = tf.reduce_sum(tf.sin(made))
        sources = [*states, *weights.in_order(loss), *classifier.recurrent_variables]
        return made, [
            None if g is None else tf.convert_to_tensor(g) for g in tape.gradient(value, sources)
        ]

    got, got_gradients = decoded()
    without_kernel(monkeypatch)
    want, want_gradients = decoded()
    np.testing.assert_allclose(got, want, atol=1e-5)
    for a, b in zip(got_gradients, want_gradients, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            np.testing.assert_allclose(a, b, atol=1e-5 * max(1.0, np.abs(b).max()))


def test_own_ids_are_sampled_from_the_softmax():
    # The bottom layer's table makes the fed ids visible in nothing but the outputs, so the law is
    # read from the op's own list of them.
    count, vocabulary = 20000, 4
    logits = np.array([1.0, 0.0, -1.0, 2.0], np.float32)
    result = ops._require().t2aux_lstm_decode(
        given=tf.zeros([2, count], tf.int32),
        previous=tf.zeros([count], tf.int32),
        use_sampled=tf.constant([[False], [True]]) | tf.zeros([2, count], tf.bool),
        uniforms=tf.random.stateless_uniform([2, count], [1, 2]),
        head_hidden_kernel=tf.zeros([3, 5]),
        head_hidden_bias=tf.zeros([5]),
        head_output_kernel=tf.zeros([5, vocabulary]),
        head_output_bias=logits,
        kernels=[tf.zeros([vocabulary, 12])],
        biases=[tf.zeros([0])],
        recurrent_kernels=[tf.zeros([3, 12])],
        h0=[tf.zeros([count, 3])],
        c0=[tf.zeros([count, 3])],
    )
    share = np.bincount(result.fed[1], minlength=vocabulary) / count
    np.testing.assert_allclose(share, tf.nn.softmax(logits), atol=0.015)


LOSSES = {
    "lstm": [],
    "r": [(Reconstruction, {"anchors": 2, "length": 4, "weight": 5.0})],
    "p": [(Prediction, {"anchors": 2, "length": 4, "weight": 5.0})],
}


# The others are in the long tier.
SHORT = [("r", "text"), ("p", "ragged")]


@pytest.mark.parametrize(
    ("losses", "kind"),
    [
        pytest.param(loss, kind, marks=[] if (loss, kind) in SHORT else pytest.mark.long)
        for loss in LOSSES
        for kind in KINDS
    ],
)
def test_a_hundred_losses_agree(kind, losses, monkeypatch):
    info, lengths = KINDS[kind]

    def train():
        classifier = networks.classifier(info, hidden=16, dropconnect=0.5)
        made = [loss(head_size=6, **more) for loss, more in LOSSES[losses]]
        trainer = Trainer(classifier, made, supervised_bptt=5, auxiliary_bptt=5)
        optimizer = keras.optimizers.RMSprop(1e-3)
        optimizer.build(trainer.variables_in_order)
        batches = [networks.batch(info, lengths, seed=i) for i in range(4)]

        @tf.function(autograph=False)
        def step(batch, index):
            result = trainer.step(
                batch,
                seed=stream(tf.constant([1, 2]), index),
                progress=tf.cast(index, tf.float32) / 100,
                supervised=True,
            )
            gradients, _ = tf.clip_by_global_norm(result.gradients, 1.0)
            optimizer.apply(gradients, trainer.variables_in_order)
            return result.metrics["loss"]

        # Every batch has its own shape of tokens; the length of the longest is the same.
        return [float(step(batches[i % 4], tf.constant(i))) for i in range(100)]

    got = train()
    without_kernel(monkeypatch)
    np.testing.assert_allclose(got, train(), atol=1e-3)
