"""Seconds a batch of training, ours beside Keras's LSTM with full BPTT, in one run.

The repetitions are interleaved, so that a noisy machine disturbs all alike; medians are shown.

  python -m benchmarks.train_step --batch=128 --hidden=128 --length=784 [--json]
"""

from __future__ import annotations

import json
import statistics
import sys
import time

from absl import app, flags

_BATCH = flags.DEFINE_integer("batch", 128, "Sequences a batch.", lower_bound=1)
_HIDDEN = flags.DEFINE_integer("hidden", 128, "LSTM cells.", lower_bound=1)
_LENGTH = flags.DEFINE_integer("length", 784, "Steps a sequence; at least 601.", lower_bound=601)
_CHANNELS = flags.DEFINE_integer("channels", 1, "Values a step.", lower_bound=1)
_REPEAT = flags.DEFINE_integer("repeat", 7, "Repetitions.", lower_bound=1)
_JSON = flags.DEFINE_bool("json", False, "Print one JSON object as the last line.")


def main(argv: list[str]) -> None:
    """Measures and prints."""
    del argv
    from benchmarks import common

    size = common.Size(_BATCH.value, _LENGTH.value, _HIDDEN.value, _CHANNELS.value)
    batch = common.random_batch(size)
    peer = "Keras LSTM, full BPTT"
    steps = {peer: common.keras_full(size)}
    for name in common.LOSSES:
        steps[f"{name}, truncated 300"] = common.ours(name, size, 300)
    steps["LSTM, full BPTT"] = common.ours("LSTM", size, "full")
    for name, step in steps.items():
        print(f"compiling {name}", file=sys.stderr)
        step(batch)
    times = {name: [] for name in steps}
    for i in range(_REPEAT.value):
        print(f"repetition {i + 1}/{_REPEAT.value}", file=sys.stderr)
        for name, step in steps.items():
            begin = time.perf_counter()
            step(batch)
            times[name].append(time.perf_counter() - begin)
    seconds = {name: statistics.median(values) for name, values in times.items()}
    print(f"\nB {size.batch}, T {size.length}, H {size.hidden}, C {size.channels}")
    print(f"{'':30}{'seconds a batch':>16}{'Keras / this':>14}")
    for name, value in seconds.items():
        print(f"{name:30}{value:16.3f}{seconds[peer] / value:14.2f}")
    if _JSON.value:
        ratio = {name: seconds[peer] / value for name, value in seconds.items()}
        print(json.dumps({"seconds": seconds, "ratio_keras": ratio}))


if __name__ == "__main__":
    app.run(main)
