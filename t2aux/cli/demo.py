"""Trains, exports and classifies real digits, in a few minutes and without internet.

Trains an r-LSTM, and a plain LSTM with the same truncation and number of updates; evaluates both;
exports the r-LSTM; and classifies a real image with the exported TensorFlow Lite file in LiteRT.
Each step is one of the other commands and is shown before it runs. After Ctrl-C, the same command
resumes.

Example:
  t2aux demo --output_dir=runs/demo
"""

from __future__ import annotations

import json
import pathlib
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence

from absl import flags

from t2aux import exit_status, files, text_tables
from t2aux.cli import common
from t2aux.errors import ModelError
from t2aux.export import staging
from t2aux.reproduce import dependent
from t2aux.training import stopping

_OUTPUT_DIR = common.define_path("output_dir", "runs/demo", "Folder for all outputs.")
_GIN_PARAM = flags.DEFINE_multi_string(
    "gin_param", [], "One setting, NAME = VALUE, for both trainings. Repeatable."
)

# The test image that is classified at the end.
_EXAMPLE = 1


def main(argv: Sequence[str]) -> int:
    """Runs the command. Returns the exit status."""
    common.no_arguments(argv)
    try:
        return _main()
    except stopping.Stopped as stopped:
        print(f"Stopped by {stopped}; the same command continues.", file=sys.stderr)
        return exit_status.of_signal(stopped.signal)


def _main() -> int:
    began = time.monotonic()
    root = files.ensure_directory(_OUTPUT_DIR.value)
    r_lstm, lstm = root / "r_lstm", root / "lstm"
    settings = [f"--gin_param={setting}" for setting in _GIN_PARAM.value]
    _run("train", f"--model_dir={r_lstm}", "--gin_file=quickstart", *settings)
    _run("train", f"--model_dir={lstm}", "--gin_file=quickstart_lstm", *settings)
    for model_dir in (r_lstm, lstm):
        _run("evaluate", f"--model_dir={model_dir}")
    made = staging.versions(root / "export")
    version = root / "export" / str(max(made, default=0) + 1)
    _run("export", f"--model_dir={r_lstm}", f"--export_dir={root / 'export'}")
    image, label = _save_example(root)
    tflite = version / "classifier.tflite"
    _run("classify", f"--model={tflite}", image)
    print(f"(The data set says {label}.)\n")
    _summary(root, version, image, time.monotonic() - began)
    return 0


def _run(*arguments: str | pathlib.Path) -> None:
    """Runs a command and forwards signals to it.

    Raises:
        UserError: The command failed.
        Stopped: A signal was received.
    """
    words = [str(a) for a in arguments]
    print(f"\n$ t2aux {shlex.join(words)}", flush=True)
    signals: list[int] = []
    started: list[subprocess.Popen[bytes]] = []

    def stop(number: int, *_: object) -> None:
        signals.append(number)
        for process in started:
            process.send_signal(number)

    with stopping.handled(stop):
        # In a separate session, a terminal's Ctrl-C reaches the command only through this process,
        # which waits until the command has saved its state.
        process = subprocess.Popen(dependent.command(*words), start_new_session=True)
        started.append(process)
        if signals:
            process.send_signal(signals[0])
        status = process.wait()
    if signals:
        raise stopping.Stopped(signals[0])
    if status:
        raise ModelError(f"t2aux {words[0]} ended with status {status}: its message is above.")


def _save_example(root: pathlib.Path) -> tuple[pathlib.Path, str]:
    """Writes a test image as a PNG file. Returns its path and its class."""
    import numpy as np
    from PIL import Image

    from t2aux.data import digits

    pixels, label = digits.test_image(_EXAMPLE)
    path = root / "digit.png"
    with files.atomic_write(path, "wb") as file:
        Image.fromarray(np.asarray(pixels, np.uint8)).save(file, format="PNG")
    return path, label


def _summary(
    root: pathlib.Path, version: pathlib.Path, image: pathlib.Path, seconds: float
) -> None:
    r_lstm, lstm = root / "r_lstm", root / "lstm"

    def accuracy(model_dir: pathlib.Path) -> float:
        report = files.read_json(model_dir / "evaluation" / "test" / "evaluation.json")
        return 100 * report["accuracy"]

    parity = files.read_json(version / "parity.json")
    artefacts = parity["artefacts"]
    updates = json.loads((r_lstm / "metrics.jsonl").read_text().splitlines()[-1])["step"]
    print(f"Test accuracy on real digits after {updates} updates:")
    print(f"  {accuracy(r_lstm):6.2f} %  r-LSTM")
    print(f"  {accuracy(lstm):6.2f} %  plain LSTM, same truncation")
    print(f"  {100 * artefacts['classifier.tflite']['accuracy']:6.2f} %  r-LSTM as a TFLite file")
    print("\nThe files:")
    places = [
        ("runs (checkpoints, metrics, TensorBoard)", f"{r_lstm}, {lstm}"),
        ("confusion matrix", r_lstm / "evaluation" / "test" / "confusion.png"),
        ("SavedModel for TF Serving", version),
        ("TensorFlow Lite, whole sequences", version / "classifier.tflite"),
        ("TensorFlow Lite, streaming", version / "classifier_stream.tflite"),
        ("accuracy of every artefact", version / "parity.json"),
        ("the image", image),
    ]
    print(text_tables.table(places, left=(0, 1), indent="  "))
    print(f"\nTook {seconds / 60:.1f} minutes. Next: tensorboard --logdir={root}")
