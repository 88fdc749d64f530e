"""CSV files as others write them: headers, separators, quotes, encodings, missing classes."""

import gzip
import json

import pyarrow as pa
import pytest
from pyarrow import parquet

from t2aux.errors import DataError, SettingError
from tests.sources import load

TEXTS = (
    "The river rose, said the mayor.",
    "Striker scores; twice",
    "Shares fell | 3 %",
    "A star is seen",
)
ROWS = [(str(number % 4 + 1), f"{TEXTS[number % 4]} ({number})") for number in range(16)]
REVERSED = [(text, name) for name, text in ROWS]
NUMBERED = [(str(number), *row) for number, row in enumerate(ROWS)]


def csv_of(rows, header=None, separator=",", end="\n", quote='"'):
    lines = [] if header is None else [header]
    lines += [separator.join(f"{quote}{cell}{quote}" for cell in row) for row in rows]
    return end.join(lines) + end


def read(folder, content, split="train", **arguments):
    content = content if isinstance(content, bytes) else content.encode()
    (folder / f"{split}.csv").write_bytes(content)
    return load(split, name="csv", data_dir=str(folder), **arguments)


def texts_of(split):
    return [split.info.text(split.example(index)) for index in range(len(split))]


@pytest.mark.parametrize(
    "header",
    [
        "label,text",
        "Category,Description",
        '"sentiment","review"',
        '"target","text"',
        "Class Index,Description",
        "class_index,text",
        "label_id,sentence",
        "polarity,tweet",
        "y,x",
    ],
)
@pytest.mark.parametrize("start", ["", "\ufeff"])
def test_headers_of_the_usual_names_are_skipped(tmp_path, header, start):
    split = read(tmp_path, start + csv_of(ROWS, header))
    assert split.info.classes == ("1", "2", "3", "4")
    assert texts_of(split) == [text for _, text in ROWS]
    assert any("header" in note for note in split.notes)
    # Also beside a list of the classes.
    (tmp_path / "classes.txt").write_text("ant\nbee\ncat\ndog\n")
    assert read(tmp_path, start + csv_of(ROWS, header)).labels.tolist() == [*range(4)] * 4


def test_the_three_columns_of_ag_news(tmp_path):
    rows = [(name, f"{text} title", text) for name, text in ROWS]
    split = read(tmp_path, csv_of(rows, '"Class Index","Title","Description"'))
    assert split.info.classes == ("1", "2", "3", "4")
    assert texts_of(split) == [f"{title} {text}" for _, title, text in rows]
    assert any("3 columns" in note for note in split.notes)


@pytest.mark.parametrize("header", ["klasse,tekst", "v1,v2,,,", "0,1", '"Sentimento","Testo"'])
def test_other_headers_are_errors(tmp_path, header):
    with pytest.raises(DataError, match=r"train\.csv, line 1: .*--label_column.*first_row"):
        read(tmp_path, csv_of(ROWS, header))
    split = read(tmp_path, csv_of(ROWS, header), allow="first_row")
    assert len(split) == 17
    assert split.info.num_classes == 5


def test_an_unknown_header_of_the_test_data_is_an_error_that_says_so(tmp_path):
    read(tmp_path, csv_of(ROWS))
    with pytest.raises(DataError, match=r"test\.csv, line 1: .*'klasse'.*'1', .*header"):
        read(tmp_path, csv_of(ROWS, "klasse,tekst"), "test")


def test_headers_between_the_rows_are_skipped(tmp_path):
    content = csv_of(ROWS, "label,text")
    split = read(tmp_path, content + content)
    assert (split.info.num_classes, len(split)) == (4, 32)
    assert any("repeat" in note for note in split.notes)


@pytest.mark.parametrize(
    ("header", "rows", "columns"),
    [
        ("review,sentiment", REVERSED, ("sentiment", "review")),
        ("text,label", REVERSED[:8], ("label", "text")),
        (",label,text", NUMBERED, ("label", "text")),
        ("Unnamed: 0,label,text", NUMBERED, ("label", "text")),
        ("id,tweet,target", [(n, t, c) for n, c, t in NUMBERED], ("target", "tweet")),
        ("review_id,title,stars", [(n, t, c) for n, c, t in NUMBERED], ("stars", "title")),
    ],
)
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_class_in_another_column_is_found_by_its_name(tmp_path, header, rows, columns, separator):
    split = read(tmp_path, csv_of(rows, header.replace(",", separator), separator))
    assert split.info.classes == ("1", "2", "3", "4")
    assert texts_of(split) == [text for _, text in ROWS[: len(rows)]]
    label, text = columns
    assert any(f"class is the column {label!r}, and the text is {text!r}" in n for n in split.notes)


