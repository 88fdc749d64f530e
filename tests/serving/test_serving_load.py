"""The server under load, by the benchmark's own clients."""

import json
import pathlib
import statistics
import types

import numpy as np
import pytest

from benchmarks import serving

ROOT = pathlib.Path(__file__).resolve().parents[2]


def question(*answers):
    return types.SimpleNamespace(right=dict(enumerate(map(np.array, answers), 1)))


def test_the_benchmark_knows_how_far_apart_right_answers_are():
    requested = [question([0.9, 0.1], [0.5, 0.5]), question([0.2, 0.8], [0.53, 0.47])]
    assert serving.closest(requested) == pytest.approx(0.03)


def test_the_recorded_results_say_that_batching_doubles_what_is_answered():
    compared = json.loads((ROOT / "results" / "serving.json").read_text())["batching"]
    rounds = compared["rounds"]
    pairs = zip(rounds["batching"], rounds["one by one"], strict=True)
    ratios = [together / alone for together, alone in pairs]
    assert len(ratios) >= 3
    assert compared["ratio"] == pytest.approx(statistics.median(ratios))
    assert compared["ratio"] >= 2
    assert (compared["lost"], compared["wrong"]) == (0, 0)


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
    # Not 2, as in the recorded results: this is one round, with the clients on the server's cores.
    # Of the three recorded rounds, too, one gave 1.6; their median is what counts.
    assert compared["ratio"] > 1
