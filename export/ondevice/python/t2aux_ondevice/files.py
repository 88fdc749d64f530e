"""Reads text and JSON files."""

from __future__ import annotations

import codecs
import json
import os
import pathlib
from typing import Any

from t2aux_ondevice.errors import DataError, FileError, UserError, reason

# Byte order marks of other encodings, longer ones first.
_OTHER = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """Reads a file. Raises UserError if it can't be read."""
    try:
        return pathlib.Path(path).read_bytes()
    except OSError as error:
        raise FileError(f"Can't read {path}: {error.strerror or error}.") from error


def read_text(path: str | os.PathLike[str], what: str = "The file") -> str:
    """Reads a text file in UTF-8, with or without a byte order mark.

    Args:
        path: The file.
        what: A description of the file, for messages.

    Raises:
        UserError: The file can't be read, or is in another encoding.
    """
    return decode(read_bytes(path), f"{what} {path}")


def decode(content: bytes, name: str) -> str:
    """Decodes a text file's content. Raises UserError like `read_text`."""
    encoding = next((name for mark, name in _OTHER.items() if content.startswith(mark)), None)
    # Texts do not contain NUL characters, but in UTF-16, each ASCII character has a NUL byte.
    if encoding is None and b"\0" in content:
        encoding = "UTF-16 or binary" if len(content) % 2 == 0 else "binary"
    if encoding is not None:
        raise DataError(f"{name} is not UTF-8 text, but {encoding}: save it as UTF-8.")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(f"{name} is not UTF-8 text (line {line}): save it as UTF-8.") from error


def read_json(path: str | os.PathLike[str], kind: type[UserError] = DataError) -> Any:
    """Reads a JSON file.

    Args:
        path: The file.
        kind: The error if it is damaged: `ModelError` for a part of a run or an export.

    Raises:
        UserError: The file can't be read, is not JSON, or is nested too deeply.
    """
    content = read_bytes(path)
    try:
        return json.loads(content.decode())
    except (RecursionError, ValueError) as error:
        raise kind(
            f"{path} is damaged: it is not valid JSON ({reason(error)}). Write it again with the "
            "command that made it."
        ) from error
