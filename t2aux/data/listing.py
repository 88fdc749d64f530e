"""The listing of the files of a tree of images, shared by folders and archives.

Paths in a tree are relative to its root and are separated by "/". They are decoded as UTF-8; bytes
that are not UTF-8 become surrogates (`errors="surrogateescape"`).
"""

from __future__ import annotations

import dataclasses
import functools
import re
from typing import NamedTuple

from t2aux import errors
from t2aux_ondevice.errors import printable
from t2aux_ondevice.images import has_image_suffix

# Names, in lower case, that operating systems, file servers and tools create beside a user's files.
# Names that begin with a dot are ignored, too.
_SYSTEM_NAMES = frozenset(
    {
        *("@eadir", "@tmp", "@recycle", "#recycle", "#snapshot", "@snapshot", "~snapshot"),
        *("__macosx", "icon\r", "temporary items", "network trash folder"),
        *("$recycle.bin", "recycler", "system volume information", "thumbs.db", "ehthumbs.db"),
        *("desktop.ini", "autorun.inf", "picasa.ini", "_vti_cnf", "lost+found", "__pycache__"),
    }
)
# Synology's streams beside files, files recovered by Windows, and lock files of editors.
_SYSTEM_PATTERN = re.compile(r".*@syno(eastream|resource)|found\.\d{3}|~\$.*", re.IGNORECASE)


class File(NamedTuple):
    """A regular file.

    Attributes:
        name: The path in the tree.
        place: The location for the reader: a path, or the number of an archive's member.
        is_image: Whether the file is read as an image.
    """

    name: str
    place: str | int
    is_image: bool


class Link(NamedTuple):
    """A link to a file or folder that is listed under another name.

    Attributes:
        name: The path of the link in the tree.
        target: The path in the tree of the file or folder that the link leads to; None if that is
            outside the tree, that is, a folder that contains the tree or the link.
        file: The file, if it may also count under the link's name (it does if both are in the same
            class); otherwise None.
    """

    name: str
    target: str | None
    file: File | None = None


@dataclasses.dataclass
class Listing:
    """The content of a tree, without system files.

    Attributes:
        files: The regular files.
        folders: All folders except the root, including those that links lead to.
        links: Links that are not followed.
        broken: Broken links.
        special: The number of devices, sockets and the like.
        ignored: The system folders and hidden folders, which are not read.
        hidden: The hidden files with an image suffix, which are not read either.
    """

    files: list[File] = dataclasses.field(default_factory=list)
    folders: set[str] = dataclasses.field(default_factory=set)
    links: list[Link] = dataclasses.field(default_factory=list)
    broken: list[str] = dataclasses.field(default_factory=list)
    special: int = 0
    ignored: set[str] = dataclasses.field(default_factory=set)
    hidden: list[str] = dataclasses.field(default_factory=list)

    def ignores(self, name: str, *, is_folder: bool) -> bool:
        """Whether a path is a system or hidden file or folder, or inside one; if so, records it."""
        parts = name.split("/")
        for number, part in enumerate(parts, start=1):
            if is_system_name(part):
                if is_folder or number < len(parts):
                    self.ignored.add("/".join(parts[:number]))
                # macOS stores "._x.png" beside x.png.
                elif has_image_suffix(part) and not part.startswith("._"):
                    self.hidden.append(name)
                return True
        return False

    def add_folders_of(self, name: str) -> None:
        """Adds the folders that contain `name`."""
        while (name := name.rpartition("/")[0]) and name not in self.folders:
            self.folders.add(name)


@functools.lru_cache(maxsize=1024)
def is_system_name(part: str) -> bool:
    """Whether one part of a path is the name of a system or hidden file or folder."""
    return (
        part.startswith(".")
        or part.lower() in _SYSTEM_NAMES
        or _SYSTEM_PATTERN.fullmatch(part) is not None
    )


def shown(name: str) -> str:
    r"""A path for a message: without line breaks, and with bytes that are not UTF-8 as \xNN."""
    return printable(re.sub("[\udc80-\udcff]", lambda m: f"\\x{ord(m[0]) - 0xDC00:02x}", name))


def several(names: list[str]) -> str:
    """A few of the names, and the number of the others, for a message."""
    return errors.listing(map(shown, names), 3)


def plural(count: int, what: str) -> str:
    """A number and its noun: 1 file, 2 files."""
    return f"{count:,} {what}" + ("" if count == 1 else "s")
