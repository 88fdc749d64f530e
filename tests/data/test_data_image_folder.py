import io
import tarfile
import zipfile

import numpy as np
import pytest
from PIL import Image

from t2aux.errors import DataError, FileError, SettingError
from tests.image_trees import files, write
from tests.sources import load

CLASSES = ("ant", "bee", "cat")


def image_bytes(pixels, suffix="png"):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "jpeg" if suffix == "jpg" else suffix)
    return buffer.getvalue()


def pixels_of(label, number, shape=(4, 4, 3)):
    return np.random.default_rng([label, number]).integers(0, 256, shape).astype(np.uint8)


def tree(count=3, classes=CLASSES):
    """The files of a tree: {"ant/0.png": content}, in no particular order."""
    files = {
        f"{name}/{number}.png": image_bytes(pixels_of(label, number))
        for number in range(count)
        for label, name in enumerate(classes)
    }
    return dict(sorted(files.items(), reverse=True))


def write_folder(path, files):
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)


def write_tar(path, files, prefix=""):
    with tarfile.open(
        path, "w:" + {"gz": "gz", "tgz": "gz", "xz": "xz"}.get(path.suffix[1:], "")
    ) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(prefix + name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def write_zip(path, files, prefix=""):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(prefix + "ant/", "")
        for name, content in files.items():
            archive.writestr(prefix + name, content)


def read(folder, split="train", **arguments):
    return load(split, name="image_folder", data_dir=str(folder), **arguments)


@pytest.fixture
def folder(tmp_path):
    write_folder(tmp_path / "train", tree())
    write_folder(tmp_path / "test", tree(2))
    return tmp_path


def test_reads_a_folder(folder):
    split = read(folder)
    assert split.info.classes == CLASSES
    assert (split.info.side, split.info.channels, len(split)) == (4, 3, 9)
    assert split.labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    expected = pixels_of(1, 2).reshape(16, 3).astype(np.float32) / np.float32(255)
    np.testing.assert_array_equal(split.example(5), expected)
    test = read(folder, "test")
    assert (test.info, test.labels.tolist()) == (split.info, [0, 0, 1, 1, 2, 2])


def test_grey_side_and_permutation(folder):
    split = read(folder, grey=True, side=3, permutation_seed=4)
    assert (split.info.channels, split.info.length) == (1, 9)
    np.testing.assert_array_equal(split.example(5), split.info.image_sequence(pixels_of(1, 2)))


@pytest.mark.parametrize("prefix", ["", "./", "train/"])
@pytest.mark.parametrize("suffix", ["tar", "tar.gz", "tgz", "tar.xz", "zip"])
def test_reads_an_archive_as_it_reads_the_folder(tmp_path, suffix, prefix):
    write = write_zip if suffix == "zip" else write_tar
    write(tmp_path / f"train.{suffix}", tree(), prefix)
    split = read(tmp_path)
    assert split.info.classes == CLASSES
    # In the order of the archive, the reverse of that of the names.
    assert split.labels.tolist() == [2, 2, 2, 1, 1, 1, 0, 0, 0]
    expected = pixels_of(1, 2).reshape(16, 3).astype(np.float32) / np.float32(255)
    np.testing.assert_array_equal(split.example(3), expected)
    some = read(tmp_path, max_examples=4)
    assert len(some) == 4
    everything = [split.example(i).tobytes() for i in range(9)]
    for index in range(4):
        where = everything.index(some.example(index).tobytes())
        assert split.labels[where] == some.labels[index]


def test_an_archive_that_changes_is_read_again(tmp_path):
    write_tar(tmp_path / "train.tar", tree(2))
    assert len(read(tmp_path)) == 6
    write_tar(tmp_path / "train.tar", tree(9))
    assert len(read(tmp_path)) == 27


def test_other_files_are_passed_over(folder):
    (folder / "train" / "README.txt").write_text("hello")
    (folder / "train" / "ant" / "Thumbs.db").write_bytes(b"x")
    (folder / "train" / "ant" / "._0.png").write_bytes(b"x")
    (folder / "train" / ".cache").mkdir()
    (folder / "train" / ".cache" / "a.png").write_bytes(b"x")
    assert len(read(folder)) == 9


def test_grey_images_among_colour(folder):
    content = image_bytes(pixels_of(0, 0, (4, 4)))
    (folder / "train" / "ant" / "0.png").write_bytes(content)
    sequence = read(folder).example(0)
    np.testing.assert_array_equal(sequence[:, 0], sequence[:, 2])


def test_a_damaged_image_is_named(folder):
    (folder / "train" / "bee" / "1.png").write_bytes(b"damage")
    with pytest.raises(DataError, match=r"train/bee/1\.png .*PNG"):
        read(folder)


@pytest.mark.parametrize("suffix", ["tar.xz", "zip"])
def test_a_damaged_image_in_an_archive_is_named(tmp_path, suffix):
    write = write_zip if suffix == "zip" else write_tar
    write(tmp_path / f"train.{suffix}", {**tree(), "bee/1.png": tree()["bee/1.png"][:60]})
    with pytest.raises(DataError, match=rf" bee/1\.png .*train\.{suffix} "):
        read(tmp_path)


@pytest.mark.parametrize("suffix", ["tar", "tar.gz", "tar.xz", "zip"])
def test_damaged_archives_are_user_errors(tmp_path, suffix):
    path = tmp_path / f"train.{suffix}"
    (write_zip if suffix == "zip" else write_tar)(path, tree())
    content = path.read_bytes()
    # A tar archive begins with no mark of its own.
    for damage, kind in (
        (b"", DataError),
        (b"no archive", FileError if suffix == "tar" else DataError),
        (content[: len(content) // 3], FileError),
    ):
        path.write_bytes(damage)
        with pytest.raises(kind, match=rf"train\.{suffix} "):
            read(tmp_path)


def test_images_of_another_size_are_named(folder):
    content = image_bytes(pixels_of(0, 0, (5, 4, 3)))
    (folder / "test" / "cat" / "1.png").write_bytes(content)
    with pytest.raises(DataError, match=r"cat/1\.png .*5 x 4 .*4 x 4: .*image_folder\.side"):
        read(folder, "test")
    info = read(folder).info
    with pytest.raises(DataError, match=r"cat/1\.png .*5 x 4 .*4 x 4: .*image_folder\.side"):
        read(folder, "test", info=info)
    assert len(read(folder, "test", side=4)) == 6
    assert len(read(folder, "test", side=4, info=info)) == 6


def test_images_that_are_not_square_need_a_side(folder):
    (folder / "train" / "ant" / "0.png").write_bytes(image_bytes(pixels_of(0, 0, (4, 6, 3))))
    with pytest.raises(SettingError, match=r"4 x 6 .*image_folder\.side"):
        read(folder)


def test_a_wide_mode_is_a_user_error(folder):
    Image.new("I;16", (4, 4)).save(folder / "train" / "ant" / "0.png")
    with pytest.raises(DataError, match=r"ant/0\.png .*I;16"):
        read(folder)


def test_a_class_only_in_the_test_tree(folder):
    write_folder(folder / "test", {"dog/1.png": tree()["ant/1.png"]})
    with pytest.raises(DataError, match=r"/test .*'dog'"):
        read(folder, "test")


def test_images_outside_the_classes(folder):
    (folder / "train" / "0.png").write_bytes(tree()["ant/0.png"])
    with pytest.raises(DataError, match=r"/train .* 0\.png .*<class>/"):
        read(folder)


def test_an_empty_tree(tmp_path):
    (tmp_path / "train" / "ant").mkdir(parents=True)
    with pytest.raises(DataError, match=r"/train .*no images.*<class>/"):
        read(tmp_path)


def test_a_run_needs_no_training_tree(folder):
    info = read(folder).info
    (folder / "train").rename(folder / "elsewhere")
    assert read(folder, "test", info=info).labels.tolist() == [0, 0, 1, 1, 2, 2]


def test_splits_in_capitals(tmp_path):
    write(tmp_path, files("cat/0.png", "dog/0.png"), "Train")
    write(tmp_path, files("dog/1.png"), "TEST")
    assert load("train", name="image_folder", data_dir=str(tmp_path)).labels.tolist() == [0, 1]
    assert load("test", name="image_folder", data_dir=str(tmp_path)).labels.tolist() == [1]


def test_what_is_there_instead_of_the_data_is_said(tmp_path):
    tree = tmp_path / "photos"
    write(tree, files("cat/0.png", "dog/0.png"), "Test")
    (tree / "train.tar.bz2").write_bytes(b"BZh9")
    with pytest.raises(FileError, match=r"train\.zip .*Test, train\.tar\.bz2.*--data_dir"):
        load("train", name="image_folder", data_dir=str(tree))
    write(tree, files("cat/0.png", "dog/0.png"), "train")
    with pytest.raises(FileError, match=r"train\.zip .*/photos.*--data_dir"):
        load("train", name="image_folder", data_dir=str(tmp_path))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"\n<!DOCTYPE html>", "web page"),
        (b"hello", "PNG"),
    ],
)
def test_what_stands_in_an_images_place_is_said(tmp_path, content, message):
    write(tmp_path, {**files("cat/0.png", "dog/0.png"), "dog/1.png": content})
    with pytest.raises(DataError, match=rf"dog/1\.png .*{message}"):
        load("train", name="image_folder", data_dir=str(tmp_path), grey=True)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("train.tar", b"\x1f\x8b\x08", r"gzip.*\.gz"),
        ("train.tar", b"BZh91AY", "bzip2"),
        ("train.tgz", b"cat/0.png" + bytes(600), "gzip"),
        ("train.zip", b"Rar!\x1a\x07", "RAR"),
        ("train.zip", b"", "empty"),
    ],
)
def test_archives_that_are_not_what_their_names_say(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=rf"{name} .*{message}"):
        load("train", name="image_folder", data_dir=str(tmp_path))


def test_a_folder_beside_its_archive_is_noted(tmp_path):
    write(tmp_path, files("cat/0.png", "dog/0.png"))
    (tmp_path / "train.zip").touch()
    split = load("train", name="image_folder", data_dir=str(tmp_path), grey=True)
    assert any("train.zip" in note for note in split.notes)
