"""`Row`: what is classified, before it is prepared; and its preparation."""

from __future__ import annotations

import dataclasses
import io
import os
from collections.abc import Callable
from typing import Any

import numpy as np

from t2aux_ondevice import kinds
from t2aux_ondevice.files import read_bytes
from t2aux_ondevice.preprocessing import DatasetInfo, with_pillow
from t2aux_ondevice.reading import Input, named, read_array


@dataclasses.dataclass(frozen=True)
class TextFile:
    """A file of one text, in UTF-8.

    Attributes:
        path: The file.
    """

    path: str


@dataclasses.dataclass(frozen=True)
class ImageFile:
    """An image.

    Attributes:
        path: The file; or, where `content` is given, what to call it.
        content: The bytes of the file, where it lies in an archive.
    """

    path: str
    content: bytes | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Row:
    """One example.

    Attributes:
        name: What the output calls it: its file, the value of an index column, or its number.
        where: What messages call it.
        content: A text; an array as `reading.read_array` takes it; or a file. None: no text, as
            in a table's empty cell.
        label: The name of its true class, or its number in the classifier; None where it has none.
        columns: The values of the columns that are kept, in the order of `Source.columns`.
    """

    name: str | int
    where: str
    content: str | np.ndarray | TextFile | ImageFile | None
    label: str | int | None = None
    columns: tuple[Any, ...] = ()


def prepare(info: DatasetInfo, row: Row, fetch: Callable[[str], bytes] | None = None) -> Input:
    """Prepares a row, as `t2aux classify` does.

    Args:
        info: What the classifier reads.
        row: The row.
        fetch: Reads a file that is not this machine's, and raises UserError; None: there are none.

    Raises:
        UserError: The classifier can't read it: the text is empty, the image is damaged, a value is
            NaN, ... The message names the row.
    """
    content = row.content
    if isinstance(content, np.ndarray):
        return read_array(info, content, row.where)
    if isinstance(content, ImageFile):
        return Input(row.where, _image(info, content, fetch), row.where)
    if isinstance(content, TextFile):
        read = read_bytes if fetch is None else fetch
        content = kinds.decode_text(info, read(content.path), content.path)
    with named(row.where):
        text = content or ""
        return Input(row.where, info.text_ids(text), row.where, info.cuts(text))


def _image(info: DatasetInfo, image: ImageFile, fetch: Callable[[str], bytes] | None) -> np.ndarray:
    images = with_pillow()
    content = image.content
    if content is None and fetch is not None:
        content = fetch(image.path)
    if content is None:
        read = images.read_image(image.path)
    else:
        suffix = os.path.splitext(image.path)[1]
        read = images.read_image(io.BytesIO(content), image.path, suffix)
    with named(image.path):
        return info.image_sequence(read)
