"""A row of a table or a point of a figure: one training run, at one of three budgets.

A row says what the paper varies; a budget says how much of the paper's schedule is run, on what
data. Both together are a `t2aux train` command: a bundled gin file and deltas.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence

from t2aux.errors import UserError

BUDGETS = ("smoke", "short", "paper")

# Data sets by the name of their gin file in gin/paper/, with their subfolders in --data_dir, where
# they are read from without tensorflow-datasets, and the source that reads them.
_FOLDERS = {
    "mnist": [("mnist", "idx")],
    "pmnist": [("mnist", "idx")],
    "cifar10": [("cifar10", "image_folder")],
    "stanford_dogs": [("stanford_dogs", "image_folder")],
    "dbpedia": [("dbpedia", "csv"), ("debian_sections", "csv")],
}

# What a source of a user's own files gets, so that the data is that of the gin file.
_OF_FILES = {
    ("pmnist", "idx"): ("idx.permutation_seed = 92916",),
    ("stanford_dogs", "image_folder"): ("image_folder.side = %SIDE",),
}

# Models that pretrain, so that the others get their updates in the joint phase.
_PRETRAINED = ("r_lstm", "p_lstm", "rp_lstm", "lm_lstm", "sa_lstm")


@dataclasses.dataclass(frozen=True)
class Row:
    """What is trained.

    Attributes:
        dataset: The name of a file in gin/paper/.
        model: The name of a file in gin/models/.
        core: The name of a file in gin/cores/; None: the LSTM.
        full: Full BPTT, supervised and auxiliary.
        bptt: Supervised BPTT steps; None: the data set's (300; texts 100).
        anchors: n; None: the data set's (1; texts 20, and 1 for p-LSTM).
        length: l at the paper's scale; None: the data set's (600; texts 15, and 300 for p-LSTM).
        side: Of StanfordDogs' images.
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


# What turns a part of Figure 6 off.
_OFF = {
    "joint training": ["joint/Phase.auxiliary = False"],
    "scheduled sampling": ["Reconstruction.scheduled_sampling = False"],
    "distant past": ["Reconstruction.distant_past = False"],
    "input projection": ["Classifier.projection_size = None"],
    "reversed reconstruction": ["Reconstruction.reverse = False"],
    "second auxiliary layer": ["Reconstruction.layers = 1", "Prediction.layers = 1"],
}


@dataclasses.dataclass(frozen=True)
class Schedule:
    """How much of the paper's schedule a budget runs on a data set.

    Attributes:
        batch: Sequences a batch.
        pretrain: Epochs; models without pretraining add them to the joint ones.
        joint: Epochs.
        steps: The length of everything that the paper counts in steps, as a fraction of its own.
        settings: More gin settings, for every row.
    """

    batch: int
    pretrain: int
    joint: int
    steps: float = 1.0
    settings: tuple[str, ...] = ()


# The recipe of a short run is what was found to learn with about a hundredth of the paper's
# updates; docs/mnist.md says what was tried. Every row of a data set has the same updates. Adam
# instead of RMSProp, and one drop of the rate near the end, as the paper's halvings never come.
_SHORT = (
    "train.optimizer = @Adam",
    "joint/Phase.decay_factor = 0.2",
    "Reconstruction.final_sampling = 0.5",
)
_LATE = ("joint/Phase.decay_epochs = 7", *_SHORT, "Reconstruction.distant_past = False")
_EARLY = ("joint/Phase.decay_epochs = 3", *_SHORT)
_HALF = ("dataset.max_examples = 25000", "joint/Phase.decay_epochs = 2")
SHORT = {
    "mnist": Schedule(32, 1, 9, settings=_LATE),
    "pmnist": Schedule(32, 1, 9, settings=_LATE),
    # Half of the training images: Table 6 and Figures 4 and 6 are 30 rows.
    "cifar10": Schedule(32, 1, 3, settings=(*_HALF, *_SHORT)),
    "stanford_dogs": Schedule(16, 1, 4, settings=_EARLY),
    "dbpedia": Schedule(32, 1, 4, settings=_EARLY),
}
# A digit takes a Transformer some forty times as long as a truncated LSTM (results/reproduce): it
# has as many updates as other rows, but of a quarter of their sequences. By data set, or by what
# stands in for it.
_HALF_OF_MNIST = ("dataset.max_examples = 30000", *_SHORT, "joint/Phase.decay_epochs = 3")
_DOGS = (*_SHORT, "joint/Phase.decay_epochs = 1")
_SHORT_TRANSFORMER = {
    "mnist": Schedule(8, 0, 5, settings=_HALF_OF_MNIST),
    "pmnist": Schedule(8, 0, 5, settings=_HALF_OF_MNIST),
    "stanford_dogs": Schedule(4, 0, 2, settings=("dataset.max_examples = 7500", *_DOGS)),
    "digits": Schedule(4, 0, 2, settings=("dataset.max_examples = 900", *_DOGS)),
}
# Segments of MNIST's short rows: half of the paper's 600 tokens, a third less time.
_SHORT_LENGTH = {"mnist": 300, "pmnist": 300}
_SMOKE = Schedule(16, 1, 1, steps=1 / 15)

