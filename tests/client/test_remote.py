"""A classifier on a server predicts as the same classifier here, and names its errors."""

import http.server
import json
import socket
import threading
import time

import numpy as np
import pytest

from t2aux.client import remote, transport
from t2aux.client.retries import Retries
from t2aux.errors import (
    DataError,
    DivergenceError,
    FileError,
    ModelError,
    ServerError,
    SettingError,
)
from t2aux.export.runtimes import CheckpointClassifier
from t2aux_ondevice import answers, litert, reading
from tests import small_exports
from tests.client import servers
from tests.client.conftest import KINDS
from tests.cores import CORES

SAME = 1e-5
LENGTHS = {"images": (16, 16, 16), "texts": (5, 1, 40), "vectors": (3, 30, 1)}


def sequences(kind):
    rng = np.random.default_rng(1)
    info = KINDS[kind]
    if info.is_text:
        return [rng.integers(0, info.vocabulary_size, n).astype(np.int32) for n in LENGTHS[kind]]
    return [rng.random((n, info.channels)).astype(np.float32) for n in LENGTHS[kind]]


@pytest.mark.parametrize("kind", KINDS)
def test_answers_are_those_of_the_same_classifier_here(served, connect, scheme, kind):
    it = served(kind)
    classifier = connect(it.addresses[scheme])
    assert classifier.info == it.info
    assert classifier.version == 1
    given = sequences(kind)
    wanted = np.stack([it.local.probabilities(s) for s in given])
    for sequence, expected in zip(given, wanted, strict=True):
        np.testing.assert_allclose(classifier.probabilities(sequence), expected, atol=SAME)
        streamed = list(classifier.stream(sequence, 7))
        local = list(it.local.stream(sequence, 7))
        assert [steps for steps, _ in streamed] == [steps for steps, _ in local]
        for (_, ours), (_, theirs) in zip(streamed, local, strict=True):
            np.testing.assert_allclose(ours, theirs, atol=SAME)
            assert ours.dtype == np.float32
    it.model.seen.clear()
    np.testing.assert_allclose(classifier.batch_probabilities(given), wanted, atol=SAME)
    assert it.model.seen == [(1, "serving_default", 3)]


def test_a_sequence_is_streamed_to_any_core(tmp_path, connect):
    directory = tmp_path / "export" / "1"
    directory.parent.mkdir()
    info = KINDS["vectors"]
    made = small_exports.write(directory, info, ("saved_model",), core=CORES["own"])
    given = sequences("vectors")[1]
    wanted = CheckpointClassifier(made).probabilities(given)
    with servers.serving(servers.Model(directory)) as addresses:
        for scheme in ("grpc", "http"):
            classifier = connect(addresses[scheme])
            *_, (steps, answer) = classifier.stream(given, 7)
            assert steps == len(given)
            np.testing.assert_allclose(answer, wanted, atol=SAME)


def test_a_description_of_before_is_of_an_lstm(served, connect, scheme):
    it = served("vectors")
    described = {**remote.read_description(it.directory)}
    assert described.pop("state") == {"h": [5], "c": [5]}
    classifier = connect(it.addresses[scheme], described=described)
    *_, (_, answer) = classifier.stream(sequences("vectors")[0], 2)
    wanted = it.local.probabilities(sequences("vectors")[0])
    np.testing.assert_allclose(answer, wanted, atol=SAME)


@pytest.mark.parametrize("kind", KINDS)
def test_answers_of_a_batch_are_those_of_single_ones(served, connect, scheme, kind):
    classifier = connect(served(kind).addresses[scheme])
    items = [reading.Input(str(i), s, str(i)) for i, s in enumerate(sequences(kind))]
    together = answers.classify_batch(classifier, items, top=2)
    alone = [answers.classify(classifier, item, top=2) for item in items]
    for one, other in zip(together, alone, strict=True):
        assert (one.name, one.classes, one.labels) == (other.name, other.classes, other.labels)
        assert one.probabilities == pytest.approx(other.probabilities, abs=SAME)
        assert (one.steps, one.total) == (other.steps, other.total)


