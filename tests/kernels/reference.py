"""A plain LSTM in float64 that the kernel is checked against, and random problems for both."""

import dataclasses

import numpy as np
import tensorflow as tf


@dataclasses.dataclass
class Problem:
    """Arrays in float32 (or int32) of one problem; `weights` make a scalar of the results."""

    x: np.ndarray
    kernel: np.ndarray
    bias: np.ndarray | None
    recurrent: np.ndarray
    h0: np.ndarray
    c0: np.ndarray
    positions: np.ndarray
    first: np.ndarray | None
    last: np.ndarray | None
    weights: list[np.ndarray]

    @property
    def parameters(self):
        """Everything that a gradient can be taken with respect to, by name."""
        named = {
            "x": self.x,
            "kernel": self.kernel,
            "bias": self.bias,
            "recurrent": self.recurrent,
            "h0": self.h0,
            "c0": self.c0,
        }
        return {k: v for k, v in named.items() if v is not None and v.dtype != np.int32}


def random_problem(seed, *, steps, batch, hidden, inputs, ids=False, masked=False, positions=4):
    rng = np.random.default_rng(seed)

    def normal(*shape, scale=1.0):
        return (scale * rng.standard_normal(shape)).astype(np.float32)

    first = last = None
    if masked:
        first = rng.integers(0, steps + 1, batch).astype(np.int32)
        last = np.minimum(first + rng.integers(0, steps + 1, batch), steps).astype(np.int32)
    vocabulary = 11
    x = rng.integers(0, vocabulary, (steps, batch)).astype(np.int32)
    return Problem(
        x=x if ids else normal(steps, batch, inputs),
        kernel=normal(vocabulary if ids else inputs, 4 * hidden, scale=0.5),
        bias=None if ids else normal(4 * hidden),
        recurrent=normal(hidden, 4 * hidden, scale=1 / np.sqrt(hidden)),
        h0=normal(batch, hidden, scale=0.5),
        c0=normal(batch, hidden),
        positions=rng.integers(0, steps + 1, positions).astype(np.int32),
        first=first,
        last=last,
        weights=[normal(positions, batch, hidden) for _ in range(2)]
        + [normal(steps, batch, hidden)],
    )


def results(problem, values, products=(tf.matmul, tf.matmul)):
    """h and c at the positions and all outputs, in float64, one step at a time.

    `products` are the input's and the recurrent one.
    """
    h, c = values["h0"], values["c0"]
    hs, cs = [h], [c]
    steps, batch = problem.x.shape[:2]
    first = np.zeros(batch) if problem.first is None else problem.first
    last = np.full(batch, steps) if problem.last is None else problem.last
    for t in range(steps):
        if problem.bias is None:
            z = tf.gather(values["kernel"], problem.x[t])
        else:
            z = products[0](values["x"][t], values["kernel"]) + values["bias"]
        i, f, g, o = tf.split(z + products[1](h, values["recurrent"]), 4, axis=-1)
        new_c = tf.sigmoid(f) * c + tf.sigmoid(i) * tf.tanh(g)
        new_h = tf.sigmoid(o) * tf.tanh(new_c)
        here = ((first <= t) & (t < last))[:, np.newaxis]
        h, c = tf.where(here, new_h, h), tf.where(here, new_c, c)
        hs.append(h)
        cs.append(c)
    outputs = tf.stack(hs[1:]) if steps else tf.zeros([0, *h.shape], h.dtype)
    return (
        tf.gather(tf.stack(hs), problem.positions),
        tf.gather(tf.stack(cs), problem.positions),
        outputs,
    )


def scalar(problem, made):
    return tf.add_n([tf.reduce_sum(m * w) for m, w in zip(made, problem.weights, strict=True)])


def expected(problem):
    """The results and the gradients of `scalar` by name, in float64."""
    values = {k: tf.constant(v, tf.float64) for k, v in problem.parameters.items()}
    with tf.GradientTape() as tape:
        tape.watch(values)
        made = results(problem, values)
        value = scalar(problem, made)
    gradients = tape.gradient(value, values, unconnected_gradients="zero")
    return [m.numpy() for m in made], {
        k: tf.convert_to_tensor(g).numpy() for k, g in gradients.items()
    }
