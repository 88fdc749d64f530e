"""TF Serving's REST API.

Through http.client rather than `requests`: one connection that is kept, each error told apart, and
retries where we want them are all there is to it, and it starts at once.
"""

from __future__ import annotations

import http.client
import json
import ssl
import time
import urllib.parse
from collections.abc import Sequence
from typing import Any

import numpy as np

from t2aux.client.client_tls import ClientTls, failure
from t2aux.client.retries import (
    BAD_ANSWER,
    DEADLINE_EXCEEDED,
    NOT_FOUND,
    RESOURCE_EXHAUSTED,
    TOO_LARGE,
    UNAVAILABLE,
    UNIMPLEMENTED,
    Failure,
)
from t2aux.client.transport import Status, name_with_port

_CODES = {
    400: "INVALID_ARGUMENT",
    404: NOT_FOUND,
    408: DEADLINE_EXCEEDED,
    412: "FAILED_PRECONDITION",
    413: TOO_LARGE,
    429: RESOURCE_EXHAUSTED,
    501: UNIMPLEMENTED,
    502: UNAVAILABLE,
    503: UNAVAILABLE,
    504: DEADLINE_EXCEEDED,
}
_MAY_PASS = (429, 502, 503)
_CHUNK = 1 << 16


class RestTransport:
    """A connection to a server's REST port.

    Attributes:
        address: http://HOST:PORT, or https:.
    """

    def __init__(self, host: str, port: int, tls: ClientTls | None = None) -> None:
        """Connects with the first request."""
        self.address = name_with_port("https" if tls else "http", host, port)
        self._connection = (
            http.client.HTTPSConnection(host, port, context=tls.context)
            if tls
            else http.client.HTTPConnection(host, port)
        )

    def predict(
        self,
        model: str,
        version: int,
        signature: str,
        inputs: dict[str, np.ndarray],
        outputs: Sequence[str],
        timeout: float,
    ) -> dict[str, np.ndarray]:
        """See `Transport`."""
        body = {
            "signature_name": signature,
            "inputs": {name: array.tolist() for name, array in inputs.items()},
        }
        answer = self._call("POST", _path(model, version) + ":predict", body, timeout)
        found = answer.get("outputs")
        # A single output comes without its name.
        if isinstance(found, list) and len(outputs) == 1:
            found = {outputs[0]: found}
        try:
            arrays = {name: np.array(found[name]) for name in outputs}
        except (KeyError, TypeError, ValueError) as error:
            raise Failure(BAD_ANSWER, f"its answer has no outputs {', '.join(outputs)}") from error
        return arrays

    def status(self, model: str, version: int | None, timeout: float) -> list[Status]:
        """See `Transport`."""
        answer = self._call("GET", _path(model, version), None, timeout)
        try:
            return [
                Status(
                    int(entry["version"]),
                    entry["state"],
                    entry.get("status", {}).get("error_message", ""),
                )
                for entry in answer["model_version_status"]
            ]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise Failure(BAD_ANSWER, "its answer is no model status of TF Serving") from error

    def close(self) -> None:
        """See `Transport`."""
        self._connection.close()

    def _call(self, method: str, path: str, body: Any, timeout: float) -> dict[str, Any]:
        deadline = time.monotonic() + timeout
        connection = self._connection
        connection.timeout = timeout
        if connection.sock is not None:
            connection.sock.settimeout(timeout)
        encoded = None if body is None else json.dumps(body).encode()
        headers = {} if body is None else {"Content-Type": "application/json"}
        try:
            connection.request(method, path, body=encoded, headers=headers)
            response = connection.getresponse()
            content = bytearray()
            while part := response.read(_CHUNK):
                content += part
                if time.monotonic() > deadline:
                    raise TimeoutError
            if response.length:  # Reading by parts does not tell.
                raise http.client.IncompleteRead(bytes(content), response.length)
        except TimeoutError as error:
            connection.close()
            raise Failure(DEADLINE_EXCEEDED, "there was no answer in time") from error
        except (http.client.RemoteDisconnected, http.client.IncompleteRead) as error:
            connection.close()
            reason = "the connection was closed before the answer was there"
            raise Failure(UNAVAILABLE, reason, may_pass=True) from error
        except http.client.HTTPException as error:
            connection.close()
            raise Failure(
                BAD_ANSWER,
                "what listens there does not speak HTTP/1.1; for its gRPC port, write "
                "grpc://HOST:PORT",
            ) from error
        except ssl.SSLError as error:
            connection.close()
            told = failure(f"{getattr(error, 'verify_message', '')} {error}")
            if told is not None:
                raise told from error
            raise Failure(BAD_ANSWER, f"TLS fails ({error.reason or error})") from error
        except OSError as error:
            connection.close()
            reason = f"can't be reached ({error.strerror or error})"
            raise Failure(UNAVAILABLE, reason, may_pass=True) from error
        return _answer(response, bytes(content))


def _path(model: str, version: int | None) -> str:
    path = f"/v1/models/{urllib.parse.quote(model, safe='')}"
    return path if version is None else f"{path}/versions/{version}"


def _answer(response: http.client.HTTPResponse, content: bytes) -> dict[str, Any]:
    """The JSON of an answer; raises `Failure` where it is an error, or no JSON."""
    try:
        answer = json.loads(content)
    except (ValueError, RecursionError):
        answer = None
    status = response.status
    if status == 200 and isinstance(answer, dict):
        return answer
    told = answer.get("error") if isinstance(answer, dict) else None
    what = told if isinstance(told, str) else f"HTTP status {status} {response.reason}"
    # A proxy in front of the server may say these, too.
    plain = (*_MAY_PASS, 413)
    if status == 200 or (status not in plain and not isinstance(told, str)):
        reason = f"it does not answer as TF Serving's REST API does ({what})"
        raise Failure(BAD_ANSWER, reason)
    wait = response.headers.get("Retry-After", "")
    raise Failure(
        _CODES.get(status, "INTERNAL"),
        what,
        may_pass=status in _MAY_PASS,
        retry_after=float(wait) if wait.isdecimal() else None,
    )
