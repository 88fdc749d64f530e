"""Limits for the memory that a file may need, whatever its header says.

A few bytes can require gigabytes: an image's size, compressed zeros, the shape of an array. The
limits can be raised with environment variables.
"""

from __future__ import annotations

import os
from typing import IO

from t2aux_ondevice.errors import DataError, SettingError, UserError

IMAGE_PIXELS = "T2AUX_MAX_IMAGE_PIXELS"
UNPACKED_MB = "T2AUX_MAX_UNPACKED_MB"
# Pillow warns about larger images.
_PIXELS = 89_478_485
_MEGABYTES = 4096
# Real data compresses less, whereas gzip compresses zeros by a factor of more than 1,000.
_RATIO = 20
# The size of a pixel in an image file: four channels of 16 bits, uncompressed.
_PIXEL_BYTES = 8
_AT_ONCE = 1 << 20


def most_pixels() -> int:
    """The maximum number of pixels of an image: T2AUX_MAX_IMAGE_PIXELS, or 89,478,485.

    Raises:
        UserError: The environment variable is not a number.
    """
    return _limit(IMAGE_PIXELS, _PIXELS)


def most_image_bytes() -> int:
    """The maximum size of an image file in an archive. Raises UserError like `most_pixels`."""
    return _PIXEL_BYTES * most_pixels() + _AT_ONCE


def most_unpacked(packed: int) -> int:
    """The maximum size in bytes to which a compressed file may unpack.

    Args:
        packed: The size of the compressed file in bytes.

    Returns:
        T2AUX_MAX_UNPACKED_MB, or 4,096 MB; or 20 times `packed`, if that is more.

    Raises:
        UserError: The environment variable is not a number.
    """
    return max(_limit(UNPACKED_MB, _MEGABYTES) * 1_000_000, _RATIO * packed)


def too_much(what: object, most: int) -> UserError:
    """The error for a file that unpacks to more than the limit."""
    return DataError(
        f"{what} unpacks to more than {most:,} bytes, as an attack would: to read it, set the "
        f"environment variable {UNPACKED_MB} to more megabytes."
    )


def read_most(file: IO[bytes], most: int) -> bytearray:
    """Reads up to `most` bytes, allocating memory only for the actual content."""
    content = bytearray()
    while len(content) < most and (part := file.read(min(most - len(content), _AT_ONCE))):
        content += part
    return content


def _limit(name: str, default: int) -> int:
    text = os.environ.get(name, "").strip()
    if not text:
        return default
    if not (text.isascii() and text.isdecimal() and 0 < len(text) < 16 and int(text)):
        raise SettingError(f"The environment variable {name} is {text!r}: give a whole number.")
    return int(text)
