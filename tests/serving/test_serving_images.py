"""Image files over the protocols, in TensorFlow Serving's base64 form."""

import base64
import concurrent.futures
import io
import json
import re
import shutil
import subprocess

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from tensorflow_serving.apis import predict_pb2

from t2aux.export.runtimes import CheckpointClassifier
from t2aux_ondevice.images import read_image
from tests.cli_helpers import ROOT
from tests.serving.conftest import INFOS

RNG = np.random.default_rng(0)


def picture(height, width, kind):
    file = io.BytesIO()
    Image.fromarray(RNG.integers(0, 256, (height, width, 3), np.uint8)).save(file, kind)
    return file.getvalue()


FILES = [picture(4, 4, "PNG"), picture(31, 17, "JPEG"), picture(9, 40, "PNG")]


def b64(content):
    return {"b64": base64.b64encode(content).decode()}


@pytest.fixture(scope="module")
def wanted(classifiers):
    """The client's answers."""
    classifier = CheckpointClassifier(classifiers.images)
    sequences = [INFOS["images"].image_sequence(read_image(io.BytesIO(f))) for f in FILES]
    return np.array([classifier.probabilities(sequence) for sequence in sequences])


def post(server, **body):
    return server.post("images:predict", {"signature_name": "serving_image", **body})


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
def test_the_command_of_the_readme_on_deploying(server, wanted, tmp_path):
    readme = (ROOT / "export" / "deploy" / "README.md").read_text(encoding="utf-8")
    (command,) = re.findall(r"^```\n(\(printf .*?)^```$", readme, re.MULTILINE | re.DOTALL)
    shown = "localhost:8501/v1/models/classifier"
    assert shown in command
    command = command.replace(shown, f"{server.url}/v1/models/images")
    (tmp_path / "digit.png").write_bytes(FILES[0])
    done = subprocess.run(
        ["sh", "-c", command], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True
    )
    assert "predictions" in done.stdout, done.stdout
    (answer,) = json.loads(done.stdout)["predictions"]
    np.testing.assert_allclose(answer["probabilities"], wanted[0], rtol=0, atol=1e-5)


def test_rest(server, wanted):
    status, answer = post(server, instances=[b64(f) for f in FILES])
    assert status == 200, answer
    found = [row["probabilities"] for row in answer["predictions"]]
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    assert answer["predictions"][0]["names"][0] in INFOS["images"].classes
    named = [{"image_bytes": b64(f)} for f in FILES]
    assert post(server, instances=named) == (status, answer)
    for inputs in ([b64(f) for f in FILES], {"image_bytes": [b64(f) for f in FILES]}):
        status, answer = post(server, inputs=inputs)
        assert status == 200, answer
        np.testing.assert_allclose(answer["outputs"]["probabilities"], wanted, atol=1e-5)


def test_grpc(server, wanted):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "images"
    request.model_spec.signature_name = "serving_image"
    request.inputs["image_bytes"].CopyFrom(tf.make_tensor_proto(FILES))
    answer = server.predictions.Predict(request, timeout=120)
    found = tf.make_ndarray(answer.outputs["probabilities"])
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_a_bad_file_is_refused_and_harms_no_other_request(server, wanted):
    bad = [b"hello", FILES[0][:40], FILES[1][:300], b""]

    def ask(content):
        return post(server, instances=[b64(content)])

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, [*bad, *FILES] * 3))
    for index, (status, answer) in enumerate(answers):
        place = index % (len(bad) + len(FILES)) - len(bad)
        if place < 0:
            assert status == 400
            assert answer["error"]
        else:
            assert status == 200, answer
            found = answer["predictions"][0]["probabilities"]
            np.testing.assert_allclose(found, wanted[place], atol=1e-5)
    assert "PNG or JPEG" in answers[0][1]["error"]
