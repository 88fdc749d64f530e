"""Limits of the memory that a file may take, whatever its header says.

A few bytes can stand for gigabytes: an image's size, compressed zeros, the shape of an array.
Environment variables raise the limits.
"""

from __future__ import annotations

import os
from typing import IO

from t2aux_ondevice.errors import DataError, SettingError, UserError

IMAGE_PIXELS = "T2AUX_MAX_IMAGE_PIXELS"
UNPACKED_MB = "T2AUX_MAX_UNPACKED_MB"
# Pillow warns above this.
_PIXELS = 89_478_485
_MEGABYTES = 4096
# Real data compresses less; zeros in gzip shrink more than 1,000 times.
_RATIO = 20
# A pixel of an image file: four channels of 16 bits, not compressed.
_PIXEL_BYTES = 8
_AT_ONCE = 1 << 20


def most_pixels() -> int:
    """Pixels of an image: T2AUX_MAX_IMAGE_PIXELS, or 89,478,485. Raises UserError: not a number."""
    return _limit(IMAGE_PIXELS, _PIXELS)


def most_image_bytes() -> int:
    """Bytes of an image's file in an archive. Raises UserError as `most_pixels`."""
    return _PIXEL_BYTES * most_pixels() + _AT_ONCE


def most_unpacked(packed: int) -> int:
    """Bytes that a compressed file may unpack to.

    Args:
        packed: Its size in bytes.

    Returns:
        T2AUX_MAX_UNPACKED_MB, or 4,096 MB; or 20 times `packed`, where that is more.

    Raises:
        UserError: The environment variable is not a number.
    """
    return max(_limit(UNPACKED_MB, _MEGABYTES) * 1_000_000, _RATIO * packed)


def too_much(what: object, most: int) -> UserError:
    """The error for a file that unpacks to more than it may."""
    return DataError(
        f"{what} unpacks to more than {most:,} bytes, as an attack would: to read it, set the "
        f"environment variable {UNPACKED_MB} to more megabytes."
    )


def read_most(file: IO[bytes], most: int) -> bytearray:
    """Reads up to `most` bytes; takes memory only for what the file has."""
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
