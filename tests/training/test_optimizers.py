"""Keras's optimizers in `SequenceClassifier.fit`: loss scales, accumulated gradients, progress."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import t2aux
from t2aux.training import distribution
from tests.training.test_model import examples, make

X, LENGTHS, Y = examples()


def weights_after_fit(optimizer):
    keras.utils.set_random_seed(0)
    model = make(seed=1, clip_norm=0.1)
    model.build((None, 20, 2))
    generator = np.random.default_rng(0)
    model.set_weights([generator.normal(size=w.shape, scale=0.3) for w in model.get_weights()])
    model.compile(optimizer)
    model.fit(X, Y, batch_size=3, epochs=2, shuffle=False, verbose=0)
    return model.get_weights()


SCALED = [
    lambda sgd: keras.optimizers.LossScaleOptimizer(sgd(0.5)),
    lambda sgd: sgd(0.5, loss_scale_factor=1024.0),
]


@pytest.mark.parametrize("scaled", SCALED)
def test_the_training_loop_applies_the_gradients_of_the_loss(scaled):
    variable, optimizer = keras.Variable(1.0), scaled(keras.optimizers.SGD)
    optimizer.build([variable])
    distribution.Replicas().apply(optimizer, [tf.constant(1.0)], [variable])
    np.testing.assert_allclose(variable, 0.5)


@pytest.mark.parametrize("scaled", SCALED)
def test_a_loss_scale_changes_nothing(scaled):
    want = weights_after_fit(keras.optimizers.SGD(0.5))
    for a, b in zip(weights_after_fit(scaled(keras.optimizers.SGD)), want, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def steps_of(x, optimizer, **fit):
    """The number and the progress of every step of a training."""
    model = make(auxiliary=[t2aux.losses.Reconstruction(length=4, head_size=5)])
    model.build((None, 20, 2))
    steps, step = [], model.trainer.step

    def recorded(*arguments, seed, progress, **more):
        steps.append((int(seed[1]), float(progress)))
        return step(*arguments, seed=seed, progress=progress, **more)

    model.trainer.step = recorded
    model.compile(optimizer, run_eagerly=True)
    model.fit(x, shuffle=False, verbose=0, **fit)
    return steps


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda sgd: sgd(0.1),
        lambda sgd: sgd(0.1, gradient_accumulation_steps=2),
        lambda sgd: keras.optimizers.LossScaleOptimizer(sgd(0.1, gradient_accumulation_steps=2)),
    ],
)
def test_every_batch_is_a_step(optimizer):
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(3)
    steps = steps_of(data, optimizer(keras.optimizers.SGD), epochs=2)
    assert steps == [(0, 0), (1, 0.25), (2, 0.5), (3, 0.75)]


def test_the_progress_on_data_of_unknown_length_begins_after_an_epoch():
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(3).filter(lambda *_: True)
    steps = steps_of(data, keras.optimizers.SGD(0.1), epochs=4)
    assert [progress for _, progress in steps] == pytest.approx(
        [0, 0, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875], abs=1e-6
    )
