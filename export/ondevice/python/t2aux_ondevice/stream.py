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
    """A sequence that arrives in parts of any length, and is read in constant memory.

    Attributes:
        steps: The number of steps read.
    """

    def __init__(self, info: DatasetInfo, name: str | os.PathLike[str]) -> None:
        """Starts with no step read.

        Args:
            info: The description of the classifier's data.
            name: The name of the model in messages.
        """
        self.steps = 0
        self._info = info
        self._name = name

    def read(self, steps: np.ndarray) -> np.ndarray:
        """Reads the next steps.

        Args:
            steps: Real values [n, C] or ids [n], n >= 1; for the stateful form, n must be a
                multiple of its segment. An error does not change the state.

        Returns:
            float32 [K]: the classes' probabilities if the sequence ended here.

        Raises:
            UserError: See `sequences.check_steps`; the sequence becomes too long for the
                classifier; or another stream was started on a file of the stateful form.
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
    """A sequence that is read by a `.tflite` file, see `LiteRTClassifier.start`."""

    def __init__(
        self, classifier: LiteRTClassifier, model: LiteRTModel, segment: int | None = None
    ) -> None:
        """Starts with no step read.

        Args:
            classifier: The classifier.
            model: The model of its streaming or stateful form.
            segment: The number of steps per call of the stateful form; None for explicit states.
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
                f"{path} reads {segment} steps at once, or a multiple of it: give such a segment."
            )
        for _, part in segments(steps, segment):
            answer = self._model(segment=part[np.newaxis])
        return answer["probabilities"]
