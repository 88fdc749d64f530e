"""The errors of requests, with the codes that gRPC and TensorFlow share."""

from __future__ import annotations

from t2aux.tf_serving import HTTP_STATUS
from t2aux_ondevice.errors import printable


class ServingError(Exception):
    """The failure of a request.

    Attributes:
        code: A key of `HTTP_STATUS`.
        message: One clear sentence for the client, on one line.
        http_status: The status of the REST response.
    """

    def __init__(self, code: str, message: str, http_status: int | None = None) -> None:
        """Makes the error. `http_status` defaults to that of the code."""
        # The message may quote names from the request.
        message = printable(message)
        super().__init__(message)
        self.code = code
        self.message = message
        self.http_status = HTTP_STATUS[code] if http_status is None else http_status


def invalid(message: str) -> ServingError:
    """The error for an invalid request."""
    return ServingError("INVALID_ARGUMENT", message)
