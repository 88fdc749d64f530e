"""Measures the peak memory of a truncated training step for different lengths of sequences.

Each length is measured in a separate process: after the inputs are made and a short batch has been
trained on (so that TensorFlow is loaded and the step is compiled), the kernel's record of the peak
is reset, and the peak during two steps is read. Memory that was resident before, including the
inputs, is subtracted, and so is the time-major copy of the inputs that a step makes. Linux only.

  python -m benchmarks.memory --lengths=1600,16384
"""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys

from absl import app, flags

_BATCH = flags.DEFINE_integer("batch", 128, "Sequences per batch.", lower_bound=1)
_HIDDEN = flags.DEFINE_integer("hidden", 128, "LSTM cells.", lower_bound=1)
_CHANNELS = flags.DEFINE_integer("channels", 3, "Values per step.", lower_bound=1)
_BPTT = flags.DEFINE_integer("bptt", 300, "Truncation of each loss, in steps.", lower_bound=1)
_LENGTHS = flags.DEFINE_list("lengths", ["1600", "16384"], "Steps per sequence, the base first.")
_MODELS = flags.DEFINE_list("models", [], "Models of benchmarks.common; all by default.")
_ONE = flags.DEFINE_bool("one", False, "Measure one model and length, in this process.")


def _status(field: str) -> float:
    """A field of /proc/self/status, in MiB."""
    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"/proc/self/status has no {field}")


def _measure(name: str, length: int) -> float:
    from benchmarks import common

    size = common.Size(_BATCH.value, length, _HIDDEN.value, _CHANNELS.value, classes=120)
    batch = common.random_batch(size)
    step = common.ours(name, size, _BPTT.value)
    step(
        batch._replace(
            inputs=batch.inputs[:1, :601],
            lengths=batch.lengths[:1] * 0 + 601,
            labels=batch.labels[:1],
        )
    )
    before = _status("VmRSS")
    pathlib.Path("/proc/self/clear_refs").write_text("5")
    for _ in range(2):
        step(batch)
    return _status("VmHWM") - before - batch.inputs.numpy().nbytes / 2**20


def main(argv: list[str]) -> None:
    """Measures and prints the results."""
    if _ONE.value:
        print(json.dumps(_measure(_MODELS.value[0], int(_LENGTHS.value[0]))))
        return
    from benchmarks import common

    lengths = [int(length) for length in _LENGTHS.value]
    print(f"peak MiB of a step, B {_BATCH.value}, H {_HIDDEN.value}, truncated {_BPTT.value}")
    print(f"{'':16}" + "".join(f"{f'T {length}':>12}" for length in lengths) + f"{'ratio':>8}")
    for name in _MODELS.value or [*common.LOSSES, *common.WHOLE]:
        peaks = []
        for length in lengths:
            command = [
                *(sys.executable, "-m", "benchmarks.memory", "--one", f"--models={name}"),
                *(f"--lengths={length}", f"--batch={_BATCH.value}", f"--hidden={_HIDDEN.value}"),
                *(f"--channels={_CHANNELS.value}", f"--bptt={_BPTT.value}"),
            ]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            peaks.append(json.loads(done.stdout.splitlines()[-1]))
        row = "".join(f"{peak:12.0f}" for peak in peaks)
        print(f"{name:16}{row}{peaks[-1] / peaks[0]:8.2f}", flush=True)


if __name__ == "__main__":
    app.run(main)
