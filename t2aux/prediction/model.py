"""The model for predictions, given by a path or a server's address, and its loading."""

from __future__ import annotations

import abc
import dataclasses
import urllib.parse
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from t2aux.errors import ServerError, SettingError
from t2aux.evaluation import location
from t2aux.prediction import batching
from t2aux_ondevice import paths
from t2aux_ondevice.sequences import padded

if TYPE_CHECKING:
    from t2aux.client.remote import RemoteClassifier
    from t2aux.data.source import Source
    from t2aux.export.runtimes import BatchClassifier
    from t2aux_ondevice.litert import LiteRTClassifier

SCHEMES = ("grpc", "grpcs", "http", "https")
# The number of rows per request. Servers limit it, `t2aux serve` to 128.
_REQUEST_SIZE = 64
# The number of rows that a thread running LiteRT takes at a time.
_ONE_BY_ONE = 16
# The number of requests in flight, so that the server is busy while others are being transferred.
_REQUESTS = 4


@dataclasses.dataclass(frozen=True)
class Connection:
    """The settings of the connection to a server; see `t2aux client --help`.

    Attributes:
        version: The model's version; None for the newest.
        metadata: The metadata.json of the export, if the server does not provide it.
        timeout: The maximum time of a request in seconds, including retries.
        retries: The number of times to retry a request.
        ca_file: For TLS, the PEM file of the CA that signed the server's certificate.
        cert_file: For TLS, the PEM file of the client certificate.
        key_file: For TLS, the PEM file of the private key of `cert_file`.
    """

    version: int | None = None
    metadata: str | None = None
    timeout: float = 60.0
    retries: int = 5
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None

    def open(self, server: str, model: str, signature: str = "serving_default") -> RemoteClassifier:
        """Connects to a model on a server.

        Args:
            server: grpc://HOST:PORT, or http://HOST:PORT.
            model: The name of the model on the server.
            signature: The signature for whole sequences.

        Raises:
            UserError: The server can't be reached or has no such model, or a file can't be read.
        """
        from t2aux.client import remote, transport
        from t2aux.client.client_tls import ClientTls
        from t2aux.client.retries import Retries

        described = None if self.metadata is None else remote.read_description(self.metadata)
        files = (self.ca_file, self.cert_file, self.key_file)
        return remote.RemoteClassifier(
            transport.connect(server, ClientTls(*files) if any(files) else None),
            model,
            version=self.version,
            signature=signature,
            described=described,
            attempts=Retries(self.timeout, self.retries),
        )


class Caller(abc.ABC):
    """A loaded model, used by one thread at a time.

    Attributes:
        info: The classes and the preprocessing.
        source: The data set that a run was trained on.
    """

    def __init__(self, classifier: BatchClassifier | LiteRTClassifier | RemoteClassifier) -> None:
        """Stores the classifier."""
        self.info = classifier.info
        self.source: Source | None = getattr(classifier, "source", None)
        self._classifier = classifier

    @abc.abstractmethod
    def __call__(self, sequences: Sequence[np.ndarray], rows: int) -> np.ndarray:
        """Classifies sequences [T, C] or [T].

        Args:
            sequences: At least one and at most `rows` sequences.
            rows: The size that the batch is padded to if the model computes batches, so that a
                prediction does not depend on the other sequences in the batch.

        Returns:
            float32 [B, K].
        """

    def close(self) -> None:  # noqa: B027  Most have none.
        """Closes the connection, if any."""


@dataclasses.dataclass(frozen=True)
class Model:
    """The location of a model. Can be pickled, since nothing is loaded yet.

    Attributes:
        place: A `.tflite` or `.keras` file, an export's directory, the model_dir of a run, or the
            address of a model on a server, grpc://HOST:PORT/NAME or http://HOST:PORT/NAME.
        checkpoint: The checkpoint of a run; see `t2aux.run.load_run`.
        connection: The connection to a server.
    """

    place: str
    checkpoint: str | None = None
    connection: Connection = Connection()

    @property
    def is_remote(self) -> bool:
        """Whether the model is on a server."""
        return "://" in self.place

    def locate(self) -> location.Location:
        """Finds a model that is not on a server. Raises UserError if it does not exist."""
        return location.locate(paths.local(self.place, "The model"))

    @property
    def needs_tensorflow(self) -> bool:
        """Whether `load` imports TensorFlow. Raises UserError if the model does not exist."""
        return not self.is_remote and self.locate().needs_tensorflow

    @property
    def batch_size(self) -> int:
        """The default number of rows to compute at once. Raises UserError, see `locate`."""
        if self.is_remote:
            return _REQUEST_SIZE
        return _ONE_BY_ONE if self.locate().form == "litert" else batching.BATCH_SIZE

    def load(self, callers: int) -> list[Caller]:
        """Loads the model.

        Args:
            callers: The number of threads available to run a `.tflite` file, which computes one
                sequence at a time.

        Returns:
            One caller for each thread that may call the model; only one with TensorFlow, which
            uses all cores itself.

        Raises:
            UserError: The model is missing or damaged, or its server can't be reached.
        """
        if self.is_remote:
            if self.checkpoint is not None:
                raise SettingError(
                    f"The checkpoint {self.checkpoint} is for a run, but {self.place} is a server: "
                    "leave it out."
                )
            server, name = split_address(self.place)
            return [_Requests(self.connection.open(server, name)) for _ in range(_REQUESTS)]
        found = self.locate()
        if found.form != "litert":
            return [_Batches(found.load(self.checkpoint))]
        return [_OneByOne(found.load(self.checkpoint)) for _ in range(callers)]


def split_address(place: str) -> tuple[str, str]:
    """Splits grpc://HOST:PORT/NAME into the server and the model's name.

    Raises:
        UserError: The address does not have this form.
    """
    scheme, _, rest = place.partition("://")
    host, _, name = rest.partition("/")
    name = urllib.parse.unquote(name.strip("/"))
    if scheme not in SCHEMES or not host or not name or "/" in name:
        raise SettingError(
            f"The model is {place!r}: give grpc://HOST:PORT/NAME or http://HOST:PORT/NAME with the "
            "model's name on the server, such as grpc://localhost:8500/digits; or a file or a "
            "folder."
        )
    return f"{scheme}://{host}", name


class _Batches(Caller):
    """A model that TensorFlow computes in batches."""

    def __call__(self, sequences: Sequence[np.ndarray], rows: int) -> np.ndarray:
        from t2aux import tf32

        inputs, lengths = padded(sequences)
        if len(inputs) < rows:
            # The order of summation in kernels depends on the batch size.
            filled = np.minimum(np.arange(rows), len(inputs) - 1)
            inputs, lengths = inputs[filled], lengths[filled]
        with tf32.off():
            return self._classifier.batch(inputs, lengths)[: len(sequences)]


class _OneByOne(Caller):
    """A `.tflite` file in LiteRT, one sequence at a time."""

    def __call__(self, sequences: Sequence[np.ndarray], rows: int) -> np.ndarray:
        del rows
        return np.stack([self._classifier.probabilities(sequence) for sequence in sequences])


class _Requests(Caller):
    """A model on a server, with one request per batch."""

    def __call__(self, sequences: Sequence[np.ndarray], rows: int) -> np.ndarray:
        del rows
        probabilities = self._classifier.batch_probabilities(sequences)
        if self._classifier.info.classes != self.info.classes:
            raise ServerError(
                "The server now has another version of the model, with other classes: start again."
            )
        return probabilities

    def close(self) -> None:
        """Closes the connection."""
        self._classifier.close()
