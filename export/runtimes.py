"""Classifiers that run in TensorFlow: a SavedModel, loaded as by a server, and a checkpoint."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from t2aux import files, run, tf32
from t2aux.data import Source
from t2aux.errors import ModelError
from t2aux.export import examples, keras_models
from t2aux.model.classifier import BaseClassifier
from t2aux.model.core import State
from t2aux.model.transformer import Transformer
from t2aux.training import settings
from t2aux_ondevice import litert
from t2aux_ondevice.errors import reason
from t2aux_ondevice.preprocessing import DatasetInfo
from t2aux_ondevice.sequences import check_sequence, padded, segments
from t2aux_ondevice.stream import BaseStream


class BatchClassifier:
    """Classifies sequences in batches, and segment by segment with a state.

    Attributes:
        info: The classes and the preprocessing.
    """

    info: DatasetInfo

    def batch(self, inputs: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """Classifies whole sequences.

        Args:
            inputs: [B, T, C] float32 or [B, T] int32, padded on the right.
            lengths: [B] int32.

        Returns:
            float32 [B, K]: the classes' probabilities.
        """
        raise NotImplementedError

    def begin(self, batch: int) -> Any:
        """The initial state of `batch` sequences, for `advance`."""
        raise NotImplementedError

    def advance(
        self, state: Any, inputs: np.ndarray, lengths: np.ndarray
    ) -> tuple[Any, np.ndarray]:
        """Reads the next steps of sequences.

        Args:
            state: The state before these steps.
            inputs: [B, S, C] float32 or [B, S] int32, padded on the right.
            lengths: The lengths without padding, [B] int32, from 0 to S.

        Returns:
            The state after these steps, and the probabilities so far, float32 [B, K].
        """
        raise NotImplementedError

    def stream_batch(
        self, inputs: np.ndarray, lengths: np.ndarray, segment: int
    ) -> Iterator[tuple[int, np.ndarray]]:
        """Reads sequences segment by segment, carrying the state.

        Args:
            inputs: [B, T, C] float32 or [B, T] int32, padded on the right.
            lengths: [B] int32.
            segment: Steps per segment; the last segment may have fewer.

        Yields:
            The number of steps read and the probabilities so far, float32 [B, K].
        """
        state = self.begin(len(lengths))
        lengths = np.asarray(lengths)
        for done, steps in segments(np.arange(lengths.max()), segment):
            begin = done - len(steps)
            part_lengths = np.clip(lengths - begin, 0, len(steps)).astype(np.int32)
            with tf32.off():
                state, probabilities = self.advance(state, inputs[:, begin:done], part_lengths)
            yield done, probabilities

    def start(self) -> BatchStream:
        """Begins a sequence that arrives in parts; see `litert.LiteRTClassifier`."""
        return BatchStream(self)

    @tf32.off()
    def batch_probabilities(self, sequences: Sequence[np.ndarray]) -> np.ndarray:
        """Classifies sequences [T, C] or [T] of any lengths at once. Returns float32 [B, K]."""
        return self.batch(*padded([check_sequence(self.info, s) for s in sequences]))

    def probabilities(self, sequence: np.ndarray) -> np.ndarray:
        """Classifies one sequence, [T, C] or [T]; see `litert.LiteRTClassifier`."""
        return self.batch_probabilities([sequence])[0]

    def stream(self, sequence: np.ndarray, segment: int) -> Iterator[tuple[int, np.ndarray]]:
        """Reads one sequence by segments; see `litert.LiteRTClassifier`."""
        sequence = check_sequence(self.info, sequence)
        lengths = np.array([len(sequence)], np.int32)
        for done, probabilities in self.stream_batch(sequence[np.newaxis], lengths, segment):
            yield done, probabilities[0]


class BatchStream(BaseStream):
    """A sequence that arrives in parts; see `t2aux_ondevice.stream.Stream`."""

    def __init__(self, classifier: BatchClassifier) -> None:
        """Starts with no step read. Raises UserError if the model has no streaming form."""
        super().__init__(classifier.info, "The model")
        self._classifier = classifier
        self._state = classifier.begin(1)

    @tf32.off()
    def _advance(self, steps: np.ndarray) -> np.ndarray:
        lengths = np.array([len(steps)], np.int32)
        self._state, answer = self._classifier.advance(self._state, steps[np.newaxis], lengths)
        return answer


class SavedModelClassifier(BatchClassifier):
    """A classifier from an exported SavedModel, through its signatures.

    Attributes:
        info: The classes and the preprocessing.
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        """Loads a version's directory.

        Raises:
            UserError: It is not a SavedModel of an export, or a file is missing or damaged.
        """
        directory = pathlib.Path(directory)
        metadata = litert.read_metadata(directory)
        self.info = DatasetInfo.from_json(metadata["preprocessing"])
        check_files(directory, metadata["files"])
        if self.info.is_text:
            import tensorflow_text  # noqa: F401  Its operations are in the graph.
        try:
            with files.for_tensorflow(directory) as folder:
                self._module = tf.saved_model.load(folder)
        except (OSError, ValueError, tf.errors.OpError) as error:
            raise ModelError(
                f"Can't load the SavedModel in {directory} ({reason(error)}): export again."
            ) from error
        self._signatures = self._module.signatures

    def batch(self, inputs: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """See the base class. Uses `serving_default`."""
        return self._probabilities("serving_default", inputs=inputs, lengths=lengths)

    def text_batch(self, texts: list[str] | list[bytes]) -> np.ndarray:
        """Classifies texts through `serving_text`. Returns float32 [B, K]."""
        return self._probabilities("serving_text", text=texts)

    def image_batch(self, images: list[bytes]) -> np.ndarray:
        """Classifies PNG or JPEG files through `serving_image`. Returns float32 [B, K]."""
        return self._probabilities("serving_image", image_bytes=images)

    def _probabilities(self, signature: str, **inputs: Any) -> np.ndarray:
        tensors = {name: tf.constant(value) for name, value in inputs.items()}
        return self._signatures[signature](**tensors)["probabilities"].numpy()

    def example_batch(self, inputs: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """Like `batch`, but uses `serving_classify` with the sequences as tf.Examples."""
        sequences = [row[:length] for row, length in zip(inputs, lengths, strict=True)]
        answers = self._signatures["serving_classify"](
            inputs=tf.constant([examples.serialized(sequence) for sequence in sequences])
        )
        # They come best first, by name.
        label_of = {name.encode(): label for label, name in enumerate(self.info.classes)}
        probabilities = np.zeros([len(inputs), self.info.num_classes], np.float32)
        for row, names, scores in zip(
            probabilities, answers["classes"].numpy(), answers["scores"].numpy(), strict=True
        ):
            row[[label_of[name] for name in names]] = scores
        return probabilities

    def begin(self, batch: int) -> dict[str, tf.Tensor]:
        """See the base class. Uses `initial_state`."""
        return self._signatures["initial_state"](batch=tf.zeros([batch], tf.int32))

    def advance(
        self, state: dict[str, tf.Tensor], inputs: np.ndarray, lengths: np.ndarray
    ) -> tuple[dict[str, tf.Tensor], np.ndarray]:
        """See the base class. Uses `step_segment`."""
        after = self._signatures["step_segment"](
            segment=tf.constant(inputs), lengths=tf.constant(lengths), **state
        )
        probabilities = after.pop("probabilities").numpy()
        return after, probabilities


class CheckpointClassifier(BatchClassifier):
    """A trained classifier in memory.

    Attributes:
        info: The classes and the preprocessing.
        model: The classifier.
        source: For a run, the data set that it was trained on.
    """

    source: Source | None = None

    def __init__(
        self, classifier: BaseClassifier | Transformer, info: DatasetInfo | None = None
    ) -> None:
        """Wraps a classifier with its weights.

        Args:
            classifier: The classifier.
            info: The description of its data; defaults to the classifier's own.
        """
        self.info = classifier.info if info is None else info
        self.model = classifier
        reads_ids = self.info.reads_ids
        shape = [None, None] if reads_ids else [None, None, self.info.channels]
        tokens = tf.TensorSpec(shape, tf.int32 if reads_ids else tf.float32)
        lengths = tf.TensorSpec([None], tf.int32)

        @tf.function(input_signature=[tokens, lengths], autograph=False)
        def whole(tokens: tf.Tensor, lengths: tf.Tensor) -> tf.Tensor:
            return tf.nn.softmax(classifier.logits_of(tokens, lengths))

        self._whole = whole
        if not isinstance(classifier, BaseClassifier):
            return
        state = tf.nest.map_structure(
            lambda s: tf.TensorSpec([None, *s.shape[1:]]), classifier.init_state(1)
        )

        @tf.function(input_signature=[tokens, lengths, state], autograph=False)
        def step(tokens: tf.Tensor, lengths: tf.Tensor, state: State) -> tuple[State, tf.Tensor]:
            new = classifier.scan(tokens, state, lengths)
            return new, tf.nn.softmax(classifier.logits(new.h))

        self._step = step

    @classmethod
    def of_run(
        cls, model_dir: str | os.PathLike[str], checkpoint: str | None = None
    ) -> CheckpointClassifier:
        """Loads a checkpoint of a run directory; see `run.load_run`, also for the errors.

        The gin configuration is not changed.
        """
        with settings.kept():
            loaded = run.load_run(model_dir, checkpoint, auxiliary=True)
            made = cls(loaded.classifier)
            made.source = loaded.source
            return made

    @classmethod
    def of_file(cls, path: str | os.PathLike[str]) -> CheckpointClassifier:
        """Loads a `.keras` file; see `keras_models.load`, also for the errors."""
        model = keras_models.load(path)
        return cls(model, keras_models.info_of(model))

    def batch(self, inputs: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """See the base class."""
        return self._whole(inputs, lengths).numpy()

    def begin(self, batch: int) -> State:
        """See the base class. Raises UserError if the classifier has no state to carry."""
        if not isinstance(self.model, BaseClassifier):
            raise ModelError("A Transformer reads whole sequences: classify without --stream.")
        return self.model.init_state(batch)

    def advance(
        self, state: State, inputs: np.ndarray, lengths: np.ndarray
    ) -> tuple[State, np.ndarray]:
        """See the base class."""
        state, probabilities = self._step(inputs, lengths, state)
        return state, probabilities.numpy()


def check_files(directory: pathlib.Path, entries: dict[str, dict]) -> None:
    """Checks the SavedModel's files against metadata.json.

    Args:
        directory: A version's directory.
        entries: The entries of its files in metadata.json, by their relative paths.

    Raises:
        UserError: A file is missing or damaged.
    """
    for name, entry in entries.items():
        path = directory / name
        if path.suffix == ".tflite":
            continue
        try:
            content = path.read_bytes()
        except OSError as error:
            raise ModelError(
                f"The SavedModel in {directory} lacks {name} ({reason(error)}): export again."
            ) from error
        litert.check_content(path, content, entry)
