"""Every recurrent core: the contract of `t2aux.model.core`, and independent references."""

import functools
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from t2aux.errors import SettingError
from t2aux.model import core, inputs, weights
from t2aux.model.core import Scan
from t2aux.model.gru import GRU, GRUState
from t2aux.model.lstm import LSTM
from t2aux.model.mingru import MinGRU, linear_recurrence
from tests import grids, networks
from tests.cli_helpers import python
from tests.cores import Dimmed, DimmedLSTM, Traces

CORES = {
    "LSTM": LSTM,
    "GRU": GRU,
    "MinGRU": MinGRU,
    "MinGRU of one layer": functools.partial(MinGRU, layers=1),
}
BATCH, HIDDEN = 3, 5
INPUTS = {
    "projection": lambda: inputs.InputProjection(2, 4, seed=1),
    "direct": lambda: inputs.DirectInput(2),
    "embedding": lambda: inputs.Embedding(7, 4, seed=1),
}


def make(name, kind="projection"):
    """A core whose weights are all random, its input layer, and a random state."""
    layer = INPUTS[kind]()
    made = CORES[name](layer.output_size, HIDDEN, seed=0)
    for i, variable in enumerate([*made.variables, *layer.variables]):
        noise = tf.random.stateless_normal(variable.shape, [i, 8], stddev=0.3)
        variable.assign_add(noise)
    state = tf.nest.map_structure(
        lambda z: tf.random.stateless_normal(z.shape, [5, 6], stddev=0.5), made.init_state(BATCH)
    )
    return made, layer, state


def tokens(steps, kind="projection"):
    """[T, B, 2] or ids [T, B]."""
    if kind == "embedding":
        return tf.random.stateless_uniform([steps, BATCH], [3, 4], maxval=7, dtype=tf.int32)
    return tf.random.stateless_uniform([steps, BATCH, 2], [3, 4])


def by_scan(made, layer, x, state, positions, active=None):
    return made.states_at(x, layer, Scan(state, tf.constant(positions), active, outputs=True))


def by_steps(made, layer, x, state, positions, active=None):
    """What `states_at` must give, from `step` alone."""
    states, outputs = [state], []
    for t in range(len(x)):
        output, new = made.step(layer(x[t]), states[-1])
        if active is not None:
            here = tf.constant(active[t])[:, tf.newaxis]
            new = tf.nest.map_structure(lambda n, s: tf.where(here, n, s), new, states[-1])  # noqa: B023
            output = new.h
        states.append(new)
        outputs.append(output)
    at = tf.nest.map_structure(lambda *s: tf.stack(s), *[states[m] for m in positions])
    return at, tf.stack(outputs) if outputs else tf.zeros([0, BATCH, HIDDEN])


def by_segments(sizes):
    def compute(made, layer, x, state, positions):
        states, outputs = [], []
        for begin, part in zip(np.cumsum([0, *sizes]), tf.split(x, sizes), strict=False):
            own = [m - begin for m in range(begin, begin + len(part) + 1)]
            at, out = by_scan(made, layer, part, state, own)
            states += [tf.nest.map_structure(lambda s: s[i], at) for i in range(len(part))]  # noqa: B023
            state = tf.nest.map_structure(lambda s: s[-1], at)
            outputs.append(out)
        states.append(state)
        at = tf.nest.map_structure(lambda *s: tf.stack(s), *[states[m] for m in positions])
        return at, tf.concat(outputs, 0)

    return compute


def assert_same(compute, want, name, kind, steps, positions):
    """Checks values, and gradients of a random scalar of them, against another way to compute."""
    made, layer, state = make(name, kind)
    x = tokens(steps, kind)
    trained = [v.value for v in (*made.trainable_variables, *layer.trainable_variables)]
    sources = [*trained, *tf.nest.flatten(state)]
    results = []
    for way in (compute, want):
        with tf.GradientTape() as tape:
            tape.watch(tf.nest.flatten(state))
            at, outputs = way(made, layer, x, state, positions)
            values = [*tf.nest.flatten(at), at.h, outputs]
            scalar = sum(
                tf.reduce_sum(v * tf.random.stateless_normal(tf.shape(v), [i, 9]))
                for i, v in enumerate(values)
            )
        gradients = tape.gradient(scalar, sources, unconnected_gradients="zero")
        results.append((values, [tf.convert_to_tensor(g) for g in gradients]))
    (got, got_gradients), (want, want_gradients) = results
    for a, b in zip(got, want, strict=True):
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, atol=2e-6)
    for variable, a, b in zip(sources, got_gradients, want_gradients, strict=True):
        scale = max(1.0, float(tf.reduce_max(tf.abs(b))))
        np.testing.assert_allclose(a / scale, b / scale, atol=3e-6, err_msg=str(variable))
    assert steps == 0 or all(np.any(g) for g in want_gradients)


