"""`t2aux predict` on a table of texts: its rate beside the bare model's, and its memory.

The bare model is called with batches that are ready in memory, at the batch size at which it is
fastest; a `.tflite` file takes one sequence at a time, in as many threads as there are cores. Bare
calls and predictions take turns, so that other programs on the machine disturb both alike, and
shares are the medians of the rounds. Memory is what the process takes beyond the loaded model and
one call of it.

  python -m benchmarks.predict                                   # all forms, 100,000 texts
  python -m benchmarks.predict --forms=saved_model --rows=20000
  python -m benchmarks.predict --output=results/predict.json
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import contextlib
import csv
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures

import numpy as np
from absl import app, flags, logging

from t2aux import files

FORMS = ("keras", "saved_model", "litert")
_FORMS = flags.DEFINE_list("forms", list(FORMS), f"Of the model: {', '.join(FORMS)}.")
_ROWS = flags.DEFINE_integer("rows", 100_000, "Texts of the long run.", lower_bound=1)
_LENGTH = flags.DEFINE_integer("length", 400, "Characters of a text.", lower_bound=1)
_HIDDEN = flags.DEFINE_integer("hidden", 128, "Cells of the LSTM.", lower_bound=1)
_ROUNDS = flags.DEFINE_integer("rounds", 5, "Rounds of bare calls and predictions.", lower_bound=1)
_ROUND_ROWS = flags.DEFINE_integer("round_rows", 8192, "Texts of a round.", lower_bound=1)
_OUTPUT = flags.DEFINE_string("output", None, "A JSON file for the numbers.")
_FOLDER = flags.DEFINE_string("folder", None, "Internal: where a form's process finds its files.")

_BATCH_SIZES = (32, 64, 128, 256, 512, 1024)
_LETTERS = "etaoinshrdlu cmfwypvbgkjqxz"


def write_texts(path: pathlib.Path, rows: int, length: int) -> None:
    """Writes a CSV file of random texts, with an index and a label, as pandas does."""
    letters = np.array(list(_LETTERS))
    rng = np.random.default_rng(0)
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["", "text", "label"])
        for row in range(rows):
            text = "".join(letters[rng.integers(0, len(letters), length)])
            writer.writerow([row, f"a{text[1:-1]}z", f"class {row % 3}"])


def write_models(folder: pathlib.Path, hidden: int) -> None:
    """Writes the same untrained classifier of texts in every form."""
    from t2aux.export import export_untrained

    export_untrained(folder, hidden)


def _resident() -> float:
    """MiB of memory that the process holds."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


@contextlib.contextmanager
def _peak() -> Iterator[list[float]]:
    """Watches the memory; yields a list whose first element is the most that was seen."""
    most, ended = [_resident()], threading.Event()

    def watch() -> None:
        while not ended.wait(0.02):
            most[0] = max(most[0], _resident())

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield most
    finally:
        ended.set()
        thread.join()


if __name__ == "__main__":
    app.run(lambda argv: None)
