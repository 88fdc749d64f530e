"""One training step: the gradient of the supervised and the auxiliary losses, truncated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from t2aux.data import Batch
from t2aux.errors import UserError
from t2aux.model.auxiliary import Anchored, Auxiliary, Loss, stream
from t2aux.model.classifier import Classifier, time_major
from t2aux.model.core import Active, State, active_from, only
from t2aux.model.next_token import NextToken, Reading
from t2aux.model.prediction import Prediction
from t2aux.model.reconstruction import Reconstruction
from t2aux.model.share import Share
from t2aux.training import next_token, truncation
from t2aux.training.truncation import Bptt

# Streams of random numbers of one batch: DropConnect or dropout, and one an auxiliary loss.
DROPOUT, _FIRST_AUXILIARY = 0, 1


class Aligned(NamedTuple):
    """A batch as the trainer works on it: time-major, aligned at the ends.

    Attributes:
        tokens: [T, B, C] float32 or [T, B] int32.
        starts: [B] int32: the step at which each sequence begins.
        labels: [B] int32.
        padded: Whether sequences may begin after step 0.
        share: Which rows of a larger batch these are; None: all.
    """

    tokens: tf.Tensor
    starts: tf.Tensor
    labels: tf.Tensor
    padded: bool
    share: Share | None = None

    @property
    def steps(self) -> tf.Tensor:
        """T, a scalar."""
        return tf.shape(self.tokens)[0]

    @property
    def all_starts(self) -> tf.Tensor:
        """As `starts`, of the whole batch, of which these rows may be a share."""
        if self.share is None:
            return self.starts
        lengths = self.share.lengths
        return self.steps - lengths if self.padded else tf.zeros_like(lengths)

    def active(self, begin: tf.Tensor | int = 0) -> Active | None:
        """For `core.run` over tokens from step `begin` on."""
        return active_from(self.starts - begin) if self.padded else None


class Drawn(NamedTuple):
    """An auxiliary loss of a step, and what was drawn for it.

    Attributes:
        loss: The loss.
        seed: [2] int32: all that is random in it is a function of this.
        anchors: [n] int32 positions; None for a loss over whole sequences.
    """

    loss: Auxiliary
    seed: tf.Tensor
    anchors: tf.Tensor | None


class Step(NamedTuple):
    """What a training step computes.

    Attributes:
        gradients: One for each of `Trainer.trained_variables`, not clipped.
        metrics: Scalars: "loss", "supervised_loss" and "correct" (the number of right answers)
            where there is a supervised loss, and a mean per token for each auxiliary loss.
    """

    gradients: list[tf.Tensor]
    metrics: dict[str, tf.Tensor]


class Trainer(tf.Module):
    """Computes truncated gradients of L = L_supervised + sum of w * L_auxiliary (paper, section 3).

    Where both truncations are "full" there is one pass with everything in it, in which nothing
    stops a gradient, that of a prediction before its anchor neither [us]; that is also the plainest
    form of the method, which the other is tested against. Otherwise the batch is swept
    without gradient, and three kinds of windows are run again with it:

    - supervised: the last `supervised_bptt` steps of every sequence;
    - reconstruction: `auxiliary_bptt` steps before an anchor. All segments are decoded first, as
      one batch; the decoder's gradient with respect to the states at the anchors is then carried on
      into the windows, one window at a time;
    - prediction: the segments from the anchors on, as one batch; the gradient stops at the anchors.

    A loss over whole sequences goes over them in windows of its own, whatever the others do. One of
    weight 0 is measured and takes no part in the gradient: the classifier then learns what it would
    without it, bit for bit.
    """

    def __init__(
        self,
        classifier: Classifier,
        losses: Sequence[Auxiliary] = (),
        *,
        supervised_bptt: Bptt = 300,
        auxiliary_bptt: Bptt = 300,
    ) -> None:
        """Keeps the networks.

        Args:
            classifier: The main network.
            losses: The auxiliary networks with their losses.
            supervised_bptt: Steps that the supervised gradient goes back, "full" for all of them;
                0: it reaches the head only.
            auxiliary_bptt: Steps that each auxiliary gradient goes back.

        Raises:
            UserError: A truncation length is negative.
        """
        super().__init__(name="trainer")
        truncation.check_bptt("train.supervised_bptt", supervised_bptt)
        truncation.check_bptt("train.auxiliary_bptt", auxiliary_bptt)
        inside = [loss for loss in losses if isinstance(loss, Prediction | NextToken)]
        if auxiliary_bptt == 0 and inside:
            raise UserError(
                f"train.auxiliary_bptt = 0 leaves nothing for {type(inside[0]).__name__} to train: "
                "its gradient flows between the tokens that it predicts; set at least 1, or use "
                "Reconstruction."
            )
        self.classifier = classifier
        self.losses = list(losses)
        self.supervised_bptt = supervised_bptt
        self.auxiliary_bptt = auxiliary_bptt
        self._variables = [
            *classifier.trainable_variables,
            *(v for loss in self.losses for v in loss.trainable_variables),
        ]

    @property
    def variables_in_order(self) -> list[tf.Variable]:
        """All trainable variables: the classifier's, then each loss's."""
        return self._variables

    def trained_variables(self, *, auxiliary: bool = True) -> list[tf.Variable]:
        """The variables that `Step.gradients` are of, in that order.

        Args:
            auxiliary: As for `step`.

        Returns:
            The classifier's, then those of each loss that takes part and whose weight is not 0.
        """
        losses = [loss for loss in self.losses if auxiliary and loss.weight]
        return [
            *self.classifier.trainable_variables,
            *(v for loss in losses for v in loss.trainable_variables),
        ]

    def step(
        self,
        batch: Batch,
        *,
        seed: tf.Tensor,
        progress: tf.Tensor,
        supervised: bool,
        auxiliary: bool = True,
        share: Share | None = None,
    ) -> Step:
        """The losses and gradients of a batch.

        Args:
            batch: inputs [B, T, C] float32 or [B, T] int32, lengths [B], labels [B].
            seed: [2] int32, this batch's: anchors, segments, sampling and DropConnect are a
                function of it alone.
            progress: Scalar float32 in [0, 1]: how far the phase has got (scheduled sampling).
            supervised: False in pretraining: the auxiliary losses alone.
            auxiliary: False in fine-tuning: the supervised loss alone.
            share: Which rows of a larger batch these are, padded to its longest sequence. All
                that the step gives is then to be summed over the shares. None: it is all of it.

        Returns:
            The step.
        """
        padded = self.classifier.info.length is None
        tokens = truncation.align_ends(batch.inputs, batch.lengths) if padded else batch.inputs
        tokens = time_major(tokens)
        starts = tf.shape(tokens)[0] - batch.lengths if padded else tf.zeros_like(batch.lengths)
        aligned = Aligned(tokens, starts, batch.labels, padded, share)
        drawn = [
            self._draw(loss, stream(seed, _FIRST_AUXILIARY + i), aligned)
            for i, loss in enumerate(self.losses)
            if auxiliary
        ]
        trained = [d for d in drawn if d.loss.weight]
        anchored = [d for d in trained if d.anchors is not None]
        gradients, metrics = [tf.zeros_like(v) for v in self._variables], {}
        if supervised or anchored:
            # In pretraining as in the joint phase.
            in_one_pass = self.auxiliary_bptt == "full" == self.supervised_bptt
            compute = self._full if in_one_pass else self._windowed
            gradients, metrics = compute(aligned, anchored, seed, progress, supervised=supervised)
        for d in trained:
            if d.anchors is None:
                part, metrics[f"{d.loss.name}_loss"] = self._next_token(d.loss, aligned)
                gradients = [a + b for a, b in zip(gradients, part, strict=True)]
        total = metrics.get("supervised_loss", tf.constant(0.0))
        for d in trained:
            total = total + d.loss.weight * metrics[f"{d.loss.name}_loss"]
        for d in drawn:
            if not d.loss.weight:
                metrics[f"{d.loss.name}_loss"] = self._measure(d, aligned, progress)
        by_variable = {v.ref(): g for v, g in zip(self._variables, gradients, strict=True)}
        variables = self.trained_variables(auxiliary=auxiliary)
        return Step([by_variable[v.ref()] for v in variables], {"loss": total, **metrics})

    def _draw(self, loss: Auxiliary, seed: tf.Tensor, batch: Aligned) -> Drawn:
        anchored = isinstance(loss, Anchored)
        return Drawn(
            loss, seed, loss.draw(seed, batch.all_starts, batch.steps) if anchored else None
        )

    def _supervised(
        self, h: tf.Tensor, batch: Aligned, seed: tf.Tensor
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        logits = self.classifier.logits(h, stream(seed, DROPOUT))
        return classification_loss(logits, batch.labels, batch.share)

    # --- Everything in one pass -------------------------------------------------------------------

    def _full(
        self,
        batch: Aligned,
        drawn: list[Drawn],
        seed: tf.Tensor,
        progress: tf.Tensor,
        *,
        supervised: bool,
    ) -> tuple[list[tf.Tensor], dict[str, tf.Tensor]]:
        metrics = {}
        zero = self.classifier.init_state(tf.shape(batch.tokens)[1])
        # The anchors' states, one slice of them a loss, and the last.
        marks = tf.concat([*(d.anchors for d in drawn), batch.steps[tf.newaxis]], 0)
        sizes = [d.loss.anchors for d in drawn]
        with tf.GradientTape() as tape:
            at, outputs = self.classifier.states_at(
                batch.tokens,
                zero,
                marks,
                batch.active(),
                outputs=any(isinstance(d.loss, Prediction) for d in drawn),
            )
            *states, last = _split(at, [*sizes, 1])
            objective = tf.constant(0.0)
            for (loss, own_seed, anchors), state in zip(drawn, states, strict=True):
                flat = _flatten(state)
                if isinstance(loss, Reconstruction):
                    value = self._reconstruct(loss, batch, anchors, flat, own_seed, progress, None)
                else:
                    value = self._predict_from_outputs(loss, batch, anchors, flat, outputs)
                objective += loss.weight * value.mean
                metrics[f"{loss.name}_loss"] = value.mean
            if supervised:
                value, supervised_metrics = self._supervised(last.h[0], batch, seed)
                objective += value
                metrics.update(supervised_metrics)
        return gradients_of(tape, objective, self._variables), metrics

    def _predict_from_outputs(
        self,
        loss: Prediction,
        batch: Aligned,
        anchors: tf.Tensor,
        states: State,
        outputs: tf.Tensor,
    ) -> Loss:
        segments, begins = loss.gather(batch.tokens, batch.starts, anchors)
        outputs, _ = loss.gather(outputs, batch.starts, anchors)
        active = active_from(begins) if batch.padded else None
        carried = loss.bottom_state(states)
        value = loss.outputs_loss(outputs[:-1], segments[1:], carried, begins, active)[0]
        return _of_the_whole(value, loss, batch, anchors)

    # --- Swept, then windows ----------------------------------------------------------------------

    def _windowed(
        self,
        batch: Aligned,
        drawn: list[Drawn],
        seed: tf.Tensor,
        progress: tf.Tensor,
        *,
        supervised: bool,
    ) -> tuple[list[tf.Tensor], dict[str, tf.Tensor]]:
        metrics = {}
        gradients = [tf.zeros_like(v) for v in self._variables]
        # The positions whose states the windows begin from, one slice of them a use.
        marks, sizes, windows = [], [], []
        for loss, _, anchors in drawn:
            group = None
            if isinstance(loss, Reconstruction) and self.auxiliary_bptt != 0:
                steps = self._auxiliary_steps(batch)
                group = truncation.group_anchors(anchors, steps)
                marks.append(group.begin)
                sizes.append(loss.anchors)
            windows.append(group)
            marks.append(anchors)
            sizes.append(loss.anchors)
        if supervised:
            begin = self._supervised_begin(batch)
            marks.append(begin[tf.newaxis])
            sizes.append(1)
        starts = batch.starts if batch.padded else None
        kept = truncation.sweep(self.classifier, batch.tokens, starts, tf.concat(marks, 0))
        slices = _split(kept, sizes)

        for (loss, own_seed, anchors), group in zip(drawn, windows, strict=True):
            if isinstance(loss, Reconstruction):
                first = slices.pop(0) if group is not None else None
                part, value = self._windowed_reconstruction(
                    loss, batch, anchors, slices.pop(0), own_seed, progress, group, first
                )
            else:
                part, value = self._windowed_prediction(loss, batch, anchors, slices.pop(0))
            gradients = [a + b for a, b in zip(gradients, part, strict=True)]
            metrics[f"{loss.name}_loss"] = value
        if supervised:
            state = only(slices.pop(0))
            part, supervised_metrics = self._windowed_supervised(batch, begin, state, seed)
            gradients = [a + b for a, b in zip(gradients, part, strict=True)]
            metrics.update(supervised_metrics)
        return gradients, metrics

    def _auxiliary_steps(self, batch: Aligned) -> tf.Tensor | int:
        return batch.steps if self.auxiliary_bptt == "full" else self.auxiliary_bptt

    def _supervised_begin(self, batch: Aligned) -> tf.Tensor:
        if self.supervised_bptt == "full":
            return tf.constant(0)
        return tf.maximum(batch.steps - self.supervised_bptt, 0)

    def _windowed_supervised(
        self, batch: Aligned, begin: tf.Tensor, state: State, seed: tf.Tensor
    ) -> tuple[list[tf.Tensor], dict[str, tf.Tensor]]:
        with tf.GradientTape() as tape:
            if self.supervised_bptt != 0:
                state = self.classifier.final(batch.tokens[begin:], state, batch.active(begin))
            loss, metrics = self._supervised(state.h, batch, seed)
        return gradients_of(tape, loss, self._variables), metrics

    def _windowed_prediction(
        self, loss: Prediction, batch: Aligned, anchors: tf.Tensor, states: State
    ) -> tuple[list[tf.Tensor], tf.Tensor]:
        with tf.GradientTape() as tape:
            value = self._predict(loss, batch, anchors, _flatten(states)).mean
            objective = loss.weight * value
        return gradients_of(tape, objective, self._variables), value

    def _predict(self, loss: Prediction, batch: Aligned, anchors: tf.Tensor, states: State) -> Loss:
        segments, begins = loss.gather(batch.tokens, batch.starts, anchors)
        cut = loss.length if self.auxiliary_bptt == "full" else self.auxiliary_bptt
        value = loss.loss(
            self.classifier, states, segments, begins, padded=batch.padded, truncation=cut
        )
        return _of_the_whole(value, loss, batch, anchors)

    def _windowed_reconstruction(
        self,
        loss: Reconstruction,
        batch: Aligned,
        anchors: tf.Tensor,
        states: State,
        seed: tf.Tensor,
        progress: tf.Tensor,
        windows: truncation.Windows | None,
        first: State | None,
    ) -> tuple[list[tf.Tensor], tf.Tensor]:
        cut = None if self.auxiliary_bptt in ("full", 0) else self.auxiliary_bptt
        flat = _flatten(states)
        leaves = tf.nest.flatten(flat)
        with tf.GradientTape() as tape:
            tape.watch(leaves)
            value = self._reconstruct(loss, batch, anchors, flat, seed, progress, cut).mean
            objective = loss.weight * value
        gradients = gradients_of(tape, objective, [*self._variables, *leaves])
        count = len(self._variables)
        gradients, at_anchors = gradients[:count], gradients[count:]
        if windows is not None:
            at_anchors = [
                tf.reshape(g, tf.shape(s))
                for g, s in zip(at_anchors, tf.nest.flatten(states), strict=True)
            ]
            through = self._through_windows(batch, anchors, at_anchors, windows, first)
            by_variable = {
                v.ref(): g
                for v, g in zip(self.classifier.recurrent_variables, through, strict=True)
            }
            gradients = [
                g + by_variable[v.ref()] if v.ref() in by_variable else g
                for v, g in zip(self._variables, gradients, strict=True)
            ]
        return gradients, value

    def _reconstruct(
        self,
        loss: Reconstruction,
        batch: Aligned,
        anchors: tf.Tensor,
        states: State,
        seed: tf.Tensor,
        progress: tf.Tensor,
        cut: int | None,
    ) -> Loss:
        segments, room = loss.segments(seed, batch.tokens, batch.starts, anchors)
        value = loss.loss(
            self.classifier,
            states,
            segments,
            room,
            seed=seed,
            sampling=progress * loss.final_sampling,
            truncation=cut,
            share=batch.share,
        )
        return _of_the_whole(value, loss, batch, anchors)

    def _through_windows(
        self,
        batch: Aligned,
        anchors: tf.Tensor,
        at_anchors: list[tf.Tensor],
        windows: truncation.Windows,
        first: State,
    ) -> list[tf.Tensor]:
        """Carries gradients with respect to the states at anchors on into the main network.

        One window at a time, so that memory holds the activations of one.

        Returns:
            The gradients of `classifier.recurrent_variables`.
        """
        variables = self.classifier.recurrent_variables

        def body(j: tf.Tensor, sums: list[tf.Tensor]) -> tuple:
            members = tf.where(windows.group == j)[:, 0]
            begin, end = windows.first[j], windows.end[j]
            state = tf.nest.map_structure(lambda s: s[members[0]], first)
            with tf.GradientTape() as tape:
                at, _ = self.classifier.states_at(
                    batch.tokens[begin:end],
                    state,
                    tf.gather(anchors, members) - begin,
                    batch.active(begin),
                )
            part = tape.gradient(
                tf.nest.flatten(at),
                variables,
                output_gradients=[tf.gather(g, members) for g in at_anchors],
            )
            return j + 1, [a + tf.convert_to_tensor(b) for a, b in zip(sums, part, strict=True)]

        sums = [tf.zeros_like(v) for v in variables]
        # Windows do not wait for each other, and TensorFlow would run ten of them at a time.
        return tf.while_loop(
            lambda j, _: j < windows.count, body, (0, sums), parallel_iterations=1
        )[1]

    # --- Over whole sequences, and without gradient -----------------------------------------------

    def _next_token(self, loss: NextToken, batch: Aligned) -> tuple[list[tf.Tensor], tf.Tensor]:
        reading = Reading(batch.tokens, batch.starts, batch.padded, loss.twice)
        steps = reading.steps if self.auxiliary_bptt == "full" else self.auxiliary_bptt
        value, gradients = next_token.mean_and_gradients(
            self.classifier,
            loss,
            reading,
            steps,
            gradient=bool(loss.weight),
            count=reading._replace(starts=batch.all_starts).count,
        )
        by_variable = {v.ref(): g for v, g in gradients}
        return [by_variable.get(v.ref(), tf.zeros_like(v)) for v in self._variables], value

    def _measure(self, drawn: Drawn, batch: Aligned, progress: tf.Tensor) -> tf.Tensor:
        """The mean of a loss without its gradient."""
        loss, seed, anchors = drawn
        if isinstance(loss, NextToken):
            return self._next_token(loss, batch)[1]
        starts = batch.starts if batch.padded else None
        flat = _flatten(truncation.sweep(self.classifier, batch.tokens, starts, anchors))
        if isinstance(loss, Reconstruction):
            return self._reconstruct(loss, batch, anchors, flat, seed, progress, None).mean
        return self._predict(loss, batch, anchors, flat).mean


def classification_loss(
    logits: tf.Tensor, labels: tf.Tensor, share: Share | None = None
) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
    """The mean cross-entropy of logits [B, K] and labels [B], and its metrics, see `Step`.

    Of a `share` of a batch, the part of the whole batch's mean.
    """
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
    if share is None:
        loss = tf.reduce_mean(losses)
    else:
        loss = tf.reduce_sum(losses) / tf.cast(share.size, tf.float32)
    right = tf.argmax(logits, axis=-1, output_type=tf.int32) == labels
    correct = tf.reduce_sum(tf.cast(right, tf.float32))
    return loss, {"supervised_loss": loss, "correct": correct}


def gradients_of(
    tape: tf.GradientTape, objective: tf.Tensor, sources: Sequence[tf.Tensor | tf.Variable]
) -> list[tf.Tensor]:
    """The gradients of an objective, dense; zeros where a source plays no part in it."""
    gradients = tape.gradient(
        objective, sources, unconnected_gradients=tf.UnconnectedGradients.ZERO
    )
    return [tf.convert_to_tensor(g) for g in gradients]


def _of_the_whole(value: Loss, loss: Anchored, batch: Aligned, anchors: tf.Tensor) -> Loss:
    # A share's mean is its part of the whole batch's.
    if batch.share is None:
        return value
    return value._replace(count=loss.count(batch.all_starts, anchors, batch.steps))


def _flatten(states: State) -> State:
    # [n, B, ...] -> [n * B, ...]
    return tf.nest.map_structure(lambda s: tf.reshape(s, [-1, *s.shape[2:]]), states)


def _split(states: State, sizes: Sequence[int]) -> list[State]:
    parts = [tf.split(s, sizes) for s in tf.nest.flatten(states)]
    return [tf.nest.pack_sequence_as(states, part) for part in zip(*parts, strict=True)]
