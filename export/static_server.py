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
    # Isolation, which builds of LiteRT.js with threads would need.
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    # Makes browsers show a new build of the page immediately.
    "Cache-Control": "no-cache",
}
# Browsers reject modules and WebAssembly of other types, and the system's table may not have them.
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
        """Does not list folders."""
        self.send_error(HTTPStatus.NOT_FOUND)

    def log_message(self, format: str, *args: Any) -> None:
        """Does not log requests."""

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError, TimeoutError):  # The browser went away.
            super().handle()


class Server(http.server.ThreadingHTTPServer):
    """A listening server; `serve_forever` handles requests.

    Attributes:
        url: The page's address.
    """

    def __init__(self, directory: pathlib.Path, host: str, port: int) -> None:
        """Starts listening.

        Args:
            directory: The folder to serve.
            host: The address to listen on.
            port: The port to listen on; 0 for any free one.

        Raises:
            UserError: The address is in use, or not that of this machine.
        """
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            self.address_family, _, _, _, address = found[0]
            super().__init__(address, functools.partial(_Handler, directory=str(directory)))
        except OSError as error:
            raise ServerError(
                f"Can't listen on {host}:{port} ({error.strerror or error}): give another --host "
                "or --port."
            ) from error
        name = f"[{host}]" if ":" in host else host
        self.url = f"http://{name}:{self.server_port}/"
