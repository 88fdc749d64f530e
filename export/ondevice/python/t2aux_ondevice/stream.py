"""A sequence that arrives in parts."""

from __future__ import annotations

import abc
import os
from typing import TYPE_CHECKING

import numpy as np

from t2aux_ondevice.errors import DataError, ModelError
from t2aux_ondevice.preprocessing import DatasetInfo
from t2aux_ondevice.sequences import check_probabilities, check_steps, segments

if TYPE_CHECKING:
    from t2aux_ondevice.litert import LiteRTClassifier, LiteRTModel


class BaseStream(abc.ABC):
    """A sequence that arrives in parts, of any length, in constant memory.

    Attributes:
        steps: How many steps were read.
    """

    def __init__(self, info: DatasetInfo, name: str | os.PathLike[str]) -> None:
        """Begins with no step read.

        Args:
            info: What the classifier reads.
            name: What to call the model, for messages.
        """
        self.steps = 0
        self._info = info
        self._name = name

    def read(self, steps: np.ndarray) -> np.ndarray:
        """Reads the next steps.

        Args:
            steps: Real values [n, C] or ids [n], n >= 1; for the stateful form a multiple of what
                it takes at once. An error leaves the state as it was.

        Returns:
            float32 [K]: the classes' probabilities, should the sequence end here.

        Raises:
            UserError: See `sequences.check_steps`; the sequence becomes longer than the classifier
                reads; or another stream was started on a file of the stateful form.
        """
        steps = check_steps(self._info, steps)
        length = self._info.length
        if length is not None and self.steps + len(steps) > length:
            raise DataError(f"The sequence has more than {length} steps: start another.")
        probabilities = self._advance(steps)
        self.steps += len(steps)
        return check_probabilities(self._info, self._name, probabilities)

    @abc.abstractmethod
    def _advance(self, steps: np.ndarray) -> np.ndarray:
        """Reads checked steps. Returns the probabilities so far, [1, K]."""


class Stream(BaseStream):
    """A sequence that a `.tflite` file reads, see `LiteRTClassifier.start`."""

    def __init__(
        self, classifier: LiteRTClassifier, model: LiteRTModel, segment: int | None = None
    ) -> None:
        """Begins with no step read.

        Args:
            classifier: Of the sequence.
            model: Of its streaming or stateful form.
            segment: How many steps the stateful form takes at once; None for explicit states.
        """
        super().__init__(classifier.info, model.path)
        self._classifier = classifier
        self._model = model
        self._segment = segment
        names = () if segment else set(model.inputs) - {"segment"}
        self._state = {n: np.zeros(model.inputs[n]["shape"], np.float32) for n in names}

    def _advance(self, steps: np.ndarray) -> np.ndarray:
        if self._segment is not None:
            return self._advance_stateful(steps, self._segment)
        answer = dict(self._model(segment=steps[np.newaxis], **self._state))
        probabilities = answer.pop("probabilities")
        self._state = {name: answer[name] for name in self._state}
        return probabilities

    def _advance_stateful(self, steps: np.ndarray, segment: int) -> np.ndarray:
        path = self._model.path
        if not self._classifier.is_current(self):
            raise ModelError(f"Another sequence was started on {path}, which has a single state.")
        if len(steps) % segment:
            raise DataError(
                f"{path} takes {segment} steps at once, or a multiple of it: give such a segment."
            )
        for _, part in segments(steps, segment):
            answer = self._model(segment=part[np.newaxis])
        return answer["probabilities"]
