"""The log files of a run: train.log, metrics.jsonl and TensorBoard's events."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
from types import TracebackType

import tensorflow as tf
from absl import logging

from t2aux import files, logs
from t2aux.errors import FileError, UserError


class RunLog:
    """The logs of a run. A context manager.

    When a run is resumed, the lines of metrics.jsonl after its checkpoint are removed, so that
    every step occurs once.
    """

    def __init__(self, model_dir: pathlib.Path | None, step: int) -> None:
        """Opens the files.

        Args:
            model_dir: The run directory; None: nothing is written, because this process is a worker
                other than the chief.
            step: The step from which the run continues.

        Raises:
            UserError: A file can't be read or written.
        """
        self._model_dir = model_dir
        self._last: dict[str, int] = {}
        self._open = contextlib.ExitStack()
        if model_dir is None:
            return
        with contextlib.ExitStack() as stack:
            self._metrics = self._open_metrics(model_dir / "metrics.jsonl", step)
            stack.callback(self._metrics.close)
            handler = logs.FileHandler(model_dir / "train.log")
            stack.callback(handler.close)
            logging.get_absl_logger().addHandler(handler)
            stack.callback(logging.get_absl_logger().removeHandler, handler)
            # TensorFlow opens the file at the first write, and checks that it exists at each one.
            folder = stack.enter_context(files.for_tensorflow(model_dir))
            self._summaries = tf.summary.create_file_writer(os.path.join(folder, "tensorboard"))
            self._open = stack.pop_all()

    def __enter__(self) -> RunLog:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._open:
            if self._model_dir is None:
                return
            try:
                self._summaries.close()
            except tf.errors.OpError as failure:
                # An error that has ended the block, perhaps the same full disk, takes precedence.
                if error is None:
                    raise _no_events(self._model_dir, failure) from failure

    def has(self, split: str, step: int) -> bool:
        """Whether metrics.jsonl had the evaluation of a split at a step when it was opened."""
        return step == self._last.get(split)

    def write(self, step: int, values: dict[str, float | int | str]) -> None:
        """Adds a line to metrics.jsonl, and the numbers in it to TensorBoard.

        Args:
            step: The global step.
            values: The values by name; "phase" and "split" are strings.
        """
        if self._model_dir is None:
            return
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

    def _open_metrics(self, path: pathlib.Path, step: int) -> files.Lines:
        if path.exists():
            kept = []
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
                try:
                    entry = json.loads(line)
                    at = int(entry["step"])
                except (ValueError, TypeError, KeyError):
                    break  # The run was killed while it wrote this last line.
                if at > step:
                    break
                kept.append(line + "\n")
                self._last[str(entry.get("split"))] = at
            with files.atomic_write(path) as file:
                file.writelines(kept)
        return files.Lines(path)


def _no_events(model_dir: pathlib.Path, error: tf.errors.OpError) -> UserError:
    reason = error.message.strip().splitlines()[0].rstrip(".") if error.message else "no reason"
    return FileError(
        f"Can't write TensorBoard's events to {model_dir / 'tensorboard'} ({reason}): free some "
        "space there, and give the same command again."
    )
