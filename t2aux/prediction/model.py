"""Which model predicts: a path or a server's address, and how it is loaded."""

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
# Rows of a request: servers limit them, `t2aux serve` to 128.
_REQUEST_SIZE = 64
# Rows that one of the threads that run LiteRT takes at a time.
_ONE_BY_ONE = 16
# Requests in flight: the server has one to work on while others travel.
_REQUESTS = 4


@dataclasses.dataclass(frozen=True)
class Connection:
    """How a server is asked; see `t2aux client --help`.

    Attributes:
        version: The model's version; None for the newest.
        metadata: The metadata.json of the export, for a server that does not give it.
        timeout: Seconds that a request may take, with all its retries.
        retries: How often to try again.
        ca_file: PEM file of what the server's certificate must be signed by, for TLS.
        cert_file: PEM file of the certificate to show, for TLS.
        key_file: PEM file of its private key.
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
            model: Its name there.
            signature: That of whole sequences.

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
        """Keeps the classifier."""
        self.info = classifier.info
        self.source: Source | None = getattr(classifier, "source", None)
        self._classifier = classifier

    @abc.abstractmethod
    def __call__(self, sequences: Sequence[np.ndarray], rows: int) -> np.ndarray:
        """Classifies sequences [T, C] or [T].

        Args:
            sequences: At least one, at most `rows`.
            rows: The size that the batch is filled up to where the model is computed in batches,
                so that a prediction does not depend on what else is in the batch.

        Returns:
            float32 [B, K].
        """

    def close(self) -> None:  # noqa: B027  Most have none.
        """Ends a connection."""


@dataclasses.dataclass(frozen=True)
class Model:
    """A model by its place. Can be pickled: nothing is loaded yet.

    Attributes:
        place: A `.tflite` or `.keras` file, an export's directory, the model_dir of a run, or
            grpc://HOST:PORT/NAME or http://HOST:PORT/NAME of a server.
        checkpoint: Which one of a run; see `t2aux.run.load_run`.
        connection: For a server.
    """

    place: str
    checkpoint: str | None = None
    connection: Connection = Connection()

    @property
    def is_remote(self) -> bool:
        """Whether it is on a server."""
        return "://" in self.place

    def locate(self) -> location.Location:
        """Finds a model that is not on a server. Raises UserError where there is none."""
        return location.locate(paths.local(self.place, "The model"))

    @property
    def needs_tensorflow(self) -> bool:
        """Whether `load` imports TensorFlow. Raises UserError where there is no model."""
        return not self.is_remote and self.locate().needs_tensorflow

    @property
    def batch_size(self) -> int:
        """How many rows it computes at once by default. Raises UserError as `locate`."""
        if self.is_remote:
            return _REQUEST_SIZE
        return _ONE_BY_ONE if self.locate().form == "litert" else batching.BATCH_SIZE

    def load(self, callers: int) -> list[Caller]:
        """Loads it.

        Args:
            callers: How many threads are there to compute a `.tflite` file, which takes one
                sequence at a time.

        Returns:
            One caller for each thread that is to call the model: one where TensorFlow computes
            on all cores.

        Raises:
            UserError: It is missing or damaged, or its server can't be reached.
        """
        if self.is_remote:
            if self.checkpoint is not None:
                raise SettingError(
                    f"The checkpoint {self.checkpoint} would be one of a run's, and {self.place} "
                    "is a server: leave it out."
                )
            server, name = split_address(self.place)
            return [_Requests(self.connection.open(server, name)) for _ in range(_REQUESTS)]
        found = self.locate()
        if found.form != "litert":
            return [_Batches(found.load(self.checkpoint))]
        return [_OneByOne(found.load(self.checkpoint)) for _ in range(callers)]


def split_address(place: str) -> tuple[str, str]:
    """The server and the model's name of grpc://HOST:PORT/NAME.

    Raises:
        UserError: It has another form.
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
            # Kernels choose their order of summation by the batch's size.
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
    """A model on a server, a request for each batch."""

    def __call__(self, sequences: Sequence[np.ndarray], rows: int) -> np.ndarray:
        del rows
        probabilities = self._classifier.batch_probabilities(sequences)
        if self._classifier.info.classes != self.info.classes:
            raise ServerError(
                "The server has another version of the model now, with other classes: start again."
            )
        return probabilities

    def close(self) -> None:
        """Ends the connection."""
        self._classifier.close()
