"""`t2aux.load`: a trained classifier in any form, for NumPy arrays.

A `.tflite` file runs in LiteRT, without importing TensorFlow.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from t2aux import rows
from t2aux.errors import DataError, DivergenceError, SettingError
from t2aux.evaluation.location import locate
from t2aux_ondevice import litert, paths
from t2aux_ondevice.preprocessing import DatasetInfo
from t2aux_ondevice.reading import named, read_array

if TYPE_CHECKING:
    import keras

    from t2aux.export.runtimes import BatchClassifier
    from t2aux_ondevice.stream import BaseStream


def load(path: str | os.PathLike[str], *, checkpoint: str | None = None) -> LoadedClassifier:
    """Loads a trained classifier.

    >>> classifier = t2aux.load("digits.keras")
    >>> classifier.predict(x[:2]).shape
    (2, 10)
    >>> classifier.classes[classifier.predict(x[:1])[0].argmax()] in "0123456789"
    True

    Args:
        path: A `.tflite` file of an export, which runs in LiteRT only; an export's directory, of
            one version or the base directory, whose newest version is used; the model_dir of a run
            of `t2aux train`; or a `.keras` file that `t2aux.SequenceClassifier.save` wrote. If an
            export has a SavedModel, it is run with TensorFlow.
        checkpoint: The checkpoint of a run: "best", "latest" or a name; by default the best or, if
            the run has no validation set, the latest.

    Returns:
        The classifier.

    Raises:
        UserError: The path is not one of these, a file is missing or damaged, or a checkpoint is
            given although the path is not a run.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise SettingError(f"The path is a {type(path).__name__}: give a file or a directory.")
    location = locate(paths.local(path, "The path"))
    return LoadedClassifier(location.load(checkpoint))


class LoadedClassifier:
    """A trained classifier from a run, an export, a `.tflite` file or a `.keras` file.

    All forms have the same inputs and outputs. A sequence has the form that the classifier reads:
    real values [T, C], pixels of an image in [0, 1], or ids [T]. For a classifier of images, uint8
    arrays may also be images [H, W] or [H, W, C] of any size, which are resized. `predict_texts`
    takes texts.

    Attributes:
        classes: The names of the classes, by label.
        info: The description of the data that the classifier reads.
        model: The Keras model of a run or a `.keras` file; None for an export. It is a
            `SequenceClassifier`, which can be trained further, saved and exported, or a run's
            Transformer, which can't.
    """

    def __init__(self, classifier: BatchClassifier | litert.LiteRTClassifier) -> None:
        """Wraps a classifier that `t2aux.evaluation.location.Location.load` returned."""
        self._classifier = classifier
        self.info: DatasetInfo = classifier.info
        self.model: keras.Model | None = getattr(classifier, "model", None)

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, by label."""
        return self.info.classes

    def predict(self, x: Any, batch_size: int = 128) -> np.ndarray:
        """Classifies sequences.

        Args:
            x: An array [N, T, C] or ids [N, T]; a list of arrays of any lengths, or a RaggedTensor;
                or a pair of an array, padded at the end, and lengths [N] or a mask [N, T].
            batch_size: The number of sequences to classify at once; always 1 in LiteRT.

        Returns:
            The probabilities of the classes, float32 [N, K].

        Raises:
            UserError: The classifier can't read a sequence, which the message names.
        """
        return self._predict(rows.sequences(x, ids=self.info.reads_ids), batch_size)

    def predict_texts(self, texts: Sequence[str], batch_size: int = 128) -> np.ndarray:
        """Classifies texts.

        Args:
            texts: N texts. Texts longer than the classifier's maximum length are truncated.
            batch_size: See `predict`.

        Returns:
            The probabilities of the classes, float32 [N, K].

        Raises:
            UserError: The classifier does not read text, or a text, which the message names, is
                empty.
        """
        if isinstance(texts, (str, bytes)):
            raise DataError("predict_texts takes a list of texts: give [text] for one.")
        ids = []
        for index, text in enumerate(texts):
            with named(f"texts[{index}]"):
                if not isinstance(text, str):
                    raise DataError(f"It is a {type(text).__name__}: give a text.")
                ids.append(self.info.text_ids(text))
        if not ids and not self.info.is_text:
            raise DataError(f"The classifier reads {self.info.kind}, not text.")
        return self._probabilities(ids, batch_size)

    def stream(self) -> BaseStream:
        """Begins a sequence of any length that is read in pieces, in constant memory.

        Returns:
            An object whose `read(steps)` takes the next steps, [n, C] or ids [n], and returns the
            probabilities of the classes so far, float32 [K]. Its attribute `steps` is the number of
            steps read.

        Raises:
            UserError: The model reads whole sequences only, because it is a Transformer, or a
                `.tflite` file without the streaming file beside it.
        """
        return self._classifier.start()

    def evaluate(self, x: Any, y: Any, batch_size: int = 128) -> dict[str, float]:
        """Measures accuracy and loss.

        Args:
            x: N sequences, see `predict`.
            y: Their labels, integers [N] or one-hot [N, K].
            batch_size: See `predict`.

        Returns:
            "accuracy", the share of correct predictions in [0, 1], and "loss", the mean
            cross-entropy in nats.

        Raises:
            UserError: See `predict`; or a label is out of range, or there are no labels.
        """
        sequences, labels = rows.labelled(x, y, self.info.num_classes, ids=self.info.reads_ids)
        if not sequences:
            raise DataError("There is nothing to evaluate: x is empty.")
        probabilities = self._predict(sequences, batch_size)
        right = probabilities[np.arange(len(labels)), labels].astype(np.float64)
        # A probability that was rounded to 0 has no logarithm.
        losses = -np.log(np.maximum(right, np.finfo(np.float32).tiny))
        accuracy = np.mean(probabilities.argmax(axis=1) == labels)
        return {"accuracy": float(accuracy), "loss": float(losses.mean())}

    def _predict(self, sequences: list[np.ndarray], batch_size: int) -> np.ndarray:
        if any(sequence.dtype.kind in "US" for sequence in sequences):
            raise DataError("x holds texts, which are for predict_texts: give arrays of numbers.")
        checked = [
            read_array(self.info, sequence, f"x[{index}]").sequence
            for index, sequence in enumerate(sequences)
        ]
        return self._probabilities(checked, batch_size)

    def _probabilities(self, sequences: list[np.ndarray], batch_size: int) -> np.ndarray:
        if batch_size < 1 or batch_size % 1:
            raise SettingError(f"batch_size must be a whole number from 1, but is {batch_size}.")
        probabilities = np.zeros([len(sequences), self.info.num_classes], np.float32)
        if isinstance(self._classifier, litert.LiteRTClassifier):
            for row, sequence in zip(probabilities, sequences, strict=True):
                row[:] = self._classifier.probabilities(sequence)
            return probabilities
        # Batches of sequences of similar length have little padding.
        order = np.argsort([len(sequence) for sequence in sequences], kind="stable")
        for begin in range(0, len(order), batch_size):
            chosen = order[begin : begin + batch_size]
            probabilities[chosen] = self._classifier.batch_probabilities(
                [sequences[i] for i in chosen]
            )
        if not np.isfinite(probabilities).all():
            raise DivergenceError(
                "The classifier returns NaN: its weights are damaged or have diverged."
            )
        return probabilities
