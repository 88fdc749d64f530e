"""Trees of images as people have them: links, system files, wrappers, other formats and names."""

import os
import unicodedata

import pytest

from t2aux.data import image_tree
from t2aux.data.table import read_class_names
from t2aux.errors import DataError
from tests.image_trees import (
    ARCHIVES,
    BOTH,
    EXPECTED,
    archive,
    files,
    found,
    picture,
    read,
    refused,
    write,
    zipped,
)


@pytest.fixture
def folder(tmp_path):
    return write(tmp_path, files(*BOTH))


def test_nothing_is_said_where_nothing_is_odd(folder):
    assert found(folder) == (EXPECTED, "")


# Links in folders.


@pytest.mark.parametrize(
    "links",
    [
        {"cat/up": ".."},
        {"cat/up": "..", "dog/up": ".."},
        {"cat/self": "."},
        {"cat/out": "../.."},
        {"cat/root": "/"},
        {"loop": "."},
        {"cat/a": "b", "cat/b": "a"},
    ],
)
def test_links_that_lead_back_are_not_followed(folder, links):
    write(folder, files("cat/9.png"), "test")
    for name, target in links.items():
        (folder / "train" / name).symlink_to(target)
    values, notes = found(folder)
    assert values == EXPECTED
    assert all(name in notes for name in links)


@pytest.mark.parametrize("links", [{"cat/more": "../dog"}, {"cat/x": "../dog", "dog/y": "../cat"}])
def test_links_to_another_class_are_refused(folder, links):
    for name, target in links.items():
        (folder / "train" / name).symlink_to(target)
    refused(folder, "another class", next(iter(links)))


@pytest.mark.parametrize(("name", "target"), [("dog/5.png", "../cat/1.png"), ("kitty", "cat")])
def test_one_file_in_two_classes_is_refused(folder, name, target):
    (folder / "train" / name).symlink_to(target)
    refused(folder, "another class", name, target.removeprefix("../"))


def test_links_lead_elsewhere(folder):
    """To a class, to a part of one, and to files; each real file counts once."""
    store = folder / "store"
    write(store, files("owl/1.png", "more/2.png", "7.png"), ".")
    train = folder / "train"
    (train / "owl").symlink_to(store / "owl")
    (train / "cat" / "more").symlink_to("../../store/more")
    (train / "cat" / "again").symlink_to(store / "more")
    (train / "cat" / "again.png").symlink_to(store / "more" / "2.png")
    (train / "dog" / "7.png").symlink_to(store / "7.png")
    (train / "dog" / "8.png").symlink_to(store / "7.png")
    (train / "dog" / "same.png").symlink_to("3.png")
    (train / "dog" / "gone.png").symlink_to("gone")
    (store / "more" / "back").symlink_to(store)
    values, notes = found(folder)
    assert values == {"cat": [1, 2, 2], "dog": [3, 3, 4], "owl": [1]}
    for part in ("5 symbolic links", "cat/more", "cat/again.png", "gone.png"):
        assert part in notes


def test_links_to_one_folder_from_two_classes_are_refused(tmp_path):
    write(tmp_path / "store", files("1.png"), ".")
    train = write(tmp_path, files("ant/0.png")) / "train"
    for name in ("cat", "dog"):
        (train / name).symlink_to(tmp_path / "store")
    refused(tmp_path, "another class", "cat", "dog")


def test_a_tree_may_be_a_link_and_its_files_hidden_elsewhere(tmp_path):
    """As git-annex has it: files are links to a hidden folder; and so may the tree be."""
    write(tmp_path, files("a", "b"), "repository/.git/annex")
    for name, target in {"cat/1.png": "a", "dog/2.png": "b"}.items():
        link = tmp_path / "repository" / name
        link.parent.mkdir()
        link.symlink_to(f"../.git/annex/{target}")
    (tmp_path / "train").symlink_to("repository")
    assert found(tmp_path)[0] == {"cat": [1], "dog": [2]}


def test_hard_links_are_files(folder):
    os.link(folder / "train/dog/3.png", folder / "train/dog/9.png")
    assert found(folder) == ({"cat": [1, 2], "dog": [3, 3, 4]}, "")


def test_devices_are_not_read(folder):
    os.mkfifo(folder / "train/cat/pipe.png")
    values, notes = found(folder)
    assert values == EXPECTED
    assert "1 special file" in notes


# System files.

JUNK = {
    "@eaDir": "cat/1.png/SYNOFILE_THUMB_M.jpg",
    "#recycle": "x.png",
    "$RECYCLE.BIN": "S-1-5/$R1.png",
    "System Volume Information": "x.png",
    "lost+found": "x.png",
    "__MACOSX": "cat/._1.png",
    ".git": "x.png",
    ".ipynb_checkpoints": "x.png",
    ".thumbnails": "x.png",
    ".@__thumb": "x.png",
    "@Recycle": "x.png",
    "found.000": "x.png",
    ".Trash-1000": "files/x.png",
    ".AppleDouble": "x.png",
    "_vti_cnf": "x.png",
    "__pycache__": "x.pyc",
}
QUIET = ("Thumbs.db", ".DS_Store", "._1.png", "desktop.ini", "Icon\r", "1.png@SynoEAStream")