@pytest.mark.parametrize("code", ["UNAVAILABLE", "RESOURCE_EXHAUSTED"])
def test_a_busy_server_is_tried_again(served, connect, scheme, code):
    it = served("vectors")
    classifier = connect(it.addresses[scheme])
    it.model.seen.clear()
    it.model.plan.extend([code, code])
    sequence = sequences("vectors")[0]
    answer = classifier.probabilities(sequence)
    np.testing.assert_allclose(answer, it.local.probabilities(sequence), atol=SAME)
    assert len(it.model.seen) == 3
    it.model.plan.extend([code] * 4)
    with pytest.raises(ServerError, match=r"as it was planned.* 4 .*\d+\.\d s"):
        classifier.probabilities(sequence)
    # And the client continues to work.
    assert classifier.probabilities(sequence).shape == (3,)


def test_rest_waits_as_long_as_the_server_asks(served, connect):
    it = served("vectors")
    classifier = connect(it.addresses["http"])
    it.model.headers = {"Retry-After": "1000"}
    it.model.plan.append("UNAVAILABLE")
    it.model.seen.clear()
    with pytest.raises(ServerError, match="as it was planned"):
        classifier.probabilities(sequences("vectors")[0])
    assert len(it.model.seen) == 1  # It is longer than the timeout.


@pytest.mark.parametrize("code", ["INVALID_ARGUMENT", "INTERNAL", "FAILED_PRECONDITION"])
def test_a_refused_request_is_an_error_at_once(served, connect, scheme, code):
    it = served("vectors")
    classifier = connect(it.addresses[scheme])
    it.model.seen.clear()
    it.model.plan.append(code)
    with pytest.raises(ServerError, match=rf"{code}.*as it was planned\.$"):
        classifier.probabilities(sequences("vectors")[0])
    assert len(it.model.seen) == 1


def test_wrong_sequences_are_errors_before_they_are_sent(served, connect, scheme):
    it = served("vectors")
    classifier = connect(it.addresses[scheme])
    it.model.seen.clear()
    with pytest.raises(DataError, match="NaN"):
        classifier.probabilities(np.array([[np.nan, 1]]))
    with pytest.raises(DataError, match=r"\[3, 1\].*\[T, 2\]"):
        next(classifier.stream(np.zeros([3, 1]), 2))
    assert it.model.seen == []


def test_no_answer_in_time(served, connect, scheme, monkeypatch):
    it = served("vectors")
    classifier = connect(it.addresses[scheme])
    it.model.plan.append(1.5)
    with monkeypatch.context() as changed:
        changed.setattr(classifier, "_attempts", Retries(timeout=0.5))
        with pytest.raises(ServerError, match=r"0\.5 s.*--timeout"):
            classifier.probabilities(sequences("vectors")[0])
    classifier.probabilities(sequences("vectors")[0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model": "other"}, "other.*--model"),
        ({"version": 7}, "made_up.* 7 .*--version"),
        ({"signature": "absent"}, '"absent"'),
        ({"model": "a/b c"}, "a/b c.*--model"),
    ],
)
def test_unknown_names(served, connect, scheme, arguments, message):
    if scheme == "http" and arguments.get("model") == "a/b c":
        message = "--model"  # The name comes back as it was in the path.
    with pytest.raises(ServerError, match=message):
        connect(served("vectors").addresses[scheme], **arguments).probabilities(
            sequences("vectors")[0]
        )


def test_the_newest_version_that_is_ready_is_used(served, connect, scheme):
    it = served("vectors")
    it.model.states = {2: "AVAILABLE", 10: "AVAILABLE", 11: "LOADING", 1: "END"}
    assert connect(it.addresses[scheme]).version == 10
    assert connect(it.addresses[scheme], version=2).version == 2
    with pytest.raises(ServerError, match=r"version 1 .*END.*it could not be loaded"):
        connect(it.addresses[scheme], version=1)
    with pytest.raises(ServerError, match=r"version 11 .*made_up.* 4 "):
        connect(it.addresses[scheme], version=11)


def test_a_model_that_is_loading_is_waited_for(served, connect, scheme):
    it = served("vectors")
    it.model.statuses.extend([{1: "START"}, {1: "LOADING"}, {1: "AVAILABLE"}])
    assert connect(it.addresses[scheme]).version == 1


