"""Rows that are files (folders and archives of images, folders of texts) or lines of a text."""

from __future__ import annotations

import collections
import io
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import IO

import pyarrow as pa

from t2aux.data.archives import list_archive, read_members
from t2aux.data.folders import list_folder
from t2aux.data.listing import File, Listing, plural, shown
from t2aux.data.table import class_key, damaged
from t2aux.data.tables.json_lines import not_of_encoding
from t2aux.data.tables.opening import codec_of
from t2aux.errors import DataError
from t2aux.prediction.rows import ImageFile, Row, TextFile
from t2aux.prediction.source import Source, check_images
from t2aux_ondevice.preprocessing import DatasetInfo


def folder(path: pathlib.Path, info: DatasetInfo) -> Source:
    """The images or the .txt files in a folder and its subfolders; see `listed`.

    Raises:
        UserError: The folder can't be read, or as for `listed`.
    """
    return listed(str(path), list_folder(path), info)


def listed(name: str, listing: Listing, info: DatasetInfo) -> Source:
    """The images, or the .txt files of one text each, of a folder, sorted by name.

    A file's label is the name of one of the folders that contain it. The depth of this folder is
    that at which most files are in folders with names of classes. If there are no such folders,
    there are no labels.

    Args:
        name: The name of the folder in messages.
        listing: The files; their places are paths, or URLs that their reader opens.
        info: The description of the classifier's data: images or texts.

    Raises:
        UserError: The folder contains no such files.
    """
    files = _files(listing)
    if info.kind == "image":
        content, wanted = ImageFile, "images: give a folder of images"
        files = [file for file in files if file.is_image]
    elif info.is_text:
        content = TextFile
        wanted = ".txt files: give a folder of .txt files of one text each, or a table"
        files = [file for file in files if file.name.lower().endswith(".txt")]
    else:
        raise DataError(
            f"{name} is a folder, and the classifier reads {info.kind}: give an .npz file, or a "
            "folder of shards."
        )
    if not files:
        raise DataError(f"{name} holds no {wanted}.")
    return _of_files(name, files, listing, info, lambda: (content(str(f.place)) for f in files))


def archive(path: pathlib.Path, info: DatasetInfo) -> Source:
    """The images in an archive, in the order of its members; see `listed`.

    Raises:
        UserError: The archive is damaged or contains no images, or the classifier does not read
            images.
    """
    check_images(path, info)
    listing = list_archive(path)
    files = sorted((f for f in _files(listing) if f.is_image), key=lambda file: file.place)
    if not files:
        raise DataError(f"{path} holds no images: give an archive of images.")

    def contents() -> Iterator[ImageFile]:
        members = read_members(path, [(file.place, file.name) for file in files])
        for file, content in zip(files, members, strict=True):
            yield ImageFile(f"{shown(file.name)} in {path}", content)

    return _of_files(str(path), files, listing, info, contents)


def image(path: pathlib.Path, info: DatasetInfo) -> Source:
    """One image. Raises UserError if the classifier does not read images."""
    check_images(path, info)
    row = Row(path.name, str(path), ImageFile(str(path)))
    return Source(what=str(path), rows=lambda: iter([row]), labelled=False, total=1)


def one_text(source: pathlib.Path | IO[bytes], name: str) -> Source:
    """A file that is one text."""
    if isinstance(source, pathlib.Path):
        row = Row(source.name, name, TextFile(name))
    else:
        try:
            text = source.read().decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise DataError(f"{name} is not a text in UTF-8: convert it.") from error
        row = Row(name, name, text.removesuffix("\n").removesuffix("\r"))
    return Source(what=name, rows=lambda: iter([row]), labelled=False, total=1)


def lines(source: pathlib.Path | IO[bytes], name: str, encoding: str | None) -> Source:
    """One text per line. Lines without a visible character are rows that can't be classified.

    Args:
        source: A file or a stream.
        name: The name of the source in messages.
        encoding: The encoding. Defaults to UTF-8, or UTF-16 if the file begins with its byte order
            mark.

    Raises:
        UserError: The encoding is unknown or, while rows are read, it is not that of the file.
    """
    codec = codec_of(encoding) or "utf-8-sig"
    position = [0, 0]  # Bytes and lines.
    size = source.stat().st_size if isinstance(source, pathlib.Path) else 0

    def rows() -> Iterator[Row]:
        number = -1
        try:
            file = source.open("rb") if isinstance(source, pathlib.Path) else source
            with file, io.BufferedReader(file) as buffered:
                beginning = buffered.peek(2)[:2]
                marked = encoding is None and beginning in (b"\xff\xfe", b"\xfe\xff")
                chosen = "utf-16" if marked else codec
                for number, line in enumerate(io.TextIOWrapper(buffered, chosen, newline=None)):
                    position[0] += len(line.encode("utf-8", "surrogatepass"))
                    position[1] = number + 1
                    yield Row(number, f"{name}, line {number + 1}", line.removesuffix("\n"))
        except UnicodeError as error:
            raise not_of_encoding(name, number + 2, chosen) from error
        except OSError as error:
            raise damaged(name, error) from error

    def about() -> int | None:
        return int(size / position[0] * position[1]) if size and position[0] else None

    return Source(what=name, rows=rows, labelled=False, name_type=pa.int64(), about=about)


def _files(listing: Listing) -> list[File]:
    linked = (link.file for link in listing.links if link.file is not None)
    return sorted([*listing.files, *linked], key=lambda file: file.name)


def _of_files(
    name: str,
    files: Sequence[File],
    listing: Listing,
    info: DatasetInfo,
    contents: Callable[[], Iterable[ImageFile | TextFile]],
) -> Source:
    labels = _labels([file.name for file in files], info)

    def rows() -> Iterator[Row]:
        for file, content, label in zip(files, contents(), labels, strict=True):
            yield Row(shown(file.name), content.path, content, label)

    return Source(
        what=name,
        rows=rows,
        labelled=any(label is not None for label in labels),
        total=len(files),
        notes=lambda: _notes(name, files, listing),
    )


def _labels(names: Sequence[str], info: DatasetInfo) -> list[str | None]:
    """The folder of each file at the depth at which most folders have names of classes."""
    classes = set(map(class_key, info.classes))
    folders = [[class_key(part) for part in name.split("/")[:-1]] for name in names]
    depths = collections.Counter(
        depth for parts in folders for depth, part in enumerate(parts) if part in classes
    )
    if not depths:
        return [None] * len(names)
    # In case of a tie, the outermost.
    depth = min(depths, key=lambda d: (-depths[d], d))
    return [parts[depth] if len(parts) > depth else None for parts in folders]


def _notes(path: str, files: Sequence[File], listing: Listing) -> tuple[str, ...]:
    name = path.rstrip("/").rpartition("/")[2]
    others = len(listing.files) - len(files) + sum(link.file is not None for link in listing.links)
    skipped = []
    if others > 0:
        skipped.append(f"{name}: skipped {plural(others, 'other file')}.")
    if listing.hidden:
        skipped.append(f"{name}: skipped {plural(len(listing.hidden), 'hidden image')}.")
    if listing.broken:
        skipped.append(f"{name}: skipped {plural(len(listing.broken), 'broken link')}.")
    return tuple(skipped)
