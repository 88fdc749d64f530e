"""The one door to all data: `load`."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import re
from collections.abc import Callable, Sequence

import gin

from t2aux.data import checks, digits, idx, image_folder, npz, shards, text_csv
from t2aux.data.shards import Shards, ShardSplit
from t2aux.data.split import Split
from t2aux.data.table import Examples, Options, class_key
from t2aux.errors import UserError, shorten
from t2aux_ondevice import paths
from t2aux_ondevice.preprocessing import TOKENS, DatasetInfo

SPLITS = ("train", "test")
# The sources that have names of their own; every other name is one of tensorflow-datasets.
SOURCES: dict[str, Callable[[str, Options], tuple[DatasetInfo, Examples]]] = {
    "digits": digits.read,
    "image_folder": image_folder.read,
    "csv": text_csv.read,
    "npz": npz.read,
    "idx": idx.read,
    "shards": shards.read,
}
# Of these, those that may have further splits: files of the split's name.
_WITH_OTHER_SPLITS = ("image_folder", "csv", "npz")
_TFDS_PREFIX = "tfds:"
_NOT_ARGUMENTS = ("data_dir", "resize", "info")  # Of `Options`; set here.


@gin.configurable("load")
def load(
    split: str,
    name: str = "digits",
    data_dir: str | None = None,
    side: int | None = None,
    border: int = 0,
    grey: bool = False,
    permutation_seed: int | None = None,
    tokens: str = "characters",
    max_length: int | None = None,
    vocabulary_size: int = 256,
    bucket_batches: int = 16,
    max_examples: int | None = None,
    splits: tuple[str, str] | None = None,
    allow: Sequence[str] = (),
    info: DatasetInfo | None = None,
) -> Split:
    """Reads a split of a data set into memory, or opens one in shards.

    Args:
        split: "train" or "test"; or the name of another one, such as "validation", of which
            image_folder, csv and npz have files of that name, and tensorflow-datasets may have one.
        name: "digits"; or "image_folder", "csv", "npz", "idx" or "shards" for files in `data_dir`
            ("shards" are what `t2aux data convert` writes, and stay in their files); or any
            image or text classification data set of tensorflow-datasets by its name, such as
            "mnist", "cifar10", "stanford_dogs" or "ag_news_subset" ("tfds:NAME" if in doubt).
        data_dir: The folder of the files; for tensorflow-datasets, that of its prepared data. If
            None, the environment variable T2AUX_DATA_DIR, and then tensorflow-datasets' own
            default.
        side: Height and width that images are resized to (bilinear, antialiased). None keeps
            square images of one size as they are.
        border: Black pixels that are put around the resized images, on each side: what MNIST has
            around its digits, so that the last steps of a sequence tell nothing.
        grey: Whether to turn colour images into grey ones, with one channel instead of three.
        permutation_seed: Seed of a fixed permutation of the pixels, the same for every image and
            split (pMNIST); None for raster order.
        tokens: What a step of text is: "characters" (Unicode code points) or "bytes" (of UTF-8).
        max_length: Where texts are cut, in tokens; None for nowhere.
        vocabulary_size: The largest number of different characters, the most frequent ones of the
            training split; the others become the unknown character, which is counted too.
        bucket_batches: Where lengths vary, sequences are sorted by length in pools of this many
            batches before the batches are shuffled, which saves padding; 1 to turn it off.
        max_examples: Take only so many examples, a fixed random choice; None for all.
        splits: For tensorflow-datasets, what it shall read as "train" and as "test", such as
            ("train[:90%]", "train[90%:]"). None for its splits of these names, with "validation"
            in place of a missing "test".
        allow: What is right although it looks like a mistake, and would be an error: "one_class"
            (all training examples are of one class), "class_per_example" (more than half as many
            classes as training examples, and at least 4), "first_row" (the first row of a table is
            an example, not a header), "missing_labels" (a class named "nan", "None", ... or
            without a name), "separator" (a table seems to have another separator than commas, or
            other quotes than CSV's).
        info: The description of the data that a classifier was trained on. The data is then
            prepared as it says (side, border, grey, permutation, tokens, vocabulary, classes)
            rather than by the arguments above, and must agree with it; images of another size are
            resized only if `side` is given too.

    Returns:
        The split. Both splits of a data set have equal `info`.

    Raises:
        UserError: An argument is out of its range; the name is unknown; the data is missing, not
            prepared or damaged; or it disagrees with `info`.
    """
    _check_whole_number("bucket_batches", bucket_batches, least=1)
    found, examples = read(
        split,
        name,
        info,
        data_dir=data_dir,
        side=side,
        border=border,
        grey=grey,
        permutation_seed=permutation_seed,
        tokens=tokens,
        max_length=max_length,
        vocabulary_size=vocabulary_size,
        max_examples=max_examples,
        splits=splits,
        allow=allow,
    )
    if isinstance(examples, Shards):
        return ShardSplit(found, examples, bucket_batches)
    table = examples.table()
    notes = (*examples.notes, *checks.of_values(split, found, table))
    return Split(found, table, bucket_batches, notes)


def read(
    split: str, name: str = "digits", info: DatasetInfo | None = None, **arguments: object
) -> tuple[DatasetInfo, Examples]:
    """Reads the examples of a split, images and texts one at a time where the source can.

    Args:
        split: As for `load`.
        name: As for `load`.
        info: As for `load`.
        **arguments: The others of `load`, all but `bucket_batches`; `load`'s defaults where left
            out.

    Raises:
        UserError: As for `load`; what is wrong with an image may only be noticed when it is made.
            What is odd about the values alone (`checks.of_values`) is not looked for.
    """
    if split not in SPLITS:
        _check_other_split(split, name)
    options = _options(**arguments)
    if info is not None:
        options = _options_of_info(options, info)
    found, examples = _read(name, split, options)
    _check_applicable(options, found)
    if info is not None:
        _check_agreement(found, info)
        found = info
    return found, checks.with_notes(examples, checks.check(split, found, examples, options))


def _check_other_split(split: str, name: str) -> None:
    """Raises UserError where a source has no further splits, or none that may be called so."""
    if name not in SOURCES:
        return  # tensorflow-datasets knows its own.
    if name not in _WITH_OTHER_SPLITS:
        raise UserError(f"The split is {split!r}: {name} has {' and '.join(SPLITS)} only.")
    if not re.fullmatch(r"\w[\w-]*", split):
        raise UserError(
            f"The split is {split!r}: give the name of its files, such as validation, without a "
            "folder or a suffix."
        )


def prepare(name: str, data_dir: str | None = None) -> bool:
    """Downloads and prepares a data set of tensorflow-datasets.

    Args:
        name: As for `load`.
        data_dir: As for `load`: where the prepared data goes.

    Returns:
        Whether there was anything to do: False for the embedded data set and for a user's files.

    Raises:
        UserError: The name is unknown, or the download or the preparation fails.
    """
    if name in SOURCES:
        return False
    from t2aux.data import tfds_source

    tfds_source.prepare(name.removeprefix(_TFDS_PREFIX), folder_of(data_dir), tuple(SOURCES))
    return True


def _read(name: str, split: str, options: Options) -> tuple[DatasetInfo, Examples]:
    if not isinstance(name, str) or not name:
        raise UserError(f"load.name is {name!r}: give the name of a data set.")
    if name in SOURCES:
        return SOURCES[name](split, options)
    # tensorflow-datasets takes seconds to import, and the other sources do without it.
    from t2aux.data import tfds_source

    return tfds_source.read(split, options, name.removeprefix(_TFDS_PREFIX), tuple(SOURCES))


def _options(**arguments: object) -> Options:
    """Checks the arguments of `load` one by one and fills in the others and the data_dir."""
    folder = folder_of(arguments.pop("data_dir", None))
    fields = [f for f in dataclasses.fields(Options) if f.name not in _NOT_ARGUMENTS]
    arguments = {**{field.name: field.default for field in fields}, **arguments}
    for name, least in (("side", 1), ("permutation_seed", 0), ("max_length", 1)):
        _check_whole_number(name, arguments[name], least=least, optional=True)
    _check_whole_number("max_examples", arguments["max_examples"], least=1, optional=True)
    _check_whole_number("border", arguments["border"], least=0)
    _check_whole_number("vocabulary_size", arguments["vocabulary_size"], least=2)
    if not isinstance(arguments["grey"], bool):
        raise UserError(f"load.grey is {arguments['grey']!r}: give True or False.")
    if arguments["tokens"] not in TOKENS:
        raise UserError(f"load.tokens is {arguments['tokens']!r}: give {' or '.join(TOKENS)}.")
    splits = arguments["splits"]
    if splits is not None:
        is_pair = isinstance(splits, (tuple, list)) and len(splits) == len(SPLITS)
        if not is_pair or not all(isinstance(part, str) for part in splits):
            raise UserError(
                f"load.splits is {splits!r}: give two names, for training and for test, such as "
                "('train[:90%]', 'train[90%:]')."
            )
        arguments["splits"] = tuple(splits)
    arguments["allow"] = checks.allowed(arguments["allow"])
    return Options(data_dir=folder, resize=arguments["side"] is not None, **arguments)


def folder_of(data_dir: object) -> pathlib.Path | None:
    """Returns the folder that load.data_dir or T2AUX_DATA_DIR name; None where neither does."""
    if data_dir is None:
        data_dir = os.environ.get("T2AUX_DATA_DIR")
        return pathlib.Path(paths.local(data_dir, "T2AUX_DATA_DIR")) if data_dir else None
    if not isinstance(data_dir, (str, os.PathLike)):
        raise UserError(f"load.data_dir is {data_dir!r}: give the name of a folder.")
    return pathlib.Path(paths.local(data_dir, "load.data_dir"))


def _check_whole_number(name: str, value: object, *, least: int, optional: bool = False) -> None:
    if optional and value is None:
        return
    if type(value) is not int or value < least:
        none = ", or None" if optional else ""
        raise UserError(f"load.{name} is {value!r}: give a whole number of at least {least}{none}.")


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
    useless = {
        "side": options.side is not None and info.kind != "image",
        "border": options.border != 0 and info.kind != "image",
        "grey": options.grey and info.kind != "image",
        "permutation_seed": options.permutation_seed is not None and info.kind != "image",
        "max_length": options.max_length is not None and not info.is_text,
    }
    for name, is_useless in useless.items():
        if is_useless:
            raise UserError(
                f"load.{name} is set, but {info.name} holds {info.kind}, which it does not apply "
                "to: leave it out."
            )


def _check_agreement(found: DatasetInfo, info: DatasetInfo) -> None:
    """Raises UserError if data is not of the kind that a classifier was trained on."""
    for field in dataclasses.fields(info):
        ours, theirs = getattr(found, field.name), getattr(info, field.name)
        if field.name == "classes":
            ours, theirs = (tuple(map(class_key, names)) for names in (ours, theirs))
        if field.name != "name" and ours != theirs:
            raise UserError(
                f"The data of {found.name} does not fit the classifier, which was trained on "
                f"{info.name}: its {field.name} is {shorten(repr(ours))} where the classifier has "
                f"{shorten(repr(theirs))}; evaluate it on data like that which it was trained on."
            )
