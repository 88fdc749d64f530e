import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from t2aux.errors import DataError, FileError, SettingError, UserError
from tests.sources import load

HEADER = """\
# Written for this test; a comment may be in any encoding.
@problemName Vowels
@timeStamps false
@missing false
@univariate false
@dimensions 2

@equalLength false
@classLabel true b a
@data
"""
ROWS = ["1,2.5,-3e1:4,5,6:b", "7:8:a", "1, 2 :3,4:b", "0,0:1,1:a"]
UNIVARIATE = """\
@problemName Guns
@univariate true
@equalLength true
@seriesLength 3
@classLabel true 1 2
@data
"""


def write(folder, split="TRAIN", rows=ROWS, header=HEADER, name="Vowels"):
    path = folder / f"{name}_{split}.ts"
    path.write_text(header + "\n".join(rows) + "\n", "utf-8")
    return path


def read(folder, split="train", **arguments):
    return load(split, name="ts", data_dir=str(folder), **arguments)


def test_channels_lengths_and_names(tmp_path):
    write(tmp_path)
    split = read(tmp_path)
    info = split.info
    assert (info.name, info.kind, info.channels, info.length) == ("ts", "vectors", 2, None)
    assert info.classes == ("b", "a")
    np.testing.assert_array_equal(split.labels, [0, 1, 0, 1])
    np.testing.assert_array_equal(split.lengths, [3, 1, 2, 2])
    assert split.example(0).dtype == np.float32
    np.testing.assert_array_equal(split.example(0), [[1, 4], [2.5, 5], [-30, 6]])
    np.testing.assert_array_equal(split.example(1), [[7, 8]])
    assert not split.notes


def test_the_test_split_knows_the_classes_of_the_training_split(tmp_path):
    write(tmp_path)
    header = HEADER.replace("true b a", "true a b")
    write(tmp_path, "TEST", ["9,9,9:8,8,8:a"], header)
    test = read(tmp_path, "test")
    assert test.info == read(tmp_path).info
    assert test.labels.tolist() == [1]
    np.testing.assert_array_equal(read(tmp_path, "test", info=test.info).labels, test.labels)


@pytest.mark.parametrize("names", [("train.ts", "test.ts"), ("a_b_train.TS", "a_b_Test.ts")])
def test_names_of_files(tmp_path, names):
    write(tmp_path).rename(tmp_path / names[0])
    write(tmp_path, "TEST").rename(tmp_path / names[1])
    assert len(read(tmp_path)) == len(read(tmp_path, "test")) == 4


def test_one_file_is_the_training_data(tmp_path):
    write(tmp_path).rename(tmp_path / "Vowels.ts")
    assert len(read(tmp_path)) == 4
    with pytest.raises(FileError, match=r" Vowels_TEST\.ts .*test\.ts .* Vowels\.ts\)"):
        read(tmp_path, "test")


def test_a_test_file_that_is_not_read_is_named(tmp_path):
    path = write(tmp_path)
    write(tmp_path, "TEST")
    train = read(path, test_fraction=0.5)
    assert any("Vowels_TEST.ts" in note for note in train.notes)


def test_a_class_that_the_header_names_twice_is_one(tmp_path):
    write(tmp_path, header=HEADER.replace("true b a", "true b a b"))
    assert read(tmp_path).info.classes == ("b", "a")


def test_other_splits(tmp_path):
    write(tmp_path)
    write(tmp_path, "VALIDATION", ROWS[:1])
    assert len(read(tmp_path, "validation")) == 1


def test_several_problems_in_a_folder(tmp_path):
    folder = tmp_path / "Vowels"
    folder.mkdir()
    write(folder)
    write(folder, name="Vowels_eq", rows=ROWS[:2])
    (note,) = (note for note in read(folder).notes if "Vowels_eq" in note)
    assert "Vowels_TRAIN.ts is read" in note
    assert len(read(folder, problem="Vowels_eq")) == 2
    folder = folder.rename(tmp_path / "other")
    with pytest.raises(FileError, match=r" 2 .*\(Vowels, Vowels_eq\).*ts\.problem = 'Vowels'"):
        read(folder)
    with pytest.raises(FileError, match=r" Guns_TRAIN\.ts .* Vowels_TRAIN\.ts, "):
        read(folder, problem="Guns")