@pytest.mark.parametrize("suffix", ["", *ARCHIVES])
def test_system_files_are_ignored(tmp_path, suffix):
    contents = {**files(*BOTH)}
    for name, file in JUNK.items():
        contents |= {f"{name}/{file}": picture(), f"cat/{name}/{file}": picture()}
    contents |= dict.fromkeys((f"cat/{name}" for name in QUIET), b"x")
    contents["dog/.hidden.png"] = picture()
    if suffix:
        archive(tmp_path / f"train.{suffix}", contents)
    else:
        write(tmp_path, contents)
    values, notes = found(tmp_path)
    assert values == EXPECTED
    assert "2 @eaDir" in notes
    assert ".hidden.png" in notes
    assert "Skipped" not in notes


# What is not an image.


@pytest.mark.parametrize("suffix", ["", *ARCHIVES])
def test_every_format_is_read(tmp_path, suffix):
    kinds = {"jfif": "jpeg", "jpe": "jpeg", "JPG": "jpeg", "avif": "avif", "pnm": "ppm"}
    kinds |= {
        "pbm": "ppm",
        "dib": "dib",
        "mpo": "mpo",
        "tga": "tga",
        "ico": "png",
        "jp2": "jpeg2000",
    }
    kinds |= {"qoi": "qoi", "pcx": "pcx", "sgi": "sgi", "apng": "png", "jpg_large": "jpeg"}
    contents = {
        f"cat/{number}.{suffix}": picture(kind=kind, mode="RGB")
        for number, (suffix, kind) in enumerate(kinds.items())
    }
    for number, kind in enumerate(["png", "jpeg", "gif", "webp", "tiff", "bmp", "ppm", "avif"]):
        contents[f"dog/{number}"] = picture(kind=kind, mode="RGB")
    if suffix:
        archive(tmp_path / f"train.{suffix}", contents)
    else:
        write(tmp_path, contents)
    values, notes = found(tmp_path)
    assert {name: len(held) for name, held in values.items()} == {"cat": len(kinds), "dog": 8}
    assert "Skipped" not in notes


@pytest.mark.parametrize("suffix", ["", *ARCHIVES])
def test_what_is_skipped_is_counted(tmp_path, suffix):
    contents = {
        **files(*BOTH, "cat/a.txt", "dog/b.TXT", "dog/c.heic", "README"),
        "cat/raw.nef": picture(kind="tiff"),
        "cat/more.zip": b"PK",
        "cat/cloud.pcd": b"# .PCD v.7 - Point Cloud Data",
        "cat/drawing.vst": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(99),
        "cat/raw.rgb": bytes(300),
        "cat/depth.pfm": b"Pf\n1 1\n-1\n" + bytes(4),
        "dog/bmx": b"BMX is a sport, P6 a format",
        "README": b"P5 is another",
    }
    contents["dog/b.TXT"] = b"GIF"
    if suffix:
        archive(tmp_path / f"train.{suffix}", contents)
    else:
        write(tmp_path, contents)
    values, notes = found(tmp_path)
    assert values == EXPECTED
    assert "11 files" in notes
    for part in (
        "2 .txt",
        "2 without suffix",
        "1 .heic",
        "1 .nef",
        "1 .zip",
        "1 .pcd",
        "1 .vst",
        "1 .rgb",
    ):
        assert part in notes


@pytest.mark.parametrize("suffix", ["", *ARCHIVES])
def test_a_class_without_readable_images_is_refused(tmp_path, suffix):
    contents = files(*BOTH, "owl/a.heic", "owl/sub/b.heic")
    if suffix:
        archive(tmp_path / f"train.{suffix}", contents)
    else:
        write(tmp_path, contents)
    refused(tmp_path, "owl", "2 .heic")


def test_a_class_of_broken_links_is_refused(folder):
    (folder / "train/owl").mkdir()
    (folder / "train/owl/1.png").symlink_to("../.git/annex/1")
    refused(folder, "owl", "1 link ")


def test_an_empty_class_is_named(folder):
    (folder / "train/owl").mkdir()
    values, notes = found(folder)
    assert values == EXPECTED
    assert "owl" in notes


def test_the_error_for_a_tree_of_other_files_names_them(tmp_path):
    refused(write(tmp_path, files("cat/1.heic", "dog/2.heic")), "/train ", "2 .heic", "<class>/")


# Folders around the classes.


@pytest.mark.parametrize("suffix", ["", *ARCHIVES])
@pytest.mark.parametrize("around", ["photos", "train", "data/train", "a/b/c"])
def test_folders_around_the_classes_are_passed_through(tmp_path, suffix, around):
    for split, top in (("train", around), ("test", "others")):
        contents = {f"{top}/{name}": content for name, content in files(*BOTH).items()}
        contents |= {"README.txt": b"text", "__MACOSX/photos/._cat": b"x"}
        if suffix:
            archive(tmp_path / f"{split}.{suffix}", contents)
        else:
            write(tmp_path, contents, split)
    values, notes = found(tmp_path)
    assert values == EXPECTED
    assert f"{around}/" in notes
    assert found(tmp_path, "test")[0] == EXPECTED


