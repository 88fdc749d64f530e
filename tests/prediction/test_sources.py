"""What is read: tables, lines, folders, archives, arrays, shards and data sets."""

import contextlib
import dataclasses
import gzip
import io
import json
import shutil
import sys
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from PIL import Image

import t2aux
from t2aux import data
from t2aux.data import convert
from t2aux.errors import DataError, FileError, SettingError
from t2aux.prediction.rows import prepare
from t2aux.prediction.source import Reading, open_source
from tests import small_exports
from tests.prediction.conftest import read_csv

TEXTS, IMAGES, VECTORS = small_exports.TEXT, small_exports.IMAGES, small_exports.VECTORS
COLUMNS = {"text": ["abc", "de, f"], "label": ["class 1", "class 0"], "n": ["4", "5"]}


def read(path, info=TEXTS, **reading):
    source = open_source(str(path), info, Reading(**reading))
    return source, list(source.rows())


def shown(rows):
    return [(row.name, row.content, row.label) for row in rows]


def write_table(path):
    rows = list(zip(*COLUMNS.values(), strict=True))
    name = path.name.removesuffix(".gz")
    if name.endswith(".parquet"):
        pa.parquet.write_table(pa.table(COLUMNS), path)
        return
    if name.endswith(".jsonl"):
        text = "".join(json.dumps(dict(zip(COLUMNS, row, strict=True))) + "\n" for row in rows)
    else:
        separator = {".csv": ",", ".tsv": "\t", ".txt": ";"}[name[-4:]]
        lines = [separator.join(f'"{cell}"' for cell in row) for row in (COLUMNS, *rows)]
        text = "\n".join(lines) + "\n"
    content = text.encode()
    path.write_bytes(gzip.compress(content) if path.name.endswith(".gz") else content)


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.csv.gz", "a.jsonl", "a.jsonl.gz", "a.txt"])
def test_tables_of_every_format(tmp_path, name):
    write_table(tmp_path / name)
    source, rows = read(tmp_path / name, data_format="table")
    assert shown(rows) == [(0, "abc", "class 1"), (1, "de, f", "class 0")]
    assert source.labelled
    assert rows[1].where.startswith(f"{tmp_path / name}, line ")


def test_parquet_says_how_many_rows_it_has(tmp_path):
    write_table(tmp_path / "a.parquet")
    source, rows = read(tmp_path / "a.parquet", keep_columns=True)
    assert shown(rows) == [(0, "abc", "class 1"), (1, "de, f", "class 0")]
    assert source.total == 2
    assert source.columns.names == list(COLUMNS)
    assert rows[0].columns == ("abc", "class 1", "4")


NANOSECOND = "1970-01-01 00:00:00.000000001"


@pytest.mark.parametrize(
    ("number", "kind", "text"),
    [
        (1, pa.timestamp("ns"), NANOSECOND),
        (1, pa.timestamp("ns", "+02:00"), "1970-01-01 02:00:00.000000001+0200"),
        (1, pa.time64("ns"), "00:00:00.000000001"),
        (1, pa.duration("ns"), "1"),
        (10**15, pa.duration("s"), str(10**15)),
        (10**8, pa.date32(), "<value out of range: 100000000>"),
        (10**4, pa.date32(), "1997-05-19"),
        (1, pa.timestamp("us"), "1970-01-01 00:00:00.000001"),
    ],
)
@pytest.mark.parametrize("is_index", [False, True])
def test_times_that_python_can_t_hold_are_kept(models, tmp_path, number, kind, text, is_index):
    place = models("texts").place["tflite"]
    times = pa.array([number, None], kind)
    table = pa.table({"text": ["abc", "de"], "time": times})
    if is_index:
        pandas = json.dumps({"index_columns": ["time"]})
        table = table.replace_schema_metadata({"pandas": pandas})
    pa.parquet.write_table(table, tmp_path / "t.parquet")
    for suffix in ("parquet", "jsonl", "csv"):
        output = tmp_path / f"o.{suffix}"
        t2aux.predict(place, tmp_path / "t.parquet", output, keep_columns=not is_index)
    name = "input" if is_index else "time"
    found = pa.parquet.read_table(tmp_path / "o.parquet")[name]
    assert found.combine_chunks().equals(times)
    rows = [json.loads(line) for line in (tmp_path / "o.jsonl").open()]
    assert [row[name] for row in rows] == [text, None]
    assert f"{text}," in (tmp_path / "o.csv").read_text()


