"""Compares our time per batch with Keras's and torch's LSTM and with bare matrix products.

All three train the same network with full BPTT: an LSTM directly on the values [B, T, C] with the
paper's head. The paper's network has a Dense(128) before the LSTM, which our kernel folds into the
LSTM's own weights; Keras's LSTM is also timed with such a layer, and labelled accordingly. The
repetitions are interleaved, so that noise on the machine affects all equally; medians are shown or,
with --best, minima. torch is an extra (`pip install -e '.[benchmarks]'`); without it, its columns
are empty. On a GPU, Keras's and torch's LSTMs are cuDNN's, timing ends when the device has
finished, and all multiply in full float32, as `train` does by default, or in TensorFloat-32 with
--tf32.

  python -m benchmarks.train_step --batch=128 --hidden=128 --length=784 [--json]
  python -m benchmarks.train_step --precision=bfloat16 [--json]
  python -m benchmarks.train_step --grid [--json]
  python -m benchmarks.train_step --figure3 --plot=figure3.png [--json]
"""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys

from absl import app, flags

from t2aux import text_tables

_BATCH = flags.DEFINE_integer("batch", 128, "Sequences per batch.", lower_bound=1)
_HIDDEN = flags.DEFINE_integer("hidden", 128, "LSTM cells.", lower_bound=1)
_LENGTH = flags.DEFINE_integer("length", 784, "Steps per sequence.", lower_bound=1)
_CHANNELS = flags.DEFINE_integer("channels", 1, "Values per step.", lower_bound=1)
_REPEAT = flags.DEFINE_integer("repeat", 7, "Repetitions.", lower_bound=1)
_BEST = flags.DEFINE_bool(
    "best",
    False,
    "Show the minimum instead of the median of the repetitions, for a busy machine.",
)
_MODELS = flags.DEFINE_bool(
    "models", True, "Also time a Dense(128) before the LSTM, r-LSTM and p-LSTM."
)
_PEERS = flags.DEFINE_list("peers", ["keras", "torch"], "Peers: keras, torch; both need memory.")
_PRECISION = flags.DEFINE_enum(
    "precision",
    "float32",
    ["float32", "bfloat16"],
    "bfloat16: our steps with it, beside float32's.",
)
_JSON = flags.DEFINE_bool("json", False, "Print one JSON object as the last line.")
_DEVICE = flags.DEFINE_enum("device", None, ["cpu", "gpu"], "By default a GPU if there is one.")
_TF32 = flags.DEFINE_bool(
    "tf32", False, "On a GPU: let all, including peers, use TensorFloat-32 (`train.tf32`)."
)
_GRID = flags.DEFINE_bool(
    "grid", False, "All combinations of batch 1, 16, 128, hidden 128, 256, 512, length 784, 4096."
)
_FIGURE3 = flags.DEFINE_bool(
    "figure3", False, "Seconds per batch by length, as in the paper's Figure 3."
)
_LENGTHS = flags.DEFINE_list(
    "lengths",
    ["1600", "2304", "3136", "5184", "6400", "9216", "12544", "16384"],
    "The lengths of --figure3.",
)
_KERAS_LENGTHS = flags.DEFINE_list(
    "keras_lengths", ["1600", "12544"], "The lengths at which --figure3 times Keras's LSTM."
)
_TRANSFORMER_LENGTHS = flags.DEFINE_list(
    "transformer_lengths",
    [],
    "The lengths at which --figure3 times the Transformer, whose time is quadratic in the length.",
)
_PLOT = flags.DEFINE_string("plot", None, "A PNG file for the plot of --figure3.")

_TRUNCATED = "truncated 300"
_DENSE = "Dense(128) + LSTM"
_KERAS_FULL = f"Keras {_DENSE}, full BPTT"
_OTHERS = ("keras", "torch", "torch bfloat16")


def _ratio(seconds: dict[str, float], peer: str, own: str) -> float | None:
    return seconds[peer] / seconds[own] if peer in seconds else None


