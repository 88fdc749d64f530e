"""Converts encoded images to sequences in a SavedModel's graph, like `DatasetInfo.image_sequence`.

This uses only TensorFlow's own operations, so that any server can run them, and Pillow's integer
arithmetic: for grey values, for transparent parts on white, and for the two passes of the resize,
whose weights have 22 binary places and whose results are rounded to integers.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from t2aux.data.pixels import picture
from t2aux.export import orientation
from t2aux_ondevice import limits
from t2aux_ondevice.preprocessing import DatasetInfo, scale_pixels

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"
_HEADER_BYTES = 26
# The maximum in JPEG. The weights for wider images would need much memory.
MAX_SIDE = 65_535
# The number of pixels to process at once, so that a large image needs little additional memory.
_BLOCK = 1 << 18
_IMAGES_AT_ONCE = 4
_PLACES = 22


class ImageSequences(tf.Module):
    """Converts a batch of PNG and JPEG files, each of any size, to sequences of pixels.

    The result equals that of `t2aux_ondevice.images`: images are turned upright by their EXIF
    orientation, converted to grey or RGB with white behind transparent parts, resized to a square,
    surrounded by the border, ordered by the permutation, and divided by 255.
    """

    def __init__(self, info: DatasetInfo) -> None:
        """Makes the constants.

        Args:
            info: The description of an image data set.

        Raises:
            UserError: The environment variable with the limit of an image's size is not a number.
        """
        super().__init__(name="images")
        self._info = info
        self._max_pixels = limits.most_pixels()
        self._scaled = tf.constant(scale_pixels(np.arange(256)))
        self._permutation = None
        if info.permutation is not None:
            self._permutation = tf.constant(info.permutation, tf.int32)

    def __call__(self, content: tf.Tensor) -> tf.Tensor:
        """Decodes and prepares images.

        Args:
            content: [B] strings: PNG or JPEG files. Anything else, damaged files, 16-bit grey
                values, CMYK and images that are too large fail with InvalidArgumentError.

        Returns:
            float32 [B, T, C] in [0, 1].
        """
        side, border, channels = self._info.side, self._info.border, self._info.channels
        pixels = tf.map_fn(
            self._pixels,
            content,
            fn_output_signature=tf.TensorSpec([side, side, channels], tf.uint8),
            parallel_iterations=_IMAGES_AT_ONCE,
        )
        pixels = tf.pad(pixels, [[0, 0], [border, border], [border, border], [0, 0]])
        pixels = tf.reshape(pixels, [-1, self._info.length, channels])
        if self._permutation is not None:
            pixels = tf.gather(pixels, self._permutation, axis=1)
        # A table instead of a division: TensorFlow would multiply by 1 / 255, which may differ in
        # the last bit.
        return tf.gather(self._scaled, tf.cast(pixels, tf.int32))

    def _pixels(self, content: tf.Tensor) -> tf.Tensor:
        """Converts one file to uint8 [side, side, C]."""
        is_png = tf.equal(tf.strings.substr(content, 0, len(_PNG)), _PNG)
        is_jpeg = tf.equal(tf.strings.substr(content, 0, len(_JPEG)), _JPEG)
        known = _check(is_png | is_jpeg, "The image is not a PNG or JPEG file.")
        with tf.control_dependencies([known]):
            image, has_alpha, exif, xmp = tf.cond(
                is_png, lambda: self._of_png(content), lambda: self._of_jpeg(content)
            )
        turned = orientation.of_parts(content, exif, xmp)
        return self._square(orientation.upright(image, turned), has_alpha)

    def _of_png(self, content: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """The image, uint8 [H, W, 3 or 4], whether it has alpha, and the places of EXIF and XMP."""
        header = tf.io.decode_raw(content, tf.uint8, fixed_length=_HEADER_BYTES)
        width = orientation.number(header, 16, 4)
        height = orientation.number(header, 20, 4)
        is_grey_16 = tf.equal(header[24], 16) & tf.equal(header[25], 0)
        checks = [
            _check(
                tf.reduce_all(tf.equal(header[12:16], tf.constant(list(b"IHDR"), tf.uint8))),
                "The PNG file is damaged: it has no header.",
            ),
            *self._size_checks(width, height),
            _check(~is_grey_16, "The image has 16-bit grey values: save it as 8-bit grey or RGB."),
        ]
        with tf.control_dependencies(checks):
            exif, xmp, transparent = orientation.png_parts(content)
        # The alpha channel that TensorFlow adds is wrong for files with less than 8 bits.
        is_with_alpha = tf.equal(tf.bitwise.bitwise_and(header[25], 4), 4)
        has_alpha = is_with_alpha | (transparent[1] > 0)
        image = tf.cond(
            has_alpha, lambda: tf.io.decode_png(content, 4), lambda: tf.io.decode_png(content, 3)
        )
        return image, has_alpha, exif, xmp

    def _of_jpeg(self, content: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """Like `_of_png`."""
        height, width, channels = tf.unstack(tf.image.extract_jpeg_shape(content))
        checks = [
            *self._size_checks(tf.cast(width, tf.int64), tf.cast(height, tf.int64)),
            _check(channels < 4, "The image is a CMYK file: save it as RGB."),
        ]
        with tf.control_dependencies(checks):
            image = tf.io.decode_jpeg(
                content, channels=3, dct_method="INTEGER_ACCURATE", fancy_upscaling=True
            )
        return image, tf.constant(False), *orientation.jpeg_parts(content)

    def _size_checks(self, width: tf.Tensor, height: tf.Tensor) -> list[tf.Operation]:
        """Checks the size before decoding, since a few bytes can claim to be gigabytes."""
        return [
            _check(
                width * height <= self._max_pixels,
                f"The image has more than {self._max_pixels:,} pixels: make it smaller.",
            ),
            _check(
                tf.maximum(width, height) <= MAX_SIDE,
                f"The image is more than {MAX_SIDE:,} pixels wide or high.",
            ),
        ]

    def _square(self, image: tf.Tensor, has_alpha: tf.Tensor) -> tf.Tensor:
        """Resizes an image, uint8 [H, W, 3 or 4], to [side, side, C], beginning with the width."""
        side, channels = self._info.side, self._info.channels

        def values(part: tf.Tensor) -> tf.Tensor:
            part = tf.cast(part, tf.int32)
            colour = tf.cond(has_alpha, lambda: _on_white(part), lambda: part[..., :3])
            colour = tf.ensure_shape(colour, [None, None, 3])
            return colour if channels == 3 else _grey(colour)

        narrow = _resized_rows(image, side, values, channels)
        turned = tf.transpose(narrow, [1, 0, 2])
        return tf.transpose(_resized_rows(turned, side, tf.identity, channels), [1, 0, 2])


def _on_white(part: tf.Tensor) -> tf.Tensor:
    """The result of Pillow's `Image.alpha_composite` for RGBA, int32 [..., 4], on white."""
    colour, alpha = part[..., :3], part[..., 3:]
    scaled = (colour * alpha + 255 * (255 - alpha) + 128) * 128
    return _shifted(_shifted(scaled, 8) + scaled, 15)


