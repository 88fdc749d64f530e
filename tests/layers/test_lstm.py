"""`t2aux.layers.LSTM` beside `keras.layers.LSTM`."""

import doctest
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import t2aux
from t2aux.errors import SettingError
from t2aux.kernels import ops
from tests.cli_helpers import bare_python, environment

BATCH, STEPS, UNITS = 5, 9, 7


@pytest.fixture(autouse=True)
def _kernel():
    assert ops.enabled()


def pair(units=UNITS, features=3, **arguments):
    """Keras's layer and ours with the same weights, which are not the initial ones."""
    theirs, ours = keras.layers.LSTM(units, **arguments), t2aux.layers.LSTM(units, **arguments)
    for layer in (theirs, ours):
        layer.build((BATCH, STEPS, features))
    generator = np.random.default_rng(0)
    weights = [generator.normal(size=w.shape, scale=0.5) for w in theirs.get_weights()]
    theirs.set_weights(weights)
    ours.set_weights(theirs.get_weights())
    return theirs, ours


def masks(kind):
    generator = np.random.default_rng(1)
    lengths, steps = generator.integers(1, STEPS, BATCH)[:, None], np.arange(STEPS)
    return {
        None: None,
        "right": steps < lengths,
        "left": steps >= lengths,
        "anywhere": generator.random((BATCH, STEPS)) < 0.5,
        "everything": np.zeros((BATCH, STEPS), bool),
    }[kind]


def values_and_gradients(layer, x, state, mask, training):
    watched = [x, *state, *(v.value for v in layer.trainable_variables)]
    with tf.GradientTape() as tape:
        tape.watch(watched[:3])
        made = tf.nest.flatten(layer(x, mask=mask, initial_state=state, training=training))
        loss = sum(tf.reduce_sum(tf.sin(3 * m)) for m in made)
    return [*made, *tape.gradient(loss, watched)]


def assert_close(ours, theirs):
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        scale = max(1.0, float(np.abs(other).max()))
        np.testing.assert_allclose(one / scale, other / scale, atol=1e-5, rtol=0)


@pytest.mark.parametrize("mask", [None, "right", "left", "anywhere", "everything"])
@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"return_sequences": True, "return_state": True},
        {"return_sequences": True, "return_state": True, "go_backwards": True},
        {"return_state": True, "use_bias": False, "unit_forget_bias": False},
        {"return_sequences": True, "return_state": True, "zero_output_for_mask": True},
        {"return_state": True, "go_backwards": True, "zero_output_for_mask": True},
    ],
)
def test_values_and_gradients_are_keras_s(arguments, mask):
    theirs, ours = pair(**arguments)
    generator = np.random.default_rng(2)
    x = tf.constant(generator.normal(size=(BATCH, STEPS, 3)), tf.float32)
    state = [tf.constant(generator.normal(size=(BATCH, UNITS)), tf.float32) for _ in range(2)]
    for training in (False, True):
        got, want = (
            values_and_gradients(layer, x, state, masks(mask), training) for layer in (ours, theirs)
        )
        assert_close(got, want)


@pytest.mark.parametrize("mask", [None, "right", "left", "anywhere", "everything"])
@pytest.mark.parametrize("sequences", [False, True])
def test_bidirectional_is_keras_s(sequences, mask):
    layers = pair(return_sequences=sequences)
    x = tf.constant(np.random.default_rng(2).normal(size=(BATCH, STEPS, 3)), tf.float32)
    want, got = [
        keras.layers.Bidirectional(layer, backward_layer=layer.__class__.from_config(config))
        for layer in layers
        if (config := {**layer.get_config(), "go_backwards": True})
    ]
    for both in (want, got):
        both.build(x.shape)
    got.set_weights(want.get_weights())
    for training in (False, True):
        made = (both(x, mask=masks(mask), training=training) for both in (got, want))
        np.testing.assert_allclose(*made, atol=1e-5)


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.uint8, bool])
def test_integers_are_numbers(dtype):
    theirs, ours = pair()
    x = np.random.default_rng(0).integers(0, 2, (BATCH, STEPS, 3)).astype(dtype)
    np.testing.assert_allclose(ours(x), theirs(x.astype(np.float32)), atol=1e-6)


