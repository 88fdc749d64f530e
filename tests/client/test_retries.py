"""When a request is tried again, and how long that takes."""

import pytest

from t2aux.client.retries import Failure, Retries


class Clock:
    """Time that passes only while `sleep` is called."""

    def __init__(self):
        self.now = 100.0
        self.pauses = []

    def sleep(self, seconds):
        self.pauses.append(seconds)
        self.now += seconds

    def __call__(self):
        return self.now


def attempts_that_fail(count, **failure):
    left = []

    def attempt(seconds):
        left.append(seconds)
        if len(left) <= count:
            raise Failure("UNAVAILABLE", "busy", **failure)
        return "answer"

    return attempt, left


def run(retries, attempt, clock):
    return retries.run(attempt, sleep=clock.sleep, clock=clock)


def test_pauses_double_up_to_the_longest_and_differ_between_clients():
    all_pauses = []
    for _ in range(50):
        clock = Clock()
        attempt, left = attempts_that_fail(6, may_pass=True)
        assert (
            run(Retries(max_retries=6, first_pause=1.0, max_pause=10.0), attempt, clock) == "answer"
        )
        for pause, full in zip(clock.pauses, [1, 2, 4, 8, 10, 10], strict=True):
            assert full / 2 <= pause <= full
        # Each attempt has what the pauses left of the time.
        assert left[-1] == pytest.approx(60 - sum(clock.pauses))
        all_pauses.append(tuple(clock.pauses))
    assert len(set(all_pauses)) == 50


def test_what_will_not_pass_is_not_tried_again():
    clock = Clock()
    attempt, left = attempts_that_fail(1)
    with pytest.raises(Failure, match=r"^busy$"):
        run(Retries(), attempt, clock)
    assert len(left) == 1
    assert clock.pauses == []


def test_attempts_run_out():
    attempt, left = attempts_that_fail(10, may_pass=True)
    with pytest.raises(Failure, match=r"busy.* 4 "):
        run(Retries(max_retries=3), attempt, Clock())
    assert len(left) == 4


def test_time_runs_out():
    clock = Clock()
    attempt, left = attempts_that_fail(10, may_pass=True)
    with pytest.raises(Failure, match=r"busy.* \d+ .* \d\.\d s"):
        run(Retries(timeout=5, max_retries=10, first_pause=1), attempt, clock)
    assert clock.now - 100 < 5
    assert 2 < len(left) < 10


def test_no_retries():
    attempt, left = attempts_that_fail(1, may_pass=True)
    with pytest.raises(Failure, match=r"^busy$"):
        run(Retries(max_retries=0), attempt, Clock())
    assert len(left) == 1


def test_a_server_says_how_long_to_wait():
    clock = Clock()
    attempt, _ = attempts_that_fail(1, may_pass=True, retry_after=7.0)
    run(Retries(), attempt, clock)
    assert clock.pauses == [7.0]
    attempt, left = attempts_that_fail(1, may_pass=True, retry_after=700.0)
    with pytest.raises(Failure, match="busy"):
        run(Retries(), attempt, clock)
    assert len(left) == 1


def test_reasons_are_one_short_line():
    assert Failure("X", "a\n  b.\n").reason == "a b"
    assert len(Failure("X", "a" * 1000).reason) == 300
