"""The flags of the commands that send requests to a server."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from absl import flags

from t2aux.cli import common

if TYPE_CHECKING:
    from t2aux.prediction.model import Connection

flags.DEFINE_integer(
    "version", None, "The model's version; by default the newest that is ready.", lower_bound=1
)
common.define_path(
    "metadata",
    None,
    "The metadata.json of the export, or its folder, if the server does not provide it.",
)
flags.DEFINE_float(
    "timeout", 60.0, "Maximum time of a request in seconds, including retries.", lower_bound=0.001
)
common.define_path(
    "ca_file", None, "For TLS: PEM file of the CA that signed the server's certificate."
)
common.define_path("cert_file", None, "For TLS: PEM file of the client certificate.")
common.define_path("key_file", None, "For TLS: PEM file of the private key of --cert_file.")
flags.DEFINE_integer("retries", 5, "How many times to retry a request.", lower_bound=0)


def connection() -> Connection:
    """The connection to the server that the flags describe."""
    from t2aux.prediction.model import Connection

    names = [field.name for field in dataclasses.fields(Connection)]
    return Connection(**{name: flags.FLAGS[name].value for name in names})
