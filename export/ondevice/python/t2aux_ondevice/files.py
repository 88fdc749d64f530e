"""Reads text and JSON files."""

from __future__ import annotations

import codecs
import json
import os
import pathlib
from typing import Any

from t2aux_ondevice.errors import UserError

# A file that begins with one of these, the longer ones first, says its encoding.
_OTHER = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}


def read_text(path: str | os.PathLike[str], what: str = "The file") -> str:
    """Reads a text file in UTF-8, with or without a byte order mark.

    Args:
        path: The file.
        what: What it is, for messages.

    Raises:
        UserError: It can't be read, or is in another encoding; the message names UTF-16.
    """
    try:
        content = pathlib.Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"Can't read {path}: {error.strerror or error}.") from error
    marked = next((name for mark, name in _OTHER.items() if content.startswith(mark)), None)
    # Neither a text nor a setting has a NUL character; ASCII in UTF-16 has one in each character.
    if marked is None and b"\0" in content:
        marked = "UTF-16 or binary" if len(content) % 2 == 0 else "binary"
    if marked is None:
        try:
            return content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            number = content.count(b"\n", 0, error.start) + 1
            raise UserError(
                f"{what} {path} is not UTF-8 text (line {number}): save it as UTF-8."
            ) from error
    raise UserError(f"{what} {path} is not UTF-8 text, but {marked}: save it as UTF-8.")


def read_json(path: str | os.PathLike[str]) -> Any:
    """Reads a JSON file.

    Raises:
        UserError: The file is missing, can't be read, is not JSON, or nested too deep.
    """
    path = pathlib.Path(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"Can't read {path}: {error.strerror or error}.") from error
    except RecursionError as error:
        raise UserError(
            f"{path} is damaged: its JSON is nested too deep. Make it anew with the command that "
            "wrote it."
        ) from error
    except ValueError as error:
        raise UserError(
            f"{path} is damaged: it is not valid JSON ({error}). Make it anew with the command "
            "that wrote it."
        ) from error
