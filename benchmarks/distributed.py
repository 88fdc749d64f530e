"""Compares two workers of one thread each to one worker of two threads: time per step and losses.

Both exist at the same time and take turns, so that noise on the machine affects both equally; the
workers communicate over loopback, as over a network. Each trains on the same batches of real digits
of 28 x 28 pixels, like `t2aux train`, from the same weights; the losses of all steps are compared.

They differ only by rounding. With a learning rate of 1e-3, RMSprop amplifies rounding errors within
about 15 steps in any setup: --control shows the same for one worker if one of its weights is
changed by a rounding error.

  python -m benchmarks.distributed --output=results/distributed.json
  python -m benchmarks.distributed --rate=1e-3 [--control]
"""

from __future__ import annotations

import json
import os
import socket
import statistics
import subprocess
import sys

from absl import app, flags, logging

_MODELS = flags.DEFINE_list("models", ["r-LSTM", "p-LSTM"], "Models to train: r-LSTM, p-LSTM.")
_BATCH = flags.DEFINE_integer("batch", 128, "Sequences in a whole batch.", lower_bound=2)
_HIDDEN = flags.DEFINE_integer("hidden", 128, "LSTM cells.", lower_bound=1)
_SIDE = flags.DEFINE_integer("side", 28, "Side of the images in pixels.", lower_bound=4)
_SEGMENT = flags.DEFINE_integer("segment", 600, "Steps of the auxiliary loss.", lower_bound=1)
_BPTT = flags.DEFINE_integer("bptt", 300, "Steps of the truncation.", lower_bound=1)
_STEPS = flags.DEFINE_integer("steps", 50, "Steps.", lower_bound=1)
_TURN = flags.DEFINE_integer("turn", 5, "Steps per turn.", lower_bound=1)
_RATE = flags.DEFINE_float("rate", 1e-4, "Learning rate.")
_CONTROL = flags.DEFINE_bool("control", False, "Use one worker with a changed weight, not two.")
_OUTPUT = flags.DEFINE_string("output", None, "A JSON file for the results.")
_NUDGE = flags.DEFINE_bool("nudge", False, "Change a weight; internal.")
_WORKER = flags.DEFINE_string("worker", None, "Run as a worker that trains this model; internal.")


def _work(name: str) -> None:
    """A worker's loop: reads a number of steps, trains, and prints seconds and losses."""
    import time

    from t2aux import logs

    logs.quiet_tensorflow()
    logging.set_verbosity(logging.WARNING)
    import keras
    import tensorflow as tf

    from t2aux import data
    from t2aux.losses.prediction import Prediction
    from t2aux.losses.reconstruction import Reconstruction
    from t2aux.training import distribution
    from t2aux.training.classifier import make_classifier
    from t2aux.training.trainer import Trainer

    replicas = (
        distribution.multi_worker() if "TF_CONFIG" in os.environ else distribution.replicas_of(None)
    )
    split = data.load(data.Digits(side=_SIDE.value - 2, border=1), "train")
    kind = {"r-LSTM": Reconstruction, "p-LSTM": Prediction}[name]
    with replicas.scope():
        classifier = make_classifier(split.info, hidden_size=_HIDDEN.value)
        loss = kind(length=_SEGMENT.value)
        bptt = _BPTT.value
        trainer = Trainer(classifier, [loss], supervised_bptt=bptt, auxiliary_bptt=bptt)
        optimizer = keras.optimizers.RMSprop(_RATE.value)
        optimizer.build(trainer.variables_in_order)
    replicas.prepare(optimizer)
    if _NUDGE.value:
        kernel = classifier.head.output_kernel
        kernel.assign(tf.tensor_scatter_nd_update(kernel, [[0, 0]], [kernel[0, 0] * (1 + 1.2e-7)]))
    number = tf.Variable(0)

    @tf.function
    def step(batch: object) -> tf.Tensor:
        result, _ = replicas.step(
            trainer,
            batch,
            stop=tf.constant(False),
            seed=tf.stack([0, number]),
            # As in the first steps of the paper's schedule.
            progress=tf.constant(0.0),
            supervised=True,
        )
        gradients, _ = tf.clip_by_global_norm(result.gradients, 1.0)
        replicas.apply(optimizer, gradients, trainer.variables_in_order)
        number.assign_add(1)
        return result.metrics["loss"]

    def batches():
        epoch = 0
        while True:
            place = {"seed": 0, "epoch": epoch, "first_batch": 0}
            yield from replicas.batches(split, _BATCH.value, **place)
            epoch += 1

    each = batches()
    print("ready", flush=True)
    for line in sys.stdin:
        losses, begin = [], time.perf_counter()
        for _ in range(int(line)):
            losses.append(float(step(next(each))))
        seconds = (time.perf_counter() - begin) / int(line)
        print(json.dumps({"seconds": seconds, "losses": losses}), flush=True)


