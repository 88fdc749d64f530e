"""Batching: what is put together, what waits, and what is refused."""

import asyncio
import concurrent.futures
import threading

import numpy as np
import pytest
import tensorflow as tf

from t2aux.serving.batching import Batcher, BatchingOptions
from t2aux.serving.metrics import Metrics
from t2aux.serving.signature import Signature
from t2aux.serving.status import ServingError

FLOATS = tf.TensorSpec((None, None, 1), tf.float32)
SIGNATURE = Signature(
    "serving_default",
    "tensorflow/serving/predict",
    {"inputs": FLOATS, "lengths": tf.TensorSpec((None,), tf.int32)},
    {"sums": tf.TensorSpec((None,), tf.float32)},
)


class Sums:
    """Stands for a servable: sums of sequences; notes the shapes that it runs."""

    name, version = "sums", 1

    def __init__(self):
        self.shapes = []
        self.go = threading.Event()
        self.go.set()
        self.begun = threading.Event()

    def run(self, signature, inputs):
        self.begun.set()
        assert self.go.wait(300)
        self.shapes.append(inputs["inputs"].shape)
        if (inputs["lengths"] < 0).any():
            raise ServingError("INVALID_ARGUMENT", "negative")
        steps = np.arange(inputs["inputs"].shape[1]) < inputs["lengths"][:, np.newaxis]
        return {"sums": (inputs["inputs"][..., 0] * steps).sum(1)}


def request(value, steps, rows=1):
    inputs = np.full([rows, steps, 1], value, np.float32)
    return {"inputs": inputs, "lengths": np.full([rows], steps, np.int32)}


def run(requests, servable, **options):
    """What each request ends with: its outputs or its error; nothing runs before all have come."""

    async def main():
        with concurrent.futures.ThreadPoolExecutor(4) as threads:
            batcher = Batcher(BatchingOptions(**options), threads, Metrics())
            tasks = [
                asyncio.ensure_future(batcher.run(servable, SIGNATURE, one)) for one in requests
            ]
            # asyncio begins tasks in their order: when this continues, each is queued or refused.
            await asyncio.sleep(0)
            servable.go.set()
            return await asyncio.gather(*tasks, return_exceptions=True)

    return asyncio.run(main())


def test_different_lengths_run_together_filled_up_to_an_allowed_size():
    servable = Sums()
    answers = run([request(i, 1 + i) for i in range(5)], servable)
    assert servable.shapes == [(8, 5, 1)]
    assert [answer["sums"].tolist() for answer in answers] == [[i * (1 + i)] for i in range(5)]


def test_requests_of_several_rows_stay_whole():
    servable = Sums()
    answers = run([request(1, 2, 3), request(2, 2, 3)], servable, max_batch_size=4)
    assert sorted(shape[0] for shape in servable.shapes) == [4, 4]
    assert [answer["sums"].tolist() for answer in answers] == [[2.0] * 3, [4.0] * 3]


def test_a_batch_grows_while_it_waits_for_a_thread():
    servable = Sums()
    servable.go.clear()

    async def main():
        with concurrent.futures.ThreadPoolExecutor(4) as threads:
            options = BatchingOptions(num_batch_threads=1, batch_timeout_micros=0)
            batcher = Batcher(options, threads, Metrics())
            tasks = []
            for i in range(20):
                one = batcher.run(servable, SIGNATURE, request(i, 1))
                tasks.append(asyncio.ensure_future(one))
                if i == 0:
                    assert await asyncio.to_thread(servable.begun.wait, 300)
                # Longer than the batch's timeout: each is due before the next one comes.
                await asyncio.sleep(0.001)
            servable.go.set()
            return await asyncio.gather(*tasks)

    answers = asyncio.run(main())
    assert [answer["sums"].tolist() for answer in answers] == [[i] for i in range(20)]
    assert servable.shapes == [(1, 1, 1), (32, 1, 1)]


def test_without_batching_each_runs_alone():
    servable = Sums()
    run([request(i, 1) for i in range(4)], servable, enabled=False)
    assert servable.shapes == [(1, 1, 1)] * 4


