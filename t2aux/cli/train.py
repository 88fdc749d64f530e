r"""Trains a classifier of long sequences, or goes on with a run that was stopped.

The run directory gets checkpoints, metrics.jsonl, train.log, TensorBoard's events and the
configuration. The same command, given again, goes on from the last checkpoint that is whole, and
ends with the same weights. SIGTERM saves one after the step at hand and exits with status 75: start
it again. NaN and Inf stop a run before they reach the weights; not_finite.json tells where. With
--gin_param="train.on_nan = 'back_off'" the run goes back with a lower rate instead.

Examples:
  t2aux train --model_dir=runs/quick --gin_file=quickstart
  t2aux train --model_dir=runs/mnist --gin_file=paper/mnist --gin_file=models/p_lstm
  t2aux train --model_dir=runs/mine --gin_file=quickstart --gin_file=datasets/image_folder \
      --data_dir=my_images --gin_param='load.side = 32'
  t2aux train --model_dir=runs/quick            (goes on with it, as it was configured)
"""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Sequence

from absl import flags

from t2aux.cli import common
from t2aux.errors import UserError
from t2aux.training import stopping

common.define_model_dir("Folder of the run: made, or gone on with.")
common.define_gin_flags()
common.define_data_dir()


def main(argv: Sequence[str]) -> int:
    """Runs the command. Returns the exit status."""
    try:
        with stopping.raised():
            return _main(argv)
    except stopping.Stopped:
        print("Stopped by SIGTERM with nothing to save; start it again.", file=sys.stderr)
        return common.STOPPED


def _main(argv: Sequence[str]) -> int:
    common.quiet_tensorflow()
    from t2aux import config
    from t2aux.training import loop

    common.no_arguments(argv)
    model_dir = flags.FLAGS.model_dir
    own = pathlib.Path(model_dir) / "config.gin"
    if flags.FLAGS.gin_file:
        text = common.parse_gin()
    elif own.is_file():
        text = common.parse_gin(gin_files=[str(own)])
    else:
        raise UserError(
            f"There is no run in {model_dir} to go on with, and no --gin_file: give one, for "
            "example --gin_file=quickstart."
        )
    with config.user_errors():
        done = loop.train(model_dir, text)
    return 0 if done else common.STOPPED


if __name__ == "__main__":
    common.run(main)