@pytest.mark.parametrize(
    "column",
    [
        pa.array([[1], None], pa.list_(pa.timestamp("ns"))),
        pa.array([b"\xff", b"a"]).view(pa.string()),
    ],
)
def test_columns_that_can_t_be_kept_are_an_error(tmp_path, column):
    pa.parquet.write_table(
        pa.table({"text": ["abc", "de"], "more": column}), tmp_path / "t.parquet"
    )
    with pytest.raises(DataError, match=r"t\.parquet: .*'more' .*can't be kept.*--keep_columns"):
        read(tmp_path / "t.parquet", keep_columns=True)
    _, rows = read(tmp_path / "t.parquet")
    assert shown(rows) == [(0, "abc", None), (1, "de", None)]


def test_json_lines_are_valid_json(models, tmp_path):
    place = models("texts").place["tflite"]
    nan, infinity = float("nan"), float("inf")
    columns = {
        "text": ["abc", "\u00e9"],
        "x": [nan, 1.5],
        "single": pa.array([infinity, 1.5], pa.float32()),
        "list": [[1.0, nan], [2.0, -infinity]],
        "bytes": [b"\xffa", "\u00e9".encode()],
    }
    table = pa.table([*columns.values(), ["1", "2"]], names=[*columns, "x"])
    pa.parquet.write_table(table, tmp_path / "t.parquet")
    t2aux.predict(place, tmp_path / "t.parquet", tmp_path / "o.jsonl", keep_columns=True)
    lines = (tmp_path / "o.jsonl").read_text().splitlines()
    rows = [json.loads(line, parse_constant=pytest.fail) for line in lines]
    assert [list(row.values())[:6] for row in rows] == [
        ["abc", None, None, [1.0, None], "\\xffa", "1"],
        ["\u00e9", 1.5, 1.5, [2.0, None], "\u00e9", "2"],
    ]
    assert list(rows[0])[:6] == [*columns, "x.1"]


def test_columns_are_found_or_named(tmp_path):
    (tmp_path / "a.csv").write_text("id,text,stars\nx7,abc,class 0\nx8,def,\n")
    source, rows = read(tmp_path / "a.csv")
    assert shown(rows) == [(0, "abc", "class 0"), (1, "def", None)]
    source, rows = read(tmp_path / "a.csv", label_column="id", text_columns=("stars", "text"))
    assert shown(rows) == [(0, "class 0 abc", "x7"), (1, "def", "x8")]
    (tmp_path / "b.csv").write_text("id,text\n7,abc\n")
    source, rows = read(tmp_path / "b.csv")
    assert shown(rows) == [("7", "abc", None)]
    assert not source.labelled
    with pytest.raises(SettingError, match=r"b\.csv .*'txt': .*'id', 'text'"):
        read(tmp_path / "b.csv", text_columns=("txt",))


def test_a_table_without_a_header(tmp_path):
    (tmp_path / "a.csv").write_text("class 1,abc\nother,def\n")
    source, rows = read(tmp_path / "a.csv")
    assert shown(rows) == [(0, "abc", "class 1"), (1, "def", "other")]
    # The header is not known, so that its first column could be taken for the class.
    (tmp_path / "b.csv").write_text("comment,date\nabc,2020\ndef,2021\n")
    with pytest.raises(DataError, match=r"b\.csv .*'comment'.*--text_column=NAME"):
        read(tmp_path / "b.csv")
    source, rows = read(tmp_path / "b.csv", text_columns=("comment",))
    assert shown(rows) == [(0, "abc", None), (1, "def", None)]
    (tmp_path / "c.csv").write_text("x7,abc\nx8,def\n")
    source, rows = read(tmp_path / "c.csv", text_columns=("1",))
    assert shown(rows) == [(0, "abc", None), (1, "def", None)]
    assert not source.labelled


def test_positions_in_a_table_without_a_header(tmp_path):
    (tmp_path / "a.csv").write_text("ab,0\ncd,1\n")
    for given in (
        {"text_columns": ("0",), "label_column": "1"},
        {"trained_texts": (0,), "trained_label": 1},
        {"trained_texts": (-2,), "trained_label": "-1"},
    ):
        assert shown(read(tmp_path / "a.csv", **given)[1]) == [(0, "ab", "0"), (1, "cd", "1")]


def test_positions_in_a_table_with_a_header(tmp_path):
    (tmp_path / "a.csv").write_text("title,text,label\nx,ab,0\ny,cd,1\n")
    for given in (
        {"trained_texts": (1,), "trained_label": 2},
        {"trained_texts": ("1",), "trained_label": "label"},
        {"trained_texts": (1,)},
    ):
        assert shown(read(tmp_path / "a.csv", **given)[1]) == [(0, "ab", "0"), (1, "cd", "1")]
    # It lacks the class, so the positions are of other columns.
    (tmp_path / "b.csv").write_text("title,text\nx,ab\n")
    given = {"trained_texts": (0,), "trained_label": 2}
    assert shown(read(tmp_path / "b.csv", **given)[1]) == [(0, "x ab", None)]


