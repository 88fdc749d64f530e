"""The connection to a server: the common interface of gRPC and REST, and the choice of one."""

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
    """A model and one of its versions, or None for all versions."""

    model: str
    version: int | None


@dataclasses.dataclass(frozen=True)
class Status:
    """The state of a model's version on a server.

    Attributes:
        version: The number of the version.
        state: "START", "LOADING", "AVAILABLE", "UNLOADING", "END" or "UNKNOWN".
        error: The error message, or "".
    """

    version: int
    state: str
    error: str = ""


class Transport(Protocol):
    """A connection to a server.

    Attributes:
        address: The address in the form that users write.
    """

    address: str

    def predict(
        self, spec: Spec, signature: str, inputs: Arrays, outputs: Sequence[str], timeout: float
    ) -> Arrays:
        """Runs a signature.

        Args:
            spec: The model and its version.
            signature: The name of the signature.
            inputs: Real values or whole numbers, by name; dimension 0 is the batch.
            outputs: The names of the requested outputs.
            timeout: The time limit in seconds.

        Returns:
            The outputs by name. Numbers may have a wider type; strings are str or bytes objects.

        Raises:
            Failure: The request failed.
        """
        ...

    def status(self, spec: Spec, timeout: float) -> list[Status]:
        """The states of one or all versions of a model. Raises `Failure`, see `predict`."""
        ...

    def close(self) -> None:
        """Closes the connection."""
        ...


def connect(server: str, tls: ClientTls | None = None) -> Transport:
    """Prepares the connection to a server. Nothing is sent yet.

    Args:
        server: grpc://HOST[:PORT] or http://HOST[:PORT], with TF Serving's default ports; or
            grpcs:// or https:// for TLS.
        tls: The certificates for TLS.

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
        tls.context  # noqa: B018  Raises an error for a wrong file now.
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
