"""What is read from a run's metrics.jsonl."""

import json

from t2aux.reproduce import results


def train(step, phase="joint", **more):
    common = {"split": "train", "phase": phase, "steps_per_second": 2.0, "total_steps": 100}
    return {"step": step, **common, **more}


LINES = [
    train(20, "pretrain"),
    train(40, accuracy=0.2),
    {"step": 45, "split": "test", "accuracy": 0.25},
    train(60, accuracy=0.3),
    {"step": 65, "split": "test", "accuracy": 0.35},
    train(80, accuracy=0.4),
]


def test_a_run_so_far_ends_with_its_last_evaluation():
    so_far = results.measured_so_far(LINES)
    assert (so_far["accuracy"], so_far["updates"], so_far["planned"]) == (0.35, 65, 100)
    assert so_far["pretraining"] == 20
    assert so_far["test"] == [(45, 0.25), (65, 0.35)]
    assert so_far["train"] == [(40, 0.2), (60, 0.3)]
    assert so_far["seconds"] == 30.0


def test_before_the_first_evaluation_there_is_no_result():
    assert results.measured_so_far(LINES[:2]) is None
    assert results.measured_so_far([]) is None
    # Batches are few, and nothing of the training has been written yet.
    assert results.measured_so_far(LINES[2:3]) is None


def test_a_line_that_is_just_being_written_is_left_out(tmp_path):
    text = "".join(json.dumps(line) + "\n" for line in LINES)
    (tmp_path / "metrics.jsonl").write_text(text + '{"step": 100, "spl')
    assert results.metrics(tmp_path) == LINES