def test_a_new_version_takes_over(served, connect, scheme):
    it = served("vectors")
    classifier = connect(it.addresses[scheme])
    sequence = sequences("vectors")[1]
    it.model.states = {1: "UNLOADING", 2: "AVAILABLE"}
    wanted = it.local.probabilities(sequence)
    np.testing.assert_allclose(classifier.probabilities(sequence), wanted, atol=SAME)
    assert classifier.version == 2
    it.model.states = {3: "AVAILABLE"}
    *_, (steps, answer) = classifier.stream(sequence, 4)
    assert (classifier.version, steps) == (3, 30)
    np.testing.assert_allclose(answer, wanted, atol=SAME)


def test_a_stream_does_not_mix_versions(served, connect, scheme):
    it = served("vectors")
    classifier = connect(it.addresses[scheme])
    stream = classifier.stream(sequences("vectors")[1], 4)
    next(stream)
    it.model.states = {2: "AVAILABLE"}
    with pytest.raises(ServerError, match=r"version 1 .*version 2"):
        next(stream)


def test_a_requested_version_is_not_replaced(served, connect, scheme):
    it = served("vectors")
    classifier = connect(it.addresses[scheme], version=1)
    it.model.states = {2: "AVAILABLE"}
    with pytest.raises(ServerError, match=r"made_up.* 1 .*--version"):
        classifier.probabilities(sequences("vectors")[0])


def test_a_model_that_does_not_describe_itself(served, connect, scheme):
    it = served("vectors")
    it.model.hide = {"describe"}
    with pytest.raises(ServerError, match=r"made_up.*--metadata"):
        connect(it.addresses[scheme])
    for path in (it.directory, it.directory / litert.METADATA):
        classifier = connect(it.addresses[scheme], described=remote.read_description(path))
        assert classifier.probabilities(sequences("vectors")[0]).shape == (3,)


@pytest.mark.parametrize(
    ("metadata", "kind"),
    [
        (b"no JSON", ServerError),
        (b"[]", ModelError),
        (b'{"format": "t2aux-export"}', ModelError),
        (b"\xff", ServerError),
    ],
)
def test_a_description_of_something_else(served, connect, scheme, metadata, kind):
    it = served("vectors")
    it.model.plan.append(lambda _: {"metadata": np.array([metadata], object)})
    with pytest.raises(kind, match="made_up"):
        connect(it.addresses[scheme])


def test_a_busy_server_is_not_one_without_a_description(served, connect, scheme):
    it = served("vectors")
    it.model.plan.extend(["UNAVAILABLE"] * 4)
    with pytest.raises(ServerError, match=r"as it was planned.* 4 ") as error:
        connect(it.addresses[scheme])
    assert "--metadata" not in str(error.value)


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ({"probabilities": np.zeros([1, 4], np.float32)}, r"\[1, 4\].*\[1, 3\]"),
        ({"probabilities": np.zeros([2, 3], np.float32)}, r"\[2, 3\].*\[1, 3\]"),
        ({"probabilities": np.array([["a", "b", "c"]])}, r"(object|<U1) .*\[1, 3\]"),
        ({"other": np.zeros(3, np.float32), "more": np.zeros(1)}, "outputs"),
    ],
)
def test_answers_of_another_model(served, connect, scheme, outputs, message):
    it = served("vectors")
    classifier = connect(it.addresses[scheme])
    it.model.plan.append(lambda _: outputs)
    with pytest.raises(ServerError, match=message):
        classifier.probabilities(sequences("vectors")[0])


def test_nan_is_an_error(served, connect, scheme):
    it = served("vectors")
    classifier = connect(it.addresses[scheme])
    it.model.plan.append(lambda o: {**o, "probabilities": o["probabilities"] * np.nan})
    item = reading.Input("a", sequences("vectors")[0], "a")
    with pytest.raises(DivergenceError, match=r"^a: .*NaN"):
        answers.classify(classifier, item)


def test_states_that_are_invalid(served, connect, scheme):
    it = served("vectors")
    classifier = connect(it.addresses[scheme])
    it.model.plan.append(lambda o: {**o, "h": o["h"][0]})
    with pytest.raises(ServerError, match=r"state .*float\d\d .*\[5\]"):
        next(classifier.stream(sequences("vectors")[0], 2))


