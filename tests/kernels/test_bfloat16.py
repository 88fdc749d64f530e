"""Products in bfloat16: against float64, and tightly against the same rounding done in numpy.

Where the processor has no products of bfloat16 the kernel's plain arithmetic for them is tested,
which only tests use.
"""

import logging
import re

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from t2aux.errors import SettingError
from t2aux.kernels import ops
from tests.kernels import reference
from tests.kernels.test_ops import PROBLEMS, computed

# Two roundings of an operand's size each: 8 bits, to the nearest.
ROUNDING = 2.0**-8


@pytest.fixture(autouse=True)
def _available(_kernel_as_by_default, monkeypatch):
    assert ops.enabled(), "these tests need a C++ compiler"
    monkeypatch.setattr(ops, "_has_bfloat16", lambda mode: True)


def in_bfloat16(problem):
    with ops.products_in("bfloat16"):
        return computed(problem)


def rounded(values):
    """To bfloat16 and back, in float64."""
    return tf.cast(tf.cast(tf.cast(values, tf.float32), tf.bfloat16), tf.float64)


def product(few):
    """x times weights with rounded operands, and so its gradients; few inputs are not rounded."""

    @tf.custom_gradient
    def made(x, weights):
        def gradient(upstream):
            d = rounded(upstream)
            return (
                tf.matmul(d, rounded(weights), transpose_b=True),
                tf.matmul(rounded(x), d, transpose_a=True),
            )

        value = tf.matmul(x, weights) if few else tf.matmul(rounded(x), rounded(weights))
        return value, gradient

    return made


def expected(problem):
    """As `reference.expected`, with rounded operands."""
    values = {k: tf.constant(v, tf.float64) for k, v in problem.parameters.items()}
    products = (product(few=problem.x.shape[-1] <= 4), product(few=False))
    with tf.GradientTape() as tape:
        tape.watch(values)
        made = reference.results(problem, values, products=products)
        value = reference.scalar(problem, made)
    gradients = tape.gradient(value, values, unconnected_gradients="zero")
    return made, {k: tf.convert_to_tensor(g).numpy() for k, g in gradients.items()}


def relative_error(got, want):
    return np.linalg.norm(got - want) / max(np.linalg.norm(want), 1e-6)


@pytest.mark.parametrize("ids", [False, True])
@pytest.mark.parametrize(
    ("steps", "batch", "hidden", "inputs"),
    [(1, 7, 17, 3), (1, 13, 40, 33), (1, 1, 1, 5), (2, 65, 16, 1), (3, 6, 70, 16), (3, 130, 20, 4)],
)
def test_it_is_what_rounded_operands_give(steps, batch, hidden, inputs, ids):
    problem = reference.random_problem(
        batch, steps=steps, batch=batch, hidden=hidden, inputs=inputs, ids=ids
    )
    got, got_gradients = in_bfloat16(problem)
    want, want_gradients = expected(problem)
    pairs = {n: (a, b.numpy()) for n, a, b in zip("hco", got, want, strict=True)}
    pairs |= {name: (got_gradients[name], value) for name, value in want_gradients.items()}
    for name, (a, b) in pairs.items():
        error = np.abs(a - b) / np.abs(b).max()
        # What lies between two bfloat16 values may be rounded the other way after float32 sums.
        assert np.median(error) < 1e-6, name
        assert error.max() < ROUNDING, name


def values_with_bounds(problem):
    """h and c after the last step in float64, and how far those of rounded products may be off.

    An operand is off by 2^-9 of its size, so z by 2^-8 of the sum of |operand * operand|; from
    there the bounds are those of the gates' slopes: 1/4 of a logistic function's, 1 of tanh's.
    """
    kernel, recurrent = (np.float64(v) for v in (problem.kernel, problem.recurrent))
    h, c = np.float64(problem.h0), np.float64(problem.c0)
    off_h, off_c = np.zeros_like(h), np.zeros_like(c)
    sigmoid = lambda v: 1 / (1 + np.exp(-v))  # noqa: E731
    # What is a little more than 1: products of two roundings, and float32's.
    rounding = ROUNDING * 1.01
    for x in np.float64(problem.x):
        z = x @ kernel + problem.bias + h @ recurrent
        off = rounding * (np.abs(x) @ np.abs(kernel) + np.abs(h) @ np.abs(recurrent))
        off += (1 + rounding) * off_h @ np.abs(recurrent) + 1e-5
        i, f, g, o = np.split(z, 4, axis=1)
        off_i, off_f, off_g, off_o = np.split(off, 4, axis=1)
        i, f, o, g = sigmoid(i), sigmoid(f), sigmoid(o), np.tanh(g)
        off_i, off_f, off_o = off_i / 4, off_f / 4, off_o / 4
        off_c = off_f * np.abs(c) + (f + off_f) * off_c + off_i * np.abs(g) + (i + off_i) * off_g
        c = f * c + i * g
        off_h = off_o * np.abs(np.tanh(c)) + (o + off_o) * off_c
        h = o * np.tanh(c)
    return h, c, off_h, off_c


@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 2**32 - 1),
    steps=st.integers(1, 6),
    batch=st.integers(1, 70),
    hidden=st.integers(1, 70),
    inputs=st.integers(1, 40),
)
def test_values_are_within_the_bound_of_rounded_operands(seed, steps, batch, hidden, inputs):
    problem = reference.random_problem(
        seed, steps=steps, batch=batch, hidden=hidden, inputs=inputs, positions=1
    )
    problem.positions[:] = steps
    (got_h, got_c, _), _ = in_bfloat16(problem)
    h, c, off_h, off_c = values_with_bounds(problem)
    assert (np.abs(got_h[0] - h) <= off_h).all()
    assert (np.abs(got_c[0] - c) <= off_c).all()


