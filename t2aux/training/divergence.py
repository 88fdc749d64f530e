"""Stops a run before NaN or Inf reach its weights, with a message that says what to do."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence

import tensorflow as tf
from absl import logging

from t2aux import data
from t2aux.errors import DivergenceError, UserError
from t2aux.training.position import Position
from t2aux.training.schedule import Phase

_MAX_SHOWN_EXAMPLES = 8


def weights_not_finite(variables: Sequence[tf.Variable]) -> dict[str, str]:
    """Maps the names of variables that hold NaN or Inf to "not finite"."""
    return {
        getattr(variable, "path", variable.name): "not finite"
        for variable in variables
        if variable.dtype in (tf.float32, "float32")
        and not bool(tf.reduce_all(tf.math.is_finite(tf.convert_to_tensor(variable))))
    }


def stopped(
    not_finite: Mapping[str, str],
    position: Position,
    phases: Sequence[Phase],
    split: data.Split,
    checkpoint: str | None,
    *,
    in_weights: bool,
) -> UserError:
    """The error with which a run stops. Logs all examples of the batch.

    Args:
        not_finite: The values that are not finite, by name.
        position: The position of the run.
        phases: The phases of the run.
        split: The training split.
        checkpoint: The path of the newest checkpoint, or None.
        in_weights: Whether the values are weights; the previous batch is then the cause.
    """
    index, epoch, batch = (int(v) for v in (position.phase, position.epoch, position.batch))
    size, phase = int(position.batch_size), phases[index]
    if in_weights:
        epoch, batch = (epoch, batch - 1) if batch else (epoch - 1, split.num_batches(size) - 1)
    before = sum(phase.epochs for phase in phases[:index])
    order = split.order(size, seed=int(position.seed), epoch=before + epoch)
    examples = split.origin(order[batch * size : (batch + 1) * size]).tolist()
    logging.error("The training examples of the batch: %s.", ", ".join(map(str, examples)))
    what = ", ".join(f"{name} is {value}" for name, value in not_finite.items())
    more = ", ..." if len(examples) > _MAX_SHOWN_EXAMPLES else ""
    start = "no checkpoint was saved yet: start again"
    if checkpoint is not None:
        start = f"the last good checkpoint is {pathlib.Path(checkpoint).name}: resume from it"
    return DivergenceError(
        f"After {int(position.step)} updates {what}, in batch {batch} of epoch {epoch} of "
        f"{phase.name} (from 0), training examples "
        f"{', '.join(map(str, examples[:_MAX_SHOWN_EXAMPLES]))}{more}; {start} with the same "
        "command, --allow_changes and a lower Phase.learning_rate or train.clip_norm, or look at "
        "these examples."
    )
