"""TLS for both ports, from the file that TensorFlow Serving reads for its gRPC port."""

from __future__ import annotations

import dataclasses
import pathlib
import ssl
import tempfile

import grpc
from absl import logging

from t2aux.certificates import load_identity, warn_if_readable
from t2aux.errors import SettingError
from t2aux.serving import configuration


@dataclasses.dataclass(frozen=True)
class ServerTls:
    """A server's TLS settings. Keys and certificates are in PEM.

    Attributes:
        key: The server's private key.
        certificates: The server's certificate, and the intermediate ones.
        authority: The CA certificates that may sign those of clients; "" for the system's.
        verifies_clients: Whether clients must present a certificate.
    """

    key: str = dataclasses.field(repr=False)
    certificates: str
    authority: str = ""
    verifies_clients: bool = False

    def context(self) -> ssl.SSLContext:
        """The context for the REST port.

        Raises:
            UserError: The key, a certificate or the authority is not valid.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        # Python's ssl reads them only from files. Only this user can access the folder.
        with tempfile.TemporaryDirectory(prefix="t2aux-tls-") as folder:
            key, certificates = pathlib.Path(folder, "key"), pathlib.Path(folder, "certificates")
            key.write_text(self.key)
            certificates.write_text(self.certificates)
            name = "server_cert and server_key of the SSLConfig"
            load_identity(context, certificates, key, name)
        if self.verifies_clients:
            context.verify_mode = ssl.CERT_REQUIRED
            try:
                context.load_verify_locations(cadata=self.authority)
            except ssl.SSLError as error:
                raise SettingError(
                    "custom_ca of the SSLConfig is not a whole certificate in PEM: copy it again."
                ) from error
        return context

    def credentials(self) -> grpc.ServerCredentials:
        """The credentials for the gRPC port."""
        return grpc.ssl_server_credentials(
            [(self.key.encode(), self.certificates.encode())],
            self.authority.encode() or None,
            require_client_auth=self.verifies_clients,
        )


def read_ssl_config(path: str) -> ServerTls:
    """Reads --ssl_config_file, an SSLConfig. Warns if other users can read the key.

    Raises:
        UserError: The file can't be read, or a setting is missing or wrong.
    """
    message = configuration.parse(path, "SSLConfig")
    for name in ("server_key", "server_cert"):
        if "-----BEGIN " not in getattr(message, name):
            raise SettingError(
                f"{path} has no {name}: give a PEM file's content (-----BEGIN ...), not its name."
            )
    if message.client_verify and not message.custom_ca:
        raise SettingError(
            f"{path} has client_verify but no custom_ca: give the certificate that signs clients'."
        )
    warn_if_readable(pathlib.Path(path))
    if message.custom_ca and not message.client_verify:
        logging.warning("%s has a custom_ca, but without client_verify no client is checked.", path)
    found = ServerTls(
        message.server_key, message.server_cert, message.custom_ca, message.client_verify
    )
    found.context()
    return found
