"""CPU time per text of `t2aux predict`, without and with Beam's DirectRunner.

Each command classifies a smaller and a larger table. The difference in CPU time is divided by the
difference in rows, which excludes the start of the program. TensorFlow uses one thread.

  python -m benchmarks.beam --rows=20000
"""

from __future__ import annotations

import os
import pathlib
import resource
import subprocess
import sys
import tempfile

from absl import app, flags

from benchmarks import predict

# `benchmarks.predict` defines --rows, by which the tables differ, --length and --hidden.
_FLAGS = flags.FLAGS
_FEWER = 5_000
_RUNNERS = {"without Beam": [], "DirectRunner": ["--runner=DirectRunner"]}


def _seconds(folder: pathlib.Path, rows: int, arguments: list[str]) -> float:
    """The CPU time of a command, including its child processes."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "t2aux", "predict", f"--model={folder / 'export'}"]
    command += [f"--data={folder / str(rows)}.csv", f"--output={folder / 'o.csv'}", "--overwrite"]
    threads = {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}
    subprocess.run(
        [*command, *arguments], env={**os.environ, **threads}, check=True, capture_output=True
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main(argv: list[str]) -> None:
    """Measures and prints the results."""
    del argv
    with tempfile.TemporaryDirectory() as place:
        folder = pathlib.Path(place)
        predict.write_models(folder, _FLAGS.hidden)
        sizes = (_FEWER, _FEWER + _FLAGS.rows)
        for rows in sizes:
            predict.write_texts(folder / f"{rows}.csv", rows, _FLAGS.length)
        for name, arguments in _RUNNERS.items():
            few, many = (_seconds(folder, rows, arguments) for rows in sizes)
            each = (many - few) / _FLAGS.rows
            print(
                f"{name:14} {1000 * each:.2f} ms a text, {1 / each:,.0f} texts a second on a core, "
                f"{each * 1e8 / 3600:.0f} core-hours for 100 million"
            )


if __name__ == "__main__":
    app.run(main)
