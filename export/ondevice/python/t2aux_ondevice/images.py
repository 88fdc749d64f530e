"""Reads images, and makes the pixels of a sequence of them. Needs Pillow."""

from __future__ import annotations

import contextlib
import functools
import io
import os
import zlib
from collections.abc import Callable
from typing import IO

import numpy as np
from PIL import Image, UnidentifiedImageError

from t2aux_ondevice import kinds, limits
from t2aux_ondevice.errors import DataError, FileError, reason
from t2aux_ondevice.preprocessing import raster

# Modes that Pillow converts to 8-bit grey or RGB without losing the scale of the values. The others
# (I, I;16, F) hold wider values that `convert` would clip.
_MODES = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"})
# Read from files with any name.
_FORMATS = ("PNG", "JPEG", "MPO", "GIF", "BMP", "DIB", "WEBP", "AVIF", "TIFF", "PPM")
# Read only from files with the right suffix: some have so little of a signature that a damaged file
# of another format could be read as one.
_NAMED_FORMATS = ("BLP", "CUR", "DCX", "DDS", "FLI", "FTEX", "GBR", "ICNS", "ICO", "IM", "JPEG2000")
_NAMED_FORMATS += ("MSP", "PCX", "PIXAR", "PSD", "QOI", "SGI", "SUN", "TGA", "XBM", "XPM")
# Not the others that Pillow knows: EPS is a program, which it has Ghostscript run; IPTC can hold an
# EPS; a compressed FITS file unpacks without a bound; the rest need another library, or hold values
# that are not 8-bit. Files called .pcd are clouds of points today, not photos on a CD.
_TRANSPARENT_MODES = frozenset({"LA", "PA", "RGBA"})
# How many bytes `is_image` needs to be sure: a BMP file's header and its palette.
BEGINNING = 2048
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_ORIENTATION = 0x0112  # EXIF's tag.
_TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


# A file name, or a binary file open for reading, which can be sought in.
_Source = str | os.PathLike[str] | IO[bytes]


@functools.cache
def image_suffixes() -> dict[str, str]:
    """The suffixes of the image files that are read: Pillow's format of each, such as ".png"."""
    known = Image.registered_extensions()  # Loads Pillow's plugins, too.
    read = {kind for kind in (*_FORMATS, *_NAMED_FORMATS) if kind in Image.OPEN} | {"MPO"}
    # What a .pfm file holds is float32.
    return {suffix: kind for suffix, kind in known.items() if kind in read and suffix != ".pfm"}


def has_image_suffix(name: str) -> bool:
    """Whether a file's name ends in a suffix of `image_suffixes`, in upper or lower case."""
    return _suffix(name) in image_suffixes()


def is_image(name: str, read_beginning: Callable[[], bytes]) -> bool:
    """Whether a file is an image: by its suffix or, if that is ambiguous, by its content.

    Args:
        name: Its name.
        read_beginning: Returns its first `BEGINNING` bytes; called if they are needed.
    """
    if image_suffixes().get(_suffix(name)) in _FORMATS:
        return True
    beginning = read_beginning()
    return bool(beginning) and any(
        _begins_as(kind, beginning)
        for kind in _formats(_suffix(name))
        # Cameras' raw files, and others that Pillow misreads, are TIFF inside.
        if kind != "TIFF" or not _suffix(name)
    )


