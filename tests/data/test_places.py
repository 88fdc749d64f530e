"""Where splits lie, and data without a test set, which is divided."""

import csv
import io
import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from t2aux import data
from t2aux.data import places, tables
from t2aux.data.part import hold_out
from t2aux.data.summary import notes
from t2aux.errors import DataError, FileError, SettingError
from tests.sources import load

FRACTION = {"test_fraction": 0.2}
COUNTS = {"good": 30, "bad": 15, "ugly": 5}


def rows_of(counts, start=0):
    names = [name for name, count in counts.items() for _ in range(count)]
    return [(f"text number {n + start} of some length", name) for n, name in enumerate(names)]


def write(path, rows, header=("text", "label")):
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerows([header, *rows])
    path.write_text(file.getvalue())
    return path


def texts_of(split):
    return [split.info.text(split.example(index)) for index in range(len(split))]


def both(path, **arguments):
    arguments = {**FRACTION, **arguments}
    train = load("train", "csv", data_dir=str(path), **arguments)
    return train, load("test", "csv", data_dir=str(path), **arguments)


def counts_of(split):
    found = np.bincount(split.labels, minlength=3)
    return dict(zip(split.info.classes, found.tolist(), strict=True))


def test_one_table_is_divided_with_the_same_share_of_each_class(tmp_path):
    rows = rows_of(COUNTS)
    path = write(tmp_path / "reviews.csv", rows)
    train, test = both(path)
    assert counts_of(test) == {"good": 6, "bad": 3, "ugly": 1}
    assert counts_of(train) == {"good": 24, "bad": 12, "ugly": 4}
    assert sorted(texts_of(train) + texts_of(test)) == sorted(text for text, _ in rows)
    assert train.info == test.info
    division = test.division
    assert [rows[index][0] for index in division.test] == texts_of(test)
    assert np.array_equal(division.test, train.division.test)
    assert (division.examples, division.to_json()["test"]) == (50, division.test.tolist())
    (note,) = [note for note in train.notes if "held out" in note]
    assert "10 of its 50 examples" in note
    assert note in test.notes
    assert not any("reviews" in n for n in notes({"train": train, "test": test}) if "in the" in n)


@pytest.mark.parametrize("name", ["Test.csv", "TEST.CSV", "Testing.tsv"])
def test_a_test_set_in_capitals(tmp_path, name):
    write(tmp_path / "Train.csv", rows_of(COUNTS))
    write(tmp_path / name, rows_of({"good": 1, "bad": 2}, start=100))
    train, test = both(tmp_path)
    assert counts_of(train) == COUNTS
    assert counts_of(test) == {"good": 1, "bad": 2, "ugly": 0}
    assert (train.division, test.division) == (None, None)


@pytest.mark.parametrize("name", ["test.csv", "test_set.tsv", "reviews-test.csv.gz", "test.json"])
def test_a_test_set_that_is_not_read_is_named(tmp_path, name):
    path = write(tmp_path / "train.csv", rows_of(COUNTS))
    for other in (name, "latest.csv", "._test.csv", "test.py"):
        (tmp_path / other).touch()
    (note,) = [note for note in both(path)[0].notes if name in note]
    assert note.startswith("train.csv: ")
    if name != "test.csv":
        assert note in both(tmp_path)[1].notes


def test_a_file_in_a_folder_that_cannot_be_listed(tmp_path, monkeypatch):
    def refuse(folder):
        raise PermissionError(13, "Permission denied", folder)

    path = write(tmp_path / "train.csv", rows_of(COUNTS))
    (tmp_path / "folder").mkdir()
    monkeypatch.setattr(places.os, "listdir", refuse)
    assert counts_of(both(path)[1]) == {"good": 6, "bad": 3, "ugly": 1}
    with pytest.raises(FileError, match=r"folder .*Permission denied"):
        both(tmp_path / "folder")


def test_names_of_the_classes_beside_a_single_file(tmp_path):
    rows = [(text, {"good": 1, "bad": 2, "ugly": 3}[name]) for text, name in rows_of(COUNTS)]
    (tmp_path / "classes.txt").write_text("good\nbad\nugly\n")
    train, test = both(write(tmp_path / "reviews.csv", rows))
    assert counts_of(train) == {"good": 24, "bad": 12, "ugly": 4}
    assert test.info == both(tmp_path)[1].info


def test_files_of_the_system_are_not_tables(tmp_path):
    write(tmp_path / "reviews.csv", rows_of(COUNTS))
    for name in ("._reviews.csv", "~$reviews.csv", ".reviews.tsv"):
        (tmp_path / name).write_bytes(b"\0")
    assert counts_of(both(tmp_path)[0]) == {"good": 24, "bad": 12, "ugly": 4}