# The sides of Figure 3's images in the smoke budget, in the paper's order.
_SMOKE_SIDES = {40: 5, 48: 6, 56: 7, 72: 8, 80: 9, 96: 10, 112: 11, 128: 12}


def _schedule(row: Row, budget: str, stand_in: str | None) -> Schedule | None:
    # None: the paper's own, as its gin file has it.
    short = SHORT[row.dataset]
    if row.model == "transformer":
        short = _SHORT_TRANSFORMER.get(stand_in or row.dataset, short)
    return {"smoke": _SMOKE, "short": short, "paper": None}[budget]


def data_source(row: Row, budget: str, data_dir: str | None) -> tuple[str | None, str | None]:
    """Where a row's data is read from.

    Args:
        row: The row.
        budget: Of BUDGETS.
        data_dir: A folder with subfolders mnist, cifar10, stanford_dogs, dbpedia or
            debian_sections; None: tensorflow-datasets.

    Returns:
        The folder, or None; and what stands in for the data set, or None.
    """
    if budget == "smoke":
        return None, "digits" if row.dataset != "dbpedia" else "docstrings"
    for name, _ in _FOLDERS[row.dataset]:
        if data_dir is not None and (pathlib.Path(data_dir) / name).is_dir():
            folder = str(pathlib.Path(data_dir) / name)
            return folder, name if name == "debian_sections" else None
    if row.dataset == "stanford_dogs" and budget == "short":
        return None, "digits"
    return None, None


@dataclasses.dataclass(frozen=True)
class Configuration:
    """What `t2aux train` is told.

    Attributes:
        gin_files: Bundled gin files.
        gin_params: Settings, but for where the data lies.
        data_dir: Where it lies; None: tensorflow-datasets' own place, or no files.
    """

    gin_files: tuple[str, ...]
    gin_params: tuple[str, ...]
    data_dir: str | None

    def flags(self) -> list[str]:
        """The flags of `t2aux train`, but for --model_dir."""
        flags = [f"--gin_file={name}" for name in self.gin_files]
        flags += [f"--gin_param={setting}" for setting in self.gin_params]
        return flags + ([f"--data_dir={self.data_dir}"] if self.data_dir else [])