def test_several_columns_that_may_be_the_class(tmp_path):
    (tmp_path / "a.csv").write_text("category,topic,text\nx,0,ab\ny,1,cd\n")
    source, rows = read(tmp_path / "a.csv")
    assert shown(rows) == [(0, "ab", None), (1, "cd", None)]
    (note,) = [note for note in source.notes() if "any of" in note]
    assert "'category', 'topic': give --label_column=NAME" in note
    given = {"label_column": "topic"}
    assert shown(read(tmp_path / "a.csv", **given)[1]) == [(0, "ab", "0"), (1, "cd", "1")]


def test_commas_of_texts_without_quotes(tmp_path):
    (tmp_path / "a.csv").write_text("id,label,text\n7,class 1,ab, cd\n7,class 0,d\n")
    source, rows = read(tmp_path / "a.csv")
    assert shown(rows) == [(0, "ab cd", "class 1"), (1, "d", "class 0")]
    assert any("the first in line 2;" in note and "lost" in note for note in source.notes())


@pytest.mark.parametrize(
    ("content", "message"),
    [("", "no rows"), (",,\n", "no rows"), ('"text" ,"label"\na,b\n', "line 1: .*CSV")],
)
def test_tables_without_a_valid_row_are_errors(tmp_path, content, message):
    (tmp_path / "a.csv").write_text(content)
    with pytest.raises(DataError, match=rf"a\.csv.* {message}"):
        read(tmp_path / "a.csv")


def test_an_index_column_names_the_rows(tmp_path):
    (tmp_path / "a.csv").write_text(",text\n10,abc\n11,def\n")
    assert [row.name for row in read(tmp_path / "a.csv")[1]] == ["10", "11"]


def test_classes_by_number_beside_classes_txt(tmp_path):
    (tmp_path / "classes.txt").write_text("class 0\nclass 1\nclass 2\n")
    (tmp_path / "a.csv").write_text("label,text\n1,abc\n3,def\n7,ab\nclass 1,a\n")
    labels = [row.label for row in read(tmp_path / "a.csv")[1]]
    assert labels == ["class 0", "class 2", "7", "class 1"]


def test_a_declared_encoding(tmp_path):
    (tmp_path / "a.csv").write_bytes("text;label\nn\xe4h;class 0\n".encode("latin-1"))
    assert read(tmp_path / "a.csv", encoding="latin-1")[1][0].content == "näh"
    (tmp_path / "a.txt").write_bytes("näh\nab\n".encode("cp1252"))
    assert [r.content for r in read(tmp_path / "a.txt", encoding="cp1252")[1]] == ["näh", "ab"]
    with pytest.raises(DataError, match=r"a\.txt .*UTF-8 .* 1: .*--encoding"):
        read(tmp_path / "a.txt")
    with pytest.raises(SettingError, match=r"'utf-9': .*utf-8"):
        read(tmp_path / "a.txt", encoding="utf-9")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_lines_or_one_text(tmp_path, encoding):
    (tmp_path / "a.txt").write_text("näh\n\nab\r\ncd", encoding=encoding)
    source, rows = read(tmp_path / "a.txt")
    assert shown(rows) == [(0, "näh", None), (1, "", None), (2, "ab", None), (3, "cd", None)]
    assert not source.labelled
    assert source.about() == pytest.approx(4, abs=8)
    if encoding != "utf-16":
        source, rows = read(tmp_path / "a.txt", data_format="text")
        assert [row.name for row in rows] == ["a.txt"]
        wanted = TEXTS.text_ids("näh\n\nab\r\ncd")
        np.testing.assert_array_equal(prepare(TEXTS, rows[0]).sequence[:4], wanted[:4])


def test_a_flat_folder_of_texts(tmp_path):
    for name, text in (("b.txt", "abc\n"), ("a.txt", "de"), ("c.md", "no")):
        (tmp_path / name).write_text(text)
    source, rows = read(tmp_path)
    assert [row.name for row in rows] == ["a.txt", "b.txt"]
    np.testing.assert_array_equal(prepare(TEXTS, rows[1]).sequence, TEXTS.text_ids("abc"))
    assert not source.labelled
    assert source.total == 2
    assert "skipped 1 other file" in source.notes()[0]


