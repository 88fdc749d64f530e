import gzip

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from t2aux import config
from t2aux.data import characters
from t2aux.data.table import Options
from t2aux.errors import DataError, FileError, SettingError
from t2aux_ondevice.preprocessing import UNKNOWN, DatasetInfo
from tests import sources
from tests.sources import load
from tests.text_memory import LONG, TEXTS, assert_held_one_at_a_time

DBPEDIA = """"1","First","A ""quoted"" text, with a comma."
"3","Second"," Two
lines."
"2","Third","More."
"""


def read(folder, split="train", **arguments):
    return load(split, name="csv", data_dir=str(folder), **arguments)


def read_rows(folder, content, split="train", **arguments):
    (folder / f"{split}.csv").write_text(content)
    return read(folder, split, **arguments)


def texts_of(split):
    vocabulary = split.info.vocabulary
    return ["".join(vocabulary[i] for i in split.example(n)) for n in range(len(split))]


def test_reads_the_layout_of_dbpedia(tmp_path):
    (tmp_path / "train.csv.gz").write_bytes(gzip.compress(DBPEDIA.encode()))
    (tmp_path / "test.csv").write_text('"2","A","B"\n')
    (tmp_path / "classes.txt").write_text("Company\nArtist\nAthlete\n")
    split = read(tmp_path)
    assert split.info.classes == ("Company", "Artist", "Athlete")
    assert split.labels.tolist() == [0, 2, 1]
    assert texts_of(split) == [
        'First A "quoted" text, with a comma.',
        "Second Two\nlines.",
        "Third More.",
    ]
    test = read(tmp_path, "test")
    assert test.info == split.info
    assert test.labels.tolist() == [1]
    assert texts_of(test) == [f"A {UNKNOWN}"]


@pytest.mark.parametrize(
    ("rows", "classes", "labels"),
    [
        ("b,x\na,y\nb,z\n", ("a", "b"), [1, 0, 1]),
        ("10,x\n9,y\n", ("9", "10"), [1, 0]),
        ("0,x\n1,y\n", ("0", "1"), [0, 1]),
        ("label,text\nb,x\na,y\n", ("a", "b"), [1, 0]),
        ("\ufeffa,x\n\nb,y\n", ("a", "b"), [0, 1]),
    ],
)
def test_classes_without_a_file_of_names(tmp_path, rows, classes, labels):
    (tmp_path / "train.csv").write_text(rows, encoding="utf-8")
    split = read(tmp_path)
    assert split.info.classes == classes
    assert split.labels.tolist() == labels


def test_classes_by_name_beside_a_file_of_names(tmp_path):
    (tmp_path / "classes.txt").write_text("x\ny\n")
    (tmp_path / "train.csv").write_text("y,text\n1,text\n02,text\n")
    assert read(tmp_path).labels.tolist() == [1, 0, 1]


def test_names_that_are_numbers_are_names(tmp_path):
    (tmp_path / "classes.txt").write_text("0\n1\n")
    (tmp_path / "train.csv").write_text("1,text\n0,text\n")
    assert read(tmp_path).labels.tolist() == [1, 0]


def test_bytes_and_the_limit(tmp_path):
    (tmp_path / "train.csv").write_text("a,h\u00e9llo\nb,w\n", encoding="utf-8")
    split = read(tmp_path, tokens="bytes", max_length=4)
    assert split.info.vocabulary is None
    assert split.example(0).tolist() == list("h\u00e9llo".encode()[:4])
    assert split.lengths.tolist() == [4, 1]


def test_the_vocabulary_is_that_of_the_training_split(tmp_path):
    (tmp_path / "train.csv").write_text("a,aab\nb,bcc c\n")
    (tmp_path / "test.csv").write_text("a,zzz zzc\n")
    train = read(tmp_path, vocabulary_size=3)
    # a appears twice, b twice and c thrice: ties go to the lower code point.
    assert train.info.vocabulary == (UNKNOWN, "c", "a")
    test = read(tmp_path, "test", vocabulary_size=3)
    assert test.info == train.info
    assert test.example(0).tolist() == [0, 0, 0, 0, 0, 0, 1]


def test_a_run_keeps_its_vocabulary(tmp_path):
    (tmp_path / "train.csv").write_text("a,xyz\nb,x\n")
    info = read(tmp_path, max_length=2).info
    (tmp_path / "train.csv").unlink()
    (tmp_path / "test.csv").write_text("b,yxw\n")
    test = read(tmp_path, "test", info=info)
    assert test.example(0).tolist() == [info.vocabulary.index("y"), info.vocabulary.index("x")]


