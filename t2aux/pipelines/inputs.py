"""Divides the data to classify into parts that workers read independently.

A part is a file, a shard, or some of the files of a folder. Its rows have the same order as on one
machine, so the number of a part and the position of a row in it determine the row's position in the
data.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import pathlib
import pickle
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa

from t2aux.data.listing import File, Listing
from t2aux.data.manifest import DESCRIPTION
from t2aux.errors import DataError, FileError, SettingError, UserError
from t2aux.pipelines import storage
from t2aux.prediction import of_arrays, of_files
from t2aux.prediction import source as sources
from t2aux.prediction.rows import ImageFile, Row, TextFile
from t2aux.prediction.source import Reading, Source
from t2aux_ondevice.images import has_image_suffix
from t2aux_ondevice.preprocessing import DatasetInfo

# Limits of the rows that are classified together. With many small blocks, many workers are busy
# until the end; each block is a temporary file.
_BLOCK_ROWS, _BLOCK_BYTES, _BLOCK_FILES = 4096, 1 << 22, 256
# The number of files of a folder in a part.
_PART_FILES = 16 * _BLOCK_FILES
_PATTERN = frozenset("*?[")
# The columns that all parts must share, see `columns_of`.
Columns = tuple[bool, pa.Schema | None, pa.DataType]


@dataclasses.dataclass(frozen=True)
class Part:
    """Rows that one worker reads.

    Attributes:
        number: The position among the parts, from 0.
        path: The file; for shards, the folder.
        named: Whether numbered rows get the file's name, too, because there are many files.
        listed: Whether the file is a list of rows written by `divide`.
        shard: For shards, the split and the number of the shard; otherwise None.
    """

    number: int
    path: str
    named: bool = False
    listed: bool = False
    shard: tuple[str, int] | None = None


@dataclasses.dataclass(frozen=True)
class Block:
    """Rows that are classified together.

    Attributes:
        part: The number of the part that the rows belong to.
        number: The position of the block in the part, from 0.
        is_last: Whether it is the last block of its part.
        rows: The rows; empty only in the last block of a part without rows.
    """

    part: int
    number: int
    is_last: bool
    rows: Sequence[Row]


@dataclasses.dataclass(frozen=True)
class Division:
    """Data that is divided into parts.

    Attributes:
        what: The name of the data in messages.
        parts: The parts, in the order of the data.
        source: The data or, if there are many files, the first file. Its beginning was read.
    """

    what: str
    parts: tuple[Part, ...]
    source: Source

    def expected(self, done: int) -> int | None:
        """The total number of rows, as far as it is known."""
        return None if len(self.parts) > 1 and self.source.total is None else self.source.total


def divide(data: str, info: DatasetInfo, reading: Reading, folder: str) -> Division:
    """Divides data into parts, and reads the beginning of the first one.

    Args:
        data: As for `t2aux.predict`, but on any of Beam's file systems and as a path on the
            workers; or a pattern with `*` that matches several files.
        info: The description of the classifier's data.
        reading: How the data is read.
        folder: The folder for temporary files.

    Raises:
        UserError: As for `source.open_source`, or if workers can't read the data.
    """
    if pathlib.PurePath(data).name == sources.STANDARD:
        raise SettingError(
            "Standard input can't be read by other machines: save it as a file first, or leave out "
            "--runner."
        )
    if not storage.is_url(data) and pathlib.Path(data).exists():
        if pathlib.Path(data).is_dir():
            # Checks that the content of the folder fits the classifier.
            opened = sources.open_source(data, info, reading)
            if sources.is_shards(pathlib.Path(data)):
                return _shards(data, info, reading)
            return _of_rows(opened, folder)
        return _files([data], data, info, reading)
    found = storage.matching(data)
    if data in found:
        return _files([data], data, info, reading)
    if found and _PATTERN.intersection(data):
        if info.kind == "image" and all(map(has_image_suffix, found)):
            root = data[: min(data.find(c) for c in _PATTERN if c in data)].rpartition("/")[0]
            return _listed(root, found, info, folder)
        return _files(found, data, info, reading)
    found = storage.files_in(data)
    if not found:
        raise FileError(f"Can't find a file or folder that matches {data}: check --data.")
    if storage.join(data, DESCRIPTION) in found:
        return _shards(data, info, reading)
    return _listed(data, found, info, folder)


def _listed(root: str, found: Sequence[str], info: DatasetInfo, folder: str) -> Division:
    """The files of a folder on another file system."""
    listing = Listing()
    for path in found:
        name = path[len(root.rstrip("/")) + 1 :]
        if not listing.ignores(name, is_folder=False):
            listing.files.append(File(name, path, has_image_suffix(name)))
    return _of_rows(of_files.listed(root, listing, info), folder)


def _of_rows(opened: Source, folder: str) -> Division:
    parts = []
    rows = opened.rows()
    while some := list(itertools.islice(rows, _PART_FILES)):
        path = storage.join(folder, f"listing-{len(parts):08}")
        storage.write(path, pickle.dumps(some))
        parts.append(Part(len(parts), path, listed=True))
    return Division(opened.what, tuple(parts), opened)


def _files(found: Sequence[str], what: str, info: DatasetInfo, reading: Reading) -> Division:
    parts = tuple(Part(n, path, named=len(found) > 1) for n, path in enumerate(found))
    with opened_part(parts[0], info, reading) as opened:
        return Division(what, parts, opened)


def _shards(data: str, info: DatasetInfo, reading: Reading) -> Division:
    with contextlib.closing(storage.Staged()) as staged:
        place = pathlib.Path(data)
        if storage.is_url(data):
            place = staged.files([storage.join(data, DESCRIPTION)])
        parts, opened = of_arrays.shards(place, reading.split, info)
    made = tuple(Part(n, data, shard=(reading.split, n)) for n in range(parts))
    return Division(opened.what, made, opened)


def columns_of(opened: Source) -> Columns:
    """Whether a source has labels, the columns to keep, and the type of the rows' names."""
    return opened.labelled, opened.columns, opened.name_type


