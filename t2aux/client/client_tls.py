"""TLS of the client: whom to trust, and what to show."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
import ssl

from t2aux.certificates import load_identity, warn_if_readable
from t2aux.client.retries import BAD_ANSWER, Failure
from t2aux.errors import UserError

# What gRPC's TLS library and Python's call the same, and what is told.
_REASONS = {
    "expired": "its certificate has expired",
    "not yet valid": "its certificate is not valid yet",
    "hostname mismatch": "its certificate is for another host",
    "ip address mismatch": "its certificate is for another host",
    "is not in peer certificate": "its certificate is for another host",
    "not valid for": "its certificate is for another host",
    "hostname verification": "its certificate is for another host",
    "self-signed": "its certificate is not signed by one that is trusted; give --ca_file",
    "self signed": "its certificate is not signed by one that is trusted; give --ca_file",
    "local issuer": "its certificate is not signed by one that is trusted; give --ca_file",
    "certificate_verify_failed": "its certificate can't be verified; give --ca_file",
    "certificate required": "it asks for a certificate; give --cert_file and --key_file",
    "certificate_required": "it asks for a certificate; give --cert_file and --key_file",
    "unknown ca": "it does not trust the certificate of --cert_file",
    "unknown_ca": "it does not trust the certificate of --cert_file",
    "unknown_certificate_authority": "it does not trust the certificate of --cert_file",
    "wrong version number": "what listens there does not speak TLS; write http:// or grpc://",
    "wrong_version_number": "what listens there does not speak TLS; write http:// or grpc://",
    "record layer failure": "what listens there does not speak TLS; write http:// or grpc://",
}


@dataclasses.dataclass(frozen=True)
class ClientTls:
    """Whom to trust, and what to show.

    Attributes:
        ca_file: A PEM file of the certificates that the server's must be signed by; None: those
            that the system trusts.
        cert_file: A PEM file of the certificate to show a server that asks; None: none.
        key_file: The PEM file of its private key.
    """

    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None

    @functools.cached_property
    def context(self) -> ssl.SSLContext:
        """Checks server and host name. Raises UserError: a file is missing or wrong."""
        if (self.cert_file is None) != (self.key_file is None):
            raise UserError("Give --cert_file and --key_file together.")
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
        except ssl.SSLError as error:
            raise UserError(
                f"{self.ca_file} holds no certificate in PEM: give the one that the server's is "
                "signed by."
            ) from error
        except OSError as error:
            raise UserError(f"Can't read {self.ca_file}: {error.strerror or error}.") from error
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self.cert_file is not None and self.key_file is not None:
            name = f"{self.cert_file} with {self.key_file}"
            load_identity(context, self.cert_file, self.key_file, name)
            warn_if_readable(pathlib.Path(self.key_file))
        return context

    def pem(self) -> tuple[bytes | None, bytes | None, bytes | None]:
        """Authorities (None: gRPC's own), key and certificate, checked. Raises UserError."""
        trusted = self.context.get_ca_certs(binary_form=True)
        authorities = "".join(map(ssl.DER_cert_to_PEM_cert, trusted)).encode() or None
        if self.ca_file is not None:
            authorities = pathlib.Path(self.ca_file).read_bytes()
        if self.cert_file is None or self.key_file is None:
            return authorities, None, None
        read = (pathlib.Path(p).read_bytes() for p in (self.key_file, self.cert_file))
        return (authorities, *read)


def failure(text: str) -> Failure | None:
    """What a failed handshake means, for good; None where it is something else."""
    low = text.lower()
    for sign, reason in _REASONS.items():
        if sign in low:
            return Failure(BAD_ANSWER, reason)
    return None