def read_image(path: _Source, name: str | None = None, suffix: str | None = None) -> Image.Image:
    """Reads an image file whole, upright (its EXIF orientation is applied).

    Of an animation the first frame is read. Damaged texts, colour profiles and EXIF blocks are
    ignored.

    Args:
        path: A file name, or a binary file open for reading, with `seek`.
        name: What to call the image in error messages; the file name if None.
        suffix: Decides the format where the content does not, such as ".tga"; by default `name`'s.

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
    formats = _formats(_suffix(name) if suffix is None else suffix.lower())
    try:
        upright = _decode(path, formats, most)
    except FileNotFoundError as error:
        raise FileError(f"Can't find the image {name}: check the path.") from error
    except UnidentifiedImageError as error:
        known = "PNG, JPEG, GIF, BMP, WebP, AVIF, TIFF or PPM"
        kind = formats[-1] if formats[-1] in _NAMED_FORMATS else known
        what = kinds.placeholder(_beginning(path))
        what = what or f"is damaged, or not {kind}: replace it, or remove it"
        raise DataError(f"{name} {what}.") from error
    except Image.DecompressionBombError as error:
        raise DataError(
            f"The image {name} has more than {most:,} pixels: make it smaller, or increase the "
            f"environment variable {limits.IMAGE_PIXELS}."
        ) from error
    except Exception as error:  # Pillow's decoders report damage by any of Python's exceptions.
        # Those have no number, errors of the file system have one.
        kind = FileError if getattr(error, "errno", None) else DataError
        raise kind(
            f"Can't read the image {name} ({reason(error)}): replace it, or remove it."
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


def _beginning(source: _Source, size: int = BEGINNING) -> bytearray:
    if isinstance(source, (str, os.PathLike)):
        with open(source, "rb") as file:
            return limits.read_most(file, size)
    source.seek(0)
    return limits.read_most(source, size)


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def _formats(suffix: str) -> list[str]:
    """The formats that a file may have whose name ends in `suffix`."""
    named = image_suffixes().get(suffix)
    tried = _FORMATS if named in _FORMATS or named is None else (*_FORMATS, named)
    return [kind for kind in tried if kind in Image.OPEN]


def _begins_as(kind: str, beginning: bytes) -> bool:
    accepts = Image.OPEN[kind][1]
    # AVIF's function may also return a reason why not. A DIB file has no signature.
    if kind == "DIB" or (accepts is not None and accepts(beginning[:16]) is not True):
        return False
    if kind == "AVIF":
        return beginning[8:12] in (b"avif", b"avis")
    # The former have no signature; a text may begin with the two letters of the latter.
    if accepts is None or kind in ("BMP", "PPM"):
        try:
            with Image.open(io.BytesIO(beginning), formats=[kind]) as image:
                return image.mode in _MODES
        except Image.DecompressionBombError:
            return True
        except Exception:  # As in `read_image`.
            return False
    return True


def _decode(source: _Source, formats: list[str], most: int) -> Image.Image:
    try:
        return _open(source, formats, most)
    except Image.DecompressionBombError:
        raise
    except Exception:  # See `read_image`.
        bare = _bare_png(source)
        if bare is not None:
            with contextlib.suppress(Exception):
                return _open(bare, ["PNG"], most)
        raise


def _open(source: _Source, formats: list[str], most: int) -> Image.Image:
    with Image.open(source, formats=formats) as image:
        if image.width * image.height > most:
            raise Image.DecompressionBombError
        transparency = _transparency(image)
        image.load()
        # Icons hold images of other sizes than their headers say.
        if image.width * image.height > most:
            raise Image.DecompressionBombError
        orientation = 1
        with contextlib.suppress(Exception):  # A damaged EXIF block says nothing.
            orientation = image.getexif().get(_ORIENTATION, 1)
        # Not ImageOps.exif_transpose, which then writes all of EXIF, and fails on odd tags.
        method = _TRANSPOSITIONS.get(orientation)
        upright = image.copy() if method is None else image.transpose(method)
    upright.info = {} if transparency is None else {"transparency": transparency}
    return upright


def _transparency(image: Image.Image) -> int | tuple[int, ...] | bytes | None:
    """The transparent value, in the values of the loaded pixels.

    Pillow scales the grey values of fewer than 8 bits, and the colours of 16, but not the one that
    a PNG file names as transparent.
    """
    transparency = image.info.get("transparency")
    if image.format == "PNG" and image.tile:
        layout = image.tile[0][3]
        largest = {"1": 1, "L;2": 3, "L;4": 15, "L": 255}.get(layout)
        if isinstance(transparency, int) and largest:
            return (transparency & largest) * 255 // largest
        if isinstance(transparency, tuple) and layout == "RGB;16B":
            return tuple(value >> 8 for value in transparency)
        if isinstance(transparency, tuple):
            return tuple(value & 255 for value in transparency)
    # A PNG file's text may be called so, too.
    return transparency if isinstance(transparency, (int, tuple, bytes)) else None


def _bare_png(source: _Source) -> io.BytesIO | None:
    """A PNG file without texts and profiles; None if it can't be read or is not PNG.

    Pillow refuses a file for a text or a colour profile that is damaged, or of megabytes.
    """
    try:
        content = _beginning(source, limits.most_image_bytes())
    except OSError:
        return None
    if not content.startswith(_PNG_SIGNATURE):
        return None
    bare = io.BytesIO(_PNG_SIGNATURE)
    bare.seek(0, io.SEEK_END)
    place = len(_PNG_SIGNATURE)
    while place < len(content):
        # A chunk: the length of its data, its kind, the data, and the CRC of kind and data.
        end = place + 12 + int.from_bytes(content[place : place + 4], "big")
        kind, chunk = bytes(content[place + 4 : place + 8]), content[place:end]
        # The kinds that every reader needs begin with a capital letter.
        needed = kind[:1].isupper() or kind == b"tRNS"
        if kind == b"eXIf":
            needed = zlib.crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:], "big")
        if needed or end > len(content):
            bare.write(chunk)
        place = end
    bare.seek(0)
    return bare


def _check_mode(image: Image.Image, name: str) -> None:
    if image.mode not in _MODES:
        raise DataError(f"The mode of {name} is {image.mode}: save it as 8-bit grey or RGB.")


def _image_of_array(array: np.ndarray) -> Image.Image:
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    is_image = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))
    if array.dtype != np.uint8 or not array.size or not is_image:
        raise DataError(
            f"The image is an array of {array.dtype} and shape {list(array.shape)}: give uint8 "
            "[height, width] or [height, width, 1, 3 or 4]."
        )
    return Image.fromarray(np.ascontiguousarray(array))
