"""Measures the share of a training step spent waiting for data, and memory by the size of the data.

Each pipeline feeds the fused LSTM (truncated 300, the fastest step, which is the hardest case). An
epoch is timed step by step: the wait is the time inside the iterator's next, and the step is the
time from then until its result is available. `alone` is a step on one existing batch, so `slowdown`
also shows how much processor time the pipeline itself takes. The pipelines are interleaved, so that
noise on the machine affects all equally; medians of the repetitions are shown.

  memory        a split in memory
  shards        the same data in shards, from the page cache
  shards, cold  the same, after dropping the files from the page cache (posix_fadvise)
  TFRecord      tf.data's own: TFRecordDataset over the files, interleaved, shuffled in a buffer of
                8,192 records, parsed, decoded; it can neither resume nor shuffle the whole data

--memory measures the peak memory of an epoch over shards of each size, in a separate process: the
anonymous memory of the process (RssAnon), sampled, and the peak of its total memory. Linux only.

  python -m benchmarks.input_pipeline --json=results/input_pipeline.json
"""

from __future__ import annotations

import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
from absl import app, flags

_BATCH = flags.DEFINE_integer("batch", 128, "Sequences per batch.", lower_bound=1)
_HIDDEN = flags.DEFINE_integer("hidden", 128, "LSTM cells.", lower_bound=1)
_EXAMPLES = flags.DEFINE_integer("examples", 8192, "Training sequences.", lower_bound=1)
_REPEAT = flags.DEFINE_integer("repeat", 5, "Repetitions.", lower_bound=1)
_STEPS = flags.DEFINE_integer("steps", 30, "Steps per repetition.", lower_bound=1)
_SHAPES = flags.DEFINE_list("sizes", ["784x1", "1024x3"], "Sizes T x C to time.")
_MEBIBYTES = flags.DEFINE_list("memory", ["256", "1024", "2048"], "Sizes of data, in MiB.")
_FOLDER = flags.DEFINE_string("folder", None, "Folder for the data; by default temporary.")
_JSON = flags.DEFINE_string("json", None, "A file for the results.")
_ONE = flags.DEFINE_string("one", None, "Measure the memory of an epoch over this folder.")

_SIZES = {"784x1": (784, 28, 1), "1024x3": (1024, 32, 3)}


def _write(folder: pathlib.Path, count: int, side: int, channels: int) -> None:
    """Converts images of noise, made one at a time."""
    from t2aux.data import convert
    from t2aux.data.table import Rows
    from t2aux_ondevice.preprocessing import DatasetInfo

    info = DatasetInfo(
        "noise", "image", tuple("0123456789"), channels=channels, length=side * side, side=side
    )

    def rows(count: int) -> Rows:
        def make() -> Iterator[np.ndarray]:
            random = np.random.default_rng(0)
            for _ in range(count):
                yield random.integers(0, 256, (side * side, channels), np.uint8)

        labels = np.arange(count, dtype=np.int32) % 10
        return Rows("Making noise", labels, (side * side, channels), make)

    convert.convert(info, {"train": rows(count), "test": rows(1)}, folder)


def _evict(folder: pathlib.Path) -> None:
    for path in folder.iterdir():
        descriptor = os.open(path, os.O_RDONLY)
        os.fdatasync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def _pipelines(folder: pathlib.Path, length: int, channels: int) -> dict[str, Callable]:
    """For each pipeline, the function that makes the batches of an epoch."""
    import tensorflow as tf

    from t2aux.data import Batch, ShardFolder, Split, load

    shards = load(ShardFolder(), "train", data_dir=str(folder))
    memory = Split(shards.info, shards._shards.table())

    def cold(epoch: int) -> tf.data.Dataset:
        _evict(folder)
        return shards.batches(_BATCH.value, seed=0, epoch=epoch)

    features = {
        "values": tf.io.FixedLenFeature([], tf.string),
        "length": tf.io.FixedLenFeature([], tf.int64),
        "label": tf.io.FixedLenFeature([], tf.int64),
    }

    def parse(records: tf.Tensor) -> Batch:
        found = tf.io.parse_example(records, features)
        values = tf.io.decode_raw(found["values"], tf.uint8)
        inputs = tf.cast(tf.reshape(values, [-1, length, channels]), tf.float32) / 255.0
        return Batch(inputs, tf.cast(found["length"], tf.int32), tf.cast(found["label"], tf.int32))

    def plain(epoch: int) -> tf.data.Dataset:
        files = tf.data.Dataset.list_files(str(folder / "train-*.tfrecord"), seed=epoch)
        dataset = files.interleave(tf.data.TFRecordDataset, num_parallel_calls=tf.data.AUTOTUNE)
        dataset = dataset.shuffle(8192, seed=epoch).batch(_BATCH.value)
        return dataset.map(parse, num_parallel_calls=tf.data.AUTOTUNE).prefetch(2)

    return {
        "memory": lambda epoch: memory.batches(_BATCH.value, seed=0, epoch=epoch),
        "shards": lambda epoch: shards.batches(_BATCH.value, seed=0, epoch=epoch),
        "shards, cold": cold,
        "TFRecord": plain,
    }