@pytest.mark.parametrize("index", [False, True])
@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet", "csv.gz"])
def test_columns_by_name(tmp_path, kind, index):
    names = ["klasse", "titel", "tekst", "bron"]
    rows = [(c, f"title {n}", t, "x") for n, (c, t) in enumerate(ROWS)]
    for split, part in (("train", rows[:12]), ("test", rows[12:])):
        write_table(tmp_path / f"{split}.{kind}", names, part, index)
    given = {"label_column": "klasse", "text_columns": ["titel", "tekst"], "data_dir": tmp_path}
    train, test = (load(split, "csv", **given) for split in ("train", "test"))
    assert train.info == test.info
    assert train.labels.tolist() == [*range(4)] * 3
    assert texts_of(train) == [f"{title} {text}" for _, title, text, _ in rows[:12]]
    assert len(test) == 4
    assert any("not read:" in note and "'bron'" in note for note in train.notes)


def write_table(path, names, rows, index):
    """A table as pandas writes it."""
    if index:
        names, rows = ["", *names], [(str(n), *row) for n, row in enumerate(rows)]
    if path.suffix == ".parquet":
        named = [name or "__index_level_0__" for name in names]
        parquet.write_table(pa.table(dict(zip(named, zip(*rows, strict=True), strict=True))), path)
    elif path.suffix == ".jsonl":
        records = (dict(zip(names, row, strict=True)) for row in rows)
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
    else:
        separator = "\t" if path.suffix == ".tsv" else ","
        content = csv_of(rows, separator.join(names), separator).encode()
        path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def test_positions_and_one_text(tmp_path):
    content = csv_of([(t, "x", c) for c, t in ROWS])
    split = read(tmp_path, content, label_column=2, text_columns=0)
    assert texts_of(split) == [text for _, text in ROWS]
    assert split.labels.tolist() == [*range(4)] * 4
    assert texts_of(read(tmp_path, content, label_column="-1", text_columns="0")) == texts_of(split)
    with pytest.raises(SettingError, match=r"csv\.label_column .*1\.5"):
        read(tmp_path, content, label_column=1.5)
    with pytest.raises(SettingError, match=r"csv\.text_columns .*None"):
        read(tmp_path, content, text_columns=None)


def test_a_table_without_a_class_is_an_error(tmp_path):
    with pytest.raises(SettingError, match=r"train\.csv .*--label_column=NAME.*'id', 'tweet'"):
        read(tmp_path, csv_of(ROWS, "id,tweet"))


def test_encodings_are_read(tmp_path):
    rows = [(c, f"na\u00efve {t}") for c, t in ROWS]
    for encoding in ("utf-8-sig", "utf-16"):
        assert texts_of(read(tmp_path, csv_of(rows).encode(encoding)))[0].startswith("na\u00efve")
    content = csv_of(rows).encode("cp1252")
    assert texts_of(read(tmp_path, content, encoding="cp1252")) == [text for _, text in rows]
    with pytest.raises(DataError, match=r"train\.csv .*UTF-8 .* 1: .*--encoding=cp1252"):
        read(tmp_path, content)


@pytest.mark.parametrize(
    ("rows", "classes"),
    [
        (REVERSED, 16),
        (REVERSED[:4], 4),
        (NUMBERED, 16),
        ([*REVERSED, *REVERSED[:5]], 16),
        ([("texto", "clase"), *REVERSED], 17),
    ],
)
def test_nearly_a_class_a_row_is_an_error(tmp_path, rows, classes):
    with pytest.raises(DataError, match=rf" {len(rows)} .* {classes} .*class_per_example"):
        read(tmp_path, csv_of(rows))
    split = read(tmp_path, csv_of(rows), allow=["class_per_example", "first_row"])
    assert split.info.num_classes == classes


def test_few_examples_of_many_classes_are_right(tmp_path):
    rows = [(f"class {n // 2}", f"text {n}") for n in range(20)]
    assert read(tmp_path, csv_of(rows)).info.num_classes == 10
    # And so is a small random choice of them.
    assert len(read(tmp_path, csv_of(rows), max_examples=5)) == 5


MISSING = ["", " ", "nan", "NaN", "None", "null", "N/A", "NA", "<NA>", "NaT"]
MISSING += ["n.a.", "NULL", "#n/a", "NAN"]


