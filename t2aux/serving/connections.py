"""Limits of a server: connections, and bytes of requests, at once."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from absl import logging
from aiohttp import http_exceptions, web

from t2aux.serving.status import ServingError

# As long as a client on another continent needs to read an answer and close.
_LINGER_SECONDS = 1.0
# Characters of aiohttp's message, which quotes the whole request.
_MAX_QUOTED = 200
_CLIENT_ERRORS = (http_exceptions.HttpProcessingError, web.RequestPayloadError)


class Budget:
    """The bytes of the requests that are being received and answered, over both protocols."""

    def __init__(self, max_bytes: int) -> None:
        """Allows `max_bytes` at once."""
        self._max_bytes = max_bytes
        self._used = 0

    @contextlib.contextmanager
    def reserved(self) -> Iterator[Callable[[int], None]]:
        """Yields what reserves bytes for one request, until the block ends.

        It raises ServingError (UNAVAILABLE) where there is no space for more.
        """
        reserved = 0

        def reserve(size: int) -> None:
            nonlocal reserved
            if self._used + size > self._max_bytes:
                reason = f"The requests being answered take all {self._max_bytes} bytes: try again."
                raise ServingError("UNAVAILABLE", reason)
            self._used += size
            reserved += size

        try:
            yield reserve
        finally:
            self._used -= reserved


class HttpServer(web.Server):
    """Answers HTTP requests by one handler; errors of the protocol itself are JSON, too."""

    def __init__(
        self,
        handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]],
        max_connections: int,
        **options: Any,
    ) -> None:
        """Prepares.

        Args:
            handler: Answers a request.
            max_connections: More are asked to try again.
            **options: Of the connections, as `web.Server` takes them.
        """
        cancels = options.pop("handler_cancellation", False)
        super().__init__(handler, handler_cancellation=cancels, **options)
        self._max_connections = max_connections
        self._options = options

    def __call__(self) -> asyncio.Protocol:
        """For a new connection."""
        if len(self.connections) >= self._max_connections:
            return _Busy()
        return _Connection(self, loop=asyncio.get_running_loop(), **self._options)


class _Connection(web.RequestHandler):
    """A connection that answers malformed requests; only the server's own errors are logged."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The answer to a request that reaches no handler, such as one that is not HTTP."""
        if status >= 500:
            logging.error("A request failed.", exc_info=exc)
            shown = "The server failed; its log says why."
        else:
            shown = f"Malformed HTTP request: {_reason(exc, message or '')}."
        if request.writer.output_size > 0:
            raise ConnectionError("a part of another answer was sent")
        response = error_response(shown, status)
        response.force_close()
        return response

    def log_exception(self, *args: Any, **kwargs: Any) -> None:
        """Leaves out the body of a client that contradicts its headers."""
        if not isinstance(kwargs.get("exc_info"), _CLIENT_ERRORS):
            super().log_exception(*args, **kwargs)


def _reason(error: BaseException | None, message: str) -> str:
    """What is wrong with a request, in words for the client."""
    if isinstance(error, http_exceptions.LineTooLong):
        return f"its path or a header is longer than {error.args[1]} bytes"
    if isinstance(error, http_exceptions.ContentEncodingError):
        return "its Content-Encoding is not supported: use gzip, deflate or none"
    lines = message.strip().splitlines() or ["it can't be read"]
    return lines[0].strip().rstrip(":.")[:_MAX_QUOTED]


def error_response(message: str, status: int) -> web.Response:
    """An error in the format of TensorFlow Serving's REST API."""
    return json_response({"error": message}, status)


def json_response(value: Any, status: int = 200) -> web.Response:
    """An answer in JSON, which has no NaN."""
    return web.Response(
        body=json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8", "replace"),
        status=status,
        content_type="application/json",
    )


class _Busy(asyncio.Protocol):
    """Answers 503 to any request, and reads until the client has had time to read that.

    Closing a connection of which not all was read resets it, and the answer may be lost on its way.
    """

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        body = json.dumps({"error": "The server has too many connections: try again."})
        answer = (
            "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}"
        )
        transport.write(answer.encode())  # type: ignore[attr-defined]
        asyncio.get_running_loop().call_later(_LINGER_SECONDS, transport.close)
