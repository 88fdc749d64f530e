"""Texts into the table of ids: what all text sources share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from t2aux.data.table import Options, Table
from t2aux_ondevice.preprocessing import UNKNOWN, DatasetInfo, code_points

_TEXTS_AT_ONCE = 10_000
_CODE_POINTS = 0x110000


def text_info(
    name: str,
    classes: tuple[str, ...],
    options: Options,
    training_texts: Callable[[], Iterable[str]],
) -> DatasetInfo:
    """Describes a data set of texts.

    Args:
        name: The data set.
        classes: The names of the classes.
        options: tokens, max_length, vocabulary_size and info are read.
        training_texts: Gives the texts of the training split, for the vocabulary; not called if it
            is known or not needed.
    """
    if options.info is not None:
        vocabulary = options.info.vocabulary
    elif options.tokens == "characters":
        vocabulary = build_vocabulary(training_texts(), options.vocabulary_size, options.max_length)
    else:
        vocabulary = None
    return DatasetInfo(
        name=name,
        kind="text",
        classes=classes,
        max_length=options.max_length,
        tokens=options.tokens,
        vocabulary=vocabulary,
    )


def build_vocabulary(
    texts: Iterable[str], vocabulary_size: int, max_length: int | None = None
) -> tuple[str, ...]:
    """Returns the unknown character and the most frequent characters of the texts.

    Args:
        texts: The texts of the training split.
        vocabulary_size: The largest number of entries, the unknown character among them.
        max_length: Only this many characters of each text count, or all if None.

    Returns:
        The characters by id: U+FFFD, then by falling frequency, equal ones by code point.
    """
    counts = np.zeros(_CODE_POINTS, np.int64)
    for chunk in _chunks(texts):
        counts += np.bincount(
            code_points("".join(text[:max_length] for text in chunk)), minlength=_CODE_POINTS
        )
    counts[ord(UNKNOWN)] = 0
    # A stable sort of the negative counts leaves equal ones in the order of their code points.
    frequent = np.argsort(-counts, kind="stable")[: vocabulary_size - 1]
    return (UNKNOWN, *(chr(point) for point in frequent[counts[frequent] > 0]))


def text_table(
    texts: Sequence[str], labels: Sequence[int] | np.ndarray, info: DatasetInfo
) -> Table:
    """Turns texts, none of them empty, into a table of ids, as `info.text_ids` would each.

    The ids take the smallest unsigned type that holds the vocabulary.
    """
    dtype = np.min_scalar_type(info.vocabulary_size - 1)
    values, lengths = [np.zeros(0, dtype)], [np.zeros(0, np.int64)]
    for chunk in _chunks(texts):
        ids = [info.text_ids(text) for text in chunk]
        values.append(np.concatenate(ids).astype(dtype))
        lengths.append(np.fromiter(map(len, ids), np.int64, len(ids)))
    return Table.of_lengths(np.concatenate(values), np.concatenate(lengths), np.asarray(labels))


def _chunks(texts: Iterable[str]) -> Iterable[list[str]]:
    chunk = []
    for text in texts:
        chunk.append(text)
        if len(chunk) == _TEXTS_AT_ONCE:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
