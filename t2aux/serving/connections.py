"""How much a server takes on at once: connections, and bytes of requests."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Iterator

from aiohttp import web

from t2aux.serving.status import ServingError

# As long as a client on another continent needs to read an answer and close.
_LINGER_SECONDS = 1.0


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