def test_it_is_a_function_of_the_data_and_the_seed(tmp_path):
    path = write(tmp_path / "reviews.csv", rows_of(COUNTS))
    test = texts_of(both(path)[1])
    assert texts_of(both(path)[1]) == test
    assert texts_of(both(path, split_seed=1)[1]) != test
    assert len(both(path, test_fraction=0.5)[1]) == 25
    # Wherever it lies, and whatever it is called.
    (tmp_path / "folder").mkdir()
    for name in ("train.csv", "anything.tsv"):
        moved = path.rename(tmp_path / "folder" / name)
        assert texts_of(both(tmp_path / "folder")[1]) == test
        path = moved


def test_max_examples_leaves_the_test_set_alone(tmp_path):
    path = write(tmp_path / "reviews.csv", rows_of(COUNTS))
    train, test = both(path)
    few_train, few_test = both(path, max_examples=8)
    assert (len(few_train), len(few_test)) == (8, 8)
    assert set(texts_of(few_train)) < set(texts_of(train))
    assert set(texts_of(few_test)) < set(texts_of(test))
    assert np.array_equal(few_test.division.test, test.division.test)


def test_the_vocabulary_is_that_of_the_training_part(tmp_path):
    rows = rows_of(COUNTS)
    path = write(tmp_path / "reviews.csv", rows)
    chosen = both(path)[1].division.test
    for index in chosen:
        rows[index] = (rows[index][0] + " \u2603", rows[index][1])
    train, test = both(write(path, rows))
    assert "\u2603" not in train.info.vocabulary
    assert train.info == test.info
    assert np.array_equal(test.division.test, chosen)


def test_duplicates_are_reported(tmp_path):
    rows = rows_of(COUNTS)
    path = write(tmp_path / "reviews.csv", rows)
    train, test = both(path)
    rows[train.division.test[0]] = rows[1 if train.division.test[0] else 2]
    splits = dict(zip(("train", "test"), both(write(path, rows)), strict=True))
    assert any("1 of the 10 test sequences (10 %) are in the training" in n for n in notes(splits))
    assert not any("are in the training" in n for n in notes({"train": train, "test": test}))


@pytest.mark.parametrize("fraction", [-0.1, 1, 1.5, True, "a", None])
def test_fractions_out_of_range(tmp_path, fraction):
    write(tmp_path / "train.csv", rows_of(COUNTS))
    with pytest.raises(SettingError, match=rf"dataset\.test_fraction .*{fraction!r}: .* 0 .* 1\."):
        both(tmp_path, test_fraction=fraction)


def test_what_is_too_small_or_absent(tmp_path):
    path = write(tmp_path / "reviews.csv", [("text", "a"), ("more", "b")])
    with pytest.raises(DataError, match=r"reviews\.csv .* 2, .*dataset\.test_fraction = 0\.2"):
        both(path)
    with pytest.raises(SettingError, match=r"reviews\.csv .*dataset\.test_fraction .*0:"):
        both(path, test_fraction=0)
    with pytest.raises(FileError, match=r"review\.csv .*reviews\.csv\?.*--data_dir"):
        both(tmp_path / "review.csv")
    with pytest.raises(SettingError, match=r"reviews\.csv .*'validation'"):
        load("validation", "csv", data_dir=str(path))
    write(tmp_path / "more.csv", rows_of(COUNTS))
    with pytest.raises(FileError, match=r"\(more\.csv, reviews\.csv\).*--data_dir"):
        both(tmp_path)


def test_a_folder_with_both_is_not_divided(tmp_path):
    write(tmp_path / "train.csv", rows_of(COUNTS))
    write(tmp_path / "test.csv", rows_of({"good": 3}))
    train, test = both(tmp_path)
    assert (len(train), len(test)) == (50, 3)
    assert train.division is test.division is None
    # The test data alone can't be trained on.
    (tmp_path / "train.csv").unlink()
    with pytest.raises(FileError, match=r" train\.csv .* test\.csv\).*--data_dir"):
        both(tmp_path)
    assert len(load("test", "csv", data_dir=str(tmp_path), info=train.info)) == 3


@pytest.mark.parametrize("name", ["val.csv", "valid.tsv", "dev.jsonl", "validation.csv.gz"])
def test_names_of_validation_files(tmp_path, name):
    write(tmp_path / "train.csv", rows_of(COUNTS))
    rows = rows_of({"good": 3, "bad": 2}, start=100)
    path = tmp_path / name
    if name.endswith(".jsonl"):
        path.write_text("".join(json.dumps({"text": t, "label": c}) + "\n" for t, c in rows))
    else:
        write(path, rows)
    if name.endswith(".gz"):
        import gzip

        path.write_bytes(gzip.compress(path.read_bytes()))
    assert data.Csv().has_validation(tmp_path)
    train, test = both(tmp_path)
    validation = load("validation", "csv", data_dir=str(tmp_path), info=train.info)
    assert [len(split) for split in (train, validation, test)] == [40, 5, 10]


