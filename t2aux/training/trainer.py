"""One training step: the truncated gradients of the supervised and the auxiliary losses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import tensorflow as tf

from t2aux.data import Batch
from t2aux.errors import SettingError
from t2aux.kernels import ops
from t2aux.losses.base import AuxiliaryLoss, Bptt, Sequences, stream
from t2aux.model import weights
from t2aux.model.classifier import BaseClassifier, time_major
from t2aux.model.core import Scan, State, single_state
from t2aux.model.share import Share
from t2aux.training import truncation, windows
from t2aux.training.plan import Context, Plan
from t2aux.training.truncation import gradients_of

# Random streams of one batch: DropConnect or dropout, one per auxiliary loss, and noise.
DROPOUT, _FIRST_AUXILIARY = 0, 1
_NOISE = 2**31 - 1
# The name in metrics, like those of auxiliary losses.
_SUPERVISED = "supervised"

# Computes the supervised loss and its metrics from the core's output [B, H].
Classify = Callable[[tf.Tensor], tuple[tf.Tensor, dict[str, tf.Tensor]]]


class Step(NamedTuple):
    """The results of a training step.

    Attributes:
        gradients: One for each of `Trainer.trained_variables`, not clipped.
        metrics: Scalars: "loss"; with a supervised loss, "supervised_loss" and "correct" (the
            number of correct predictions); and a mean per token for each auxiliary loss.
        logits: The logits [B, K] of the step, if there is a supervised loss.
    """

    gradients: list[tf.Tensor]
    metrics: dict[str, tf.Tensor]
    logits: tf.Tensor | None = None


class Trainer:
    """Computes truncated gradients of L = L_supervised + sum of w * L_auxiliary (paper, section 3).

    If every truncation is "full", a single pass computes everything. No gradient is stopped in it,
    not even at the first position of outputs [us]. It is the simplest form of the method, and the
    other one is tested against it. Otherwise, after a forward pass over the batch, windows are run
    again with gradient: the last `supervised_bptt` steps of every sequence, and the steps that the
    auxiliary losses need, see `t2aux.training.windows`.

    A loss of weight 0 is measured but does not contribute to the gradient: the classifier learns
    bit for bit the same as without the loss.
    """

    def __init__(
        self,
        classifier: BaseClassifier,
        losses: Sequence[AuxiliaryLoss] = (),
        *,
        supervised_bptt: Bptt = 300,
        auxiliary_bptt: Bptt = 300,
        precision: ops.Precision = "float32",
    ) -> None:
        """Stores the networks.

        Args:
            classifier: The main network.
            losses: The auxiliary networks with their losses.
            supervised_bptt: Steps that the supervised gradient goes back; "full" for all, 0 to
                train only the head.
            auxiliary_bptt: Steps that the gradient of each auxiliary loss without its own `bptt`
                goes back.
            precision: The precision of the products of the main LSTM and those of the losses, in
                all passes of a step, including the forward pass.

        Raises:
            UserError: Two losses have the same name, or a loss can't be trained with its
                truncation.
        """
        names = [loss.name for loss in losses]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise SettingError(
                f"There are {names.count(twice)} auxiliary losses with the name {twice}, which "
                "identifies a loss in metrics and checkpoints: give each loss another name."
            )
        if _SUPERVISED in names:
            raise SettingError(
                f"An auxiliary loss has the name {_SUPERVISED}, which is reserved for the "
                "supervised loss: give it another name."
            )
        for loss in losses:
            if not loss.built:
                loss.build(classifier.network)
            if loss.bptt is None:
                loss.check_bptt("auxiliary_bptt", auxiliary_bptt)
            else:
                parameter = f"{type(loss).__name__}.bptt"
                truncation.check_bptt(parameter, loss.bptt)
                loss.check_bptt(parameter, loss.bptt)
        self.classifier = classifier
        self.losses = list(losses)
        self.supervised_bptt = supervised_bptt
        self.auxiliary_bptt = auxiliary_bptt
        self.precision = precision
        self.variables_in_order = _variables(classifier, losses)

    def trained_variables(self, *, auxiliary: bool = True) -> list[tf.Variable]:
        """The variables of `Step.gradients`, in the same order.

        Args:
            auxiliary: As for `step`.

        Returns:
            The variables of the classifier, then those of each loss that is included and whose
            weight is not 0.
        """
        losses = [loss for loss in self.losses if auxiliary and loss.weight]
        return _variables(self.classifier, losses)

    def step(
        self,
        batch: Batch,
        *,
        seed: tf.Tensor,
        progress: tf.Tensor,
        supervised: bool,
        auxiliary: bool = True,
        share: Share | None = None,
        padded: bool | None = None,
        supervised_loss: Callable[[tf.Tensor], tf.Tensor] | None = None,
    ) -> Step:
        """Computes the losses and gradients of a batch.

        Args:
            batch: inputs [B, T, C] float32 or [B, T] int32, lengths [B], labels [B].
            seed: [2] int32, the seed of this batch; anchors, segments, sampling and DropConnect
                depend on nothing else.
            progress: Scalar float32 in [0, 1], the completed fraction of the phase, for scheduled
                sampling.
            supervised: Whether to include the supervised loss; False in pretraining.
            auxiliary: Whether to include the auxiliary losses; False in fine-tuning.
            share: Which rows of a larger batch these are, padded to its longest sequence. All
                results must then be summed over the shares. None: this is the whole batch.
            padded: Whether lengths differ; None: as in the classifier.
            supervised_loss: Computes the supervised loss, a scalar, from logits [B, K]; by default
                the mean cross-entropy.

        Returns:
            The results of the step.
        """
        padded = self.classifier.padded if padded is None else padded
        tokens = self._with_noise(self.classifier.normalized(batch.inputs), seed, share)
        tokens = truncation.align_ends(tokens, batch.lengths) if padded else tokens
        tokens = time_major(tokens)
        starts = tf.shape(tokens)[0] - batch.lengths if padded else tf.zeros_like(batch.lengths)
        sequences = Sequences(tokens, starts, batch.labels, padded, share)
        logits = []

        def classify(h: tf.Tensor) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
            logits.append(self.classifier.logits(h, stream(seed, DROPOUT)))
            if supervised_loss is None:
                return classification_loss(logits[0], batch.labels, share)
            loss = supervised_loss(logits[0])
            return loss, {"supervised_loss": loss}

        every = self.variables_in_order
        context = Context(self.classifier, sequences, every, progress)
        plans = [
            windows.plan(context, loss, stream(seed, _FIRST_AUXILIARY + i), self.auxiliary_bptt)
            for i, loss in enumerate(self.losses)
            if auxiliary
        ]
        trained = [plan for plan in plans if plan.loss.weight]
        gradients, metrics = [tf.zeros_like(v) for v in every], {}
        alone, last = trained, classify if supervised else None
        reach = [plan.bptt for plan in trained] or [self.auxiliary_bptt]
        # In pretraining and in the joint phase.
        measured = [plan for plan in plans if not plan.loss.weight]
        with ops.products_in(self.precision):
            if {self.supervised_bptt, *reach} == {"full"}:
                together = [plan for plan in trained if plan.joins_one_pass]
                alone = [plan for plan in trained if not plan.joins_one_pass]
                if last or together:
                    gradients, metrics = self._one_pass(context, together, last)
                    last = None
            parts, more = self._windows(context, alone, measured, last)
        for part in parts:
            gradients = [a + b for a, b in zip(gradients, part, strict=True)]
        metrics = {**metrics, **more}
        total = metrics.get("supervised_loss", tf.constant(0.0))
        for plan in trained:
            total = total + plan.loss.weight * metrics[plan.metric]
        by_variable = {v.ref(): g for v, g in zip(every, gradients, strict=True)}
        variables = self.trained_variables(auxiliary=auxiliary)
        gradients = [by_variable[v.ref()] for v in variables]
        return Step(gradients, {"loss": total, **metrics}, logits[0] if logits else None)

    def _with_noise(self, tokens: tf.Tensor, seed: tf.Tensor, share: Share | None) -> tf.Tensor:
        """Adds the classifier's noise, which is drawn for the whole batch even for a share."""
        if not self.classifier.noise:
            return tokens
        shape = tf.shape(tokens)
        if share is not None:
            shape = tf.concat([share.size[tf.newaxis], shape[1:]], 0)
        drawn = tf.random.stateless_normal(shape, stream(seed, _NOISE))
        drawn = drawn if share is None else share.rows(drawn, axis=0)
        return tokens + self.classifier.noise * drawn

    def _one_pass(
        self, context: Context, plans: list[Plan], classify: Classify | None
    ) -> tuple[list[tf.Tensor], dict[str, tf.Tensor]]:
        """The gradients of everything, in one pass that stores the activations of all steps."""
        sequences, metrics = _needed(context, plans, classify), {}
        zero = self.classifier.init_state(tf.shape(sequences.tokens)[1])
        # The losses' positions, and the end.
        positions = [*(plan.positions for plan in plans), sequences.steps[tf.newaxis]]
        with tf.GradientTape() as tape:
            scan = Scan(
                zero,
                tf.concat(positions, 0),
                sequences.active(),
                outputs=any(plan.needs_outputs for plan in plans),
            )
            at, outputs = self.classifier.states_at(sequences.tokens, scan)
            *states, last = _split(at, positions)
            objective = tf.constant(0.0)
            for plan, at_positions in zip(plans, states, strict=True):
                of_plan = outputs if plan.needs_outputs else None
                mean = plan.in_one_pass(
                    plan.rows_of(at_positions, sequences), plan.rows_of(of_plan, sequences)
                )
                objective += plan.loss.weight * mean
                metrics[plan.metric] = mean
            if classify is not None:
                value, supervised_metrics = classify(last.h[0])
                objective += value
                metrics.update(supervised_metrics)
        return gradients_of(tape, objective, context.variables), metrics

    def _windows(
        self,
        context: Context,
        trained: list[Plan],
        measured: list[Plan],
        classify: Classify | None,
    ) -> tuple[list[list[tf.Tensor]], dict[str, tf.Tensor]]:
        """The gradients of each loss, by a forward pass and then windows with gradient."""
        plans = [*trained, *measured]
        sequences = _needed(context, plans, classify)
        requested = [
            *(plan.state_positions(gradient=True) for plan in trained),
            *(plan.state_positions(gradient=False) for plan in measured),
        ]
        if classify is not None:
            begin = self._supervised_begin(sequences)
            requested.append([begin[tf.newaxis]])
        if not requested:
            return [], {}
        flat = [positions for of_plan in requested for positions in of_plan]
        starts = sequences.starts if sequences.padded else None
        kept = truncation.forward_states(
            self.classifier, sequences.tokens, starts, tf.concat(flat, 0)
        )
        slices = iter(_split(kept, flat))
        states = [[next(slices) for _ in of_one] for of_one in requested]
        for i, plan in enumerate(plans):
            states[i] = [plan.rows_of(state, sequences) for state in states[i]]
        gradients, metrics = [], {}
        for plan, of_one in zip(trained, states, strict=False):
            metrics[plan.metric], part = plan.result(of_one)
            gradients.append(part)
        for plan, of_one in zip(measured, states[len(trained) :], strict=False):
            metrics[plan.metric] = plan.mean(of_one)
        if classify is not None:
            state = single_state(states[-1][0])
            part, supervised_metrics = self._supervised_window(sequences, begin, state, classify)
            gradients.append(part)
            metrics.update(supervised_metrics)
        return gradients, metrics

    def _supervised_begin(self, sequences: Sequences) -> tf.Tensor:
        if self.supervised_bptt == "full":
            return tf.constant(0)
        return tf.maximum(sequences.steps - self.supervised_bptt, 0)

    def _supervised_window(
        self, sequences: Sequences, begin: tf.Tensor, state: State, classify: Classify
    ) -> tuple[list[tf.Tensor], dict[str, tf.Tensor]]:
        with tf.GradientTape() as tape:
            if self.supervised_bptt != 0:
                tokens = sequences.tokens[begin:]
                state = self.classifier.final(tokens, state, sequences.active(begin))
            loss, metrics = classify(state.h)
        return gradients_of(tape, loss, self.variables_in_order), metrics


