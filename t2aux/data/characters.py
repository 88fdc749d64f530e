"""The conversion of texts to ids, shared by all text sources."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np

from t2aux.data.table import Found, Options, Table
from t2aux.errors import DataError
from t2aux.progress import Progress
from t2aux_ondevice.preprocessing import UNKNOWN, DatasetInfo, code_points

_COUNTED_AT_ONCE = 1 << 18
_CODE_POINTS = 0x110000


class CharacterCounts:
    """Counts the characters in the training texts, which are added one at a time."""

    def __init__(self, max_length: int | None = None) -> None:
        """Starts with no text.

        Args:
            max_length: Count only this many characters of each text; None for all.
        """
        self._max_length = max_length
        self._counts = np.zeros(_CODE_POINTS, np.int64)
        self._waiting: list[str] = []
        self._characters = 0

    def add(self, text: str) -> None:
        """Counts a text."""
        text = text[: self._max_length]
        self._waiting.append(text)
        self._characters += len(text)
        if self._characters >= _COUNTED_AT_ONCE:
            self._count()

    def vocabulary(self, size: int) -> tuple[str, ...]:
        """Returns the unknown character and the most frequent characters.

        Args:
            size: The maximum number of entries, including the unknown character.

        Returns:
            The characters by id: U+FFFD, then by decreasing frequency, with ties by code point.
        """
        self._count()
        self._counts[ord(UNKNOWN)] = 0
        # A stable sort of the negative counts keeps ties in the order of their code points.
        frequent = np.argsort(-self._counts, kind="stable")[: size - 1]
        return (UNKNOWN, *(chr(point) for point in frequent[self._counts[frequent] > 0]))

    def _count(self) -> None:
        found = np.bincount(code_points("".join(self._waiting)))
        self._counts[: len(found)] += found
        self._waiting.clear()
        self._characters = 0


@dataclasses.dataclass(frozen=True, eq=False)
class Texts(Found):
    """Texts that are reread one at a time for their ids, so that they need not fit in memory.

    Attributes:
        what: The origin of the texts, for the log and for errors.
        info: The data set, including its vocabulary.
        labels: int32 [N].
        lengths: int64 [N], the number of tokens of each text, see `count_tokens`.
        make: Returns an iterator over the N texts, none of which is empty.
    """

    what: str
    info: DatasetInfo
    labels: np.ndarray
    lengths: np.ndarray
    make: Callable[[], Iterator[str]]

    @property
    def dtype(self) -> np.dtype:
        """The smallest unsigned type that can hold the vocabulary's ids."""
        return np.min_scalar_type(self.info.vocabulary_size - 1)

    @property
    def nbytes(self) -> int:
        """The size of all ids in bytes."""
        return int(self.lengths.sum()) * self.dtype.itemsize

    def sequences(self) -> Iterator[np.ndarray]:
        """Yields the ids of each text, see `DatasetInfo.text_ids`.

        Raises:
            UserError: The texts have changed since they were counted.
        """
        texts = self.make()
        for index, length in enumerate(self.lengths.tolist()):
            text = next(texts, None)
            ids = np.zeros(0) if text is None else self.info.text_ids(text)
            if len(ids) != length:
                raise DataError(
                    f"Text {index} of {self.what} (counted from 0) has changed since it was first "
                    "read: start again, and do not change the file until the program is done."
                )
            yield ids.astype(self.dtype)

    def table(self) -> Table:
        """Reads all ids into memory."""
        table = Table.of_lengths(
            np.empty(int(self.lengths.sum()), self.dtype), self.lengths, self.labels
        )
        progress = Progress(f"Reading the texts of {self.what}", len(self.labels))
        for index, ids in enumerate(self.sequences()):
            table.values[table.offsets[index] : table.offsets[index + 1]] = ids
            progress.update(index + 1)
        return table


def text_info(
    name: str,
    classes: tuple[str, ...],
    options: Options,
    counts: Callable[[], CharacterCounts],
) -> DatasetInfo:
    """Describes a data set of texts.

    Args:
        name: The data set.
        classes: The names of the classes.
        options: `tokens`, `max_length`, `vocabulary_size` and `info` are used.
        counts: Returns the counts of the training split; only called if `needs_counts`.
    """
    if needs_counts(options):
        vocabulary = counts().vocabulary(options.vocabulary_size)
    else:
        vocabulary = None if options.info is None else options.info.vocabulary
    return DatasetInfo(
        name=name,
        kind="text",
        classes=classes,
        max_length=options.max_length,
        tokens=options.tokens,
        vocabulary=vocabulary,
    )


def needs_counts(options: Options) -> bool:
    """Whether a vocabulary must be made."""
    return options.info is None and options.tokens == "characters"


def count_tokens(text: str, options: Options) -> int:
    """The number of ids of a text, which does not depend on the vocabulary."""
    text = text[: options.max_length]
    if options.tokens == "characters":
        return len(text)
    length = len(text.encode("utf-8"))
    return length if options.max_length is None else min(length, options.max_length)