def test_a_run_of_other_classes_is_a_user_error(tmp_path):
    (tmp_path / "classes.txt").write_text("a\nb\n")
    (tmp_path / "train.csv").write_text("a,xyz\nb,x\n")
    info = read(tmp_path).info
    (tmp_path / "classes.txt").write_text("b\na\n")
    with pytest.raises(DataError, match=r"csv .*classes .*\('b', 'a'\) .*\('a', 'b'\)"):
        read(tmp_path, info=info)


def test_options_of_images_are_unknown_parameters():
    for name in ("side", "grey", "permutation_seed"):
        with pytest.raises(SettingError, match=rf"csv .*'{name}' .*csv\.{name} = 1.* tokens"):
            config.parse([], [f"csv.{name} = 1"])


def test_max_examples(tmp_path):
    (tmp_path / "train.csv").write_text("".join(f"{i % 3},text {i}\n" for i in range(50)))
    split = read(tmp_path, max_examples=7)
    assert len(split) == 7
    # Classes and vocabulary are those of the whole file, as for the test split.
    assert split.info == read(tmp_path).info
    for text, label in zip(texts_of(split), split.labels, strict=True):
        assert int(text.split()[1]) % 3 == label


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("", r"train\.csv .*rows"),
        ("\n\n", r"train\.csv .*rows"),
        ("class,text\n", r"train\.csv .*rows"),
        ("a,x\nb\n", r"train\.csv, line 2: .*column.* 2:"),
        ("a,x\nb,\nc,y\nd,\n", r"line 2, 4: .*text .*empty"),
        ('a,"x\ny"\nb," ","\t"\n', "line 3: .*text .*empty"),
        ('a,x\nb,"y\nc,z\n', "line 2: .*CSV"),
        ('a,x\nb,"y"y\n', "line 2: .*CSV"),
    ],
)
def test_malformed_rows_are_user_errors(tmp_path, rows, message):
    (tmp_path / "train.csv").write_text(rows)
    with pytest.raises(DataError, match=message):
        read(tmp_path)


@pytest.mark.parametrize("number", ["0", "3", "-1", "c", "1.0"])
def test_classes_out_of_range_are_user_errors(tmp_path, number):
    (tmp_path / "classes.txt").write_text("a\nb\n")
    (tmp_path / "train.csv").write_text(f'1,"two\nlines"\n2,x\n{number},x\n')
    with pytest.raises(DataError, match=rf"line 4: .*'{number}'.* 1 to 2.*classes\.txt"):
        read(tmp_path)


def test_a_class_only_in_the_test_split_is_a_user_error(tmp_path):
    (tmp_path / "train.csv").write_text("a,x\nb,y\n")
    (tmp_path / "test.csv").write_text("a,x\nc,y\n")
    with pytest.raises(DataError, match=r"test\.csv, line 2: .*'c'.*'a', 'b'"):
        read(tmp_path, "test")


def test_damaged_files_are_user_errors(tmp_path):
    (tmp_path / "train.csv").write_bytes(b"a,x\nb,\xff\xfe\n")
    with pytest.raises(DataError, match=r"train\.csv .*UTF-8.* 1: .*--encoding"):
        read(tmp_path)
    (tmp_path / "train.csv").unlink()
    content = gzip.compress(DBPEDIA.encode() * 50)
    for damage, kind in (
        (content[:-20], FileError),
        (b"no gzip", DataError),
        (content[:40] + b"\xff" * 50, FileError),
    ):
        (tmp_path / "train.csv.gz").write_bytes(damage)
        with pytest.raises(kind, match=r"train\.csv\.gz"):
            read(tmp_path)


def test_long_fields_are_read(tmp_path):
    (tmp_path / "train.csv").write_text(f"a,{'x' * 200_000}\nb,y\n")
    assert read(tmp_path).lengths.tolist() == [200_000, 1]


texts = st.lists(
    st.text(st.characters(exclude_categories=("Cs",)), min_size=1).filter(str.strip), min_size=1
)


def vocabulary_of(texts, size, limit=None):
    counts = characters.CharacterCounts(limit)
    for text in texts:
        counts.add(text)
    return counts.vocabulary(size)


@settings(max_examples=40)
@given(texts, st.integers(2, 400), st.one_of(st.none(), st.integers(1, 5)))
def test_vocabulary_is_of_the_most_frequent(texts, size, limit):
    vocabulary = vocabulary_of(texts, size, limit)
    shown = "".join(text[:limit] for text in texts).replace(UNKNOWN, "")
    expected = sorted(set(shown), key=lambda c: (-shown.count(c), c))
    assert vocabulary == (UNKNOWN, *expected[: size - 1])


