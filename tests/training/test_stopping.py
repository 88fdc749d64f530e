"""SIGTERM reaches a compiled loop that is at work, and raises where there is nothing to save."""

import contextlib
import os
import signal
import threading

import pytest
import tensorflow as tf

from t2aux import config
from t2aux.training import loop, stopping
from t2aux.training.trainer import Trainer


def terminate():
    os.kill(os.getpid(), signal.SIGTERM)


def test_a_compiled_loop_stops_between_two_steps():
    stop = stopping.Stop()
    begun = threading.Event()
    steps, many = tf.Variable(0), 5_000_000

    def tell(_):
        begun.set()
        return tf.constant(0)

    @tf.function
    def forever():
        # The loop needs its result: else one executor thread might run the loop first.
        none = tf.py_function(tell, [steps], tf.int32)
        while not stop.flag and steps + none < many:
            steps.assign_add(1)

    def terminate_when_begun():
        begun.wait()
        terminate()

    with stop.listening():
        thread = threading.Thread(target=terminate_when_begun)
        thread.start()
        forever()
        thread.join()
        assert stop.requested
        assert int(steps) < many
        # Another one is no other thing.
        terminate()
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_run_saves_after_the_step_at_hand(tmp_path, monkeypatch):
    flagged = threading.Event()
    read = stopping.Stop._read

    def telling(self, reader):
        assign = self.flag.assign

        def tell(value):
            assign(value)
            flagged.set()

        self.flag.assign = tell
        read(self, reader)

    class Terminated(Trainer):
        """The fourth step of ten that a call is to make is the one in which SIGTERM comes."""

        def step(self, batch, *, seed, **more):
            def come(number):
                if number == 3:
                    terminate()
                    assert flagged.wait(60)
                return number

            with tf.control_dependencies([tf.py_function(come, [seed[1]], tf.int32)]):
                return super().step(batch, seed=tf.identity(seed), **more)

    monkeypatch.setattr(stopping.Stop, "_read", telling)
    monkeypatch.setattr(loop, "Trainer", Terminated)
    settings = ["load.max_examples = 20", "BATCH_SIZE = 2", "JOINT_EPOCHS = 1"]
    settings += ["Classifier.hidden_size = 4", "train.steps_per_call = 10"]
    assert not loop.train(str(tmp_path), config.parse(["quickstart_lstm"], settings))
    names = {path.name for path in (tmp_path / "checkpoints").glob("*.index")}
    assert names == {"ckpt-4.index"}


def test_without_a_run_it_raises():
    def wait():
        with stopping.raised():
            terminate()
            raise AssertionError("not reached")

    with pytest.raises(stopping.Stopped):
        wait()
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_one_that_was_swallowed_is_not_forgotten():
    def swallow():
        with stopping.raised():
            with contextlib.suppress(stopping.Stopped):
                terminate()
            stop = stopping.Stop()
            with stop.listening():
                assert stop.requested

    with pytest.raises(stopping.Stopped):
        swallow()
