"""A GRU from training to answers, by the command line alone."""

import json
import re
import signal

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from t2aux import files
from t2aux_ondevice import litert
from tests.cli_helpers import assert_one_sentence
from tests.fork_server import Server

SETTINGS = [
    "--gin_file=quickstart_lstm",
    "--gin_file=cores/gru",
    "--gin_param=JOINT_EPOCHS = 10",
    "--gin_param=dataset.max_examples = 200",
    # Matrices that are large enough to be quantised.
    *(f"--gin_param=Classifier.{size}_size = 32" for size in ("hidden", "projection", "head")),
]
VARIANTS = ("float32", "float16", "dynamic_int8", "dynamic_int8_int4_head")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Runs `t2aux ARGUMENTS`: returns the process; its stderr is all that it said."""
    logs = tmp_path_factory.mktemp("logs")
    with Server() as server:

        def command(*arguments, status=0, start=False):
            log = logs / str(len(list(logs.iterdir())))
            process = (server.start if start else server.run)(log, *arguments)
            assert start or process.returncode == status, process.stderr
            return process

        yield command


@pytest.mark.long
def test_a_gru_is_trained_exported_and_classified(run, tmp_path):
    model_dir, export_dir = tmp_path / "run", tmp_path / "gru"
    Image.fromarray((load_digits().images[0] * 15.9).astype(np.uint8)).save(tmp_path / "digit.png")
    digit = tmp_path / "digit.png"
    run("train", f"--model_dir={model_dir}", *SETTINGS)

    # All that can be made exists; what can't is named.
    arguments = [f"--model_dir={model_dir}", f"--export_dir={export_dir}", "--parity_examples=30"]
    arguments += [f"--variants={','.join(VARIANTS)},int8", "--quantised_accuracy_tolerance=5"]
    exported = run("export", *arguments, "--serving_batch_sizes=1,4", status=1)
    assert_one_sentence(exported, "error: int8 ", "GRU", "fused LSTM")
    directory = export_dir / "1"
    card = (directory / "README.md").read_text()
    assert "(GRU)" in card
    assert "int8 was not exported" in card
    names = {litert.file_name(f, v) for f in ("whole", "stream") for v in VARIANTS}
    assert {path.name for path in directory.glob("*.tflite")} == names
    parity = files.read_json(directory / "parity.json")
    assert names < set(parity["artefacts"])
    for name, found in parity["artefacts"].items():
        exact = name.startswith("SavedModel") or name in (litert.WHOLE, litert.STREAM)
        assert found["largest_difference"] < (1e-5 if exact else 0.1), name

    # Every form of it gives the run's answer, whole and by segments.
    wanted = _answer(run("classify", f"--model={model_dir}", "--json", digit))
    stream = ["--stream", "--segment=20"]
    for model, *how in (
        (export_dir, *stream),
        (directory / litert.WHOLE,),
        (directory / litert.WHOLE, *stream),
        (directory / litert.STREAM,),
    ):
        found = _answer(run("classify", f"--model={model}", "--json", digit, *how))
        assert found == pytest.approx(wanted, abs=1e-5)

    ports = ["--port=0", "--rest_api_port=0"]
    server = run("serve", f"--model_base_path={export_dir}", *ports, start=True)
    server.wait_until(lambda: "REST at" in server.stderr)
    ports = re.search(r"gRPC at \S*?:(\d+), REST at http://\S*?:(\d+)", server.stderr).groups()
    for scheme, port in zip(("grpc", "http"), ports, strict=True):
        address = f"--server={scheme}://127.0.0.1:{port}"
        found = _answer(run("client", address, "--model=gru", "--json", digit, *stream))
        assert found == pytest.approx(wanted, abs=1e-5)
    server.send_signal(signal.SIGTERM)
    server.wait()


def _answer(process):
    """The probabilities that were shown last, by class."""
    (*_, last) = (line for line in process.stderr.splitlines() if line.startswith("{"))
    return {entry["class"]: entry["probability"] for entry in json.loads(last)["top"]}
