"""What an r-LSTM's state holds: reconstructions of test segments, and guesses without a memory.

Anchors and segments are sampled for every batch, as in the run's training. The decoder starts from
the state at the anchor and reads the segment's first token in the order of emission; then it reads
its own predictions instead of the true tokens. It is compared with guesses that use the data but
not the sequence, and with the same decoder started from the state of another sequence of the batch
at the same anchor. The difference shows what the state holds. If segments come from the whole past
(`Reconstruction.distant_past`), only the first token indicates which segment to reconstruct. Then a
decoder that reads its own predictions may choose the wrong segment however good the memory is, but
one that reads the true tokens can identify the segment from them.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from t2aux import data, tf32
from t2aux.errors import DataError, ModelError
from t2aux.losses.reconstruction import Reconstruction
from t2aux.model import core
from t2aux.model.classifier import time_major
from t2aux.run import Run
from t2aux.training import truncation
from t2aux_ondevice.preprocessing import DatasetInfo, scale_pixels

# What each predictor uses in addition to the training data; see `t2aux reconstructions`.
ABOUT = {
    "reconstruction": "the state, the first token and its own predictions",
    "teacher_forced": "the state and all true tokens before",
    "another_state": "another sequence's state, the first token and its own predictions",
    "another_forced": "another sequence's state and all true tokens before",
    "mean": "the training data's mean token",
    "mean_by_position": "the training data's mean token at each position",
    "repeat_first": "the segment's first token, repeated",
    "copy_previous": "the true token before, repeated",
    "unigram": "how often each token occurs in the training data",
    "bigram": "how often a token follows the true one before in the training data",
}
_ANOTHER = ("another_state", "another_forced")
# Guesses that use the previous true token.
_USES_TRUE_TOKEN = ("copy_previous", "bigram")
_DECODED = ("reconstruction", "teacher_forced", *_ANOTHER)


class Statistics(NamedTuple):
    """Statistics of the training data that the guesses use.

    Attributes:
        mean: [C], the mean token; None for text.
        by_position: [T', C], the mean token at each position up to the longest; None for text.
        unigram: [V], the logarithm of each id's share; None for real values. Each count is
            increased by 1, here and in `bigram`.
        bigram: [V, V], the logarithm of the share of the second id among those that follow the
            first, in the order of emission.
    """

    mean: np.ndarray | None = None
    by_position: np.ndarray | None = None
    unigram: np.ndarray | None = None
    bigram: np.ndarray | None = None


class Decoded(NamedTuple):
    """A batch's segments, [l + 1, N, ...] each with N = n * B, in the order of emission.

    Attributes:
        tokens: The true tokens; the first one is given.
        positions: Their positions in their own sequences, [l + 1, N] int32.
        valid_mask: [N] float32, 1 if the sequence is long enough for the segment, else 0.
        other_mask: [N] float32, 1 if, in addition, the batch has another sequence to take a state
            from, and that sequence begins before the anchor, else 0.
        predictions: Tokens 1 to l by predictor: values [l, N, C] or logits [l, N, V].
    """

    tokens: tf.Tensor
    positions: tf.Tensor
    valid_mask: tf.Tensor
    other_mask: tf.Tensor
    predictions: dict[str, tf.Tensor]


@dataclasses.dataclass(frozen=True)
class Measured:
    """The results over a split.

    Attributes:
        info: The data.
        tokens: The number of predicted tokens.
        loss: The mean loss per token by predictor: squared distance, or cross-entropy in nats.
        by_step: The mean loss of each predicted token of a segment by predictor, [l].
        accuracy: For text, the share of tokens to which a predictor gives the highest probability.
    """

    info: DatasetInfo
    tokens: int
    loss: dict[str, float]
    by_step: dict[str, np.ndarray]
    accuracy: dict[str, float]

    def verdict(self) -> str:
        """What the losses say about the memory, with true tokens and with own predictions.

        Guesses that use the previous true token are compared with the decoder that reads it.
        """
        guesses = [name for name in self.loss if name not in _DECODED]
        without_true = [name for name in guesses if name not in _USES_TRUE_TOKEN]
        forced = self._against("teacher_forced", guesses, "another_forced")
        sampled = self._against("reconstruction", without_true, "another_state")
        return f"Given the true tokens, {forced} Given its own predictions, {sampled}"

    def _against(self, decoder: str, guesses: list[str], another: str) -> str:
        loss = self.loss[decoder]
        best = min(guesses, key=self.loss.get)
        verb = "beats every guess without a memory, the best of which is"
        if loss >= self.loss[best]:
            verb = "does not beat"
        text = f"the decoder ({loss:.5f}) {verb} {best} ({self.loss[best]:.5f})"
        other = self.loss.get(another)
        if other is None:
            return f"{text}."
        if other <= loss:
            return f"{text}, and another sequence's state does as well: it is not a memory."
        return f"{text}; another sequence's state costs {other / loss:.2f} times the loss."

    def to_json(self) -> dict[str, Any]:
        """All results in a form that can be written as JSON."""
        unit = "cross-entropy, nats" if self.info.is_text else "squared distance"
        return {
            "unit": f"{unit} per token",
            "tokens": self.tokens,
            "loss": self.loss,
            **({"accuracy": self.accuracy} if self.accuracy else {}),
            "verdict": self.verdict(),
            "by_step": {name: values.tolist() for name, values in self.by_step.items()},
            "about": {name: ABOUT[name] for name in self.loss},
        }


@dataclasses.dataclass(frozen=True)
class Sample:
    """One sequence with its segments.

    Attributes:
        index: The index of the sequence in the split.
        sequence: [T, C] or [T].
        positions: [n, l + 1], the positions of each segment's tokens, in the order of emission.
        reconstruction: Values [n, l, C] or most likely ids [n, l], for all tokens but the first.
        loss: The mean loss per token.
    """

    index: int
    sequence: np.ndarray
    positions: np.ndarray
    reconstruction: np.ndarray
    loss: float


def reconstruction_of(run: Run) -> Reconstruction:
    """The run's reconstruction loss; `load_run` must have loaded the auxiliary networks.

    Raises:
        UserError: The run has no reconstruction loss.
    """
    for loss in run.losses:
        if isinstance(loss, Reconstruction):
            return loss
    raise ModelError(
        f"{run.model_dir} was trained without Reconstruction: there is nothing to decode. Give an "
        "r-LSTM's run (--gin_file=models/r_lstm)."
    )


def statistics(train: data.Split, *, reverse: bool) -> Statistics:
    """Computes the statistics of the training data; see `Statistics`.

    Args:
        train: The training split.
        reverse: Whether segments are emitted from the end to the beginning.
    """
    if train.info.is_text:
        return _text_statistics(train, reverse=reverse)
    longest, channels = int(train.lengths.max()), train.info.channels
    sums = np.zeros((longest, channels))
    counts = np.zeros(longest)
    is_pixels = False
    for values, lengths in train.chunks():
        is_pixels = values.dtype == np.uint8
        if (lengths == longest).all():
            sums += values.reshape(-1, longest, channels).sum(axis=0, dtype=np.float64)
            counts += len(lengths)
            continue
        ends = np.cumsum(lengths)
        position = np.arange(len(values)) - np.repeat(ends - lengths, lengths)
        counts += np.bincount(position, minlength=longest)
        for c in range(channels):
            sums[:, c] += np.bincount(position, values[:, c], longest)
    mean, by_position = sums.sum(axis=0) / counts.sum(), sums / counts[:, np.newaxis]
    if is_pixels:
        mean, by_position = scale_pixels(mean), scale_pixels(by_position)
    if train.info.mean is not None:
        mean, by_position = (
            (values - train.info.mean) / train.info.deviation for values in (mean, by_position)
        )
    return Statistics(mean.astype(np.float32), by_position.astype(np.float32))


def _text_statistics(train: data.Split, *, reverse: bool) -> Statistics:
    size = train.info.vocabulary_size
    unigram, pairs = np.ones(size), np.ones(size * size)
    for values, lengths in train.chunks():
        ids = values.astype(np.int64)
        unigram += np.bincount(ids, minlength=size)
        inside = np.ones(len(ids) - 1, bool)
        inside[np.cumsum(lengths)[:-1] - 1] = False
        before, after = (ids[1:], ids[:-1]) if reverse else (ids[:-1], ids[1:])
        pairs += np.bincount((before * size + after)[inside], minlength=size * size)
    pairs = pairs.reshape(size, size)
    shares = unigram / unigram.sum(), pairs / pairs.sum(axis=1, keepdims=True)
    return Statistics(unigram=_log(shares[0]), bigram=_log(shares[1]))


def decoder(
    run: Run, loss: Reconstruction, known: Statistics, seed: int
) -> Callable[[data.Batch, tf.Tensor], Decoded]:
    """Returns the function that decodes a batch.

    Args:
        run: The run.
        loss: The run's reconstruction loss.
        known: The statistics that the guesses use.
        seed: The seed of the anchors, the segments and the tokens that a text decoder samples.

    Returns:
        A function of a batch and its number, which seeds the random numbers.
    """
    classifier = run.classifier
    padded = classifier.info.length is None
    # Does not depend on the setting in training, because `sampling` is passed explicitly.
    loss.scheduled_sampling = True

    @tf.function(reduce_retracing=True, autograph=False)
    def decode(batch: data.Batch, number: tf.Tensor) -> Decoded:
        seeds = tf.stack([seed, number])
        tokens = classifier.normalized(batch.inputs)
        tokens = truncation.align_ends(tokens, batch.lengths) if padded else tokens
        tokens = time_major(tokens)
        steps = tf.shape(tokens)[0]
        starts = steps - batch.lengths
        anchors = loss.draw(seeds, starts, steps)
        states = truncation.forward_states(classifier, tokens, starts if padded else None, anchors)
        segments, valid_mask = loss.segments(seeds, tokens, starts, anchors)
        places = tf.range(steps)[:, tf.newaxis] - starts
        positions, _ = loss.segments(seeds, places, starts, anchors)

        def predict(states: core.State, sampling: float) -> tf.Tensor:
            flat = tf.nest.map_structure(lambda s: tf.reshape(s, [-1, *s.shape[2:]]), states)
            outputs = loss.decode(
                classifier.input_layer,
                flat,
                segments[:-1],
                seed=seeds,
                sampling=tf.constant(sampling),
            )
            return loss.values(outputs)

        others = tf.nest.map_structure(lambda s: tf.roll(s, 1, axis=1), states)
        begun = tf.roll(starts, 1, axis=0)[tf.newaxis] < anchors[:, tf.newaxis]
        begun = tf.cast(tf.reshape(begun & (tf.shape(starts)[0] > 1), [-1]), tf.float32)
        predictions = {
            "reconstruction": predict(states, 1.0),
            "teacher_forced": predict(states, 0.0),
            **dict(zip(_ANOTHER, (predict(others, 1.0), predict(others, 0.0)), strict=True)),
            **_guesses(known, segments, positions),
        }
        return Decoded(segments, positions, valid_mask, valid_mask * begun, predictions)

    return decode


def _guesses(known: Statistics, segments: tf.Tensor, positions: tf.Tensor) -> dict[str, tf.Tensor]:
    before, targets = segments[:-1], segments[1:]
    if known.unigram is not None:
        shape = tf.concat([tf.shape(targets), [len(known.unigram)]], 0)
        return {
            "unigram": tf.broadcast_to(known.unigram, shape),
            "bigram": tf.gather(known.bigram, before),
        }
    # A test sequence may be longer than all training sequences.
    place = tf.minimum(positions[1:], len(known.by_position) - 1)
    return {
        "mean": tf.broadcast_to(known.mean, tf.shape(targets)),
        "mean_by_position": tf.gather(known.by_position, tf.maximum(place, 0)),
        "repeat_first": tf.broadcast_to(segments[:1], tf.shape(targets)),
        "copy_previous": before,
    }


@data.user_errors()
@tf32.off()
def measure(
    decode: Callable[[data.Batch, tf.Tensor], Decoded],
    loss: Reconstruction,
    split: data.Split,
    *,
    batch_size: int = 128,
    progress: Callable[[int], None] | None = None,
) -> Measured:
    """Decodes segments of every sequence of a split, and measures the losses of all predictors.

    Args:
        decode: See `decoder`.
        loss: The run's reconstruction loss.
        split: The data.
        batch_size: B; the sequences of a batch share their anchors.
        progress: Called after every batch with the number of sequences done.

    Returns:
        The results.

    Raises:
        UserError: No sequence is long enough for a segment.
    """
    is_text = split.info.is_text

    @tf.function(reduce_retracing=True, autograph=False)
    def sums(batch: data.Batch, number: tf.Tensor) -> tuple:
        decoded = decode(batch, number)
        targets = decoded.tokens[1:]
        losses, right = {}, {}
        for name, predictions in decoded.predictions.items():
            counted = decoded.other_mask if name in _ANOTHER else decoded.valid_mask
            each = loss.token_losses(predictions, targets) * counted
            losses[name] = tf.reduce_sum(tf.cast(each, tf.float64), axis=1)
            if is_text:
                hit = tf.argmax(predictions, -1, tf.int32) == targets
                right[name] = tf.reduce_sum(tf.cast(hit, tf.float32) * counted)
        return losses, right, tf.reduce_sum(decoded.valid_mask), tf.reduce_sum(decoded.other_mask)

    by_step: dict[str, np.ndarray] = collections.defaultdict(float)
    right, counts = collections.Counter(), collections.Counter()
    done = 0
    for number, batch in enumerate(split.batches(batch_size)):
        losses, hits, segments, others = sums(batch, tf.constant(number))
        for name, values in losses.items():
            by_step[name] += values.numpy()
            counts[name] += float(others if name in _ANOTHER else segments)
        right.update({name: float(count) for name, count in hits.items()})
        done += len(batch.labels)
        if progress is not None:
            progress(done)
    if not counts["reconstruction"]:
        raise DataError(
            f"No sequence of {split.info.name} has the {loss.shortest_sequence} steps that a "
            f"segment of Reconstruction.length = {loss.length} needs."
        )
    # A sequence has no other state if it is alone in its batch or if all others are shorter.
    by_step = {name: values / counts[name] for name, values in by_step.items() if counts[name]}
    return Measured(
        info=split.info,
        tokens=int(counts["reconstruction"]) * loss.length,
        loss={name: float(values.mean()) for name, values in by_step.items()},
        by_step=by_step,
        accuracy={
            name: hits / (counts[name] * loss.length)
            for name, hits in right.items()
            if name in by_step
        },
    )


@tf32.off()
def samples(
    decode: Callable[[data.Batch, tf.Tensor], Decoded],
    loss: Reconstruction,
    split: data.Split,
    count: int,
) -> list[Sample]:
    """Reconstructs segments of a few sequences, each with its own anchors.

    Args:
        decode: See `decoder`.
        loss: The run's reconstruction loss.
        split: The data.
        count: The number of sequences, evenly spread over those long enough for a segment.

    Returns:
        The sequences with their segments.
    """
    fitting = np.flatnonzero(split.lengths >= loss.shortest_sequence)
    chosen = fitting[np.unique(np.linspace(0, len(fitting) - 1, count).astype(int))]
    found = []
    for index in chosen:
        sequence = split.example(index)
        one = data.Batch(
            tf.constant(sequence[np.newaxis]),
            tf.constant(split.lengths[index : index + 1]),
            tf.constant(split.labels[index : index + 1]),
        )
        decoded = decode(one, tf.constant(int(index)))
        predictions = decoded.predictions["reconstruction"]
        losses = loss.token_losses(predictions, decoded.tokens[1:])
        values = tf.argmax(predictions, -1) if split.info.is_text else predictions
        found.append(
            Sample(
                index=int(index),
                sequence=sequence,
                positions=np.swapaxes(decoded.positions.numpy(), 0, 1),
                reconstruction=np.swapaxes(values.numpy(), 0, 1),
                loss=float(tf.reduce_mean(losses)),
            )
        )
    return found


def _log(shares: np.ndarray) -> np.ndarray:
    return np.log(shares).astype(np.float32)