@pytest.mark.parametrize("kind", INPUTS)
@pytest.mark.parametrize("name", CORES)
def test_the_scan_equals_repeated_steps(name, kind):
    # 37 steps are four whole pieces of minGRU's scan and a part of one; positions have no order.
    assert_same(by_scan, by_steps, name, kind, 37, [30, 0, 37, 16, 16, 17])


@pytest.mark.parametrize("steps", [0, 1, 16, 32])
@pytest.mark.parametrize("name", CORES)
def test_the_scan_over_a_few_steps(name, steps):
    assert_same(by_scan, by_steps, name, "projection", steps, [steps, 0])


@pytest.mark.parametrize("sizes", [[20, 17], [1, 0, 33, 3]])
@pytest.mark.parametrize("name", CORES)
def test_carried_segments_equal_the_whole(name, sizes):
    assert_same(by_segments(sizes), by_scan, name, "projection", 37, [5, 37, 20])


@pytest.mark.parametrize("name", CORES)
def test_compiled_for_any_number_of_steps_and_sequences(name):
    def compiled(made, layer, x, state, positions):
        def shape(s):
            return tf.TensorSpec([None, *s.shape[1:]])

        run = tf.function(
            lambda x, state: by_scan(made, layer, x, state, positions),
            input_signature=[
                tf.TensorSpec([None, None, 2]),
                tf.nest.map_structure(shape, state),
            ],
            autograph=False,
        )
        return run(x, state)

    assert_same(compiled, by_scan, name, "projection", 37, [5, 37, 20])


@pytest.mark.parametrize("bounds", [core.Active([4, 0, 11], None), core.Active(None, [37, 9, 1])])
@pytest.mark.parametrize("name", CORES)
def test_a_sequence_that_is_not_there_keeps_its_state(name, bounds):
    first, last = bounds.first or [0] * 3, bounds.last or [37] * 3
    there = [[f <= t < e for f, e in zip(first, last, strict=True)] for t in range(37)]
    active = core.Active(*[None if b is None else tf.constant(b) for b in bounds])
    assert_same(
        functools.partial(by_scan, active=active),
        functools.partial(by_steps, active=there),
        name,
        "projection",
        37,
        [37, 3, 10, 0],
    )


