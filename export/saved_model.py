"""The SavedModel: whole sequences in batches, and streaming with explicit state.

Signatures (B sequences, T steps, C channels, H cells, K classes, k = min(5, K)):

| signature | inputs | outputs |
|---|---|---|
| `serving_default` | inputs [B, T, C] float32 or [B, T] int32, lengths [B] int32 | classes |
| `serving_text` (text only) | text [B] string | classes |
| `serving_image` (images only) | image_bytes [B] string, PNG or JPEG files | classes |
| `initial_state` | batch [B] int32, of which only the size counts | state |
| `step_segment` | segment [B, S, C] or [B, S], lengths [B] int32, state | state, probabilities |
| `serving_classify` | inputs [B] string, tf.Examples | classes, scores [B, K] string, float32 |
| `describe` | batch [B] int32, of which only the size counts | metadata [B] string, JSON |

State: h, c [B, H] float32 of an LSTM; of another core the tensors of `StatelessClassifier.state`.
Classes: probabilities [B, K] float32; and the k best, best first: classes [B, k] int32, names
[B, k] string, top_probabilities [B, k] float32. Every input has the batch in dimension 0, as
TF Serving's batching requires. `serving_classify` is for TF Serving's Classify: all classes, best
first. A tf.Example has the feature `inputs`, a float_list of T * C values or an int64_list of T
ids, or, for a text, `text`, a bytes_list of one. `serving_image` takes files of any size and
preprocesses them like a client, with the same pixels as its result. `describe` returns, for
clients, the format, the classes and the preprocessing, as in metadata.json, and the names of the
signatures.
"""

from __future__ import annotations

import json
import os
import pathlib
import re
from collections.abc import Callable
from typing import Any

import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from t2aux import files
from t2aux.errors import FileError
from t2aux.export.examples import Examples
from t2aux.export.images import ImageSequences
from t2aux.export.stateless import StatelessClassifier
from t2aux.export.text import TextIds
from t2aux_ondevice import litert

TOP = 5
CLASSIFY = "serving_classify"
IMAGE = "serving_image"
DESCRIBE = "describe"
# TF Serving's Classify rejects signatures with another method.
CLASSIFY_METHOD = "tensorflow/serving/classify"