def _measure(name: str, folder: pathlib.Path) -> dict[str, dict[str, float]]:
    """The median seconds of a step and of its wait, and their ratio, for each pipeline."""
    from benchmarks import common

    length, side, channels = _SIZES[name]
    _write(folder, _EXAMPLES.value, side, channels)
    size = common.Size(_BATCH.value, length, _HIDDEN.value, channels)
    step = common.ours("LSTM", size, 300)
    cached = common.random_batch(size)
    pipelines = _pipelines(folder, length, channels)

    def timed(batch: common.Batch) -> float:
        begin = time.perf_counter()
        step(batch)
        return time.perf_counter() - begin

    timed(cached)
    seen: dict[str, dict[str, list[float]]] = {
        pipeline: {"wait": [], "step": [], "share": []} for pipeline in pipelines
    }
    alone = []
    for repetition in range(_REPEAT.value):
        print(f"{name}: repetition {repetition + 1}/{_REPEAT.value}", file=sys.stderr)
        alone.append(statistics.median(timed(cached) for _ in range(_STEPS.value)))
        for pipeline, make in pipelines.items():
            iterator = iter(make(repetition))
            waits, steps = [], []
            # The wait for the first batch can't overlap with a step, so it is reported separately.
            begin = time.perf_counter()
            batch = next(iterator)
            start = time.perf_counter() - begin
            for _ in range(_STEPS.value):
                steps.append(timed(batch))
                begin = time.perf_counter()
                batch = next(iterator)
                waits.append(time.perf_counter() - begin)
            lists = seen[pipeline]
            lists["wait"].append(statistics.mean(waits))
            lists["step"].append(statistics.mean(steps))
            lists["share"].append(sum(waits) / (sum(waits) + sum(steps)))
            lists.setdefault("start", []).append(start)
            lists.setdefault("slowdown", []).append(statistics.median(steps) / alone[-1])
    return {
        pipeline: {
            "wait_ms": 1e3 * statistics.median(lists["wait"]),
            "step_ms": 1e3 * statistics.median(lists["step"]),
            "wait_share": statistics.median(lists["share"]),
            "largest_wait_share": max(lists["share"]),
            "slowdown": statistics.median(lists["slowdown"]),
            "start_ms": 1e3 * statistics.median(lists["start"]),
        }
        for pipeline, lists in seen.items()
    }


def _status(field: str) -> float:
    """A field of /proc/self/status, in MiB."""
    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"/proc/self/status has no {field}")


def _epoch_memory(folder: pathlib.Path) -> dict[str, float]:
    """The memory peaks of an epoch in this process, in MiB above the level after a first batch."""
    from t2aux.data import ShardFolder, load

    split = load(ShardFolder(), "train", data_dir=str(folder))
    next(iter(split.batches(_BATCH.value, seed=0)))
    before = {field: _status(field) for field in ("RssAnon", "VmRSS")}
    pathlib.Path("/proc/self/clear_refs").write_text("5")
    largest, done = before["RssAnon"], threading.Event()

    def sample() -> None:
        nonlocal largest
        while not done.wait(0.01):
            largest = max(largest, _status("RssAnon"))

    sampler = threading.Thread(target=sample)
    sampler.start()
    count = sum(len(batch.labels) for batch in split.batches(_BATCH.value, seed=0, epoch=1))
    done.set()
    sampler.join()
    assert count == len(split)
    return {
        "peak_mib": _status("VmHWM") - before["VmRSS"],
        "anonymous_mib": largest - before["RssAnon"],
        "index_mib": split.nbytes / 2**20,
    }


def _memory(folder: pathlib.Path, mebibytes: int) -> dict[str, float]:
    count = mebibytes * 2**20 // 3072
    _write(folder, count, 32, 3)
    command = [sys.executable, "-m", "benchmarks.input_pipeline", f"--one={folder}"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return {"examples": count, **json.loads(done.stdout.splitlines()[-1])}


def main(argv: list[str]) -> None:
    """Measures and prints the results."""
    if _ONE.value:
        print(json.dumps(_epoch_memory(pathlib.Path(_ONE.value))))
        return
    found = {
        "command": "python -m benchmarks.input_pipeline " + " ".join(sys.argv[1:]),
        "batch": _BATCH.value,
        "hidden": _HIDDEN.value,
        "wait": {},
        "memory": {},
    }
    with tempfile.TemporaryDirectory(dir=_FOLDER.value) as temporary:
        for name in _SHAPES.value:
            measured = _measure(name, pathlib.Path(temporary) / "data")
            found["wait"][name] = measured
            _remove(pathlib.Path(temporary) / "data")
            print(f"{name}: LSTM, truncated 300, B {_BATCH.value}, H {_HIDDEN.value}")
            print(f"{'':14}  wait ms  step ms    share  largest  slowdown  start ms")
            for pipeline, row in measured.items():
                print(
                    f"{pipeline:14}{row['wait_ms']:9.2f}{row['step_ms']:9.1f}"
                    f"{row['wait_share']:9.2%}{row['largest_wait_share']:9.2%}"
                    f"{row['slowdown']:10.2f}{row['start_ms']:10.0f}",
                    flush=True,
                )
        for size in _MEBIBYTES.value:
            row = _memory(pathlib.Path(temporary) / "data", int(size))
            found["memory"][size] = row
            _remove(pathlib.Path(temporary) / "data")
            print(
                f"{size} MiB of records: {row['peak_mib']:.0f} MiB more at the peak of an epoch, "
                f"{row['anonymous_mib']:.0f} of them anonymous; index {row['index_mib']:.1f} MiB",
                flush=True,
            )
    if _JSON.value:
        pathlib.Path(_JSON.value).write_text(json.dumps(found, indent=2) + "\n")


def _remove(folder: pathlib.Path) -> None:
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()


if __name__ == "__main__":
    app.run(main)
