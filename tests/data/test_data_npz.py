import contextlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from t2aux.data.summary import notes
from t2aux.errors import DataError, UserError
from tests.sources import load

INPUTS = np.random.default_rng(0).normal(size=(6, 5, 2))
LABELS = np.array([0, 1, 2, 0, 1, 2])
LENGTHS = np.array([5, 1, 3, 2, 5, 4])


def save(folder, split="train", **arrays):
    arrays = {"inputs": INPUTS, "labels": LABELS, **arrays}
    path = folder / f"{split}.npz"
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})


def read(folder, split="train", **arguments):
    return load(split, name="npz", data_dir=str(folder), **arguments)


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int8, np.uint8, bool])
def test_reads_any_real_type(tmp_path, dtype):
    inputs = (INPUTS * 10).astype(dtype)
    save(tmp_path, inputs=inputs)
    split = read(tmp_path)
    assert (split.info.kind, split.info.channels, split.info.length) == ("vectors", 2, 5)
    assert split.info.classes == ("0", "1", "2")
    assert split.example(3).dtype == np.float32
    np.testing.assert_array_equal(split.example(3), inputs[3].astype(np.float32))


def test_flat_inputs_have_one_channel(tmp_path):
    save(tmp_path, inputs=INPUTS[:, :, 0])
    assert read(tmp_path).example(0).shape == (5, 1)


def test_lengths_and_what_lies_behind_them(tmp_path):
    inputs = INPUTS.copy()
    inputs[1, 1:] = np.nan
    save(tmp_path, inputs=inputs, lengths=LENGTHS)
    split = read(tmp_path)
    assert split.info.length is None
    np.testing.assert_array_equal(split.lengths, LENGTHS)
    for index, length in enumerate(LENGTHS):
        np.testing.assert_array_equal(
            split.example(index), inputs[index, :length].astype(np.float32)
        )


@pytest.mark.parametrize(("dtype", "count"), [(np.int8, 128), (np.uint8, 256)])
def test_labels_up_to_the_largest_of_their_type(tmp_path, dtype, count):
    labels = np.arange(2 * count) % count
    save(tmp_path, inputs=np.zeros([2 * count, 2]), labels=labels.astype(dtype))
    split = read(tmp_path, test_fraction=0, allow=["class_per_example"])
    np.testing.assert_array_equal(split.labels, labels)
    assert split.info.classes == tuple(map(str, range(count)))


def test_a_file_of_the_system_is_not_read(tmp_path):
    save(tmp_path, "mine")
    (tmp_path / "._mine.npz").write_bytes(b"\0")
    np.testing.assert_array_equal(read(tmp_path).labels, LABELS)


def test_positions_of_classes_whose_names_are_numbers_are_noted(tmp_path):
    save(tmp_path, classes=np.array(["2019", "2020", "2021"]))
    split = read(tmp_path)
    np.testing.assert_array_equal(split.labels, LABELS)
    assert any("`classes`" in note for note in split.notes)


@pytest.mark.parametrize(("offset", "noted"), [(1.7e9, True), (1e4, False)])
def test_values_that_float32_rounds_much_are_noted(tmp_path, offset, noted):
    save(tmp_path, inputs=INPUTS * 100 + offset)
    assert (
        any("channel 0" in n and "float32" in n for n in notes({"train": read(tmp_path)})) is noted
    )


def test_names_of_the_classes(tmp_path):
    save(tmp_path, classes=np.array(["x", "y", "z", "never"]))
    save(tmp_path, "test")
    assert read(tmp_path, "test").info.classes == ("x", "y", "z", "never")
    assert read(tmp_path, "test").info == read(tmp_path).info


def test_a_run_knows_the_classes_without_the_training_file(tmp_path):
    save(tmp_path)
    info = read(tmp_path).info
    (tmp_path / "train.npz").rename(tmp_path / "test.npz")
    assert read(tmp_path, "test", info=info).info == info


def test_max_examples(tmp_path):
    save(tmp_path, lengths=LENGTHS)
    split = read(tmp_path, max_examples=3)
    assert len(split) == 3
    for index in range(3):
        (original,) = (
            row
            for row in range(6)
            if INPUTS[row, 0, 0].astype(np.float32) == split.example(index)[0, 0]
        )
        assert (split.lengths[index], split.labels[index]) == (LENGTHS[original], LABELS[original])


