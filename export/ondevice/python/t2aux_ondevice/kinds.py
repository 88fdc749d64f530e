"""Recognises files that a classifier can't read, by their names and first bytes."""

from __future__ import annotations

import csv
import io
import json
import os
import pathlib

from t2aux_ondevice import files
from t2aux_ondevice.errors import DataError, UserError
from t2aux_ondevice.preprocessing import DatasetInfo

_WANTED = {
    "image": "images: give image files",
    "text": "texts: give .txt files, or --text",
    "vectors": "sequences of vectors: give .npz files",
    "ids": "sequences of ids: give .npz files",
}
_ONE_BY_ONE = {
    "image": "each image as a separate file",
    "text": "each text as a separate .txt file, or as --text",
    "vectors": "the sequences in an .npz file",
    "ids": "the sequences in an .npz file",
}
_TABLE, _ARCHIVE, _ARRAYS = "a table", "an archive", "a file of arrays"
_NAMES = {
    _TABLE: "csv tsv tab psv json jsonl ndjson jsonlines parquet feather arrow orc avro tfrecord "
    "tfrecords xls xlsx xlsm xlsb ods sqlite sqlite3 db dta sav arff libsvm",
    _ARCHIVE: "zip tar tgz tbz2 txz gz bz2 xz zst lz4 7z rar z",
    _ARRAYS: "npy h5 hdf5 mat pkl pickle pt pth safetensors",
    "a document": "pdf doc docx odt rtf ppt pptx odp epub",
    "a model": "tflite",
}
_SUFFIXES = {f".{name}": what for what, names in _NAMES.items() for name in names.split()}
_BEGINNINGS = {
    b"PK\x03\x04": "an archive or an office document",
    b"\x1f\x8b": "compressed",
    b"%PDF": "a PDF document",
    b"PAR1": "a Parquet table",
    b"SQLite format 3": "an SQLite table",
    b"\x89HDF": "an HDF5 file",
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"\x93NUMPY": "an array",
}
# A text with at least this many rows with the same number of columns is a table. The number is
# larger for commas, which are common in prose.
_MIN_ROWS = {"\t": 5, ";": 8, "|": 5, ",": 10}
_MAX_CHARACTERS = 1 << 18
# Content that failed downloads leave instead of a file.
_PLACEHOLDERS = {
    b"version https://git-lfs": "is a pointer of Git LFS, not the file: run `git lfs pull`",
    b"<!doctype html": "is a web page: download the file again",
    b"<html": "is a web page: download the file again",
}


def check_name(info: DatasetInfo, path: pathlib.Path) -> None:
    """Raises UserError for a file with the suffix of a kind that this classifier can't read.

    Args:
        info: The description of the classifier's data.
        path: The file; not an `.npz` file.

    Raises:
        UserError: The file is a table, an archive, a document, or an input of another kind. The
            message says what to give instead.
    """
    what = _SUFFIXES.get(path.suffix.lower())
    if what == _TABLE:
        raise _table(info, f"{path} is")
    if what == _ARCHIVE:
        raise DataError(f"{path} is an archive or compressed: unpack it and give its files.")
    if what == _ARRAYS:
        raise DataError(f"{path} is a file of arrays: use numpy.savez(FILE.npz, inputs=...).")
    if what is not None:
        raise DataError(f"{path} is {what}, and the classifier reads {_WANTED[info.kind]}.")


def placeholder(beginning: bytes) -> str | None:
    """Says what a file is instead of an image, and what to do; returns None if unknown.

    Args:
        beginning: The first bytes of an unreadable file; empty if the file is.
    """
    if not beginning:
        return "is empty: restore the file, or remove it"
    start = beginning.lstrip().lower()
    return next((what for sign, what in _PLACEHOLDERS.items() if start.startswith(sign)), None)


def check_kind(info: DatasetInfo, kind: str, name: str) -> None:
    """Raises UserError if an input is an "image" or a "text" but the classifier reads others."""
    if kind != info.kind:
        found = {"image": "an image", "text": "a text"}[kind]
        raise DataError(f"{name} is {found}, and the classifier reads {_WANTED[info.kind]}.")


def decode_text(info: DatasetInfo, content: bytes, path: str | os.PathLike[str]) -> str:
    """Decodes the content of a file that should be one text in UTF-8.

    Args:
        info: The description of the classifier's data.
        content: The content of the file.
        path: The file, for messages.

    Returns:
        The text, without a byte order mark and without a line break at its end.

    Raises:
        UserError: The content is not a text, not in UTF-8, or a table of many texts.
    """
    for beginning, what in _BEGINNINGS.items():
        if content.startswith(beginning):
            raise DataError(f"{path} is {what}, not a text in UTF-8: convert it.")
    text = files.decode(content, str(path))
    if _is_table(text[:_MAX_CHARACTERS]):
        raise _table(info, f"{path} looks like", ", and a single text of this form as --text")
    # Editors end a file with a line break that is not part of the text.
    return text.removesuffix("\n").removesuffix("\r")


def _table(info: DatasetInfo, name: str, otherwise: str = "") -> UserError:
    return DataError(
        f"{name} a table of many inputs: give {_ONE_BY_ONE[info.kind]}{otherwise}; or classify the "
        "table with `t2aux predict --data=FILE`."
    )


def _is_table(text: str) -> bool:
    """Whether a text is JSON Lines, or has rows with the same number of columns."""
    # Code and poems may be indented.
    lines = [line.lstrip() for line in text.splitlines() if line.strip()]
    if _is_json(text) or (len(lines) >= 2 and all(_is_json(line, dict) for line in lines[:3])):
        return True
    for separator, min_rows in _MIN_ROWS.items():
        if separator not in text:
            continue
        try:
            rows = list(csv.reader(io.StringIO("\n".join(lines)), delimiter=separator))
        except csv.Error:  # A field of more than 128 kB.
            continue
        # The last row may be cut.
        columns = {len(row) for row in rows[:-1]}
        if len(rows) >= min_rows and len(columns) == 1 and columns.pop() > 1:
            return True
    return False


def _is_json(text: str, *kinds: type) -> bool:
    """Whether a text is a JSON list of several values, or JSON of one of the given types."""
    if not text.lstrip().startswith(("[", "{")):
        return False
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, kinds) or (isinstance(value, list) and len(value) > 1)