@pytest.mark.parametrize("name", MISSING)
def test_missing_classes_are_errors(tmp_path, name):
    rows = [*ROWS[:5], (name, "text"), *ROWS[6:]]
    with pytest.raises(DataError, match=r"train\.csv, line 6: .*missing_labels"):
        read(tmp_path, csv_of(rows))
    split = read(tmp_path, csv_of(rows), allow=("missing_labels",))
    assert name.strip() in split.info.classes
    # A run that was trained on it still knows it; in the test data of another it is an error.
    assert read(tmp_path, csv_of(rows), "test", info=split.info).info == split.info
    info = read(tmp_path, csv_of(ROWS)).info
    with pytest.raises(DataError, match=r"test\.csv, line 6: .*missing_labels"):
        read(tmp_path, csv_of(rows), "test", info=info)


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_only_a_first_row_of_csv_may_be_a_header(tmp_path, kind):
    write_table(tmp_path / f"train.{kind}", ["label", "text"], [("", "x"), *ROWS], False)
    if kind == "csv":
        (tmp_path / "train.csv").write_text(csv_of([("", "klasse"), *ROWS]))
    message = "empty .is it a header" if kind == "csv" else "empty: correct or delete the row"
    where = "row" if kind == "parquet" else "line"
    with pytest.raises(DataError, match=rf"train\.{kind}, {where} 1: the class is {message}"):
        load("train", "csv", data_dir=tmp_path)


@pytest.mark.parametrize(
    ("separator", "said"), [("\t", "tabs"), (";", "semicolons"), ("|", "vertical bars")]
)
@pytest.mark.parametrize("quote", ["", '"'])
@pytest.mark.parametrize("header", [None, "label{}text"])
def test_other_separators_are_read_and_reported(tmp_path, separator, said, quote, header):
    rows = [(name, text.replace(separator, " ")) for name, text in ROWS]
    if quote:
        rows[3] = rows[7] = ("Arts, crafts", "one")
    header = header and header.format(separator)
    content = csv_of(rows, header, separator, quote=quote)
    for split in ("train", "test"):
        found = read(tmp_path, content, split)
        assert texts_of(found) == [text for _, text in rows]
        assert found.info.num_classes == 4 + bool(quote)
        assert any(f"{split}.csv: the columns are separated by {said}" in n for n in found.notes)


def test_class_names_may_hold_other_separators(tmp_path):
    rows = [("R&B|Soul", "a"), ("a;b", "c"), ("rock", "d"), ("R&B|Soul", "e"), ("a;b", "f")]
    assert read(tmp_path, csv_of([*rows, *rows], quote="")).info.num_classes == 3
    odd = csv_of([("a;b" if n % 2 else "c;d", f"text {n}") for n in range(8)], quote="")
    with pytest.raises(DataError, match=r"csv\.separator = ';'.*dataset\.allow.*separator"):
        read(tmp_path, odd)
    assert read(tmp_path, odd, allow="separator").info.classes == ("a;b", "c;d")
    assert read(tmp_path, csv_of([("a;b", "x"), ("c;d", "y")])).info.classes == ("a;b", "c;d")


@pytest.mark.parametrize("space", [" ", "   "])
def test_spaces_before_quotes(tmp_path, space):
    content = "".join(f'{space}"{name}",{space}"{text}"\n' for name, text in ROWS)
    split = read(tmp_path, content)
    assert split.info.classes == ("1", "2", "3", "4")
    assert texts_of(split) == [text for _, text in ROWS]


def test_commas_of_texts_without_quotes_are_reported(tmp_path):
    split = read(tmp_path, "1,Hello, world\n2,a\n1,b\n2,c\n")
    assert texts_of(split)[0] == "Hello world"
    (note,) = split.notes
    assert "2 to 3 columns" in note
    assert "quotes" in note


def test_columns_that_are_not_texts_are_reported(tmp_path):
    rows = [(name, f"name {name}", text) for name, text in ROWS]
    notes = " ".join(read(tmp_path, csv_of(rows, "label,label_text,text")).notes)
    assert "hold what these columns hold, too: 'label_text';" in notes


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_ends_of_lines_blank_rows_and_trailing_separators(tmp_path, end):
    content = end.join(f'{name},"{text}",' for name, text in ROWS) + 3 * end + f",,{end},,{end}"
    split = read(tmp_path, content)
    assert texts_of(split) == [text for _, text in ROWS]
    (note,) = split.notes
    assert "empty columns: 2" in note


def test_names_that_look_alike_are_reported(tmp_path):
    rows = [
        (name, f"text {n}") for n, name in enumerate(["Cat", "cat ", "dog", "1", "01", "1.0"] * 3)
    ]
    split = read(tmp_path, csv_of(rows))
    assert split.info.classes == ("01", "1", "1.0", "Cat", "cat", "dog")
    (note,) = split.notes
    assert "'Cat' and 'cat'" in note
    assert "'01' and '1' and '1.0'" in note


