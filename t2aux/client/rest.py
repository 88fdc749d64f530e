"""TF Serving's REST API.

This uses http.client rather than `requests`: only one connection, distinct errors and our own
retries are needed, and it is imported quickly.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import ssl
import threading
import time
import urllib.parse
from collections.abc import Sequence
from typing import Any

import numpy as np

from t2aux.addresses import with_port
from t2aux.client.client_tls import ClientTls
from t2aux.client.client_tls import failure as tls_failure
from t2aux.client.retries import BAD_ANSWER, DEADLINE_EXCEEDED, TOO_LARGE, UNAVAILABLE, Failure
from t2aux.client.transport import Arrays, Spec, Status
from t2aux.tf_serving import HTTP_STATUS

# Includes statuses that proxies return.
_CODES = {
    **{status: code for code, status in reversed(HTTP_STATUS.items())},
    408: DEADLINE_EXCEEDED,
    412: "FAILED_PRECONDITION",
    413: TOO_LARGE,
    502: UNAVAILABLE,
}
_MAY_PASS = (429, 502, 503)


class RestTransport:
    """A connection to a server's REST port.

    Attributes:
        address: http://HOST:PORT, or https:.
    """

    def __init__(self, host: str, port: int, tls: ClientTls | None = None) -> None:
        """Prepares the connection, which is made on the first request."""
        self.address = f"{'https' if tls else 'http'}://{with_port(host, port)}"
        self._connection = (
            http.client.HTTPSConnection(host, port, context=tls.context)
            if tls
            else http.client.HTTPConnection(host, port)
        )

    def predict(
        self, spec: Spec, signature: str, inputs: Arrays, outputs: Sequence[str], timeout: float
    ) -> Arrays:
        """See `Transport`."""
        body = {
            "signature_name": signature,
            "inputs": {name: array.tolist() for name, array in inputs.items()},
        }
        answer = self._call("POST", _path(spec) + ":predict", body, timeout)
        found = answer.get("outputs")
        # A single output is returned without its name.
        if isinstance(found, list) and len(outputs) == 1:
            found = {outputs[0]: found}
        try:
            return {name: np.array(found[name]) for name in outputs}
        except (KeyError, TypeError, ValueError) as error:
            reason = f"its response has no outputs {', '.join(outputs)}"
            raise Failure(BAD_ANSWER, reason) from error

    def status(self, spec: Spec, timeout: float) -> list[Status]:
        """See `Transport`."""
        answer = self._call("GET", _path(spec), None, timeout)
        try:
            return [
                Status(int(s["version"]), s["state"], s.get("status", {}).get("error_message", ""))
                for s in answer["model_version_status"]
            ]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            reason = "its response is not a model status of TF Serving"
            raise Failure(BAD_ANSWER, reason) from error

    def close(self) -> None:
        """See `Transport`."""
        self._connection.close()

    def _call(self, method: str, path: str, body: Any, timeout: float) -> dict[str, Any]:
        deadline = time.monotonic() + timeout
        connection = self._connection
        connection.timeout = timeout
        encoded = None if body is None else json.dumps(body).encode()
        headers = {} if body is None else {"Content-Type": "application/json"}
        try:
            if connection.sock is None:
                connection.connect()
            connection.sock.settimeout(timeout)
            # The socket's own timeout applies to each part.
            left = deadline - time.monotonic()
            timer = threading.Timer(left, _shut_down, [connection.sock])
            timer.start()
            try:
                connection.request(method, path, body=encoded, headers=headers)
                response = connection.getresponse()
                content = response.read()
            finally:
                timer.cancel()
            if time.monotonic() >= deadline:
                raise TimeoutError
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            late = time.monotonic() >= deadline
            raise _failure(TimeoutError() if late else error) from error
        return _answer(response, content)


def _shut_down(sock: socket.socket) -> None:
    """Interrupts any thread that waits for a socket."""
    # Not with SSLSocket's own method, which removes the object that another thread reads with.
    with contextlib.suppress(OSError):
        socket.socket.shutdown(sock, socket.SHUT_RDWR)


def _failure(error: Exception) -> Failure:
    """Converts an exception of `http.client` to a failure."""
    if isinstance(error, TimeoutError):
        return Failure(DEADLINE_EXCEEDED, "the time is over")
    if isinstance(error, (http.client.RemoteDisconnected, http.client.IncompleteRead)):
        reason = "the connection was closed before the response was complete"
        return Failure(UNAVAILABLE, reason, may_pass=True)
    if isinstance(error, http.client.HTTPException):
        reason = "it does not speak HTTP/1.1; for its gRPC port, write grpc://HOST:PORT"
        return Failure(BAD_ANSWER, reason)
    if isinstance(error, ssl.SSLError):
        known = tls_failure(f"{getattr(error, 'verify_message', '')} {error}")
        return known or Failure(BAD_ANSWER, f"TLS fails ({error.reason or error})")
    return Failure(UNAVAILABLE, str(error.strerror or error), may_pass=True)


def _path(spec: Spec) -> str:
    path = f"/v1/models/{urllib.parse.quote(spec.model, safe='')}"
    return path if spec.version is None else f"{path}/versions/{spec.version}"


def _answer(response: http.client.HTTPResponse, content: bytes) -> dict[str, Any]:
    """The JSON of a response. Raises `Failure` if it is an error or not JSON."""
    try:
        answer = json.loads(content)
    except (ValueError, RecursionError):
        answer = None
    status = response.status
    if status == 200 and isinstance(answer, dict):
        return answer
    message = answer.get("error") if isinstance(answer, dict) else None
    what = message if isinstance(message, str) else f"HTTP status {status} {response.reason}"
    # A proxy in front of the server may send these, too.
    of_proxies = (*_MAY_PASS, 413)
    if status == 200 or (status not in of_proxies and not isinstance(message, str)):
        raise Failure(BAD_ANSWER, f"it does not answer like TF Serving's REST API ({what})")
    wait = response.headers.get("Retry-After", "")
    raise Failure(
        _CODES.get(status, "INTERNAL"),
        what,
        may_pass=status in _MAY_PASS,
        retry_after=float(wait) if wait.isdecimal() else None,
    )
