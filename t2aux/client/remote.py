"""A classifier on a server, with the interface of `t2aux_ondevice.answers`."""

from __future__ import annotations

import json
import os
import pathlib
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from t2aux import files
from t2aux.client import retries
from t2aux.client.retries import Failure, Retries
from t2aux.client.transport import Arrays, Spec, Status, Transport
from t2aux.errors import ModelError, ServerError, UserError
from t2aux_ondevice import litert
from t2aux_ondevice.preprocessing import DatasetInfo
from t2aux_ondevice.sequences import check_sequence, padded, segments

DESCRIBE = "describe"
_COMING = ("START", "LOADING")
_DESCRIBE_INPUT = {"batch": np.zeros([1], np.int32)}
_MESSAGES = {
    retries.NOT_FOUND: "{address} has no model {model} ({reason}): check --model and --version.",
    retries.DEADLINE_EXCEEDED: "{address} did not answer within {timeout:g} s ({reason}): try "
    "later, send less at once, or give a larger --timeout.",
    retries.UNAVAILABLE: "{address} can't be reached or is not ready ({reason}): check the address "
    "and the server.",
    retries.RESOURCE_EXHAUSTED: "{address} is busy, or the request is too large ({reason}): try "
    "later, or give a smaller --batch.",
    retries.TOO_LARGE: "The request is too large for {address} ({reason}): give a smaller --batch.",
    retries.BAD_ANSWER: "{address} does not answer like TF Serving ({reason}): check the address.",
}
# TensorFlow Serving's message. Its code is the same as for any invalid request.
_TOO_MANY_ROWS = re.compile(r"Task size \d+ is larger than maximum (?:input )?batch size")


