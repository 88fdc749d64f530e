"""`load` reads any data source: what holds for all of them, and what is checked after reading."""

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
# What `load` is given.
_OF_ANY = {"source", "data_dir", "resize", "max_examples", "splits", "test_fraction", "split_seed"}
_OF_ANY |= {"allow", "info"}
# How a source prepares its examples: parameters that several sources have.
_PREPARATION = [field for field in dataclasses.fields(Options) if field.name not in _OF_ANY]
# What a description says of a classifier, and not of data that it reads.
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

    In gin files, `dataset.max_examples` and the others hold for whatever source is read.

    Args:
        source: The data set, such as `Digits(side=6)` or `Csv(tokens="bytes")`.
        split: "train" or "test"; or the name of another one, such as "validation", where the source
            has it (`Source.has_other_splits`).
        info: The description of the data that a classifier was trained on. The data is then
            prepared as it says (side, border, grey, permutation, tokens, vocabulary, classes)
            rather than by the source's parameters, and must agree with it; images of another size
            are resized only if the source is given a `side`, too.
        data_dir: The folder of the files, or for some sources one file; for tensorflow-datasets,
            that of its prepared data. If None, the environment variable T2AUX_DATA_DIR, and then
            tensorflow-datasets' own default.
        max_examples: Take only so many examples of the split, a fixed random choice; None for all.
        splits: For tensorflow-datasets, what it reads as "train" and as "test", such as
            ("train[:90%]", "train[90%:]"). None for its splits of these names, with "validation"
            in place of a missing "test".
        test_fraction: Of a user's own data that has no test set, the share that is kept apart as
            one, with the same share of each class; "train" is the rest. 0: "train" is all of it,
            and there is no "test".
        split_seed: Of the choice of these examples, which is a function of the data's classes, the
            fraction and the seed alone.
        bucket_batches: Where lengths vary, sequences are sorted by length in pools of this many
            batches before the batches are shuffled, which saves padding; 1 to turn it off.
        allow: What is right although it looks like a mistake, and would be an error: "one_class"
            (all training examples are of one class), "class_per_example" (more than half as many
            classes as training examples, and at least 4), "first_row" (the first row of a table is
            an example, not a header), "missing_labels" (a class named "nan", "None", ... or
            without a name), "separator" (a table seems to have another separator than commas, or
            other quotes than CSV's).

    Returns:
        The split. Both splits of a data set have equal `info`.

    Raises:
        UserError: An argument is out of its range; the data is missing, not prepared or damaged; or
            it disagrees with `info`.
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
    """Reads the examples of a split, images and texts one at a time where the source can.

    The arguments are those of `load`, but not gin's.

    Raises:
        UserError: As for `load`; what is wrong with an image may only be noticed when it is made.
            What is odd about the values alone (`checks.of_values`) is not looked for.
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
        # A source of a user's own may ignore it.
        counts = np.bincount(examples.labels, minlength=found.num_classes)
        chosen = examples.take(subset(len(examples.labels), max_examples))
        examples = dataclasses.replace(chosen, counts=counts)
    if info is not None:
        check_agreement(found, info)
        found = info
    return found, checks.with_notes(examples, checks.check(split, found, examples, options))


def _check_other_split(split: str, source: Source) -> None:
    """Raises UserError where a source has no further splits, or none that may be called so."""
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
    """Makes a source by its name, with the parameters that gin's configuration sets for it.

    Args:
        name: What gin files call it; or that of a data set of tensorflow-datasets ("tfds:NAME" if
            in doubt).
    """
    source = sources().get(name)
    return source() if source is not None else Tfds(name=name.removeprefix(_TFDS_PREFIX))


def configured() -> Source:
    """Makes the source that gin's configuration names as train.data; digits where it names none."""
    return gin.get_bindings("train").get("data") or Digits()


def prepare(source: Source, data_dir: str | None = None) -> bool:
    """Downloads and prepares a data set.

    Args:
        source: The data set.
        data_dir: As for `load`: where the prepared data goes.

    Returns:
        Whether there was anything to do: False for the embedded data set and for a user's files.

    Raises:
        UserError: The name is unknown, or the download or the preparation fails.
    """
    return source.prepare(folder_of(data_dir))


def folder_of(data_dir: object) -> pathlib.Path | None:
    """Returns the folder that dataset.data_dir or T2AUX_DATA_DIR name; None where neither does."""
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
    """Raises UserError if an option was set that this kind of data has no use for."""
    useless = [] if info.kind == "image" else ["side", "border", "grey", "permutation_seed"]
    useless += [] if info.is_text else ["max_length"]
    for name in useless:
        if getattr(options, name) != getattr(Options, name):
            raise SettingError(
                f"{options.source}.{name} is set, but {info.name} holds {info.kind}, which it does "
                "not apply to: leave it out."
            )


def _check_labels(options: Options, found: DatasetInfo, examples: Examples) -> None:
    """Raises UserError if a label is not one of the classes; a source of a user's own may."""
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
                f"{shorten(repr(theirs))}; evaluate it on data like that which it was trained on."
            )
