"""What a server takes on at once, and what it does not wait for."""

import contextlib
import gzip
import http.client
import socket
import threading
import time

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2

from t2aux.serving import connections, json_tensors
from t2aux.serving.models import ModelConfig
from t2aux.serving.status import ServingError
from tests import small_exports
from tests.serving.conftest import running

BODY = b'{"instances": [{"inputs": [' + b",".join([b"[0.5]"] * 16) + b'], "lengths": 16}]}'
MAX_BYTES = 200_000


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """The base path of a model that loads at once."""
    path = tmp_path_factory.mktemp("quick")
    small_exports.write_quick(path / "1")
    return path


def taking_little(base, **limits):
    return running(
        [ModelConfig("images", base)],
        poll_seconds=0.05,
        max_connections=4,
        max_request_bytes=MAX_BYTES,
        max_pending_bytes=MAX_BYTES,
        **limits,
    )


@pytest.fixture(scope="module")
def small(base):
    """A server that takes on little."""
    with taking_little(base, rest_timeout=120.0) as found:
        yield found


@pytest.fixture(scope="module")
def impatient(base):
    """One that does not wait for long either."""
    with taking_little(base, rest_timeout=1.0, grpc_connection_seconds=1.0) as found:
        yield found


def post(server, body, path="/v1/models/images:predict", **headers):
    connection = http.client.HTTPConnection("127.0.0.1", server.server.rest_api_port, timeout=120)
    try:
        connection.request("POST", path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def eventually(ask, wanted):
    end = time.monotonic() + 60
    while (found := ask()) != wanted:
        assert time.monotonic() < end, found
    return found


def test_idle_connections_are_closed_and_others_come_in(impatient):
    address = ("127.0.0.1", impatient.server.rest_api_port)

    idle = []

    def wait_until_closed():
        while idle:
            with idle.pop() as connection:
                assert connection.recv(100) == b""

    def beside_idle_ones():
        wait_until_closed()
        # Some say nothing, some do not come to an end.
        idle.extend(socket.create_connection(address, timeout=120) for _ in range(4))
        for connection in idle[:2]:
            connection.sendall(b"POST /v1/models/images:predict HTTP/1.1\r\nHost: x\r\n")
        # They are counted a moment after they came.
        return any(post(impatient, BODY)[0] == 503 for _ in range(20))

    eventually(beside_idle_ones, True)
    wait_until_closed()
    eventually(lambda: post(impatient, BODY)[0], 200)


def test_who_is_refused_while_sending_learns_why(small, monkeypatch):
    monkeypatch.setattr(connections, "_LINGER_SECONDS", 60.0)
    address = ("127.0.0.1", small.server.rest_api_port)

    def refused(stack):
        idle = [socket.create_connection(address, timeout=120) for _ in range(4)]
        for one in idle:
            stack.enter_context(one)
        late = stack.enter_context(socket.create_connection(address, timeout=120))
        late.settimeout(1)
        with contextlib.suppress(TimeoutError):
            return late if late.recv(1, socket.MSG_PEEK) else None

    def answer():
        with contextlib.ExitStack() as stack:
            # If an idle one came later than this one, there is no answer.
            if (late := refused(stack)) is None:
                return b""
            late.settimeout(120)
            for _ in range(3):
                late.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 999\r\n\r\n")
            late.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: late.recv(1000), b"")).split(b"\r\n")[0]

    eventually(answer, b"HTTP/1.1 503 Service Unavailable")
    eventually(lambda: post(small, BODY)[0], 200)


def test_bytes_of_all_requests_are_counted(small):
    address = ("127.0.0.1", small.server.rest_api_port)
    head = (
        f"POST /v1/models/images:predict HTTP/1.1\r\nHost: x\r\nContent-Length: {MAX_BYTES}\r\n\r\n"
    )

    def beside_a_large_one():
        with socket.create_connection(address, timeout=120) as slow:
            slow.sendall(head.encode() + b" " * (MAX_BYTES - 100))
            status, text = post(small, BODY)
            return status, f" {MAX_BYTES} bytes: " in text

    eventually(beside_a_large_one, (503, True))
    eventually(lambda: post(small, BODY)[0], 200)


def test_a_budget_is_given_back():
    budget = connections.Budget(10)
    with budget.reserved() as first:
        first(6)
        with budget.reserved() as second, pytest.raises(ServingError, match="try again"):
            second(5)
        first(4)
    with budget.reserved() as third:
        third(10)


