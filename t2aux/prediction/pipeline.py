"""Reads, prepares, classifies and writes at the same time, in constant memory."""

from __future__ import annotations

import collections
import contextlib
import itertools
import threading
from collections.abc import Callable, Iterator
from concurrent import futures

from t2aux.prediction import batching
from t2aux.prediction.predictor import ROWS_AT_ONCE, Pool, Predictions, Predictor
from t2aux.prediction.source import Source

# The size of a pool. The rows of a pool are sorted by length and written together.
_POOL_BATCHES = 8
_POOL_BYTES = 1 << 24


def predictions(
    predictor: Predictor, source: Source, progress: Callable[[int], None] | None = None
) -> Iterator[Predictions]:
    """Classifies all rows of a source.

    A thread reads and prepares the next rows while the model computes. At most three pools of rows
    are in memory at once.

    Args:
        predictor: A predictor whose model is loaded.
        source: The rows.
        progress: Called, from any thread, with the number of rows that were just classified.

    Yields:
        The predictions for blocks of rows, in the order of the rows.

    Raises:
        UserError: A row can't be read, or can't be classified and `predictor.on_error` is "stop";
            or the model does not answer.
    """
    callers = predictor.callers
    idle: collections.deque = collections.deque(callers)

    def run(pool: Pool, chosen: object, rows: int) -> object:
        # The number of threads is that of the callers.
        caller = idle.popleft()
        try:
            found = predictor.run(caller, pool, chosen, rows)
        finally:
            idle.append(caller)
        if progress is not None:
            progress(len(chosen))
        return found

    pools = _pools(predictor, source)
    with contextlib.ExitStack() as stack:
        model = futures.ThreadPoolExecutor(len(callers), "t2aux-model")
        # After an error, pending calls are cancelled and running ones are waited for.
        stack.callback(model.shutdown, cancel_futures=True)
        coming = _next_of(pools)
        running: tuple[Pool, list[futures.Future]] | None = None
        while (pool := coming.result()) is not None:
            coming = _next_of(pools)
            started = [model.submit(run, pool, *batch) for batch in predictor.plan(pool)]
            if running is not None:
                yield _joined(predictor, *running)
            running = (pool, started)
        if running is not None:
            yield _joined(predictor, *running)


def _next_of(pools: Iterator[Pool]) -> futures.Future:
    """Reads the next pool in a thread; the result is None after the last one.

    The program does not wait for this thread at its end, since it may be waiting for standard
    input.
    """
    future: futures.Future = futures.Future()

    def take() -> None:
        try:
            future.set_result(next(pools, None))
        except BaseException as error:  # Raised when the result is requested.
            future.set_exception(error)

    threading.Thread(target=take, name="t2aux-reader", daemon=True).start()
    return future


def _joined(predictor: Predictor, pool: Pool, started: list[futures.Future]) -> Predictions:
    return predictor.join(pool, [future.result() for future in started])


def _pools(predictor: Predictor, source: Source) -> Iterator[Pool]:
    """Pools of prepared rows, of about `_POOL_BYTES` bytes or `_POOL_BATCHES` batches."""
    most_rows = _POOL_BATCHES * predictor.batch_size
    # If all sequences have the same length, sorting is not needed.
    if predictor.info.length is not None:
        most_rows = batching.rows_of(predictor.info.length, predictor.batch_size)
        most_rows *= len(predictor.callers)
    rows = iter(source.rows())
    waiting: list[Pool] = []
    size = count = 0
    while part := list(itertools.islice(rows, min(ROWS_AT_ONCE, most_rows - count))):
        pool = predictor.prepare(part)
        waiting.append(pool)
        count += len(part)
        size += sum(item.sequence.nbytes for item in pool.prepared if item is not None)
        if count >= most_rows or size >= _POOL_BYTES:
            yield Pool.joined(waiting)
            waiting, size, count = [], 0, 0
    if waiting:
        yield Pool.joined(waiting)
