"""The flags of the commands that ask a server."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from absl import flags

from t2aux.cli import common

if TYPE_CHECKING:
    from t2aux.prediction.model import Connection

flags.DEFINE_integer(
    "version", None, "The model's version; the newest that is ready if not set.", lower_bound=1
)
common.define_path(
    "metadata",
    None,
    "The metadata.json of the export, or its folder: for a server that does not give it.",
)
flags.DEFINE_float(
    "timeout", 60.0, "Seconds that a request may take, with all its retries.", lower_bound=0.001
)
common.define_path(
    "ca_file", None, "PEM file of what the server's certificate must be signed by, for TLS."
)
common.define_path("cert_file", None, "PEM file of the certificate to show, for TLS.")
common.define_path("key_file", None, "PEM file of its private key.")
flags.DEFINE_integer("retries", 5, "How often to try again.", lower_bound=0)


def connection() -> Connection:
    """What the flags say of how a server is asked."""
    from t2aux.prediction.model import Connection

    names = [field.name for field in dataclasses.fields(Connection)]
    return Connection(**{name: flags.FLAGS[name].value for name in names})