def test_folders_in_classes_are_not_classes(tmp_path):
    write(tmp_path, files("cat/2019/1.png", "cat/2020/2.png", "dog/3.png", "dog/a/b/4.png"))
    # The only folder of the test tree is a class all the same.
    write(tmp_path, files("cat/2019/1.png", "cat/2020/2.png"), "test")
    assert found(tmp_path)[0] == EXPECTED
    assert found(tmp_path, "test")[0] == {"cat": [1, 2], "dog": []}
    info = read(tmp_path).info
    assert found(tmp_path, "test", info=info)[0] == {"cat": [1, 2], "dog": []}


def test_a_folder_beside_the_only_class_is_not_passed_over(tmp_path):
    """cat/ is not around the classes "2019" and "2020"."""
    write(tmp_path, files("cat/2019/1.png", "cat/2020/2.png", "owl/a.heic"))
    refused(tmp_path, "owl", "1 .heic")


def test_splits_are_not_classes(tmp_path):
    zipped(tmp_path / "train.zip", "d/train/cat/1.png", "d/test/cat/2.png")
    refused(tmp_path, "train.zip", "test, train", "splits", "--data_dir")


def test_the_upper_levels_of_a_tree_are_shown(tmp_path):
    path = write(tmp_path, files("photos/1.png", "photos/b/2.png", "photos/b/c/3.png")) / "train"
    assert image_tree.read_tree(path).found == f"{path} holds photos/b/ with 2, photos/ with 1"


# Names.


def test_a_folder_whose_name_is_not_utf8(tmp_path):
    path = os.fsencode(tmp_path / "train") + b"/d\xf6g"
    write(tmp_path, files("cat/1.png"))
    os.mkdir(path)
    with open(path + b"/2.png", "wb") as file:
        file.write(picture())
    refused(tmp_path, r"d\xf6g", "UTF-8", "rename")
    # A file's own name does not matter.
    os.rename(path, tmp_path / "train" / "dog")
    os.rename(tmp_path / "train/dog/2.png", os.fsencode(tmp_path / "train/dog") + b"/\xf6.png")
    assert found(tmp_path)[0] == {"cat": [1], "dog": [0]}


@pytest.mark.parametrize("suffix", ["", *ARCHIVES])
def test_names_are_compared_in_one_normal_form(tmp_path, suffix):
    composed, decomposed = (unicodedata.normalize(form, "caf\u00e9") for form in ("NFC", "NFD"))
    trees = {"train": (decomposed, composed), "test": (decomposed,)}
    for split, names in trees.items():
        contents = files("dog/1.png", *(f"{name}/{n}.png" for n, name in enumerate(names)))
        if suffix:
            archive(tmp_path / f"{split}.{suffix}", contents)
        else:
            write(tmp_path, contents, split)
    assert found(tmp_path)[0] == {composed: [2, 3], "dog": [1]}
    assert found(tmp_path, "test")[0] == {composed: [2], "dog": [1]}


def test_a_classifier_keeps_the_names_that_it_has(tmp_path):
    write(tmp_path, files("caf\u00e9/1.png", "dog/2.png"), "test")
    write(tmp_path, files("caf\u00e9/1.png", "dog/2.png"))
    info = read(tmp_path).info
    old = type(info).from_json({**info.to_json(), "classes": ["cafe\u0301", "dog"]})
    assert found(tmp_path, "test", info=old)[0] == {"cafe\u0301": [1], "dog": [2]}


def test_names_in_classes_txt_are_in_one_normal_form(tmp_path):
    path = tmp_path / "classes.txt"
    path.write_text("cafe\u0301\ndog\n", encoding="utf-8")
    assert read_class_names(path) == ("caf\u00e9", "dog")
    path.write_text("cafe\u0301\ncaf\u00e9\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"classes\.txt .*'caf\u00e9'"):
        read_class_names(path)


def test_names_that_differ_in_case_are_two_classes(tmp_path):
    write(tmp_path, files("Cat/1.png", "cat/2.png"))
    assert found(tmp_path)[0] == {"Cat": [1], "cat": [2]}


def test_links_out_of_the_tree_are_followed(tmp_path):
    write(tmp_path, files(*BOTH))
    write(tmp_path, files("cat/8.png", "cat/9.png", "dog/8.png"), "test")
    os.symlink("../../test/cat", tmp_path / "train" / "cat" / "more")
    os.symlink("../../test/dog/8.png", tmp_path / "train" / "dog" / "8.png")
    assert {name: len(held) for name, held in found(tmp_path)[0].items()} == {"cat": 4, "dog": 3}


def test_folders_in_the_classes_and_splits_as_classes_are_noted(tmp_path):
    write(tmp_path, files("animal/cat/0.png", "animal/owl/0.png", "plant/oak/0.png"))
    assert "animal/cat, animal/owl, plant/oak" in found(tmp_path)[1]
    write(tmp_path / "other", files("train/0.png", "test/1.png"))
    assert "names of splits: test, train" in found(tmp_path / "other")[1]