def _measure(batch: int, hidden: int, length: int, models: bool) -> dict:
    """Measures one size. Returns the fields that --json prints."""
    from benchmarks import common

    common.use_device(_DEVICE.value, tensor_float_32=_TF32.value)
    size = common.Size(batch, length, hidden, _CHANNELS.value)
    data = common.random_batch(size)
    floor, floor_forward = common.floor(size)
    steps = {
        "ours": common.ours("LSTM", size, "full", projection_size=None),
        "floor": floor,
        "ours forward": common.ours_forward(size, projection_size=None),
        "floor forward": floor_forward,
    }
    if "keras" in _PEERS.value:
        steps["keras"], steps["keras forward"] = common.keras_steps(size)
    if "torch" in _PEERS.value:
        for name, bfloat16 in (("torch", False), ("torch bfloat16", True)):
            made = common.torch_steps(size, data, bfloat16=bfloat16)
            if made is not None:
                steps[name], steps[f"{name} forward"] = made
    if models:
        steps[f"ours, {_DENSE}"] = common.ours("LSTM", size, "full")
        if "keras" in _PEERS.value:
            steps[f"keras, {_DENSE}"] = common.keras_steps(size, 128).training
        steps[f"LSTM, {_TRUNCATED}"] = common.ours("LSTM", size, 300)
    # The auxiliary losses' segments have 600 steps.
    for name in common.LOSSES if models and length > 600 else ():
        if name != "LSTM":
            steps[f"{name}, {_TRUNCATED}"] = common.ours(name, size, 300)
            quarter = common.ours(name, size, 300, rows=0.25)
            steps[f"{name}, {_TRUNCATED}, rows 1/4"] = quarter
    if (precision := _PRECISION.value) != "float32":
        steps[f"ours, {precision}"] = common.ours(
            "LSTM", size, "full", projection_size=None, precision=precision
        )
        for name in common.LOSSES:
            if f"{name}, {_TRUNCATED}" in steps:
                steps[f"{name}, {_TRUNCATED}, {precision}"] = common.ours(
                    name, size, 300, precision=precision
                )
            if f"{name}, {_TRUNCATED}, rows 1/4" in steps:
                steps[f"{name}, {_TRUNCATED}, rows 1/4, {precision}"] = common.ours(
                    name, size, 300, rows=0.25, precision=precision
                )
    seconds = common.seconds_of(steps, data, _REPEAT.value, best=_BEST.value)
    return {
        "batch": batch,
        "hidden": hidden,
        "length": length,
        "device": "gpu" if common.on_gpu() else "cpu",
        "tf32": _TF32.value,
        "seconds": seconds["ours"],
        "ratio_keras": _ratio(seconds, "keras", "ours"),
        "ratio_torch": _ratio(seconds, "torch", "ours"),
        "ratio_torch_bfloat16": _ratio(seconds, "torch bfloat16", "ours"),
        "fraction_of_floor": seconds["floor"] / seconds["ours"],
        "forward": {
            "seconds": seconds["ours forward"],
            "ratio_keras": _ratio(seconds, "keras forward", "ours forward"),
            "ratio_torch": _ratio(seconds, "torch forward", "ours forward"),
            "fraction_of_floor": seconds["floor forward"] / seconds["ours forward"],
        },
        "all_seconds": seconds,
    }


def _show(result: dict) -> None:
    print(f"\nB {result['batch']}, T {result['length']}, H {result['hidden']}")
    seconds = result["all_seconds"]
    print("Like for like: ours, keras and torch are an LSTM straight on [B, T, C], full BPTT.")
    rows = []
    for name, value in seconds.items():
        peer = " forward" if name.endswith(" forward") else ""
        peers = [seconds.get(other + peer) for other in _OTHERS]
        ratios = ("-" if ratio is None else f"{ratio / value:.2f}" for ratio in peers)
        rows.append([name, f"{value:.4f}", *ratios])
    header = ["", "seconds a batch", *(f"{other} / this" for other in _OTHERS)]
    print(text_tables.table(rows, header))
    print(
        f"of the floor's speed: {result['fraction_of_floor']:.0%} training, "
        f"{result['forward']['fraction_of_floor']:.0%} forward",
        flush=True,
    )


