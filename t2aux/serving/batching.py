"""Dynamic batching: requests that arrive at the same time run together."""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import time
from collections.abc import Callable
from concurrent.futures import Executor

import numpy as np

from t2aux.serving.metrics import Metrics
from t2aux.serving.servable import Servable
from t2aux.serving.signature import Signature
from t2aux.serving.status import ServingError, invalid
from t2aux.tf_serving import BATCH_SIZES

Tensors = dict[str, np.ndarray]

# Sequences up to this length share a batch; longer ones share it if their lengths are within a
# factor of two. Otherwise, one long sequence would increase the time and memory of all others.
_SHORT = 64
_MAX_BYTES = 64 << 20


@dataclasses.dataclass(frozen=True)
class BatchingOptions:
    """The options of batching, like TensorFlow Serving's BatchingParameters.

    Attributes:
        enabled: Whether requests are batched. If not, each request runs alone.
        max_batch_size: The maximum number of sequences in a batch.
        batch_timeout_micros: How long the first request of a batch waits for others, in
            microseconds.
        max_enqueued_batches: How many batches may wait; further requests are rejected.
        num_batch_threads: How many batches run at once.
        allowed_batch_sizes: The sizes that batches are padded to, in increasing order; empty for no
            padding. The last one is `max_batch_size`.
    """

    enabled: bool = True
    max_batch_size: int = BATCH_SIZES[-1]
    batch_timeout_micros: int = 2000
    max_enqueued_batches: int = 100
    num_batch_threads: int = 2
    allowed_batch_sizes: tuple[int, ...] = BATCH_SIZES


@dataclasses.dataclass
class _Task:
    inputs: Tensors
    rows: int
    done: asyncio.Future
    begin: float = dataclasses.field(default_factory=time.perf_counter)

    @property
    def row_bytes(self) -> float:
        return sum(value.nbytes for value in self.inputs.values()) / self.rows


class _Batch:
    """Requests that run together."""

    def __init__(self, servable: Servable, signature: Signature, key: tuple) -> None:
        self.servable = servable
        self.signature = signature
        self.key = key
        self.tasks: list[_Task] = []
        self.rows = 0
        self._row_bytes = 0.0

    def add(self, task: _Task) -> None:
        self.tasks.append(task)
        self.rows += task.rows
        self._row_bytes = max(self._row_bytes, task.row_bytes)

    def fits(self, task: _Task, max_rows: int) -> bool:
        """Whether a request fits into the batch, padded to the longest sequence."""
        rows = self.rows + task.rows
        return rows <= max_rows and rows * max(self._row_bytes, task.row_bytes) <= _MAX_BYTES


