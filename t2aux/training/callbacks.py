"""Callbacks for `SequenceClassifier.fit`, public as `t2aux.callbacks`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import keras

from t2aux.errors import SettingError

if TYPE_CHECKING:
    from t2aux.training.model import SequenceClassifier

__all__ = ["Pretrain"]


class Pretrain(keras.callbacks.Callback):
    """Trains on the auxiliary losses only, before the epochs of `fit` begin (paper, section 4).

    >>> pretrain = t2aux.callbacks.Pretrain(epochs=1)
    >>> history = model.fit(x, y, epochs=1, callbacks=[pretrain], verbose=0)
    >>> sorted(pretrain.history.history)
    ['loss', 'reconstruction_loss']

    Validation and the other callbacks are limited to the epochs of `fit`.

    Attributes:
        epochs: The number of pretraining epochs.
        history: The Keras `History` of these epochs; None before.
    """

    def __init__(self, epochs: int) -> None:
        """Stores the number of epochs. Raises UserError if it is below 1."""
        super().__init__()
        if not isinstance(epochs, int) or epochs < 1:
            raise SettingError(f"Pretrain.epochs must be a number from 1, but is {epochs!r}.")
        self.epochs = epochs
        self.history: keras.callbacks.History | None = None


class PhaseProgress(keras.callbacks.Callback):
    """Tells the model the length of the phase, if it is known."""

    def __init__(self, model: SequenceClassifier) -> None:
        super().__init__()
        self._classifier = model
        self._begun = False

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        steps = self.params.get("steps")
        if self._begun or not steps:
            return
        self._begun = True
        self._classifier.begin_phase(steps * self.params["epochs"], steps * epoch)