class _System:
    """One or more workers that are controlled together."""

    def __init__(self, name: str, workers: int, *more: str) -> None:
        ports = []
        probes = [socket.socket() for _ in range(workers)]
        for probe in probes:
            probe.bind(("localhost", 0))
            ports.append(probe.getsockname()[1])
        for probe in probes:
            probe.close()
        threads = str(2 // workers)
        self._processes = []
        for index in range(workers):
            environment = {
                **os.environ,
                "TF_NUM_INTRAOP_THREADS": threads,
                "TF_NUM_INTEROP_THREADS": threads,
            }
            environment.pop("TF_CONFIG", None)
            if workers > 1:
                cluster = {"worker": [f"localhost:{port}" for port in ports]}
                environment["TF_CONFIG"] = json.dumps(
                    {"cluster": cluster, "task": {"type": "worker", "index": index}}
                )
            self._processes.append(
                subprocess.Popen(
                    [
                        *(sys.executable, "-m", "benchmarks.distributed", *sys.argv[1:]),
                        f"--worker={name}",
                        *more,
                    ],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                    env=environment,
                )
            )

    def wait(self) -> None:
        for process in self._processes:
            if process.stdout.readline() != "ready\n":
                raise RuntimeError("a worker did not come up; see what it says above")

    def run(self, steps: int) -> dict:
        for process in self._processes:
            print(steps, file=process.stdin, flush=True)
        answers = [json.loads(process.stdout.readline()) for process in self._processes]
        # Every worker reports the loss of the whole batch.
        assert all(answer["losses"] == answers[0]["losses"] for answer in answers)
        return {**answers[0], "seconds": max(answer["seconds"] for answer in answers)}

    def close(self) -> None:
        for process in self._processes:
            process.stdin.close()
        for process in self._processes:
            process.wait()


def measure(name: str) -> dict:
    """Runs both in turns."""
    other = _System(name, 1, "--nudge") if _CONTROL.value else _System(name, 2)
    systems = {"one": _System(name, 1), "two": other}
    seconds = {key: [] for key in systems}
    losses = {key: [] for key in systems}
    for system in systems.values():
        system.wait()
    while len(losses["one"]) < _STEPS.value:
        # The first step, which compiles, is not timed.
        turn = min(_TURN.value, _STEPS.value - len(losses["one"])) if losses["one"] else 1
        for key, system in systems.items():
            answer = system.run(turn)
            if losses[key]:
                seconds[key].append(answer["seconds"])
            losses[key] += answer["losses"]
    for system in systems.values():
        system.close()
    one, two = (statistics.median(seconds[key]) for key in ("one", "two"))
    differences = [abs(a - b) for a, b in zip(losses["one"], losses["two"], strict=True)]
    return {
        "one_worker_two_threads_seconds": one,
        "two_workers_one_thread_seconds": two,
        "ratio": two / one,
        "largest_difference_of_losses": max(differences),
        "first_loss": losses["one"][0],
        "last_loss": losses["one"][-1],
    }


def main(argv: list[str]) -> None:
    """Measures and prints the results."""
    if _WORKER.value:
        _work(_WORKER.value)
        return
    size = {
        "batch": _BATCH.value,
        "hidden": _HIDDEN.value,
        "steps_a_sequence": _SIDE.value**2,
        "segment": _SEGMENT.value,
        "truncation": _BPTT.value,
        "training_steps": _STEPS.value,
        "rate": _RATE.value,
    }
    print(", ".join(f"{name} {value}" for name, value in size.items()))
    print(f"{'':10}{'1 x 2 threads':>15}{'2 x 1 thread':>15}{'ratio':>8}{'losses differ by':>18}")
    results = {}
    for name in _MODELS.value:
        results[name] = result = measure(name)
        print(
            f"{name:10}{result['one_worker_two_threads_seconds']:13.3f} s"
            f"{result['two_workers_one_thread_seconds']:13.3f} s{result['ratio']:8.2f}"
            f"{result['largest_difference_of_losses']:18.1e}",
            flush=True,
        )
    if _OUTPUT.value:
        with open(_OUTPUT.value, "w", encoding="utf-8") as file:
            json.dump({"size": size, "models": results}, file, indent=2)
            file.write("\n")


if __name__ == "__main__":
    app.run(main)
