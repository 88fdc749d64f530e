"""Requests that are not HTTP, or contradict their headers: one JSON error each, no traceback."""

import gzip
import json
import socket

import pytest
import requests

BODY = json.dumps({"instances": [{"inputs": [[0.5]] * 16, "lengths": 16}]}).encode()
POST = b"POST /v1/models/images:predict HTTP/1.1\r\nHost: x\r\n"
GET = b"GET /v1/models/images HTTP/1.1\r\nHost: x\r\n"
CHUNKS = b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY)
SIZE = b"Content-Length: %d\r\n\r\n" % len(BODY)
TEN = b"Content-Length: 10\r\n\r\n"


def sent(server, content):
    """Sends bytes; returns the statuses and the JSON of the last answer."""
    address = ("127.0.0.1", server.server.rest_api_port)
    with socket.create_connection(address, timeout=60) as connection:
        connection.sendall(content)
        received = b""
        while not received.rstrip().endswith(b"}"):
            part = connection.recv(1 << 16)
            assert part, received
            received += part
    *heads, body = received.split(b"\r\n\r\n")
    assert b"application/json" in heads[-1], heads
    return [int(head.split()[1]) for head in heads], json.loads(body)


MALFORMED = {
    "TLS on the plain port": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)),
    "binary": bytes(range(256)) * 4,
    "binary without an end": b"\xff" * 20_000,
    "no path": b"GET\r\n\r\n",
    "another version": b"GET / HTTP/9.9\r\nHost: x\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
    "another method": b"F{}OO / HTTP/1.1\r\nHost: x\r\n\r\n",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "lines that end in LF": GET.replace(b"\r", b"") + b"\n",
    "a large header": GET + b"X: " + b"a" * 100_000 + b"\r\n\r\n",
    "a long path": b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    "many headers": GET + b"".join(b"X%d: y\r\n" % i for i in range(2000)) + b"\r\n",
    "no header": GET + b"foo bar: z\r\n\r\n",
    "NUL in the path": GET.replace(b"images", b"\0") + b"\r\n",
    "not UTF-8 in the path": GET.replace(b"images", b"\xff\xfe") + b"\r\n",
    "a length that is none": POST + b"Content-Length: abc\r\n\r\n",
    "a negative length": POST + b"Content-Length: -5\r\n\r\n",
    "two lengths": POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcde",
    "length and chunks": POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "wrong chunks": POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n",
    "another encoding": POST + b"Transfer-Encoding: gzip, foo\r\n\r\nzz\r\nabc\r\n",
    "no gzip": POST + b"Content-Encoding: gzip\r\nContent-Length: 5\r\n\r\nabcde",
    "half of a gzip": POST
    + b"Content-Encoding: gzip\r\n"
    + TEN
    + b"\r\n"
    + gzip.compress(BODY)[:10],
    "Brotli": POST + b"Content-Encoding: br\r\n" + TEN + b"0123456789",
    "Zstandard": POST + b"Content-Encoding: zstd\r\n" + TEN + b"0123456789",
    "more than its length": POST + b"Content-Length: 2\r\n\r\n{}{}GARBAGE\r\n\r\n",
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_requests(server, name, caplog):
    statuses, answer = sent(server, MALFORMED[name])
    assert statuses[-1] == 400
    assert set(answer) == {"error"}
    assert "\n" not in answer["error"]
    assert 10 < len(answer["error"]) < 400
    assert not caplog.records
    assert server.get("/v1/models/images")[0] == 200


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("Brotli", "Content-Encoding"),
        ("Zstandard", "Content-Encoding"),
        ("a large header", "longer than 8190 bytes"),
        ("a long path", "longer than 8190 bytes"),
    ],
)
def test_malformed_requests_are_explained_to_the_client(server, name, part):
    """Not what to install on the server, and not Python's form of what was sent."""
    error = sent(server, MALFORMED[name])[1]["error"]
    assert part in error
    assert "install" not in error
    assert "b'" not in error


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b'{"instances": [' + b"9" * 5000 + b"]}", "thousands of digits"),
        (b'{"instances": ' + b"[" * 100_000, "nested too deeply"),
        (b'{"instances": ' + b'{"a":' * 100_000, "nested too deeply"),
        (b'{"instances": ["\xe9"]}', "codec can't decode byte 0xe9"),
        (b"", "Expecting value"),
    ],
)
def test_bodies_that_are_not_json_are_explained_to_the_client(server, content, part):
    for verb in ("predict", "classify"):
        status, answer = server.post(f"images:{verb}", content)
        assert (status, set(answer)) == (400, {"error"})
        assert "JSON Parse" in answer["error"]
        assert part in answer["error"]
        assert "sys." not in answer["error"]


