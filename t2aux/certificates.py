"""TLS keys and certificates for the server and the client."""

from __future__ import annotations

import os
import pathlib
import ssl
import stat

from absl import logging

from t2aux.errors import FileError, SettingError


def load_identity(
    context: ssl.SSLContext,
    certificate: str | os.PathLike[str],
    key: str | os.PathLike[str],
    name: str,
) -> None:
    """Loads a certificate and its private key.

    Args:
        context: The SSL context to load them into.
        certificate: A PEM file.
        key: A PEM file.
        name: The name of the two files in messages.

    Raises:
        UserError: A file is missing, is not PEM, or needs a passphrase; or the two don't belong
                together.
    """

    def passphrase() -> str:
        raise SettingError(
            f"The private key of {name} is encrypted, so it needs a "
            "passphrase: give one without (`openssl pkey -in KEY -out PLAIN`)."
        )

    try:
        context.load_cert_chain(certificate, key, password=passphrase)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            why = "they don't belong together: give the key that the certificate was made for"
        elif error.reason == "EE_KEY_TOO_SMALL":
            why = "the key is too short: make another of at least 2,048 bits"
        else:
            why = "they are not a certificate and a private key in PEM: check the files"
        raise SettingError(f"{name} can't be used: {why}.") from error
    except OSError as error:
        raise FileError(f"Can't read {name}: {error.strerror or error}.") from error


def warn_if_readable(path: pathlib.Path) -> None:
    """Warns if all users of the machine may read a file with a private key."""
    if path.stat().st_mode & stat.S_IROTH:
        logging.warning(
            "%s holds a private key, and everybody on this machine may read it: chmod 600 %s",
            path,
            path,
        )
