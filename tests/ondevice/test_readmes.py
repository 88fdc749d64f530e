"""The commands of the device clients' READMEs and of deploying's, as written."""

import json
import os
import shlex
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from t2aux_ondevice import litert
from tests import readme_commands, small_exports
from tests.cli_helpers import ROOT, environment
from tests.test_readme import plain

PYTHON = [
    "t2aux-ondevice classifier.tflite digit.png",
    "t2aux-ondevice classifier.tflite --stream --segment=28 sequences.npz",
    "t2aux-ondevice classifier_dynamic_int8.tflite --text='A village in the north.' --json",
]
CPP = [
    "build/classify classifier.tflite < sequence.txt",
    "build/classify classifier_stream.tflite --every --segment=28 --input=raw sequence.f32",
]
# What other tests run, and which.
ELSEWHERE = {
    "export/ondevice/python": {
        "pip install export/ondevice/python": "tests/ondevice/test_distribution.py"
    },
    "export/ondevice/cpp": dict.fromkeys(
        (
            *("pip install ai-edge-litert", "make", "make MAIN=program.cc"),
            *("make INCLUDE=FOLDER", "make CXX=COMPILER LITERT=FOLDER/libLiteRt.so"),
            "pip download --no-deps --only-binary=:all: --platform=manylinux_2_27_aarch64 "
            "ai-edge-litert",
        ),
        "tests/ondevice/test_cpp_example.py",
    ),
    "export/deploy": {
        **dict.fromkeys(
            (
                'EXPORT_DIR="$PWD/exports/digits" docker compose -f export/deploy/compose.yaml up '
                "--wait",
                "curl localhost:8501/v1/models/classifier",
                "curl localhost:8501/monitoring/prometheus/metrics",
                "kubectl apply -k export/deploy",
                "kubectl rollout status deployment/classifier",
                "kubectl port-forward service/classifier 8500 &",
                "--enable_batching=false",
                "t2aux serve --model_config_file=models.config "
                "--batching_parameters_file=export/deploy/batching.config "
                "--monitoring_config_file=export/deploy/monitoring.config",
            ),
            "tests/export/test_deploy.py",
        ),
        **dict.fromkeys(
            (
                "docker build -t t2aux:0.1.0 . && docker push ...",
                "kubectl apply -f export/deploy/training.yaml",
                "kubectl logs -f job/t2aux-training",
            ),
            "tests/export/test_deploy_training.py",
        ),
        **dict.fromkeys(
            (
                "t2aux serve --model_base_path=exports/digits --host=0.0.0.0 "
                "--ssl_config_file=ssl.config",
                "t2aux client --server=grpcs://HOST:8500 --ca_file=ca.crt --cert_file=me.crt "
                "--key_file=me.key --model=digits digit.png",
            ),
            "tests/serving/test_serving_tls.py",
        ),
        "curl localhost:8501/v1/models/classifier:predict -d @-": (
            "tests/serving/test_serving_images.py"
        ),
        **dict.fromkeys(
            (
                "t2aux export --model_dir=runs/quick --export_dir=exports/digits",
                "t2aux client --server=grpc://localhost:8500 --model=classifier digit.png",
            ),
            "tests/test_readme.py",
        ),
    },
}


@pytest.mark.parametrize("folder", ELSEWHERE)
def test_every_command_is_known(folder):
    shown = readme_commands.of((ROOT / folder / "README.md").read_text(encoding="utf-8"))
    shown = {plain(command) for command in shown}
    names = {name for name in shown if name.startswith("t2aux ") and name.count(" ") == 1}
    names.add("t2aux export --serving_batch_sizes")
    here = {"export/ondevice/python": PYTHON, "export/ondevice/cpp": CPP}.get(folder, [])
    assert shown - names == {*here, *ELSEWHERE[folder]}
    for place in ELSEWHERE[folder].values():
        assert (ROOT / place).is_file()


def run(place, command):
    """Runs a command in a shell, where t2aux-ondevice is this checkout's."""
    shim = place / "bin" / "t2aux-ondevice"
    shim.parent.mkdir(exist_ok=True)
    shim.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m t2aux_ondevice "$@"\n')
    shim.chmod(0o755)
    done = subprocess.run(
        ["sh", "-c", command],
        cwd=place,
        env=environment(
            PATH=f"{shim.parent}:{os.environ['PATH']}",
            PYTHONPATH=str(ROOT / "export/ondevice/python"),
        ),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, ""), command
    return done.stdout


def test_the_python_clients_commands(tmp_path):
    small_exports.write(tmp_path / "images", small_exports.IMAGES)
    small_exports.write(tmp_path / "text", small_exports.TEXT)
    pixels = np.random.default_rng(0).integers(0, 256, (28, 28), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "images" / "digit.png")
    np.savez(tmp_path / "images" / "sequences.npz", inputs=np.zeros([2, 16, 1]))
    image, stream, text = PYTHON
    assert run(tmp_path / "images", image).startswith("digit.png: ")
    assert run(tmp_path / "images", stream).count("16 steps") == 2
    # A network of this size has no variant of 8 bits.
    text = text.replace("classifier_dynamic_int8.tflite", litert.WHOLE)
    answer = json.loads(run(tmp_path / "text", text))
    assert answer["input"] == "A village in the north."


def test_the_cpp_examples_commands(classify, tmp_path):
    place = tmp_path / "export"
    small_exports.write(place, small_exports.IMAGES)
    (place / "build").mkdir()
    shutil.copy(classify, place / "build" / "classify")
    sequence = np.random.default_rng(0).random(16).astype("<f4")
    (place / "sequence.txt").write_text("\n".join(map(str, sequence)))
    (place / "sequence.f32").write_bytes(sequence.tobytes())
    whole, stream = (run(place, command).split() for command in CPP)
    assert whole[0] == stream[0] == "16"
    np.testing.assert_allclose(np.float64(whole[1:]), np.float64(stream[1:]), atol=1e-6)
