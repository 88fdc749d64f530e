"""`Row`, an example before its preparation for the classifier; and the preparation."""

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
        path: The file or, if `content` is given, its name.
        content: The bytes of the file, if it is in an archive.
    """

    path: str
    content: bytes | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Row:
    """One example.

    Attributes:
        name: The name in the output: its file, the value of an index column, or its number.
        where: The name in messages.
        content: A text; an array as accepted by `reading.read_array`; or a file. None if there is
            no text, as in a table's empty cell.
        label: The name of the true class, or its number in the classifier; None if unknown.
        columns: The values of the columns to keep, in the order of `Source.columns`.
    """

    name: str | int
    where: str
    content: str | np.ndarray | TextFile | ImageFile | None
    label: str | int | None = None
    columns: tuple[Any, ...] = ()


def prepare(info: DatasetInfo, row: Row, fetch: Callable[[str], bytes] | None = None) -> Input:
    """Prepares a row, as `t2aux classify` does.

    Args:
        info: The description of the classifier's data.
        row: The row.
        fetch: Reads a file on another file system, and may raise UserError; None if all files are
            local.

    Raises:
        UserError: The classifier can't read the row: the text is empty, the image is damaged, a
            value is NaN, ... The message names the row.
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
