"""A server's limits on concurrent connections and on the bytes of concurrent requests."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from absl import logging
from aiohttp import http_exceptions, web

from t2aux.serving.status import ServingError

# Enough time for a client on another continent to read an answer and close the connection.
_LINGER_SECONDS = 1.0
# The maximum number of characters of aiohttp's message, which quotes the whole request.
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
        """Yields a function that reserves bytes for one request until the block ends.

        The function raises ServingError (UNAVAILABLE) if the limit is exceeded.
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
    """Answers HTTP requests with one handler. Errors of the protocol itself are JSON, too."""

    def __init__(
        self,
        handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]],
        max_connections: int,
        **options: Any,
    ) -> None:
        """Initializes the server.

        Args:
            handler: Answers a request.
            max_connections: The maximum number of connections; others are refused.
            **options: The options of connections for `web.Server`.
        """
        cancels = options.pop("handler_cancellation", False)
        super().__init__(handler, handler_cancellation=cancels, **options)
        self._max_connections = max_connections
        self._options = options

    def __call__(self) -> asyncio.Protocol:
        """Makes the protocol for a new connection."""
        if len(self.connections) >= self._max_connections:
            return _Busy()
        return _Connection(self, loop=asyncio.get_running_loop(), **self._options)


class _Connection(web.RequestHandler):
    """A connection that answers malformed requests. Only the server's own errors are logged."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The answer to a request that does not reach a handler, such as one that is not HTTP."""
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
        """Does not log the body of a request that contradicts its headers."""
        if not isinstance(kwargs.get("exc_info"), _CLIENT_ERRORS):
            super().log_exception(*args, **kwargs)


def _reason(error: BaseException | None, message: str) -> str:
    """The error in a request, in words for the client."""
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
    """An answer in JSON, which does not support NaN."""
    return web.Response(
        body=json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8", "replace"),
        status=status,
        content_type="application/json",
    )


class _Busy(asyncio.Protocol):
    """Answers any request with 503, and keeps reading until the client had time to read the answer.

    Closing a connection with unread data resets it, and the answer may get lost.
    """

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        body = json.dumps({"error": "The server has too many connections: try again."})
        answer = (
            "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}"
        )
        transport.write(answer.encode())  # type: ignore[attr-defined]
        asyncio.get_running_loop().call_later(_LINGER_SECONDS, transport.close)
