"""What tar and zip archives of images hold besides plain members."""

import stat
import tarfile
import zipfile

import pytest

from t2aux.errors import FileError
from tests.image_trees import (
    ARCHIVES,
    BOTH,
    EXPECTED,
    entry,
    files,
    found,
    picture,
    read,
    refused,
    tar,
    zipped,
)


@pytest.mark.parametrize("suffix", ["tar", "tar.gz"])
def test_links_in_a_tar_are_read(tmp_path, suffix):
    tar(
        tmp_path / f"train.{suffix}",
        entry("./dog/late.png", "7.png"),
        "./cat/2.png",
        "dog/3.png",
        entry("dog/9.png", "./dog/3.png", tarfile.LNKTYPE),
        entry("dog/8.png", "9.png"),
        entry("dog/chain.png", "../dog/./8.png"),
        "dog/7.png",
        entry("cat/up", ".."),
        entry("dog/notes.txt", "/gone"),
    )
    values, notes = found(tmp_path)
    assert values == {"cat": [2], "dog": [3, 3, 3, 3, 7, 7]}
    assert "cat/up" in notes
    assert len(read(tmp_path, max_examples=3)) == 3


@pytest.mark.parametrize(
    "link",
    [
        entry("dog/9.png", "/etc/passwd"),
        entry("dog/9.png", "../../x.png"),
        entry("dog/9.png", "gone.png"),
        entry("dog/9.png", "9.png"),
        entry("dog", "/data/dog"),
        entry("dog/9.png", "dog/gone.png", tarfile.LNKTYPE),
        entry("dog/9.png", "../cat/1.png"),
    ],
)
def test_links_out_of_an_archive_or_a_class_are_refused(tmp_path, link):
    tar(tmp_path / "train.tar", "cat/1.png", "cow/2.png", link)
    refused(tmp_path, link.name, link.linkname.removeprefix("../"))


def test_links_in_a_zip_are_read(tmp_path):
    link = zipfile.ZipInfo("dog/9.png")
    link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    path = tmp_path / "train.zip"
    zipped(path, "cat/1.png", (link, b"3.png"), "dog/3.png")
    assert found(tmp_path)[0] == {"cat": [1], "dog": [3, 3]}
    zipped(path, "cat/1.png", (link, b"/etc/passwd"), "dog/3.png")
    refused(tmp_path, "dog/9.png", "/etc/passwd")


@pytest.mark.parametrize("name", ["TRAIN.ZIP", "Train.Zip"])
def test_names_in_capitals(tmp_path, name):
    zipped(tmp_path / name, "cat/1.png", "dog/2.png")
    assert found(tmp_path)[0] == {"cat": [1], "dog": [2]}


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("suffix", ARCHIVES)
def test_the_last_member_of_a_name_counts(tmp_path, suffix):
    pack = zipped if suffix == "zip" else tar
    names = ("cat/1.png", "dog/2.png", "./cat/1.png", "dog/4.png")
    pack(tmp_path / f"train.{suffix}", *names)
    assert found(tmp_path)[0] == {"cat": [3], "dog": [2, 4]}


def test_a_hard_link_keeps_what_is_replaced_later(tmp_path):
    link = entry("dog/old.png", "dog/1.png", tarfile.LNKTYPE)
    tar(tmp_path / "train.tar", "dog/1.png", link, "dog/1.png", "cat/4.png")
    assert found(tmp_path)[0] == {"cat": [4], "dog": [1, 3]}


@pytest.mark.parametrize("suffix", ARCHIVES)
def test_names_lead_nowhere_outside(tmp_path, suffix):
    pack = zipped if suffix == "zip" else tar
    pack(tmp_path / f"train.{suffix}", "/cat/1.png", "../../dog/2.png", "cat/../cat/3.png")
    assert found(tmp_path)[0] == {"cat": [1, 3], "dog": [2]}


@pytest.mark.parametrize("system", [0, 3, 10])
def test_backslashes_in_a_zip_separate(tmp_path, system):
    members = []
    for name, content in (("photos\\cat\\", b""), *files(*BOTH).items()):
        info = zipfile.ZipInfo("x")
        info.filename = f"photos\\{name}".replace("/", "\\") if content else name
        info.create_system = system
        members.append((info, content))
    zipped(tmp_path / "train.zip", *members)
    assert found(tmp_path)[0] == EXPECTED


def test_an_encrypted_zip_is_named(tmp_path):
    zipped(tmp_path / "train.zip", "cat/1.png", "dog/2.png")
    content = bytearray((tmp_path / "train.zip").read_bytes())
    place = content.rindex(b"PK\1\2")
    content[place + 8] |= 1
    (tmp_path / "train.zip").write_bytes(content)
    refused(tmp_path, "dog/2.png", "encrypted", kind=FileError)


def with_raw_name(tmp_path, raw, system=0):
    """A zip whose second class has a name of these bytes, without the flag of UTF-8."""
    info = zipfile.ZipInfo("?" * len(raw) + "/2.png")
    info.create_system = system
    zipped(tmp_path / "train.zip", "cat/1.png", (info, picture(2)))
    path = tmp_path / "train.zip"
    path.write_bytes(path.read_bytes().replace(b"?" * len(raw) + b"/", raw + b"/"))
    return tmp_path


def test_names_in_a_zip_are_utf8_or_refused(tmp_path):
    # These bytes are valid UTF-8, too.
    gbk = "\u732b\u72ac".encode("gbk")
    refused(with_raw_name(tmp_path, gbk), "UTF-8", r"\xc3\xa8", "train.zip")
    refused(with_raw_name(tmp_path, b"caf\xe9", system=3), "UTF-8", r"caf\xe9")
    # As macOS writes them.
    assert list(found(with_raw_name(tmp_path, "\u732b".encode(), system=3))[0]) == ["cat", "\u732b"]


def test_names_in_a_tar_are_utf8_or_refused(tmp_path):
    name = b"d\xf6g/2.png".decode("utf-8", "surrogateescape")
    tar(tmp_path / "train.tar", "cat/1.png", name)
    refused(tmp_path, "UTF-8", r"d\xf6g")
    tar(tmp_path / "train.tar", "cat/1.png", name.replace("/", "_"), "dog/3.png")
    refused(tmp_path, r" d\xf6g_2.png ", "<class>/")