def _variables(classifier: BaseClassifier, losses: Sequence[AuxiliaryLoss]) -> list[tf.Variable]:
    of_losses = (variable for loss in losses for variable in weights.in_order(loss))
    return [*weights.in_order(classifier), *of_losses]


def classification_loss(
    logits: tf.Tensor, labels: tf.Tensor, share: Share | None = None
) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
    """The mean cross-entropy of logits [B, K] and labels [B], and its metrics, see `Step`.

    For a `share` of a batch, the share's contribution to the mean over the whole batch.
    """
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
    if share is None:
        loss = tf.reduce_mean(losses)
    else:
        loss = tf.reduce_sum(losses) / tf.cast(share.size, tf.float32)
    right = tf.argmax(logits, axis=-1, output_type=tf.int32) == labels
    correct = tf.reduce_sum(tf.cast(right, tf.float32))
    return loss, {"supervised_loss": loss, "correct": correct}


def _needed(context: Context, plans: list[Plan], classify: Classify | None) -> Sequences:
    """The sequences of a pass; for a single loss, as in pretraining, these are only its rows."""
    return plans[0].sequences if classify is None and len(plans) == 1 else context.sequences


def _split(states: State, positions: list[tf.Tensor]) -> list[State]:
    """Splits states [sum of n, B, ...] at concatenated lists of positions, one part per list."""
    sizes = [tf.shape(p)[0] for p in positions]
    parts = [tf.split(s, sizes, num=len(sizes)) for s in tf.nest.flatten(states)]
    return [tf.nest.pack_sequence_as(states, part) for part in zip(*parts, strict=True)]
