import gzip
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from t2aux.data.idx import read_array
from t2aux.errors import DataError, FileError, SettingError
from tests.sources import load

FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}


def idx_bytes(array):
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    return header + array.tobytes()


@pytest.fixture
def folder(tmp_path):
    generator = np.random.default_rng(0)
    for split, count in (("train", 12), ("test", 6)):
        images = generator.integers(0, 256, (count, 5, 5)).astype(np.uint8)
        labels = (np.arange(count) % 3).astype(np.uint8)
        (tmp_path / f"{FILES[split][0]}.gz").write_bytes(gzip.compress(idx_bytes(images)))
        (tmp_path / FILES[split][1]).write_bytes(idx_bytes(labels))
    return tmp_path


def read(folder, split="train", **arguments):
    return load(split, name="idx", data_dir=str(folder), **arguments)


def images_of(folder, split):
    return read_array(folder / f"{FILES[split][0]}.gz", 3)


@pytest.mark.parametrize("split", ["train", "test"])
def test_reads_images_and_labels(folder, split):
    data = read(folder, split)
    images = images_of(folder, split)
    assert data.info.classes == ("0", "1", "2")
    assert data.info == read(folder, "train").info
    np.testing.assert_array_equal(data.labels, np.arange(len(images)) % 3)
    np.testing.assert_array_equal(
        data.example(4), images[4].reshape(25, 1).astype(np.float32) / np.float32(255)
    )


def test_permutes_and_resizes(folder):
    image = images_of(folder, "train")[2]
    plain, permuted = read(folder), read(folder, permutation_seed=1)
    order = permuted.info.permutation
    np.testing.assert_array_equal(permuted.example(2), plain.example(2)[order])
    resized = read(folder, side=3, permutation_seed=1)
    np.testing.assert_array_equal(resized.example(2), resized.info.image_sequence(image))


def test_names_the_classes_by_a_file(folder):
    (folder / "classes.txt").write_text("ant\nbee\ncat\ndog\n")
    assert read(folder).info.classes == ("ant", "bee", "cat", "dog")
    (folder / "classes.txt").write_text("ant\nant\n")
    with pytest.raises(DataError, match=r"classes\.txt .*'ant'"):
        read(folder)
    (folder / "classes.txt").write_text("\n")
    with pytest.raises(DataError, match=r"classes\.txt .*empty"):
        read(folder)


def test_test_labels_out_of_range(folder):
    (folder / FILES["test"][1]).write_bytes(idx_bytes(np.array([0, 1, 2, 7, 0, 9], np.uint8)))
    with pytest.raises(DataError, match=r"t10k-labels.* image 3 .* 7, .* 3 .* 0 to 2"):
        read(folder, "test")


def test_counts_that_differ(folder):
    (folder / FILES["train"][1]).write_bytes(idx_bytes(np.zeros(11, np.uint8)))
    with pytest.raises(DataError, match=r"train-images.* 12 .*train-labels.* 11 "):
        read(folder)


def test_test_images_of_another_size(folder):
    path = folder / f"{FILES['test'][0]}.gz"
    path.write_bytes(gzip.compress(idx_bytes(np.zeros((6, 4, 4), np.uint8))))
    with pytest.raises(DataError, match=r"0 of .*t10k-images.* 4 x 4 .* 5 x 5: .*idx\.side"):
        read(folder, "test")
    assert read(folder, "test", side=5).info.side == 5


def test_images_that_are_not_square(folder):
    path = folder / f"{FILES['train'][0]}.gz"
    path.write_bytes(gzip.compress(idx_bytes(np.zeros((12, 4, 5), np.uint8))))
    with pytest.raises(SettingError, match=r"4 x 5 .*idx\.side"):
        read(folder)
    assert read(folder, side=4).info.length == 16


def test_no_examples(folder):
    for name, shape in zip(FILES["train"], [(0, 5, 5), (0,)], strict=True):
        for path in folder.glob(f"{name}*"):
            path.unlink()
        (folder / name).write_bytes(idx_bytes(np.zeros(shape, np.uint8)))
    with pytest.raises(DataError, match=r"train-images.*examples"):
        read(folder)


def test_missing_labels(folder):
    (folder / FILES["train"][1]).unlink()
    with pytest.raises(FileError, match=r" train-labels-idx1-ubyte .*ubyte\.gz .*--data_dir"):
        read(folder)


