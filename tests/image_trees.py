"""Trees of tiny images, as folders and as archives, for the tests of `image_folder`."""

import io
import tarfile
import zipfile

import numpy as np
import pytest
from PIL import Image

from t2aux.errors import DataError
from tests.sources import load

ARCHIVES = ("tar", "tar.gz", "zip")


def picture(number=0, kind="png", mode="L"):
    image = Image.fromarray(np.full((2, 2), number, np.uint8)).convert(mode)
    stream = io.BytesIO()
    image.save(stream, kind)
    return stream.getvalue()


def files(*names):
    """Pictures of 1, 2, ... by name; what has a text's suffix is a text."""
    return {
        name: b"some text" if name.endswith((".txt", ".ini", ".heic")) else picture(number)
        for number, name in enumerate(names, start=1)
    }


def write(place, contents, split="train"):
    """Writes a tree in the folder `place`, as a folder."""
    for name, content in contents.items():
        path = place / split / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return place


def entry(name, target=None, kind=tarfile.SYMTYPE):
    info = tarfile.TarInfo(name)
    if target is not None:
        info.type, info.linkname = kind, target
    return info


def tar(path, *members):
    """Writes an archive of names, (name, content), and headers without content."""
    mode = "w:gz" if path.suffix == ".gz" else "w"
    with tarfile.open(path, mode) as archive:
        for number, member in enumerate(members, start=1):
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
                continue
            name, content = member if isinstance(member, tuple) else (member, picture(number))
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path.parent


def zipped(path, *members):
    """Writes an archive of names, and of (ZipInfo or name, content)."""
    with zipfile.ZipFile(path, "w") as archive:
        for number, member in enumerate(members, start=1):
            name, content = member if isinstance(member, tuple) else (member, picture(number))
            if isinstance(name, str):
                info = zipfile.ZipInfo(name)
                info.filename = name
                name = info
            archive.writestr(name, content)
    return path.parent


def archive(path, contents):
    pack = zipped if path.suffix == ".zip" else tar
    return pack(path, *contents.items())


def read(folder, split="train", **options):
    return load(split, name="image_folder", data_dir=str(folder), grey=True, **options)


def found(folder, split="train", **options):
    """The values of the pictures of each class, and the notes as one text."""
    split = read(folder, split, **options)
    values = {name: [] for name in split.info.classes}
    for index, label in enumerate(split.labels):
        values[split.info.classes[label]].append(round(255 * float(split.example(index)[0, 0])))
    return {name: sorted(held) for name, held in values.items()}, "\n".join(split.notes)


def refused(folder, *parts, split="train", kind=DataError):
    with pytest.raises(kind) as caught:
        read(folder, split)
    for part in parts:
        assert part in str(caught.value)


BOTH = ("cat/1.png", "cat/2.png", "dog/3.png", "dog/4.png")
EXPECTED = {"cat": [1, 2], "dog": [3, 4]}