def with_value(value):
    inputs = INPUTS.copy()
    inputs[4, 2, 1] = value
    return inputs


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"inputs": None}, r"`inputs` \(.*labels\)"),
        ({"labels": None}, r"`labels` \(.*inputs\)"),
        ({"inputs": with_value(np.nan)}, r"inputs .*NaN .* sequence 4, step 2"),
        ({"inputs": with_value(-np.inf)}, r"inputs .*infinite .* sequence 4, step 2"),
        ({"inputs": with_value(1e200)}, r"inputs .*infinite .* sequence 4, step 2"),
        ({"inputs": INPUTS[0, 0]}, r"inputs .*float64 .*\[2\]"),
        ({"inputs": INPUTS[..., None]}, r"inputs .*float64 .*\[6, 5, 2, 1\]"),
        ({"inputs": INPUTS[:, :0]}, r"inputs .*float64 .*\[6, 0, 2\]"),
        ({"inputs": INPUTS.astype(complex)}, "complex128"),
        ({"inputs": INPUTS.astype(str)}, "inputs .*<U"),
        ({"inputs": INPUTS.astype(object)}, r"train\.npz: inputs .*objects.*`lengths`"),
        ({"labels": LABELS[:5]}, r"labels .*int64 .*\[5\]: .*\[6\]"),
        ({"labels": LABELS.astype(float)}, "labels .*float64"),
        ({"labels": LABELS - 1}, r"label .*sequence 0 .* -1"),
        ({"labels": LABELS * 1000}, "label 2000 .*`classes`"),
        ({"classes": np.array(["x", "y"])}, r"label .*sequence 2 .* 2, .* 2 classes.* 0 to 1"),
        ({"classes": np.array(["x", "y", "x"])}, r"classes .*<U1 .*\[3\]"),
        ({"classes": np.array([1, 2, 3])}, r"classes .*int64 .*\[3\]"),
        ({"lengths": LENGTHS - 1}, r"length .*sequence 1 .* 0: .* 1 to 5"),
        ({"lengths": LENGTHS + 1}, r"length .*sequence 0 .* 6: .* 1 to 5"),
        ({"lengths": LENGTHS[:4]}, r"lengths .*int64 .*\[4\]: .*\[6\]"),
        ({"lengths": LENGTHS.astype(float)}, "lengths .*float64"),
    ],
)
def test_bad_arrays_are_user_errors(tmp_path, arrays, message):
    save(tmp_path, **arrays)
    with pytest.raises(DataError, match=message):
        read(tmp_path)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"inputs": INPUTS[:, :, :1]}, r"test\.npz: inputs .* 1 channels .* 2:"),
        ({"inputs": INPUTS[:, :4]}, r"test\.npz: sequence 0 .* 4 steps .* 5: .*`lengths`"),
        ({"lengths": LENGTHS}, r"test\.npz: sequence 1 .* 1 steps .* 5: .*`lengths`"),
        ({"labels": LABELS + 1}, r"test\.npz: .*sequence 2 .* 3, .* 0, 1, 2:"),
    ],
)
def test_a_test_split_unlike_the_training_split(tmp_path, arrays, message):
    save(tmp_path)
    save(tmp_path, "test", **arrays)
    with pytest.raises(DataError, match=message):
        read(tmp_path, "test")


@settings(max_examples=40)
@given(data=st.data())
def test_any_damage_is_a_user_error_or_harmless(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("npz")
    save(folder, lengths=LENGTHS)
    path = folder / "train.npz"
    whole = path.read_bytes()
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(DataError):
        read(folder)
    changed = bytearray(whole)
    changed[data.draw(st.integers(0, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(changed)
    # Flags and times in the archive's headers are of no consequence.
    with contextlib.suppress(UserError):
        assert len(read(folder)) == 6


def test_a_single_array_is_a_user_error(tmp_path):
    with (tmp_path / "train.npz").open("wb") as file:
        np.save(file, INPUTS)
    with pytest.raises(DataError, match=r"train\.npz .*zip.*numpy\.savez"):
        read(tmp_path)


def ragged():
    inputs = np.empty(6, object)
    inputs[:] = [row[: 1 + index] for index, row in enumerate(INPUTS)]
    return inputs


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"inputs": ragged()}, r"inputs .*objects.*\[N, T, C\].*`lengths`"),
        ({"classes": np.array(["a", "b", "c"], object)}, "classes .*objects.*dtype=str"),
        ({"labels": LABELS.astype(object)}, "labels .*objects.*dtype=str"),
        ({"labels": np.array([["a", "b", "c"]] * 2)}, r"labels .*<U1 .*\[2, 3\].*\[6\]"),
        ({"labels": np.array([b"\xff", b"b"] * 3)}, "labels .*bytes .*UTF-8.*dtype=str"),
        ({"labels": LABELS.astype(float)}, r"labels\.ravel\(\)\.astype\(int\)"),
        ({"labels": LABELS > 0}, r"labels\.ravel\(\)\.astype\(int\)"),
        ({"labels": LABELS[:, np.newaxis]}, r"labels .*\[6, 1\].*labels\.ravel"),
        ({"labels": LABELS + 0.5}, "labels .*float64.*whole numbers"),
        ({"labels": np.where(LABELS, LABELS, np.nan)}, "labels .*float64.*NaN"),
        ({"labels": np.eye(3)[LABELS]}, r"labels .*\[6, 3\].*labels\.argmax\(axis=1\)"),
        ({"labels": np.eye(3, dtype=int)[LABELS]}, r"labels .*\[6, 3\].*labels\.argmax\(axis=1\)"),
        ({"lengths": LENGTHS.astype(float)}, r"lengths\.ravel\(\)\.astype\(int\)"),
        ({"classes": np.array([b"\xff", b"b", b"c"])}, "classes .*bytes .*UTF-8"),
        ({"inputs": None, "x_train": INPUTS}, r"`inputs` \(.*labels, x_train\)"),
    ],
)
def test_arrays_of_other_types_are_errors_that_say_how(tmp_path, arrays, message):
    save(tmp_path, **arrays)
    with pytest.raises(DataError, match=message):
        read(tmp_path)


