"""The Transformer: Keras's attention as reference, padding, blocks, dropout, memory, size."""

import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from t2aux.errors import SettingError
from t2aux.model import transformer
from t2aux.model.transformer import Transformer, attention, positions
from t2aux_ondevice.preprocessing import DatasetInfo
from tests import networks
from tests.cli_helpers import python

KINDS = {"pixels": networks.vectors_info(channels=2), "text": networks.text_info()}


def make(info, **parameters):
    parameters = {"model_size": 8, "heads": 2, "feed_forward_size": 6, "layers": 2, **parameters}
    made = Transformer(info, seed=3, **parameters)
    for i, variable in enumerate(made.trainable_variables):
        variable.assign_add(tf.random.stateless_normal(variable.shape, [i, 8], stddev=0.1))
    return made


def loss_and_gradients(made, batch, seed=None):
    with tf.GradientTape() as tape:
        logits = made.logits_of(batch.inputs, batch.lengths, seed)
        loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(batch.labels, logits))
    gradients = tape.gradient(loss, made.trainable_variables)
    return logits, [tf.convert_to_tensor(g) for g in gradients]


def test_the_paper_sized_network_has_half_a_million_weights(capsys):
    mnist = DatasetInfo("mnist", "image", tuple("0123456789"), channels=1, length=784, side=28)
    for name, info in {"MNIST": mnist, "text": networks.text_info(vocabulary=27)}.items():
        weights = sum(int(tf.size(v)) for v in Transformer(info).trainable_variables)
        with capsys.disabled():
            print(f"\nTransformer for {name}: {weights:,} weights", end=" ")
        assert 450_000 < weights < 550_000


