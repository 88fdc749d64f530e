"""The orientation of images in TensorFlow's graph, like Pillow's `ImageOps.exif_transpose`.

A file's EXIF says how to turn the picture of a camera's sensor. Without that entry, the XMP of an
image editor is used.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable

import tensorflow as tf

_TAG = 0x0112
_ENTRY_BYTES = 12
_SHORT, _LONG = 3, 4
_XMP = r'(?s)\C*?tiff:Orientation(?:="|>)([0-9])\C*'
_UPRIGHT = 1
# Limits, for files that are designed to take long.
_MAX_PARTS = 10_000
_MAX_XMP_BYTES = 1 << 16
# The identifiers in a JPEG file's APP1 segments and a PNG file's iTXt chunk.
_EXIF_NAME = b"Exif\0\0"
_XMP_NAMES = {"jpeg": b"http://ns.adobe.com/xap/1.0/\0", "png": b"XML:com.adobe.xmp\0"}


def upright(image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Turns an image.

    Args:
        image: [H, W, C].
        orientation: EXIF's orientation, int32: 1 is upright, 2 to 8 are rotated or mirrored; other
            values count as 1.

    Returns:
        [H, W, C] or [W, H, C].
    """

    def turned(transposed: bool, axes: list[int]) -> tf.Tensor:
        result = tf.transpose(image, [1, 0, 2]) if transposed else image
        return tf.reverse(result, axes) if axes else tf.identity(result)

    ways = itertools.product((False, True), ([], [1], [0, 1], [0]))
    turns = [functools.partial(turned, *way) for way in ways]
    return tf.switch_case(orientation - 1, dict(enumerate(turns)), default=turns[0])