class RemoteClassifier:
    """A model on a server. See `t2aux_ondevice.answers.SequenceClassifier`.

    Requests name the version that was the newest one at the start, so that the classes are those of
    `info`, and a stream keeps using the weights that its state comes from. When the server unloads
    that version, the client continues with the newest one.

    Attributes:
        info: The classes and the preprocessing.
        version: The version that is used.
    """

    info: DatasetInfo
    version: int

    def __init__(
        self,
        transport: Transport,
        model: str,
        *,
        version: int | None = None,
        signature: str = "serving_default",
        described: dict[str, Any] | None = None,
        attempts: Retries | None = None,
    ) -> None:
        """Reads the model's versions and its description from the server.

        Args:
            transport: The connection to the server.
            model: The model's name.
            version: The version; defaults to the newest.
            signature: The signature for whole sequences, with the inputs of `serving_default`.
            described: The description of the model, see `read_description`; by default it is
                requested from the server.
            attempts: How often and how long to retry.

        Raises:
            UserError: The server can't be reached, does not have the model or version, or does not
                provide the model's description.
        """
        self._transport = transport
        self._model = model
        self._wanted = version
        self._signature = signature
        self._given = described
        self._attempts = attempts or Retries()
        self._resolve()

    def probabilities(self, sequence: np.ndarray) -> np.ndarray:
        """Classifies a whole sequence [T, C] or [T]; see `litert.LiteRTClassifier`."""
        return self.batch_probabilities([sequence])[0]

    def batch_probabilities(self, sequences: Sequence[np.ndarray]) -> np.ndarray:
        """Classifies whole sequences in one request.

        Args:
            sequences: Sequences of any lengths, each real values [T, C] or ids [T].

        Returns:
            float32 [B, K].

        Raises:
            UserError: A sequence is not for this classifier, or the request failed.
        """
        checked = [check_sequence(self.info, sequence) for sequence in sequences]
        arrays = dict(zip(("inputs", "lengths"), padded(checked), strict=True))
        try:
            answer = self._predict(self._signature, arrays, ("probabilities",))
        except Failure as failure:
            if not self._has_moved_on(failure):
                raise self._error(failure) from failure
            return self.batch_probabilities(sequences)
        return self._checked(answer["probabilities"], len(checked))

    def stream(self, sequence: np.ndarray, segment: int) -> Iterator[tuple[int, np.ndarray]]:
        """Reads one sequence by segments and keeps the state; see `LiteRTClassifier`.

        Raises:
            UserError: As for `batch_probabilities`, or if the server unloaded the version during
                the sequence.
        """
        sequence = check_sequence(self.info, sequence)
        begun = False
        try:
            names = tuple(self._state_shapes)
            state = self._predict("initial_state", _DESCRIBE_INPUT, names)
            for steps, part in segments(sequence, segment):
                inputs = {
                    "segment": part[np.newaxis],
                    "lengths": np.array([len(part)], np.int32),
                    **{name: self._state(name, state[name]) for name in names},
                }
                state = self._predict("step_segment", inputs, (*names, "probabilities"))
                probabilities = self._checked(state["probabilities"], 1)[0]
                begun = True
                yield steps, probabilities
        except Failure as failure:
            version = self.version
            if not self._has_moved_on(failure):
                raise self._error(failure) from failure
            if begun:
                raise ServerError(
                    f"{self._transport.address} unloaded version {version} of {self._model} during "
                    f"the sequence, and now has version {self.version}: start again."
                ) from failure
            yield from self.stream(sequence, segment)

    def close(self) -> None:
        """Closes the connection."""
        self._transport.close()

    def _predict(self, signature: str, inputs: Arrays, outputs: Sequence[str]) -> Arrays:
        spec = Spec(self._model, self.version)
        return self._attempts.run(
            lambda left: self._transport.predict(spec, signature, inputs, outputs, left)
        )

    def _resolve(self) -> None:
        """Finds the version and its description."""
        try:
            self.version = self._attempts.run(self._newest)
        except Failure as failure:
            raise self._error(failure) from failure
        described, name = self._given, "The given description of the model"
        if described is None:
            described = self._described()
            name = f"The description of {self._model} on {self._transport.address}"
        self.info = litert.check_description(described, name)
        self._state_shapes = litert.state_shapes(described)

    def _described(self) -> Any:
        """The model's description from the server."""
        try:
            metadata = self._predict(DESCRIBE, _DESCRIBE_INPUT, ("metadata",))["metadata"]
            (text,) = metadata.ravel().tolist()
            return json.loads(text)
        except Failure as failure:
            if failure.may_pass or failure.code in (
                retries.UNAVAILABLE,
                retries.DEADLINE_EXCEEDED,
                retries.RESOURCE_EXHAUSTED,
            ):
                raise self._error(failure) from failure
            raise self._undescribed(failure.reason) from failure
        except (ValueError, TypeError, RecursionError) as error:
            raise self._undescribed("its signature `describe` does not return JSON") from error

    def _newest(self, timeout: float) -> int:
        statuses = self._transport.status(Spec(self._model, self._wanted), timeout)
        available = [s.version for s in statuses if s.state == "AVAILABLE"]
        if available:
            return max(available)
        newest = max(statuses, key=lambda s: s.version, default=Status(0, "UNKNOWN"))
        if newest.state in _COMING:
            reason = f"version {newest.version} of {self._model} is not loaded yet"
            raise Failure(retries.UNAVAILABLE, reason, may_pass=True)
        why = f" ({newest.error})" if newest.error else ""
        reason = f"the state of version {newest.version} is {newest.state}{why}"
        raise Failure(retries.NOT_FOUND, reason)

    def _has_moved_on(self, failure: Failure) -> bool:
        """Whether the version is gone and another exists. If so, switches to the other one."""
        if failure.code != retries.NOT_FOUND or self._wanted is not None:
            return False
        gone = self.version
        self._resolve()
        return self.version != gone

    def _state(self, name: str, array: np.ndarray) -> np.ndarray:
        """A state in the form to send back. Raises `Failure` if the server's state is invalid."""
        shape = self._state_shapes[name]
        is_row = array.ndim == 2 if shape is None else list(array.shape[1:]) == shape
        if not is_row or array.shape[0] != 1 or array.dtype.kind != "f":
            reason = f"its state is {array.dtype} of the shape {list(array.shape)}"
            raise Failure(retries.BAD_ANSWER, reason)
        return array.astype(np.float32)

    def _checked(self, probabilities: np.ndarray, batch: int) -> np.ndarray:
        wanted = (batch, self.info.num_classes)
        if probabilities.shape != wanted or probabilities.dtype.kind not in "fi":
            raise ServerError(
                f"{self._transport.address} returns {probabilities.dtype} of the shape "
                f"{list(probabilities.shape)}, not {list(wanted)}: the model and its description "
                "are not from the same export."
            )
        return probabilities.astype(np.float32)

    def _undescribed(self, reason: str) -> UserError:
        return ServerError(
            f"The model {self._model} on {self._transport.address} does not describe its inputs "
            f"({reason}): give --metadata, the metadata.json of its export."
        )

    def _error(self, failure: Failure) -> UserError:
        """The message for the user."""
        code = failure.code
        if code not in _MESSAGES and _TOO_MANY_ROWS.search(failure.reason):
            code = retries.TOO_LARGE
        message = _MESSAGES.get(code, "{address} rejected the request ({code}): {reason}.")
        version = "" if self._wanted is None else f" in version {self._wanted}"
        return ServerError(
            message.format(
                address=self._transport.address,
                code=code,
                reason=failure.reason,
                model=f"{self._model}{version}",
                timeout=self._attempts.timeout,
            )
        )


def read_description(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads the description of an export.

    Args:
        path: metadata.json, or its folder.

    Returns:
        The description, as expected by `litert.check_description`.

    Raises:
        UserError: The file is missing or damaged.
    """
    path = pathlib.Path(path)
    if os.path.isdir(path):
        return litert.read_metadata(path)
    described = files.read_json(path, ModelError)
    litert.check_description(described, path)
    return described