def test_a_header_without_lengths(tmp_path):
    write(tmp_path, rows=["1,2,3:1", "4,5,6:2"], header=UNIVARIATE)
    info = read(tmp_path).info
    assert (info.channels, info.length, info.classes) == (1, 3, ("1", "2"))
    header = re.sub("@(equalLength|seriesLength).*\n", "", UNIVARIATE)
    write(tmp_path, rows=["1,2,3:1", "4,5,6:2"], header=header)
    assert read(tmp_path).info == info


def test_a_header_that_names_no_classes(tmp_path):
    write(tmp_path, header=HEADER.replace("true b a", "true"))
    assert read(tmp_path).info.classes == ("a", "b")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("@dimensions 2", "@dimensions 3", "@dimensions 3, but the sequences have 2 channels"),
        ("@univariate false", "@univariate true", "@univariate true"),
        ("@equalLength false", "@equalLength true", "@equalLength true.* 1 to 3 steps"),
        ("@equalLength", "@seriesLength 7\n@equalLength", "@seriesLength 7"),
        ("@missing", "@colour blue\n@missing", "@colour is not read"),
    ],
)
def test_a_header_that_the_data_contradicts_is_noted(tmp_path, old, new, message):
    write(tmp_path, header=HEADER.replace(old, new))
    (note,) = read(tmp_path).notes
    assert re.search(message, note, re.IGNORECASE)


def test_comments(tmp_path):
    path = write(tmp_path, rows=[*ROWS[:2], "# in between", *ROWS[2:]])
    path.write_bytes(b"# caf\xe9\n% percent\n" + path.read_bytes())
    assert len(read(tmp_path)) == 4


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["1,?:1,2:a"], r"line 11: .*channel 0 .*step 1 .* '\?',"),
        (["1,2:1,NaN:a"], r"line 11: .*channel 1 .*step 1 .* 'NaN',"),
        (["1,:1,2:a"], r"line 11: .*channel 0 .*step 1 .* '',"),
        (["1,2:1,two:a"], r"line 11: .*channel 1 .*step 1 .* 'two',"),
        (["1,2:1,1e99:a"], r"line 11: .*channel 1 .*step 1 .* '1e99',.* float32"),
        (["1,2:1,inf:a"], r"line 11: .*channel 1 .*step 1 .* 'inf',"),
        (["1,2:1:a"], "line 11: .* 1 to 2 steps"),
        ([ROWS[0], "1,2:a"], "line 12: .* 1 channels .* 2:"),
        (["1,2:3,4:c"], "line 11: .*'c', .*'b', 'a': .*@classLabel"),
        (["1,2:3,4:"], "line 11: .*class .*colon"),
        (["1,2"], "line 11: .*class .*colon"),
        (["(0,1),(1,2):(0,3),(1,4):a"], r"line 11: .*channel 0 .*step 0 .* '\(0',"),
        ([], r"TRAIN\.ts .*@data"),
    ],
)
def test_bad_rows_are_user_errors(tmp_path, rows, message):
    write(tmp_path, rows=rows)
    with pytest.raises(DataError, match=message):
        read(tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("@timeStamps false", "@timeStamps true", "@timeStamps true"),
        ("@classLabel true b a", "@classLabel false", r"\(no @classLabel true "),
        ("@classLabel true b a", "@targetLabel true", r"\(@targetLabel "),
        ("@classLabel true b a\n", "", r"\(no @classLabel true "),
        ("@data\n", "", r"line 10 .*'1,2\.5,-3e1:4,5,6:b', .*@data"),
    ],
)
def test_headers_that_are_refused(tmp_path, old, new, message):
    write(tmp_path, header=HEADER.replace(old, new))
    with pytest.raises(DataError, match=message):
        read(tmp_path)