@pytest.mark.parametrize("around", ["", "test/", "a/b/"])
def test_folders_with_the_names_of_classes_are_labels(photos, around):
    if around:
        top = photos.parent / "top"
        (top / around).mkdir(parents=True)
        shutil.move(photos, top / around / "x")
        for folder in (top / around / "x").iterdir():
            folder.rename(top / around / folder.name)
        (top / around / "x").rmdir()
        photos = top
    source, rows = read(photos, IMAGES)
    assert [row.label for row in rows] == ["cat"] * 4 + ["dog"] * 3 + ["yak"] * 2
    assert source.labelled


def test_folders_of_other_names_are_not_labels(photos):
    for folder in photos.iterdir():
        folder.rename(photos / f"set {folder.name}")
    source, rows = read(photos, IMAGES)
    assert not source.labelled
    assert {row.label for row in rows} == {None}


def test_an_archive_answers_as_its_folder(photos, tmp_path):
    with zipfile.ZipFile(tmp_path / "p.zip", "w") as archive:
        for path in sorted(photos.rglob("*.png")):
            archive.write(path, path.relative_to(photos.parent))
    shutil.make_archive(str(tmp_path / "p"), "gztar", photos)
    for name in ("p.zip", "p.tar.gz"):
        source, rows = read(tmp_path / name, IMAGES)
        by_name = {row.name.removeprefix("photos/").removeprefix("./"): row for row in rows}
        assert source.labelled
        for row in read(photos, IMAGES)[1]:
            other = by_name[row.name]
            assert other.label == row.label
            wanted = prepare(IMAGES, row).sequence
            np.testing.assert_array_equal(prepare(IMAGES, other).sequence, wanted)


def test_one_image(photos):
    _, rows = read(photos / "cat" / "0.png", IMAGES)
    assert [row.name for row in rows] == ["0.png"]
    assert prepare(IMAGES, rows[0]).sequence.shape == (16, 1)


@pytest.mark.parametrize(
    ("more", "labels"),
    [
        ({}, None),
        ({"labels": [2, 0, 5]}, [2, 0, 5]),
        ({"labels": [1, 0, 2], "classes": ["class 2", "x"]}, ["x", "class 2", "2"]),
        ({"labels": ["class 1", "class 0", "y"]}, ["class 1", "class 0", "y"]),
        ({"labels": np.array([b"class 1", b"a", b"b"])}, ["class 1", "a", "b"]),
    ],
)
def test_arrays_with_labels_of_any_kind(tmp_path, more, labels):
    inputs = np.random.default_rng(0).random((3, 5, 2))
    arrays = {name: np.asarray(value) for name, value in more.items()}
    np.savez(tmp_path / "a.npz", inputs=inputs, lengths=[5, 1, 3], **arrays)
    source, rows = read(tmp_path / "a.npz", VECTORS)
    assert [row.label for row in rows] == (labels or [None] * 3)
    assert source.labelled == (labels is not None)
    assert [len(prepare(VECTORS, row).sequence) for row in rows] == [5, 1, 3]
    np.savez(tmp_path / "b.npz", inputs=inputs, labels=np.zeros(2, int))
    with pytest.raises(DataError, match=r"b\.npz: labels .*\[2\]: .*\[3\]"):
        read(tmp_path / "b.npz", VECTORS)


def test_numbers_may_be_the_names_of_classes(tmp_path):
    info = dataclasses.replace(VECTORS, classes=("1", "2", "3"))
    np.savez(tmp_path / "a.npz", inputs=np.ones((2, 4, 2)), labels=[1, 0])
    assert [row.label for row in read(tmp_path / "a.npz", info)[1]] == ["1", "0"]


def write_idx(path, array):
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    path.write_bytes(gzip.compress(header + array.astype(np.uint8).tobytes()))


def test_idx_images_with_the_labels_beside_them(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (4, 6, 6))
    write_idx(tmp_path / "t10k-images-idx3-ubyte.gz", images)
    source, rows = read(tmp_path / "t10k-images-idx3-ubyte.gz", IMAGES)
    assert not source.labelled
    write_idx(tmp_path / "t10k-labels-idx1-ubyte.gz", np.array([2, 0, 1, 1]))
    write_idx(tmp_path / "train-labels-idx1-ubyte.gz", np.array([0]))
    source, rows = read(tmp_path / "t10k-images-idx3-ubyte.gz", IMAGES)
    assert [row.label for row in rows] == [2, 0, 1, 1]
    wanted = IMAGES.image_sequence(images[3].astype(np.uint8))
    np.testing.assert_array_equal(prepare(IMAGES, rows[3]).sequence, wanted)


