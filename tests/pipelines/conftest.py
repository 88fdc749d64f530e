"""Small exports, tables for them, and a file system that is not this machine's."""

import io
import types
from typing import ClassVar

import pytest

pytest.importorskip("apache_beam", reason="needs the extra beam")

from apache_beam.io.filesystem import BeamIOError, FileMetadata, FileSystem

from tests import cli_helpers, small_exports

KINDS = {
    "texts": small_exports.TEXT,
    "images": small_exports.IMAGES,
    "vectors": small_exports.VECTORS,
}


@pytest.fixture(scope="session")
def exports(tmp_path_factory):
    """Gives the directory of an export by the kind of its data."""
    made = {}

    def export(kind):
        if kind not in made:
            folder = tmp_path_factory.mktemp(kind) / "export"
            small_exports.write(folder / "1", KINDS[kind])
            made[kind] = folder
        return made[kind]

    return export


class Buckets(FileSystem):
    """An object store in memory: bucket://NAME/...; no folders, files appear when they are closed.

    Beam finds it by its scheme, in this process alone.
    """

    files: ClassVar[dict[str, bytes]] = {}

    @classmethod
    def scheme(cls):
        return "bucket"

    def join(self, basepath, *paths):
        return "/".join([basepath.rstrip("/"), *paths])

    def split(self, path):
        folder, _, name = path.rpartition("/")
        return folder, name

    def mkdirs(self, path):
        raise BeamIOError(f"{path}: there are no folders")

    def has_dirs(self):
        return False

    def _list(self, dir_or_prefix):
        for path, content in sorted(self.files.items()):
            if path.startswith(dir_or_prefix):
                yield FileMetadata(path, len(content))

    def create(self, path, mime_type="", compression_type=None):
        files = self.files

        class File(io.BytesIO):
            def close(self):
                if not self.closed:
                    files[path] = self.getvalue()
                super().close()

        return File()

    def open(self, path, mime_type="", compression_type=None):
        if path not in self.files:
            raise BeamIOError(f"{path} is not there")
        return io.BytesIO(self.files[path])

    def copy(self, source_file_names, destination_file_names):
        for source, target in zip(source_file_names, destination_file_names, strict=True):
            self.files[target] = self.files[source]

    def rename(self, source_file_names, destination_file_names):
        self.copy(source_file_names, destination_file_names)
        for source in source_file_names:
            del self.files[source]

    def exists(self, path):
        return path in self.files

    def size(self, path):
        return len(self.files[path])

    def last_updated(self, path):
        return 0.0

    def checksum(self, path):
        return str(hash(self.files[path]))

    def metadata(self, path):
        return FileMetadata(path, len(self.files[path]))

    def delete(self, paths):
        for path in paths:
            if path not in self.files:
                raise BeamIOError(f"{path} is not there")
            del self.files[path]


class Folders(Buckets):
    """As HDFS is to Beam, in memory: lists one folder, replaces no file."""

    files: ClassVar[dict[str, bytes]] = {}
    folders: ClassVar[set[str]] = {"folders://b"}

    @classmethod
    def scheme(cls):
        return "folders"

    def mkdirs(self, path):
        if path in self.folders:
            raise BeamIOError(f"{path} is there")
        while path not in self.folders and path != "folders:/":
            self.folders.add(path)
            path = path.rpartition("/")[0]

    def has_dirs(self):
        return True

    def _url_dirname(self, url_or_path):
        return url_or_path.rpartition("/")[0]

    def _list(self, dir_or_prefix):
        if dir_or_prefix not in self.folders:
            raise BeamIOError(f"{dir_or_prefix} is not a folder")
        for path in sorted({*self.files, *self.folders}):
            if path.rpartition("/")[0] == dir_or_prefix:
                yield FileMetadata(path, len(self.files.get(path, b"")))

    def create(self, path, mime_type="", compression_type=None):
        if path in self.files or path.rpartition("/")[0] not in self.folders:
            raise BeamIOError(f"{path} is there, or its folder is not")
        return super().create(path)

    def rename(self, source_file_names, destination_file_names):
        for target in destination_file_names:
            if target in self.files or target.rpartition("/")[0] not in self.folders:
                raise BeamIOError(f"{target} is there, or its folder is not")
        super().rename(source_file_names, destination_file_names)

    def exists(self, path):
        return path in self.files or path in self.folders

    def metadata(self, path):
        return FileMetadata(path, len(self.files.get(path, b"")))

    def delete(self, paths):
        for path in paths:
            for inner in [p for p in self.files if p == path or p.startswith(f"{path}/")]:
                del self.files[inner]
            self.folders -= {p for p in self.folders if p == path or p.startswith(f"{path}/")}


@pytest.fixture(params=[Buckets, Folders], ids=["objects", "folders"])
def bucket(request):
    """An empty one: `root`, `files` by their URLs, and `add` to copy a file or a folder into it."""
    system = request.param
    root = f"{system.scheme()}://b"

    def clear():
        system.files.clear()
        if system is Folders:
            system.folders.intersection_update({root})

    def add(path, name):
        found = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
        for file in found:
            inside = "" if path.is_file() else f"/{file.relative_to(path).as_posix()}"
            url = f"{root}/{name}{inside}"
            if system is Folders and url.rpartition("/")[0] not in system.folders:
                system(None).mkdirs(url.rpartition("/")[0])
            system.files[url] = file.read_bytes()
        return f"{root}/{name}"

    clear()
    yield types.SimpleNamespace(root=root, files=system.files, add=add)
    clear()


def write_table(path, rows, start=0):
    """A table of texts of many lengths and their classes."""
    lines = [
        f'{i},"{"abcd, "[i % 4 :] * (i % 17 + 1)}{"f" * (i % 23)}",class {i % 3}\n'
        for i in range(start, start + rows)
    ]
    path.write_text("id,text,label\n" + "".join(lines))
    return path


def run_all(*commands):
    """Runs commands in processes that have imported Beam, which takes a second."""
    return cli_helpers.run_all(commands, ["t2aux.pipelines.convert", "t2aux.pipelines.predict"])