@pytest.mark.parametrize("features", [1, 4, 5, 70])
def test_gradients_reach_inputs_of_any_width(features):
    theirs, ours = pair(units=20, features=features)
    x = tf.constant(np.random.default_rng(3).normal(size=(BATCH, STEPS, features)), tf.float32)
    state = [tf.zeros([BATCH, 20])] * 2
    assert_close(*(values_and_gradients(layer, x, state, None, True) for layer in (ours, theirs)))


def ops_of(function, *arguments):
    graph = tf.function(function).get_concrete_function(*arguments).graph
    return {op.type for op in graph.get_operations()}


def test_the_kernel_runs_in_training_and_in_inference():
    _, ours = pair()
    x = tf.zeros([BATCH, STEPS, 3])
    for training in (False, True):
        assert "T2auxLstm" in ops_of(lambda v, t=training: ours(v, training=t), x)


@pytest.mark.parametrize(
    "arguments",
    [
        {"activation": "relu"},
        {"recurrent_activation": "hard_sigmoid"},
        {"dropout": 0.5},
        {"recurrent_dropout": 0.5},
        {"dtype": "mixed_bfloat16"},
        {"dtype": "float64"},
    ],
)
def test_what_the_kernel_cannot_do_keras_does(arguments):
    theirs, ours = pair(**arguments)
    x = tf.constant(np.random.default_rng(4).normal(size=(BATCH, STEPS, 3)), tf.float32)
    assert "T2auxLstm" not in ops_of(lambda v: ours(v, training=True), x)
    np.testing.assert_allclose(
        np.float32(ours(x)), np.float32(theirs(x)), atol=1e-6 if "dtype" not in arguments else 1e-2
    )


def test_dropout_is_off_in_inference_where_the_kernel_runs():
    theirs, ours = pair(dropout=0.5, recurrent_dropout=0.5)
    x = tf.ones([BATCH, STEPS, 3])
    assert "T2auxLstm" in ops_of(lambda v: ours(v, training=False), x)
    np.testing.assert_allclose(ours(x), theirs(x), atol=1e-6)
    assert np.abs(ours(x, training=True) - ours(x, training=True)).max() > 1e-3


def test_a_stateful_layer_carries_its_state():
    x = np.random.default_rng(5).normal(size=(BATCH, 2 * STEPS, 3)).astype(np.float32)
    _, whole = pair(return_sequences=True)
    _, stateful = pair(stateful=True, return_sequences=True)
    for _ in range(2):
        parts = [stateful(x[:, :STEPS]), stateful(x[:, STEPS:])]
        np.testing.assert_allclose(np.concatenate(parts, 1), whole(x), atol=1e-6)
        stateful.reset_state()


def texts(lstm):
    """A model whose mask comes from an embedding."""
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((None,), dtype="int32"),
            keras.layers.Embedding(11, 4, mask_zero=True),
            keras.layers.Bidirectional(lstm(UNITS, return_sequences=True)),
            lstm(UNITS),
            keras.layers.Dense(3),
        ]
    )


def ids():
    made = np.random.default_rng(6).integers(1, 11, (32, 12))
    made[np.arange(12) >= np.random.default_rng(7).integers(1, 13, (32, 1))] = 0
    return made