def test_shards_and_a_data_set_answer_as_the_files(models, photos, tmp_path):
    model = models("images")
    shutil.rmtree(photos / "yak")
    for split in ("train", "test"):
        shutil.copytree(photos, tmp_path / "data" / split)
    source = data.ImageFolder(side=4, grey=True)
    for split in ("train", "test"):
        extra = tmp_path / "data" / split / "eel"
        extra.mkdir()
        Image.fromarray(np.full((8, 8), 40, np.uint8)).save(extra / "e.png")
    found = {s: data.loading.read(source, s, data_dir=str(tmp_path / "data")) for s in ("train",)}
    info, train = found["train"]
    _, test = data.loading.read(source, "test", info, data_dir=str(tmp_path / "data"))
    convert.convert(
        info,
        {"train": train, "test": test},
        tmp_path / "shards",
        shards=1,
        shard_mebibytes=1,
        compression="none",
        progress=lambda done: None,
        logged_to=lambda path: contextlib.nullcontext(),
    )
    place = model.place["tflite"]
    t2aux.predict(place, tmp_path / "data" / "test", tmp_path / "files.csv")
    t2aux.predict(place, tmp_path / "shards", tmp_path / "shards.csv")
    wanted, got = read_csv(tmp_path / "files.csv"), read_csv(tmp_path / "shards.csv")
    for name in ("label", "class", "probability"):
        assert got[name] == wanted[name]
    assert got["input"] == list(range(8))


def test_standard_input(monkeypatch, tmp_path):
    def give(content):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))

    write_table(tmp_path / "a.csv")
    give((tmp_path / "a.csv").read_bytes())
    assert shown(read("-")[1]) == [(0, "abc", "class 1"), (1, "de, f", "class 0")]
    give(b"abc\nde")
    assert shown(read("-", data_format="lines")[1]) == [(0, "abc", None), (1, "de", None)]
    give(b"abc\nde\n")
    assert shown(read("-", data_format="text")[1]) == [("standard input", "abc\nde", None)]
    np.savez(tmp_path / "a.npz", inputs=np.ones((2, 4, 2)))
    give((tmp_path / "a.npz").read_bytes())
    assert [row.where for row in read("-", VECTORS)[1]] == [
        "standard input[0]",
        "standard input[1]",
    ]
    give(b"abc")
    with pytest.raises(DataError, match=r"standard input .*\.npz .*zip"):
        read("-", VECTORS)


def test_what_is_not_data_for_the_classifier(tmp_path, photos):
    (tmp_path / "a.csv").write_text("text\nabc\n")
    (tmp_path / "empty").mkdir()
    for path, info, kind, message in (
        (tmp_path / "none.csv", TEXTS, FileError, r"none\.csv: .*--data"),
        (tmp_path / "a.csv", IMAGES, DataError, r"a\.csv .*images.*IDX"),
        (tmp_path / "a.csv", VECTORS, DataError, r"a\.csv .*\.npz .*\.ts .*vectors"),
        (photos / "cat" / "0.png", TEXTS, DataError, r"0\.png .*images, .*text"),
        (photos, TEXTS, DataError, r"photos .*no \.txt"),
        (photos, VECTORS, DataError, r"photos .*vectors: .*\.npz"),
        (tmp_path / "empty", IMAGES, DataError, r"empty .*no images"),
    ):
        with pytest.raises(kind, match=message):
            read(path, info)
    for reading, message in (
        ({"label_column": "x"}, "--label_column .*photos"),
        ({"data_format": "lines"}, "photos .*--data_format"),
    ):
        with pytest.raises(SettingError, match=message):
            read(photos, IMAGES, **reading)
    (tmp_path / "a.txt").write_text("abc\n")
    with pytest.raises(SettingError, match=r"a\.txt .*lines, .*--keep_columns.*--data_format"):
        read(tmp_path / "a.txt", keep_columns=True)


def test_ts_files_with_classes_and_without(tmp_path):
    path = tmp_path / "waves.ts"
    path.write_text("@classLabel true a b\n@data\n1,2:3,4:b\n5:6:a\n")
    source, rows = read(path, VECTORS)
    assert source.labelled
    assert [(row.name, row.label) for row in rows] == [(0, "b"), (1, "a")]
    assert [row.content.tolist() for row in rows] == [[[1, 3], [2, 4]], [[5, 6]]]
    path.write_text("@classLabel false\n@data\n1,2:3,4\n5:6\n")
    source, rows = read(path, VECTORS)
    assert not source.labelled
    assert [row.content.tolist() for row in rows] == [[[1, 3], [2, 4]], [[5, 6]]]
