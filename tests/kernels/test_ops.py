"""The kernel's values and gradients against a float64 reference, over random shapes and modes."""

import gc
import json
import pathlib

import numpy as np
import psutil
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from t2aux.kernels import ops
from tests.cli_helpers import python
from tests.kernels import reference

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _kernel(_kernel_as_by_default):
    assert ops.enabled(), "these tests need a C++ compiler"


@pytest.fixture(params=["float32", "bfloat16"])
def precision(request, monkeypatch):
    """The test runs with both; bfloat16 in plain arithmetic where the processor has none."""
    monkeypatch.setattr(ops, "_has_bfloat16", lambda mode: True)
    with ops.products_in(request.param):
        yield request.param


def call(problem, values, outputs=True, gradient=True):
    def constant(array):
        return None if array is None else tf.constant(array)

    return ops.lstm(
        values.get("x", problem.x),
        ops.Weights(values["kernel"], values.get("bias"), values["recurrent"]),
        ops.Scan(
            (values["h0"], values["c0"]),
            tf.constant(problem.positions),
            (constant(problem.first), constant(problem.last)),
            outputs=outputs,
            gradient=gradient,
        ),
        input_gradient=gradient,
    )


def computed(problem):
    values = {k: tf.constant(v) for k, v in problem.parameters.items()}
    with tf.GradientTape() as tape:
        tape.watch(values)
        made = call(problem, values)
        value = reference.scalar(problem, made)
    gradients = tape.gradient(value, values)
    return [m.numpy() for m in made], {k: g.numpy() for k, g in gradients.items()}


def assert_close(got, want, name=""):
    scale = max(np.abs(want).max(initial=0), 1e-2)
    np.testing.assert_allclose(got / scale, want / scale, atol=1e-5, rtol=0, err_msg=name)


PROBLEMS = st.builds(
    reference.random_problem,
    st.integers(0, 2**32 - 1),
    steps=st.integers(0, 40),
    batch=st.sampled_from([1, 2, 3, 6, 7, 13, 65, 130, 200]),
    hidden=st.sampled_from([1, 3, 15, 16, 17, 40, 64, 70]),
    inputs=st.sampled_from([1, 3, 16, 33, 70]),
    ids=st.booleans(),
    masked=st.booleans(),
    positions=st.integers(0, 5),
)


@settings(deadline=None, max_examples=25)
@given(PROBLEMS)
def test_values_and_gradients_equal_a_float64_reference(problem):
    got, got_gradients = computed(problem)
    want, want_gradients = reference.expected(problem)
    for name, a, b in zip(("h", "c", "outputs"), got, want, strict=True):
        assert_close(a, b, name)
    assert got_gradients.keys() == want_gradients.keys()
    for name, value in want_gradients.items():
        assert_close(got_gradients[name], value, name)


@settings(deadline=None, max_examples=8)
@given(
    st.integers(0, 2**32 - 1),
    st.booleans(),
    st.booleans(),
)
def test_gradients_equal_central_differences(seed, ids, masked):
    problem = reference.random_problem(
        seed, steps=12, batch=3, hidden=5, inputs=3, ids=ids, masked=masked
    )
    _, gradients = computed(problem)
    exact = {k: v.astype(np.float64) for k, v in problem.parameters.items()}
    rng = np.random.default_rng(seed)
    for name, gradient in gradients.items():
        direction = rng.standard_normal(gradient.shape)
        sides = []
        for epsilon in (1e-4, -1e-4):
            moved = {**exact, name: exact[name] + epsilon * direction}
            made = reference.results(problem, {k: tf.constant(v) for k, v in moved.items()})
            sides.append(float(reference.scalar(problem, made)))
        want = (sides[0] - sides[1]) / 2e-4
        size = np.linalg.norm(gradient) * np.linalg.norm(direction)
        assert abs((gradient * direction).sum() - want) <= 1e-5 * size + 1e-6, name


@pytest.mark.parametrize("ids", [False, True])
def test_without_a_gradient_the_values_are_the_same_bits(ids, precision):
    problem = reference.random_problem(
        1, steps=30, batch=9, hidden=20, inputs=2, ids=ids, masked=True
    )
    values = {k: tf.constant(v) for k, v in problem.parameters.items()}
    want = call(problem, values)
    got = call(problem, values, outputs=False, gradient=False)
    np.testing.assert_array_equal(got.h, want.h)
    np.testing.assert_array_equal(got.c, want.c)
    assert got.outputs.shape[0] == 0


@pytest.mark.parametrize("ids", [False, True])
def test_a_batch_of_none(ids, precision):
    problem = reference.random_problem(8, steps=3, batch=0, hidden=5, inputs=2, ids=ids)
    made, gradients = computed(problem)
    assert made[2].shape == (3, 0, 5)
    for name, value in problem.parameters.items():
        np.testing.assert_array_equal(gradients[name], np.zeros_like(value), err_msg=name)


