"""Reads the files of a tar or zip archive without extracting it.

Members are interpreted as by `tar -x` and `unzip`: of several members with the same name, the last
one counts; hard links are files; and no name leads outside the tree ("/x" and "../x" mean x).
"""

from __future__ import annotations

import collections
import contextlib
import functools
import pathlib
import stat
import struct
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from typing import IO

from t2aux.data.listing import File, Link, Listing, shown
from t2aux.data.table import DAMAGE, damaged, open_compressed
from t2aux.errors import DataError, UserError
from t2aux_ondevice.images import BEGINNING, has_image_suffix, is_image

ARCHIVE_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".zip")
ARCHIVE_DAMAGE = (
    *DAMAGE,
    tarfile.TarError,
    zipfile.BadZipFile,
    struct.error,
    RuntimeError,
    ValueError,
    OverflowError,
    LookupError,
)
_READ_AT_ONCE = 1 << 20
# A zip member's flag (PKWARE's APPNOTE 4.4.4), and the systems that may have made it.
_UTF_8 = 0x800
_UNIX, _MACOS = 3, 19
_DOS_FOLDER = 0x10
_LONGEST_LINK = 4096
_MAX_LINKS = 40  # On the path to one file; the limit of Linux.


class _Header(tarfile.TarInfo):
    """A tar header that raises an error if it is damaged or missing.

    Except at the start, tarfile itself treats both as the end of the archive.
    """

    @classmethod
    def frombuf(cls, buf: bytes, encoding: str, errors: str) -> tarfile.TarInfo:
        try:
            header = super().frombuf(buf, encoding, errors)
        except tarfile.EOFHeaderError:
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"the archive is damaged or cut off: {error}") from error
        # tarfile would seek backwards and read the same data forever.
        if header.size < 0:
            raise tarfile.ReadError("the archive is damaged: a size is negative")
        return header


def list_archive(path: pathlib.Path) -> Listing:
    """Lists the files of an archive. Their places are the numbers of its members.

    If several names refer to one member, the listing has a file for each of them.

    Raises:
        UserError: The archive is damaged, or a link in it leads out of it.
    """
    status = path.stat()
    # A compressed archive must be unpacked to list it, so cache the list until the file changes.
    return _list(path, (status.st_mtime_ns, status.st_size))


def read_members(path: pathlib.Path, files: Sequence[tuple[int, str]]) -> Iterator[bytes]:
    """Reads members of an archive.

    Args:
        path: The archive.
        files: The number and the name of each member, sorted by number; a number may be repeated.

    Yields:
        The contents of the members.

    Raises:
        UserError: The archive is damaged or has changed.
    """
    places = [place for place, _ in files]
    contents = (_read_zip if path.suffix.lower() == ".zip" else _read_tar)(path, places)
    for _, file in files:
        name = f"{shown(file)} in {path}"
        try:
            content = next(contents, None)
        except ARCHIVE_DAMAGE as error:
            raise damaged(name, error) from error
        if content is None:
            raise DataError(f"{path} lacks {shown(file)}: it changed while being read.")
        yield content


@functools.lru_cache(maxsize=2)
def _list(path: pathlib.Path, key: tuple[int, int]) -> Listing:
    del key  # Only used by the cache.
    try:
        members = _Members(path)
        (_list_zip if path.suffix.lower() == ".zip" else _list_tar)(path, members)
    except ARCHIVE_DAMAGE as error:
        raise damaged(path, error) from error
    return members.listing()


class _Members:
    """The files, folders and links that an archive makes when it is extracted."""

    def __init__(self, path: pathlib.Path) -> None:
        self._path = path
        self._listing = Listing()
        # A file is represented by the number of its member, a symbolic link by its target.
        self._members: dict[str, int | str] = {}
        self._ignored: set[str] = set()
        self._images: set[int] = set()  # The members that are images by name or content.

    def add_folder(self, name: str) -> None:
        name = _normal(name)
        if name and not self._listing.ignores(name, is_folder=True):
            self._listing.folders.add(name)
            self._listing.add_folders_of(name)

    def add_file(self, name: str, place: int, open_member: Callable[[], IO[bytes]]) -> None:
        def read_beginning() -> bytes:
            with open_member() as file:
                return file.read(BEGINNING)

        name = _normal(name)
        counts = self._put(name, place)
        if is_image(name, read_beginning if counts else bytes):
            self._images.add(place)

    def add_symbolic_link(self, name: str, target: str) -> None:
        self._put(_normal(name), target)

    def add_hard_link(self, name: str, target: str) -> None:
        # If the target is replaced later, the hard link still refers to the old file.
        member = self._members.get(_normal(target))
        if member is not None:
            self._put(_normal(name), member)
        elif not self._listing.ignores(_normal(name), is_folder=False):
            raise self._leads_out(_normal(name), target)

    def add_special(self) -> None:
        self._listing.special += 1

    def listing(self) -> Listing:
        """Resolves the symbolic links and returns the listing."""
        listing = self._listing
        for name in self._members.keys() - self._ignored:
            listing.add_folders_of(name)
        for name, member in self._members.items():
            if name in self._ignored:
                continue
            if isinstance(member, int):
                listing.files.append(self._file(name, member))
                continue
            target = self._resolve(name)
            found = None if target is None else self._members.get(target)
            if isinstance(found, int):
                listing.links.append(Link(name, target, self._file(name, found)))
            elif target is not None and (target in listing.folders or not target):
                listing.links.append(Link(name, target or None))
            elif has_image_suffix(name) or "." not in name.rpartition("/")[2]:
                raise self._leads_out(name, member)
            else:
                listing.broken.append(name)
        return listing

    def _file(self, name: str, place: int) -> File:
        return File(name, place, place in self._images or is_image(name, bytes))

    def _put(self, name: str, member: int | str) -> bool:
        """Adds a member. Returns whether it is not ignored. Links may lead to ignored members."""
        is_ignored = not name or self._listing.ignores(name, is_folder=False)
        if is_ignored:
            self._ignored.add(name)
        # Remove the old entry, so that the new one is also last in the order.
        self._members.pop(name, None)
        self._members[name] = member
        return not is_ignored

    def _resolve(self, name: str) -> str | None:
        """Follows a link; returns None if it leads out of the archive or is circular."""
        found: list[str] = []
        rest = collections.deque(name.split("/"))
        links = 0
        while rest:
            part = rest.popleft()
            if part == "..":
                if not found:
                    return None
                found.pop()
            elif part not in ("", "."):
                found.append(part)
                target = self._members.get("/".join(found))
                if isinstance(target, str):
                    links += 1
                    if links > _MAX_LINKS or target.startswith("/"):
                        return None
                    found.pop()
                    rest.extendleft(reversed(target.split("/")))
        return "/".join(found)

    def _leads_out(self, name: str, target: str) -> UserError:
        return DataError(
            f"{shown(name)} in {self._path} is a link to {shown(target)}, which is not in the "
            "archive: pack the file itself (tar -h does), or remove the link."
        )