def images(folder, names, count=10):
    for label, name in enumerate(names):
        place = folder / name
        place.mkdir(parents=True)
        for number in range(count):
            pixels = np.full((4, 4, 3), 20 * number + label, np.uint8)
            Image.fromarray(pixels).save(place / f"{number:02}.png")


@pytest.mark.parametrize("around", ["", "photos", "train", "train/photos"])
def test_a_folder_of_classes_is_divided(tmp_path, around):
    images(tmp_path / around, ["cat", "dog"])
    arguments = {"name": "image_folder", "data_dir": str(tmp_path), **FRACTION}
    train, test = load("train", **arguments), load("test", **arguments)
    assert (len(train), len(test)) == (16, 4)
    assert np.bincount(test.labels).tolist() == [2, 2]
    assert not np.isin(test.fingerprints(), train.fingerprints()).any()
    # The examples are named.
    stored = test.division.to_json()["test"]
    shown = [round(float(test.example(index)[0, 0]) * 255) for index in range(4)]
    assert stored == [f"{'cat' if s % 20 == 0 else 'dog'}/{s // 20:02}.png" for s in shown]


def test_an_archive_is_divided(tmp_path):
    import shutil

    images(tmp_path / "photos", ["cat", "dog"])
    shutil.make_archive(str(tmp_path / "photos"), "zip", tmp_path / "photos")
    found = [
        load("test", "image_folder", data_dir=str(tmp_path / name), **FRACTION)
        for name in ("photos", "photos.zip")
    ]
    assert [len(split) for split in found] == [4, 4]
    assert all(len(split.division.names) == 20 for split in found)


def test_folders_of_images_that_are_not_classes(tmp_path):
    images(tmp_path / "data" / "train", ["cat", "dog"])
    with pytest.raises(FileError, match=r" train, train\.tar.*/data\).*--data_dir"):
        load("train", "image_folder", data_dir=str(tmp_path), **FRACTION)
    images(tmp_path / "data" / "val", ["cat", "dog"], count=3)
    folder = tmp_path / "data"
    assert data.ImageFolder().has_validation(folder)
    splits = {
        split: load(split, "image_folder", data_dir=str(folder), **FRACTION)
        for split in ("train", "validation", "test")
    }
    assert [len(split) for split in splits.values()] == [16, 6, 4]


@settings(max_examples=60)
@given(
    st.lists(st.integers(0, 4), min_size=1, max_size=200),
    st.floats(0.01, 0.99),
    st.integers(0, 5),
)
def test_shares_of_classes(labels, fraction, seed):
    labels = np.array(labels)
    is_out = places.held_out(labels, 5, fraction, seed, 1)
    assert np.array_equal(is_out, places.held_out(labels, 5, fraction, seed, 1))
    for label in np.unique(labels):
        count = int((labels == label).sum())
        out = int(is_out[labels == label].sum())
        assert out < count
        assert abs(out - count * fraction) < 1 or out == count - 1


def test_training_validation_and_test_are_disjoint(tmp_path):
    train, test = both(write(tmp_path / "reviews.csv", rows_of(COUNTS)))
    trained, validation = hold_out(train, 0.25, 0)
    parts = [set(texts_of(split)) for split in (trained, validation, test)]
    assert [len(part) for part in parts] == [30, 10, 10]
    assert not any(a & b for a, b in itertools.combinations(parts, 2))


def test_tables_are_known_by_their_names():
    assert all(map(tables.is_table, ("a.csv", "B.TSV", "c.jsonl.gz", "d.parquet")))
    assert not any(map(tables.is_table, ("a.txt", "csv", "a.csv.zip", "a.json")))


def test_an_array_is_divided(tmp_path):
    inputs = np.arange(40, dtype=np.float32).reshape(20, 2, 1)
    path = tmp_path / "waves.npz"
    np.savez(path, inputs=inputs, labels=np.arange(20) % 2)
    for place in (path, tmp_path):
        arguments = {"name": "npz", "data_dir": str(place), **FRACTION}
        train, test = load("train", **arguments), load("test", **arguments)
        assert train.info == test.info
        assert np.bincount(test.labels).tolist() == [2, 2]
        both = np.concatenate([train.values, test.values])
        assert sorted(both.ravel().tolist()) == inputs.ravel().tolist()
        np.testing.assert_array_equal(test.values.reshape(-1, 2, 1), inputs[test.division.test])
