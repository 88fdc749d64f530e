"""How much a server takes on at once: connections, and bytes of requests."""

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
# Of what is wrong with a request; aiohttp quotes all of it.
_MAX_QUOTED = 200
_CLIENTS_MISTAKES = (http_exceptions.HttpProcessingError, web.RequestPayloadError)


class Budget:
    """The bytes of the requests that are being received and answered, over both protocols."""

    def __init__(self, most: int) -> None:
        """Takes `most` bytes at once."""
        self._most = most
        self._used = 0

    @contextlib.contextmanager
    def reserved(self) -> Iterator[Reservation]:
        """Of one request, until the block ends."""
        reservation = Reservation(self)
        try:
            yield reservation
        finally:
            self._used -= reservation.size

    def take(self, size: int) -> None:
        """Raises ServingError (UNAVAILABLE) where there is no room for more."""
        if self._used + size > self._most:
            raise ServingError(
                "UNAVAILABLE",
                f"The requests being answered take the {self._most} bytes that they may: try "
                "again.",
            )
        self._used += size


class Reservation:
    """What one request takes of a `Budget`.

    Attributes:
        size: Bytes.
    """

    def __init__(self, budget: Budget) -> None:
        """Takes nothing yet."""
        self.size = 0
        self._budget = budget

    def add(self, size: int) -> None:
        """Takes more. Raises ServingError as `Budget.take`."""
        self._budget.take(size)
        self.size += size


class HttpServer(web.Server):
    """Answers HTTP requests by one handler, and errors of the protocol itself with JSON as well."""

    def __init__(
        self, handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]], **options: Any
    ) -> None:
        """Prepares.

        Args:
            handler: Answers a request.
            **options: Of the connections, as `web.Server` takes them.
        """
        cancels = options.pop("handler_cancellation", False)
        super().__init__(handler, handler_cancellation=cancels, **options)
        self._options = options

    def __call__(self) -> web.RequestHandler:
        """For a new connection."""
        return _Connection(self, loop=asyncio.get_running_loop(), **self._options)


class _Connection(web.RequestHandler):
    """A connection: its client gets its own mistakes as an answer, the log the server's."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The answer to what no handler could answer, such as a request that is no HTTP."""
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
        """Leaves out what a client sent that is not what its headers say."""
        if not isinstance(kwargs.get("exc_info"), _CLIENTS_MISTAKES):
            super().log_exception(*args, **kwargs)


def _reason(error: BaseException | None, message: str) -> str:
    """What is wrong with a request, where aiohttp's message is not for the client."""
    if isinstance(error, http_exceptions.LineTooLong):
        return f"its path or a header is longer than {error.args[1]} bytes"
    if isinstance(error, http_exceptions.ContentEncodingError):
        return "its Content-Encoding is not supported: use gzip, deflate or none"
    lines = message.strip().splitlines() or ["it can't be read"]
    return lines[0].strip().rstrip(":.")[:_MAX_QUOTED]


def error_response(message: str, status: int) -> web.Response:
    """An error as TensorFlow Serving's REST API tells it."""
    return json_response({"error": message}, status)


def json_response(value: Any, status: int = 200) -> web.Response:
    """An answer in JSON, which has no NaN."""
    return web.Response(
        body=json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8", "replace"),
        status=status,
        content_type="application/json",
    )


class Listener:
    """Makes aiohttp's protocols for a number of connections; tells others to come back."""

    def __init__(self, server: web.Server, most: int) -> None:
        """Wraps aiohttp's own."""
        self._server = server
        self._most = most

    def __call__(self) -> asyncio.Protocol:
        """For a new connection."""
        if len(self._server.connections) >= self._most:
            return _Busy()
        return self._server()


class _Busy(asyncio.Protocol):
    """Answers whatever is asked, and reads on until the client has had time to read that.

    Closing a connection of which not all was read resets it, and the answer may be lost on its way.
    """

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        body = json.dumps({"error": "The server has as many connections as it may: try again."})
        answer = (
            "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}"
        )
        transport.write(answer.encode())  # type: ignore[attr-defined]
        asyncio.get_running_loop().call_later(_LINGER_SECONDS, transport.close)
