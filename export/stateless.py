"""The exported classifier: without dropout, with the state as an input and an output.

On a server, the recurrence processes batches with TensorFlow's own kernels in the way that was
fastest in `benchmarks/inference.py`: a large batch is scanned as two halves in separate loops,
which run in parallel. On a device, it processes one sequence, see `recurrence`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import tensorflow as tf

from t2aux.export import lstm
from t2aux.model import inference
from t2aux.model.classifier import BaseClassifier, time_major
from t2aux.model.core import State
from t2aux.model.normalization import normalized

if TYPE_CHECKING:
    from t2aux.export.model import Model

# A smaller batch is not divided.
_MIN_DIVIDED = 16


class StatelessClassifier(tf.Module):
    """A classifier for inference, with explicit state.

    Attributes:
        info: The description of the data set.
        core: The name of the core's class.
        state: The shapes of the state's tensors by name, without the batch: `{"h": (H,)}`.
        recurrence: The core and its input layer.
    """

    def __init__(self, classifier: BaseClassifier | Model, *, batches: bool = True) -> None:
        """Copies the weights of a classifier, or refers to them.

        Args:
            classifier: The classifier with its weights, its `info` and its parts.
            batches: Whether it is for batches on a server, or for one sequence on a device.

        Raises:
            UserError: The core has a state that can't be exported.
        """
        super().__init__(name="classifier")
        self.info = classifier.info
        self.core = inference.name_of(classifier.core)
        self.state = inference.state_shapes(classifier.core)
        zeros = classifier.core.init_state(1)
        # In a function, since a NamedTuple as an attribute would be wrapped, and its tensors
        # stored.
        self._pack = lambda tensors: tf.nest.pack_sequence_as(zeros, tensors)
        self.recurrence = lstm.inference(classifier, batches=batches) or classifier.core.inference(
            classifier.input_layer
        )
        # Also in functions, since a SavedModel must not have Keras layers, see `saved_model.write`.
        self.logits = lambda h: classifier.head(h)
        # Traced once for both halves of the batches of all signatures.
        lengths = tf.TensorSpec([None], tf.int32)
        specs = [self.tokens_spec(None, None, "tokens"), lengths, *self.state_specs(None)]
        scan = tf.function(self._scan_rows, specs, autograph=False)
        self._scan = lambda *tensors: scan(*tensors)

    def tokens_spec(self, batch: int | None, steps: int | None, name: str) -> tf.TensorSpec:
        """The signature's entry for tokens: float32 [batch, steps, C] or int32 [batch, steps]."""
        if self.info.reads_ids:
            return tf.TensorSpec([batch, steps], tf.int32, name)
        return tf.TensorSpec([batch, steps, self.info.channels], tf.float32, name)

    def state_specs(self, batch: int | None) -> list[tf.TensorSpec]:
        """The signature's entries for the state, [batch, ...] each, in the order of `state`."""
        return [tf.TensorSpec([batch, *s], tf.float32, n) for n, s in self.state.items()]

    def init_state(self, batch: tf.Tensor | int) -> State:
        """The initial state: zeros, [batch, ...] each."""
        return self.packed([tf.zeros([batch, *shape]) for shape in self.state.values()])

    def packed(self, tensors: Sequence[tf.Tensor]) -> State:
        """Packs tensors, in the order of `state`, into a state."""
        return self._pack(list(tensors))

    def named(self, state: State) -> dict[str, tf.Tensor]:
        """The tensors of a state by their names."""
        return dict(zip(self.state, tf.nest.flatten(state), strict=True))

    def scan(self, tokens: tf.Tensor, state: State, lengths: tf.Tensor) -> State:
        """The state after a segment.

        Args:
            tokens: [B, T, C] float32, not normalised, or [B, T] int32.
            state: The state before the segment, [B, ...] each.
            lengths: [B] int32, at most T. A sequence keeps its state after its end.

        Returns:
            The state at each sequence's true end.
        """
        tokens = normalized(self.info, tokens)
        batch = tf.shape(tokens)[0]
        second = tf.where(batch < _MIN_DIVIDED, 0, batch // 2)
        first = batch - second
        tensors = tf.nest.flatten(state)
        states = [
            self._scan(tokens[rows], lengths[rows], *(tensor[rows] for tensor in tensors))
            for rows in (slice(first), slice(first, None))
        ]
        return tf.nest.map_structure(lambda *parts: tf.concat(parts, 0), *states)

    def _scan_rows(self, tokens: tf.Tensor, lengths: tf.Tensor, *state: tf.Tensor) -> State:
        return self.recurrence.scan(time_major(tokens), self.packed(state), lengths)

    def probabilities(self, h: tf.Tensor) -> tf.Tensor:
        """The classes' probabilities [B, K] from the core's output h [B, H]."""
        return tf.nn.softmax(self.logits(h))