def test_a_full_queue_refuses():
    servable = Sums()
    servable.go.clear()
    options = {"max_batch_size": 2, "allowed_batch_sizes": (2,), "max_enqueued_batches": 2}
    answers = run([request(1, 1, 2) for _ in range(8)], servable, num_batch_threads=1, **options)
    refused = [a for a in answers if isinstance(a, ServingError)]
    assert {error.code for error in refused} == {"UNAVAILABLE"}
    assert len(refused) == 5  # One runs, two wait.
    assert all(a["sums"].tolist() == [1, 1] for a in answers if not isinstance(a, ServingError))


def test_a_batch_that_is_due_and_may_grow_is_counted_once():
    servable = Sums()
    servable.go.clear()
    queued = []

    class Noted(Metrics):
        def queued(self, batches):
            queued.append(batches)

    async def main():
        with concurrent.futures.ThreadPoolExecutor(4) as threads:
            options = BatchingOptions(
                num_batch_threads=1, batch_timeout_micros=0, max_enqueued_batches=2
            )
            batcher = Batcher(options, threads, Noted())
            tasks = []
            # The first runs; the others wait, each by itself, since their lengths differ by much.
            for steps in (1, 100, 1000):
                one = request(1, steps)
                tasks.append(asyncio.ensure_future(batcher.run(servable, SIGNATURE, one)))
                await asyncio.sleep(0.1)
            servable.go.set()
            return await asyncio.gather(*tasks)

    answers = asyncio.run(main())
    assert [answer["sums"].tolist() for answer in answers] == [[1], [100], [1000]]
    assert (max(queued), queued[-1]) == (2, 0)


def test_one_wrong_request_fails_alone():
    wrong = request(1, 1)
    wrong["lengths"] -= 5
    answers = run([request(3, 1), wrong, request(4, 1)], Sums())
    assert [a["sums"].tolist() for a in (answers[0], answers[2])] == [[3.0], [4.0]]
    assert isinstance(answers[1], ServingError)


def test_too_many_rows():
    (answer,) = run([request(1, 1, 129)], Sums())
    assert answer.message == "Task size 129 is larger than maximum batch size 128."


def test_a_cancelled_request_delays_no_others():
    servable = Sums()
    servable.go.clear()

    async def main():
        with concurrent.futures.ThreadPoolExecutor(4) as threads:
            batcher = Batcher(BatchingOptions(num_batch_threads=1), threads, Metrics())

            def ask(value):
                return asyncio.ensure_future(batcher.run(servable, SIGNATURE, request(value, 1)))

            first = ask(1)
            assert await asyncio.to_thread(servable.begun.wait, 300)
            second, third = ask(2), ask(3)
            await asyncio.sleep(0)  # Until both are queued.
            second.cancel()
            servable.go.set()
            return await first, await third

    first, third = asyncio.run(main())
    assert (first["sums"].tolist(), third["sums"].tolist()) == ([1], [3])
    assert servable.shapes == [(1, 1, 1)] * 2


@pytest.mark.parametrize("spec", [tf.TensorSpec((4,), tf.float32), tf.TensorSpec(None, tf.float32)])
def test_what_has_no_batch_is_not_put_together(spec):
    signature = Signature("s", "", {"x": spec}, {"y": spec})
    assert not signature.batches


def test_a_version_that_was_replaced_shares_no_batch_with_its_successor():
    """Their names and numbers are the same."""
    old, new = Sums(), Sums()

    async def main():
        with concurrent.futures.ThreadPoolExecutor(4) as threads:
            batcher = Batcher(BatchingOptions(batch_timeout_micros=50_000), threads, Metrics())
            requested = [(old, 3), (new, 4), (old, 5)]
            runs = (batcher.run(one, SIGNATURE, request(value, 1)) for one, value in requested)
            return await asyncio.gather(*runs)

    answers = asyncio.run(main())
    assert [answer["sums"].tolist() for answer in answers] == [[3.0], [4.0], [5.0]]
    # Filled up to an allowed size.
    assert (old.shapes, new.shapes) == ([(2, 1, 1)], [(1, 1, 1)])
