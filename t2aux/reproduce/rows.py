"""A row of a table or a point of a figure: one training run, at one of the budgets.

A row sets what the paper varies. A budget, which is a gin file of budgets/, sets how much of the
paper's schedule is run. Together they give a `t2aux train` command with bundled gin files and the
row's own settings.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence

from t2aux.errors import SettingError

# Files of gin/budgets/, the smallest first.
BUDGETS = ("smoke", "short", "medium", "paper")

# Data sets by the name of their gin file in gin/paper/, with the subfolders of --data_dir that they
# are read from without tensorflow-datasets, and the source that reads them.
_FOLDERS = {
    "mnist": [("mnist", "idx")],
    "pmnist": [("mnist", "idx")],
    "cifar10": [("cifar10", "image_folder")],
    "stanford_dogs": [("stanford_dogs", "image_folder")],
    "dbpedia": [("dbpedia", "csv"), ("debian_sections", "csv")],
}

# Settings of sources that read a user's own files, so that the data is the same as in the gin file.
_OF_FILES = {
    ("pmnist", "idx"): ("idx.permutation_seed = 92916",),
    ("stanford_dogs", "image_folder"): ("image_folder.side = %SIDE",),
}


@dataclasses.dataclass(frozen=True)
class Row:
    """A row, which is one training run.

    Attributes:
        dataset: The name of a file in gin/paper/.
        model: The name of a file in gin/models/.
        core: The name of a file in gin/cores/; None: the LSTM.
        full: Whether to use full BPTT, supervised and auxiliary.
        bptt: Supervised BPTT steps; None: those of the data set (300; texts 100).
        anchors: n; None: that of the data set (1; texts 20, and 1 for p-LSTM).
        length: l at the paper's scale; None: that of the data set (600; texts 15, and 300 for
            p-LSTM).
        side: The side of StanfordDogs images.
        off: The part of Figure 6 that is turned off.
    """

    dataset: str
    model: str
    core: str | None = None
    full: bool = False
    bptt: int | None = None
    anchors: int | None = None
    length: int | None = None
    side: int | None = None
    off: str | None = None

    @property
    def id(self) -> str:
        """A readable and stable name: "cifar10/r_lstm_20x30_bptt1"."""
        parts = [self.model]
        if self.core:
            parts.append(self.core)
        if self.side is not None:
            parts.append(f"side{self.side}")
        if self.model != "transformer":
            parts.append("full" if self.full else "truncated")
        if self.anchors is not None:
            parts.append(f"{self.anchors}x{self.length}")
        if self.bptt is not None:
            parts.append(f"bptt{self.bptt}")
        if self.off:
            parts.append("without_" + self.off.replace(" ", "_"))
        return f"{self.dataset}/{'_'.join(parts)}"


# The settings that turn off a part of Figure 6.
_OFF = {
    "pretraining": [
        "train.phases = [@joint/Phase()]",
        "JOINT_EPOCHS = %EPOCHS_WITHOUT_PRETRAINING",
    ],
    "joint training": ["joint/Phase.auxiliary = False"],
    "scheduled sampling": ["Reconstruction.scheduled_sampling = False"],
    "distant past": ["Reconstruction.distant_past = False"],
    "input projection": ["Classifier.projection_size = None"],
    "reversed reconstruction": ["Reconstruction.reverse = False"],
    "second auxiliary layer": ["Reconstruction.layers = 1", "Prediction.layers = 1"],
}


# A Transformer takes about forty times as long for a digit as a truncated LSTM (results/reproduce).
# So in the short budget, it has as many updates as other rows, but of a quarter of the sequences.
# By data set, or by its stand-in.
_HALF_OF_MNIST = [
    "JOINT_EPOCHS = 5",
    "BATCH_SIZE = 8",
    "dataset.max_examples = 30000",
    "joint/Phase.decay_epochs = 3",
]
_DOGS = ["JOINT_EPOCHS = 2", "BATCH_SIZE = 4", "joint/Phase.decay_epochs = 1"]
_SHORT_TRANSFORMER = {
    "mnist": _HALF_OF_MNIST,
    "pmnist": _HALF_OF_MNIST,
    "stanford_dogs": [*_DOGS, "dataset.max_examples = 7500"],
    "digits": [*_DOGS, "dataset.max_examples = 900"],
}

# Factors by which the smoke budget scales everything that the paper counts in steps, and the sides
# of Figure 3's images in that budget, in the paper's order.
_SMOKE_STEPS, _SMOKE_STEPS_OF_SIDES = 1 / 15, 1 / 60
_SMOKE_SIDES = {40: 5, 48: 6, 56: 7, 72: 8, 80: 9, 96: 10, 112: 11, 128: 12}


def data_source(row: Row, budget: str, data_dir: str | None) -> tuple[str | None, str | None]:
    """The folder that a row's data is read from, and the data set's stand-in.

    Args:
        row: The row.
        budget: One of BUDGETS.
        data_dir: A folder with subfolders mnist, cifar10, stanford_dogs, dbpedia or
            debian_sections; None: tensorflow-datasets.

    Returns:
        The folder, or None; and the stand-in for the data set, or None.
    """
    if budget == "smoke":
        return None, "digits" if row.dataset != "dbpedia" else "docstrings"
    for name, _ in _FOLDERS[row.dataset]:
        if data_dir is not None and (pathlib.Path(data_dir) / name).is_dir():
            folder = str(pathlib.Path(data_dir) / name)
            return folder, name if name == "debian_sections" else None
    if row.dataset == "stanford_dogs" and budget in ("short", "medium"):
        return None, "digits"
    return None, None


@dataclasses.dataclass(frozen=True)
class Configuration:
    """A configuration of `t2aux train`.

    Attributes:
        gin_files: Bundled gin files.
        gin_params: Settings, without the data's folder.
        data_dir: The data's folder; None: the folder of tensorflow-datasets, or no files.
    """

    gin_files: tuple[str, ...]
    gin_params: tuple[str, ...]
    data_dir: str | None

    def flags(self) -> list[str]:
        """The flags of `t2aux train`, except for --model_dir."""
        flags = [f"--gin_file={name}" for name in self.gin_files]
        flags += [f"--gin_param={setting}" for setting in self.gin_params]
        return flags + ([f"--data_dir={self.data_dir}"] if self.data_dir else [])


def configuration(
    row: Row, budget: str, data_dir: str | None, seed: int, documents: str | None = None
) -> Configuration:
    """The configuration of `t2aux train` for a row.

    Args:
        row: The row.
        budget: One of BUDGETS.
        data_dir: See `data_source`.
        seed: The seed of the run.
        documents: The folder of the smoke budget's texts.

    Returns:
        The configuration.

    Raises:
        UserError: The documents were not found.
    """
    folder, stand_in = data_source(row, budget, data_dir)
    files = [f"paper/{row.dataset}"]
    settings: list[str] = []
    if stand_in == "digits":
        files.append("datasets/digits")
        if row.side is not None:
            side = _SMOKE_SIDES[row.side] if budget == "smoke" else row.side
            settings.append(f"digits.side = {side}")
    elif row.dataset == "stanford_dogs":
        settings.append(f"SIDE = {row.side}")
    if stand_in == "docstrings":
        folder = documents
        settings.append("dbpedia.max_length = 40")
    if row.dataset == "dbpedia" and folder is None:
        raise SettingError(
            "The documents can't be downloaded: give --data_dir=FOLDER with a subfolder dbpedia or "
            "debian_sections that has train.csv and test.csv."
        )
    source = next(
        (s for name, s in _FOLDERS[row.dataset] if folder and folder.endswith(name)), None
    )
    if source is not None and row.dataset != "dbpedia":
        settings += _from_files(row.dataset, source)
    if row.dataset == "pmnist" and stand_in == "digits":
        settings.append("digits.permutation_seed = 92916")
    files += [f"models/{row.model}"]
    if row.full:
        files.append("training/full")
    if row.core:
        files.append(f"cores/{row.core}")
    files.append(f"budgets/{budget}")
    if budget == "medium":
        files.append("training/bfloat16")
    settings += [f"SEED = {seed}", *_lengths(row, budget)]
    if row.core in ("lstm_chrono", "mingru"):
        settings.append(f"CHRONO_STEPS = {_steps(row, budget)}")
    if row.model == "transformer" and budget == "short":
        settings += _SHORT_TRANSFORMER.get(stand_in or row.dataset, [])
    settings += _OFF.get(row.off, [])
    return Configuration(tuple(files), tuple(settings), folder)


def _from_files(dataset: str, source: str) -> list[str]:
    """The settings for reading a data set with the source for a user's own files."""
    return [f"train.data = @{source}()", *_OF_FILES.get((dataset, source), ())]