def _grid() -> list[dict]:
    print(
        f"{'B':>4}{'H':>5}{'T':>6}{'training':>11}{'/Keras':>8}{'/torch':>8}{'floor':>7}"
        f"{'forward':>11}{'/Keras':>8}{'/torch':>8}{'floor':>7}"
    )
    results = []
    for length in (784, 4096):
        for hidden in (128, 256, 512):
            for batch in (1, 16, 128):
                # In a separate process: the largest would not fit beside the memory of others.
                command = [
                    *(sys.executable, "-m", "benchmarks.train_step", "--json", "--nomodels"),
                    *(f"--batch={batch}", f"--hidden={hidden}", f"--length={length}"),
                    *(f"--channels={_CHANNELS.value}", f"--repeat={_REPEAT.value}"),
                    f"--peers={','.join(_PEERS.value)}",
                ]
                if _BEST.value:
                    command.append("--best")
                if _TF32.value:
                    command.append("--tf32")
                if _DEVICE.value:
                    command.append(f"--device={_DEVICE.value}")
                done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
                if done.returncode != 0:
                    # A peer that does not fit into memory crashes the process.
                    print(
                        f"{batch:4}{hidden:5}{length:6}  failed with status {done.returncode}; "
                        "try fewer --peers",
                        flush=True,
                    )
                    continue
                result = json.loads(done.stdout.splitlines()[-1])
                results.append(result)
                line = f"{batch:4}{hidden:5}{length:6}"
                for part in (result, result["forward"]):
                    line += f"{part['seconds']:10.4f}s"
                    for key in ("ratio_keras", "ratio_torch"):
                        line += f"{'-':>8}" if part[key] is None else f"{part[key]:8.2f}"
                    line += f"{part['fraction_of_floor']:7.0%}"
                print(line, flush=True)
    return results


def _figure3() -> dict:
    from benchmarks import common

    common.use_device(_DEVICE.value, tensor_float_32=_TF32.value)
    columns = [*common.LOSSES, "LSTM, full BPTT", _KERAS_FULL, "Transformer"]
    print(f"seconds a batch of {_BATCH.value}, truncated 300 but for full BPTT")
    print(f"{'T':>6}" + "".join(f"{name:>36}" for name in columns))
    rows = {}
    for length in map(int, _LENGTHS.value):
        size = common.Size(_BATCH.value, length, _HIDDEN.value, channels=3, classes=120)
        data = common.random_batch(size)
        steps = {name: common.ours(name, size, 300) for name in common.LOSSES}
        steps["LSTM, full BPTT"] = common.ours("LSTM", size, "full")
        if str(length) in _KERAS_LENGTHS.value:
            steps[_KERAS_FULL] = common.keras_steps(size, 128).training
        if str(length) in _TRANSFORMER_LENGTHS.value:
            steps["Transformer"] = common.ours("Transformer", size, "full")
        seconds = common.seconds_of(steps, data, _REPEAT.value, best=_BEST.value)
        rows[length] = seconds
        line = "".join(
            f"{seconds[name]:36.3f}" if name in seconds else f"{'-':>36}" for name in columns
        )
        print(f"{length:6}{line}", flush=True)
    if _PLOT.value:
        _draw(rows, columns, pathlib.Path(_PLOT.value))
    return rows


def _draw(rows: dict[int, dict[str, float]], columns: list[str], path: pathlib.Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.5), layout="constrained")
    everything, ours = figure.subplots(1, 2)
    for axes in (everything, ours):
        for name in columns:
            points = [
                (length, seconds[name]) for length, seconds in rows.items() if name in seconds
            ]
            if points and (axes is everything or not name.startswith(("Keras", "Transformer"))):
                axes.plot(*zip(*points, strict=True), marker="o", label=name)
        axes.set(xlabel="steps a sequence", ylabel=f"seconds a batch of {_BATCH.value}")
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path, dpi=120)


def main(argv: list[str]) -> None:
    """Measures and prints the results."""
    if len(argv) > 1:
        raise app.UsageError(f"Unknown argument {argv[1]!r}.")
    if _GRID.value:
        result = _grid()
    elif _FIGURE3.value:
        result = _figure3()
    else:
        result = _measure(_BATCH.value, _HIDDEN.value, _LENGTH.value, _MODELS.value)
        _show(result)
    if _JSON.value:
        print(json.dumps(result))


if __name__ == "__main__":
    app.run(main)