@settings(max_examples=40)
@given(
    texts,
    st.sampled_from(["characters", "bytes"]),
    st.integers(2, 300),
    st.one_of(st.none(), st.integers(1, 5)),
)
def test_the_table_holds_what_text_ids_gives(texts, tokens, size, limit):
    options = Options(tokens=tokens, max_length=limit)
    vocabulary = vocabulary_of(texts, size) if tokens == "characters" else None
    info = DatasetInfo("t", "text", ("a",), max_length=limit, tokens=tokens, vocabulary=vocabulary)
    lengths = np.array([characters.count_tokens(text, options) for text in texts])
    made = characters.Texts("t", info, np.zeros(len(texts), np.int32), lengths, lambda: iter(texts))
    table = made.table()
    assert (table.dtype, table.nbytes) == (made.dtype, made.nbytes)
    for index, text in enumerate(texts):
        start, end = table.offsets[index : index + 2]
        np.testing.assert_array_equal(table.values[start:end], info.text_ids(text))


def test_a_file_that_changes_meanwhile_is_a_user_error(tmp_path):
    for rows in ("a,x\n", "a,x\nb,y\n", "a,x\nb,yzz\n"):
        (tmp_path / "train.csv").write_text("a,x\nb,yz\n")
        _, texts = sources.read("train", name="csv", data_dir=str(tmp_path))
        (tmp_path / "train.csv").write_text(rows)
        with pytest.raises(DataError, match=r"Text 1 .*train\.csv"):
            texts.table()


@pytest.mark.parametrize("packed", [False, True])
def test_texts_are_held_one_at_a_time(tmp_path, packed):
    with (gzip.open if packed else open)(tmp_path / f"train.csv{'.gz' * packed}", "wt") as file:
        for number in range(TEXTS):
            file.write(f"{number % 3},{number} {LONG}\n")
    info = assert_held_one_at_a_time(name="csv", data_dir=str(tmp_path))
    assert len(info.vocabulary) == 1 + 26 + 10 + 1


def test_class_names_that_differ_only_in_unicode_s_form_are_one(tmp_path):
    nfc, nfd = "caf\u00e9", "cafe\u0301"
    rows = [(name, f"text {i}") for i, name in enumerate([nfc, "tea", nfd, "tea"])]
    for split, more in (("train", []), ("test", [(nfd, "another text")])):
        lines = (f'"{name}","{text}"\n' for name, text in [*rows, *more])
        (tmp_path / f"{split}.csv").write_text("".join(lines), encoding="utf-8")
    test = load("test", "csv", data_dir=str(tmp_path))
    assert test.info.classes == (nfc, "tea")
    assert np.bincount(test.labels).tolist() == [3, 2]


@pytest.mark.parametrize(
    ("rows", "label", "texts"),
    [
        ([("0", "dull bad"), ("1", "nice")], "0", "1"),
        ([("1", "bad one"), ("0", "fine")], 0, 1),
        ([("1", "bad one"), ("0", "fine")], "0", "-1"),
        ([("2", "ok"), ("1", "no")], 0, -1),
    ],
)
def test_positions_do_not_make_the_first_row_a_header(tmp_path, rows, label, texts):
    rows = [(name, f"{text}{number // 5}") for number in range(10) for name, text in rows]
    split = read_rows(
        tmp_path, "".join(f"{a},{b}\n" for a, b in rows), label_column=label, text_columns=texts
    )
    assert texts_of(split) == [text for _, text in rows]
    assert [split.info.classes[label] for label in split.labels] == [name for name, _ in rows]
    assert split.notes == ()


def test_several_positions_of_texts(tmp_path):
    content = "2,t,ok\n1,u,no\n2,1,2\n1,2,0\n"
    split = read_rows(tmp_path, content, label_column="0", text_columns=["1", "2"])
    assert texts_of(split) == ["t ok", "u no", "1 2", "2 0"]


@pytest.mark.parametrize(
    ("header", "label", "text"),
    [("0,1", 0, 1), ("0,1", "0", "1"), ("2019,2020", 2019, "2020"), (",0,1", "0", "1")],
)
def test_numbers_that_are_the_names_of_columns(tmp_path, header, label, text):
    rows = ["2,bad one", "7,fine", "2,bad"]
    if header.startswith(","):
        rows = [f"{number},{row}" for number, row in enumerate(rows)]
    content = "\n".join([header, *rows])
    split = read_rows(tmp_path, content, label_column=label, text_columns=text)
    assert texts_of(split) == ["bad one", "fine", "bad"]
    assert (split.info.classes, split.labels.tolist()) == (("2", "7"), [0, 1, 0])


