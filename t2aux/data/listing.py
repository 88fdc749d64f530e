"""The files of a tree of images, wherever it is: what a folder and an archive have in common.

Paths in a tree are relative to its root and have "/" between their parts. They are the bytes of the
names read as UTF-8; bytes that are not UTF-8 are surrogates (`errors="surrogateescape"`).
"""

from __future__ import annotations

import dataclasses
import functools
import re
from typing import NamedTuple

from t2aux import errors
from t2aux_ondevice.errors import printable
from t2aux_ondevice.images import has_image_suffix

# What operating systems, file servers and tools put beside a user's files, in lower case. Names
# that begin with a dot are ignored, too.
_SYSTEM_NAMES = frozenset(
    {
        *("@eadir", "@tmp", "@recycle", "#recycle", "#snapshot", "@snapshot", "~snapshot"),
        *("__macosx", "icon\r", "temporary items", "network trash folder"),
        *("$recycle.bin", "recycler", "system volume information", "thumbs.db", "ehthumbs.db"),
        *("desktop.ini", "autorun.inf", "picasa.ini", "_vti_cnf", "lost+found", "__pycache__"),
    }
)
# The streams that Synology stores beside files, what Windows repairs, what editors lock.
_SYSTEM_PATTERN = re.compile(r".*@syno(eastream|resource)|found\.\d{3}|~\$.*", re.IGNORECASE)


class File(NamedTuple):
    """A regular file.

    Attributes:
        name: Its path in the tree.
        place: Where its reader finds it: a path, or the number of an archive's member.
        is_image: Whether it is to be read as an image.
    """

    name: str
    place: str | int
    is_image: bool


class Link(NamedTuple):
    """A link to what is listed under another name.

    Attributes:
        name: Its path in the tree.
        target: The path in the tree of the file or folder that it leads to; None where this is
            outside the tree: a folder in which the tree or the link itself is.
        file: The file, where it counts as one under the link's name, too, if that is in the same
            class; None where it does not.
    """

    name: str
    target: str | None
    file: File | None = None


@dataclasses.dataclass
class Listing:
    """What a tree holds, apart from system files.

    Attributes:
        files: The regular files.
        folders: All folders, also those that links lead to, without the root.
        links: Links that are not followed.
        broken: Links that lead to nothing.
        special: Devices, sockets and the like.
        ignored: The system folders and hidden folders, which are not read.
        hidden: The hidden files that have an image's suffix, which are not read either.
    """

    files: list[File] = dataclasses.field(default_factory=list)
    folders: set[str] = dataclasses.field(default_factory=set)
    links: list[Link] = dataclasses.field(default_factory=list)
    broken: list[str] = dataclasses.field(default_factory=list)
    special: int = 0
    ignored: set[str] = dataclasses.field(default_factory=set)
    hidden: list[str] = dataclasses.field(default_factory=list)

    def ignores(self, name: str, *, is_folder: bool) -> bool:
        """Whether a path is a system's or hidden file or folder, or in one; if so, notes it."""
        parts = name.split("/")
        for number, part in enumerate(parts, start=1):
            if is_system_name(part):
                if is_folder or number < len(parts):
                    self.ignored.add("/".join(parts[:number]))
                # "._x.png" is what macOS stores beside x.png.
                elif has_image_suffix(part) and not part.startswith("._"):
                    self.hidden.append(name)
                return True
        return False

    def add_folders_of(self, name: str) -> None:
        """Adds the folders in which `name` is."""
        while (name := name.rpartition("/")[0]) and name not in self.folders:
            self.folders.add(name)


@functools.lru_cache(maxsize=1024)
def is_system_name(part: str) -> bool:
    """Whether one part of a path is a system's or hidden file or folder."""
    return (
        part.startswith(".")
        or part.lower() in _SYSTEM_NAMES
        or _SYSTEM_PATTERN.fullmatch(part) is not None
    )


def shown(name: str) -> str:
    r"""A path for a message: bytes that are not UTF-8 as \xNN, and no line breaks."""
    return printable(re.sub("[\udc80-\udcff]", lambda m: f"\\x{ord(m[0]) - 0xDC00:02x}", name))


def several(names: list[str]) -> str:
    """A few of the names for a message, and how many more there are."""
    return errors.listing(map(shown, names), 3)


def plural(count: int, what: str) -> str:
    """A number and its noun: 1 file, 2 files."""
    return f"{count:,} {what}" + ("" if count == 1 else "s")