def test_damaged_gzip(folder):
    path = folder / f"{FILES['train'][0]}.gz"
    content = path.read_bytes()
    for damage, kind in (
        (content[: len(content) // 2], FileError),
        (b"not gzip at all", DataError),
        (content[:30] + b"\xff" * 99, FileError),
    ):
        path.write_bytes(damage)
        with pytest.raises(kind, match=r"train-images-idx3-ubyte\.gz"):
            read(folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"\x00\x00\x08", "IDX .* 00 00 08 .* 00 00 08 01 "),
        (b"\x00\x00\x0d\x01" + b"\x00" * 4, "IDX .* 00 00 0d 01 "),
        (b"\x00\x00\x08\x03" + b"\x00" * 20, "IDX .* 00 00 08 03 .*08 01 "),
        (b"\x00\x00\x08\x01\x00\x00\x00\x05" + b"abc", " 5 .*header.* 3:"),
        (b"\x00\x00\x08\x01\x00\x00\x00\x02" + b"abc", " 2 .*header.* 3:"),
    ],
)
def test_malformed_files(tmp_path, content, message):
    path = tmp_path / "labels"
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"/labels .*{message}"):
        read_array(path, 1)


@settings(max_examples=60)
@given(data=st.data())
def test_any_damage_is_noticed_or_harmless(tmp_path_factory, data):
    """Cutting a file, or changing its header, never gives anything but a UserError."""
    path = tmp_path_factory.mktemp("idx") / "images"
    whole = idx_bytes(np.arange(24, dtype=np.uint8).reshape(2, 3, 4))
    end = data.draw(st.integers(0, len(whole) - 1))
    path.write_bytes(whole[:end])
    with pytest.raises(DataError):
        read_array(path, 3)
    place, value = data.draw(st.integers(0, 15)), data.draw(st.integers(0, 255))
    changed = bytearray(whole)
    changed[place] = value
    path.write_bytes(changed)
    if changed == whole:
        assert read_array(path, 3).shape == (2, 3, 4)
    else:
        with pytest.raises(DataError):
            read_array(path, 3)


def renamed(folder, change):
    """Gives all files other names."""
    for path in list(folder.iterdir()):
        path.rename(folder / change(path.name))


NAMES = {
    "dots": lambda name: name.replace("-idx", ".idx"),
    "capitals": str.upper,
    "underscores": lambda name: name.replace("-", "_"),
    "emnist": lambda name: "emnist-letters-" + name.replace("t10k", "test"),
    "other set": lambda name: f"my.set_{name}",
}


@pytest.mark.parametrize("change", NAMES.values(), ids=NAMES)
def test_files_of_similar_names_are_read(folder, change):
    before = {split: read(folder, split) for split in FILES}
    renamed(folder, change)
    # Others beside them are passed over.
    (folder / "train-images-idx3-ubyte.md5").write_text("5")
    (folder / "train.images.idx3.ubyte").mkdir()
    for split in FILES:
        after = read(folder, split)
        np.testing.assert_array_equal(after.values, before[split].values)
        np.testing.assert_array_equal(after.labels, before[split].labels)
        assert any(change(FILES[split][1]) in note for note in after.notes)
    assert any("EMNIST" in note for note in after.notes) == (change is NAMES["emnist"])


def test_a_file_beside_what_it_was_unpacked_from_is_read(folder):
    path = folder / f"{FILES['train'][0]}.gz"
    path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
    assert len(read(folder)) == 12


def test_several_candidates_are_an_error_that_names_them(folder):
    path = folder / f"{FILES['train'][0]}.gz"
    (folder / "train-images.idx3-ubyte.gz").write_bytes(path.read_bytes())
    with pytest.raises(FileError, match=r"train-images-idx3-ubyte\.gz, train-images\.idx3-ubyte"):
        read(folder)


def test_labels_of_another_data_set_are_an_error(folder):
    renamed(folder, lambda name: ("emnist-letters-" if "images" in name else "") + name)
    with pytest.raises(DataError, match=r"emnist-letters-train-images.* train-labels"):
        read(folder)


def test_labels_from_one_are_reported(folder):
    (folder / FILES["train"][1]).write_bytes(idx_bytes((1 + np.arange(12) % 3).astype(np.uint8)))
    (note,) = read(folder).notes
    assert "no training example: '0'" in note
