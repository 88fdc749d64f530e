"""Reads images, and makes the pixels of a sequence of them. Needs Pillow."""

from __future__ import annotations

import os
from typing import IO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from t2aux_ondevice import limits
from t2aux_ondevice.errors import UserError
from t2aux_ondevice.preprocessing import raster

# Modes that Pillow converts to 8-bit grey or RGB without losing the scale of the values. The others
# (I, I;16, F) hold wider values that `convert` would clip.
_MODES = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"})
# Not all that Pillow knows: an EPS file, whatever its name, is a program that it would have
# Ghostscript run.
_FORMATS = ("PNG", "JPEG", "MPO", "GIF", "BMP", "DIB", "WEBP", "AVIF", "TIFF", "PPM")
_TRANSPARENT_MODES = frozenset({"LA", "PA", "RGBA"})


def read_image(path: str | os.PathLike[str] | IO[bytes], name: str | None = None) -> Image.Image:
    """Reads an image file whole, upright (its EXIF orientation is applied).

    Args:
        path: A file name, or a binary file open for reading.
        name: What to call the image in error messages; the file name if None.

    Returns:
        The decoded image, of a mode that converts to 8-bit grey or RGB.

    Raises:
        UserError: The file is missing, damaged, not an image, larger than `limits` allow, or of an
            unsupported mode (16-bit or float values).
    """
    name = str(path) if name is None else name
    most = limits.most_pixels()
    if Image.MAX_IMAGE_PIXELS is not None and most > Image.MAX_IMAGE_PIXELS:
        Image.MAX_IMAGE_PIXELS = most
    try:
        with Image.open(path, formats=_formats()) as image:
            if image.width * image.height > most:
                raise Image.DecompressionBombError
            image.load()
            upright = ImageOps.exif_transpose(image)
    except FileNotFoundError as error:
        raise UserError(f"There is no image file {name}: check the path.") from error
    except UnidentifiedImageError as error:
        raise UserError(
            f"{name} is damaged, or no PNG, JPEG, GIF, BMP, WebP, AVIF, TIFF or PPM: replace it, "
            "or take it away."
        ) from error
    except Image.DecompressionBombError as error:
        raise UserError(
            f"The image {name} has more than {most:,} pixels: make it smaller, or set the "
            f"environment variable {limits.IMAGE_PIXELS} to more."
        ) from error
    except Exception as error:  # Pillow's decoders report damage by any of Python's exceptions.
        reason = getattr(error, "strerror", None) or str(error).strip() or type(error).__name__
        raise UserError(
            f"Can't read the image {name} ({reason.splitlines()[0]}): replace it, or take it away."
        ) from error
    _check_mode(upright, name)
    return upright


def image_pixels(
    image: Image.Image | np.ndarray, side: int, channels: int, border: int = 0
) -> np.ndarray:
    """Converts and resizes one image to the pixels of a sequence, in raster order.

    The whole image is squeezed to a square (bilinear, antialiased when it shrinks). Transparent
    parts show white.

    Args:
        image: A Pillow image, or a uint8 array [H, W], [H, W, 1], [H, W, 3] or [H, W, 4] (RGBA).
        side: Height and width after the resize.
        channels: 1 for grey, 3 for RGB.
        border: Black pixels that are then put around it.

    Returns:
        uint8 [T, channels], T = (side + 2 * border) ** 2.

    Raises:
        UserError: The array has another shape or type, or the image an unsupported mode.
    """
    if isinstance(image, np.ndarray):
        image = _image_of_array(image)
    _check_mode(image, "the image")
    if image.mode in _TRANSPARENT_MODES or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image = image.convert("L" if channels == 1 else "RGB")
    # Rows first, whatever the picture's shape: with both at once, Pillow's versions differ in what
    # comes first, and so in the last bit.
    for size in ((side, image.height), (side, side)):
        image = image.resize(size, Image.Resampling.BILINEAR)
    return raster(np.asarray(image, dtype=np.uint8).reshape(side, side, channels), border)


def _formats() -> list[str]:
    Image.init()
    return [name for name in _FORMATS if name in Image.OPEN]


def _check_mode(image: Image.Image, name: str) -> None:
    if image.mode not in _MODES:
        raise UserError(
            f"The mode of {name} is {image.mode}, which is not supported: save it as 8-bit grey or "
            "RGB."
        )


def _image_of_array(array: np.ndarray) -> Image.Image:
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if (
        array.dtype != np.uint8
        or not array.size
        or not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4)))
    ):
        raise UserError(
            f"The image is an array of {array.dtype} and shape {list(array.shape)}: give uint8 "
            "[height, width], or [height, width, channels] with 1, 3 or 4 channels."
        )
    return Image.fromarray(np.ascontiguousarray(array))