def test_fit_trains_as_with_keras_s_layer():
    x, y = ids(), np.random.default_rng(8).integers(0, 3, 32)
    trained = []
    for lstm in (keras.layers.LSTM, t2aux.layers.LSTM):
        model = texts(lstm)
        model.compile(
            keras.optimizers.SGD(0.1), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        )
        history = model.fit(x, y, batch_size=8, epochs=3, shuffle=False, verbose=0)
        trained.append((history.history["loss"], model.get_weights()))
    np.testing.assert_allclose(trained[0][0], trained[1][0], atol=1e-5)
    for one, other in zip(trained[0][1], trained[1][1], strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


LOADED = """
import sys
import numpy as np
import tensorflow as tf
folder = sys.argv[1]
x = np.load(folder + "/x.npy")
for name in ("exported", "saved"):
    loaded = tf.saved_model.load(folder + "/" + name)
    served = loaded.signatures["serving_default"]
    key = list(served.structured_input_signature[1])[0]
    (answer,) = served(**{key: tf.constant(x)}).values()
    np.testing.assert_allclose(answer, np.load(folder + "/y.npy"), atol=1e-5)
assert "t2aux" not in sys.modules
"""


def test_what_is_saved_has_no_op_of_ours(tmp_path):
    model = texts(t2aux.layers.LSTM)
    x = ids().astype(np.int32)
    want = model.predict(x, verbose=0)  # With the kernel, compiled before the export.
    model.export(tmp_path / "exported", verbose=False)
    tf.saved_model.save(model, str(tmp_path / "saved"))
    for name in ("exported", "saved"):
        assert b"T2aux" not in pathlib.Path(tmp_path, name, "saved_model.pb").read_bytes()
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", want)
    bare_python(LOADED, tmp_path)


def test_a_keras_file_saves_and_loads(tmp_path):
    model = texts(t2aux.layers.LSTM)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.predict(ids(), verbose=0), model.predict(ids(), verbose=0))
    layer = loaded.layers[-2]
    assert type(layer) is t2aux.layers.LSTM
    assert layer.get_config() == model.layers[-2].get_config()


def test_the_docstring_s_example():
    names = {"t2aux": t2aux, "tf": tf, "keras": keras}
    (example,) = doctest.DocTestFinder(recurse=False).find(t2aux.layers.LSTM, "LSTM", globs=names)
    assert example.examples
    assert not doctest.DocTestRunner().run(example).failed


def test_importing_t2aux_is_light():
    code = "import sys, t2aux; assert 'tensorflow' not in sys.modules and 'layers' in dir(t2aux)"
    subprocess.run([sys.executable, "-c", code], check=True, env=environment())


def test_precision_is_of_the_products_in_training(monkeypatch, tmp_path):
    monkeypatch.setattr(ops, "_has_bfloat16", lambda mode: True)
    theirs, ours = pair(units=20, features=6)
    rounded = t2aux.layers.LSTM(20, precision="bfloat16")
    rounded.build((BATCH, STEPS, 6))
    rounded.set_weights(theirs.get_weights())
    x = tf.random.stateless_normal([BATCH, STEPS, 6], [1, 2])
    np.testing.assert_array_equal(rounded(x), ours(x))

    def gradients(layer):
        with tf.GradientTape() as tape:
            value = tf.reduce_sum(tf.sin(layer(x, training=True)))
        return [value, *tape.gradient(value, [w.value for w in layer.weights])]

    for got, want in zip(gradients(rounded), gradients(ours), strict=True):
        off = tf.norm(got - want) / tf.norm(want)
        assert 0 < off < 8 / 256

    model = keras.Sequential([keras.layers.Input((STEPS, 6)), rounded])
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.layers[-1].precision == "bfloat16"
    np.testing.assert_array_equal(loaded(x), model(x))


def test_another_precision_is_an_error():
    with pytest.raises(SettingError, match=r"LSTM\.precision .*'half'"):
        t2aux.layers.LSTM(3, precision="half")


def test_arguments_by_position_are_keras_layers():
    arguments = (7, "relu", "tanh", False)
    theirs = keras.layers.LSTM(*arguments, name="layer").get_config()
    ours = t2aux.layers.LSTM(*arguments, precision="bfloat16", name="layer").get_config()
    assert ours.pop("precision") == "bfloat16"
    assert ours == theirs