@settings(deadline=None, max_examples=25)
@given(PROBLEMS)
def test_values_and_gradients_are_near_a_float64_reference(problem):
    got, got_gradients = in_bfloat16(problem)
    want, want_gradients = reference.expected(problem)
    # In the norm, over up to 40 steps: measured are 1.5 and 4.4 times the rounding at most.
    for name, a, b in zip(("h", "c", "outputs"), got, want, strict=True):
        assert relative_error(a, b) < 3 * ROUNDING, name
    for name, value in want_gradients.items():
        assert relative_error(got_gradients[name], value) < 8 * ROUNDING, name


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", ["x", "kernel", "recurrent", "h0"])
def test_what_is_not_finite_comes_out_as_in_float32(place, bad):
    problem = reference.random_problem(4, steps=3, batch=3, hidden=17, inputs=9)
    getattr(problem, place)[..., 1, 5] = bad
    problem.positions[:] = 3
    (got, got_gradients), (want, want_gradients) = in_bfloat16(problem), computed(problem)
    for a, b in zip(got, want, strict=True):
        np.testing.assert_array_equal(np.isnan(a), np.isnan(b))
    for name, value in want_gradients.items():
        # Infinity times a number near 0 is NaN where that is taken as 0.
        np.testing.assert_array_equal(np.isfinite(got_gradients[name]), np.isfinite(value), name)
    if np.isnan(bad):
        assert np.isnan(got[0]).any()
        assert np.isnan(got_gradients["recurrent"]).any()


def decode(precision, ids):
    tf.random.set_seed(1)
    steps, batch, sizes, token_size = 9, 7, (20, 18), 3
    normal = lambda *shape: tf.random.normal(shape, stddev=0.4)  # noqa: E731
    given = tf.random.uniform([steps, batch], maxval=token_size, dtype=tf.int32)
    given = given if ids else normal(steps, batch, token_size)
    below, layers = token_size, []
    for size in sizes:
        bias = None if ids and not layers else normal(4 * size)
        layers.append((normal(below, 4 * size), bias, normal(size, 4 * size)))
        below = size
    head = [normal(below, 70), normal(70), normal(70, token_size), normal(token_size)]
    states = [normal(batch, size) for size in sizes]
    # The true tokens: with its own ids a draw near a limit may fall on the other side.
    own = tf.zeros([steps, batch], tf.bool) if ids else tf.random.uniform([steps, batch]) < 0.5
    sources = [states, [(kernel, recurrent) for kernel, _, recurrent in layers]]
    with ops.products_in(precision), tf.GradientTape() as tape:
        tape.watch(sources)
        draws = tf.random.uniform([steps, batch]) if ids else None
        made = ops.decode(given, given[0], own, draws, head, layers, states, states)
        value = tf.reduce_sum(tf.sin(made.outputs)) + tf.reduce_sum(made.c[0])
    gradients = tf.nest.flatten(tape.gradient(value, sources))
    return [made.outputs, *([] if ids else [made.last]), *made.h, *made.c, *gradients]


@pytest.mark.parametrize("ids", [False, True])
def test_decoding_is_near_that_in_float32(ids):
    for got, want in zip(decode("bfloat16", ids), decode("float32", ids), strict=True):
        got, want = got.numpy(), want.numpy()
        assert 0 < relative_error(got, want) < 8 * ROUNDING


def test_models_of_one_process_and_their_threads_may_differ():
    problem = reference.random_problem(1, steps=5, batch=3, hidden=18, inputs=6)
    plain, _ = computed(problem)
    with ops.products_in("bfloat16"):
        half, _ = computed(problem)
        with ops.products_in("float32"):
            inner, _ = computed(problem)
        with ops.products_in(None):
            again, _ = computed(problem)
    after, _ = computed(problem)
    for a, b, c, d, e in zip(plain, inner, after, half, again, strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(a, c)
        np.testing.assert_array_equal(d, e)
        assert (a != d).any()


@pytest.mark.parametrize("kernel", ["off", "auto"])
def test_without_products_of_bfloat16_it_is_float32_and_is_said_once(kernel, monkeypatch, caplog):
    monkeypatch.undo()
    monkeypatch.setenv("T2AUX_KERNEL", kernel)
    real = ops._library("auto")
    if kernel == "auto":
        monkeypatch.setattr(ops, "_load", lambda: real._replace(has_bfloat16=False))
    ops._has_bfloat16.cache_clear()
    with caplog.at_level(logging.INFO, logger="absl"):
        for _ in range(2):
            with ops.products_in("bfloat16"):
                assert ops._in_effect() == "float32"
    ops._has_bfloat16.cache_clear()
    (message,) = [r.getMessage() for r in caplog.records]
    reason = {"off": "LSTM kernel", "auto": "AVX512-BF16"}[kernel]
    assert re.search(f"bfloat16 .*float32: .*{reason}", message)


def test_another_precision_is_an_error():
    with pytest.raises(SettingError, match=r"^x .*'float32' .*'bfloat16', .*'float16'\."):
        ops.check_precision("x", "float16")


def test_the_processor_has_what_it_says(monkeypatch):
    monkeypatch.undo()
    ops._has_bfloat16.cache_clear()
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        assert ops._has_bfloat16("auto") == ("avx512_bf16" in file.read())
