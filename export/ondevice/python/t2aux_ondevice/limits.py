"""How much a file may make the program hold, whatever it says of itself.

A few bytes can stand for gigabytes: a picture's size, packed zeros, the shape of an array. Who
needs more than the limits here raises them by environment variables.
"""

from __future__ import annotations

import os
from typing import IO

from t2aux_ondevice.errors import UserError

IMAGE_PIXELS = "T2AUX_MAX_IMAGE_PIXELS"
UNPACKED_MB = "T2AUX_MAX_UNPACKED_MB"
# Where Pillow begins to warn, so that nothing else is to be said of what is below.
_PIXELS = 89_478_485
_MEGABYTES = 4096
# Of what is packed in earnest; zeros in gzip become more than 1,000 times as many.
_RATIO = 20
# A pixel of an image file: four channels of 16 bits, not packed.
_PIXEL_BYTES = 8
_AT_ONCE = 1 << 20


def most_pixels() -> int:
    """Pixels of an image: T2AUX_MAX_IMAGE_PIXELS, or 89,478,485. Raises UserError: no number."""
    return _limit(IMAGE_PIXELS, _PIXELS)


def most_image_bytes() -> int:
    """Bytes of an image's file in an archive. Raises UserError as `most_pixels`."""
    return _PIXEL_BYTES * most_pixels() + _AT_ONCE


def most_unpacked(packed: int) -> int:
    """Bytes that a compressed file may unpack to.

    Args:
        packed: The bytes that it has.

    Returns:
        T2AUX_MAX_UNPACKED_MB, or 4,096 MB; or 20 times what it has, where that is more.

    Raises:
        UserError: The environment variable is no number.
    """
    return max(_limit(UNPACKED_MB, _MEGABYTES) * 1_000_000, _RATIO * packed)


def too_much(what: object, most: int) -> UserError:
    """What is told where a file unpacks to more than it may."""
    return UserError(
        f"{what} unpacks to more than {most:,} bytes, which looks like an attack: if it is none, "
        f"unpack it yourself, or set the environment variable {UNPACKED_MB} to more megabytes."
    )


def read_most(file: IO[bytes], most: int) -> bytearray:
    """Reads so many bytes, or what there is; memory is taken for what comes, not for `most`."""
    content = bytearray()
    while len(content) < most and (part := file.read(min(most - len(content), _AT_ONCE))):
        content += part
    return content


def _limit(name: str, default: int) -> int:
    text = os.environ.get(name, "").strip()
    if not text:
        return default
    if not (text.isascii() and text.isdecimal() and 0 < len(text) < 16 and int(text)):
        raise UserError(f"The environment variable {name} is {text!r}: give a whole number.")
    return int(text)
