"""The files of a tree that is a tar or zip archive, read without extracting it.

What stands in the archive is taken as `tar -x` and `unzip` take it: of several members of one name
the last counts, hard links are files, and names lead to nowhere outside ("/x" and "../x" are x).
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
# A zip member's flag (PKWARE's APPNOTE 4.4.4), and what systems made it.
_UTF_8 = 0x800
_UNIX, _MACOS = 3, 19
_DOS_FOLDER = 0x10
_LONGEST_LINK = 4096
_MAX_LINKS = 40  # On the way to one file, as Linux has it.


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
        return header


def list_archive(path: pathlib.Path) -> Listing:
    """Lists the files of an archive; their places are the numbers of its members.

    Where several names stand for one member, its content is in several files.

    Raises:
        UserError: The archive is damaged, or a link in it leads out of it.
    """
    status = path.stat()
    # A compressed archive must be unpacked to be listed, so remember the list while it is the same.
    return _list(path, (status.st_mtime_ns, status.st_size))


def read_members(path: pathlib.Path, files: Sequence[tuple[int, str]]) -> Iterator[bytes]:
    """Reads members of an archive.

    Args:
        path: The archive.
        files: The number and the name of each, the numbers ascending; one may be there twice.

    Yields:
        Their contents.

    Raises:
        UserError: The archive is damaged or has changed.
    """
    places = [place for place, _ in files]
    contents = (_read_zip if path.suffix == ".zip" else _read_tar)(path, places)
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
    del key  # Only for the cache.
    try:
        members = _Members(path)
        (_list_zip if path.suffix == ".zip" else _list_tar)(path, members)
    except ARCHIVE_DAMAGE as error:
        raise damaged(path, error) from error
    return members.listing()


class _Members:
    """The files, folders and links that an archive makes when it is extracted."""

    def __init__(self, path: pathlib.Path) -> None:
        self._path = path
        self._listing = Listing()
        # A file is the number of its member, a symbolic link what it says.
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
        # A file that replaces the target later does not change what the link is.
        member = self._members.get(_normal(target))
        if member is not None:
            self._put(_normal(name), member)
        elif not self._listing.ignores(_normal(name), is_folder=False):
            raise self._leads_out(_normal(name), target)

    def add_special(self) -> None:
        self._listing.special += 1

    def listing(self) -> Listing:
        """Resolves the symbolic links, and returns what there is."""
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
        """Adds a member; returns whether it counts. Links may lead to those that are ignored."""
        is_ignored = not name or self._listing.ignores(name, is_folder=False)
        if is_ignored:
            self._ignored.add(name)
        # Last in the order, too.
        self._members.pop(name, None)
        self._members[name] = member
        return not is_ignored

    def _resolve(self, name: str) -> str | None:
        """Follows a link; None if it leads out of the archive, or in a circle."""
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
    """A member's name as a path in the tree: what tar and unzip extract it to."""
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
        # To the end, where a compressed stream has its checksum.
        while stream.read(_READ_AT_ONCE):
            pass


@contextlib.contextmanager
def _open_tar(path: pathlib.Path) -> Iterator[tuple[tarfile.TarFile, IO[bytes]]]:
    # Not tarfile's own decompression, which takes a cut-off stream for its end.
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
        # tarfile would keep all of them.
        archive.members = []


def _read_tar(path: pathlib.Path, places: Sequence[int]) -> Iterator[bytes]:
    # In one pass: to go back in a compressed archive is to unpack it once more.
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
        # Windows's own separator, which some programs write that say they are Unix's.
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
    # What zipfile read as code page 437. On Unix programs write UTF-8 here, too, on Windows what
    # its code page is; and a few of the bytes of one are valid in the other.
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