@pytest.mark.parametrize(
    "content", [b"<html>", b"[1]", b"{", b'{"predictions": []}', b"[" * 100_000, b""]
)
def test_rest_answers_that_are_invalid(served, connect, content):
    it = served("vectors")
    classifier = connect(it.addresses["http"])
    it.model.plan.append(lambda _: content)
    with pytest.raises(ServerError, match="TF Serving"):
        classifier.probabilities(sequences("vectors")[0])


def test_the_wrong_protocol_is_an_error(served, connect):
    addresses = served("vectors").addresses
    swapped = addresses["http"].replace("http", "grpc")
    with pytest.raises(ServerError, match=r"gRPC.*http://HOST:PORT"):
        connect(swapped)
    swapped = addresses["grpc"].replace("grpc", "http")
    with pytest.raises(ServerError, match=r"HTTP/1\.1.*grpc://HOST:PORT"):
        connect(swapped)


def test_some_other_web_server_is_an_error(connect):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_error(404)

        def log_message(self, *_):
            pass

    with (
        servers.http_server(Handler) as port,
        pytest.raises(ServerError, match=r"TF Serving.*HTTP status 404"),
    ):
        connect(f"http://127.0.0.1:{port}")


def test_no_server(connect, scheme):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(ServerError, match=rf"{port} .*refused.* 4 "):
        connect(f"{scheme}://127.0.0.1:{port}")


def test_a_server_that_comes_late_is_waited_for(connect):
    """The port is taken, and answers only at the third connection."""
    status = json.dumps({"model_version_status": [{"version": "4", "state": "AVAILABLE"}]})
    answer = f"HTTP/1.1 200 OK\r\nContent-Length: {len(status)}\r\n\r\n{status}".encode()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            for content in (b"", answer[:-10], answer):
                connection = listener.accept()[0]
                connection.recv(1 << 16)
                connection.sendall(content)
                connection.close()

        thread = threading.Thread(target=serve)
        thread.start()
        port = listener.getsockname()[1]
        described = litert.description(KINDS["vectors"])
        assert connect(f"http://127.0.0.1:{port}", described=described).version == 4
        thread.join()


@pytest.mark.parametrize(
    ("begin", "part"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n", b" "),
        (b"HTTP/1.0 200 OK\r\n\r\n", b" "),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", b" "),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
        (b"HTTP/1.1 200 OK\r\nX: ", b"x"),
        (b"", b"H"),
    ],
)
def test_an_answer_that_drips_ends_in_time(connect, begin, part):
    """Each part comes in time, all of them would not."""
    done = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            connection = listener.accept()[0]
            connection.recv(1 << 16)
            connection.sendall(begin)
            while not done.wait(0.05):
                try:
                    connection.sendall(part)
                except OSError:
                    break
            connection.close()

        thread = threading.Thread(target=serve)
        thread.start()
        port = listener.getsockname()[1]
        begun = time.monotonic()
        try:
            with pytest.raises(ServerError, match=r"0\.4 s.*--timeout"):
                connect(f"http://127.0.0.1:{port}", attempts=Retries(timeout=0.4))
            assert time.monotonic() - begun < 3
        finally:
            done.set()
            thread.join()


@pytest.mark.parametrize(
    "address",
    ["", "localhost:8500", "ftp://a:1", "grpc://", "http://a:x", "http://a:99999", "http://a/b:1"],
)
def test_addresses_that_are_invalid(address):
    with pytest.raises(SettingError, match=f"'{address}'.*grpc://HOST:PORT.*http://HOST:PORT"):
        transport.connect(address)


def test_addresses():
    for given, wanted in (
        ("grpc://a", "grpc://a:8500"),
        ("http://a", "http://a:8501"),
        ("http://[::1]:7/", "http://[::1]:7"),
    ):
        way = transport.connect(given)
        assert way.address == wanted
        way.close()


def test_metadata_that_is_invalid(tmp_path):
    with pytest.raises(ModelError, match=rf"metadata\.json .*{tmp_path}"):
        remote.read_description(tmp_path)
    with pytest.raises(FileError, match=r"absent\.json"):
        remote.read_description(tmp_path / "absent.json")
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(ModelError, match=r"other\.json"):
        remote.read_description(tmp_path / "other.json")
