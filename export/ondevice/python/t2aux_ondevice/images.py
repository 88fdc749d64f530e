"""Reads images and converts them to the pixels of sequences. Needs Pillow."""

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

# Modes that Pillow converts to 8-bit grey or RGB without changing the scale of the values. The
# others (I, I;16, F) hold larger values, which `convert` would clip.
_MODES = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"})
# Formats that are read from files with any name.
_FORMATS = ("PNG", "JPEG", "MPO", "GIF", "BMP", "DIB", "WEBP", "AVIF", "TIFF", "PPM")
# Formats that are only read from files with the right suffix: some have such short signatures that
# a damaged file of another format could be mistaken for them.
_NAMED_FORMATS = ("BLP", "CUR", "DCX", "DDS", "FLI", "FTEX", "GBR", "ICNS", "ICO", "IM", "JPEG2000")
_NAMED_FORMATS += ("MSP", "PCX", "PIXAR", "PSD", "QOI", "SGI", "SUN", "TGA", "XBM", "XPM")
# The other formats of Pillow are not read: EPS is a program, which is run in Ghostscript; IPTC can
# contain an EPS; a compressed FITS file unpacks without a limit; the rest need another library, or
# have values that are not 8-bit. Today, .pcd files are point clouds, not photos on a CD.
_TRANSPARENT_MODES = frozenset({"LA", "PA", "RGBA"})
# The number of bytes that `is_image` needs: a BMP file's header and its palette.
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


# A file name, or a seekable binary file that is open for reading.
_Source = str | os.PathLike[str] | IO[bytes]


@functools.cache
def image_suffixes() -> dict[str, str]:
    """The suffixes of readable image files, such as ".png", with Pillow's format of each."""
    known = Image.registered_extensions()  # Also loads Pillow's plugins.
    read = {kind for kind in (*_FORMATS, *_NAMED_FORMATS) if kind in Image.OPEN} | {"MPO"}
    # A .pfm file holds float32 values.
    return {suffix: kind for suffix, kind in known.items() if kind in read and suffix != ".pfm"}


def has_image_suffix(name: str) -> bool:
    """Whether a file's name ends in a suffix of `image_suffixes`, in upper or lower case."""
    return _suffix(name) in image_suffixes()


def is_image(name: str, read_beginning: Callable[[], bytes]) -> bool:
    """Whether a file is an image: by its suffix or, if that is ambiguous, by its content.

    Args:
        name: The name of the file.
        read_beginning: Returns the first `BEGINNING` bytes; only called if they are needed.
    """
    if image_suffixes().get(_suffix(name)) in _FORMATS:
        return True
    beginning = read_beginning()
    return bool(beginning) and any(
        _begins_as(kind, beginning)
        for kind in _formats(_suffix(name))
        # Raw files of cameras, and others that Pillow misreads, are TIFF internally.
        if kind != "TIFF" or not _suffix(name)
    )


def read_image(path: _Source, name: str | None = None, suffix: str | None = None) -> Image.Image:
    """Reads a whole image file and applies its EXIF orientation.

    For an animation, the first frame is read. Damaged texts, colour profiles and EXIF blocks are
    ignored.

    Args:
        path: A file name, or a seekable binary file that is open for reading.
        name: The name of the image in error messages; the file name if None.
        suffix: Determines the format if the content does not, such as ".tga"; defaults to that of
            `name`.

    Returns:
        The decoded image, in a mode that converts to 8-bit grey or RGB.

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
    except Exception as error:  # Pillow's decoders may raise any exception for damaged files.
        # Only errors of the file system have a number.
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

    The whole image is resized to a square (bilinear, antialiased when it shrinks). Transparent
    parts become white.

    Args:
        image: A Pillow image, or a uint8 array [H, W], [H, W, 1], [H, W, 3] or [H, W, 4] (RGBA).
        side: Height and width after the resize.
        channels: 1 for grey, 3 for RGB.
        border: Number of black pixels to add on each side after the resize.

    Returns:
        uint8 [T, channels], T = (side + 2 * border) ** 2.

    Raises:
        UserError: The array has a wrong shape or type, or the image has an unsupported mode.
    """
    if isinstance(image, np.ndarray):
        image = _image_of_array(image)
    _check_mode(image, "the image")
    if image.mode in _TRANSPARENT_MODES or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image = image.convert("L" if channels == 1 else "RGB")
    # Always the rows first: if both are resized in one call, versions of Pillow differ in the
    # order, and therefore in the last bit.
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
    """The possible formats of a file whose name ends in `suffix`."""
    named = image_suffixes().get(suffix)
    tried = _FORMATS if named in _FORMATS or named is None else (*_FORMATS, named)
    return [kind for kind in tried if kind in Image.OPEN]


def _begins_as(kind: str, beginning: bytes) -> bool:
    accepts = Image.OPEN[kind][1]
    # AVIF's function may also return a reason as a string. A DIB file has no signature.
    if kind == "DIB" or (accepts is not None and accepts(beginning[:16]) is not True):
        return False
    if kind == "AVIF":
        return beginning[8:12] in (b"avif", b"avis")
    # The former have no signature, and a text may begin with the two letters of the latter.
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
        # Icons may hold images of other sizes than their headers say.
        if image.width * image.height > most:
            raise Image.DecompressionBombError
        orientation = 1
        with contextlib.suppress(Exception):  # A damaged EXIF block is ignored.
            orientation = image.getexif().get(_ORIENTATION, 1)
        # ImageOps.exif_transpose is not used: it rewrites all of EXIF, and fails on unusual tags.
        method = _TRANSPOSITIONS.get(orientation)
        upright = image.copy() if method is None else image.transpose(method)
    upright.info = {} if transparency is None else {"transparency": transparency}
    return upright


def _transparency(image: Image.Image) -> int | tuple[int, ...] | bytes | None:
    """The transparent value, in the scale of the loaded pixels.

    Pillow scales grey values of fewer than 8 bits and colours of 16 bits, but not the value that a
    PNG file declares as transparent.
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
    # A text in a PNG file may have the same name.
    return transparency if isinstance(transparency, (int, tuple, bytes)) else None


def _bare_png(source: _Source) -> io.BytesIO | None:
    """A PNG file without texts and profiles; None if it can't be read or is not PNG.

    Pillow rejects files with damaged or very large texts or colour profiles.
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
        # The names of the critical kinds begin with a capital letter.
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
