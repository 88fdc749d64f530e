"""`t2aux client` against `t2aux serve`, over both protocols."""

import json
import shutil
import threading
import time

import numpy as np
import pytest
from PIL import Image

from t2aux.client import transport
from t2aux.client.remote import RemoteClassifier
from t2aux.errors import ServerError
from t2aux.export.runtimes import CheckpointClassifier
from t2aux.serving.models import ModelConfig
from tests import small_exports
from tests.cli_helpers import t2aux
from tests.serving.conftest import INFOS, running

NEAR = 1e-6


def address(server, protocol):
    return {"grpc": f"grpc://{server.address}", "http": server.url}[protocol]


@pytest.mark.parametrize("protocol", ["grpc", "http"])
@pytest.mark.parametrize("kind", INFOS)
def test_the_client_answers_as_the_checkpoint(server, classifiers, kind, protocol):
    rng = np.random.default_rng(0)
    info = INFOS[kind]
    local = CheckpointClassifier(getattr(classifiers, kind))
    way = transport.connect(address(server, protocol))
    try:
        remote = RemoteClassifier(way, kind)
        assert (remote.info, remote.version) == (info.without_normalization(), 1)
        sequences = []
        for steps in [16] * 3 if info.length else [1, 7, 40]:
            if info.is_text:
                sequences.append(rng.integers(0, info.vocabulary_size, steps).astype(np.int32))
            else:
                sequences.append(rng.random((steps, info.channels)).astype(np.float32))
        expected = [local.probabilities(sequence) for sequence in sequences]
        np.testing.assert_allclose(remote.batch_probabilities(sequences), expected, atol=NEAR)
        for sequence, wanted in zip(sequences, expected, strict=True):
            np.testing.assert_allclose(remote.probabilities(sequence), wanted, atol=NEAR)
            remotely, locally = (list(c.stream(sequence, 5)) for c in (remote, local))
            assert [steps for steps, _ in remotely] == [steps for steps, _ in locally]
            for (_, a), (_, b) in zip(remotely, locally, strict=True):
                np.testing.assert_allclose(a, b, atol=NEAR)
    finally:
        way.close()


@pytest.mark.parametrize("protocol", ["grpc", "http"])
@pytest.mark.parametrize(
    ("kind", "count", "steps", "part"),
    [("images", 33, 16, "Task size 33"), ("vectors", 32, 5000, "larger than")],
)
def test_the_error_for_a_large_request_says_what_helps(server, protocol, kind, count, steps, part):
    way = transport.connect(address(server, protocol))
    try:
        remote = RemoteClassifier(way, kind)
        sequences = [np.full([steps, INFOS[kind].channels], 0.1, np.float32)] * count
        with pytest.raises(ServerError, match=rf"too large.*{part}.*--batch\.$"):
            remote.batch_probabilities(sequences)
    finally:
        way.close()


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_the_command_line_prints_what_classify_prints(server, base_paths, tmp_path, protocol):
    picture = tmp_path / "picture.png"
    Image.fromarray(np.arange(16, dtype=np.uint8).reshape(4, 4) * 16).save(picture)
    remote = t2aux(
        *("client", f"--server={address(server, protocol)}", "--model=images", "--json", picture)
    )
    local = t2aux("classify", f"--model={base_paths['images'][0]}", "--json", picture)
    found, wanted = json.loads(remote.stdout), json.loads(local.stdout)
    assert found["class"] == wanted["class"]
    assert found["probability"] == pytest.approx(wanted["probability"], abs=1e-5)


def test_the_client_continues_when_a_new_version_takes_over(base_paths, tmp_path):
    base = tmp_path / "vectors"
    shutil.copytree(base_paths["vectors"][0], base)
    other = tmp_path / "other"
    changed = small_exports.write(other, INFOS["vectors"], ("saved_model",), poison=0.3)
    sequence = np.full([16, 2], 0.5, np.float32)
    with running([ModelConfig("vectors", base)], poll_seconds=0.05) as server:
        way = transport.connect(f"grpc://{server.address}")
        remote = RemoteClassifier(way, "vectors")
        remote.probabilities(sequence)
        mover = threading.Thread(target=lambda: other.rename(base / "2"))
        mover.start()
        end = time.monotonic() + 60
        while remote.version == 1:
            assert time.monotonic() < end
            found = remote.probabilities(sequence)
        mover.join()
        way.close()
    wanted = CheckpointClassifier(changed).probabilities(sequence)
    np.testing.assert_allclose(found, wanted, atol=NEAR)
