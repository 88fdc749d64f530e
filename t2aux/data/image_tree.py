"""Finds the images and classes of a tree, and makes notes about the rest of it."""

from __future__ import annotations

import collections
import pathlib
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from t2aux.data import places
from t2aux.data.archives import list_archive
from t2aux.data.folders import list_folder
from t2aux.data.listing import Listing, plural, several, shown
from t2aux.data.table import class_key
from t2aux.errors import DataError

SPLIT_NAMES = frozenset({"eval", "evaluation"}.union(*places.NAMES.values()))
_SHOWN_FOLDERS = 8
_SHOWN_COUNTS = 20


class Image(NamedTuple):
    """An image of a tree.

    Attributes:
        class_name: The name of the class, in NFC.
        file: The path of the image, beginning with its class's folder.
        place: The location for the tree's reader: a path, or the number of an archive's member.
    """

    class_name: str
    file: str
    place: str | int


class Tree(NamedTuple):
    """The images of a tree.

    Attributes:
        path: The folder or archive.
        images: The images in reading order: by name, or by their places in an archive.
        notes: What was skipped, merged or assumed, one sentence each.
        found: The upper two levels of folders and the number of images in each, for messages.
    """

    path: pathlib.Path
    images: tuple[Image, ...]
    notes: tuple[str, ...]
    found: str

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, sorted."""
        return tuple(sorted({image.class_name for image in self.images}))


def read_tree(path: pathlib.Path, known: Collection[str] | None = None) -> Tree:
    """Lists the images of a tree.

    Each class is a folder. Folders that contain all of the class folders are skipped.

    Args:
        path: A folder or an archive.
        known: The names of the classes in NFC, if they are known; they show at which depth the
            class folders are.

    Raises:
        UserError: The tree can't be read; holds no images, or images outside the folders of
            classes; a class's folder holds only files that are not images, has a name that is not
            UTF-8, or is linked to another's.
    """
    listing = list_folder(path) if path.is_dir() else list_archive(path)
    return _Arranged(path, listing, known).tree()


class _Arranged:
    """A listing arranged by class. The class folders are inside `depth` outer folders."""

    def __init__(self, path: pathlib.Path, listing: Listing, known: Collection[str] | None) -> None:
        self._path = path
        self._listing = listing
        self._notes: list[str] = []
        files = [*listing.files, *(link.file for link in listing.links if link.file is not None)]
        self._images = [file for file in files if file.is_image]
        self._others = [file.name for file in files if not file.is_image]
        if not self._images:
            raise DataError(
                f"{path} holds no images{self._only_others()}: put images into <class>/ folders in "
                "it."
            )
        self._depth = self._find_depth(known)
        self._check_places()

    def tree(self) -> Tree:
        """Returns the images and the notes."""
        folders = dict.fromkeys(self._folder_of(file.name) for file in self._images)
        names = {folder: self._class_name(folder) for folder in folders}
        self._check_classes(names)
        self._note_folders(names)
        self._note_links()
        self._note_skipped()
        images = []
        for file in self._images:
            parts = file.name.split("/")[self._depth :]
            images.append(Image(names[parts[0]], "/".join(parts), file.place))
        # Archives are read once, from beginning to end.
        images.sort(key=(lambda image: image.place) if self._path.is_file() else None)
        if self._depth:
            around = "/".join(self._images[0].name.split("/")[: self._depth])
            self._notes.append(f"The classes are the folders in {shown(around)}/.")
        notes = (f"{self._path.name}: {note}" for note in self._notes)
        return Tree(self._path, tuple(images), tuple(notes), f"{self._path} holds {self._found()}")

    def _folder_of(self, name: str) -> str | None:
        """The class folder that a path is in, or is itself; None if there is none."""
        parts = name.split("/")
        return parts[self._depth] if len(parts) > self._depth else None

    def _find_depth(self, known: Collection[str] | None) -> int:
        images = [file.name.split("/") for file in self._images]
        shortest = min(map(len, images))
        folders = [folder.split("/") for folder in self._listing.folders]
        most, first = 0, images[0]
        while most + 2 < shortest:
            beside = {f[most] for f in folders if len(f) > most and f[:most] == first[:most]}
            if beside != {first[most]}:
                break
            most += 1
        if known is not None:
            names = set(known)
            for depth in range(most):
                if {class_key(parts[depth]) for parts in images} <= names:
                    return depth
        return most

    def _check_places(self) -> None:
        depth = self._depth
        outside = [file.name for file in self._images if file.name.count("/") <= depth]
        if outside:
            raise DataError(
                f"{self._path} holds the image {shown(outside[0])} outside a class's folder: put "
                "it into <class>/."
            )
        folders = {self._folder_of(file.name) for file in self._images}
        is_deeper = all(file.name.count("/") > depth + 1 for file in self._images)
        if len(folders) > 1 and is_deeper and {f.lower() for f in folders} <= SPLIT_NAMES:
            raise DataError(
                f"{self._path} holds the folders {several(sorted(folders))}, which are splits "
                "rather than classes: put train/ and test/ (or train.zip and test.zip) into "
                "--data_dir, each with the folders of the classes in it."
            )

    def _class_name(self, folder: str) -> str:
        try:
            folder.encode("utf-8")
        except UnicodeEncodeError as error:
            what = "rename the folder"
            if self._path.is_file():
                what += ", and pack it with UTF-8 names"
            raise DataError(
                f"The name of the class's folder {shown(folder)} in {self._path} is not UTF-8: "
                f"{what}."
            ) from error
        return class_key(folder)

    def _check_classes(self, names: dict[str, str]) -> None:
        """Checks the class folders, and notes empty ones.

        Raises:
            UserError: A folder has files but no images, or a link leads from one class to another.
        """
        others: dict[str, list[str]] = {}
        for name in (*self._others, *self._listing.broken):
            if name.count("/") > self._depth:
                others.setdefault(self._folder_of(name), []).append(name)
        for folder, files in sorted(others.items()):
            if folder not in names:
                raise DataError(
                    f"The folder {shown(folder)} in {self._path} holds no image that can be read, "
                    f"only {self._counted(files)}: convert them to PNG or JPEG, or remove the "
                    "folder."
                )
        folders = {self._folder_of(name) for name in self._listing.folders} - {None}
        empty = sorted(folders - names.keys())
        if empty:
            self._notes.append(
                f"Skipped {plural(len(empty), 'folder')} without images, which can't be learnt as "
                f"a class: {several(empty)}."
            )
        for link in self._listing.links:
            ours = self._folder_of(link.name)
            theirs = None if link.target is None else self._folder_of(link.target)
            is_image = link.file is None or link.file.is_image
            if not is_image or ours is None or theirs not in names:
                continue
            if class_key(ours) != names[theirs]:
                raise DataError(
                    f"{shown(link.name)} in {self._path} is a link to {shown(link.target)}, which "
                    "is in another class: remove one of them."
                )

    def _note_folders(self, names: dict[str, str]) -> None:
        """Notes folders that may be the actual classes or splits."""
        deep = [file.name for file in self._images if file.name.count("/") > self._depth + 1]
        inside = sorted({"/".join(name.split("/")[: self._depth + 2]) for name in deep})
        if len({name.rpartition("/")[2] for name in inside}) > 1:
            self._notes.append(
                f"The classes' folders hold folders, whose {plural(len(deep), 'image')} count for "
                f"the class around them: {several(inside)}."
            )
        if len(names) > 1 and {name.lower() for name in names} <= SPLIT_NAMES:
            self._notes.append(
                f"The classes have the names of splits: {several(sorted(names))}. Splits belong "
                "in --data_dir, and the classes' folders into them."
            )

    def _note_links(self) -> None:
        again = [link.name for link in self._listing.links if link.file is None]
        for what, found in (
            ("to what is read already, or contains it", again),
            ("to a file that does not exist", self._listing.broken),
        ):
            if found:
                links = plural(len(found), "symbolic link")
                self._notes.append(f"Skipped {links} {what}: {several(sorted(found))}.")

    def _note_skipped(self) -> None:
        listing = self._listing
        if self._others:
            self._notes.append(
                f"Skipped {plural(len(self._others), 'file')} that can't be read as images: "
                f"{_suffixes(self._others)}."
            )
        if listing.special:
            self._notes.append(f"Skipped {plural(listing.special, 'special file')}.")
        if listing.ignored:
            counts = collections.Counter(n.rpartition("/")[2] for n in listing.ignored)
            self._notes.append(f"Ignored system and hidden folders: {_counts(counts)}.")
        if listing.hidden:
            self._notes.append(
                f"Ignored {plural(len(listing.hidden), 'hidden image')}: {several(listing.hidden)}."
            )

    def _only_others(self) -> str:
        files = [*self._others, *self._listing.broken]
        return f", only {self._counted(files)}" if files else ""

    def _counted(self, files: Sequence[str]) -> str:
        broken = set(self._listing.broken)
        links = sum(name in broken for name in files)
        found = [name for name in files if name not in broken]
        parts = [f"{plural(len(found), 'file')} ({_suffixes(found)})"] if found else []
        parts += [f"{plural(links, 'link')} to files that are not there"] if links else []
        return " and ".join(parts)

    def _found(self) -> str:
        counts = collections.Counter(
            "/".join(file.name.split("/")[:-1][:2]) for file in self._images
        )
        return _counts(counts, _SHOWN_FOLDERS, "{name}/ with {count}")


def _suffixes(names: Iterable[str]) -> str:
    suffixes = (pathlib.PurePosixPath(name).suffix.lower() for name in names)
    return _counts(collections.Counter(suffix or "without suffix" for suffix in suffixes))


def _counts(
    counts: collections.Counter[str],
    most: int = _SHOWN_COUNTS,
    form: str = "{count} {name}",
) -> str:
    """Counts for a message, the largest first."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    parts = [form.format(name=shown(n), count=f"{count:,}") for n, count in ordered[:most]]
    rest = sum(count for _, count in ordered[most:])
    return ", ".join([*parts, f"{rest:,} others"] if rest else parts)
