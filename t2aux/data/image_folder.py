"""`image_folder`: a user's own images, as the trees train/<class>/ and test/<class>/.

Instead of a folder, a tree may be an archive, read without extracting it: train.tar, train.tar.gz,
train.tgz, train.tar.xz or train.zip, and so for test.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import functools
import io
import os
import pathlib
import struct
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from typing import IO, NamedTuple

import numpy as np
from PIL import Image

from t2aux.data import checks
from t2aux.data.pixels import image_info, image_rows
from t2aux.data.table import (
    DAMAGE,
    Options,
    Rows,
    damaged,
    find_file,
    open_compressed,
    require_data_dir,
    subset,
)
from t2aux.errors import UserError
from t2aux_ondevice import limits
from t2aux_ondevice.images import read_image
from t2aux_ondevice.preprocessing import DatasetInfo

_IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".gif", ".bmp", ".webp", ".tif", ".tiff"}) | {
    ".ppm",
    ".pgm",
}
_ARCHIVE_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".zip")
_READ_AT_ONCE = 1 << 20
_ARCHIVE_DAMAGE = (
    *DAMAGE,
    tarfile.TarError,
    zipfile.BadZipFile,
    struct.error,
    RuntimeError,
    ValueError,
    OverflowError,
    LookupError,
)
# Of long names and other attributes, which tarfile holds, and searches in time that grows faster.
_MOST_ATTRIBUTE_BYTES = 1 << 15
# Others unpack without a bound.
_ZIP_PACKINGS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


_ATTRIBUTES = (
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
)


class _Header(tarfile.TarInfo):
    """A tar header that is an error when it is damaged or missing.

    tarfile itself takes both, except at the start, for the archive's end.
    """

    @classmethod
    def frombuf(cls, buf: bytes, encoding: str, errors: str) -> tarfile.TarInfo:
        try:
            header = super().frombuf(buf, encoding, errors)
        except tarfile.EOFHeaderError:
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"the archive is damaged or cut off: {error}") from error
        # tarfile would go back, and read the same for ever.
        if header.size < 0:
            raise tarfile.ReadError("the archive is damaged: a size is negative")
        if header.type in _ATTRIBUTES and header.size > _MOST_ATTRIBUTE_BYTES:
            raise tarfile.ReadError(f"a name, or another attribute, has {header.size:,} bytes")
        return header


class _Entry(NamedTuple):
    class_name: str
    file: str  # Relative to the tree's root.
    member: str  # The name that the archive knows it by.


def read(split: str, options: Options) -> tuple[DatasetInfo, Rows]:
    """Reads the images of a split, RGB unless `options.grey`.

    The classes are the names of the folders in the training tree, sorted. Files that are hidden or
    have no image suffix are passed over.

    Raises:
        UserError: A tree is missing or empty, an archive or an image is damaged, sizes differ and
            no side is given, or the test tree has a class that the training tree lacks.
    """
    folder = require_data_dir("image_folder", options)
    path = _find(folder, split)
    entries = _list(path)
    size = (0, 0)
    if options.info is not None:
        classes = options.info.classes
    else:
        train_path = path if split == "train" else _find(folder, "train")
        train_entries = entries if split == "train" else _list(train_path)
        classes = tuple(sorted({entry.class_name for entry in train_entries}))
        for _, image in _read(train_path, train_entries[:1]):
            size = (image.height, image.width)
    label_of = {name: label for label, name in enumerate(classes)}
    for entry in entries:
        if entry.class_name not in label_of:
            raise UserError(
                f"{path} has the class {entry.class_name!r}, which the training images lack: take "
                "it away, or name it as they do."
            )
    info = image_info("image_folder", classes, 3, size, options)
    labels = np.array([label_of[entry.class_name] for entry in entries], np.int32)
    chosen = subset(len(entries), options.max_examples)
    images = _read(path, [entries[index] for index in chosen])
    rows = image_rows(images, labels[chosen], info, resize=options.resize)
    counts = np.bincount(labels, minlength=len(classes))
    return info, dataclasses.replace(rows, counts=counts, found=_tree(path, entries))


def _tree(path: pathlib.Path, entries: Sequence[_Entry]) -> str:
    """Describes the folders of a tree and how many images each holds."""
    folders = collections.Counter(str(pathlib.PurePosixPath(e.member).parent) for e in entries)
    return f"{path} holds " + checks.listing(
        f"{folder}/ with {count:,}" for folder, count in sorted(folders.items())
    )


def _find(folder: pathlib.Path, split: str) -> pathlib.Path:
    names = [split, *(split + suffix for suffix in _ARCHIVE_SUFFIXES)]
    return find_file(folder, names, "image_folder")


def _list(path: pathlib.Path) -> tuple[_Entry, ...]:
    """Lists the images of a tree in the order in which `_read` gives them."""
    status = path.stat()
    # A compressed archive must be unpacked to be listed, so remember the list while it is the same
    # file. A folder's own time says nothing of its files, but listing it is quick.
    key = (status.st_mtime_ns, status.st_size) if path.is_file() else None
    names = _archive_names(path, key) if key else _folder_names(path)
    split = path.name.split(".")[0]
    entries = []
    for name in names:
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if any(part.startswith((".", "__MACOSX")) for part in parts):
            continue
        if pathlib.PurePosixPath(name).suffix.lower() in _IMAGE_SUFFIXES:
            entries.append((parts, name))
    # Archives often hold the tree's own folder, "train/<class>/...".
    strip = 1 if entries and all(p[0] == split and len(p) > 2 for p, _ in entries) else 0
    for parts, name in entries:
        if len(parts) - strip < 2:
            raise UserError(
                f"{path} holds the image {name} outside a class's folder: put it into <class>/."
            )
    if not entries:
        raise UserError(f"{path} holds no images: put them into <class>/ folders in it.")
    listed = [_Entry(parts[strip], "/".join(parts[strip:]), name) for parts, name in entries]
    return tuple(listed if key else sorted(listed))


def _folder_names(path: pathlib.Path) -> list[str]:
    def fail(error: OSError) -> None:
        raise damaged(error.filename or path, error) from error

    found = []
    for folder, _, files in os.walk(path, onerror=fail, followlinks=True):
        relative = pathlib.Path(folder).relative_to(path)
        found += [(relative / file).as_posix() for file in files]
    return found


@functools.lru_cache(maxsize=4)
def _archive_names(path: pathlib.Path, key: tuple[int, int]) -> tuple[str, ...]:
    """Lists the files of an archive; `key` changes when the archive does."""
    del key  # Only for the cache.
    try:
        if path.suffix == ".zip":
            with zipfile.ZipFile(path) as archive:
                return tuple(info.filename for info in archive.infolist() if not info.is_dir())
        with _open_tar(path) as (archive, stream):
            names = tuple(member.name for member in archive if member.isfile())
            # To the end, where a compressed stream has its checksum.
            while stream.read(_READ_AT_ONCE):
                pass
            return names
    except _ARCHIVE_DAMAGE as error:
        raise damaged(path, error) from error


def _read(path: pathlib.Path, entries: Sequence[_Entry]) -> Iterator[tuple[str, Image.Image]]:
    """Decodes the given images, which must be in the order of `_list`."""
    if path.is_dir():
        for entry in entries:
            file = path / entry.member
            yield str(file), read_image(file)
        return
    contents = _zip_contents(path, entries) if path.suffix == ".zip" else _tar(path, entries)
    for entry in entries:
        name = f"{entry.file} in {path}"
        try:
            content = next(contents)
        except StopIteration:
            raise UserError(f"{path} lacks {entry.file}: it changed while being read.") from None
        except UserError as error:
            raise UserError(f"{name}: {error}") from error
        except _ARCHIVE_DAMAGE as error:
            raise damaged(name, error) from error
        yield name, read_image(io.BytesIO(content), name)


@contextlib.contextmanager
def _open_tar(path: pathlib.Path) -> Iterator[tuple[tarfile.TarFile, IO[bytes]]]:
    # Not tarfile's own decompression, which takes a cut-off stream for its end.
    with (
        open_compressed(path) as stream,
        tarfile.open(fileobj=stream, mode="r|", tarinfo=_Header) as archive,
    ):
        yield archive, stream


def _zip_contents(path: pathlib.Path, entries: Sequence[_Entry]) -> Iterator[bytes]:
    with zipfile.ZipFile(path) as archive:
        for entry in entries:
            info = archive.getinfo(entry.member)
            if info.compress_type not in _ZIP_PACKINGS:
                raise zipfile.BadZipFile("it is packed in a way that is not read here")
            with archive.open(info) as file:
                yield _content(file, info.file_size)


def _tar(path: pathlib.Path, entries: Sequence[_Entry]) -> Iterator[bytes]:
    # In one pass: to go back in a compressed archive is to unpack it anew.
    wanted = iter(entries)
    entry = next(wanted, None)
    with _open_tar(path) as (archive, _):
        for member in archive:
            if entry is None:
                return
            if member.isfile() and member.name == entry.member:
                yield _content(archive.extractfile(member), member.size)
                entry = next(wanted, None)


def _content(file: IO[bytes], size: int) -> bytes:
    # A sparse file, or packed zeros, may be of any size.
    most = limits.most_image_bytes()
    if size > most:
        raise UserError(
            f"an image of the archive has {size:,} bytes, more than {most:,}: take it out, or set "
            f"the environment variable {limits.IMAGE_PIXELS} to more."
        )
    return bytes(limits.read_most(file, size))
