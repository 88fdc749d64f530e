"""The flags and the loading of data shared by `t2aux evaluate` and `t2aux reconstructions`."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import TYPE_CHECKING, Any

from absl import flags

from t2aux import logs
from t2aux.cli import common

if TYPE_CHECKING:
    from t2aux.data import Split
    from t2aux.evaluation.other_data import OtherData
    from t2aux.run import Run

common.define_model_dir("Folder of the run.")
common.define_data_dir()
_GIN_PARAM = flags.DEFINE_multi_string(
    "gin_param", [], "One setting that overrides the run's configuration. Repeatable."
)
_CHECKPOINT = common.define_checkpoint()
_SPLIT = flags.DEFINE_enum(
    "split",
    "test",
    ["test", "train", "validation"],
    "Which sequences to read. train does not include those held out for validation.",
)
_OUTPUT_DIR = common.define_path(
    "output_dir",
    None,
    "Output folder; by default one in the run, named by the split and, for other data, its name.",
)


@dataclasses.dataclass(frozen=True)
class Opened:
    """A run and the data to evaluate it on.

    Attributes:
        run: The run.
        name: The name of the split that was read: "train" if the validation data is a part of it.
        whole: The split that was read.
        split: The part of `whole` that --split names.
        other: The data, if it is not the run's own.
        output: The folder for the result.
        split_name: The value of --split.
    """

    run: Run
    name: str
    whole: Split
    split: Split
    other: OtherData | None
    output: pathlib.Path
    split_name: str

    @property
    def title(self) -> str:
        """The data, the split and the checkpoint, as shown on the terminal."""
        from t2aux.evaluation import other_data

        return other_data.title(self.run, self.split_name, self.other)

    def about(self) -> dict[str, Any]:
        """The description of the run and the data in the JSON of the result."""
        from t2aux.evaluation import other_data

        return {
            **other_data.about(self.run, self.other),
            "split": self.split_name,
            "checkpoint": pathlib.Path(self.run.checkpoint).name,
            "step": self.run.step,
            "choice": self.run.choice,
        }

    def training_part(self, whole: Split) -> Split:
        """The part of a training set that the run was trained on."""
        from t2aux.training import validation

        is_own = self.other is None
        return validation.part_of("train", whole, is_own=is_own, directory=self.run.model_dir)


def open_run(kind: str, *, auxiliary: bool = False) -> Opened:
    """Loads the run and reads the data that the flags name.

    Args:
        kind: The kind of result: "evaluation" or "reconstructions".
        auxiliary: Whether to load the auxiliary networks, too.
    """
    logs.quiet_tensorflow()
    from t2aux.evaluation import other_data
    from t2aux.run import load_run
    from t2aux.training import validation

    params = common.gin_params()
    run = load_run(flags.FLAGS.model_dir, _CHECKPOINT.value, params, auxiliary=auxiliary)
    common.check_columns(run.source)
    name, whole, other = other_data.read(run, params, _SPLIT.value)
    split = validation.part_of(_SPLIT.value, whole, is_own=other is None, directory=run.model_dir)
    # Checked before the work, so that a folder that can't be written is reported at once.
    output = other_data.folder(_OUTPUT_DIR.value, run, kind, _SPLIT.value, other)
    return Opened(run, name, whole, split, other, output, _SPLIT.value)
