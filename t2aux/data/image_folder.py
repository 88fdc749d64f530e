"""`image_folder`: a user's own images, in the trees train/<class>/ and test/<class>/.

Instead of a folder, a tree may be an archive, which is read without extracting it: train.tar,
train.tar.gz, train.tgz, train.tar.xz or train.zip, and likewise for test. A single tree of <class>/
folders is divided into training and test images.
"""

from __future__ import annotations

import dataclasses
import functools
import io
import itertools
import pathlib
from collections.abc import Iterator, Sequence
from typing import ClassVar

import gin
import numpy as np
from PIL import Image

from t2aux.data import image_tree, places
from t2aux.data.archives import ARCHIVE_SUFFIXES, read_members
from t2aux.data.listing import shown
from t2aux.data.pixels import image_info, image_rows
from t2aux.data.source import ImageSource
from t2aux.data.table import Options, Rows, class_key
from t2aux.errors import DataError
from t2aux_ondevice.images import has_image_suffix, read_image
from t2aux_ondevice.preprocessing import DatasetInfo

_SUFFIXES = ("", *ARCHIVE_SUFFIXES)
_WANTED = "{0}, {0}.tar, {0}.zip or another archive"
# The possible depths of the images in a folder that is not divided into splits.
_DEPTHS = ("*/*", "*/*/*", "*/*/*/*")
_LOOKED_AT = 10_000


@gin.configurable("image_folder")
@dataclasses.dataclass(frozen=True)
class ImageFolder(ImageSource):
    """Your images: <class>/*.jpg; or train/<class>/*.jpg and test/<class>/*.jpg; or archives."""

    has_other_splits: ClassVar[bool] = True
    split_suffixes: ClassVar[tuple[str, ...]] = _SUFFIXES

    def read(self, split: str, options: Options) -> tuple[DatasetInfo, Rows]:
        """Reads the images of a split, RGB unless `options.grey`.

        The classes are the sorted names of the folders in the training tree; names that differ only
        in their Unicode normal form are one class. All files in a readable format are images; files
        with an unknown suffix or none are recognised by their content. System files and hidden
        files are ignored. The notes of the rows list what was skipped. A tree without a test set
        (train/, or the data's folder or archive itself) is divided.

        Raises:
            UserError: A tree is missing or empty, an archive or an image is damaged, sizes differ
                and no side is given, the test tree has a class that the training tree lacks, or the
                tree does not hold classes (see `image_tree.read_tree`).
        """
        find = functools.partial(
            places.find, options, suffixes=_SUFFIXES, single=_single, wanted=_WANTED
        )
        place = find(split=split)
        size = (0, 0)
        if options.info is not None:
            classes = options.info.classes
            tree = image_tree.read_tree(place.path, tuple(map(class_key, classes)))
        else:
            train_place = find(split="train")
            train = image_tree.read_tree(train_place.path)
            classes, tree = train.classes, train
            if train_place.path != place.path:
                tree = image_tree.read_tree(place.path, classes)
            for _, image in _read(train.path, train.images[:1]):
                size = (image.height, image.width)
        # The class names of a classifier may have any Unicode form.
        label_of = {class_key(name): label for label, name in enumerate(classes)}
        for image in tree.images:
            if image.class_name not in label_of:
                raise DataError(
                    f"{place.path} has the class {image.class_name!r}, which the training images "
                    "lack: remove it, or name it as they do."
                )
        info = image_info("image_folder", classes, 3, size, options)
        labels = np.array([label_of[image.class_name] for image in tree.images], np.int32)
        chosen = place.choose(labels, options, [image.file for image in tree.images])
        images = [tree.images[index] for index in chosen.indices]
        labels_of = labels[chosen.indices]

        def rows_of(first: int, end: int) -> Rows:
            some = _read(place.path, images[first:end])
            return image_rows(some, labels_of[first:end], info, options)

        return info, dataclasses.replace(
            rows_of(0, len(images)),
            make_some=lambda first, end: rows_of(first, end).make(),
            notes=(*place.notes, *chosen.notes, *tree.notes),
            counts=np.bincount(labels[chosen.part], minlength=len(classes)),
            found=tree.found,
            division=chosen.division,
        )


def _single(folder: pathlib.Path) -> pathlib.Path | None:
    """The folder itself, if it holds folders with images."""
    # Splits that are incomplete, in capitals, or one folder deeper are not classes.
    is_split = any(path.name.lower() in image_tree.SPLIT_NAMES for path in folder.iterdir())
    if is_split or any(places.splits_in(inside, _SUFFIXES) for inside in folder.iterdir()):
        return None
    for depth in _DEPTHS:
        for path in itertools.islice(folder.glob(depth), _LOOKED_AT):
            if has_image_suffix(path.name) and path.is_file():
                return folder
    return None


def _read(
    path: pathlib.Path, images: Sequence[image_tree.Image]
) -> Iterator[tuple[str, Image.Image]]:
    """Decodes the given images, which must be in the order of their tree."""
    if path.is_dir():
        for image in images:
            yield str(image.place), read_image(image.place)
        return
    contents = read_members(path, [(image.place, image.file) for image in images])
    for image, content in zip(images, contents, strict=True):
        name = f"{shown(image.file)} in {path}"
        suffix = pathlib.PurePosixPath(image.file).suffix
        yield name, read_image(io.BytesIO(content), name, suffix)