def test_files_that_are_something_else(tmp_path):
    with pytest.raises(FileError, match=r" NAME_TRAIN\.ts .*train\.ts .*--data_dir"):
        read(tmp_path)
    path = tmp_path / "train.ts"
    path.write_text("export const x: number = 1;\n")
    with pytest.raises(DataError, match=r"/train\.ts, line 1 .*export const x.*@data"):
        read(tmp_path)
    path.write_bytes(b"\x47\x40\x11\x10\xff" * 50)
    with pytest.raises(DataError, match=r"/train\.ts .*UTF-8"):
        read(tmp_path)
    path.write_text("@problemName x\n")
    with pytest.raises(DataError, match=r"/train\.ts .*no line @data"):
        read(tmp_path)
    path.rename(tmp_path / "a_TRAIN.ts")
    path.with_name("a_train.ts").write_text("")
    with pytest.raises(FileError, match=r" a_TRAIN\.ts .*a_train\.ts:"):
        read(tmp_path)


def test_a_test_split_unlike_the_training_split(tmp_path):
    write(tmp_path, rows=["1,2,3:1", "4,5,6:2"], header=UNIVARIATE)
    write(tmp_path, "TEST", ["1,2:1"], UNIVARIATE)
    with pytest.raises(DataError, match=r"TEST\.ts, line 7: .* 2 steps .* 3: .*@equalLength"):
        read(tmp_path, "test")
    write(tmp_path, "TEST", ["1,2,3:1,2,3:1"], UNIVARIATE)
    with pytest.raises(DataError, match=r"TEST\.ts: .* 2 channels .* 1:"):
        read(tmp_path, "test")


def test_max_examples(tmp_path):
    write(tmp_path)
    split = read(tmp_path, max_examples=2)
    assert len(split) == 2
    whole = read(tmp_path)
    for index in range(2):
        assert any(np.array_equal(split.example(index), whole.example(i)) for i in range(4))


@settings(max_examples=40)
@given(data=st.data())
def test_any_damage_is_a_user_error_or_harmless(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("ts")
    path = write(folder)
    whole = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(bytes(whole[: data.draw(st.integers(0, len(whole)))]))
    try:
        split = read(folder)
    except UserError:
        return
    assert np.isfinite(split.values).all()


def test_series_are_read_in_either_format(tmp_path):
    def series(split="train"):
        return load(split, name="series", data_dir=str(tmp_path))

    with pytest.raises(FileError, match=r"\.npz .*\.ts .*--data_dir"):
        series()
    path = write(tmp_path)
    assert series().info == read(tmp_path).info
    np.savez(tmp_path / "train.npz", inputs=np.eye(4), labels=["x", "y"] * 2)
    with pytest.raises(FileError, match=r"\.npz .*\.ts .*--data_dir.*@ts\(\)"):
        series()
    path.unlink()
    assert (series().info.name, series().info.classes) == ("npz", ("x", "y"))


@pytest.mark.parametrize("source", ["ts", "series"])
@pytest.mark.parametrize("name", ["waves.ts", "waves_TRAIN.ts"])
@pytest.mark.parametrize("as_folder", [False, True])
def test_one_file_is_divided(tmp_path, source, name, as_folder):
    rows = "".join(f"{index},2,3:{'ab'[index % 2]}\n" for index in range(20))
    path = tmp_path / name
    path.write_text(f"@univariate true\n@classLabel true a b\n@data\n{rows}")
    place = str(tmp_path if as_folder else path)
    train, test = (
        load(split, name=source, data_dir=place, test_fraction=0.2) for split in ("train", "test")
    )
    firsts = [{float(part.example(i)[0, 0]) for i in range(len(part))} for part in (train, test)]
    assert [len(part) for part in firsts] == [16, 4]
    assert not firsts[0] & firsts[1]
    assert np.bincount(test.labels).tolist() == [2, 2]
    with pytest.raises(SettingError, match=rf"{path} .*dataset\.test_fraction .*0:"):
        load("test", name=source, data_dir=str(path), test_fraction=0)


def test_a_file_of_neither_format(tmp_path):
    path = tmp_path / "waves.csv"
    path.write_text("1,2\n")
    with pytest.raises(FileError, match=r"waves\.csv .*\.npz .*\.ts "):
        load("train", name="series", data_dir=str(path))