def test_attention_equals_keras():
    batch, steps, size, heads = 3, 11, 8, 2
    x = tf.random.stateless_normal([batch, steps, size], [1, 2])
    key_padding_mask = tf.sequence_mask([11, 4, 7], steps)
    keras_layer = keras.layers.MultiHeadAttention(heads, size // heads)
    want = keras_layer(x, x, attention_mask=key_padding_mask[:, tf.newaxis])

    def project(dense, x):
        return tf.reshape(dense(x), [batch, steps, size])

    projected = [
        project(d, x)
        for d in (keras_layer.query_dense, keras_layer.key_dense, keras_layer.value_dense)
    ]
    got = attention(*projected, key_padding_mask, heads=heads)
    got = keras_layer.output_dense(tf.reshape(got, [batch, steps, heads, size // heads]))
    np.testing.assert_allclose(got, want, atol=1e-6)


# Two sequences at a time, one, a part of one, and one query.
@pytest.mark.parametrize(
    ("scores", "padded"),
    [(1600, False), (800, True), (300, True), (1, False)],
)
def test_blocks_change_nothing(scores, padded, monkeypatch):
    parts = [tf.random.stateless_normal([3, 17, 8], [i, 2]) for i in range(3)]
    key_padding_mask = tf.sequence_mask([17, 4, 9], 17) if padded else None

    def run(*parts):
        with tf.GradientTape() as tape:
            tape.watch(parts)
            y = attention(*parts, key_padding_mask, heads=2)
            loss = tf.reduce_sum(y * tf.random.stateless_normal([3, 17, 8], [7, 7]))
        return [y, *tape.gradient(loss, parts)]

    want = run(*parts)
    monkeypatch.setattr(transformer, "_SCORES", scores)
    signature = [tf.TensorSpec([None, None, 8])] * 3
    got = tf.function(run, input_signature=signature, autograph=False)(*parts)
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_padding_is_harmless(kind):
    made = make(KINDS[kind])
    batch = networks.batch(KINDS[kind], [9, 4, 7])
    together, _ = loss_and_gradients(made, batch)
    for b, length in enumerate(batch.lengths.numpy()):
        alone = made.logits_of(batch.inputs[b : b + 1, :length])
        np.testing.assert_allclose(together[b], alone[0], atol=1e-5)
    for gradient in loss_and_gradients(made, batch)[1]:
        assert np.isfinite(gradient).all()


def test_every_weight_has_a_gradient_and_the_order_matters():
    made = make(KINDS["pixels"])
    batch = networks.batch(KINDS["pixels"], [9, 9, 9])
    logits, gradients = loss_and_gradients(made, batch)
    # A bias of the keys adds the same to all scores of a query.
    without = [id(layer.key.bias) for layer in made.blocks]
    for variable, gradient in zip(made.trainable_variables, gradients, strict=True):
        assert np.any(np.abs(gradient) > 1e-6) or id(variable) in without, variable.path
    turned = made(tf.reverse(batch.inputs, [1]), batch.lengths)
    assert np.abs(turned - logits).max() > 1e-3


def test_the_positions_are_those_of_the_paper():
    got = positions(tf.constant(100), 6).numpy()
    for t in (0, 1, 99):
        for i in range(3):
            angle = t / 10000 ** (2 * i / 6)
            np.testing.assert_allclose(
                got[t, [i, 3 + i]], [np.sin(angle), np.cos(angle)], atol=1e-5
            )


def test_dropout_is_a_function_of_the_seed():
    made = make(KINDS["pixels"], dropout=0.3)
    batch = networks.batch(KINDS["pixels"], [9, 4, 7])
    one, gradients = loss_and_gradients(made, batch, tf.constant([1, 2]))
    again, same = loss_and_gradients(made, batch, tf.constant([1, 2]))
    np.testing.assert_array_equal(one, again)
    for a, b in zip(gradients, same, strict=True):
        np.testing.assert_array_equal(a, b)
    other, _ = loss_and_gradients(made, batch, tf.constant([1, 3]))
    assert np.abs(other - one).max() > 1e-3
    assert np.abs(made.logits_of(batch.inputs, batch.lengths) - one).max() > 1e-3


def test_initial_weights_depend_on_the_seed_alone():
    first, second = Transformer(KINDS["pixels"], seed=1), Transformer(KINDS["pixels"], seed=1)
    for a, b in zip(first.variables, second.variables, strict=True):
        np.testing.assert_array_equal(a, b)
    layer = first.blocks[0]
    kernels = [layer.query.kernel, layer.key.kernel, layer.value.kernel, layer.hidden.kernel]
    kernels += [
        first.blocks[1].query.kernel,
        Transformer(KINDS["pixels"], seed=2).blocks[0].query.kernel,
    ]
    corners = {float(kernel[0, 0]) for kernel in kernels}
    assert len(corners) == len(kernels)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"layers": 0}, r"Transformer\.layers .* 1, .* 0\."),
        ({"heads": 3}, r"Transformer\.model_size .*Transformer\.heads, .* \d+ and 3\."),
        ({"model_size": 9, "heads": 3}, r"Transformer\.model_size .*even .* 9 and 3\."),
        ({"dropout": 1.0}, r"Transformer\.dropout .*\[0, 1\), .* 1\.0\."),
    ],
)
def test_mistakes_are_refused(parameters, message):
    with pytest.raises(SettingError, match=message):
        make(KINDS["pixels"], **parameters)


_PEAK = """
import pathlib
import tensorflow as tf
from t2aux.model.transformer import Transformer
from tests import networks

made = Transformer(networks.vectors_info(), layers=1)

@tf.function(input_signature=[tf.TensorSpec([None, None, 1])])
def step(x):
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(made.logits_of(x, None, tf.constant([1, 2])) ** 2)
    return tape.gradient(loss, made.trainable_variables)

x = tf.random.stateless_uniform([1, 4_608, 1], [1, 2])
step(x[:, :50])
field = lambda name: int(pathlib.Path("/proc/self/status").read_text().split(name)[1].split()[0])
before = field("VmRSS:")
pathlib.Path("/proc/self/clear_refs").write_text("5")
step(x)
print((field("VmHWM:") - before) / 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_scores_are_never_held_whole():
    done = python(_PEAK)
    # The scores of one layer are 324 MiB, and softmax and gradient as much again.
    assert float(done.stdout) < 250, done.stdout