def test_test_classes_of_another_form_are_errors_that_name_the_class(tmp_path):
    read(tmp_path, csv_of(ROWS))
    with pytest.raises(DataError, match=r"test\.csv, line 2: .*'1\.0'.*'1', .* '1'\."):
        read(tmp_path, csv_of([("1", "a"), ("1.0", "b")]), "test")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (csv_of(ROWS).encode("utf-16-le"), "UTF-8"),
        (csv_of([("1", "na\u00efve")]).encode("latin-1"), "UTF-8"),
        (b"PK\x03\x04" + bytes(50), "workbook"),
        (csv_of(ROWS).replace("river", "ri\0ver"), "NUL"),
        (csv_of(ROWS * 150).encode() + b"1,a\0b\n", "line 2401.*NUL"),
        ("one\ntwo\n", "column"),
    ],
)
def test_what_is_not_a_table_of_utf_8_is_an_error(tmp_path, content, said):
    with pytest.raises(DataError, match=rf"train\.csv.*{said}"):
        read(tmp_path, content)


@pytest.mark.parametrize("separator", [",", ";", "^"])
def test_excels_separator_line_is_skipped(tmp_path, separator):
    for header in (None, f"label{separator}text"):
        content = csv_of(ROWS, header, separator, end="\r\n")
        split = read(tmp_path, f"sep={separator}\r\n{content}")
        assert split.info.classes == ("1", "2", "3", "4")
        assert texts_of(split) == [text for _, text in ROWS]
        assert any("sep=" in note for note in split.notes)


def test_a_header_that_joined_files_repeat(tmp_path):
    part = csv_of(ROWS, "klasse,tekst")
    with pytest.raises(DataError, match=r"train\.csv, line 1: .*'klasse'.*--label_column"):
        read(tmp_path, part + part)
    # Windows' programs put a byte order mark before each.
    marked = "\ufeff" + csv_of(ROWS, "label,text")
    assert read(tmp_path, marked + marked).info.classes == ("1", "2", "3", "4")


@pytest.mark.parametrize("missing", ["\\N", "Null", "(null)", "#REF!", "\u200b", "\ufeff"])
def test_more_forms_of_missing_classes(tmp_path, missing):
    with pytest.raises(DataError, match=r"train\.csv, line 17: .*missing_labels"):
        read(tmp_path, csv_of([*ROWS, (missing, "Some text")]))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('[{"label": "1",\n"text": "x"}]', "JSON"),
        ("__label__1 The, river\n__label__2 The, mayor\n" * 9, "fastText.*separator"),
    ],
)
def test_other_formats_are_named(tmp_path, content, message):
    with pytest.raises(DataError, match=rf"train\.csv .*{message}"):
        read(tmp_path, content)


def test_tables_of_numbers_are_noted(tmp_path):
    rows = [(str(number % 2), f"{number / 7}", f"-{number}e-3") for number in range(12)]
    assert any("npz" in note for note in read(tmp_path, csv_of(rows)).notes)
    assert not any("npz" in note for note in read(tmp_path, csv_of(ROWS)).notes)


def test_a_header_that_is_also_a_class_is_an_error(tmp_path):
    rows = [("topic", "text"), ("topic", "one"), ("topic", "two"), ("other", "a"), ("other", "b")]
    with pytest.raises(DataError, match=r"'topic', .*line 2: .*--label_column.*first_row"):
        read(tmp_path, csv_of(rows))
    assert len(read(tmp_path, csv_of(rows), allow="first_row")) == 5
    # A name in classes.txt is a class.
    (tmp_path / "classes.txt").write_text("other\ntopic\n")
    assert read(tmp_path, csv_of(rows)).labels.tolist() == [1, 1, 1, 0, 0]


@pytest.mark.parametrize("space", ["\t", "\xa0", "\u3000"])
def test_other_white_space_before_quotes_is_an_error(tmp_path, space):
    with pytest.raises(DataError, match=r"train\.csv: .*white space .*separator"):
        read(tmp_path, "".join(f'"{name}",{space}"{text}"\n' for name, text in ROWS))


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("quotes", ["‘’", "“”", "„“", "«»", "``"])
def test_other_quotes_are_an_error(tmp_path, quotes, separator):
    opening, closing = quotes
    lines = [f"{opening}{name}{closing}{separator}{opening}{text}{closing}" for name, text in ROWS]
    with pytest.raises(DataError, match=r"train\.csv: .*quotes.*separator"):
        read(tmp_path, "\n".join(lines))


def test_a_class_that_may_stand_for_missing_labels_is_noted(tmp_path):
    rows = [("?" if number % 5 == 4 else name, text) for number, (name, text) in enumerate(ROWS)]
    assert any("'?'" in note for note in read(tmp_path, csv_of(rows)).notes)
    rows = [("+-"[number % 2], text) for number, (_, text) in enumerate(ROWS)]
    assert not any("missing" in note for note in read(tmp_path, csv_of(rows)).notes)