class ServingClassifier(tf.Module):
    """The functions behind the signatures."""

    def __init__(self, network: StatelessClassifier) -> None:
        """Wraps a classifier."""
        super().__init__(name="serving")
        self.network = network
        self._names = tf.constant(network.info.classes)
        self._text_ids = TextIds(network.info) if network.info.is_text else None
        self._images = ImageSequences(network.info) if network.info.kind == "image" else None
        self._examples = Examples(network.info, self._text_ids)
        names = sorted(self._functions())
        described = {**litert.description(network.info, network.state), "signatures": names}
        self._metadata = tf.constant(json.dumps(described))

    def signatures(self) -> dict[str, tf.types.experimental.ConcreteFunction]:
        """The concrete functions by the names of their signatures."""
        made = {
            name: tf.function(function, input_signature=spec, autograph=False)
            for name, (function, spec) in self._functions().items()
        }
        return {name: function.get_concrete_function() for name, function in made.items()}

    def _functions(self) -> dict[str, tuple[Callable, list[tf.TensorSpec]]]:
        """The functions and their inputs, by the names of the signatures."""
        network = self.network
        lengths = tf.TensorSpec([None], tf.int32, "lengths")
        specs = {
            "serving_default": (
                self.classify,
                [network.tokens_spec(None, None, "inputs"), lengths],
            ),
            "initial_state": (self.initial_state, [tf.TensorSpec([None], tf.int32, "batch")]),
            "step_segment": (
                self.step_segment,
                [network.tokens_spec(None, None, "segment"), lengths, *network.state_specs(None)],
            ),
            CLASSIFY: (self.classify_examples, [tf.TensorSpec([None], tf.string, "inputs")]),
            DESCRIBE: (self.describe, [tf.TensorSpec([None], tf.int32, "batch")]),
        }
        if self._text_ids is not None:
            text = tf.TensorSpec([None], tf.string, "text")
            specs["serving_text"] = (self.classify_text, [text])
        if self._images is not None:
            image = tf.TensorSpec([None], tf.string, "image_bytes")
            specs[IMAGE] = (self.classify_images, [image])
        return specs

    def classify(self, inputs: tf.Tensor, lengths: tf.Tensor) -> dict[str, tf.Tensor]:
        """Classifies whole sequences, padded on the right to T steps with any values.

        Args:
            inputs: [B, T, C] float32 or [B, T] int32.
            lengths: [B] int32, from 1 to T.

        Returns:
            The classes, see above.
        """
        return self._classes(self._final(inputs, lengths), min(TOP, self.network.info.num_classes))

    def classify_text(self, text: tf.Tensor) -> dict[str, tf.Tensor]:
        """Classifies non-empty texts, [B] string (UTF-8). Returns the classes."""
        ids, lengths = self._text_ids(text)
        empty = tf.debugging.assert_positive(lengths, "A text is empty.")
        with tf.control_dependencies([empty]):
            return self.classify(tf.identity(ids), lengths)

    def classify_images(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        """Classifies PNG or JPEG files, [B] string; see `ImageSequences`. Returns the classes."""
        inputs = self._images(image_bytes)
        lengths = tf.fill([tf.shape(inputs)[0]], self.network.info.length)
        return self.classify(inputs, lengths)

    def classify_examples(self, inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        """Classifies serialized tf.Examples, for TF Serving's Classify.

        Args:
            inputs: [B] string; see `Examples`.

        Returns:
            `classes` [B, K] string and `scores` [B, K] float32 of all classes, best first.
        """
        tokens, lengths = self._examples(inputs)
        answers = self._classes(self._final(tokens, lengths), self.network.info.num_classes)
        return {"classes": answers["names"], "scores": answers["top_probabilities"]}

    def describe(self, batch: tf.Tensor) -> dict[str, tf.Tensor]:
        """The description for clients, as JSON, once for each element of `batch` [B]."""
        return {"metadata": tf.fill(tf.shape(batch), self._metadata)}

    def initial_state(self, batch: tf.Tensor) -> dict[str, tf.Tensor]:
        """The initial state: zeros [B, ...] for `batch` [B]."""
        return self.network.named(self.network.init_state(tf.shape(batch)[0]))

    def step_segment(
        self, segment: tf.Tensor, lengths: tf.Tensor, *state: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        """Reads the next segment.

        Args:
            segment: [B, S, C] float32 or [B, S] int32.
            lengths: The lengths without padding, [B] int32, from 0 to S. A sequence of length 0
                keeps its state.
            *state: The tensors of the state before the segment, [B, ...] each.

        Returns:
            The tensors of the state after the segment, by name, and the `probabilities` [B, K].
        """
        segment, lengths = self._checked(segment, lengths, minimum=0)
        after = self.network.scan(segment, self.network.packed(state), lengths)
        return {**self.network.named(after), "probabilities": self.network.probabilities(after.h)}

    def _final(self, inputs: tf.Tensor, lengths: tf.Tensor) -> tf.Tensor:
        """The core's output [B, H] at the ends of whole sequences."""
        inputs, lengths = self._checked(inputs, lengths, minimum=1)
        return self.network.scan(inputs, self.network.init_state(tf.shape(inputs)[0]), lengths).h

    def _classes(self, h: tf.Tensor, top: int) -> dict[str, tf.Tensor]:
        probabilities = self.network.probabilities(h)
        top = tf.math.top_k(probabilities, top)
        return {
            "probabilities": probabilities,
            "classes": top.indices,
            "names": tf.gather(self._names, top.indices),
            "top_probabilities": top.values,
        }

    def _checked(
        self, tokens: tf.Tensor, lengths: tf.Tensor, minimum: int
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Asserts that lengths and ids are in range, and sets ids of padding to 0."""
        batch, steps = tf.unstack(tf.shape(tokens)[:2])
        assertions = [
            tf.debugging.assert_equal(
                tf.shape(lengths)[0], batch, "lengths must have one entry for each sequence."
            ),
            tf.debugging.assert_greater_equal(
                lengths, minimum, f"A length is less than {minimum}."
            ),
            tf.debugging.assert_less_equal(
                lengths, steps, "A length is more than the number of steps given."
            ),
        ]
        with tf.control_dependencies(assertions):
            tokens, lengths = tf.identity(tokens), tf.identity(lengths)
        if self.network.info.reads_ids:
            tokens = tf.where(tf.sequence_mask(lengths, steps), tokens, 0)
            with tf.control_dependencies(
                [
                    tf.debugging.assert_non_negative(tokens, "An id is negative."),
                    tf.debugging.assert_less(
                        tokens, self.network.info.vocabulary_size, "An id is not in the vocabulary."
                    ),
                ]
            ):
                tokens = tf.identity(tokens)
        return tokens, lengths


def save(network: StatelessClassifier, directory: pathlib.Path) -> None:
    """Writes the SavedModel. See `write`."""
    module = ServingClassifier(network)
    write(module, directory, module.signatures())
    _set_method(directory, CLASSIFY, CLASSIFY_METHOD)


def _set_method(directory: pathlib.Path, signature: str, method: str) -> None:
    """Changes a signature's method, which `tf.saved_model.save` can't set."""
    path = directory / "saved_model.pb"
    saved = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    saved.meta_graphs[0].signature_def[signature].method_name = method
    path.write_bytes(saved.SerializeToString(deterministic=True))
    # The fingerprint is optional, and no longer matches the changed file.
    (directory / "fingerprint.pb").unlink(missing_ok=True)


def write(
    module: tf.Module,
    directory: str | os.PathLike[str],
    signatures: dict[str, tf.types.experimental.ConcreteFunction],
) -> None:
    """Writes any SavedModel.

    Args:
        module: Tracks the objects that the signatures use besides variables, such as tables. It
            must not contain Keras layers: TensorFlow would save their variables, but not restore
            them in a session, as used by TensorFlow Serving and the converter to TensorFlow Lite.
        directory: The directory to write to; it may exist.
        signatures: The signatures by name.

    Raises:
        UserError: The directory can't be written.
    """
    files.ensure_directory(directory)
    used = {id(v): v for function in signatures.values() for v in function.variables}
    module.used_variables = list(used.values())
    try:
        with files.for_tensorflow(directory) as folder:
            tf.saved_model.save(module, folder, signatures=signatures)
    except tf.errors.OpError as error:
        # Such as "{{function_node ...}} some/file; No space left on device [Op:SaveV2]".
        reason = re.sub(r" \[Op:\w+\]$", "", error.message.splitlines()[0]).split("; ")[-1]
        raise FileError(
            f"Can't write the SavedModel to {directory} ({reason}): free some space, or choose "
            "another directory."
        ) from error


def read_signatures(directory: pathlib.Path) -> dict[str, Any]:
    """The signatures of a SavedModel as its `SignatureDef` messages, by name."""
    content = (directory / "saved_model.pb").read_bytes()
    graph = saved_model_pb2.SavedModel.FromString(content).meta_graphs[0]
    return {n: s for n, s in graph.signature_def.items() if not n.startswith("__")}
