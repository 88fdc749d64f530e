"""TLS for both ports, from the file that TensorFlow Serving reads for its gRPC port."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import ssl
import tempfile

import grpc
from absl import logging
from google.protobuf import descriptor_pb2

from t2aux.certificates import load_identity, warn_if_readable
from t2aux.errors import UserError
from t2aux.serving import configuration

# As ssl_config.proto has them; tensorflow-serving-api lacks it.
_FIELDS = {"server_key": "string", "server_cert": "string", "custom_ca": "string"}
_FIELDS["client_verify"] = "bool"


@dataclasses.dataclass(frozen=True)
class ServerTls:
    """What a server shows and asks for. Keys and certificates are in PEM.

    Attributes:
        key: The server's private key.
        certificates: Its certificate, and those between it and a root.
        authority: The certificates that clients' must be signed by; "": the system's.
        verifies_clients: Whether clients must show a certificate.
    """

    key: str = dataclasses.field(repr=False)
    certificates: str
    authority: str = ""
    verifies_clients: bool = False

    def context(self) -> ssl.SSLContext:
        """For the REST port. Raises UserError: key, certificate or authority are no such."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        # Python's ssl reads them from files alone; this folder is the user's own.
        with tempfile.TemporaryDirectory(prefix="t2aux-tls-") as folder:
            files = {"key": self.key, "cert": self.certificates}
            paths = {name: os.path.join(folder, name) for name in files}
            for name, content in files.items():
                descriptor = os.open(paths[name], os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
                with os.fdopen(descriptor, "w") as file:
                    file.write(content)
            load_identity(
                context, paths["cert"], paths["key"], "server_cert and server_key of the SSLConfig"
            )
        if self.verifies_clients:
            context.verify_mode = ssl.CERT_REQUIRED
            try:
                context.load_verify_locations(cadata=self.authority)
            except ssl.SSLError as error:
                raise UserError(
                    "custom_ca of the SSLConfig is no certificate in PEM: copy it into the file "
                    "whole."
                ) from error
        return context

    def credentials(self) -> grpc.ServerCredentials:
        """For the gRPC port."""
        return grpc.ssl_server_credentials(
            [(self.key.encode(), self.certificates.encode())],
            self.authority.encode() or None,
            require_client_auth=self.verifies_clients,
        )


def read_ssl_config(path: str) -> ServerTls:
    """Reads --ssl_config_file, an SSLConfig. Warns where others may read the key.

    Raises:
        UserError: It can't be read, or something in it is missing or wrong.
    """
    message = _message()
    configuration.parse(path, message, "SSLConfig")
    for name in ("server_key", "server_cert"):
        if "-----BEGIN " not in getattr(message, name):
            raise UserError(
                f"{path} has no {name}: it is the content of a PEM file, from -----BEGIN on, and "
                "not the file's name."
            )
    if message.client_verify and not message.custom_ca:
        raise UserError(
            f"{path} asks for client_verify but has no custom_ca: give the certificate that the "
            "clients' are signed by."
        )
    warn_if_readable(pathlib.Path(path))
    if message.custom_ca and not message.client_verify:
        logging.warning("%s has a custom_ca, but without client_verify nobody is checked.", path)
    found = ServerTls(
        message.server_key, message.server_cert, message.custom_ca, message.client_verify
    )
    found.context()
    return found


def _message() -> object:
    file = descriptor_pb2.FileDescriptorProto(
        name="t2aux/ssl_config.proto", package="t2aux.serving", syntax="proto3"
    )
    described = file.message_type.add(name="SSLConfig")
    kinds = {"string": 9, "bool": 8}
    for number, (name, kind) in enumerate(_FIELDS.items(), 1):
        described.field.add(name=name, number=number, label=1, type=kinds[kind])
    return configuration.made(file, "SSLConfig")