def jpeg_parts(content: tf.Tensor) -> list[tf.Tensor]:
    """The ranges of a JPEG file's EXIF and XMP, int64 [2] each: begin and end; zeros if absent."""
    data = tf.io.decode_raw(content, tf.uint8)

    def part(position: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        marker = number(data, position + 1, 1)
        length = number(data, position + 2, 2)
        begin, end = position + 4, position + 2 + length
        is_app1 = tf.equal(marker, 0xE1) & tf.equal(number(data, position, 1), 0xFF)
        is_exif = is_app1 & _starts(data, begin, _EXIF_NAME)
        is_xmp = is_app1 & _starts(data, begin, _XMP_NAMES["jpeg"])
        # DA begins the picture, and D9 is the end. Some markers have no content. There may be bytes
        # between a segment and the next marker.
        is_last = tf.equal(marker, 0xDA) | tf.equal(marker, 0xD9) | (length < 2)
        is_bare = tf.equal(marker, 0x00) | tf.equal(marker, 0x01)
        is_bare |= (marker >= 0xD0) & (marker <= 0xD8)
        is_between = ~tf.equal(number(data, position, 1), 0xFF) | tf.equal(marker, 0xFF)
        after = tf.where(is_bare, position + 2, tf.where(is_last, tf.size(data, tf.int64), end))
        after = tf.where(is_between, position + 1, after)
        return after, tf.stack([is_exif, is_xmp]), tf.stack([[begin + 6, end], [begin, end]])

    return _parts(data, 2, part, 2)


def png_parts(content: tf.Tensor) -> list[tf.Tensor]:
    """The ranges of a PNG file's EXIF, XMP and tRNS (transparent colours), see `jpeg_parts`."""
    data = tf.io.decode_raw(content, tf.uint8)

    def part(position: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        begin = position + 8
        end = begin + number(data, position, 4)
        is_xmp = _starts(data, position + 4, b"iTXt" + _XMP_NAMES["png"])
        here = [_starts(data, position + 4, b"eXIf"), is_xmp, _starts(data, position + 4, b"tRNS")]
        return end + 4, tf.stack(here), tf.tile([[begin, end]], [3, 1])

    return _parts(data, 8, part, 3)


def of_parts(content: tf.Tensor, exif: tf.Tensor, xmp: tf.Tensor) -> tf.Tensor:
    """A file's orientation.

    Args:
        content: The content of the file.
        exif: The range of its EXIF, int64 [2].
        xmp: The range of its XMP, int64 [2].

    Returns:
        int32, 1 to 8; 1 if neither contains the orientation.
    """
    tiff = tf.io.decode_raw(tf.strings.substr(content, exif[0], exif[1] - exif[0]), tf.uint8)
    from_exif = tf.cond(exif[1] > 0, lambda: _of_exif(tiff), lambda: 0)
    has_only_xmp = tf.equal(from_exif, 0) & (xmp[1] > 0)
    packet = tf.strings.substr(content, xmp[0], tf.minimum(xmp[1] - xmp[0], _MAX_XMP_BYTES))
    of_xmp = tf.cond(has_only_xmp, lambda: _of_xmp(packet), lambda: _UPRIGHT)
    return tf.where(from_exif > 0, from_exif, of_xmp)


def number(data: tf.Tensor, position: tf.Tensor | int, size: int) -> tf.Tensor:
    """A big-endian number, int64, of `size` bytes of uint8 data; bytes after the end are 0."""
    return _number(_bytes(data, position, size), big=True)


def _parts(data: tf.Tensor, begin: int, part: Callable, count: int) -> list[tf.Tensor]:
    """Iterates over a file's parts.

    Args:
        data: The file's bytes, uint8 [N].
        begin: The position of the first part.
        part: Reads the part at a position. Returns the next position (after the end if there is
            none), which of the wanted parts it is, bool [count], and their ranges, int64
            [count, 2].
        count: The number of wanted parts.

    Returns:
        For each wanted part, int64 [2]: begin and end of its first occurrence; zeros if absent.
    """
    size = tf.size(data, tf.int64)

    def step(position: tf.Tensor, found: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        after, here, ranges = part(position)
        is_new = here[:, tf.newaxis] & tf.equal(found[:, 1:], 0)
        return after, tf.where(is_new, ranges, found)

    _, found = tf.while_loop(
        lambda position, _: position < size,
        step,
        [tf.constant(begin, tf.int64), tf.zeros([count, 2], tf.int64)],
        parallel_iterations=1,
        maximum_iterations=_MAX_PARTS,
    )
    return tf.unstack(found)


def _of_exif(tiff: tf.Tensor) -> tf.Tensor:
    """The entry in the first directory of a TIFF header, int32; 0 if it is absent."""
    big = _starts(tiff, 0, b"MM")
    offset = _number(_bytes(tiff, 4, 4), big)
    count = _number(_bytes(tiff, offset, 2), big)
    directory = tiff[tf.minimum(offset + 2, tf.size(tiff, tf.int64)) :]
    count = tf.minimum(count, tf.size(directory, tf.int64) // _ENTRY_BYTES)
    entries = tf.reshape(directory[: count * _ENTRY_BYTES], [-1, _ENTRY_BYTES])
    matches = tf.boolean_mask(entries, tf.equal(_number(entries[:, :2], big), _TAG))
    # If there are several, Pillow uses the last.
    entry = tf.concat([tf.zeros([1, _ENTRY_BYTES], tf.uint8), matches], 0)[-1]
    kind = _number(entry[2:4], big)
    value = tf.where(
        tf.equal(kind, _SHORT),
        _number(entry[8:10], big),
        tf.where(tf.equal(kind, _LONG), _number(entry[8:12], big), _UPRIGHT),
    )
    is_42 = _starts(tiff, 2, b"*\0") | _starts(tiff, 2, b"\0*")
    is_tiff = (big | _starts(tiff, 0, b"II")) & is_42
    present = is_tiff & (tf.shape(matches)[0] > 0)
    value = tf.where((value < 1) | (value > 8), tf.constant(_UPRIGHT, tf.int64), value)
    return tf.where(present, tf.cast(value, tf.int32), 0)


def _of_xmp(packet: tf.Tensor) -> tf.Tensor:
    found = tf.strings.regex_replace(packet, _XMP, r"\1", replace_global=False)
    is_digit = tf.strings.regex_full_match(found, "[0-9]")
    return tf.strings.to_number(tf.where(is_digit, found, "1"), tf.int32)


def _starts(data: tf.Tensor, position: tf.Tensor | int, name: bytes) -> tf.Tensor:
    wanted = tf.constant(list(name), tf.uint8)
    return tf.reduce_all(tf.equal(_bytes(data, position, len(name)), wanted))


def _bytes(data: tf.Tensor, position: tf.Tensor | int, size: int) -> tf.Tensor:
    """The bytes at a position, uint8 [size]; 0 after the end."""
    begin = tf.minimum(tf.cast(position, tf.int64), tf.size(data, tf.int64))
    part = data[begin : begin + size]
    return tf.ensure_shape(tf.pad(part, [[0, size - tf.shape(part)[0]]]), [size])


def _number(values: tf.Tensor, big: tf.Tensor | bool) -> tf.Tensor:
    """Converts bytes [..., n] to int64 [...]; `big` means big-endian."""
    size = values.shape[-1]
    powers = [256**i for i in range(size)]
    powers = tf.where(big, tf.constant(powers[::-1], tf.int64), tf.constant(powers, tf.int64))
    return tf.reduce_sum(tf.cast(values, tf.int64) * powers, -1)