def test_the_same_bits_every_time(precision):
    problem = reference.random_problem(2, steps=25, batch=150, hidden=33, inputs=3)
    want, want_gradients = computed(problem)
    for _ in range(5):
        got, got_gradients = computed(problem)
        for a, b in zip(got, want, strict=True):
            np.testing.assert_array_equal(a, b)
        for name, value in want_gradients.items():
            np.testing.assert_array_equal(got_gradients[name], value)


def test_saturated_gates_and_large_cells_are_exact():
    problem = reference.random_problem(3, steps=20, batch=4, hidden=8, inputs=2)
    problem.kernel *= 200
    problem.c0 *= 500
    got, got_gradients = computed(problem)
    want, want_gradients = reference.expected(problem)
    assert np.abs(want[1]).max() > 50
    for a, b in zip(got, want, strict=True):
        assert_close(a, b)
    for name, value in want_gradients.items():
        assert_close(got_gradients[name], value, name)


def test_nan_is_not_hidden():
    problem = reference.random_problem(4, steps=5, batch=3, hidden=4, inputs=2)
    problem.x[2, 1, 0] = np.nan
    problem.positions[:] = 5
    made = call(problem, {k: tf.constant(v) for k, v in problem.parameters.items()})
    assert np.isnan(made.h[:, 1]).all()
    assert not np.isnan(made.h.numpy()[:, [0, 2]]).any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": np.full((4, 2), 11, np.int32)}, r" id 11 .*\[0, 11\)"),
        ({"x": np.full((4, 2), -1, np.int32)}, r" id -1 .*\[0, 11\)"),
        ({"positions": np.array([5], np.int32)}, r"position 5 .*\[0, 4\]"),
        ({"h0": np.zeros((3, 5), np.float32)}, "initial state"),
        ({"recurrent": np.zeros((5, 21), np.float32)}, "recurrent_kernel"),
        ({"first": np.zeros(7, np.int32)}, "first and last"),
    ],
)
def test_what_does_not_fit_is_an_error(change, message):
    problem = reference.random_problem(5, steps=4, batch=2, hidden=5, inputs=0, ids=True)
    for name, value in change.items():
        setattr(problem, name, value)
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        call(problem, {k: tf.constant(v) for k, v in problem.parameters.items()})


def test_a_gradient_of_what_was_not_saved_is_an_error():
    problem = reference.random_problem(6, steps=4, batch=2, hidden=5, inputs=1)
    values = {k: tf.constant(v) for k, v in problem.parameters.items()}
    with tf.GradientTape() as tape:
        tape.watch(values)
        made = call(problem, values, outputs=False, gradient=False)
        value = tf.reduce_sum(made.h)
    with pytest.raises(tf.errors.InvalidArgumentError, match="saved nothing"):
        tape.gradient(value, values)


def test_thousands_of_calls_leak_nothing(precision):
    problem = reference.random_problem(7, steps=3, batch=8, hidden=32, inputs=2)
    values = {k: tf.constant(v) for k, v in problem.parameters.items()}

    @tf.function(autograph=False)
    def run(count):
        def body(i, total):
            with tf.GradientTape() as tape:
                tape.watch(values)
                made = call(problem, values)
                value = reference.scalar(problem, made)
            gradient = tape.gradient(value, values["recurrent"])
            return i + 1, total + gradient[0, 0]

        return tf.while_loop(lambda i, _: i < count, body, (0, 0.0), parallel_iterations=1)[1]

    run(tf.constant(300))
    gc.collect()
    before = psutil.Process().memory_info().rss
    run(tf.constant(3000))
    gc.collect()
    # The saved activations of every call would be 46 MB; other tests' memory moves a little.
    assert psutil.Process().memory_info().rss - before < 16 << 20


@pytest.mark.parametrize(
    "threads", [3, *(pytest.param(n, marks=pytest.mark.long) for n in (1, 2, 5))]
)
def test_any_number_of_threads_gives_the_reference(threads):
    # Batches smaller than the number of threads are divided by cells.
    code = """
import json, numpy as np
from t2aux.kernels import ops
from tests.kernels import reference, test_ops
ops._has_bfloat16 = lambda mode: True
worst = {"float32": 0, "bfloat16": 0}
for batch in (1, 2, 4, 9, 150):
    problem = reference.random_problem(batch, steps=20, batch=batch, hidden=70, inputs=3)
    want, want_gradients = reference.expected(problem)
    for precision in worst:
        with ops.products_in(precision):
            got, got_gradients = test_ops.computed(problem)
            again, again_gradients = test_ops.computed(problem)
        assert all((a == b).all() for a, b in zip(got, again))
        assert all((v == again_gradients[k]).all() for k, v in got_gradients.items())
        for a, b in zip([*got, *got_gradients.values()], [*want, *want_gradients.values()]):
            error = float(np.linalg.norm(a - b) / np.linalg.norm(b))
            worst[precision] = max(worst[precision], error)
print(json.dumps(worst))
"""
    done = python(code, TF_NUM_INTRAOP_THREADS=str(threads))
    worst = json.loads(done.stdout.splitlines()[-1])
    assert worst["float32"] < 1e-5
    assert worst["bfloat16"] < 8 / 256
