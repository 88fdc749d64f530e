"""The files of a tree that is a folder."""

from __future__ import annotations

import os
import pathlib
import stat

from t2aux.data.listing import File, Link, Listing, is_system_name
from t2aux.data.table import damaged
from t2aux_ondevice.images import BEGINNING, is_image


def list_folder(path: pathlib.Path) -> Listing:
    """Lists the files of a folder and its subfolders.

    Symbolic links are followed, but because links may be circular, a folder or file that was
    already read is not read again under the name of a link. Of several links to the same target,
    only the first one by name counts.

    Raises:
        UserError: A folder or a file can't be read.
    """
    try:
        return _Walk(path).listing
    except OSError as error:
        raise damaged(error.filename or path, error) from error


class _Walk:
    """Lists first the content of the folder itself, then the targets of its links."""

    def __init__(self, path: pathlib.Path) -> None:
        self.listing = Listing()
        self._root = os.path.realpath(path)
        # The names of folders in the tree by their identity, and of linked files by their real
        # path.
        self._folders: dict[tuple[object, ...], str] = {}
        self._files: dict[str, str] = {}
        # Pairs of a name in the tree and a path.
        self._folder_links: list[tuple[str, str]] = []
        self._file_links: list[tuple[str, str]] = []
        self._add_folder("", os.fspath(path), is_own=True)
        # Links to files come last, since a linked folder may contain the same files.
        while self._folder_links:
            links, self._folder_links = sorted(self._folder_links), []
            for name, place in links:
                self._follow_folder(name, place)
        for name, place in sorted(self._file_links):
            self._follow_file(name, place)

    def _add_folder(self, name: str, place: str, *, is_own: bool) -> None:
        """Adds a folder with its content. Its links are followed later."""
        waiting = [(name, place)]
        while waiting:
            name, place = waiting.pop()
            key = _identity(place)
            if not is_own and key in self._folders:
                self.listing.links.append(Link(name, self._folders[key] or None))
                continue
            self._folders.setdefault(key, name)
            if name:
                self.listing.folders.add(name)
            with os.scandir(place) as entries:
                for entry in entries:
                    inside = f"{name}/{_text(entry.name)}" if name else _text(entry.name)
                    # The entry's own method raises OSError for a circular link.
                    is_link = entry.is_symlink()
                    is_folder = os.path.isdir(entry.path) if is_link else entry.is_dir()
                    if self.listing.ignores(inside, is_folder=is_folder):
                        continue
                    if is_link:
                        links = self._folder_links if is_folder else self._file_links
                        links.append((inside, entry.path))
                    elif is_folder:
                        waiting.append((inside, entry.path))
                    else:
                        self._add_file(inside, entry.path, is_regular=entry.is_file())

    def _add_file(self, name: str, place: str, *, is_regular: bool) -> None:
        if is_regular:
            found = is_image(name, lambda: _beginning(place))
            self.listing.files.append(File(name, place, found))
        else:
            self.listing.special += 1

    def _follow_folder(self, name: str, place: str) -> None:
        target = os.path.realpath(place)
        # A link must not lead back to a folder that contains the tree or the link.
        around = (self._root, os.path.realpath(os.path.dirname(place)))
        leads_back = any(f"{p}/".startswith(f"{target.rstrip('/')}/") for p in around)
        key = _identity(target)
        if leads_back or key in self._folders:
            self.listing.links.append(Link(name, self._folders.get(key) or None))
        else:
            self._add_folder(name, place, is_own=False)

    def _follow_file(self, name: str, place: str) -> None:
        try:
            mode = os.stat(place).st_mode
        except OSError:  # The link is broken or circular.
            self.listing.broken.append(name)
            return
        target = os.path.realpath(place)
        folder = self._folders.get(_identity(os.path.dirname(target)))
        base = _text(os.path.basename(target))
        if folder is not None and not is_system_name(base):
            known = f"{folder}/{base}" if folder else base
        else:
            known = self._files.setdefault(target, name)
        if known != name:
            self.listing.links.append(Link(name, known))
        else:
            self._add_file(name, place, is_regular=stat.S_ISREG(mode))


def _beginning(place: str) -> bytes:
    try:
        with open(place, "rb") as file:
            return file.read(BEGINNING)
    except OSError:  # A file without an image suffix need not be readable.
        return b""


def _identity(place: str) -> tuple[object, ...]:
    status = os.stat(place)
    # Some file systems have no inode numbers.
    return (status.st_dev, status.st_ino) if status.st_ino else (os.path.realpath(place),)


def _text(name: str) -> str:
    return os.fsencode(name).decode("utf-8", "surrogateescape")
