"""The connection to a server: the interface of gRPC and REST, and the choice of either."""

from __future__ import annotations

import dataclasses
import urllib.parse
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from t2aux.errors import DependencyError, SettingError

if TYPE_CHECKING:
    from t2aux.client.client_tls import ClientTls

_PORTS = {"grpc": 8500, "grpcs": 8500, "http": 8501, "https": 8501}  # TF Serving's own.


Arrays = dict[str, np.ndarray]


class Spec(NamedTuple):
    """A model, and one of its versions; None: all of them."""

    model: str
    version: int | None


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
    """A connection to a server.

    Attributes:
        address: As a user writes it.
    """

    address: str

    def predict(
        self, spec: Spec, signature: str, inputs: Arrays, outputs: Sequence[str], timeout: float
    ) -> Arrays:
        """Runs a signature.

        Args:
            spec: The model and its version.
            signature: Its signature's name.
            inputs: Real values or whole numbers, by name; dimension 0 is the batch.
            outputs: The outputs that are wanted.
            timeout: In seconds.

        Returns:
            The outputs by name; numbers may be of a wider type, strings are str or bytes objects.

        Raises:
            Failure: The request failed.
        """
        ...

    def status(self, spec: Spec, timeout: float) -> list[Status]:
        """The states of a model's versions, or of one. Raises `Failure` as `predict`."""
        ...

    def close(self) -> None:
        """Ends the connection."""
        ...


def connect(server: str, tls: ClientTls | None = None) -> Transport:
    """Prepares the connection to a server; nothing is sent yet.

    Args:
        server: grpc://HOST[:PORT] or http://HOST[:PORT]; TF Serving's ports by default. With TLS
            grpcs:// or https://.
        tls: The certificates, for the latter.

    Returns:
        The connection.

    Raises:
        UserError: The address is invalid or not for `tls`, a file of `tls` is missing or wrong, or
            gRPC is not installed.
    """
    try:
        parts = urllib.parse.urlsplit(server)
        host, port = parts.hostname, parts.port
    except ValueError:
        parts = host = port = None
    rest = parts and (parts.path.strip("/") or parts.query or parts.username)
    if parts is None or parts.scheme not in _PORTS or not host or port == 0 or rest:
        raise SettingError(
            f"The server's address is {server!r}: give grpc://HOST:PORT or http://HOST:PORT."
        )
    port = port or _PORTS[parts.scheme]
    if parts.scheme.endswith("s"):
        from t2aux.client.client_tls import ClientTls

        tls = tls or ClientTls()
        tls.context  # noqa: B018  So that a wrong file is an error now.
    elif tls is not None:
        address = f"{parts.scheme}s://{parts.netloc}"
        raise SettingError(f"--ca_file, --cert_file and --key_file are for TLS: write {address}.")
    if parts.scheme in ("http", "https"):
        from t2aux.client.rest import RestTransport

        return RestTransport(host, port, tls)
    try:
        from t2aux.client.grpc_transport import GrpcTransport
    except ImportError as error:
        raise DependencyError(
            f"gRPC can't be imported ({error}): `pip install 't2aux[serving]'`, or use the REST "
            "port, http://HOST:PORT."
        ) from error
    return GrpcTransport(host, port, tls)