def test_names_of_classes_as_bytes(tmp_path):
    save(tmp_path, classes=np.char.encode(np.array(["ant", "b\u00e9e", "cat"]), "utf-8"))
    assert read(tmp_path).info.classes == ("ant", "b\u00e9e", "cat")


def test_other_names_of_the_classes_in_the_test_data_are_an_error(tmp_path):
    save(tmp_path, classes=np.array(["x", "y", "z"]))
    save(tmp_path, "test", classes=np.array(["z", "y", "x"]))
    info = read(tmp_path).info
    for arguments in ({}, {"info": info}):
        with pytest.raises(DataError, match=r"test\.npz: classes .*'z', 'y', 'x', .*'x', 'y', 'z'"):
            read(tmp_path, "test", **arguments)
    # The test data of another folder, whose train.npz alone says what its labels are.
    save(tmp_path, "test")
    save(tmp_path, classes=np.array(["y", "x", "z"]))
    with pytest.raises(DataError, match=r"train\.npz: classes .*'y', 'x', 'z', .*'x', 'y', 'z'"):
        read(tmp_path, "test", info=info)
    save(tmp_path, classes=np.array(["x", "y", "z"]))
    assert read(tmp_path, "test", info=info).labels.tolist() == LABELS.tolist()


def test_arrays_that_are_not_read_are_named(tmp_path):
    save(tmp_path, length=LENGTHS, mask=LENGTHS > 2)
    assert any("'length', 'mask'" in note for note in read(tmp_path).notes)


NAMES = np.array(["walk", "b\u00e9e", "run", "walk", "b\u00e9e", "run"])


@pytest.mark.parametrize("labels", [NAMES, np.char.encode(NAMES, "utf-8")])
def test_labels_that_are_names(tmp_path, labels):
    save(tmp_path, labels=labels)
    save(tmp_path, "test", labels=labels[::-1])
    train = read(tmp_path)
    assert train.info.classes == ("b\u00e9e", "run", "walk")
    assert train.labels.tolist() == [2, 0, 1, 2, 0, 1]
    test = read(tmp_path, "test")
    assert test.info == train.info
    assert test.labels.tolist() == [1, 0, 2, 1, 0, 2]
    (tmp_path / "train.npz").unlink()
    assert read(tmp_path, "test", info=train.info).labels.tolist() == test.labels.tolist()


def test_names_beside_the_names_of_the_classes(tmp_path):
    save(tmp_path, labels=NAMES, classes=np.array(["walk", "run", "b\u00e9e", "fly"]))
    assert read(tmp_path).labels.tolist() == [0, 2, 1, 0, 2, 1]
    save(tmp_path, labels=NAMES, classes=np.array(["walk", "run"]))
    with pytest.raises(DataError, match=r"sequence 1 .* b\u00e9e, .*'walk', 'run'"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (LABELS + 1, ("1", "2", "3")),
        (LABELS * 2 + 5, ("5", "7", "9")),
        (LABELS * 10_000 + 1, ("1", "10001", "20001")),
        (np.array([-1, 1] * 3), ("-1", "1")),
        ((LABELS + 9).astype(np.uint8), ("9", "10", "11")),
    ],
)
def test_labels_that_do_not_begin_at_0(tmp_path, labels, classes):
    save(tmp_path, labels=labels)
    save(tmp_path, "test", labels=labels[::-1])
    train, test = read(tmp_path), read(tmp_path, "test")
    assert train.info.classes == test.info.classes == classes
    assert [classes[label] for label in train.labels] == list(map(str, labels))
    assert [classes[label] for label in test.labels] == list(map(str, labels[::-1]))
    (note,) = train.notes
    assert f"names of the classes: {', '.join(classes)}" in note
    assert read(tmp_path, "test", info=train.info).labels.tolist() == test.labels.tolist()
    save(tmp_path, "test", labels=np.full(6, 4))
    with pytest.raises(DataError, match=f"sequence 0 .* 4, .* {', '.join(classes)}:"):
        read(tmp_path, "test")


def test_numbers_of_a_runs_classes(tmp_path):
    save(tmp_path, classes=np.array(["x", "y", "z"]))
    info = read(tmp_path).info
    (tmp_path / "train.npz").unlink()
    save(tmp_path, "test")
    assert read(tmp_path, "test", info=info).labels.tolist() == LABELS.tolist()