@pytest.mark.parametrize(
    ("method", "path", "status", "part"),
    [
        ("GET", "/", 404, "Malformed request: GET /"),
        ("GET", "/v2/models/images", 404, "Malformed request"),
        ("OPTIONS", "*", 404, "Malformed request: OPTIONS *"),
        ("CONNECT", "x:443", 404, "Malformed request: CONNECT"),
        ("POST", "/monitoring/prometheus/metrics", 404, "Malformed request"),
        ("PUT", "/v1/models/images:predict", 400, "Malformed request: PUT"),
        ("DELETE", "/v1/models/images", 400, "Malformed request: DELETE"),
        ("GET", "/v1/models/images:predict", 400, "Malformed request: GET"),
        ("POST", "/v1/models/images", 400, "Malformed request: POST"),
        ("GET", "/v1/models/images/", 400, "Malformed request"),
        ("POST", "/v1/models/images:predict/", 400, "Malformed request"),
        ("GET", "/v1//models/images", 400, "Malformed request"),
        ("GET", "/v1/models/images/versions/x", 400, "Malformed request"),
        ("GET", "/v1/models/images/versions/" + "9" * 30, 400, "to numeric"),
        ("POST", "/v1/models/images%3Apredict", 400, "Malformed request"),
        ("GET", "/v1/models/a%2Fb", 404, "versions of model a/b"),
        ("GET", "/v1/models/%zz", 404, "versions of model %zz"),
        ("GET", "/v1/models/%ff%00", 404, "versions of model"),
        ("GET", "/v1/models/..%2f..", 404, "versions of model ../.."),
    ],
)
def test_paths_and_methods_that_are_not_there(server, method, path, status, part, caplog):
    request = f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
    statuses, answer = sent(server, request.encode())
    assert (statuses, set(answer)) == ([status], {"error"})
    assert part in answer["error"]
    assert not caplog.records


@pytest.mark.parametrize(
    ("content", "statuses"),
    [
        (POST + SIZE + BODY, [200]),
        (POST.replace(b"images", b"im%61ges") + SIZE + BODY, [200]),
        (POST.replace(b":predict", b":PREDICT") + SIZE + BODY, [200]),
        (POST.replace(b":predict", b":predict?a=b&c") + SIZE + BODY, [200]),
        (POST.replace(b"/v1", b"http://x/v1") + SIZE + BODY, [200]),
        (POST + b"Expect: 100-continue\r\n" + SIZE + BODY, [100, 200]),
        (POST + b"Content-Type: text/html\r\n" + SIZE + BODY, [200]),
        (POST + b"Connection: Upgrade\r\nUpgrade: h2c\r\n" + SIZE + BODY, [200]),
        (POST.replace(b"1.1", b"1.0") + SIZE + BODY, [200]),
        (
            POST
            + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % len(BODY)
            + BODY
            + b"\r\n0\r\n\r\n",
            [200],
        ),
    ],
)
def test_what_other_clients_send(server, content, statuses):
    found, answer = sent(server, content)
    assert found == statuses
    assert len(answer["predictions"]) == 1


def test_an_expectation_that_can_not_be_met(server):
    statuses, answer = sent(server, POST + b"Expect: something else\r\n" + SIZE + BODY)
    assert (statuses, set(answer)) == ([417], {"error"})


def test_head_has_no_body(server):
    assert requests.head(f"{server.url}/v1/models/images", timeout=60).content == b""


def test_a_client_that_goes_leaves_no_traceback(server, caplog):
    address = ("127.0.0.1", server.server.rest_api_port)
    for content in (POST + SIZE + BODY[:10], POST, b"", POST + SIZE + BODY):
        with socket.create_connection(address, timeout=60) as connection:
            connection.sendall(content)
    assert server.get("/v1/models/images")[0] == 200
    assert not caplog.records


def test_the_server_s_own_failures_are_json_and_logged(server, caplog, monkeypatch):
    monkeypatch.setattr(server.server.models, "versions", lambda name: 1 / 0)
    statuses, answer = sent(server, GET + b"\r\n")
    assert (statuses, answer) == ([500], {"error": "The server failed; its log says why."})
    assert any(record.exc_info for record in caplog.records)