@pytest.mark.parametrize("size", [10_000_000, 300_000])
def test_packed_bodies_count_unpacked(small, size):
    packed = gzip.compress(b" " * size)
    assert len(packed) < MAX_BYTES
    status, text = post(small, packed, **{"Content-Encoding": "gzip"})
    assert status in (413, 503), text
    assert post(small, gzip.compress(BODY), **{"Content-Encoding": "gzip"})[0] == 200
    status, text = post(small, packed[:50], **{"Content-Encoding": "gzip"})
    assert (status, "Traceback" in text) == (400, False)


def test_packed_messages_count_unpacked(small):
    with grpc.insecure_channel(small.address) as channel:
        call = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
        with pytest.raises(grpc.RpcError) as caught:
            call(bytes(50_000_000), timeout=120, compression=grpc.Compression.Gzip)
        assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


def test_deep_json_is_the_clients_mistake(small):
    for body in (b"[" * 100_000, b'{"instances": ' + b"[" * 900 + b"]" * 900 + b"}"):
        status, text = post(small, body)
        assert (status, "error" in text) == (400, True)


@pytest.mark.parametrize(
    "body",
    [
        b'{"instances": [{"inputs": [[1' + b"0" * 400 + b'], [0.5]], "lengths": 16}]}',
        b'{"signature_name": "\\ud800", "instances": [1]}',
    ],
)
def test_values_that_no_message_holds_are_the_clients_mistake(small, body):
    assert post(small, body)[0] == 400


@pytest.mark.parametrize(
    "example", [b'{"\\ud800": 1}', b'{"inputs": [1' + b"0" * 400 + b"]}", b'{"inputs": [null]}']
)
def test_examples_that_no_message_holds_are_the_clients_mistake(small, example):
    body = b'{"signature_name": "serving_classify", "examples": [' + example + b"]}"
    assert post(small, body, "/v1/models/images:classify")[0] == 400


@pytest.mark.parametrize("values", [b"[0, 0.5]", b'["a", 1]', b"[true, 0.5]"])
def test_a_feature_has_values_of_one_type(small, values):
    body = b'{"signature_name": "serving_classify", "examples": [{"inputs": ' + values + b"}]}"
    status, text = post(small, body, "/v1/models/images:classify")
    assert status == 400
    assert "'inputs' mixes types" in text


def test_true_and_false_are_whole_numbers_of_a_feature():
    (content,) = json_tensors.examples({"examples": [{"a": [True, False, 3], "b": True}]})
    features = tf.train.Example.FromString(content).features.feature
    assert list(features["a"].int64_list.value) == [1, 0, 3]
    assert list(features["b"].int64_list.value) == [1]


def test_strings_of_different_depths_are_the_clients_mistake(server):
    for instances in (["a", ["b"]], [["a"], ["b", "c"]], [[], {"b64": "YWJj"}]):
        body = {"signature_name": "serving_text", "instances": instances}
        assert server.post("texts:predict", body)[0] == 400


def test_requests_that_are_never_sent_do_not_keep_others_out(impatient):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "images"
    values = np.full([1, 16, 1], 0.5, np.float32)
    request.inputs["inputs"].CopyFrom(tf.make_tensor_proto(values))
    request.inputs["lengths"].CopyFrom(tf.make_tensor_proto(np.array([16], np.int32)))
    never = threading.Event()

    def nothing():
        never.wait(300)
        yield b""

    method = "/tensorflow.serving.PredictionService/Predict"

    def ask():
        with grpc.insecure_channel(impatient.address) as channel:
            call = channel.unary_unary(method, request_serializer=lambda m: m.SerializeToString())
            try:
                call(request, timeout=120)
            except grpc.RpcError as error:
                return error.code().name
            return "OK"

    with contextlib.ExitStack() as stack:

        def beside_such_requests():
            options = [("grpc.enable_retries", 0)]
            channel = stack.enter_context(grpc.insecure_channel(impatient.address, options))
            for _ in range(4):
                stack.callback(channel.stream_unary(method).future(nothing()).cancel)
            return ask()

        stack.callback(never.set)
        eventually(beside_such_requests, "RESOURCE_EXHAUSTED")
        eventually(ask, "OK")
