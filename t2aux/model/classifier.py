"""The sequence classifier: input layer, recurrent core, head (paper, section 4)."""

from __future__ import annotations

import math

import keras
import tensorflow as tf

from t2aux.configurable import Configurable
from t2aux.errors import SettingError
from t2aux.model import inputs, weights
from t2aux.model.core import Active, Core, Scan, State, active_until, check_sizes, single_state
from t2aux.model.heads import Head
from t2aux.model.normalization import normalized
from t2aux_ondevice.preprocessing import DatasetInfo


class BaseClassifier(Configurable, keras.Model):
    """The part of a classifier that is independent of training: input layer, core and head.

    Attributes:
        input_layer: Maps tokens to the core's input.
        core: The recurrent core.
        head: Maps the core's output to the logits of the classes.
        hidden_size: H, the size of the core's output.
        num_classes: K.
        padded: Whether sequences differ in length.
        network: The sizes that auxiliary losses are built for.
        info: The data set that the classifier was made for; None if unknown. `step`, `scan` and
            `logits_of` take raw tokens and normalise them. All other methods take tokens that
            `normalized` has returned.
        noise: The standard deviation of the noise added to normalised real values in training.
    """

    input_layer: inputs.InputLayer
    core: Core
    head: Head
    info: DatasetInfo | None = None
    noise: float = 0.0

    @property
    def recurrent_variables(self) -> list[tf.Variable]:
        """The variables of the input layer and the core, whose gradients are truncated."""
        return [*weights.in_order(self.input_layer), *weights.in_order(self.core)]

    def normalized(self, tokens: tf.Tensor) -> tf.Tensor:
        """Normalises raw tokens, see `t2aux.model.normalization`."""
        return normalized(self.info, tokens)

    def init_state(self, batch: tf.Tensor | int) -> State:
        """The zero state, [batch, H] each."""
        return self.core.init_state(batch)

    def step(self, tokens: tf.Tensor, state: State) -> State:
        """The state after one more token of each sequence ([B, C] float32 or [B] int32)."""
        return self.core.step(self.input_layer(self.normalized(tokens)), state)[1]

    def scan(
        self, tokens: tf.Tensor, state: State | None = None, lengths: tf.Tensor | None = None
    ) -> State:
        """The state after a segment. No intermediate states are stored.

        Args:
            tokens: [B, T, C] float32 or [B, T] int32.
            state: The state before the segment; zeros by default.
            lengths: [B] int32 true lengths; the state of a sequence does not change after its end.

        Returns:
            The state after each sequence's true end.
        """
        tokens = time_major(self.normalized(tokens))
        state = self.init_state(tf.shape(tokens)[1]) if state is None else state
        scan = Scan(state, tf.shape(tokens)[:1], active_until(lengths), gradient=False)
        return single_state(self.states_at(tokens, scan)[0])

    def states_at(self, tokens: tf.Tensor, scan: Scan) -> tuple[State, tf.Tensor | None]:
        """The states at some positions of time-major tokens, see `Core.states_at`."""
        return self.core.states_at(tokens, self.input_layer, scan)

    def outputs(
        self, tokens: tf.Tensor, state: State, active: Active | None = None
    ) -> tuple[tf.Tensor, State]:
        """The outputs [T, B, H] over time-major tokens, and the state after them.

        Supports gradients.
        """
        return self.core.outputs(tokens, self.input_layer, state, active)

    def final(self, tokens: tf.Tensor, state: State, active: Active | None = None) -> State:
        """The state after time-major tokens; supports gradients, like `outputs`."""
        return self.core.final(tokens, self.input_layer, state, active)

    def logits(self, h: tf.Tensor, seed: tf.Tensor | None = None) -> tf.Tensor:
        """The logits [B, K] of the classes from the core's output h [B, H].

        With a `seed` ([2] int32), DropConnect is active, as in training.
        """
        return self.head(h, seed)

    def logits_of(
        self, tokens: tf.Tensor, lengths: tf.Tensor | None = None, *, gradient: bool = False
    ) -> tf.Tensor:
        """Classifies whole sequences.

        Args:
            tokens: [B, T, C] float32 or [B, T] int32.
            lengths: [B] int32 true lengths; all T by default.
            gradient: Whether gradients must be supported, through all steps.

        Returns:
            The logits [B, K].
        """
        if not gradient:
            return self.logits(self.scan(tokens, lengths=lengths).h)
        state = self.init_state(tf.shape(tokens)[0])
        tokens = time_major(self.normalized(tokens))
        return self.logits(self.final(tokens, state, active_until(lengths)).h)


def check_parameters(
    classifier: str,
    *,
    is_text: bool,
    dropconnect: float,
    noise: float,
    projection_size: int | None,
    **sizes: int | None,
) -> None:
    """Raises UserError if a parameter of a classifier is out of range; a size may be None."""
    sizes["projection_size"] = projection_size
    check_sizes(classifier, **{name: size for name, size in sizes.items() if size is not None})
    if not 0 <= dropconnect < 1:
        raise SettingError(f"{classifier}.dropconnect must be in [0, 1), but is {dropconnect}.")
    if not 0 <= noise < math.inf:
        raise SettingError(f"{classifier}.noise must be a number of at least 0, but is {noise}.")
    if noise and is_text:
        raise SettingError(f"{classifier}.noise = {noise} is for real values: omit it for ids.")
    if projection_size is None and is_text:
        raise SettingError(
            f"{classifier}.projection_size = None works for real-valued sequences only; give text "
            "an embedding size, for example 128."
        )


def time_major(tokens: tf.Tensor) -> tf.Tensor:
    """[B, T, ...] -> [T, B, ...]."""
    rank = tokens.shape.rank
    return tf.transpose(tokens, [1, 0, *range(2, rank)])
