"""Callbacks for `SequenceClassifier.fit`, public as `t2aux.callbacks`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import keras

from t2aux.errors import SettingError

if TYPE_CHECKING:
    from t2aux.training.model import SequenceClassifier

__all__ = ["Pretrain"]

# A number of steps that training does not come near to.
_UNKNOWN = 1 << 40


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

    def check_data(self, x: Any, steps_per_epoch: int | None) -> None:
        """Raises UserError if the training would find no data after the pretraining."""
        if hasattr(x, "__next__") and not steps_per_epoch:
            raise SettingError(
                "Pretrain reads the data before the epochs of fit do, but a generator can be read "
                "only once: give a tf.data.Dataset or a keras.utils.PyDataset."
            )


class PhaseProgress(keras.callbacks.Callback):
    """Tells the model the length of the phase.

    The length of a generator is known after its first epoch. Until then the progress is 0.
    """

    def __init__(self, model: SequenceClassifier) -> None:
        super().__init__()
        self._classifier = model
        self._steps: int | None = None
        self._last_batch = 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        if self._steps is None:
            self._steps = self.params.get("steps")
            if self._steps is None:
                self._classifier.begin_phase(_UNKNOWN, 0)
            else:
                self._begin_phase(epoch)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._last_batch = batch

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if self._steps is None:
            self._steps = self._last_batch + 1
            self._begin_phase(epoch + 1)

    def _begin_phase(self, epochs: int) -> None:
        self._classifier.begin_phase(self._steps * self.params["epochs"], self._steps * epochs)
