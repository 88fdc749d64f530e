"""The server under load, by the benchmark's own clients."""

import types

import numpy as np
import pytest

from benchmarks import serving


def question(*answers):
    return types.SimpleNamespace(right=dict(enumerate(map(np.array, answers), 1)))


def test_the_benchmark_knows_how_far_apart_right_answers_are():
    asked = [question([0.9, 0.1], [0.5, 0.5]), question([0.2, 0.8], [0.53, 0.47])]
    assert serving.closest(asked) == pytest.approx(0.03)


@pytest.mark.long
def test_no_answer_is_lost_or_wrong_while_the_version_changes():
    size = serving.Size(1, 200, 64, 1, 10)
    found = serving.measure(clients=16, seconds=15, round_seconds=4, rounds=1, size=size)
    load, compared = found["load"], found["batching"]
    assert (load["lost"], load["wrong"]) == (0, 0), load["reasons"]
    assert load["requests"] > 200
    assert set(load["grpc_answers_by_version"]) == {1, 2}
    assert load["mib_at_end"] < 1.1 * load["mib_after_change"]
    assert (compared["lost"], compared["wrong"]) == (0, 0)
    assert compared["ratio"] > 1