class Batcher:
    """Combines requests and runs them in threads. Must be used in a single event loop."""

    def __init__(self, options: BatchingOptions, threads: Executor, metrics: Metrics) -> None:
        """Makes an idle batcher.

        Args:
            options: How batches are formed.
            threads: The threads that run batches, at least `num_batch_threads`.
            metrics: Counts batches and the queue.
        """
        self._options = options
        self._threads = threads
        self._metrics = metrics
        # Batches that may still grow, by the kind of requests. A batch stays here until it is full
        # or runs, so that under load, batches grow while they wait for a thread.
        self._open: dict[tuple, _Batch] = {}
        self._ready: collections.deque[_Batch] = collections.deque()
        self._running = 0

    async def run(self, servable: Servable, signature: Signature, inputs: Tensors) -> Tensors:
        """Runs a request, together with others if there are any.

        Args:
            servable: Runs the request.
            signature: A signature of the servable.
            inputs: Inputs that passed `Signature.check`.

        Returns:
            The outputs of this request only.

        Raises:
            ServingError: The request is invalid or too large, or too many are waiting.
        """
        if not (self._options.enabled and signature.batches):
            return await self._in_thread(servable.run, signature, inputs)
        rows = len(next(iter(inputs.values())))
        if rows > self._options.max_batch_size:
            limit = self._options.max_batch_size
            raise invalid(f"Task size {rows} is larger than maximum batch size {limit}.")
        loop = asyncio.get_running_loop()
        task = _Task(inputs, rows, loop.create_future())
        # The key is the servable itself, because a replaced version has the same name and number.
        key = (servable, signature.name, _kind(signature, inputs))
        batch = self._open.get(key)
        if batch is not None and not batch.fits(task, self._options.max_batch_size):
            self._close(batch)
            batch = None
        if batch is None:
            if self._waiting >= self._options.max_enqueued_batches:
                message = "The batch scheduling queue to which this task was submitted is full."
                raise ServingError("UNAVAILABLE", message)
            batch = self._open[key] = _Batch(servable, signature, key)
            loop.call_later(self._options.batch_timeout_micros / 1e6, self._due, batch)
        batch.add(task)
        self._metrics.queued(self._waiting)
        if batch.rows == self._options.max_batch_size:
            self._close(batch)
        self._start()
        return await task.done

    @property
    def _waiting(self) -> int:
        """The number of waiting batches. A due batch that may still grow is ready and open."""
        return len({*self._ready, *self._open.values()})

    def _due(self, batch: _Batch) -> None:
        """Called after the timeout: the batch then runs as soon as a thread is free."""
        if self._open.get(batch.key) is batch and batch not in self._ready:
            self._ready.append(batch)
        self._start()

    def _close(self, batch: _Batch) -> None:
        """Called when the batch is full."""
        if self._open.get(batch.key) is batch:
            del self._open[batch.key]
        if batch not in self._ready:
            self._ready.append(batch)

    def _start(self) -> None:
        while self._ready and self._running < self._options.num_batch_threads:
            batch = self._ready.popleft()
            if self._open.get(batch.key) is batch:
                del self._open[batch.key]
            # Some clients may have closed the connection.
            batch.tasks = [task for task in batch.tasks if not task.done.done()]
            if batch.tasks:
                self._running += 1
                task = asyncio.ensure_future(self._run(batch))
                task.add_done_callback(self._finished)
        self._metrics.queued(self._waiting)

    def _finished(self, task: asyncio.Future) -> None:
        self._running -= 1
        task.result()
        self._start()

    async def _run(self, batch: _Batch) -> None:
        rows = [task.rows for task in batch.tasks]
        size = self._filled(sum(rows))
        now = time.perf_counter()
        for task in batch.tasks:
            self._metrics.queued_for(task.rows, now - task.begin)
        self._metrics.batch(sum(rows), size)
        try:
            merged = _merged(batch.signature, [task.inputs for task in batch.tasks], size)
            outputs = await self._in_thread(batch.servable.run, batch.signature, merged)
        except Exception as error:  # Any error must be passed to each waiting request.
            if len(batch.tasks) == 1:
                _fail(batch.tasks[0], error)
            else:
                await self._run_one_by_one(batch)
            return
        begin = 0
        for task in batch.tasks:
            part = {n: v[begin : begin + task.rows] for n, v in outputs.items()}
            begin += task.rows
            if not task.done.done():
                task.done.set_result(part)

    async def _run_one_by_one(self, batch: _Batch) -> None:
        """Runs the requests of a batch separately, so that an invalid one does not fail others."""
        for task in batch.tasks:
            try:
                outputs = await self._in_thread(batch.servable.run, batch.signature, task.inputs)
            except Exception as error:  # Any error, as above.
                _fail(task, error)
            else:
                if not task.done.done():
                    task.done.set_result(outputs)

    async def _in_thread(
        self, run: Callable[[Signature, Tensors], Tensors], signature: Signature, inputs: Tensors
    ) -> Tensors:
        begin = time.perf_counter()
        loop = asyncio.get_running_loop()
        outputs = await loop.run_in_executor(self._threads, run, signature, inputs)
        self._metrics.ran(time.perf_counter() - begin)
        return outputs

    def _filled(self, rows: int) -> int:
        return next((s for s in self._options.allowed_batch_sizes if s >= rows), rows)


def _fail(task: _Task, error: Exception) -> None:
    if not task.done.done():
        task.done.set_exception(error)


def _kind(signature: Signature, inputs: Tensors) -> tuple:
    """What the requests of a batch must have in common: all dimensions that are not padded."""
    return tuple(
        (name, _length_class(value.shape[1]), value.shape[2:])
        if name == signature.sequences
        else (name, value.shape[1:])
        for name, value in sorted(inputs.items())
    )


def _length_class(steps: int) -> int:
    return (max(steps, _SHORT) - 1).bit_length()


def _merged(signature: Signature, requests: list[Tensors], size: int) -> Tensors:
    """Concatenates requests: sequences are padded with zeros, and the batch to `size` rows."""
    merged = {}
    for name in requests[0]:
        values = [request[name] for request in requests]
        if name == signature.sequences:
            steps = max(value.shape[1] for value in values)
            values = [_padded(value, steps) for value in values]
        rows = sum(len(value) for value in values)
        # Any valid row can be used, since its output is dropped.
        values.append(np.repeat(values[0][:1], size - rows, axis=0))
        merged[name] = np.concatenate(values)
    return merged


def _padded(value: np.ndarray, steps: int) -> np.ndarray:
    missing = steps - value.shape[1]
    if not missing:
        return value
    return np.pad(value, [(0, 0), (0, missing), *[(0, 0)] * (value.ndim - 2)])
