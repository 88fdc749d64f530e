"""What a run writes as it goes: a line on the terminal, train.log, metrics.jsonl, TensorBoard."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
from types import TracebackType

import tensorflow as tf
from absl import logging

from t2aux import files, logs
from t2aux.errors import UserError
from t2aux.progress import Rate
from t2aux.training.schedule import Phase


def tell(
    phase: Phase, epoch: int, step: int, total: int, means: str, speed: float | None, rate: Rate
) -> None:
    """Says where a run is, on a line of the log.

    Args:
        phase: The phase.
        epoch: Its epoch, from 0.
        step: How many steps were made.
        total: How many there are.
        means: Of the metrics, or "".
        speed: Steps a second, or None where it is unknown.
        rate: What measures it.
    """
    logging.info(
        "%s  epoch %d/%d  step %d/%d  %s%s steps/s  %s left",
        phase.name,
        epoch + 1,
        phase.epochs,
        step,
        total,
        means,
        f"{speed:.2f}" if speed else "?",
        rate.left(total - step),
    )


class RunLog:
    """The files of a run that say how it goes. A context manager.

    On going on from a checkpoint, lines of metrics.jsonl from after it are dropped, so that every
    step stands there once.
    """

    def __init__(self, model_dir: pathlib.Path, step: int) -> None:
        """Opens the files.

        Args:
            model_dir: The run directory.
            step: The step from which the run goes on.

        Raises:
            UserError: A file can't be read or written.
        """
        self._model_dir = model_dir
        self._metrics = self._open_metrics(step)
        try:
            self._handler = logs.FileHandler(model_dir / "train.log")
        except UserError:
            self._metrics.close()
            raise
        logging.get_absl_logger().addHandler(self._handler)
        with contextlib.ExitStack() as stack:
            # TensorFlow opens the file at the first write, and looks for it at each one.
            folder = stack.enter_context(files.for_tensorflow(model_dir))
            self._summaries = tf.summary.create_file_writer(os.path.join(folder, "tensorboard"))
            self._folder = stack.pop_all()

    def __enter__(self) -> RunLog:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._metrics.close()
        logging.get_absl_logger().removeHandler(self._handler)
        self._handler.close()
        try:
            with self._folder:
                self._summaries.close()
        except tf.errors.OpError as failure:
            # What ended the block may be the same full disk; that one is told.
            if error is None:
                raise _no_events(self._model_dir, failure) from failure

    def rewind(self, step: int) -> None:
        """Drops the lines of metrics.jsonl from after a step, to which the run goes back."""
        self._metrics.close()
        self._metrics = self._open_metrics(step)

    def has(self, split: str, step: int) -> bool:
        """Whether the evaluation of a split at a step stood in metrics.jsonl when it was opened."""
        return step == self._last.get(split)

    def write(self, step: int, values: dict[str, float | int | str]) -> None:
        """Adds a line to metrics.jsonl, and the numbers in it to TensorBoard.

        Args:
            step: The global step.
            values: By name; "phase" and "split" are texts.
        """
        self._metrics.write(json.dumps({"step": step, **values}) + "\n")
        prefix = str(values.get("split", "train"))
        try:
            with self._summaries.as_default(step=step):
                for name, value in values.items():
                    if not isinstance(value, str):
                        tf.summary.scalar(f"{prefix}/{name}", value)
            self._summaries.flush()
        except tf.errors.OpError as error:
            raise _no_events(self._model_dir, error) from error

    def _open_metrics(self, step: int) -> files.Lines:
        path = self._model_dir / "metrics.jsonl"
        self._last: dict[str, int] = {}
        if path.exists():
            kept = []
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
                try:
                    entry = json.loads(line)
                    at = int(entry["step"])
                except (ValueError, TypeError, KeyError):
                    break  # The run was killed while it wrote this line, the last.
                if at > step:
                    break
                kept.append(line + "\n")
                self._last[str(entry.get("split"))] = at
            with files.atomic_write(path) as file:
                file.writelines(kept)
        return files.Lines(path)


def _no_events(model_dir: pathlib.Path, error: tf.errors.OpError) -> UserError:
    reason = error.message.strip().splitlines()[0].rstrip(".") if error.message else "no reason"
    return UserError(
        f"Can't write TensorBoard's events to {model_dir / 'tensorboard'} ({reason}): free some "
        "space there, and give the same command again."
    )


class NoLog:
    """As `RunLog`, of a process that writes no files."""

    def __enter__(self) -> NoLog:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def write(self, step: int, values: dict[str, float | int | str]) -> None:
        """Writes nothing."""

    def rewind(self, step: int) -> None:
        """Has nothing to take back."""

    def has(self, split: str, step: int) -> bool:
        """Knows of no evaluation."""
        return False
