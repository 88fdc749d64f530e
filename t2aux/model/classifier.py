"""The sequence classifier: input layer, LSTM, head (paper, section 4)."""

from __future__ import annotations

from collections.abc import Callable

import gin
import tensorflow as tf

from t2aux.errors import UserError
from t2aux.model import inputs, lstm
from t2aux.model.heads import Head
from t2aux.model.lstm import LSTMState
from t2aux.preprocessing import DatasetInfo

# Steps that a GPU projects and runs at once where no gradient is taken.
_CHUNK = 1024


@gin.configurable(denylist=["info", "seed"])
class Classifier(tf.Module):
    """Reads a sequence token by token and classifies it from the state at its true end."""

    def __init__(
        self,
        info: DatasetInfo,
        *,
        projection_size: int | None = 128,
        hidden_size: int = 128,
        head_size: int = 256,
        dropconnect: float = 0.5,
        seed: int = 0,
    ) -> None:
        """Makes the weights; the sizes' defaults are the paper's.

        Args:
            info: The data set: its classes, channels or vocabulary.
            projection_size: D, what a token is projected (real values) or embedded (ids) to. None
                feeds real values to the LSTM as they are (paper, Figure 6, "input projection").
            hidden_size: H, the LSTM's cells.
            head_size: Hidden units of the head.
            dropconnect: The probability to drop a weight of the head's second layer in training.
            seed: Of the initial weights.

        Raises:
            UserError: A text has no projection; a size or a probability is out of range.
        """
        super().__init__(name="classifier")
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
        self.lstm = lstm.LSTM(self.input.output_size, hidden_size, seed=seed, name="lstm")
        self.head = Head(
            hidden_size,
            head_size,
            info.num_classes,
            dropconnect=dropconnect,
            seed=seed,
            name="head",
        )

    @property
    def recurrent_variables(self) -> list[tf.Variable]:
        """The variables of the input layer and the LSTM: those that truncation is about."""
        return [*self.input.trainable_variables, *self.lstm.trainable_variables]

    def init_state(self, batch: tf.Tensor | int) -> LSTMState:
        """Zeros: [batch, H] each."""
        return self.lstm.init_state(batch)

    def step(self, tokens: tf.Tensor, state: LSTMState) -> LSTMState:
        """The state after one more token a sequence ([B, C] float32 or [B] int32)."""
        return self.lstm.step(self.input(tokens), state)[1]

    def scan(
        self, tokens: tf.Tensor, state: LSTMState | None = None, lengths: tf.Tensor | None = None
    ) -> LSTMState:
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
        return self.advance(
            tokens, state, 0, tf.shape(tokens)[0], active=lstm.active_until(lengths)
        )

    def advance(
        self,
        tokens: tf.Tensor,
        state: LSTMState,
        begin: tf.Tensor | int,
        end: tf.Tensor | int,
        active: Callable | None = None,
    ) -> LSTMState:
        """The state after the steps begin <= t < end of time-major tokens [T, B, ...].

        Stores nothing along the way: for evaluation, and for steps that carry no gradient.
        """
        if active is None and lstm.on_gpu():
            return self._advance_in_chunks(tokens, state, begin, end)
        folded = self.input.fold(self.lstm.kernel, self.lstm.bias)
        read = folded.reader(tokens, differentiable=False)
        return lstm.run(read, begin, end, state, self.lstm.recurrent_kernel, active=active)[0]

    def _advance_in_chunks(
        self, tokens: tf.Tensor, state: LSTMState, begin: tf.Tensor | int, end: tf.Tensor | int
    ) -> LSTMState:
        # cuDNN wants its input projected beforehand: a chunk at a time, so that memory is bounded.
        end = tf.convert_to_tensor(end)

        def body(t: tf.Tensor, h: tf.Tensor, c: tf.Tensor) -> tuple:
            stop = tf.minimum(t + _CHUNK, end)
            _, new = self.lstm.outputs_time_major(self.input(tokens[t:stop]), LSTMState(h, c))
            new = [tf.ensure_shape(a, b.shape) for a, b in zip(new, (h, c), strict=True)]
            return stop, *new

        begin = tf.convert_to_tensor(begin)
        _, h, c = tf.while_loop(lambda t, *_: t < end, body, (begin, *state))
        return LSTMState(h, c)

    def final(
        self, tokens: tf.Tensor, state: LSTMState, active: Callable | None = None
    ) -> LSTMState:
        """The state after time-major tokens, as `states`; made for a gradient to be taken.

        On a GPU it goes through cuDNN where no sequence is padded.
        """
        if active is None and lstm.on_gpu():
            return self.lstm.outputs_time_major(self.input(tokens), state)[1]
        folded = self.input.fold(self.lstm.kernel, self.lstm.bias)
        read = folded.reader(tokens, differentiable=True)
        steps = tf.shape(tokens)[0]
        return lstm.run(read, 0, steps, state, self.lstm.recurrent_kernel, active=active)[0]

    def states(
        self, tokens: tf.Tensor, state: LSTMState, active: Callable | None = None
    ) -> LSTMState:
        """The states after every step of time-major tokens; made for a gradient to be taken.

        Args:
            tokens: [T, B, C] float32 or [T, B] int32.
            state: The state before them.
            active: See `lstm.run`.

        Returns:
            The states after each step, [T, B, H] each.
        """
        folded = self.input.fold(self.lstm.kernel, self.lstm.bias)
        read = folded.reader(tokens, differentiable=True)
        steps = tf.shape(tokens)[0]
        _, states = lstm.run(
            read, 0, steps, state, self.lstm.recurrent_kernel, active=active, collect=True
        )
        return states

    def logits(self, h: tf.Tensor, seed: tf.Tensor | None = None) -> tf.Tensor:
        """The classes' logits [B, K] from the LSTM's output h [B, H].

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
