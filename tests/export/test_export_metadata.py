"""What an export says of itself is true."""

import base64
import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest

import t2aux
from t2aux.export.model import Model
from t2aux_ondevice import litert
from t2aux_ondevice.preprocessing import DatasetInfo
from tests.cli_helpers import environment
from tests.export.conftest import load, make_run


@pytest.fixture
def metadata(exported):
    return litert.read_metadata(exported.directory)


@pytest.mark.parametrize(
    ("losses", "named"),
    [
        ("[@Reconstruction, @Prediction]", "the auxiliary losses reconstruction, prediction"),
        ("[@Prediction]", "the auxiliary loss prediction"),
        ("[]", "no auxiliary loss"),
    ],
)
def test_a_run_s_auxiliary_losses(losses, named, tmp_path):
    model_dir = make_run("characters", tmp_path / "data", f"train.auxiliary_losses = {losses}")
    assert named in Model.of_run(load(model_dir)).trained


def test_data_and_model(exported, metadata):
    assert metadata["name"] == "export"  # Its folder's.
    assert metadata["kind"] == exported.info.kind
    assert metadata["classes"] == list(exported.info.classes)
    assert DatasetInfo.from_json(metadata["preprocessing"]) == exported.info
    assert metadata["model"]["hidden_size"] == 8
    assert metadata["model"]["core"] == "LSTM"
    assert metadata["state"] == {"h": [8], "c": [8]}
    assert metadata["model"]["weights"] == sum(
        np.prod(v.shape) for v in exported.run.classifier.weights
    )
    assert metadata["checkpoint"] == {"run": "run", "name": "ckpt-3", "step": 3}
    assert metadata["configuration"] == exported.run.config
    assert metadata["packages"]["t2aux"] == t2aux.__version__
    assert {"python", "tensorflow", "keras", "ai-edge-litert"} <= set(metadata["packages"])


def test_every_file_of_the_artefacts_is_described(exported, metadata):
    own = {"metadata.json", "parity.json", "README.md"}
    found = {
        p.relative_to(exported.directory).as_posix()
        for p in exported.directory.rglob("*")
        if p.is_file()
    }
    assert set(metadata["files"]) == found - own
    assert own <= found
    for name, entry in metadata["files"].items():
        assert litert.digest((exported.directory / name).read_bytes()) == entry


def test_tensors(exported, metadata):
    steps, is_text = exported.info.length, exported.info.is_text
    dtype, channels = ("int32", []) if is_text else ("float32", [exported.info.channels])
    answer = {"shape": [1, exported.info.num_classes], "dtype": "float32"}
    state = {"shape": [1, 8], "dtype": "float32"}
    assert metadata["artefacts"][litert.WHOLE]["signatures"] == {
        "serving_default": {
            "inputs": {"inputs": {"shape": [1, steps, *channels], "dtype": dtype}},
            "outputs": {"probabilities": answer},
        }
    }
    assert metadata["artefacts"][litert.STREAM]["signatures"] == {
        "serving_default": {
            "inputs": {
                "segment": {"shape": [1, None, *channels], "dtype": dtype},
                "h": state,
                "c": state,
            },
            "outputs": {"probabilities": answer, "h": state, "c": state},
        }
    }
    served = metadata["artefacts"]["SavedModel"]["signatures"]["serving_default"]
    assert served["inputs"]["inputs"] == {"shape": [None, None, *channels], "dtype": dtype}
    assert served["outputs"]["names"]["dtype"] == "string"


def test_the_card_s_program_runs(exported):
    card = (exported.directory / "README.md").read_text()
    code = "".join(re.findall(r"```python\n(.*?)```", card, re.DOTALL))
    assert "step(segment=" in code
    code += (
        "whole = classify(inputs=inputs)['probabilities'][0]\n"
        "assert np.allclose(probabilities, whole, atol=1e-6)\n"
        "import sys; assert 'tensorflow' not in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=exported.directory,
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.rsplit(maxsplit=1)[0] in exported.info.classes
    assert "$" not in re.sub(r"\$\((id|cd)|\"\$PWD", "", card)
    assert ("serving_text" in card) == exported.info.is_text
    assert ("serving_image" in card) == (exported.info.kind == "image")


def test_the_card_names_model_and_data(exported):
    card = (exported.directory / "README.md").read_text()
    assert card.startswith("# export\n")
    folder = exported.run.model_dir.parent
    name = exported.info.name
    data = name if name == "digits" else f"{folder.name} ({name})"
    assert f"| data | {data} |" in card
    assert f"test examples of {data}" in card
    assert str(folder) not in card
    assert "/models/export:predict" in card


@pytest.mark.parametrize("kind", ["rgb", "vectors", "characters"])
def test_the_card_s_request_is_one(exports, kind, tmp_path):
    exported = exports(kind)
    card = (exported.directory / "README.md").read_text()
    command = re.search(r"^    docker .*\n.*\n((?:    .*\n)+)", card, re.MULTILINE)[1]
    # Instead of a server: shows what it would get.
    (tmp_path / "curl").write_text(
        '#!/bin/sh\nfor a; do test "$a" = @- && exec cat; done; for a; do :; done; echo "$a"\n'
    )
    (tmp_path / "curl").chmod(0o755)
    (tmp_path / "IMAGE.png").write_bytes(b"an image")
    path = os.pathsep.join([str(tmp_path), os.environ["PATH"]])
    done = subprocess.run(
        ["sh", "-c", command],
        cwd=tmp_path,
        env=environment(PATH=path),
        capture_output=True,
        text=True,
        check=True,
    )
    request = json.loads(done.stdout)
    signature = request.get("signature_name", "serving_default")
    (inputs,) = (request[name] for name in ("inputs", "instances") if name in request)
    if kind == "rgb":
        assert signature == "serving_image"
        assert base64.b64decode(inputs[0]["b64"]) == b"an image"
        return
    known = litert.read_metadata(exported.directory)["artefacts"]["SavedModel"]["signatures"]
    assert set(inputs) == set(known[signature]["inputs"])
    if kind == "vectors":
        assert np.shape(inputs["inputs"]) == (1, inputs["lengths"][0], 2)
