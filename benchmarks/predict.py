"""Compares the speed of `t2aux predict` on a table of texts with the bare model, and its memory.

The bare model is called with batches that are ready in memory, at its fastest batch size; a
`.tflite` file reads one sequence at a time, in one thread per core. Bare calls and predictions take
turns, so that other programs on the machine affect both equally, and shares are the medians of the
rounds: of the rows per second, and of the rows per second of CPU time, which varies least on a busy
machine. Memory is what the process needs in addition to the loaded model and one call of it.

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
from collections.abc import Iterator
from concurrent import futures
from typing import Any

import numpy as np
from absl import app, flags, logging

from t2aux import files
from t2aux.prediction import batching
from t2aux.prediction.api import Writing, predict_with
from t2aux.prediction.model import Model
from t2aux.prediction.predictor import Predictor
from t2aux.prediction.source import Reading
from t2aux_ondevice import litert
from t2aux_ondevice.preprocessing import UNKNOWN, DatasetInfo

FORMS = ("keras", "saved_model", "litert")
_FORMS = flags.DEFINE_list("forms", list(FORMS), f"Forms of the model: {', '.join(FORMS)}.")
_ROWS = flags.DEFINE_integer("rows", 100_000, "Texts in the long run.", lower_bound=1)
_LENGTH = flags.DEFINE_integer("length", 400, "Characters per text.", lower_bound=1)
_HIDDEN = flags.DEFINE_integer("hidden", 128, "Cells of the LSTM.", lower_bound=1)
_ROUNDS = flags.DEFINE_integer("rounds", 5, "Rounds of bare calls and predictions.", lower_bound=1)
_ROUND_ROWS = flags.DEFINE_integer("round_rows", 8192, "Texts per round.", lower_bound=1)
_OUTPUT = flags.DEFINE_string("output", None, "A JSON file for the numbers.")
_FOLDER = flags.DEFINE_string("folder", None, "Internal: the folder of a form's process.")

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
    """Writes the same untrained text classifier in every form."""
    from t2aux.export import metadata, saved_model, tflite
    from t2aux.export.model import Model as Exported
    from t2aux.export.stateless import StatelessClassifier
    from t2aux.run import Run
    from t2aux.training.classifier import make_classifier

    info = DatasetInfo(
        "texts",
        "text",
        tuple(f"class {i}" for i in range(10)),
        tokens="characters",
        vocabulary=(UNKNOWN, *_LETTERS),
    )
    network = make_classifier(info, hidden_size=hidden, seed=0)
    network.save(folder / "model.keras")
    directory = folder / "export" / "1"
    directory.mkdir(parents=True)
    saved_model.save(StatelessClassifier(network), directory)
    (directory / litert.WHOLE).write_bytes(tflite.convert(network, litert.WHOLE_FORM))
    run = Run(folder, network, info, 0, "ckpt-0", "")
    described = metadata.describe(Exported.of_run(run), directory)
    files.write_json(directory / litert.METADATA, described)


def _place(folder: pathlib.Path, form: str) -> str:
    directory = folder / "export" / "1"
    places = {"keras": folder / "model.keras", "litert": directory / litert.WHOLE}
    return str(places.get(form, directory))


def _resident() -> float:
    """The resident memory of the process in MiB."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


@contextlib.contextmanager
def _peak() -> Iterator[list[float]]:
    """Samples the memory. Yields a list whose first element is the peak so far."""
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


class _Bare:
    """The loaded model, called with batches that are ready."""

    def __init__(self, predictor: Predictor, length: int) -> None:
        self._callers = predictor.callers
        ids = np.random.default_rng(1).integers(1, len(_LETTERS), (max(_BATCH_SIZES), length))
        self._sequences = list(ids.astype(np.int32))
        self._by_one = len(self._callers) > 1 or predictor.model.batch_size < batching.BATCH_SIZE
        classifier = predictor.callers[0]._classifier
        self._batch = None if self._by_one else classifier.batch
        self.size = 1 if self._by_one else 0

    def choose(self) -> dict[int, float]:
        """Finds the fastest batch size. Returns the rows per second by batch size."""
        if self._by_one:
            return {1: self.rate(2.0)}
        found: dict[int, list[float]] = {size: [] for size in _BATCH_SIZES}
        for _ in range(3):
            for size, rates in found.items():
                self.size = size
                rates.append(self.rate(1.0))
        rates = {size: statistics.median(values) for size, values in found.items()}
        self.size = max(rates, key=rates.get)
        return rates

    def rate(self, seconds: float) -> float:
        """The rows per second, measured over at least `seconds` seconds."""
        return self.rates(seconds)[0]

    def rates(self, seconds: float) -> tuple[float, float]:
        """The rows per second, and the rows per second of CPU time."""
        calls = self._calls()
        next(calls)
        begin, used, rows = time.perf_counter(), time.process_time(), 0
        while time.perf_counter() - begin < seconds:
            rows += next(calls)
        return rows / (time.perf_counter() - begin), rows / (time.process_time() - used)

    def _calls(self) -> Iterator[int]:
        """Calls the model. Yields the number of rows of each call."""
        if not self._by_one:
            inputs = np.stack(self._sequences[: self.size])
            lengths = np.full(len(inputs), inputs.shape[1], np.int32)
            while True:
                self._batch(inputs, lengths)
                yield len(inputs)
        with futures.ThreadPoolExecutor(len(self._callers)) as threads:
            while True:
                list(threads.map(lambda caller: caller(self._sequences[:8], 1), self._callers))
                yield 8 * len(self._callers)


