"""The sequence classifier: input layer, LSTM, head (paper, section 4)."""

from __future__ import annotations

import gin
import tensorflow as tf

from t2aux.errors import UserError
from t2aux.kernels import ops
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
        states, _ = self.states_at(
            tokens, state, tf.shape(tokens)[:1], lstm.active_until(lengths), gradient=False
        )
        return lstm.only(states)

    def states_at(
        self,
        tokens: tf.Tensor,
        state: LSTMState,
        marks: tf.Tensor,
        active: lstm.Active | None = None,
        *,
        outputs: bool = False,
        gradient: bool = True,
    ) -> tuple[LSTMState, tf.Tensor | None]:
        """The states at some positions of time-major tokens.

        Args:
            tokens: [T, B, C] float32 or [T, B] int32.
            state: The state before them.
            marks: [M] int32 positions in 0..T: the states before those steps are given.
            active: See `lstm.run`.
            outputs: Give the outputs after every step too.
            gradient: Whether a gradient may be taken. Without, nothing is stored along the way.

        Returns:
            The states [M, B, H], and the outputs [T, B, H] or None.
        """
        if active is None and not gradient and not outputs and lstm.on_gpu():

            def advance(state: LSTMState, begin: tf.Tensor, end: tf.Tensor) -> LSTMState:
                return self._advance_in_chunks(tokens, state, begin, end)

            return lstm.keep_at(advance, state, marks), None
        folded = self.input.fold(self.lstm.kernel, self.lstm.bias)
        return lstm.states_at(
            tokens,
            *folded.weights,
            self.lstm.recurrent_kernel,
            state,
            marks,
            active=active,
            outputs=outputs,
            gradient=gradient,
        )

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

    def outputs(
        self, tokens: tf.Tensor, state: LSTMState, active: lstm.Active | None = None
    ) -> tuple[tf.Tensor, LSTMState]:
        """The outputs [T, B, H] over time-major tokens, and the state after them.

        Made for a gradient to be taken; on a GPU through cuDNN where no sequence is padded.
        """
        if active is None and lstm.on_gpu():
            return self.lstm.outputs_time_major(self.input(tokens), state)
        states, outputs = self.states_at(tokens, state, tf.shape(tokens)[:1], active, outputs=True)
        return outputs, lstm.only(states)

    def final(
        self, tokens: tf.Tensor, state: LSTMState, active: lstm.Active | None = None
    ) -> LSTMState:
        """The state after time-major tokens; made for a gradient to be taken, as `outputs`."""
        if active is None and lstm.on_gpu():
            return self.outputs(tokens, state)[1]
        states, _ = self.states_at(tokens, state, tf.shape(tokens)[:1], active)
        return lstm.only(states)

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
