"""The errors that a request may end with, by the names that gRPC and TensorFlow share."""

from __future__ import annotations

from t2aux_ondevice.errors import printable

# TensorFlow Serving's own translation of its status codes to HTTP's.
HTTP_STATUS = {
    "CANCELLED": 499,
    "UNKNOWN": 500,
    "INVALID_ARGUMENT": 400,
    "DEADLINE_EXCEEDED": 504,
    "NOT_FOUND": 404,
    "RESOURCE_EXHAUSTED": 429,
    "FAILED_PRECONDITION": 400,
    "OUT_OF_RANGE": 400,
    "UNIMPLEMENTED": 501,
    "INTERNAL": 500,
    "UNAVAILABLE": 503,
    "DATA_LOSS": 500,
}


class ServingError(Exception):
    """A request's failure.

    Attributes:
        code: A key of `HTTP_STATUS`.
        message: One clear sentence for the client, on one line.
        http_status: What REST answers.
    """

    def __init__(self, code: str, message: str, http_status: int | None = None) -> None:
        """Makes the error; `http_status` is by default what the code stands for."""
        # It may quote names of the request's.
        message = printable(message)
        super().__init__(message)
        self.code = code
        self.message = message
        self.http_status = HTTP_STATUS[code] if http_status is None else http_status


def invalid(message: str) -> ServingError:
    """The client's mistake."""
    return ServingError("INVALID_ARGUMENT", message)
