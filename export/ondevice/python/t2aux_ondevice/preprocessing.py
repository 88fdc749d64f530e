"""Converts an image, a text or an array to the sequence that a classifier reads.

The same code runs in training (through `t2aux.data`), in evaluation and on a device. Needs numpy;
images that must be resized also need Pillow.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from t2aux_ondevice import limits
from t2aux_ondevice.errors import DataError, DependencyError, ModelError, UserError
from t2aux_ondevice.sequences import check_steps

if TYPE_CHECKING:
    from PIL import Image

KINDS = ("image", "text", "vectors", "ids")
# Entries that are missing in older descriptions.
_OPTIONAL = ("ids", "mean", "deviation")
TOKENS = ("characters", "bytes")
UNKNOWN = "\ufffd"  # Has the id 0 in every vocabulary of characters.


@dataclasses.dataclass(frozen=True)
class DatasetInfo:
    """The description of the data that a classifier was trained on, saved with its weights.

    Attributes:
        name: The data set, such as "digits", "mnist" or "csv".
        kind: "image", "text", "vectors", or "ids" of any other origin.
        classes: The names of the classes, by label.
        channels: C of real-valued input [T, C]: 1 or 3 for images; None for text and ids.
        length: The number of steps T of every sequence, or None if lengths vary.
        max_length: The maximum length of a text in tokens (longer ones are cut), or None.
        side: Height and width of the images after the resize; None if the input is not an image.
        border: Black pixels around the resized images.
        permutation_seed: Seed of the fixed pixel permutation, or None for raster order.
        tokens: The kind of tokens of a text, "characters" or "bytes"; None for other kinds.
        vocabulary: The characters by id, with U+FFFD, the unknown character, at id 0; None for
            bytes, whose ids are their values, and for other kinds.
        ids: The number of ids, for the kind "ids"; None for others.
        mean: For vectors, the C numbers that the network subtracts from the values of each channel,
            or None. Sequences are stored and passed without normalisation: the network itself, and
            every export of it, computes (value - mean) / deviation.
        deviation: For vectors, the C positive numbers that it then divides by; None if `mean` is.
    """

    name: str
    kind: str
    classes: tuple[str, ...]
    channels: int | None = None
    length: int | None = None
    max_length: int | None = None
    side: int | None = None
    border: int = 0
    permutation_seed: int | None = None
    tokens: str | None = None
    vocabulary: tuple[str, ...] | None = None
    ids: int | None = None
    mean: tuple[float, ...] | None = None
    deviation: tuple[float, ...] | None = None

    @property
    def num_classes(self) -> int:
        """The number of classes."""
        return len(self.classes)

    @property
    def is_text(self) -> bool:
        """Whether the input is text."""
        return self.kind == "text"

    @property
    def reads_ids(self) -> bool:
        """Whether the sequences are ids [T], of text or others, rather than real values [T, C]."""
        return self.kind in ("text", "ids")

    @property
    def vocabulary_size(self) -> int | None:
        """The number of ids, or None if the sequences are real values."""
        if not self.is_text:
            return self.ids
        return 256 if self.vocabulary is None else len(self.vocabulary)

    @functools.cached_property
    def permutation(self) -> np.ndarray | None:
        """int64 [T]: step t of a sequence is pixel permutation[t]; None for raster order."""
        if self.permutation_seed is None:
            return None
        generator = np.random.Generator(np.random.PCG64(self.permutation_seed))
        return generator.permutation(self.length)

    @functools.cached_property
    def _id_of_code_point(self) -> np.ndarray:
        table = np.zeros(0x110000, np.int32)
        for index, character in enumerate(self.vocabulary or ()):
            table[ord(character)] = index
        return table

    def image_sequence(self, image: Image.Image | np.ndarray) -> np.ndarray:
        """Converts an image of any size to the sequence that the classifier reads.

        Args:
            image: A Pillow image, or a uint8 array [H, W] or [H, W, C].

        Returns:
            float32 [T, C] in [0, 1], T = (side + 2 * border) ** 2: one pixel per step, in raster
            order or in that of the fixed permutation.

        Raises:
            UserError: The classifier does not read images; the image has a wrong shape, type or
                mode; or it must be resized, but Pillow is missing.
        """
        if self.kind != "image" or self.side is None or self.channels is None:
            raise DataError(f"The classifier reads {self.kind}, not images: give it {self.kind}.")
        square = (self.side, self.side, self.channels)
        sized = square[:2] if self.channels == 1 and np.ndim(image) == 2 else square
        if isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.shape == sized:
            pixels = raster(image.reshape(square), self.border)
        else:
            images = with_pillow()
            pixels = images.image_pixels(image, self.side, self.channels, self.border)
        if self.permutation is not None:
            pixels = pixels[self.permutation]
        return scale_pixels(pixels)

    def text_ids(self, text: str) -> np.ndarray:
        """Converts a text to token ids, cut at `max_length`.

        Args:
            text: The text. Characters outside the vocabulary become id 0.

        Returns:
            int32 [T], T >= 1.

        Raises:
            UserError: The text is empty or only white space, or the classifier does not read text.
        """
        if not self.is_text:
            raise DataError(f"The classifier reads {self.kind}, not text: give it {self.kind}.")
        if not text.strip():
            raise DataError("The text is empty: give at least one visible character.")
        # n tokens never need more than n characters.
        text = text[: self.max_length]
        if self.tokens == "bytes":
            try:
                encoded = text.encode("utf-8", "surrogateescape")
            except UnicodeEncodeError as error:
                raise DataError(f"The text is not valid Unicode ({error}): correct it.") from error
            ids = np.frombuffer(encoded, np.uint8).astype(np.int32)
        else:
            ids = self._id_of_code_point[code_points(text)]
        return ids[: self.max_length]

    def cuts(self, text: str) -> bool:
        """Whether a text has more tokens than `max_length`, so that `text_ids` cuts it."""
        if self.max_length is None:
            return False
        # A character is one token or, in bytes, up to four.
        return len(text) > self.max_length or (
            self.tokens == "bytes"
            and len(text.encode("utf-8", "surrogateescape")) > self.max_length
        )

    def text(self, ids: np.ndarray) -> str:
        """The text of token ids [T] on one line: U+FFFD for control characters, ⏎ for new lines."""
        if self.vocabulary is None:
            text = bytes(ids.astype(np.uint8)).decode("utf-8", "replace")
        else:
            text = "".join(self.vocabulary[token] for token in ids)
        return "".join(c if c.isprintable() else UNKNOWN for c in text.replace("\n", "\u23ce"))

    def vector_sequence(self, array: np.ndarray) -> np.ndarray:
        """Checks one sequence of real vectors.

        Args:
            array: [T, C], or [T] if C is 1, of any real or integer type, not normalised, since the
                network does that (see `mean`). Any T >= 1 is accepted.

        Returns:
            float32 [T, C].

        Raises:
            UserError: The shape or type is wrong, or a value is NaN or infinite.
        """
        if self.kind != "vectors":
            raise DataError(f"The classifier reads {self.kind}, not vectors: give it {self.kind}.")
        array = np.asarray(array)
        if array.ndim == 1 and self.channels == 1:
            array = array[:, np.newaxis]
        return check_steps(self, array)

    def without_normalization(self) -> DatasetInfo:
        """The description for clients, without the normalisation, which the network computes."""
        return dataclasses.replace(self, mean=None, deviation=None)

    def to_json(self) -> dict[str, Any]:
        """Returns the description as a dictionary that `json` can write."""
        return {
            field.name: list(value) if isinstance(value, tuple) else value
            for field in dataclasses.fields(self)
            for value in [getattr(self, field.name)]
            # Left out if they are None, as in older descriptions.
            if field.name not in _OPTIONAL or value is not None
        }

    @classmethod
    def from_json(cls, value: Any) -> DatasetInfo:
        """Reads a description written by `to_json`.

        Raises:
            UserError: An entry is missing, unknown, of the wrong type, or contradicts another.
        """
        names = [field.name for field in dataclasses.fields(cls)]
        if isinstance(value, dict):
            value = {**dict.fromkeys(_OPTIONAL), **value}
        if not isinstance(value, dict) or sorted(value) != sorted(names):
            found = sorted(value) if isinstance(value, dict) else type(value).__name__
            raise _damaged(f"it has {found} where {sorted(names)} belong")
        entries = dict(value)
        for name in ("classes", "vocabulary", "mean", "deviation"):
            if isinstance(entries[name], list):
                entries[name] = tuple(entries[name])
        info = cls(**entries)
        info._check()
        return info

    def _check(self) -> None:
        """Raises UserError if an entry has the wrong type or contradicts another."""
        for name in ("channels", "length", "max_length", "side", "permutation_seed", "ids"):
            entry = getattr(self, name)
            minimum = 0 if name == "permutation_seed" else 1
            if entry is not None and (type(entry) is not int or entry < minimum):
                raise _damaged(f"its {name} is {entry!r}")
        if type(self.border) is not int or self.border < 0:
            raise _damaged(f"its border is {self.border!r}")
        if not isinstance(self.name, str) or self.kind not in KINDS:
            raise _damaged(f"its name is {self.name!r} and its kind {self.kind!r}")
        if not _are_strings(self.classes) or not self.classes:
            raise _damaged("its classes are not a list of names")
        if self.is_text:
            if self.tokens not in TOKENS or (self.tokens == "characters") != bool(self.vocabulary):
                raise _damaged(f"its tokens are {self.tokens!r}, which its vocabulary contradicts")
            if self.vocabulary is not None and not (
                _are_strings(self.vocabulary)
                and all(len(character) == 1 for character in self.vocabulary)
                and len(set(self.vocabulary)) == len(self.vocabulary)
                and self.vocabulary[0] == UNKNOWN
            ):
                raise _damaged("its vocabulary is not a list of single, different characters")
        elif self.channels is None and not self.reads_ids:
            raise _damaged("its channels are missing")
        if (self.ids is None) == (self.kind == "ids"):
            raise _damaged(f"its kind is {self.kind!r} and its number of ids {self.ids!r}")
        if self.kind == "image" and (
            self.side is None
            or self.length != (self.side + 2 * self.border) ** 2
            or self.channels not in (1, 3)
        ):
            raise _damaged("its side, border, length and channels do not agree")
        if self.kind == "image" and self.length > limits.most_pixels():
            raise _damaged(f"its images have {self.length:,} pixels, which is too many")
        if self.permutation_seed is not None and self.kind != "image":
            raise _damaged("it has a permutation of pixels, but no images")
        self._check_normalisation()

    def _check_normalisation(self) -> None:
        if self.mean is None and self.deviation is None:
            return
        for name, values in (("mean", self.mean), ("deviation", self.deviation)):
            if not (
                self.kind == "vectors"
                and isinstance(values, tuple)
                and len(values) == self.channels
                and all(type(value) in (int, float) and math.isfinite(value) for value in values)
                and (name == "mean" or min(values) > 0)
            ):
                raise _damaged(f"its {name} is not a list of {self.channels} numbers that fit it")


def code_points(text: str) -> np.ndarray:
    """Returns the Unicode code points of `text`, uint32 [number of characters]."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")


def raster(pixels: np.ndarray, border: int) -> np.ndarray:
    """The pixels of a sequence [T, C] of an image [H, W, C], with a black border around it."""
    if border:
        pixels = np.pad(pixels, ((border, border), (border, border), (0, 0)))
    return pixels.reshape(-1, pixels.shape[2])


def with_pillow() -> Any:
    """The module `t2aux_ondevice.images`. Raises UserError if Pillow is not installed."""
    try:
        from t2aux_ondevice import images
    except ImportError as error:
        raise DependencyError(f"Images need Pillow ({error}): run `pip install pillow`.") from error
    return images


def scale_pixels(pixels: np.ndarray) -> np.ndarray:
    """Scales uint8 pixels of any shape to float32 in [0, 1]."""
    return np.divide(pixels, np.float32(255), dtype=np.float32)


def _are_strings(values: Any) -> bool:
    return isinstance(values, tuple) and all(isinstance(value, str) for value in values)


def _damaged(what: str) -> UserError:
    return ModelError(f"dataset.json is damaged: {what}. Restore it, or train again.")