def flags_of_today(flags: Sequence[str], dataset: str) -> list[str]:
    """Converts the flags of a row from an older version to the current names of settings.

    Settings of the former configurable `load` now belong to the data source or to `dataset`, and
    the logging interval belongs to RunConfig.

    Args:
        flags: Flags of `t2aux train`.
        dataset: The row's data set.
    """
    source = "digits" if "--gin_file=datasets/digits" in flags else dataset
    found = []
    for flag in flags:
        setting = flag.removeprefix("--gin_param=")
        name, _, value = setting.partition(" = ")
        if name == "load.name":
            settings = _from_files(dataset, value.strip("'"))
        elif name == "load.max_examples":
            settings = [f"dataset.max_examples = {value}"]
        elif name == "train.log_every":
            settings = [f"RunConfig.log_every = {value}"]
        elif name.startswith("load."):
            settings = [f"{source}.{name.removeprefix('load.')} = {value}"]
        else:
            found.append(flag)
            continue
        found += [f"--gin_param={setting}" for setting in settings]
    return found


def _steps(row: Row, budget: str) -> int:
    """The length of the sequences."""
    if budget == "smoke":
        return 64
    return {"mnist": 784, "pmnist": 784, "cifar10": 1024}[row.dataset]


def _lengths(row: Row, budget: str) -> list[str]:
    """The settings that are counted in steps and differ from those of the row's data set."""
    anchors, length, bptt = row.anchors, row.length, row.bptt
    if row.dataset == "dbpedia" and row.model == "p_lstm" and anchors is None:
        anchors, length = 1, 300
    if budget == "smoke":
        scale = _SMOKE_STEPS if row.side is None else _SMOKE_STEPS_OF_SIDES
        if anchors is not None:
            tokens = max(1, round(anchors * length * scale))
            length = max(1, round(length * scale))
            anchors = max(1, tokens // length)
        if bptt is not None:
            bptt = min(bptt, max(1, round(bptt * scale)))
    settings = []
    if anchors is not None and row.model in ("r_lstm", "p_lstm", "rp_lstm"):
        settings += [f"ANCHORS = {anchors}", f"SEGMENT_LENGTH = {length}"]
    return settings + ([] if bptt is None else [f"SUPERVISED_BPTT = {bptt}"])
