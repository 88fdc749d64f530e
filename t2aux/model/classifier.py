"""The sequence classifier: input layer, recurrent core, head (paper, section 4)."""

from __future__ import annotations

from collections.abc import Callable

import gin
import tensorflow as tf

from t2aux.errors import UserError
from t2aux.kernels import ops
from t2aux.model import inputs
from t2aux.model.core import Active, Core, State, active_until, only
from t2aux.model.heads import Head
from t2aux.model.lstm import LSTM
from t2aux_ondevice.preprocessing import DatasetInfo


@gin.configurable(denylist=["info", "seed"])
class Classifier(tf.Module):
    """Reads a sequence token by token and classifies it from the state at its true end."""

    def __init__(
        self,
        info: DatasetInfo,
        *,
        core: Callable[..., Core] = LSTM,
        projection_size: int | None = 128,
        hidden_size: int = 128,
        head_size: int = 256,
        dropconnect: float = 0.5,
        seed: int = 0,
    ) -> None:
        """Makes the weights; the sizes' defaults are the paper's.

        Args:
            info: The data set: its classes, channels or vocabulary.
            core: Makes the recurrent core, see `t2aux.model.core`: @LSTM, the paper's, @GRU or
                @MinGRU.
            projection_size: D, what a token is projected (real values) or embedded (ids) to. None
                feeds real values to the core as they are (paper, Figure 6, "input projection").
            hidden_size: H, the LSTM's cells, or the size of another core's output.
            head_size: Hidden units of the head.
            dropconnect: The probability to drop a weight of the head's second layer in training.
            seed: Of the initial weights.

        Raises:
            UserError: `core` makes something else; a text has no projection; a size or a
                probability is out of range.
        """
        super().__init__(name="classifier")
        # Now, not inside of a compiled function: a kernel that was asked for and can't be had is
        # told before any work.
        ops.enabled()
        for parameter, value in (
            ("projection_size", projection_size),
            ("hidden_size", hidden_size),
            ("head_size", head_size),
        ):
            if value is not None and value < 1:
                raise UserError(f"Classifier.{parameter} must be at least 1, but is {value}.")
        if not 0 <= dropconnect < 1:
            raise UserError(f"Classifier.dropconnect must be in [0, 1), but is {dropconnect}.")
        if projection_size is None and info.is_text:
            raise UserError(
                "Classifier.projection_size = None works for real-valued sequences only; give text "
                "an embedding size, for example 128."
            )
        self.info = info
        self.seed = seed
        self.hidden_size = hidden_size
        if info.is_text:
            self.input = inputs.Embedding(info.vocabulary_size, projection_size, seed=seed)
        elif projection_size is None:
            self.input = inputs.DirectInput(info.channels)
        else:
            self.input = inputs.InputProjection(info.channels, projection_size, seed=seed)
        made = core(self.input.output_size, hidden_size, seed=seed)
        if not isinstance(made, Core):
            raise UserError(
                "Classifier.core must make a recurrent core, such as @LSTM, @GRU or @MinGRU, but "
                f"made a {type(made).__name__}."
            )
        # Under its own name, which is its place in checkpoints.
        self._core_name = made.name
        setattr(self, made.name, made)
        self.head = Head(
            hidden_size,
            head_size,
            info.num_classes,
            dropconnect=dropconnect,
            seed=seed,
            name="head",
        )

    @property
    def core(self) -> Core:
        """The recurrent core."""
        return getattr(self, self._core_name)

    @property
    def recurrent_variables(self) -> list[tf.Variable]:
        """The variables of the input layer and the core: those that truncation is about."""
        return [*self.input.trainable_variables, *self.core.trainable_variables]

    def init_state(self, batch: tf.Tensor | int) -> State:
        """Zeros: [batch, H] each."""
        return self.core.init_state(batch)

    def step(self, tokens: tf.Tensor, state: State) -> State:
        """The state after one more token a sequence ([B, C] float32 or [B] int32)."""
        return self.core.step(self.input(tokens), state)[1]

    def scan(
        self, tokens: tf.Tensor, state: State | None = None, lengths: tf.Tensor | None = None
    ) -> State:
        """The state after a segment; nothing is stored along the way.

        Args:
            tokens: [B, T, C] float32 or [B, T] int32.
            state: The state before it; zeros by default.
            lengths: [B] int32: the true lengths; each sequence keeps its state from its end on.

        Returns:
            The state after each sequence's true end.
        """
        tokens = time_major(tokens)
        state = self.init_state(tf.shape(tokens)[1]) if state is None else state
        states, _ = self.states_at(
            tokens, state, tf.shape(tokens)[:1], active_until(lengths), gradient=False
        )
        return only(states)

    def states_at(
        self,
        tokens: tf.Tensor,
        state: State,
        marks: tf.Tensor,
        active: Active | None = None,
        *,
        outputs: bool = False,
        gradient: bool = True,
    ) -> tuple[State, tf.Tensor | None]:
        """The states at some positions of time-major tokens, see `Core.states_at`."""
        return self.core.states_at(
            tokens, self.input, state, marks, active=active, outputs=outputs, gradient=gradient
        )

    def outputs(
        self, tokens: tf.Tensor, state: State, active: Active | None = None
    ) -> tuple[tf.Tensor, State]:
        """The outputs [T, B, H] over time-major tokens, and the state after them.

        Made for a gradient to be taken.
        """
        return self.core.outputs(tokens, self.input, state, active)

    def final(self, tokens: tf.Tensor, state: State, active: Active | None = None) -> State:
        """The state after time-major tokens; made for a gradient to be taken, as `outputs`."""
        return self.core.final(tokens, self.input, state, active)

    def logits(self, h: tf.Tensor, seed: tf.Tensor | None = None) -> tf.Tensor:
        """The classes' logits [B, K] from the core's output h [B, H].

        With a `seed` ([2] int32) DropConnect is on, as in training.
        """
        return self.head(h, seed)

    def __call__(self, tokens: tf.Tensor, lengths: tf.Tensor | None = None) -> tf.Tensor:
        """Classifies whole sequences.

        Args:
            tokens: [B, T, C] float32 or [B, T] int32.
            lengths: [B] int32 true lengths; all T by default.

        Returns:
            The logits [B, K].
        """
        return self.logits(self.scan(tokens, lengths=lengths).h)


def time_major(tokens: tf.Tensor) -> tf.Tensor:
    """[B, T, ...] -> [T, B, ...]."""
    rank = tokens.shape.rank
    return tf.transpose(tokens, [1, 0, *range(2, rank)])