@grids.pairwise(name=list(CORES), padded=[False, True], kind=["projection", "embedding"])
def test_a_sweep_without_gradient_gives_the_same_states(name, padded, kind):
    made, layer, state = make(name, kind)
    # More steps than minGRU holds at once; each takes GRU's loop long.
    steps = 60 if name == "GRU" else 600
    x = tokens(steps, kind)
    positions = np.array([599, 0, 255, 600, 256, 256, 31]) * steps // 600
    positions = tf.constant(positions, tf.int32)
    active = core.active_from(tf.constant([0, steps // 6, steps // 2])) if padded else None
    want, _ = made.states_at(x, layer, Scan(state, positions, active))
    got, outputs = made.states_at(x, layer, Scan(state, positions, active, gradient=False))
    assert outputs is None
    for a, b in zip(tf.nest.flatten(got), tf.nest.flatten(want), strict=True):
        np.testing.assert_allclose(a, b, atol=5e-6)


@pytest.mark.parametrize("name", CORES)
def test_outputs_and_final_are_those_of_the_scan(name):
    made, layer, state = make(name)
    x = tokens(20)
    active = core.active_from(tf.constant([0, 5, 19]))
    at, want = made.states_at(x, layer, Scan(state, tf.constant([20]), active, outputs=True))
    got, last = made.outputs(x, layer, state, active)
    np.testing.assert_array_equal(got, want)
    final = made.final(x, layer, state, active)
    for a, b, c in zip(*map(tf.nest.flatten, (last, final, at)), strict=True):
        np.testing.assert_array_equal(a, c[0])
        np.testing.assert_allclose(b, c[0], atol=1e-6)


@pytest.mark.parametrize("name", CORES)
def test_the_bits_are_the_same_every_time(name):
    made, layer, state = make(name)
    x = tokens(100)

    @tf.function(autograph=False)
    def gradients():
        with tf.GradientTape() as tape:
            at, _ = made.states_at(x, layer, Scan(state, tf.constant([100, 50])))
            loss = tf.reduce_sum(at.h**2)
        return tape.gradient(loss, [*made.trainable_variables, *layer.trainable_variables])

    for a, b in zip(gradients(), gradients(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", CORES)
def test_what_an_lstm_starts_from(name):
    made, _, state = make(name)
    h, c = state.as_lstm()
    np.testing.assert_array_equal(h, state.h)
    assert c.shape == (BATCH, HIDDEN)
    assert np.any(c)
    assert tf.nest.map_structure(np.count_nonzero, made.init_state(BATCH)) == (
        tf.nest.map_structure(lambda _: 0, state)
    )


def test_gru_equals_keras_in_values_and_gradients():
    made, layer, state = make("GRU", "direct")
    keras_layer = keras.layers.GRU(
        HIDDEN, return_sequences=True, return_state=True, reset_after=True
    )
    keras_layer.build((None, None, 2))
    weights = [made.kernel, made.recurrent_kernel, made.bias]
    keras_layer.set_weights([v.numpy() for v in weights])
    x = tokens(50)
    with tf.GradientTape() as tape:
        got, last = made.outputs(x, layer, state)
        value = tf.reduce_sum(got * tf.random.stateless_normal(got.shape, [4, 4]))
    got_gradients = tape.gradient(value, weights)
    with tf.GradientTape() as tape:
        want, want_last = keras_layer(tf.transpose(x, [1, 0, 2]), initial_state=state.h)
        want = tf.transpose(want, [1, 0, 2])
        value = tf.reduce_sum(want * tf.random.stateless_normal(want.shape, [4, 4]))
    want_gradients = tape.gradient(value, [v.value for v in keras_layer.trainable_variables])
    np.testing.assert_allclose(got, want, atol=2e-6)
    np.testing.assert_allclose(last.h, want_last, atol=2e-6)
    for a, b in zip(got_gradients, want_gradients, strict=True):
        scale = float(tf.reduce_max(tf.abs(b)))
        np.testing.assert_allclose(a / scale, b / scale, atol=2e-6)


def test_mingru_equals_the_equations():
    made, layer, state = make("MinGRU", "direct")
    x = tokens(40).numpy()
    got, _ = by_scan(made, layer, tf.constant(x), state, [40])
    want = []
    for kernel, bias, h in zip(made.kernels, made.biases, state.layers, strict=True):
        (w_z, w_h), (b_z, b_h), h = np.split(kernel, 2, 1), np.split(bias, 2), h.numpy()
        outputs = []
        for token in x:
            z = 1 / (1 + np.exp(-(token @ w_z + b_z)))
            h = (1 - z) * h + z * (token @ w_h + b_h)
            outputs.append(h)
        x = np.stack(outputs)
        want.append(h)
    for a, b in zip(got.layers, want, strict=True):
        np.testing.assert_allclose(a[0], b, atol=2e-6)


@tf.function(autograph=False)
def recurrence_and_gradients(weights, *sources):
    with tf.GradientTape() as tape:
        tape.watch(sources)
        made = linear_recurrence(*sources)
        value = tf.reduce_sum(made * weights)
    return made, *tape.gradient(value, sources)


@pytest.mark.parametrize("high", [1.0, 0.1, 1e-4])
def test_the_linear_recurrence_is_sound_over_16384_steps(high):
    # Gates that forget within a step, and gates that keep all: against float64, step by step.
    rng = np.random.default_rng(0)
    z = rng.uniform(0, high, (16384, 2, 3)).astype(np.float32)
    b = rng.normal(size=z.shape).astype(np.float32) * z
    h0 = rng.normal(size=z.shape[1:]).astype(np.float32)
    weights = rng.normal(size=z.shape).astype(np.float32)
    got, d_z, d_b, d_h0 = recurrence_and_gradients(*map(tf.constant, (weights, z, b, h0)))
    keep = 1 - z.astype(np.float64)
    want, h = np.zeros(z.shape), h0.astype(np.float64)
    for t in range(len(z)):
        h = keep[t] * h + b[t]
        want[t] = h
    g, want_d_b = np.zeros(h0.shape), np.zeros(z.shape)
    for t in reversed(range(len(z))):
        g = g + weights[t]
        want_d_b[t] = g
        g = g * keep[t]
    want_d_z = -want_d_b * np.concatenate([h0[None], want[:-1]])
    for x, y in ((got, want), (d_b, want_d_b), (d_z, want_d_z), (d_h0, g)):
        np.testing.assert_allclose(x, y, atol=4e-6 * np.abs(y).max())


def test_chrono_initialisation_remembers_as_long_as_it_says():
    # 1 / (1 - forget gate) is u, uniform in [1, 783], plus 1.
    gru, mingru = GRU(2, 500, seed=0, chrono_steps=784), MinGRU(2, 500, seed=0, chrono_steps=784)
    for keep in (gru.bias[0, :500], *(-b[:500] for b in mingru.biases)):
        u = np.exp(keep)
        assert 1 <= u.min() < 20
        assert 765 < u.max() <= 783
        assert abs(u.mean() - 392) < 30
    assert not np.any(gru.bias[0, 500:])
    assert not np.any(gru.bias[1])
    assert all(not np.any(b[500:]) for b in mingru.biases)


@pytest.mark.parametrize(
    ("make_core", "message"),
    [
        (lambda: GRU(2, 3, seed=0, chrono_steps=2), r"^GRU\.chrono_steps .* 3 .* 2\."),
        (lambda: MinGRU(2, 3, seed=0, chrono_steps=2), r"^MinGRU\.chrono_steps .* 3 .* 2\."),
        (lambda: LSTM(2, 3, seed=0, chrono_steps=2), r"^LSTM\.chrono_steps .* 3 .* 2\."),
        (lambda: MinGRU(2, 3, seed=0, layers=0), r"^MinGRU\.layers .* 1, .* 0\."),
    ],
)
def test_mistakes_are_refused(make_core, message):
    with pytest.raises(SettingError, match=message):
        make_core()


@pytest.mark.parametrize("info", [networks.vectors_info(channels=2), networks.text_info()])
@pytest.mark.parametrize("name", CORES)
def test_the_classifier_on_any_core(name, info):
    classifier = networks.classifier(info, core=CORES[name])
    batch = networks.batch(info, [9, 4, 7])
    want = []
    for b, length in enumerate(batch.lengths.numpy()):
        state = classifier.init_state(1)
        for t in range(length):
            state = classifier.step(batch.inputs[b : b + 1, t], state)
        want.append(classifier.logits(state.h)[0])
    np.testing.assert_allclose(classifier.logits_of(batch.inputs, batch.lengths), want, atol=1e-5)
    assert len(classifier.recurrent_variables) == len(classifier.trainable_variables) - 4


def test_an_lstm_classifiers_variables_stand_where_they_always_did():
    # Checkpoints of before there were other cores have them there.
    classifier = networks.classifier(networks.vectors_info())
    places = {
        "/".join(map(str, place))
        for place, _ in weights.tree(classifier)._flatten(
            predicate=lambda x: isinstance(x, tf.Variable), with_path=True
        )
    }
    assert places == {
        *("input/kernel", "input/bias"),
        *("lstm/kernel", "lstm/recurrent_kernel", "lstm/bias"),
        *("head/hidden_kernel", "head/hidden_bias", "head/output_kernel", "head/output_bias"),
    }
    assert GRUState(tf.zeros([1, 2])).h.shape == (1, 2)


_PEAK = """
import pathlib, sys
import tensorflow as tf
from t2aux.model import inputs
from t2aux.model.core import Scan
from t2aux.model.gru import GRU
from t2aux.model.mingru import MinGRU

made = {"GRU": GRU, "MinGRU": MinGRU}[sys.argv[1]](16, 128, seed=0)
layer = inputs.InputProjection(1, 16, seed=0)

@tf.function(input_signature=[tf.TensorSpec([None, None, 1])])
def forward(x):
    positions = tf.stack([tf.shape(x)[0] // 3, tf.shape(x)[0]])
    return made.states_at(
        x, layer, Scan(made.init_state(tf.shape(x)[1]), positions, gradient=False)
    )[0].h

x = tf.random.stateless_uniform([6_000, 64, 1], [1, 2])
forward(x[:600])
field = lambda name: int(pathlib.Path("/proc/self/status").read_text().split(name)[1].split()[0])
before = field("VmRSS:")
pathlib.Path("/proc/self/clear_refs").write_text("5")
forward(x)
print((field("VmHWM:") - before) / 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("name", ["MinGRU", pytest.param("GRU", marks=pytest.mark.long)])
def test_a_sweep_without_gradient_takes_no_memory_of_the_length(name):
    done = python(_PEAK, name)
    # The outputs of 6,000 steps alone, which it must not hold, are 187 MiB.
    assert float(done.stdout) < 80, done.stdout


@pytest.mark.parametrize("gradient", [False, True])
@pytest.mark.parametrize("kind", [Traces, Dimmed, DimmedLSTM])
def test_a_step_of_its_own_is_what_is_computed(kind, gradient):
    # Of the class or not: nothing that computes another step is inherited.
    made, layer = kind(2, 3, seed=0), inputs.DirectInput(2)
    x, state = tf.random.stateless_normal([6, 2, 2], [1, 2]), made.init_state(2)
    states = [state]
    for t in range(6):
        states.append(made.step(x[t], states[-1])[1])
    found, _ = made.states_at(x, layer, Scan(state, tf.constant([6, 3]), gradient=gradient))
    for i, t in enumerate((6, 3)):
        np.testing.assert_allclose(found.h[i], states[t].h, atol=1e-6)
    final = made.final(x, layer, state)
    np.testing.assert_allclose(final.h, states[6].h, atol=1e-6)
    outputs, _ = made.outputs(x, layer, state)
    np.testing.assert_allclose(outputs[2], states[3].h, atol=1e-6)
