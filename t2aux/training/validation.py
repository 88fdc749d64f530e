"""The validation set of a run: a fraction of the training data, or a separate split."""

from __future__ import annotations

import dataclasses
import pathlib

import gin
import numpy as np
from absl import logging

from t2aux import data
from t2aux.data.loading import SPLITS, folder_of
from t2aux.data.part import hold_out
from t2aux.errors import ModelError, SettingError, UserError
from t2aux.training import identity
from t2aux_ondevice.preprocessing import DatasetInfo

NAME = "validation"


def check(validation: object, patience: object, evaluate_every: int) -> None:
    """Raises UserError if a parameter of `train` is out of range or meaningless.

    Args:
        validation: `train.validation`.
        patience: `train.patience`.
        evaluate_every: `train.evaluate_every`.
    """
    is_fraction = type(validation) in (int, float) and 0 < validation < 1
    is_name = isinstance(validation, str) and validation.strip() and validation not in SPLITS
    if validation is not None and not is_fraction and not is_name:
        raise SettingError(
            f"train.validation is {validation!r}: give a fraction of the training data between 0 "
            "and 1, both excluded, or the name of a split that is neither train nor test, or None."
        )
    if patience is None:
        return
    if type(patience) is not int or patience < 1:
        raise SettingError(
            f"train.patience is {patience!r}: give a number of evaluations of at least 1, or None."
        )
    if validation is None or not evaluate_every:
        needed = "train.validation is None" if validation is None else "train.evaluate_every is 0"
        raise SettingError(
            f"train.patience is {patience}, but {needed}: it counts evaluations on the validation "
            "set, so set train.validation = 0.1, for example, and train.evaluate_every = 1."
        )


@dataclasses.dataclass(frozen=True)
class Splits:
    """The data of a run.

    Attributes:
        train: The training set.
        test: The test set.
        validation: The validation set, which decides which checkpoint is the best and when to stop;
            None: there is none.
        read: The splits as they were read, by name: "train" and "test", and "validation" if that is
            a separate split.
    """

    train: data.Split
    test: data.Split
    validation: data.Split | None
    read: dict[str, data.Split]

    @property
    def by_name(self) -> dict[str, data.Split]:
        """The existing splits by name: "train", "validation" and "test"."""
        validation = {} if self.validation is None else {NAME: self.validation}
        return {"train": self.train, **validation, "test": self.test}

    def set_info(self, info: DatasetInfo) -> None:
        """Sets the description of the data in all splits."""
        for split in [*self.read.values(), *self.by_name.values()]:
            split.info = info

    def describe(self) -> str:
        """The numbers of sequences, such as "129 training, 14 validation and 36 test"."""
        validation = "" if self.validation is None else f", {len(self.validation)} {NAME}"
        return f"{len(self.train)} training{validation} and {len(self.test)} test"


def load(
    source: data.Source,
    validation: float | str | None,
    seed: int,
    directory: pathlib.Path | None = None,
) -> Splits:
    """Reads the data that the configuration names.

    `dataset.max_examples` is applied first: a fraction refers to the remaining examples, and a
    separate split is limited like the test split.

    Args:
        source: The source of the data set.
        validation: As for `train`.
        seed: As for `train`; chooses the examples of a fraction.
        directory: The run directory, in which the run may have begun; None: it has not.

    Raises:
        UserError: See `data.load`; or the fraction is too small, the source has no such split, or
            the split has the same examples as the training or test split.
    """
    train = data.load(source, "train")
    test = data.load(source, "test", train.info)
    read = {"train": train, "test": test}
    if validation is None:
        return Splits(train, test, None, read)
    name = _own_split(source, validation, directory)
    if name is None:
        trained, held_out = _hold_out(train, validation, seed)
        return Splits(trained, test, held_out, read)
    if not isinstance(validation, str):
        logging.info(
            "The data has a separate validation set, which is used instead of a share of the "
            "training data."
        )
    own = _load_own(source, name, train.info)
    for split, what in (("train", "training"), ("test", "test")):
        other = read[split]
        if np.array_equal(own.labels, other.labels) and np.array_equal(
            own.fingerprints(), other.fingerprints()
        ):
            raise SettingError(
                f"train.validation is {name!r}, but that split has the same examples as the "
                f"{what} split of {own.info.name}: name another, set dataset.splits, or give a "
                "fraction."
            )
    return Splits(train, test, own, {**read, NAME: own})


def load_whole(
    name: str, source: data.Source, info: DatasetInfo, directory: pathlib.Path | None = None
) -> tuple[str, data.Split]:
    """Reads the split of the source that contains a split of a run.

    gin's current configuration must be that of the run.

    Args:
        name: "train", "validation" or "test".
        source: The source of the run's data set.
        info: The run's data set.
        directory: The run directory.

    Returns:
        The name of the split that was read ("train" for a held-out fraction), and the split.

    Raises:
        UserError: See `data.load`; or the run has no validation set.
    """
    validation = gin.get_bindings("train").get("validation")
    if name == NAME and validation is None:
        raise ModelError(
            "The run has no validation set, as its train.validation is None: give another --split."
        )
    if name == NAME and (own := _own_split(source, validation, directory)) is not None:
        return NAME, _load_own(source, own, info)
    read = "train" if name == NAME else name
    return read, data.load(source, read, info)


def part_of(
    name: str, whole: data.Split, *, is_own: bool, directory: pathlib.Path | None = None
) -> data.Split:
    """The part of a split from `load_whole` that the run used as the split `name`.

    Args:
        name: As for `load_whole`.
        whole: The split that `load_whole` returned.
        is_own: Whether it is the run's own data. Other data has no held-out part.
        directory: The run directory.

    Returns:
        The whole split, the held-out part, or the rest.

    Raises:
        UserError: Other data has no validation set.
    """
    bound = gin.get_bindings("train")
    validation = bound.get("validation")
    if name == "test" or validation is None:
        return whole
    if _own_split(data.configured(), validation, directory) is not None:
        return whole
    if not is_own:
        if name == NAME:
            raise ModelError(
                "The run's validation set is a part of its own training data: give another "
                "--split to evaluate on other data."
            )
        return whole
    trained, held_out = _hold_out(whole, validation, bound.get("seed", 0))
    return held_out if name == NAME else trained


def _own_split(
    source: data.Source, validation: float | str, directory: pathlib.Path | None
) -> str | None:
    """The name of the validation split, or None if a fraction of the training data is used.

    A run that has begun keeps the kind of validation set that it began with.
    """
    if isinstance(validation, str):
        return validation
    began = None if directory is None else identity.splits_of(directory)
    if began is not None:
        return NAME if NAME in began else None
    folder = folder_of(gin.get_bindings("dataset").get("data_dir"))
    return NAME if source.has_validation(folder) else None


def _hold_out(train: data.Split, fraction: float, seed: int) -> tuple[data.Split, data.Split]:
    if seed < 0:
        raise SettingError(f"train.seed is {seed}: give 0 or more.")
    try:
        return hold_out(train, fraction, seed)
    except UserError as error:
        raise SettingError(f"train.validation can't be held out: {error}") from error


def _load_own(source: data.Source, name: str, info: DatasetInfo) -> data.Split:
    try:
        return data.load(source, name, info)
    except UserError as error:
        raise SettingError(f"train.validation is {name!r}: {error}") from error
