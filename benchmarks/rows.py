r"""Measures the effect of the auxiliary loss's `rows` on accuracy and time.

The same training, with the same number of updates, is run with the auxiliary loss on all rows of
every batch and on fractions of them. Each run is a separate process with one thread. Its CPU
seconds are counted, including its start and its evaluations, so that other work on the machine has
little influence. Runs that are already in the file of results are not repeated.

  python -m benchmarks.rows --tasks=digits --seeds=0,1,2 --output=results/rows.json
  python -m benchmarks.rows --tasks=mnist,documents --mnist=FOLDER --documents=FOLDER \
      --output=results/rows.json
"""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import tempfile

from absl import app, flags

from t2aux import files

_TASKS = flags.DEFINE_list("tasks", ["digits"], "Tasks: digits, mnist, documents.")
_SHARES = flags.DEFINE_list("shares", ["1.0", "0.5", "0.25", "0.125"], "Values of rows.")
_SEEDS = flags.DEFINE_list("seeds", ["0"], "Seeds of every run.")
_MNIST = flags.DEFINE_string("mnist", None, "A folder with MNIST's four files.")
_DOCUMENTS = flags.DEFINE_string("documents", None, "A folder with texts in DBpedia's layout.")
_PARAMETERS = flags.DEFINE_multi_string("gin_param", [], "Additional settings of every run.")
_OUTPUT = flags.DEFINE_string("output", None, "The JSON file of results.", required=True)

# Flags of `t2aux train`. MNIST has a quarter of its pixels, so all lengths are a quarter, too.
_RUNS = {
    "digits": ["--gin_file=quickstart"],
    "mnist": [
        *("--gin_file=paper/mnist", "--gin_file=models/r_lstm", "--gin_file=cores/lstm_chrono"),
        *("--gin_file=datasets/idx", "--gin_param=idx.side = 14", "--gin_param=CHRONO_STEPS = 196"),
        *("--gin_param=SEGMENT_LENGTH = 150", "--gin_param=SUPERVISED_BPTT = 75"),
        *("--gin_param=AUXILIARY_BPTT = 75", "--gin_param=BATCH_SIZE = 32"),
        *("--gin_param=PRETRAIN_EPOCHS = 1", "--gin_param=JOINT_EPOCHS = 1"),
        *("--gin_param=train.optimizer = @Adam", "--gin_param=joint/Phase.decay_epochs = None"),
        "--gin_param=Reconstruction.final_sampling = 0.5",
    ],
    "documents": [
        *("--gin_file=paper/dbpedia", "--gin_file=models/r_lstm", "--gin_param=BATCH_SIZE = 32"),
        *("--gin_param=PRETRAIN_EPOCHS = 1", "--gin_param=JOINT_EPOCHS = 2"),
        *("--gin_param=train.optimizer = @Adam", "--gin_param=joint/Phase.decay_epochs = 1"),
        *("--gin_param=joint/Phase.decay_factor = 0.2", "--gin_param=train.log_every = 250"),
        "--gin_param=Reconstruction.final_sampling = 0.5",
    ],
}


def _train(task: str, share: str, seed: str) -> dict:
    folder = {"mnist": _MNIST, "documents": _DOCUMENTS}.get(task)
    if folder is not None and folder.value is None:
        raise app.UsageError(f"--{task} must name the folder of the data.")
    arguments = [
        *_RUNS[task],
        *(f"--gin_param={setting}" for setting in _PARAMETERS.value),
        *(f"--gin_param=SEED = {seed}", f"--gin_param=Reconstruction.rows = {share}"),
    ]
    with tempfile.TemporaryDirectory() as run:
        place = [f"--model_dir={run}/run"]
        if folder is not None:
            place.append(f"--data_dir={folder.value}")
        one = dict.fromkeys(("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"), "1")
        process = subprocess.Popen(
            [sys.executable, "-m", "t2aux", "train", *place, *arguments],
            env={**os.environ, **one},
            stdout=subprocess.DEVNULL,
        )
        _, status, used = os.wait4(process.pid, 0)
        if status:
            raise SystemExit(f"t2aux train {' '.join(arguments)} failed, see above.")
        lines = (pathlib.Path(run) / "run" / "metrics.jsonl").read_text().splitlines()
    last = [line for line in map(json.loads, lines) if line["split"] == "test"][-1]
    return {
        "task": task,
        "rows": float(share),
        "seed": int(seed),
        "accuracy": last["accuracy"],
        "updates": last["step"],
        "cpu_seconds": round(used.ru_utime + used.ru_stime, 1),
        "flags": arguments,
    }


def main(argv: list[str]) -> None:
    """Trains the runs, and writes the results after each."""
    if len(argv) > 1:
        raise app.UsageError(f"Unknown argument {argv[1]!r}.")
    unknown = set(_TASKS.value) - set(_RUNS)
    if unknown:
        raise app.UsageError(f"--tasks must be of {', '.join(_RUNS)}, but has {unknown.pop()}.")
    output = pathlib.Path(_OUTPUT.value)
    content = {
        "command": "python -m benchmarks.rows --tasks=digits,mnist,documents --seeds=SEEDS "
        "--mnist=FOLDER --documents=FOLDER --output=results/rows.json",
        "hardware": "one thread; CPU seconds with the start and the evaluations",
        "runs": [],
    }
    if output.exists():
        content = json.loads(output.read_text())
    runs = content["runs"]
    done = {(run["task"], run["rows"], run["seed"]) for run in runs}
    for task in _TASKS.value:
        for seed in _SEEDS.value:
            for share in _SHARES.value:
                if (task, float(share), int(seed)) in done:
                    continue
                result = _train(task, share, seed)
                runs.append(result)
                print(
                    f"{task:10} rows {share:6} seed {seed}: {result['accuracy']:.2%} after "
                    f"{result['updates']} updates, {result['cpu_seconds']:.0f} CPU seconds",
                    flush=True,
                )
                files.write_json(output, content)


if __name__ == "__main__":
    app.run(main)
