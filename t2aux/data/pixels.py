"""The conversion of images to a table of pixels, shared by all image sources."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from PIL import Image

from t2aux.data.table import Options, Rows
from t2aux.errors import DataError, SettingError, UserError
from t2aux_ondevice.images import image_pixels
from t2aux_ondevice.preprocessing import DatasetInfo

_ROWS_PERMUTED_AT_ONCE = 1024


def image_info(
    name: str, classes: tuple[str, ...], channels: int, size: tuple[int, int], options: Options
) -> DatasetInfo:
    """Describes a data set of images.

    Args:
        name: The data set.
        classes: The names of the classes.
        channels: 1 or 3, before `options.grey`.
        size: Height and width of the training images, used if `options.side` is None.
        options: `side`, `border`, `grey` and `permutation_seed` are used.

    Raises:
        UserError: The images are not square and no side is given.
    """
    side = options.side
    if side is None:
        if size[0] != size[1]:
            raise SettingError(
                f"The images of {name} are {size[0]} x {size[1]} pixels, not square: set "
                f"{options.source}.side to the side to resize them to."
            )
        side = size[0]
    return DatasetInfo(
        name=name,
        kind="image",
        classes=classes,
        channels=1 if options.grey else channels,
        length=(side + 2 * options.border) ** 2,
        side=side,
        border=options.border,
        permutation_seed=options.permutation_seed,
    )


def image_rows(
    images: Iterable[tuple[str, Image.Image | np.ndarray]],
    labels: np.ndarray,
    info: DatasetInfo,
    options: Options,
) -> Rows:
    """Converts, resizes and permutes images, one at a time.

    Args:
        images: len(labels) pairs: the name of an image for messages, and the image.
        labels: int [N].
        info: `side`, `border`, `channels` and `permutation` are used.
        options: `resize` is used: whether images of other sizes are resized or raise an error.

    Returns:
        The rows. Making them raises UserError if an image does not have the size `info.side`, or
        has an unsupported mode.
    """

    def make() -> Iterator[np.ndarray]:
        count = 0
        for count, (where, image) in enumerate(images, start=1):
            if count > len(labels):
                break
            yield _image_row(where, image, info, options)
        if count != len(labels):
            raise DataError(
                f"{info.name} has {count} images instead of {len(labels)}: prepare the data again."
            )

    what = f"Reading the images of {info.name}"
    return Rows(what, np.asarray(labels, np.int32), (info.length, info.channels), make)


def _image_row(
    where: str, image: Image.Image | np.ndarray, info: DatasetInfo, options: Options
) -> np.ndarray:
    if isinstance(image, np.ndarray):
        height, width = image.shape[:2]
    else:
        width, height = image.size
    if not options.resize and (height, width) != (info.side, info.side):
        raise DataError(
            f"{where} is {height} x {width} pixels, others are {info.side} x {info.side}: set "
            f"{options.source}.side to the side to resize all to."
        )
    try:
        pixels = image_pixels(image, info.side, info.channels, info.border)
    except UserError as error:
        raise error.with_message(f"{where}: {error}") from error
    return pixels if info.permutation is None else pixels[info.permutation]


def picture(info: DatasetInfo, sequence: np.ndarray) -> np.ndarray:
    """The image of a sequence, [H, W, C], including its border."""
    pixels = sequence
    if info.permutation is not None:
        pixels = np.empty_like(sequence)
        pixels[info.permutation] = sequence
    width = info.side + 2 * info.border
    return pixels.reshape(width, width, -1)


def permute(pixels: np.ndarray, info: DatasetInfo) -> np.ndarray:
    """Applies the fixed permutation of `info`, if any, to pixels [N, T, C] in place."""
    if info.permutation is not None:
        for start in range(0, len(pixels), _ROWS_PERMUTED_AT_ONCE):
            rows = pixels[start : start + _ROWS_PERMUTED_AT_ONCE]
            rows[...] = rows[:, info.permutation]
    return pixels