def configuration(
    row: Row, budget: str, data_dir: str | None, seed: int, documents: str | None = None
) -> Configuration:
    """What `t2aux train` is told for a row.

    Args:
        row: The row.
        budget: Of BUDGETS.
        data_dir: See `data_source`.
        seed: Of the run.
        documents: The folder of the smoke budget's texts.

    Returns:
        The configuration.

    Raises:
        UserError: The documents are nowhere.
    """
    folder, stand_in = data_source(row, budget, data_dir)
    plan = _schedule(row, budget, stand_in)
    files = [f"paper/{row.dataset}"]
    settings: list[str] = []
    if stand_in == "digits":
        files.append("datasets/digits")
        settings += _digits(row, budget)
    elif row.dataset == "stanford_dogs":
        settings.append(f"SIDE = {row.side}")
    if stand_in == "docstrings":
        folder = documents
        settings.append("dbpedia.max_length = 40")
    if row.dataset == "dbpedia" and folder is None:
        raise UserError(
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
    settings += [f"SEED = {seed}", *_lengths(row, budget, plan), *_epochs(row, plan)]
    if row.core in ("lstm_chrono", "mingru"):
        settings.append(f"CHRONO_STEPS = {_steps(row, budget)}")
    if plan is not None:
        settings += [f"BATCH_SIZE = {plan.batch}", *_used(row, plan)]
        settings += [
            "train.evaluate_every = 1",
            f"RunConfig.log_every = {250 if plan.joint > 1 else 2}",
        ]
    if row.off in _OFF:
        settings += _OFF[row.off]
    if budget == "smoke":
        settings.append("dataset.max_examples = 64")
    return Configuration(tuple(files), tuple(settings), folder)


def _from_files(dataset: str, source: str) -> list[str]:
    """The settings that read a data set with the source of a user's own files."""
    return [f"train.data = @{source}()", *_OF_FILES.get((dataset, source), ())]


def flags_of_today(flags: Sequence[str], dataset: str) -> list[str]:
    """The flags of a row that an older version ran, by the names that settings have now.

    What its configurable `load` set is the data source's, or `dataset`'s, and how often it logged
    is RunConfig's.

    Args:
        flags: Of `t2aux train`.
        dataset: The row's.
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


def _digits(row: Row, budget: str) -> list[str]:
    if row.side is None:
        return []
    return [f"digits.side = {_SMOKE_SIDES[row.side] if budget == 'smoke' else row.side}"]


def _steps(row: Row, budget: str) -> int:
    """The sequences' length."""
    if budget == "smoke":
        return 64
    return {"mnist": 784, "pmnist": 784, "cifar10": 1024}[row.dataset]


def _lengths(row: Row, budget: str, plan: Schedule | None) -> list[str]:
    """Settings of all that is counted in steps; at the paper's scale only what differs from it."""
    text = row.dataset == "dbpedia"
    anchors, length, bptt = row.anchors, row.length, row.bptt
    if text and row.model == "p_lstm" and anchors is None:
        anchors, length = 1, 300
    if plan is not None and plan.steps != 1:
        default = (20, 15) if text else (1, 600)
        anchors, length = (anchors, length) if anchors is not None else default
        scale = plan.steps * (0.25 if row.side is not None else 1)
        tokens = max(1, round(anchors * length * scale))
        length = max(1, round(length * scale))
        anchors = max(1, tokens // length)
        if not row.full:
            auxiliary = max(2, round((100 if text else 300) * scale))
            supervised = auxiliary if bptt is None else min(bptt, max(1, round(bptt * scale)))
            return [
                *_segments(row, anchors, length),
                f"SUPERVISED_BPTT = {supervised}",
                *(
                    []
                    if row.model in ("lstm", "transformer")
                    else [f"AUXILIARY_BPTT = {auxiliary}"]
                ),
            ]
        return _segments(row, anchors, length)
    if budget == "short" and anchors is None:
        length = _SHORT_LENGTH.get(row.dataset)
    settings = _segments(row, anchors, length)
    if bptt is not None:
        settings.append(f"SUPERVISED_BPTT = {bptt}")
    return settings


def _segments(row: Row, anchors: int | None, length: int | None) -> list[str]:
    if row.model not in ("r_lstm", "p_lstm", "rp_lstm"):
        return []
    settings = [] if anchors is None else [f"ANCHORS = {anchors}"]
    return settings + ([] if length is None else [f"SEGMENT_LENGTH = {length}"])


def _epochs(row: Row, plan: Schedule | None) -> list[str]:
    without_pretraining = row.model not in _PRETRAINED or row.off == "pretraining"
    settings = ["train.phases = [@joint/Phase()]"] if row.off == "pretraining" else []
    if plan is None:
        return settings
    if without_pretraining:
        return [*settings, f"JOINT_EPOCHS = {plan.pretrain + plan.joint}"]
    return [*settings, f"PRETRAIN_EPOCHS = {plan.pretrain}", f"JOINT_EPOCHS = {plan.joint}"]


def _used(row: Row, plan: Schedule) -> list[str]:
    """The plan's settings that mean something to the row."""
    reconstructs = row.model in ("r_lstm", "rp_lstm")
    return [s for s in plan.settings if reconstructs or not s.startswith("Reconstruction.")]
