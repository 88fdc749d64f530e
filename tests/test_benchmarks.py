"""The benchmarks run, at sizes that tell nothing of speed."""

import importlib.util
import json
import re
import subprocess
import sys

import pytest

from tests.cli_helpers import ROOT, environment, t2aux

PEERS = {"ONNX Runtime": ("onnx", "onnxruntime"), "torch": ("torch",)}
SERVERS = ["SavedModel", "t2aux serve, gRPC"]
# In a process of its own: every benchmark has flags of the same names.
MEASURE = """
import json, sys
from benchmarks import inference
from benchmarks.common import Size
print(json.dumps(inference.measure(Size(int(sys.argv[1]), 16), 1)))
"""


def installed_peers():
    return [
        name for name, needs in PEERS.items() if all(importlib.util.find_spec(n) for n in needs)
    ]


def check(batch, names):
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(batch)],
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    measured = json.loads(done.stdout.splitlines()[-1])
    assert list(measured) == names + SERVERS + installed_peers()
    for name, numbers in measured.items():
        exact = "float32" in name or not name.startswith("TFLite")
        assert numbers["difference"] < (1e-5 if exact else 0.1)
        assert numbers["seconds"] > 0
        assert (numbers["bytes"] > 0) == (name.startswith(("TFLite", "ONNX")))


@pytest.mark.long
def test_a_single_sequence_goes_through_every_form_and_the_server():
    names = [
        "TFLite float32",
        "TFLite float32, fused and stateful",
        "TFLite float16",
        "TFLite dynamic_int8",
        "TFLite dynamic_int8_int4_head",
        "TFLite int8, fused and stateful",
    ]
    check(1, names)


@pytest.mark.long
def test_a_batch_goes_through_the_servers_forms():
    check(3, [])


def printed(name, *flags):
    """What a benchmark prints."""
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}", *flags],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.long
def test_a_step_against_the_length_is_measured_of_every_network():
    sizes = ["--batch=1", "--hidden=8", "--repeat=1", "--lengths=608,640", "--keras_lengths=608"]
    sizes.append("--transformer_lengths=640")
    output = printed("train_step", "--figure3", "--json", *sizes)
    ours = {"LSTM", "r-LSTM 1x600", "r-LSTM 20x30", "p-LSTM 1x600", "LSTM, full BPTT"}
    measured = json.loads(output.splitlines()[-1])
    assert {length: set(of) - ours for length, of in measured.items()} == {
        "608": {"Keras Dense(128) + LSTM, full BPTT"},
        "640": {"Transformer"},
    }
    assert all(seconds > 0 for of in measured.values() for seconds in of.values())


@pytest.mark.long
@pytest.mark.parametrize("models", [False, True])
def test_a_step_is_timed_like_for_like(models):
    sizes = ["--batch=2", "--hidden=3", "--length=601", "--repeat=1", "--peers=keras", "--best"]
    kind = "--models" if models else "--nomodels"
    output = printed("train_step", "--json", "--device=cpu", kind, *sizes)
    measured = json.loads(output.splitlines()[-1])
    assert measured["device"] == "cpu"
    seconds = measured["all_seconds"]
    assert measured["ratio_keras"] == seconds["keras"] / seconds["ours"]
    assert measured["ratio_torch"] is None
    more = {"ours, Dense(128) + LSTM", "keras, Dense(128) + LSTM", "r-LSTM 1x600, truncated 300"}
    more.add("r-LSTM 1x600, truncated 300, rows 1/4")
    assert more & set(seconds) == (more if models else set())


@pytest.mark.long
def test_the_drop_in_layer_is_timed_beside_keras_s():
    sizes = ["--batches=2", "--length=5", "--units=3", "--repeat=1"]
    output = printed("drop_in", "--json", *sizes)
    (seconds,) = json.loads(output.splitlines()[-1]).values()
    assert set(seconds) == {"keras train", "keras predict", "t2aux train", "t2aux predict"}
    assert all(value > 0 for value in seconds.values())


@pytest.mark.long
def test_memory_and_several_workers_are_measured_of_every_loss():
    sizes = ("--batch=2", "--hidden=4", "--lengths=610,640")
    output = printed("memory", *sizes)
    for name in ("LSTM", "r-LSTM 1x600", "r-LSTM 20x30", "p-LSTM 1x600"):
        assert re.search(rf"^{name} +\d+ +\d+ +[\d.]+$", output, re.MULTILINE), output
    sizes = ("--batch=4", "--hidden=4", "--side=8", "--segment=10", "--bptt=10", "--steps=4")
    output = printed("distributed", *sizes, "--turn=2")
    for name in ("r-LSTM", "p-LSTM"):
        assert re.search(rf"^{name} +[\d.]+ s +[\d.]+ s +[\d.]+ +\S+$", output, re.MULTILINE), (
            output
        )


@pytest.mark.long
def test_predictions_are_measured_beside_the_bare_model(tmp_path):
    sizes = ["--rows=600", "--round_rows=300", "--rounds=1", "--length=20", "--hidden=8"]
    printed("predict", *sizes, f"--output={tmp_path / 'predict.json'}")
    forms = json.loads((tmp_path / "predict.json").read_text())["forms"]
    assert list(forms) == ["keras", "saved_model", "litert"]
    for form, measured in forms.items():
        assert measured["rows"] == 600
        assert measured["share_of_bare"] > 0
        assert (measured["bare_batch_size"] == 1) == (form == "litert")


@pytest.mark.long
def test_gradients_of_a_run_are_compared(tmp_path):
    settings = ["PRETRAIN_EPOCHS = 0", "JOINT_EPOCHS = 1", "Classifier.hidden_size = 8"]
    t2aux(
        "train",
        "--gin_file=quickstart",
        f"--model_dir={tmp_path / 'run'}",
        *(f"--gin_param={setting}" for setting in settings),
    )
    run, output = tmp_path / "run", tmp_path / "norms.json"
    printed("gradient_norms", f"--model_dir={run}", "--batches=2", f"--output={output}")
    found = json.loads(output.read_text())
    assert found["batches"] == 2
    assert found["equal_weight"] == pytest.approx(found["supervised"] / found["auxiliary"])
    assert -1 <= found["cosine"] <= 1