def test_the_test_data_has_the_columns_of_the_training_data(tmp_path):
    read_rows(tmp_path, "label,author,text\npos,ann,nice\nneg,bob,can\n")
    for content in ("text,label,author\nice,pos,can\n", "author,Label,Text\ncan,pos,ice\n"):
        test = read_rows(tmp_path, content, "test")
        assert (texts_of(test), test.labels.tolist()) == (["can ice"], [1])
    assert texts_of(read_rows(tmp_path, content, "validation")) == ["can ice"]
    with pytest.raises(
        SettingError, match=r"test\.csv .*'author': .*'text', 'label', .*'label', 'author', 'text';"
    ):
        read_rows(tmp_path, "text,label\nok,pos\n", "test")
    (tmp_path / "train.csv").unlink()
    alone = load("test", "csv", data_dir=str(tmp_path), info=test.info)
    assert alone.labels.tolist() == [1]


@pytest.mark.parametrize(
    ("content", "given", "texts"),
    [
        ("id,label,text\n7,1,Hello, world\n8,2,a\n", {}, ["Hello world", "a"]),
        (
            "label,text\n1,Hello, world\n2,a\n",
            {"label_column": "label", "text_columns": "text"},
            ["Hello world", "a"],
        ),
        # As the spam collection on Kaggle.
        (
            "v1,v2,,,\n1,Hello, world,,\n2,a,,,\n",
            {"label_column": "v1", "text_columns": "v2"},
            ["Hello world", "a"],
        ),
        ("1,Hello, world\n2,a\n", {"label_column": 0, "text_columns": 1}, ["Hello", "a"]),
    ],
)
def test_commas_are_reported_wherever_the_columns_are(tmp_path, content, given, texts):
    split = read_rows(tmp_path, content, **given)
    assert texts_of(split) == texts
    assert sum("commas of texts without quotes are lost" in note for note in split.notes) == 1
    if "text_columns" not in given or given["text_columns"] != 1:
        line = content.count("\n", 0, content.index("Hello")) + 1
        assert any(f"columns: 1, the first in line {line};" in note for note in split.notes)


def test_a_cell_beyond_the_names_of_the_header(tmp_path):
    with pytest.raises(DataError, match=r"line 2: .* 3 columns .* 2: .*quotes"):
        read_rows(tmp_path, "text,label,\nwell, nice,pos\nbad,neg,\n")
    split = read_rows(tmp_path, "text,label,\nnice,pos,\nbad,neg,\n")
    assert (texts_of(split), split.info.classes) == (["nice", "bad"], ("neg", "pos"))


def test_a_second_column_of_the_label_s_name_is_not_a_text(tmp_path):
    split = read_rows(tmp_path, "label,text,label\na,x,q\nb,y,w\n")
    assert texts_of(split) == ["x", "y"]
    assert any("not read: 'label.1'" in note for note in split.notes)


def test_notes_name_a_few_of_many_columns(tmp_path):
    more = "".join(f",c{number}" for number in range(2000))
    split = read_rows(tmp_path, f"label,text{more}\na,x\nb,y\n")
    assert any("'text' + 'c0' + 'c1' + 'c2' + 'c3' and 1,996 more" in n for n in split.notes)


@pytest.mark.parametrize(
    ("header", "names"),
    [
        ("text,category,target", "'category', 'target'"),
        ("text,category,label", "'category', 'label'"),
        ("sentiment,text,topic", "'sentiment', 'topic'"),
    ],
)
def test_two_usual_names_of_the_class_are_an_error(tmp_path, header, names):
    content = f"{header}\n" + "a,b,x\nc,d,y\nc,d,x\na,d,y\n"
    with pytest.raises(SettingError, match=rf"train\.csv: .*{names}: .*--label_column"):
        read_rows(tmp_path, content)
    name = header.split(",")[2]
    split = read_rows(tmp_path, content, label_column=name)
    assert (split.info.classes, split.labels.tolist()) == (("x", "y"), [0, 1, 0, 1])


@pytest.mark.parametrize(
    ("header", "row"),
    [
        ("label,text", "{1},{0}"),
        ("text,label", "{0},{1}"),
        ("id,label,text", "5,{1},{0}"),
        ("label,title,text", "{1},a title,{0}"),
    ],
)
def test_quotes_around_several_rows_are_errors(tmp_path, header, row):
    texts = [("Good", "pos"), ('"Great', "pos"), ("Bad, bad", "neg"), ('No"', "pos"), ("x", "neg")]
    if not header.endswith("text"):
        texts[2:4] = ("Bad", "neg"), ('"', "pos")
    content = "\n".join([header, *(row.format(*cells) for cells in texts)])
    with pytest.raises(DataError, match=r"train\.csv, line 3: .*quote.*another row.*separator"):
        read_rows(tmp_path, content)
    # Sentences are not rows.
    texts = [('"One\nneg, two\nthree, neg"', "pos"), ("x", "neg")]
    content = "\n".join([header, *(row.format(*cells) for cells in texts)])
    assert texts_of(read_rows(tmp_path, content))[0].endswith("One\nneg, two\nthree, neg")
