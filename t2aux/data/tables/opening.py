"""`open_table`: detects the format of a file or a stream from its beginning, and opens it."""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Sequence
from typing import IO

from t2aux.data.table import DAMAGE, Options, damaged
from t2aux.data.tables.base import TableReader
from t2aux.data.tables.delimited import DelimitedReader
from t2aux.data.tables.dialect import sample_rows
from t2aux.data.tables.json_lines import JsonLinesReader
from t2aux.data.tables.parquet import ParquetReader
from t2aux.errors import DataError, FileError, SettingError, nearest
from t2aux_ondevice import kinds

# The suffixes of tables, without and with compression.
STEMS = (".csv", ".tsv", ".tab", ".psv", ".jsonl", ".ndjson", ".jsonlines", ".parquet")
_PACKED = (".gz", ".xz", ".bz2")
SUFFIXES = tuple(stem + packed for packed in ("", *_PACKED) for stem in STEMS)
_SAMPLE_BYTES = 1 << 16
# More is not read in search of the end of the first line.
_LONGEST_LINE = 1 << 24
_UNPACKERS = {
    b"\x1f\x8b": gzip.open,
    b"\xfd7zXZ": lzma.open,
    b"BZh": bz2.open,
}
_PARQUET = b"PAR1"
# An object whose first value is an object or a list, such as pandas' {"text":{"0":"abc", ...
_CONTAINER_FIRST = re.compile(r'\{\s*"(?:[^"\\]|\\.)*"\s*:\s*[{\[]')
# Longer ones first.
_MARKS = (
    (b"\xff\xfe\0\0", "utf-32"),
    (b"\0\0\xfe\xff", "utf-32"),
    (b"\xef\xbb\xbf", "utf-8-sig"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)
_OTHERS = (
    (b"PK\x03\x04", "is a zip archive or a workbook: save the table as CSV in UTF-8"),
    (b"\xd0\xcf\x11\xe0", "is a workbook: save the table as CSV in UTF-8"),
    (b"\x28\xb5\x2f\xfd", "is compressed with Zstandard: unpack it, or use gzip"),
    (b"ARROW1", "is an Arrow file: save the table as Parquet"),
    (b"ORC", "is an ORC file: save the table as Parquet"),
)


def is_table(path: str | os.PathLike[str]) -> bool:
    """Whether a file's name says that it is a table."""
    return os.fspath(path).lower().endswith(SUFFIXES)


def open_table(
    source: str | os.PathLike[str] | IO[bytes],
    *,
    name: str | None = None,
    encoding: str | None = None,
    separator: str | None = None,
    columns: Sequence[str | int] = (),
    usual: Sequence[str] = (),
    known: frozenset[str] = frozenset(),
    allow: Sequence[str] = (),
) -> TableReader:
    """Opens a table and detects its format from its beginning; its name does not matter.

    The table may be CSV (with commas, tabs, semicolons or vertical bars), JSON lines or Parquet,
    optionally compressed with gzip, xz or bzip2.

    Args:
        source: The path of a file; or a binary stream such as `sys.stdin.buffer`, which need not be
            seekable, and whose rows can be read only once.
        name: The name of a stream in messages.
        encoding: The encoding of texts, any of Python's codecs. None for UTF-8, or the encoding of
            a byte order mark.
        separator: The separator of the columns of a text table; None to detect it.
        columns: The columns given by the user. If these are names, the first row is a header.
        usual: The usual names of columns: a first row that has one of these is a header.
        known: The names of classes, in NFC: a first row that begins with one is not a header.
        allow: As `dataset.allow`: "first_row" means that there is no header, "separator" that
            commas separate the columns.

    Raises:
        UserError: The file can't be read, is in another format or damaged, or the encoding is
            unknown.
    """
    options = Options(allow=tuple(allow))
    encoding = codec_of(encoding)
    opened, name, start = _unpacked(source, name)
    if start.startswith(_PARQUET):
        return ParquetReader(name, _seekable(opened))
    notes = []
    mark = next((codec for signature, codec in _MARKS if start.startswith(signature)), None)
    if mark not in (None, "utf-8-sig"):
        notes.append(f"{_short(name)}: the text is {mark.upper()}.")
    encoding = mark or encoding or "utf-8-sig"
    _check_content(name, start, encoding)
    whole = len(start) < _SAMPLE_BYTES
    text = codecs.getincrementaldecoder(encoding)("replace").decode(bytes(start), whole)
    beginning = text.lstrip()
    is_array = beginning.startswith(("[{", "[\n", "[\r", "[ ")) and '"' in beginning
    line = beginning.rstrip()
    if is_array or (
        "\n" not in line
        and _CONTAINER_FIRST.match(line)
        and (not whole or line.endswith(("}}", "]}")))
    ):
        raise DataError(
            f"{name} is a JSON {'array' if is_array else 'object with all rows in it'}: save the "
            "table as JSON lines, an object a line (with pandas: DataFrame.to_json(FILE, "
            "orient='records', lines=True)), or as CSV."
        )
    if beginning.startswith("{") and beginning[1:].lstrip().startswith(('"', "}")):
        sample = text if whole else text[: text.rfind("\n") + 1] or text
        return JsonLinesReader(name, opened, encoding, sample, notes)
    return DelimitedReader(
        name,
        opened,
        encoding,
        sample_rows(text, whole=whole),
        separator=separator,
        wanted=columns,
        usual=usual,
        known=known,
        options=options,
        notes=notes,
    )


def codec_of(encoding: str | None) -> str | None:
    """Python's name of an encoding. Raises UserError if the encoding is unknown."""
    if encoding is None:
        return None
    try:
        found = codecs.lookup(encoding)
        if not found._is_text_encoding:
            raise LookupError
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        known = ["utf-8", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "ascii", "latin-1"]
        known += ["cp1250", "cp1251", "cp1252", "cp437", "iso8859-1", "iso8859-15", "koi8-r"]
        known += ["shift_jis", "gbk", "gb18030", "big5", "euc-jp", "euc-kr", "mac-roman"]
        near = nearest(str(encoding), known)
        raise SettingError(
            f"Unknown encoding {encoding!r}: give one of Python's codecs, such as "
            f"{near or 'utf-8, utf-16 or cp1252'}."
        ) from error
    return "utf-8-sig" if found.name == "utf-8" else found.name


def _short(name: str) -> str:
    return name.rpartition("/")[2]


def _unpacked(
    source: str | os.PathLike[str] | IO[bytes], name: str | None
) -> tuple[Callable[[], IO[bytes]], str, bytes]:
    """A function that opens a source, its name, and the beginning of its unpacked content."""
    is_path = isinstance(source, (str, os.PathLike))
    name = name or (os.fspath(source) if is_path else str(getattr(source, "name", "the stream")))
    try:
        if is_path:
            opener, start = open, _start(open, source)
            if unpacker := _unpacker(start):
                opener, start = unpacker, _start(unpacker, source)
            return lambda: opener(source, "rb"), name, start
        stream, start = _begun(source)
        if unpacker := _unpacker(start):
            stream, start = _begun(unpacker(stream, "rb"))
        return _once(stream, name), name, start
    except DAMAGE as error:
        raise damaged(name, error) from error


def _start(opener: Callable[..., IO[bytes]], path: str | os.PathLike[str]) -> bytes:
    with opener(path, "rb") as file:
        return _sample(file)


def _sample(file: IO[bytes]) -> bytes:
    """The beginning of a file, with its whole first line."""
    start = b""
    # A pipe may return fewer bytes than requested.
    while len(start) < _SAMPLE_BYTES or (b"\n" not in start and len(start) < _LONGEST_LINE):
        part = file.read(_SAMPLE_BYTES)
        if not part:
            break
        start += part
    return start


def _unpacker(start: bytes) -> Callable[..., IO[bytes]] | None:
    return next((opener for mark, opener in _UNPACKERS.items() if start.startswith(mark)), None)


class _Begun(io.RawIOBase):
    """A stream whose beginning has already been read."""

    def __init__(self, start: bytes, rest: IO[bytes]) -> None:
        self._start = start
        self._rest = rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:
        part = self._start[: len(buffer)] or self._rest.read(len(buffer))
        self._start = self._start[len(buffer) :]
        buffer[: len(part)] = part
        return len(part)


def _begun(stream: IO[bytes]) -> tuple[IO[bytes], bytes]:
    """Reads the beginning of a stream. Returns the whole stream, and the beginning."""
    start = _sample(stream)
    return io.BufferedReader(_Begun(start, stream)), start


def _once(stream: IO[bytes], name: str) -> Callable[[], IO[bytes]]:
    """Returns a function that opens a stream once."""
    streams = [stream]

    def opened() -> IO[bytes]:
        if not streams:
            raise FileError(f"{name} can be read only once: save it as a file first.")
        return streams.pop()

    return opened


def _seekable(opened: Callable[[], IO[bytes]]) -> Callable[[], IO[bytes]]:
    """Returns a function that opens a seekable file: the file itself, or a temporary copy."""
    with opened() as file:
        # Seeking in a compressed file is possible, but slow.
        if isinstance(file, io.BufferedReader) and file.seekable():
            return opened
        copy = tempfile.TemporaryFile()  # noqa: SIM115
        shutil.copyfileobj(file, copy)
        copy.flush()

    def again() -> IO[bytes]:
        file = os.fdopen(os.dup(copy.fileno()), "rb")
        file.seek(0)
        return file

    return again


def _check_content(name: str, start: bytes, encoding: str) -> None:
    """Raises UserError if the content is not a text table."""
    for signature, what in _OTHERS:
        if start.startswith(signature):
            raise DataError(f"{name} {what}.")
    if start and (what := kinds.placeholder(start)) is not None:
        raise DataError(f"{name} {what}.")
    if b"\0" in start and not encoding.startswith(("utf-16", "utf-32")):
        called = "UTF-8" if encoding == "utf-8-sig" else encoding
        raise DataError(
            f"{name} holds NUL bytes, so it is not {called} text: save it as UTF-8, or say what it "
            "is, such as --encoding=utf-16-le."
        )