@contextlib.contextmanager
def opened_part(part: Part, info: DatasetInfo, reading: Reading) -> Iterator[Source]:
    """Opens a part on a worker. Files on other file systems are first copied there."""
    if part.listed:
        rows = pickle.loads(storage.read(part.path))
        yield Source(part.path, lambda: iter(rows), labelled=False, total=len(rows))
        return
    with contextlib.closing(storage.Staged()) as staged:
        is_url = storage.is_url(part.path)
        place = staged.files(_needed(part)) if is_url else pathlib.Path(part.path)
        if part.shard is not None:
            yield of_arrays.shard(place, *part.shard, info)
        elif not is_url:
            yield _named(part, sources.open_source(part.path, info, reading))
        else:
            # Messages must name the file, not its copy.
            original, copy = storage.parent(part.path), str(place)
            try:
                file = place / part.path.rpartition("/")[2]
                opened = sources.open_source(str(file), info, reading)
            except UserError as error:
                raise error.with_message(str(error).replace(copy, original)) from error
            renamed = dataclasses.replace(
                opened,
                what=opened.what.replace(copy, original),
                rows=lambda: _renamed(opened.rows(), copy, original),
            )
            yield _named(part, renamed)


def _needed(part: Part) -> list[str]:
    """The files needed for a part: its file, and the files that readers look for beside it."""
    path = part.path
    if part.shard is not None:
        split, number = part.shard
        beside = storage.matching(storage.join(path, f"{split}-{number:05}-of-*"))
        return [storage.join(path, DESCRIPTION), *beside]
    folder = storage.parent(path)
    beside = [storage.join(folder, "classes.txt")]
    if "images" in path.rpartition("/")[2].lower():
        beside += storage.matching(storage.join(folder, "*labels*"))
    return [path, *(name for name in beside if storage.exists(name))]


def _named(part: Part, opened: Source) -> Source:
    """Renames numbered rows to FILE:NUMBER if there are several files."""
    if not part.named or opened.columns is not None:
        return opened
    file = part.path.rpartition("/")[2]

    def rows() -> Iterator[Row]:
        for row in opened.rows():
            name = pa.scalar(row.name, opened.name_type).cast(pa.string())
            yield dataclasses.replace(row, name=f"{file}:{name}")

    return dataclasses.replace(opened, rows=rows, name_type=pa.string())


def _renamed(rows: Iterator[Row], copy: str, original: str) -> Iterator[Row]:
    try:
        for row in rows:
            content = row.content
            if isinstance(content, TextFile):  # It is read by another process.
                content = TextFile(content.path.replace(copy, original))
            elif isinstance(content, ImageFile):
                content = ImageFile(content.path.replace(copy, original), content.content)
            yield dataclasses.replace(row, where=row.where.replace(copy, original), content=content)
    except UserError as error:
        raise error.with_message(str(error).replace(copy, original)) from error


def blocks(part: Part, info: DatasetInfo, reading: Reading, columns: Columns) -> Iterator[Block]:
    """Reads a part.

    The blocks of a part are the same each time it is read.

    Raises:
        UserError: The part can't be read, or its columns differ from those of the first part.
    """
    with opened_part(part, info, reading) as opened:
        if not part.listed and columns_of(opened) != columns:
            raise DataError(
                f"{opened.what} has other columns than the first file, or only one of them has "
                "labels: give files of one kind at once, or name the columns (--label_column, "
                "--text_column)."
            )
        number = 0
        waiting: list[Row] = []
        size = 0
        for row in opened.rows():
            is_file = isinstance(row.content, (ImageFile, TextFile))
            most = _BLOCK_FILES if is_file else _BLOCK_ROWS
            if waiting and (len(waiting) >= most or size >= _BLOCK_BYTES):
                yield Block(part.number, number, False, waiting)
                number, waiting, size = number + 1, [], 0
            waiting.append(row)
            size += _bytes(row)
        yield Block(part.number, number, True, waiting)


def _bytes(row: Row) -> int:
    content = row.content
    if isinstance(content, ImageFile):
        content = content.content
    if isinstance(content, np.ndarray):
        return content.nbytes
    return len(content) if isinstance(content, (str, bytes)) else 0
