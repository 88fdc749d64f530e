"""Time of a Keras model's training step with `keras.layers.LSTM` and with `t2aux.layers.LSTM`.

Both use the same model on [batch, steps, channels] with full BPTT and `train_on_batch`. The
repetitions are interleaved, so that noise on the machine affects both equally; medians are shown.

  python -m benchmarks.drop_in [--batches=128,32,1] [--json]
"""

from __future__ import annotations

import json
import statistics
import time

from absl import app, flags

_BATCHES = flags.DEFINE_list("batches", ["128", "32", "1"], "Sequences per batch.")
_LENGTH = flags.DEFINE_integer("length", 784, "Steps per sequence.", lower_bound=1)
_CHANNELS = flags.DEFINE_integer("channels", 1, "Values per step.", lower_bound=1)
_UNITS = flags.DEFINE_integer("units", 128, "LSTM cells.", lower_bound=1)
_REPEAT = flags.DEFINE_integer("repeat", 7, "Repetitions.", lower_bound=1)
_JSON_FLAG = flags.DEFINE_bool("json", False, "Print one JSON object as the last line.")


def _seconds(batch: int) -> dict[str, float]:
    """Median seconds of a training step and of a prediction, by layer."""
    import keras
    import numpy as np

    import t2aux

    generator = np.random.default_rng(0)
    shape = (_LENGTH.value, _CHANNELS.value)
    x = generator.random((batch, *shape), dtype=np.float32)
    y = generator.integers(0, 10, batch)
    steps = {}
    for name, lstm in (("keras", keras.layers.LSTM), ("t2aux", t2aux.layers.LSTM)):
        model = keras.Sequential([keras.Input(shape), lstm(_UNITS.value), keras.layers.Dense(10)])
        model.compile("rmsprop", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        steps[f"{name} train"] = lambda m=model: m.train_on_batch(x, y)
        steps[f"{name} predict"] = lambda m=model: m.predict_on_batch(x)
    for step in steps.values():
        step()
        step()
    taken: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(_REPEAT.value):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            taken[name].append(time.perf_counter() - start)
    return {name: statistics.median(seconds) for name, seconds in taken.items()}


def main(argv: list[str]) -> None:
    """Runs the benchmark."""
    del argv
    results = {int(batch): _seconds(int(batch)) for batch in _BATCHES.value}
    for batch, seconds in results.items():
        for what in ("train", "predict"):
            theirs, ours = seconds[f"keras {what}"], seconds[f"t2aux {what}"]
            print(
                f"batch {batch:4}  {what:7}  Keras {theirs:.4f} s  t2aux {ours:.4f} s  "
                f"{theirs / ours:.2f} times faster"
            )
    if _JSON_FLAG.value:
        print(json.dumps(results))


if __name__ == "__main__":
    app.run(main)
