"""TLS of the client: the certificates that it trusts and presents."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
import ssl

from t2aux.certificates import load_identity, warn_if_readable
from t2aux.client.retries import BAD_ANSWER, Failure
from t2aux.errors import FileError, SettingError

_OTHER_HOST = "its certificate is for another host"
_UNTRUSTED = "its certificate is not signed by one that is trusted; give --ca_file"
_ASKS = "it asks for a certificate; give --cert_file and --key_file"
_DISTRUSTS = "it does not trust the certificate of --cert_file"
_NOT_TLS = "it does not speak TLS; write http:// or grpc://"
# Keyed by parts of the messages of the TLS libraries of gRPC and Python, without underscores.
_REASONS = {
    "expired": "its certificate has expired",
    "not yet valid": "its certificate is not valid yet",
    "hostname mismatch": _OTHER_HOST,
    "ip address mismatch": _OTHER_HOST,
    "is not in peer certificate": _OTHER_HOST,
    "not valid for": _OTHER_HOST,
    "hostname verification": _OTHER_HOST,
    "self-signed": _UNTRUSTED,
    "self signed": _UNTRUSTED,
    "local issuer": _UNTRUSTED,
    "certificate verify failed": "its certificate can't be verified; give --ca_file",
    "certificate required": _ASKS,
    "unknown ca": _DISTRUSTS,
    "unknown certificate authority": _DISTRUSTS,
    "wrong version number": _NOT_TLS,
    "record layer failure": _NOT_TLS,
}


@dataclasses.dataclass(frozen=True)
class ClientTls:
    """The certificates that the client trusts and presents.

    Attributes:
        ca_file: The PEM file of the CA certificates that may sign the server's; None for those that
            the system trusts.
        cert_file: The PEM file of the client certificate, presented if the server requests one; or
            None.
        key_file: The PEM file of the private key of `cert_file`.
    """

    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None

    @functools.cached_property
    def context(self) -> ssl.SSLContext:
        """The context, which verifies the server and its host name.

        Raises:
            UserError: A file is missing or wrong.
        """
        if (self.cert_file is None) != (self.key_file is None):
            raise SettingError("Give --cert_file and --key_file together.")
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
        except ssl.SSLError as error:
            raise SettingError(
                f"{self.ca_file} has no certificate in PEM: give the one that signs the server's."
            ) from error
        except OSError as error:
            raise FileError(f"Can't read {self.ca_file}: {error.strerror or error}.") from error
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self.cert_file is not None and self.key_file is not None:
            name = f"{self.cert_file} with {self.key_file}"
            load_identity(context, self.cert_file, self.key_file, name)
            warn_if_readable(pathlib.Path(self.key_file))
        return context

    def pem(self) -> tuple[bytes | None, bytes | None, bytes | None]:
        """The checked CAs (None for gRPC's own), key and certificate. Raises UserError."""
        trusted = self.context.get_ca_certs(binary_form=True)
        authorities = "".join(map(ssl.DER_cert_to_PEM_cert, trusted)).encode() or None
        if self.ca_file is not None:
            authorities = pathlib.Path(self.ca_file).read_bytes()
        if self.cert_file is None or self.key_file is None:
            return authorities, None, None
        read = (pathlib.Path(p).read_bytes() for p in (self.key_file, self.cert_file))
        return (authorities, *read)


def failure(text: str) -> Failure | None:
    """The failure for a failed handshake, which is not retried; None for other errors."""
    text = text.lower().replace("_", " ")
    reason = next((reason for sign, reason in _REASONS.items() if sign in text), None)
    return reason and Failure(BAD_ANSWER, reason)