def _grey(colour: tf.Tensor) -> tf.Tensor:
    """The result of Pillow's `convert("L")` for RGB: int32 [..., 3] to [..., 1]."""
    weighted = colour * tf.constant([19595, 38470, 7471])
    return _shifted(tf.reduce_sum(weighted, -1, keepdims=True) + 32768, 16)


def _resized_rows(
    image: tf.Tensor, side: int, values: Callable[[tf.Tensor], tf.Tensor], channels: int
) -> tf.Tensor:
    """One pass of Pillow's bilinear resize: every row to `side` pixels.

    Args:
        image: uint8 [H, W, D].
        side: The target width.
        values: Converts rows [..., D] to the channels [..., C] to resize.
        channels: C.

    Returns:
        uint8 [H, side, C].
    """
    height, width = tf.unstack(tf.shape(image)[:2])
    weights = _weights(width, side)
    rows = tf.maximum(_BLOCK // width, 1)

    def block(begin: tf.Tensor, parts: tf.TensorArray) -> tuple[tf.Tensor, tf.TensorArray]:
        part = tf.cast(values(image[begin : begin + rows]), tf.float64)
        # Integers far below 2 ** 53, so the sums are exact in any order.
        sums = tf.transpose(tf.tensordot(part, weights, [[1], [0]]), [0, 2, 1])
        rounded = tf.floor((sums + 2.0 ** (_PLACES - 1)) / 2.0**_PLACES)
        resized = tf.cast(tf.clip_by_value(rounded, 0.0, 255.0), tf.uint8)
        return begin + rows, parts.write(begin // rows, resized)

    parts = tf.TensorArray(
        tf.uint8,
        size=(height + rows - 1) // rows,
        infer_shape=False,
        element_shape=[None, side, channels],
    )
    _, parts = tf.while_loop(
        lambda begin, _: begin < height,
        block,
        [tf.constant(0), parts],
        parallel_iterations=1,
    )
    return tf.ensure_shape(parts.concat(), [None, side, channels])


def _weights(size: tf.Tensor, side: int) -> tf.Tensor:
    """The weights of Pillow's bilinear resize of `size` pixels to `side`, antialiased.

    Returns:
        float64 [size, side], integers in units of 2 ** -_PLACES.
    """
    scale = tf.cast(size, tf.float64) / side
    # Images that shrink are averaged.
    reach = tf.maximum(scale, 1.0)
    centres = (tf.range(side, dtype=tf.float64) + 0.5) * scale
    places = tf.cast(tf.range(size), tf.float64)[:, tf.newaxis]
    weights = tf.maximum(1.0 - tf.abs((places - centres + 0.5) * (1.0 / reach)), 0.0)
    weights /= tf.reduce_sum(weights, 0)
    return tf.floor(weights * 2.0**_PLACES + 0.5)


def _shifted(values: tf.Tensor, places: int) -> tf.Tensor:
    return tf.bitwise.right_shift(values, tf.constant(places, values.dtype))


def _check(holds: tf.Tensor, message: str) -> tf.Operation:
    return tf.debugging.Assert(holds, [message])


def encoded(info: DatasetInfo, sequence: np.ndarray) -> bytes:
    """Makes a PNG file from a sequence: its pixels, without the border, in raster order.

    Args:
        info: The description of an image data set.
        sequence: float32 [T, C], pixels / 255 in the order of the permutation.

    Returns:
        A file of `side` x `side` pixels.
    """
    inside = slice(info.border, info.border + info.side)
    image = picture(info, np.round(sequence * 255).astype(np.uint8))[inside, inside]
    return tf.io.encode_png(image).numpy()
