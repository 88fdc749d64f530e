"""Serves a folder of static files, for a browser on this machine."""

from __future__ import annotations

import contextlib
import functools
import http.server
import pathlib
import socket
from http import HTTPStatus
from typing import Any, ClassVar

from t2aux.errors import ServerError

_HEADERS = {
    # Isolation, which a build of LiteRT.js with threads would need.
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    # So that a new build of the page is shown at once.
    "Cache-Control": "no-cache",
}
# Browsers refuse modules and WebAssembly of another type, and the system's table may lack them.
_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".mjs": "text/javascript; charset=utf-8",
    ".tflite": "application/octet-stream",
    ".wasm": "application/wasm",
}
_TIMEOUT_SECONDS = 30


class _Handler(http.server.SimpleHTTPRequestHandler):
    extensions_map: ClassVar = {**http.server.SimpleHTTPRequestHandler.extensions_map, **_TYPES}
    timeout = _TIMEOUT_SECONDS
    server_version = "t2aux"

    def end_headers(self) -> None:
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def list_directory(self, path: Any) -> None:
        """Refuses to list a folder."""
        self.send_error(HTTPStatus.NOT_FOUND)

    def log_message(self, format: str, *args: Any) -> None:
        """Does not log requests."""

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError, TimeoutError):  # The browser went away.
            super().handle()


class Server(http.server.ThreadingHTTPServer):
    """A server that listens; `serve_forever` handles requests.

    Attributes:
        url: The page's address.
    """

    def __init__(self, directory: pathlib.Path, host: str, port: int) -> None:
        """Listens.

        Args:
            directory: What to serve.
            host: Address to listen at.
            port: Port to listen at; 0 for any that is free.

        Raises:
            UserError: The address is taken, or not this machine's.
        """
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            self.address_family, _, _, _, address = found[0]
            super().__init__(address, functools.partial(_Handler, directory=str(directory)))
        except OSError as error:
            raise ServerError(
                f"Can't listen at {host}:{port} ({error.strerror or error}): give another --host "
                "or --port."
            ) from error
        name = f"[{host}]" if ":" in host else host
        self.url = f"http://{name}:{self.server_port}/"
