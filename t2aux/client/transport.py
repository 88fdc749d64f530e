"""How a request reaches a server: what gRPC and REST have in common, and the choice of either."""

from __future__ import annotations

import dataclasses
import urllib.parse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from t2aux.addresses import with_port
from t2aux.errors import UserError

if TYPE_CHECKING:
    from t2aux.client.client_tls import ClientTls

_PORTS = {"grpc": 8500, "grpcs": 8500, "http": 8501, "https": 8501}  # TF Serving's own.


@dataclasses.dataclass(frozen=True)
class Status:
    """The state of a model's version on a server.

    Attributes:
        version: Its number.
        state: "START", "LOADING", "AVAILABLE", "UNLOADING", "END" or "UNKNOWN".
        error: What went wrong, or "".
    """

    version: int
    state: str
    error: str = ""


class Transport(Protocol):
    """A way to a server.

    Attributes:
        address: What the user called it.
    """

    address: str

    def predict(
        self,
        model: str,
        version: int,
        signature: str,
        inputs: dict[str, np.ndarray],
        outputs: Sequence[str],
        timeout: float,
    ) -> dict[str, np.ndarray]:
        """Runs a signature.

        Args:
            model: The model's name.
            version: Its version.
            signature: Its signature's name.
            inputs: Real values or whole numbers, by name; dimension 0 is the batch.
            outputs: The outputs that are wanted.
            timeout: In seconds.

        Returns:
            The outputs by name; numbers may be of a wider type, strings are str or bytes objects.

        Raises:
            Failure: There is no good answer.
        """
        ...

    def status(self, model: str, version: int | None, timeout: float) -> list[Status]:
        """The states of a model's versions, or of one. Raises `Failure` as `predict`."""
        ...

    def close(self) -> None:
        """Ends the connection."""
        ...


def connect(server: str, tls: ClientTls | None = None) -> Transport:
    """Chooses the way to a server; nothing is sent yet.

    Args:
        server: grpc://HOST[:PORT] or http://HOST[:PORT]; TF Serving's ports by default. With TLS
            grpcs:// or https://.
        tls: Whom to trust and what to show, for the latter.

    Returns:
        The way.

    Raises:
        UserError: The address is no such, `tls` is for another, a file of `tls` is missing or
            wrong, or gRPC is not installed.
    """
    try:
        parts = urllib.parse.urlsplit(server)
        host, port = parts.hostname, parts.port
    except ValueError:
        parts = host = port = None
    if (
        parts is None
        or parts.scheme not in _PORTS
        or not host
        or port == 0
        or parts.path.strip("/")
        or parts.query
        or parts.username
    ):
        raise UserError(
            f"The server's address is {server!r}: give grpc://HOST:PORT or http://HOST:PORT, such "
            "as grpc://localhost:8500."
        )
    port = port or _PORTS[parts.scheme]
    if parts.scheme.endswith("s"):
        from t2aux.client.client_tls import ClientTls

        tls = tls or ClientTls()
        tls.context  # noqa: B018  Told now where a file is wrong.
    elif tls is not None:
        raise UserError(
            f"--ca_file, --cert_file and --key_file are for TLS, and {server} is without: write "
            f"{parts.scheme}s://{parts.netloc}."
        )
    if parts.scheme in ("http", "https"):
        from t2aux.client.rest import RestTransport

        return RestTransport(host, port, tls)
    try:
        from t2aux.client.grpc_transport import GrpcTransport
    except ImportError as error:
        raise UserError(
            f"gRPC can't be imported ({error}): install it with `pip install 't2aux[serving]'`, or "
            "use the server's REST port, http://HOST:PORT."
        ) from error
    return GrpcTransport(host, port, tls)


def name_with_port(scheme: str, host: str, port: int) -> str:
    """An address as a user writes it."""
    return f"{scheme}://{with_port(host, port)}"