def measure(folder: pathlib.Path, form: str) -> dict[str, Any]:
    """Measures one form, in a separate process."""
    predictor = Predictor(Model(_place(folder, form)))
    reads = Reading()

    def predict(name: str) -> tuple[float, float]:
        """The rows per second, and the rows per second of CPU time."""
        writes = Writing(str(folder / f"{form}.csv"), overwrite=True)
        begin, used = time.perf_counter(), time.process_time()
        rows = predict_with(predictor, str(folder / name), reads, writes).rows
        return rows / (time.perf_counter() - begin), rows / (time.process_time() - used)

    bare = _Bare(predictor, _LENGTH.value)
    bare.size = bare.size or predictor.batch_size
    bare.rate(0.1)
    loaded = _resident()
    with _peak() as most:
        long_rate, _ = predict("long.csv")
    rates = bare.choose()
    before = np.array(bare.rates(5.0))
    bare_rates, predict_rates = [], []
    for _ in range(_ROUNDS.value):
        predict_rates.append(predict("round.csv"))
        after = np.array(bare.rates(5.0))
        bare_rates.append((before + after) / 2)
        before = after
    by_clock, by_processor = (np.array(predict_rates) / np.array(bare_rates)).T.tolist()
    return {
        "rows": _ROWS.value,
        "rows_a_second": long_rate,
        "model_mib": loaded,
        "more_mib": most[0] - loaded,
        "bare_batch_size": bare.size,
        "bare_rows_a_second_by_batch_size": rates,
        "rounds": {"share": by_clock, "share_of_processors_time": by_processor},
        "share_of_bare": statistics.median(by_clock),
        "share_of_processors_time": statistics.median(by_processor),
    }


def main(argv: list[str]) -> None:
    """Measures each form in a separate process, and prints the results."""
    del argv
    logging.set_verbosity(logging.WARNING)
    if _FOLDER.value is not None:
        print(json.dumps(measure(pathlib.Path(_FOLDER.value), _FORMS.value[0])))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        write_models(folder, _HIDDEN.value)
        write_texts(folder / "long.csv", _ROWS.value, _LENGTH.value)
        write_texts(folder / "round.csv", _ROUND_ROWS.value, _LENGTH.value)
        found = {}
        for form in _FORMS.value:
            given = [flag.serialize() for flag in _given()]
            given += [f"--forms={form}", f"--folder={folder}"]
            done = subprocess.run(
                [sys.executable, "-m", "benchmarks.predict", *given],
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
            found[form] = made = json.loads(done.stdout.splitlines()[-1])
            print(
                f"{form}: {made['rows_a_second']:.0f} rows a second; "
                f"{made['share_of_bare']:.1%} of the bare model at batches of "
                f"{made['bare_batch_size']}, {made['share_of_processors_time']:.1%} by the "
                f"processors' time; {made['more_mib']:.0f} MiB beyond the "
                f"{made['model_mib']:.0f} MiB of the loaded model",
                flush=True,
            )
            if _OUTPUT.value:
                about = {"length": _LENGTH.value, "hidden": _HIDDEN.value, "cores": os.cpu_count()}
                files.write_json(_OUTPUT.value, {**about, "forms": found})


def _given() -> list[flags.Flag]:
    """The flags that the process of a form also needs."""
    holders = (_ROWS, _LENGTH, _HIDDEN, _ROUNDS, _ROUND_ROWS)
    return [flags.FLAGS[holder.name] for holder in holders]


if __name__ == "__main__":
    app.run(main)
