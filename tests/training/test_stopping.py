"""SIGTERM reaches a compiled loop that is at work, and raises where there is nothing to save."""

import contextlib
import os
import signal
import threading

import pytest
import tensorflow as tf

from t2aux import config
from t2aux.training import evaluation, stopping, train, trainer
from t2aux.training.trainer import Trainer


def terminate(number=signal.SIGTERM):
    os.kill(os.getpid(), number)


@pytest.fixture
def flagged(monkeypatch):
    """Set as soon as a Stop's flag is."""
    event, read = threading.Event(), stopping.Stop._read

    def notifying(self, reader):
        assign = self.flag.assign

        def assign_and_notify(value):
            assign(value)
            event.set()

        self.flag.assign = assign_and_notify
        read(self, reader)

    monkeypatch.setattr(stopping.Stop, "_read", notifying)
    return event


def test_a_compiled_loop_stops_between_two_steps(flagged):
    stop, steps, many = stopping.Stop(), tf.Variable(0), 10

    def come(number):
        if number == 3:
            terminate()
            # Python's own handlers wait for the loop's end; this must not.
            assert flagged.wait(600)
        return number

    @tf.function
    def loop_over_steps():
        proceed = tf.constant(True)
        while steps < many and proceed:
            with tf.control_dependencies([tf.py_function(come, [steps], tf.int32)]):
                made = steps.assign_add(1)
            with tf.control_dependencies([made]):
                proceed = tf.logical_not(stop.flag.read_value())

    with stop.listening():
        loop_over_steps()
        assert stop.requested
        assert int(steps) == 4
        # Another signal changes nothing.
        terminate()
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_run_saves_after_the_step_at_hand(tmp_path, monkeypatch, flagged):
    class Terminated(Trainer):
        """The fourth step of ten that a call is to make is the one in which SIGTERM comes."""

        def step(self, batch, *, seed, **more):
            def come(number):
                if number == 3:
                    terminate()
                    assert flagged.wait(600)
                return number

            with tf.control_dependencies([tf.py_function(come, [seed[1]], tf.int32)]):
                return super().step(batch, seed=tf.identity(seed), **more)

    monkeypatch.setattr(trainer, "Trainer", Terminated)
    settings = ["dataset.max_examples = 20", "BATCH_SIZE = 2", "JOINT_EPOCHS = 1"]
    settings += ["Classifier.hidden_size = 4", "RunConfig.steps_per_call = 10"]
    assert not train.train(str(tmp_path), config.parse(["quickstart_lstm"], settings))
    names = {path.name for path in (tmp_path / "checkpoints").glob("*.index")}
    assert names == {"ckpt-4.index"}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_run_that_is_stopped_in_its_last_evaluation_is_not_done(tmp_path, monkeypatch, number):
    evaluate = evaluation.evaluate

    def terminated(predict, split, batch_size, look, *more):
        terminate(number)
        # Handled before the first batch, which is looked at.
        return evaluate(predict, split, batch_size, look, *more)

    settings = ["dataset.max_examples = 20", "BATCH_SIZE = 10", "JOINT_EPOCHS = 1"]
    settings += ["digits.side = 2", "SUPERVISED_BPTT = 2", "Classifier.hidden_size = 4"]
    text = config.parse(["quickstart_lstm"], settings)
    with monkeypatch.context() as patch:
        patch.setattr(evaluation, "evaluate", terminated)
        if number == signal.SIGINT:
            with pytest.raises(KeyboardInterrupt):
                train.train(str(tmp_path), text)
        else:
            assert not train.train(str(tmp_path), text)
    assert list((tmp_path / "checkpoints").glob("*.index"))
    metrics = tmp_path / "metrics.jsonl"
    assert '"test"' not in metrics.read_text()
    assert train.train(str(tmp_path), text)
    assert metrics.read_text().count('"test"') == 1


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


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT])
def test_what_is_ignored_stays_ignored(number):
    """After `nohup`, and in the background of a script."""
    before = signal.signal(number, signal.SIG_IGN)
    try:
        stop = stopping.Stop()
        with stopping.raised(), stop.listening():
            terminate(number)
            assert not stop.requested
        assert signal.getsignal(number) is signal.SIG_IGN
    finally:
        signal.signal(number, before)


def test_a_signal_after_a_run_has_saved_itself_changes_nothing():
    with contextlib.suppress(KeyboardInterrupt), stopping.raised():
        stop = stopping.Stop()
        with stop.listening():
            terminate(signal.SIGINT)
        terminate(signal.SIGINT)
        assert stop.signal == signal.SIGINT


def test_what_fails_because_it_was_interrupted_is_not_an_error():
    def swallow():
        with stopping.raised():
            try:
                terminate(signal.SIGINT)
            except stopping.Stopped as error:
                raise ImportError("half a module") from error

    with pytest.raises(stopping.Stopped) as caught:
        swallow()
    assert caught.value.signal == signal.SIGINT
