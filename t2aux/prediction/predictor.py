"""`Predictor`: rows in, predictions out."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from concurrent import futures
from typing import TYPE_CHECKING, Any

import numpy as np

from t2aux.errors import DataError, DivergenceError, SettingError, UserError
from t2aux.prediction import batching
from t2aux.prediction.model import Caller, Model
from t2aux.prediction.rows import ImageFile, Row, TextFile, prepare
from t2aux_ondevice.preprocessing import DatasetInfo
from t2aux_ondevice.reading import Input

if TYPE_CHECKING:
    from t2aux.data.source import Source

STOP, SKIP = ON_ERROR = ("stop", "skip")
# The number of rows to prepare at once.
ROWS_AT_ONCE = 64
_FETCHED_AT_ONCE = 16


@dataclasses.dataclass(frozen=True, eq=False)
class Pool:
    """Prepared rows that are classified together.

    Attributes:
        rows: The rows as they were read.
        prepared: The rows in the form for the classifier; None for those that it can't read.
        errors: The reasons why rows can't be read, by the rows' indices.
    """

    rows: Sequence[Row]
    prepared: Sequence[Input | None]
    errors: dict[int, str]

    @classmethod
    def joined(cls, pools: Sequence[Pool]) -> Pool:
        """Concatenates several pools."""
        rows: list[Row] = []
        prepared: list[Input | None] = []
        errors: dict[int, str] = {}
        for pool in pools:
            errors |= {len(rows) + index: error for index, error in pool.errors.items()}
            rows += pool.rows
            prepared += pool.prepared
        return cls(rows, prepared, errors)


@dataclasses.dataclass(frozen=True, eq=False)
class Predictions:
    """The classifier's predictions for rows, in the order of the rows.

    Attributes:
        rows: The rows.
        probabilities: float32 [N, K]; zeros for rows that were skipped.
        errors: The reasons why rows were skipped, by the rows' indices.
        cut: The number of rows that were cut because they were too long for the classifier.
    """

    rows: Sequence[Row]
    probabilities: np.ndarray
    errors: dict[int, str]
    cut: int

    @property
    def predicted(self) -> np.ndarray:
        """Which rows were classified, bool [N]."""
        found = np.ones(len(self.rows), bool)
        found[list(self.errors)] = False
        return found


class Predictor:
    """Classifies rows. Can be pickled: each process loads the model when it is first used.

    The prediction for a row does not depend on the other rows.
    """

    def __init__(
        self,
        model: Model,
        *,
        on_error: str = STOP,
        batch_size: int | None = None,
        fetch: Callable[[str], bytes] | None = None,
    ) -> None:
        """Stores the arguments. Nothing is loaded.

        Args:
            model: The model.
            on_error: What to do with a row that can't be classified: "stop" raises UserError,
                "skip" leaves it without a prediction.
            batch_size: The maximum number of rows that the model computes at once; defaults to
                `model.batch_size`.
            fetch: As for `rows.prepare`. It must be a function of a module, to be picklable.

        Raises:
            UserError: An argument is out of range.
        """
        if on_error not in ON_ERROR:
            raise SettingError(f"on_error is {on_error!r}: give {' or '.join(ON_ERROR)}.")
        if batch_size is None:
            batch_size = model.batch_size
        if batch_size < 1:
            raise SettingError(f"batch_size is {batch_size}: give at least 1.")
        self.model = model
        self.on_error = on_error
        self.batch_size = batch_size
        self._fetch = fetch
        self._callers: list[Caller] | None = None
        self._threads: futures.ThreadPoolExecutor | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_callers": None, "_threads": None}

    @property
    def callers(self) -> list[Caller]:
        """A caller of the loaded model for each thread. Raises UserError, see `Model.load`."""
        if self._callers is None:
            self._callers = self.model.load(_cores())
        return self._callers

    @property
    def info(self) -> DatasetInfo:
        """The classifier's preprocessing and classes. Raises UserError, see `Model.load`."""
        return self.callers[0].info

    @property
    def source(self) -> Source | None:
        """The data set that a run was trained on. Raises UserError, see `Model.load`."""
        return self.callers[0].source

    def __call__(self, rows: Sequence[Row]) -> Predictions:
        """Classifies rows in this thread.

        Raises:
            UserError: A row can't be classified and `on_error` is "stop"; or the model does not
                answer.
        """
        # A few at a time, so that not all files of images are in memory.
        starts = range(0, len(rows), ROWS_AT_ONCE)
        pool = Pool.joined([self.prepare(rows[i : i + ROWS_AT_ONCE]) for i in starts])
        found = [self.run(self.callers[0], pool, *batch) for batch in self.plan(pool)]
        return self.join(pool, found)

    def prepare(self, rows: Sequence[Row]) -> Pool:
        """Prepares rows, image files in several threads. Raises UserError, see `__call__`."""
        threaded = ImageFile if self._fetch is None else (ImageFile, TextFile)
        if rows and isinstance(rows[0].content, threaded):
            if self._threads is None:
                # Fetching files is mostly waiting.
                threads = _cores() if self._fetch is None else _FETCHED_AT_ONCE
                self._threads = futures.ThreadPoolExecutor(threads, "t2aux-images")
            made = list(self._threads.map(self._try, rows))
        else:
            made = list(map(self._try, rows))
        errors = {i: str(found) for i, found in enumerate(made) if isinstance(found, UserError)}
        if errors and self.on_error == STOP:
            raise DataError(
                f"{next(iter(errors.values()))} (With --on_error=skip such rows are written "
                "without a class.)"
            )
        prepared = [None if isinstance(found, UserError) else found for found in made]
        return Pool(rows, prepared, errors)

    def plan(self, pool: Pool) -> list[tuple[np.ndarray, int]]:
        """Divides a pool into batches; see `batching.plan`. The indices are those of its rows."""
        readable = np.array(
            [i for i, item in enumerate(pool.prepared) if item is not None], np.int64
        )
        lengths = [len(pool.prepared[i].sequence) for i in readable]
        return [
            (readable[chosen], rows) for chosen, rows in batching.plan(lengths, self.batch_size)
        ]

    def run(
        self, caller: Caller, pool: Pool, chosen: np.ndarray, rows: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Classifies a batch.

        Args:
            caller: One of `callers`.
            pool: The pool.
            chosen: The indices of the rows of the batch, int64 [B].
            rows: The size that the batch is padded to.

        Returns:
            `chosen`, and the probabilities, float32 [B, K].

        Raises:
            UserError: The model does not answer, or returns NaN.
        """
        probabilities = caller([pool.prepared[i].sequence for i in chosen], rows)
        if not np.isfinite(probabilities).all():
            raise DivergenceError("The classifier gives NaN: its weights are damaged, or diverged.")
        return chosen, probabilities

    def join(self, pool: Pool, found: Sequence[tuple[np.ndarray, np.ndarray]]) -> Predictions:
        """Puts the results of `run` for the batches of a pool into the order of its rows."""
        probabilities = np.zeros([len(pool.rows), self.info.num_classes], np.float32)
        for chosen, values in found:
            probabilities[chosen] = values
        cut = sum(item is not None and item.cut for item in pool.prepared)
        return Predictions(pool.rows, probabilities, pool.errors, cut)

    def close(self) -> None:
        """Stops threads and closes connections. The model is loaded again if it is used again."""
        if self._threads is not None:
            self._threads.shutdown(cancel_futures=True)
        for caller in self._callers or ():
            caller.close()
        self._threads = self._callers = None

    def _try(self, row: Row) -> Input | UserError:
        try:
            return prepare(self.info, row, self._fetch)
        except UserError as error:
            return error


def _cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
