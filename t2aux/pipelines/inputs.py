"""What is classified, divided into parts that workers read independently of each other.

A part is a file, a shard, or some of the files of a folder. Each gives its rows in the order that
they have on one machine, so that a part's number and a row's place in it say where it belongs.
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

# Rows that are classified together. Many small blocks keep many workers busy to the end; each is a
# temporary file.
_BLOCK_ROWS, _BLOCK_BYTES, _BLOCK_FILES = 4096, 1 << 22, 256
# Of a folder: as many of its files as make a part.
_PART_FILES = 16 * _BLOCK_FILES
_PATTERN = frozenset("*?[")
# What all parts have in common, see `columns_of`.
Columns = tuple[bool, pa.Schema | None, pa.DataType]


@dataclasses.dataclass(frozen=True)
class Part:
    """Rows that one worker reads.

    Attributes:
        number: Its place among the parts, from 0.
        path: The file; of shards the folder.
        named: Whether rows that have numbers are called by the file, too, of many files.
        listed: Whether the file is one of rows that `divide` wrote.
        shard: Of shards: the split and the number of the shard; else None.
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
        part: The number of the part that they are of.
        number: The block's place in the part, from 0.
        is_last: Whether it is the last one of its part.
        rows: The rows; none in the last block of a part without rows.
    """

    part: int
    number: int
    is_last: bool
    rows: Sequence[Row]


@dataclasses.dataclass(frozen=True)
class Division:
    """Data in parts.

    Attributes:
        what: What messages call the data.
        parts: The parts, in the order of the data.
        source: The data or, of many files, the first one, of which the beginning was read.
    """

    what: str
    parts: tuple[Part, ...]
    source: Source

    def expected(self, done: int) -> int | None:
        """How many rows there are, as far as it is known."""
        return None if len(self.parts) > 1 and self.source.total is None else self.source.total


def divide(data: str, info: DatasetInfo, reading: Reading, folder: str) -> Division:
    """Divides data into parts, and reads the beginning of the first.

    Args:
        data: As for `t2aux.predict`, on any of Beam's file systems, a path as workers find it; or
            a pattern with `*` that names several files.
        info: What the classifier reads.
        reading: How it is read.
        folder: For temporary files.

    Raises:
        UserError: As `source.open_source`; or the data is something that workers can't read.
    """
    if pathlib.PurePath(data).name == sources.STANDARD:
        raise SettingError(
            "Standard input can't be read by other machines: save it as a file first, or leave out "
            "--runner."
        )
    if not storage.is_url(data) and pathlib.Path(data).exists():
        if pathlib.Path(data).is_dir():
            # Checks that it is a folder of what the classifier reads.
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
    """The files of a folder of another file system."""
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
    """Whether a source has labels, the columns that are kept, and the type of the rows' names."""
    return opened.labelled, opened.columns, opened.name_type


@contextlib.contextmanager
def opened_part(part: Part, info: DatasetInfo, reading: Reading) -> Iterator[Source]:
    """Opens a part where a worker is; files of other file systems are copied there first."""
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
            # Messages name the file, not its copy.
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
    """The files that are read for a part: it, and what readers look for beside it."""
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
    """Rows that have numbers are called FILE:NUMBER, of several files."""
    if not part.named or opened.columns is not None:
        return opened
    file = part.path.rpartition("/")[2]

    def rows() -> Iterator[Row]:
        for row in opened.rows():
            yield dataclasses.replace(row, name=f"{file}:{row.name}")

    return dataclasses.replace(opened, rows=rows, name_type=pa.string())


def _renamed(rows: Iterator[Row], copy: str, original: str) -> Iterator[Row]:
    try:
        for row in rows:
            content = row.content
            if isinstance(content, TextFile):  # Which is read elsewhere.
                content = TextFile(content.path.replace(copy, original))
            elif isinstance(content, ImageFile):
                content = ImageFile(content.path.replace(copy, original), content.content)
            yield dataclasses.replace(row, where=row.where.replace(copy, original), content=content)
    except UserError as error:
        raise error.with_message(str(error).replace(copy, original)) from error


def blocks(part: Part, info: DatasetInfo, reading: Reading, columns: Columns) -> Iterator[Block]:
    """Reads a part.

    The blocks of a part are the same however often it is read.

    Raises:
        UserError: It can't be read, or has other columns than the first part.
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
