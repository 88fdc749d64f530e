"""`load` reads any data source: the common parameters, and the checks after reading."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import re
from collections.abc import Sequence

import gin
import numpy as np

from t2aux.data import checks
from t2aux.data.digits import Digits
from t2aux.data.shards import Shards, ShardSplit
from t2aux.data.source import Source, check_whole_number, sources
from t2aux.data.split import Split
from t2aux.data.table import Examples, Options, Table, class_key, subset
from t2aux.data.tfds_sets import Tfds
from t2aux.errors import DataError, SettingError, shorten
from t2aux_ondevice import paths
from t2aux_ondevice.preprocessing import DatasetInfo

SPLITS = ("train", "test")
TEST_FRACTION = 0.2
# The options that `load` sets.
_OF_ANY = {"source", "data_dir", "resize", "max_examples", "splits", "test_fraction", "split_seed"}
_OF_ANY |= {"allow", "info"}
# Parameters of several sources, which say how a source prepares its examples.
_PREPARATION = [field for field in dataclasses.fields(Options) if field.name not in _OF_ANY]
# The fields of a description that belong to a classifier, not to the data that it reads.
_OF_THE_CLASSIFIER = ("name", "mean", "deviation")
_TFDS_PREFIX = "tfds:"


@gin.configurable("dataset", denylist=["source", "split", "info"])
def load(
    source: Source,
    split: str,
    info: DatasetInfo | None = None,
    *,
    data_dir: str | None = None,
    max_examples: int | None = None,
    splits: tuple[str, str] | None = None,
    test_fraction: float = TEST_FRACTION,
    split_seed: int = 0,
    bucket_batches: int = 16,
    allow: Sequence[str] = (),
) -> Split:
    """Reads a split of a data set into memory, or opens one in shards.

    In gin files, `dataset.max_examples` and the other parameters of `dataset` apply to any source.

    Args:
        source: The data set, such as `Digits(side=6)` or `Csv(tokens="bytes")`.
        split: "train" or "test"; or the name of another split, such as "validation", if the source
            has it (`Source.has_other_splits`).
        info: The description of the data that a classifier was trained on. If given, it determines
            how the data is prepared (side, border, grey, permutation, tokens, vocabulary, classes)
            instead of the source's parameters, and the data must agree with it. Images of another
            size are resized only if the source has a `side`, too.
        data_dir: The folder of the files or, for some sources, a single file; for
            tensorflow-datasets, the folder of its prepared data. If None, the environment variable
            T2AUX_DATA_DIR is used, and then the default of tensorflow-datasets.
        max_examples: Use only this many examples of the split, chosen at random with a fixed seed;
            None for all.
        splits: For tensorflow-datasets, the splits to read as "train" and as "test", such as
            ("train[:90%]", "train[90%:]"). None for its splits of these names, with "validation"
            in place of a missing "test".
        test_fraction: For a user's own data without a test set, the fraction of each class that is
            held out as "test"; "train" is the rest. With 0, "train" is all of the data, and there
            is no "test".
        split_seed: The seed of this choice, which depends only on the data's classes, the fraction
            and the seed.
        bucket_batches: If lengths vary, sequences are sorted by length in pools of this many
            batches before the batches are shuffled, which saves padding; 1 turns it off.
        allow: What to accept although it looks like a mistake, which would otherwise be an error:
            "one_class" (all training examples are of one class), "class_per_example" (at least 4
            classes and more than half as many classes as training examples), "first_row" (the first
            row of a table is an example, not a header), "missing_labels" (a class named "nan",
            "None", ... or without a name), "separator" (a table seems to have a separator other
            than commas, or quotes other than CSV's).

    Returns:
        The split. Both splits of a data set have the same `info`.

    Raises:
        UserError: An argument is out of range; the data is missing, not prepared or damaged; or it
            disagrees with `info`.
    """
    check_whole_number("dataset.bucket_batches", bucket_batches, least=1)
    found, examples = read(
        source,
        split,
        info,
        data_dir=data_dir,
        max_examples=max_examples,
        splits=splits,
        test_fraction=test_fraction,
        split_seed=split_seed,
        allow=allow,
    )
    if isinstance(examples, Shards):
        return ShardSplit(found, examples, bucket_batches)
    table = examples.table()
    notes = (*examples.notes, *checks.of_values(split, found, table))
    made = Split(found, table, bucket_batches, notes)
    made.division = examples.division
    return made


def read(
    source: Source,
    split: str,
    info: DatasetInfo | None = None,
    *,
    data_dir: str | None = None,
    max_examples: int | None = None,
    splits: tuple[str, str] | None = None,
    test_fraction: float = TEST_FRACTION,
    split_seed: int = 0,
    allow: Sequence[str] = (),
) -> tuple[DatasetInfo, Examples]:
    """Reads the examples of a split, images and texts one at a time if the source can do so.

    The arguments are those of `load`, but are not set by gin. The values are not checked
    (`checks.of_values`).

    Raises:
        UserError: As for `load`. Errors in an image may be raised only when its row is made.
    """
    if not isinstance(source, Source):
        raise SettingError(f"The data source is {source!r}: give a Source, such as Digits().")
    if split not in SPLITS:
        _check_other_split(split, source)
    check_whole_number("dataset.max_examples", max_examples, least=1, optional=True)
    is_share = type(test_fraction) in (int, float) and 0 <= test_fraction < 1
    if not is_share:
        raise SettingError(
            f"dataset.test_fraction is {test_fraction!r}: give a fraction of at least 0 and less "
            "than 1."
        )
    check_whole_number("dataset.split_seed", split_seed, least=0)
    own = {f.name: getattr(source, f.name) for f in _PREPARATION if hasattr(source, f.name)}
    options = Options(
        source=source.gin_name,
        data_dir=folder_of(data_dir),
        resize=own.get("side") is not None,
        max_examples=max_examples,
        splits=_checked_splits(splits, source),
        test_fraction=test_fraction,
        split_seed=split_seed,
        allow=checks.allowed(allow),
        **own,
    )
    if info is not None:
        options = _options_of_info(options, info)
    found, examples = source.read(split, options)
    _check_applicable(options, found)
    _check_labels(options, found, examples)
    if isinstance(examples, Table) and len(examples.labels) > (max_examples or np.inf):
        # A user's own source may ignore it.
        counts = np.bincount(examples.labels, minlength=found.num_classes)
        chosen = examples.take(subset(len(examples.labels), max_examples))
        examples = dataclasses.replace(chosen, counts=counts)
    if info is not None:
        check_agreement(found, info)
        found = info
    return found, checks.with_notes(examples, checks.check(split, found, examples, options))


def _check_other_split(split: str, source: Source) -> None:
    """Raises UserError if a source has no further splits, or if the name is not allowed."""
    if not source.has_other_splits:
        raise SettingError(
            f"The split is {split!r}: {source.gin_name} has {' and '.join(SPLITS)} only."
        )
    if not source.has_named_splits and not re.fullmatch(r"\w[\w-]*", split):
        raise SettingError(
            f"The split is {split!r}: give the name of its files, such as validation, without a "
            "folder or a suffix."
        )


def named(name: str) -> Source:
    """Makes a source by its name, with the parameters that the gin configuration sets for it.

    Args:
        name: The source's name in gin files, or the name of a data set of tensorflow-datasets
            ("tfds:NAME" if it is ambiguous).
    """
    source = sources().get(name)
    return source() if source is not None else Tfds(name=name.removeprefix(_TFDS_PREFIX))


def configured() -> Source:
    """Makes the source that the gin configuration sets as train.data; digits if it sets none."""
    return gin.get_bindings("train").get("data") or Digits()


def prepare(source: Source, data_dir: str | None = None) -> bool:
    """Downloads and prepares a data set.

    Args:
        source: The data set.
        data_dir: The folder for the prepared data, as for `load`.

    Returns:
        Whether there was anything to prepare: False for the embedded data set and a user's files.

    Raises:
        UserError: The name is unknown, or the download or the preparation fails.
    """
    return source.prepare(folder_of(data_dir))


def folder_of(data_dir: object) -> pathlib.Path | None:
    """Returns the folder that dataset.data_dir or T2AUX_DATA_DIR names, or None."""
    if data_dir is None:
        data_dir = os.environ.get("T2AUX_DATA_DIR")
        return pathlib.Path(paths.local(data_dir, "T2AUX_DATA_DIR")) if data_dir else None
    if not isinstance(data_dir, (str, os.PathLike)):
        raise SettingError(f"dataset.data_dir is {data_dir!r}: give the name of a folder.")
    return pathlib.Path(paths.local(data_dir, "dataset.data_dir"))


def _checked_splits(splits: object, source: Source) -> tuple[str, str] | None:
    if splits is None:
        return None
    is_pair = isinstance(splits, (tuple, list)) and len(splits) == len(SPLITS)
    if not is_pair or not all(isinstance(part, str) for part in splits):
        raise SettingError(
            f"dataset.splits is {splits!r}: give two names, for training and for test, such as "
            "('train[:90%]', 'train[90%:]')."
        )
    if not source.has_named_splits:
        raise SettingError(
            f"dataset.splits is set, but {source.gin_name} has no splits to choose from, as the "
            "data sets of tensorflow-datasets have: leave it out."
        )
    return tuple(splits)


def _options_of_info(options: Options, info: DatasetInfo) -> Options:
    return dataclasses.replace(
        options,
        side=info.side,
        border=info.border,
        grey=info.kind == "image" and info.channels == 1,
        permutation_seed=info.permutation_seed,
        tokens=info.tokens or options.tokens,
        max_length=info.max_length,
        info=info,
    )


def _check_applicable(options: Options, info: DatasetInfo) -> None:
    """Raises UserError if an option is set that does not apply to this kind of data."""
    useless = [] if info.kind == "image" else ["side", "border", "grey", "permutation_seed"]
    useless += [] if info.is_text else ["max_length"]
    for name in useless:
        if getattr(options, name) != getattr(Options, name):
            raise SettingError(
                f"{options.source}.{name} is set, but does not apply to {info.name}, which holds "
                f"{info.kind}: leave it out."
            )


def _check_labels(options: Options, found: DatasetInfo, examples: Examples) -> None:
    """Raises UserError if a label is not one of the classes, as may happen in a user's source."""
    labels = examples.labels
    if len(labels) and not 0 <= labels.min() <= labels.max() < found.num_classes:
        wrong = labels.min() if labels.min() < 0 else labels.max()
        raise DataError(
            f"{options.source} gives the label {wrong}, but has {found.num_classes} classes: "
            f"labels run from 0 to {found.num_classes - 1}."
        )


def check_agreement(found: DatasetInfo, info: DatasetInfo) -> None:
    """Raises UserError if data is not of the kind that a classifier was trained on."""
    for field in dataclasses.fields(info):
        ours, theirs = getattr(found, field.name), getattr(info, field.name)
        if field.name == "classes":
            ours, theirs = (tuple(map(class_key, names)) for names in (ours, theirs))
        if field.name not in _OF_THE_CLASSIFIER and ours != theirs:
            raise DataError(
                f"The data of {found.name} does not fit the classifier, which was trained on "
                f"{info.name}: its {field.name} is {shorten(repr(ours))} where the classifier has "
                f"{shorten(repr(theirs))}; evaluate it on data like its training data."
            )
