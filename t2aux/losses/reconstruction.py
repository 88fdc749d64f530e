"""r-LSTM, the auxiliary loss that reconstructs the past (paper, Figure 2 left)."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import gin
import keras
import tensorflow as tf

from t2aux.errors import SettingError
from t2aux.kernels import ops
from t2aux.losses import decoder, decoder_xla
from t2aux.losses.anchored import Anchored, run_stack, uniform_position
from t2aux.losses.base import Bptt, Network, Sequences, States, StatesAt, stream
from t2aux.model import cudnn
from t2aux.model.core import State
from t2aux.model.inputs import InputLayer
from t2aux.model.lstm import LSTMState

# Random streams of one batch; the base class has 0 and 1.
_SEGMENT, _SAMPLE, _TOKEN = range(2, 5)


@keras.saving.register_keras_serializable(package="t2aux")
@gin.configurable
class Reconstruction(Anchored):
    """r-LSTM: reconstructs, from the state at an anchor, a segment that was read before it.

    A decoder starts from the main LSTM's state at the anchor, is given the first token of the
    segment, and emits the tokens after it (paper, Figure 2 left).

    >>> loss = t2aux.losses.Reconstruction(length=40, weight=20.0)
    >>> model = t2aux.SequenceClassifier(classes=10, auxiliary=[loss])
    """

    def __init__(
        self,
        *,
        anchors: int = 1,
        length: int = 600,
        weight: float = 1.0,
        layers: int = 2,
        head_size: int = 256,
        scheduled_sampling: bool = True,
        final_sampling: float = 1.0,
        reverse: bool = True,
        distant_past: bool = True,
        bptt: Bptt | None = None,
        rows: float = 1.0,
        levels: int | None = None,
        name: str | None = None,
    ) -> None:
        """Creates the decoder.

        Args:
            anchors: n, the number of positions per batch; the paper varies it while n * length is
                constant (Table 6).
            length: l, the number of predicted tokens per segment.
            weight: w in L = L_supervised + w * L_auxiliary.
            layers: The number of LSTM layers of the decoder.
            head_size: The number of hidden units of its head [us].
            scheduled_sampling: Feed the decoder its own tokens instead of the true ones with a
                probability that grows from 0 over the phase (Figure 6).
            final_sampling: The final value of that probability, in [0, 1]. After few updates the
                decoder can't cope with only its own tokens, and the main network learns more with
                a value below 1.
            reverse: Emit the segment from its end to its beginning (Figure 6) [us: the meaning].
            distant_past: Draw the segment's place uniformly from all places before the anchor;
                otherwise it ends at the anchor (Figure 6) [us: the distribution].
            bptt: See `AuxiliaryLoss`.
            rows: See `AuxiliaryLoss`.
            levels: The number of equal intervals of [0, 1] for an additional classification: a
                softmax predicts the interval of each value of a token, and its cross-entropy is
                added to the squared distance [us]. Useful for images, whose squared distances are
                small compared to the supervised loss. None: the paper's loss.
            name: See `AuxiliaryLoss`.
        """
        super().__init__(
            name=name,
            anchors=anchors,
            length=length,
            weight=weight,
            bptt=bptt,
            rows=rows,
            layers=layers,
            head_size=head_size,
            levels=levels,
        )
        if not 0 <= final_sampling <= 1:
            raise SettingError(
                f"Reconstruction.final_sampling must be in [0, 1], but is {final_sampling}."
            )
        self.scheduled_sampling = scheduled_sampling
        self.final_sampling = final_sampling
        self.reverse = reverse
        self.distant_past = distant_past

    def get_config(self) -> dict[str, Any]:
        """See `AuxiliaryLoss`."""
        return {
            **super().get_config(),
            "scheduled_sampling": self.scheduled_sampling,
            "final_sampling": self.final_sampling,
            "reverse": self.reverse,
            "distant_past": self.distant_past,
        }

    def _bottom_input_size(self, network: Network) -> int:
        return network.input_size

    @property
    def shortest_sequence(self) -> int:
        """A first token and the predicted ones."""
        return self.length + 1

    def draw(self, seed: tf.Tensor, starts: tf.Tensor, steps: tf.Tensor) -> tf.Tensor:
        """Draws the batch's anchors uniformly from the positions that a segment fits before.

        Args:
            seed: [2] int32, the seed of this batch.
            starts: [B] int32, the step at which each sequence begins.
            steps: Scalar int32 T.

        Returns:
            Positions [n] int32 in 0..T; the state before that step is decoded.
        """
        low = starts + self.length + 1
        low, high = self._reference_range(seed, low, tf.fill(tf.shape(starts), steps))
        return tf.minimum(self._draw_anchors(seed, low, high), steps)

    def segments(
        self, seed: tf.Tensor, tokens: tf.Tensor, starts: tf.Tensor, anchors: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Draws a segment before each anchor, in the order in which the decoder emits it.

        Args:
            seed: [2] int32, the seed of this batch.
            tokens: [T, B, C] float32 or [T, B] int32.
            starts: [B] int32, the step at which each sequence begins.
            anchors: [n] int32 positions.

        Returns:
            The segments [l + 1, n * B, ...] (anchor-major), and [n * B] float32, 1 if the segment
            fits into the sequence, else 0.
        """
        batch = tf.shape(tokens)[1]
        high = anchors[:, tf.newaxis] - self.length - 1
        low = tf.broadcast_to(starts[tf.newaxis], [self.anchors, batch])
        if self.distant_past:
            # One draw per anchor, shared by the batch [us].
            draw = tf.random.stateless_uniform(
                [self.anchors, 1], stream(seed, _SEGMENT), dtype=tf.float64
            )
            first = uniform_position(draw, low, high)
        else:
            first = tf.broadcast_to(high, [self.anchors, batch])
        valid_mask = tf.cast(low <= high, tf.float32)
        first = tf.maximum(first, 0)
        offsets = tf.range(self.length + 1)
        if self.reverse:
            offsets = tf.reverse(offsets, [0])
        # A segment that does not fit may reach past the end: `valid_mask` is 0 for it.
        position = tf.minimum(
            first[tf.newaxis] + offsets[:, tf.newaxis, tf.newaxis], tf.shape(tokens)[0] - 1
        )
        index = position * batch + tf.range(batch)
        flat = tf.reshape(tokens, tf.concat([[-1], tf.shape(tokens)[2:]], 0))
        segments = tf.gather(flat, tf.reshape(index, [self.length + 1, -1]))
        segments.set_shape([self.length + 1, None, *tokens.shape[2:]])
        return segments, tf.reshape(valid_mask, [-1])

    def declare(self, sequences: Sequences, seed: tf.Tensor) -> StatesAt:
        """The states at the anchors."""
        starts = sequences.all_starts
        anchors = self.draw(seed, starts, sequences.steps)
        valid_mask = starts[tf.newaxis] <= anchors[:, tf.newaxis] - self.length - 1
        return StatesAt(anchors, tf.reduce_sum(tf.cast(valid_mask, tf.float32)) * self.length)

    def call(self, given: States) -> tf.Tensor:
        """Decodes all segments as one batch."""
        sequences = given.sequences
        segments, valid_mask = self.segments(
            given.seed, sequences.tokens, sequences.starts, given.positions
        )

        def draw(seed: tf.Tensor) -> tf.Tensor:
            uniforms = sequences.uniform(seed, [self.length, self.anchors])
            return tf.reshape(uniforms, [self.length, -1])

        sampling = given.progress * self.final_sampling
        if self.scheduled_sampling and cudnn.on_gpu():
            use_sampled, uniforms = self._draw_sampling(
                tf.shape(segments)[1], given.seed, sampling, draw
            )
            return decoder_xla.loss(
                self._weights(given.input_layer),
                self.bottom_state(given.states),
                decoder.Segments(segments, use_sampled, uniforms, valid_mask),
                chunk=given.bptt or self.length,
                output_losses=self.output_losses,
            )
        outputs = self.decode(
            given.input_layer,
            given.states,
            segments[:-1],
            seed=given.seed,
            sampling=sampling,
            bptt=given.bptt,
            draw=draw,
        )
        return tf.reduce_sum(self.output_losses(outputs, segments[1:]) * valid_mask)

    def decode(
        self,
        input_layer: InputLayer,
        states: State,
        given: tf.Tensor,
        *,
        seed: tf.Tensor,
        sampling: tf.Tensor,
        bptt: int | None = None,
        draw: Callable[[tf.Tensor], tf.Tensor] | None = None,
    ) -> tf.Tensor:
        """Decodes segments.

        Args:
            input_layer: The main network's input layer.
            states: The main network's states to start from, N rows.
            given: [l, N, ...], the true tokens before the predicted ones; the first is always fed.
            seed: [2] int32.
            sampling: Scalar, the probability of feeding the decoder its own token instead.
            bptt: The decoder's states pass no gradient after every `bptt` steps; None: they always
                do.
            draw: Returns uniform random numbers [l, N] in [0, 1) for a seed [2]; by default
                TensorFlow's.

        Returns:
            The head's outputs [l, N, C (1 + levels)], see `values`, or [l, N, V] logits.
        """
        if draw is None:
            shape = [self.length, tf.shape(given)[1]]
            draw = functools.partial(tf.random.stateless_uniform, shape)
        use_sampled, uniforms = self._draw_sampling(tf.shape(given)[1], seed, sampling, draw)
        # No gradient passes through the fed tokens, so the gradient of the head is computed outside
        # the loop, in one product over all steps.
        decode = self._decode_kernel if ops.enabled() else self._decode_plain
        hidden = decoder.in_chunks(
            functools.partial(decode, input_layer),
            tf.ensure_shape(given, [self.length, *given.shape[1:]]),
            self.bottom_state(states),
            use_sampled,
            uniforms,
            chunk=bptt or self.length,
        )
        return self.head(hidden)

    def _draw_sampling(
        self,
        count: tf.Tensor,
        seed: tf.Tensor,
        sampling: tf.Tensor,
        draw: Callable[[tf.Tensor], tf.Tensor],
    ) -> tuple[tf.Tensor, tf.Tensor]:
        # `use_sampled` and `uniforms` of `decoder.Segments`.
        shape = [self.length, count]
        if not self.scheduled_sampling:
            return tf.zeros(shape, tf.bool), tf.zeros(shape)
        use_sampled = draw(stream(seed, _SAMPLE)) < sampling
        use_sampled = tf.logical_and(use_sampled, tf.range(self.length)[:, tf.newaxis] > 0)
        return use_sampled, draw(stream(seed, _TOKEN)) if self._is_text else tf.zeros(shape)

    def _decode_kernel(
        self,
        input_layer: InputLayer,
        given: tf.Tensor,
        carried: list[LSTMState],
        previous: tf.Tensor,
        use_sampled: tf.Tensor,
        uniforms: tf.Tensor,
    ) -> tuple[tf.Tensor, list[LSTMState], tf.Tensor]:
        weights = self._weights(input_layer)
        *hidden, kernel, bias = weights.head
        result = ops.decode(
            given,
            previous,
            use_sampled,
            uniforms if self._is_text else None,
            [*hidden, self.values(kernel), self.values(bias)],
            list(weights.layers),
            [state.h for state in carried],
            [state.c for state in carried],
        )
        carried = [LSTMState(h, c) for h, c in zip(result.h, result.c, strict=True)]
        return result.outputs, carried, result.last

    def _decode_plain(
        self,
        input_layer: InputLayer,
        given: tf.Tensor,
        carried: list[LSTMState],
        previous: tf.Tensor,
        use_sampled: tf.Tensor,
        uniforms: tf.Tensor,
    ) -> tuple[tf.Tensor, list[LSTMState], tf.Tensor]:
        if not self.scheduled_sampling:
            # No step needs the token decoded before it, so a GPU runs a layer at a time (cuDNN).
            hidden, carried = run_stack(self.layers, input_layer(given), carried)
            return hidden, carried, previous
        return decoder.run(
            self._weights(input_layer), given, carried, previous, use_sampled, uniforms
        )

    def _weights(self, input_layer: InputLayer) -> decoder.Weights:
        bottom, *upper = self.layers
        folded = input_layer.fold(bottom.kernel, bottom.bias)
        layers = [(*folded.weights, bottom.recurrent_kernel)]
        layers += [(layer.kernel, layer.bias, layer.recurrent_kernel) for layer in upper]
        tensors = tf.nest.map_structure(
            lambda w: None if w is None else tf.convert_to_tensor(w),
            [ops.Weights(*layer) for layer in layers],
        )
        return decoder.Weights(tuple(tensors), tuple(self.head.tensors))
