"""Versions come and go while requests run; what is broken does not harm what serves."""

import shutil
import threading
import time

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2

from t2aux.errors import ModelError
from t2aux.serving import json_tensors
from t2aux.serving.models import ModelConfig
from tests import small_exports
from tests.serving.conftest import running

BODY = {"instances": [{"inputs": [[0.5]] * 16, "lengths": 16}]}


@pytest.fixture
def base(tmp_path):
    """A base path with a version 1."""
    small_exports.write_quick(tmp_path / "images" / "1")
    return tmp_path / "images"


@pytest.fixture
def other(tmp_path):
    """A version whose answers differ."""
    small_exports.write_quick(tmp_path / "other", factor=3.0)
    return tmp_path / "other"


def test_folders_with_numbers_in_0_to_9_are_versions(tmp_path):
    names = ("0", "007", "12", "1.5", "-3", "+4", "v5", "6.tmp", ".8", "1e3", "\u0663", "\u00b2")
    for name in (*names, "9" * 19):
        (tmp_path / name).mkdir()
    (tmp_path / "13").write_text("a file")
    folders = ModelConfig("m", tmp_path).folders()
    assert {number: path.name for number, path in folders.items()} == {0: "0", 7: "007", 12: "12"}


def wait_for(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def probabilities(answer):
    status, body = answer
    assert status == 200
    return np.array(body["predictions"][0]["probabilities"])


def states(server, name="images"):
    found = server.get(f"/v1/models/{name}")[1]["model_version_status"]
    return {int(entry["version"]): entry["state"] for entry in found}


def test_a_new_version_takes_over_without_a_lost_request(base_paths, tmp_path):
    """Both versions are exports."""
    base, body = tmp_path / "vectors", {"instances": [{"inputs": [[0.5, 0.5]] * 16, "lengths": 16}]}
    shutil.copytree(base_paths["vectors"][0], base)
    other = tmp_path / "other"
    small_exports.write(other, small_exports.VECTORS, ("saved_model",), poison=0.3)
    config = ModelConfig("vectors", base)
    with running([config], poll_seconds=0.05) as server:
        first = server.post("vectors:predict", body)
        answers, stop = [], threading.Event()

        def ask():
            while not stop.is_set():
                answers.append(server.post("vectors:predict", body))

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        # As an export does: built under a hidden name.
        shutil.copytree(other, base / ".export-x")
        (base / ".export-x").rename(base / "2")
        wait_for(lambda: states(server, "vectors") == {1: "END", 2: "AVAILABLE"})
        seen = len(answers)
        wait_for(lambda: len(answers) > seen + 8)
        stop.set()
        for thread in threads:
            thread.join(60)
        second = server.post("vectors:predict", body)
        assert first[0] == second[0] == 200
        assert first != second
        nearest = [
            min(np.abs(probabilities(a) - probabilities(b)).max() for b in (first, second))
            for a in answers
        ]
        assert max(nearest) < 1e-6
        assert server.post("vectors/versions/1:predict", body)[0] == 404
        assert server.metric("t2aux_serve_loaded_version", version="1") == 0


def test_a_request_that_is_being_read_keeps_its_version(base, other, monkeypatch):
    read = json_tensors.predict_inputs
    with running([ModelConfig("images", base)], poll_seconds=0.05) as server:
        first = server.post("images:predict", BODY)

        def read_slowly(body, signature):
            if not (base / "2").exists():
                shutil.copytree(other, base / ".export-x")
                (base / ".export-x").rename(base / "2")
                wait_for(lambda: states(server) == {1: "UNLOADING", 2: "AVAILABLE"})
            return read(body, signature)

        monkeypatch.setattr(json_tensors, "predict_inputs", read_slowly)
        assert server.post("images:predict", BODY) == first
        wait_for(lambda: states(server) == {1: "END", 2: "AVAILABLE"})
        assert server.post("images:predict", BODY) != first


def test_a_broken_version_is_reported_and_the_old_one_serves_on(base, other):
    with running([ModelConfig("images", base)], poll_seconds=0.05) as server:
        (base / ".x").mkdir()
        (base / ".x" / "saved_model.pb").write_bytes(b"damaged")
        (base / ".x").rename(base / "2")
        wait_for(lambda: states(server) == {1: "AVAILABLE", 2: "END"})
        status = server.get("/v1/models/images/versions/2")[1]["model_version_status"][0]["status"]
        assert status["error_code"] == "FAILED_PRECONDITION"
        assert f"SavedModel in {base / '2'}: " in status["error_message"]
        assert server.post("images:predict", BODY)[0] == 200
        # Repaired, it is served.
        shutil.copytree(other, base / "2", dirs_exist_ok=True)
        wait_for(lambda: states(server) == {1: "END", 2: "AVAILABLE"})


def test_a_base_path_that_vanishes_does_not_stop_the_service(base, monkeypatch):
    folders, polls = ModelConfig.folders, []
    monkeypatch.setattr(ModelConfig, "folders", lambda one: polls.append(one) or folders(one))
    with running([ModelConfig("images", base)], poll_seconds=0.05) as server:
        base.rename(base.with_name("gone"))
        before = len(polls)
        # When the second begins, the first is over.
        wait_for(lambda: len(polls) >= before + 2)
        assert server.post("images:predict", BODY)[0] == 200


def test_all_and_specific_versions(base, other):
    shutil.copytree(other, base / "5")
    configs = [ModelConfig("all", base, specific=None), ModelConfig("one", base, specific=(1,))]
    with running(configs, poll_seconds=0.05) as server:
        assert server.server.models.available("all") == [1, 5]
        assert server.server.models.available("one") == [1]
        by_version = [server.post(f"all/versions/{v}:predict", BODY)[1] for v in (1, 5)]
        assert by_version[0] != by_version[1]
        assert server.post("all:predict", BODY)[1] == by_version[1]
        assert server.post("one:predict", BODY)[1] == by_version[0]


def test_versions_by_label(base, other):
    shutil.copytree(other, base / "5")
    labels = {"stable": 1, "next": 5, "gone": 3}
    config = ModelConfig("images", base, specific=None, labels=labels)
    with running([config], poll_seconds=0.05) as server:
        for label, number in (("stable", 1), ("next", 5)):
            by_number = server.post(f"images/versions/{number}:predict", BODY)
            assert by_number[0] == 200
            assert server.post(f"images/labels/{label}:predict", BODY) == by_number
            (status,) = server.get(f"/v1/models/images/labels/{label}")[1]["model_version_status"]
            assert status["version"] == str(number)
            metadata = server.get(f"/v1/models/images/labels/{label}/metadata")[1]
            assert metadata["model_spec"]["version"] == str(number)
            request = predict_pb2.PredictRequest()
            request.model_spec.name, request.model_spec.version_label = "images", label
            values = np.full([1, 16, 1], 0.5, np.float32)
            request.inputs["inputs"].CopyFrom(tf.make_tensor_proto(values))
            request.inputs["lengths"].CopyFrom(tf.make_tensor_proto(np.array([16], np.int32)))
            response = server.predictions.Predict(request, timeout=30)
            assert response.model_spec.version.value == number
        status, answer = server.post("images/labels/gone:predict", BODY)
        assert status == 404
        assert "Specific(images, 3)" in answer["error"]
        status, answer = server.post("images/labels/other:predict", BODY)
        assert status == 400
        assert "label: other" in answer["error"]


@pytest.mark.long
def test_a_version_folder_may_begin_with_zeros(base, other):
    (base / "1").rename(base / "0001")
    shutil.copytree(other, base / "00005")
    with running([ModelConfig("images", base, specific=None)], poll_seconds=0.05) as server:
        assert server.server.models.available("images") == [1, 5]
        by_version = [server.post(f"images/versions/{v}:predict", BODY) for v in (1, 5)]
        assert [status for status, _ in by_version] == [200, 200]
        assert by_version[0] != by_version[1]


@pytest.mark.parametrize(("content", "part"), [(None, " no version"), (b"damaged", "SavedModel")])
def test_nothing_to_serve(tmp_path, content, part):
    if content is not None:
        (tmp_path / "1").mkdir()
        (tmp_path / "1" / "saved_model.pb").write_bytes(content)
    with (
        pytest.raises(ModelError, match=f"^The model x .*{tmp_path}.*{part}"),
        running([ModelConfig("x", tmp_path)]),
    ):
        pass
