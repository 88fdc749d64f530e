"""The data sets of tensorflow-datasets: images with classes, or texts with classes.

Nothing here downloads unless `prepare` is called.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from t2aux.data.characters import (
    CharacterCounts,
    Texts,
    count_tokens,
    needs_counts,
    text_info,
)
from t2aux.data.pixels import image_info, image_rows
from t2aux.data.split import untuned
from t2aux.data.table import Examples, Options, Rows, choose, subset
from t2aux.errors import DataError, FileError, SettingError, did_you_mean
from t2aux.progress import Progress
from t2aux_ondevice import paths
from t2aux_ondevice.preprocessing import DatasetInfo

# Without it, tensorflow-datasets waits for a metadata server that exists only in Google Cloud.
os.environ.setdefault("NO_GCE_CHECK", "true")

import tensorflow_datasets as tfds

_COLOUR_CHANNELS = (1, 3)


@dataclasses.dataclass(frozen=True)
class _Source:
    """A builder and the keys of its examples that a classifier needs."""

    name: str
    builder: tfds.core.DatasetBuilder
    input_key: str
    label_key: str

    @property
    def input_feature(self) -> Any:
        return self.builder.info.features[self.input_key]

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(self.builder.info.features[self.label_key].names)


def read(
    split: str, options: Options, name: str, own_names: tuple[str, ...] = ()
) -> tuple[DatasetInfo, Examples]:
    """Reads a split of a prepared data set.

    Args:
        split: "train", "test", or another split of tensorflow-datasets, such as "validation".
        options: The options of the source.
        name: The builder's name, optionally with configuration and version: "emnist/letters".
        own_names: Other known names, to suggest if the name is unknown.

    Raises:
        UserError: The name is unknown, the data is not prepared or can't be classified, or an
            example has no class or an empty text.
    """
    source = _source(name, options.data_dir, own_names)
    if isinstance(source.input_feature, tfds.features.Image):
        return _read_images(source, split, options)
    return _read_texts(source, split, options)


def prepare(name: str, data_dir: pathlib.Path | None, own_names: tuple[str, ...] = ()) -> None:
    """Downloads and prepares a data set.

    Args:
        name: As for `read`.
        data_dir: The folder to write to; None for the default of tensorflow-datasets.
        own_names: As for `read`.

    Raises:
        UserError: The name is unknown, or the download or the preparation fails.
    """
    builder = _source(name, data_dir, own_names).builder
    try:
        builder.download_and_prepare(
            download_config=tfds.download.DownloadConfig(try_download_gcs=False)
        )
    # The errors of a builder's own code and of the network have no common base class.
    except Exception as error:
        raise FileError(
            f"Preparing {name} in {builder.data_dir} failed ({_first_line(error)}): check the "
            "connection and the space on the disk, and try again."
        ) from error


def _source(name: str, data_dir: pathlib.Path | None, own_names: tuple[str, ...]) -> _Source:
    """Finds a builder by its name, and the keys of its input and its label."""
    if data_dir is None and "TFDS_DATA_DIR" not in os.environ and paths.home() is None:
        # Otherwise it would make a folder "~" in the working directory.
        raise FileError(
            "tensorflow-datasets keeps its data in the home folder, and this user has none: give "
            "--data_dir, or set HOME."
        )
    try:
        builder = tfds.builder(name, data_dir=data_dir, try_gcs=False)
    # The errors for unknown configurations and versions, for builders that need a package and for
    # damaged metadata have no common base class.
    except Exception as error:
        raise SettingError(_why_not(name, error, own_names)) from error
    features = builder.info.features
    if isinstance(features, tfds.features.FeaturesDict):
        inputs = [key for key in features if _is_input(features[key])]
        labels = [key for key in features if _is_label(features[key])]
        supervised = builder.info.supervised_keys or ()
        if len(supervised) == 2 and supervised[0] in inputs and supervised[1] in labels:
            return _Source(name, builder, *supervised)
        if len(inputs) == 1 and len(labels) == 1:
            return _Source(name, builder, inputs[0], labels[0])
    raise SettingError(
        f"The data set {name} has no single image (grey or RGB) or text with a class: choose one "
        "for image or text classification."
    )


def _is_input(feature: Any) -> bool:
    if isinstance(feature, tfds.features.Image):
        return feature.shape[-1] in _COLOUR_CHANNELS and feature.np_dtype == np.uint8
    return isinstance(feature, tfds.features.Text)


def _is_label(feature: Any) -> bool:
    return isinstance(feature, tfds.features.ClassLabel) and bool(feature.num_classes)


def _part(source: _Source, split: str, options: Options) -> str:
    """Returns the name of the split in tensorflow-datasets."""
    if split not in ("train", "test"):
        return split
    if options.splits is not None:
        return options.splits[0 if split == "train" else 1]
    known = list(source.builder.info.splits)
    if split == "test" and "test" not in known and "validation" in known:
        return "validation"
    return split


def _dataset(source: _Source, part: str, *keys: str) -> tf.data.Dataset:
    """Returns the given features of the examples of a split, in a fixed order."""
    builder = source.builder
    try:
        dataset = builder.as_dataset(
            split=part,
            shuffle_files=False,
            decoders=tfds.decode.PartialDecoding(dict.fromkeys(keys, True)),
            read_config=tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False),
        )
        return untuned(dataset)
    except AssertionError as error:
        raise FileError(
            f"The data set {source.name} is not prepared in {builder.data_dir}: run `t2aux data "
            f"{source.name} --prepare` with an internet connection, or give "
            "--data_dir=FOLDER, where it is."
        ) from error
    except ValueError as error:
        raise SettingError(
            f"The data set {source.name} has no split {part!r}, only "
            f"{', '.join(builder.info.splits)}: name one of these, and set dataset.splits to the "
            "two that are for training and test."
        ) from error


def _iterate(source: _Source, dataset: tf.data.Dataset) -> Iterator[dict[str, Any]]:
    try:
        yield from dataset.as_numpy_iterator()
    except tf.errors.OpError as error:
        raise FileError(
            f"The files of {source.name} in {source.builder.data_dir} are damaged "
            f"({_first_line(error)}): delete that folder and prepare the data again."
        ) from error


def _labels(source: _Source, part: str) -> np.ndarray:
    key = source.label_key
    examples = _iterate(source, _dataset(source, part, key))
    labels = np.array([example[key] for example in examples], np.int64)
    wrong = (labels < 0) | (labels >= len(source.classes))
    if wrong.any():
        raise DataError(
            f"Example {int(wrong.argmax())} of the split {part!r} of {source.name} has no class: "
            "set dataset.splits to splits with classes."
        )
    return labels


def _read_images(source: _Source, split: str, options: Options) -> tuple[DatasetInfo, Rows]:
    height, width, channels = source.input_feature.shape
    if options.side is None and (height is None or width is None):
        raise SettingError(
            f"The images of {source.name} have various sizes: set {options.source}.side to the "
            "side to resize them to."
        )
    info = image_info(source.name, source.classes, channels, (height, width), options)
    part = _part(source, split, options)
    labels = _labels(source, part)
    chosen = subset(len(labels), options.max_examples)
    examples = _iterate(source, _dataset(source, part, source.input_key))
    images = (
        (f"Image {index} of {source.name}", example[source.input_key])
        for index, example in choose(examples, chosen)
    )
    found = image_rows(images, labels[chosen], info, options)
    return info, dataclasses.replace(found, counts=_counts(labels, source))


def _read_texts(source: _Source, split: str, options: Options) -> tuple[DatasetInfo, Texts]:
    part = _part(source, split, options)
    labels = _labels(source, part)
    counts = CharacterCounts(options.max_length)

    def training_counts() -> CharacterCounts:
        if split != "train":
            for text in _texts(source, _part(source, "train", options)):
                counts.add(text)
        return counts

    lengths = []
    for text in _texts(source, part):
        lengths.append(count_tokens(text, options))
        if split == "train" and needs_counts(options):
            counts.add(text)
    info = text_info(source.name, source.classes, options, training_counts)
    chosen = subset(len(lengths), options.max_examples)

    def make() -> Iterator[str]:
        return (text for _, text in choose(_texts(source, part), chosen))

    what = f"the split {part!r} of {source.name}"
    texts = Texts(
        what,
        info,
        labels[chosen].astype(np.int32),
        np.array(lengths, np.int64)[chosen],
        make,
        counts=_counts(labels, source),
    )
    return info, texts


def _counts(labels: np.ndarray, source: _Source) -> np.ndarray:
    return np.bincount(labels, minlength=len(source.classes))


def _texts(source: _Source, part: str) -> Iterator[str]:
    dataset = _dataset(source, part, source.input_key)
    count = int(dataset.cardinality())
    progress = Progress(f"Reading the texts of {source.name}", count if count > 0 else None)
    for index, example in enumerate(_iterate(source, dataset)):
        text = example[source.input_key].decode("utf-8", "replace")
        if not text.strip():
            raise DataError(
                f"The text of example {index} of the split {part!r} of {source.name} is empty: set "
                "dataset.splits to leave it out."
            )
        yield text
        progress.update(index + 1)


def _first_line(error: BaseException) -> str:
    """Returns the first line of a message, without its middle if it is long."""
    lines = str(error).strip().splitlines()
    line = lines[0].rstrip(".") if lines else type(error).__name__
    return line if len(line) <= 240 else f"{line[:110]} ... {line[-110:]}"


def _why_not(name: str, error: Exception, own_names: tuple[str, ...]) -> str:
    """The message for a name for which tensorflow-datasets has no builder."""
    if os.path.exists(name):
        reader = "image_folder" if os.path.isdir(name) else "csv"
        return (
            f"{name} is a file or folder, not the name of a data set: give it as --data_dir of its "
            f"format, such as `t2aux data {reader} --data_dir={name}`."
        )
    if not isinstance(error, tfds.core.DatasetNotFoundError):
        return (
            f"tensorflow-datasets can't make the data set {name!r} ({_first_line(error)}): check "
            "its name and its folder."
        )
    names = sorted({*own_names, *tfds.list_builders(with_community_datasets=False)})
    hint = did_you_mean(name.split("/")[0], names, "see `t2aux data`.")
    return f"Unknown data set {name!r}: {hint}"