def _normal(name: str) -> str:
    """A member's name as a path in the tree: the path to which tar and unzip extract it."""
    parts: list[str] = []
    for part in name.split("/"):
        if part == "..":
            parts.clear()
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts)


def _list_tar(path: pathlib.Path, members: _Members) -> None:
    with _open_tar(path) as (archive, stream):
        for place, member in _numbered(archive):
            if member.isdir():
                members.add_folder(member.name)
            elif member.isreg():
                members.add_file(member.name, place, functools.partial(archive.extractfile, member))
            elif member.issym():
                members.add_symbolic_link(member.name, member.linkname)
            elif member.islnk():
                members.add_hard_link(member.name, member.linkname)
            else:
                members.add_special()
        # Read to the end, because a compressed stream has its checksum there.
        while stream.read(_READ_AT_ONCE):
            pass


@contextlib.contextmanager
def _open_tar(path: pathlib.Path) -> Iterator[tuple[tarfile.TarFile, IO[bytes]]]:
    # tarfile's own decompression is not used, because it treats a truncated stream as complete.
    with (
        open_compressed(path) as stream,
        tarfile.open(
            fileobj=stream,
            mode="r|",
            tarinfo=_Header,
            encoding="utf-8",
            errors="surrogateescape",
        ) as archive,
    ):
        yield archive, stream


def _numbered(archive: tarfile.TarFile) -> Iterator[tuple[int, tarfile.TarInfo]]:
    for place, member in enumerate(archive):
        yield place, member
        # Otherwise tarfile would keep all members in memory.
        archive.members = []


def _read_tar(path: pathlib.Path, places: Sequence[int]) -> Iterator[bytes]:
    # In one pass, because going back in a compressed archive means unpacking it again.
    wanted = iter(places)
    next_place = next(wanted, None)
    with _open_tar(path) as (archive, _):
        for place, member in _numbered(archive):
            if next_place is None:
                return
            if place == next_place:
                if not member.isreg():
                    return
                content = archive.extractfile(member).read()
                while place == next_place:
                    yield content
                    next_place = next(wanted, None)


def _list_zip(path: pathlib.Path, members: _Members) -> None:
    with zipfile.ZipFile(path) as archive:
        infos = archive.infolist()
        names = [_zip_name(info) for info in infos]
        # The Windows separator is also written by some programs that claim to run on Unix.
        has_backslashes = "/" not in "".join(names)
        for place, (info, name) in enumerate(zip(infos, names, strict=True)):
            is_unix = info.create_system in (_UNIX, _MACOS)
            if has_backslashes or not is_unix:
                name = name.replace("\\", "/")
            mode = info.external_attr >> 16 if is_unix else 0
            open_member = functools.partial(archive.open, info)
            if name.endswith("/") or (not is_unix and info.external_attr & _DOS_FOLDER):
                members.add_folder(name)
            elif stat.S_ISLNK(mode):
                with open_member() as file:
                    target = file.read(_LONGEST_LINK).decode("utf-8", "surrogateescape")
                members.add_symbolic_link(name, target)
            elif stat.S_IFMT(mode) in (0, stat.S_IFREG):
                members.add_file(name, place, open_member)
            else:
                members.add_special()


def _zip_name(info: zipfile.ZipInfo) -> str:
    """A member's name; bytes of an unknown encoding are surrogates."""
    if not info.filename:
        raise zipfile.BadZipFile("a member has no name")
    if info.flag_bits & _UTF_8:
        return info.filename
    # The bytes that zipfile decoded as code page 437. Programs on Unix also write UTF-8 here, and
    # those on Windows use its code page; a few byte sequences are valid in both.
    raw = info.orig_filename.encode("cp437")
    encoding = "utf-8" if info.create_system in (_UNIX, _MACOS) else "ascii"
    return raw.partition(b"\0")[0].decode(encoding, "surrogateescape")


def _read_zip(path: pathlib.Path, places: Sequence[int]) -> Iterator[bytes]:
    with zipfile.ZipFile(path) as archive:
        infos = archive.infolist()
        for place in places:
            if place >= len(infos):
                return
            yield archive.read(infos[place])
