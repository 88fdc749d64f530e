r"""Trains a classifier of long sequences, or resumes a run that was stopped.

Checkpoints, metrics.jsonl, train.log, TensorBoard events and the configuration are written to the
run directory. If the same command is given again, it continues from the last undamaged checkpoint
and ends with the same weights. SIGTERM, SIGHUP and Ctrl-C save a checkpoint after the current step;
the exit status is 75 or, after Ctrl-C, 130. Give the command again to continue. A run is resumed
with the data and the settings that it was trained with; --allow_changes accepts other learning
rates, epochs, decays, clip_norm, parameters of the optimizer and weights of losses. NaN and Inf
stop a run before they reach the weights. With --gin_file=training/validation, the best checkpoint
is selected on a part of the training data and kept in checkpoints/best; validation.json lists the
evaluations.

Examples:
  t2aux train --model_dir=runs/quick --gin_file=quickstart
  t2aux train --model_dir=runs/mnist --gin_file=paper/mnist --gin_file=models/p_lstm
  t2aux train --model_dir=runs/short --gin_file=paper/mnist --gin_file=models/p_lstm \
      --gin_file=budgets/short                   (a few percent of the paper's updates)
  t2aux train --model_dir=runs/best --gin_file=quickstart --gin_file=training/validation
  t2aux train --model_dir=runs/mine --gin_file=quickstart --gin_file=datasets/image_folder \
      --data_dir=my_images --gin_param='image_folder.side = 32'
  t2aux train --model_dir=runs/reviews --gin_file=texts --data_dir=reviews.csv \
      --label_column=stars --text_column=review
  t2aux train --model_dir=runs/photos --gin_file=images --data_dir=photos
  t2aux train --model_dir=runs/quick            (resumes it as configured)
  t2aux train --model_dir=runs/quick --gin_param='JOINT_EPOCHS = 60' --allow_changes
"""

from __future__ import annotations

import pathlib
import signal
import sys
from collections.abc import Sequence

from absl import flags

from t2aux import exit_status, logs
from t2aux.cli import common, next_steps
from t2aux.errors import FileError
from t2aux.training import cluster, stopping

common.define_model_dir("Folder of a new run or of the run to resume.")
common.define_gin_flags()
common.define_data_dir()
common.define_columns()
_ALLOW_CHANGES = flags.DEFINE_bool(
    "allow_changes",
    False,
    "Resume a run with a different learning rate, number of epochs, decay, clip_norm, parameter of "
    "the optimizer, weight of a loss or patience.",
)


def main(argv: Sequence[str]) -> int:
    """Runs the command. Returns the exit status."""
    try:
        with stopping.raised():
            return _main(argv)
    except stopping.Stopped as stopped:
        print(f"Stopped by {stopped} with nothing to save; start it again.", file=sys.stderr)
        return exit_status.of_signal(stopped.signal)
    except KeyboardInterrupt:
        # The run is saved and has reported it. A second Ctrl-C must not cause a traceback at exit.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        return exit_status.INTERRUPTED


def _main(argv: Sequence[str]) -> int:
    logs.quiet_tensorflow()
    from t2aux import config
    from t2aux.data import configured
    from t2aux.training import train

    common.no_arguments(argv)
    model_dir = flags.FLAGS.model_dir
    stored = pathlib.Path(model_dir) / "config.gin"
    if flags.FLAGS.gin_file:
        text = common.parse_gin()
    elif stored.is_file():
        text = common.parse_gin(gin_files=[str(stored)])
    else:
        raise FileError(
            f"Can't find a run to resume in {model_dir}: give --gin_file for a new one, for "
            "example --gin_file=quickstart."
        )
    with config.user_errors():
        common.check_columns(configured())
        done = train.train(model_dir, text, allow_changes=_ALLOW_CHANGES.value)
    if not done:
        return exit_status.STOPPED
    nodes = cluster.read()
    if nodes is None or nodes.number == 0:  # Other nodes have no run folder.
        next_steps.show(*next_steps.of_training(model_dir))
    return 0
