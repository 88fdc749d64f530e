"""Callbacks for `SequenceClassifier.fit`, public as `t2aux.callbacks`."""

from __future__ import annotations

import keras

from t2aux.errors import UserError


class Pretrain(keras.callbacks.Callback):
    """Trains the auxiliary losses alone before the epochs of `fit` begin (paper, section 4).

    >>> pretrain = t2aux.callbacks.Pretrain(epochs=1)
    >>> history = model.fit(x, y, epochs=1, callbacks=[pretrain])
    >>> sorted(pretrain.history.history)
    ['loss', 'reconstruction_loss']

    The other callbacks, validation among them, see the epochs of `fit` only.

    Attributes:
        epochs: How many.
        history: What Keras's `History` holds of them; None before.
    """

    def __init__(self, epochs: int) -> None:
        """Keeps the number of epochs. Raises UserError where it is below 1."""
        super().__init__()
        if epochs < 1:
            raise UserError(f"Pretrain.epochs must be at least 1, but is {epochs}.")
        self.epochs = epochs
        self.history: keras.callbacks.History | None = None
