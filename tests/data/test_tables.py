"""The reader of tables: formats, separators, encodings, quotes, headers and index columns."""

import bz2
import csv
import gzip
import io
import itertools
import json
import lzma

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from t2aux.data import tables
from t2aux.errors import DataError, FileError, SettingError

HEADER = ["text", "stars", "label"]
ROWS = [
    ["The river rose, said the mayor.", "5", "good"],
    ['A "quoted" word', "1", "bad"],
    ["Two\nlines; and | more\there", "3", "good"],
    ["na\u00efve caf\u00e9 \U0001f600", "2", "bad"],
]


def csv_text(rows, header=None, index=False, **dialect):
    """A table as Python's csv module writes it, like pandas's where it has an index."""
    file = io.StringIO()
    writer = csv.writer(file, **{"lineterminator": "\n", **dialect})
    if header is not None:
        writer.writerow([*([""] if index else []), *header])
    for number, row in enumerate(rows):
        writer.writerow([*([str(number)] if index else []), *row])
    return file.getvalue()


def rows_of(table):
    return [list(row.values()) for batch in table.batches() for row in batch.to_pylist()]


def opened(content, **arguments):
    content = content if isinstance(content, bytes) else content.encode()
    return tables.open_table(io.BytesIO(content), name="t.csv", **arguments)


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("quoting", [csv.QUOTE_ALL, csv.QUOTE_MINIMAL])
@pytest.mark.parametrize("index", [False, True])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_csv_and_its_relatives(separator, quoting, index, end):
    rows = ROWS if end == "\n" else [[c.replace("\n", " ") for c in row] for row in ROWS]
    text = csv_text(rows, HEADER, index, delimiter=separator, quoting=quoting, lineterminator=end)
    table = opened(text)
    assert table.has_header
    assert table.columns == (("Unnamed: 0",) if index else ()) + tuple(HEADER)
    assert table.index == ("Unnamed: 0" if index else None)
    assert [row[index:] for row in rows_of(table)] == rows
    chosen = tables.choose_columns(table)
    assert (chosen.label, chosen.texts) == ("label", ("text",))
    said = " ".join(table.notes)
    assert ("separated by" in said) == (separator != ",")
    assert ("numbers the rows" in said) == index


@pytest.mark.parametrize(
    ("encoding", "mark", "declared"),
    [
        ("utf-8", b"", None),
        ("utf-8-sig", b"", None),
        ("utf-8", b"", "utf8"),
        ("utf-16", b"", None),
        ("utf-16-le", b"\xff\xfe", None),
        ("utf-16-be", b"\xfe\xff", None),
        ("utf-16-be", b"\xfe\xff", "utf-16-be"),
        ("utf-16-le", b"", "utf-16-le"),
        ("utf-32", b"", None),
        ("gb18030", b"", "gb18030"),
    ],
)
@pytest.mark.parametrize("lines", [False, True])
def test_encodings(encoding, mark, declared, lines):
    text = csv_text(ROWS, HEADER)
    if lines:
        records = (dict(zip(HEADER, row, strict=True)) for row in ROWS)
        text = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    table = opened(mark + text.encode(encoding), encoding=declared)
    assert table.columns == tuple(HEADER)
    assert rows_of(table) == ROWS


def test_a_declared_encoding():
    table = opened("text,label\nna\u00efve,a\n\u20ac,b\n".encode("cp1252"), encoding="windows-1252")
    assert rows_of(table) == [["na\u00efve", "a"], ["\u20ac", "b"]]
    with pytest.raises(DataError, match=r"t\.csv .*UTF-8 .* 1: .*--encoding=cp1252"):
        rows_of(opened("text,label\nna\u00efve,a\n".encode("cp1252")))
    with pytest.raises(SettingError, match=r"'cp1253x': .*cp125"):
        opened("a,b\n", encoding="cp1253x")
    with pytest.raises(SettingError, match=r"'base64': .*utf-8"):
        opened("a,b\n", encoding="base64")


@pytest.mark.parametrize("compress", [bytes, gzip.compress, lzma.compress, bz2.compress])
@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("stream", [False, True])
def test_formats_compressed_from_files_and_streams(tmp_path, compress, kind, stream):
    records = [dict(zip(HEADER, row, strict=True)) for row in ROWS] * 2000
    if kind == "csv":
        content = csv_text([list(r.values()) for r in records], HEADER).encode()
    elif kind == "jsonl":
        content = "".join(json.dumps(record) + "\n" for record in records).encode()
    else:
        file = io.BytesIO()
        parquet.write_table(pa.Table.from_pylist(records), file)
        content = file.getvalue()
    path = tmp_path / "table"
    path.write_bytes(compress(content))
    source = _Pipe(path.read_bytes()) if stream else path
    table = tables.open_table(source, name="t")
    assert table.columns == tuple(HEADER)
    assert rows_of(table) == [list(record.values()) for record in records]
    if not stream:
        assert len(rows_of(table)) == len(records)
    elif kind != "parquet":
        with pytest.raises(FileError, match=r"^t .*once"):
            rows_of(table)


class _Pipe(io.RawIOBase):
    """A stream that gives a few bytes at a time, and in which one can't seek."""

    def __init__(self, content):
        self._content = io.BytesIO(content)

    def readable(self):
        return True

    def readinto(self, buffer):
        part = self._content.read(min(len(buffer), 1000))
        buffer[: len(part)] = part
        return len(part)


def test_lines_are_those_of_the_file():
    table = opened('text,label\n"a\nb",x\n\nc,y\n,\n"d",z\n')
    ((lines, batch),) = table.numbered()
    assert list(lines) == [2, 5, 7]
    assert batch.column("label").to_pylist() == ["x", "y", "z"]
    assert any("empty columns: 1" in note for note in table.notes)
    ((lines, _),) = opened('{"a": 1}\n\n{"a": 2}\n').numbered()
    assert list(lines) == [1, 3]


@pytest.mark.parametrize(
    ("text", "columns", "index"),
    [
        (",text,label\n0,a,x\n1,b,y\n", ("Unnamed: 0", "text", "label"), "Unnamed: 0"),
        ("Unnamed: 0,text,label\n3,a,x\n7,b,y\n", ("Unnamed: 0", "text", "label"), "Unnamed: 0"),
        ("id,text,label\n3,a,x\n7,b,y\n", ("id", "text", "label"), "id"),
        # Not a number for each row.
        ("id,text,label\n3,a,x\n3,b,y\n", ("id", "text", "label"), None),
        (",words,verdict\n0,a,x\n1,b,y\n", ("Unnamed: 0", "words", "verdict"), "Unnamed: 0"),
        ("text\na\nb\n", ("text",), None),
        ("text,title\na,b\nc,d\n", ("text", "title"), None),
        ("label,label,text\na,b,c\n", ("label", "label.1", "text"), None),
        ("x,y\n", ("x", "y"), None),
    ],
)
def test_headers_and_index_columns(text, columns, index):
    table = opened(text)
    assert table.has_header
    assert (table.columns, table.index) == (columns, index)
    assert len(rows_of(table)) == text.count("\n") - 1


@pytest.mark.parametrize("text", ["a,x\nb,y\n", "1,some text\n2,more\n", "hello world\nmore\n"])
def test_without_a_header(text):
    table = opened(text)
    assert not table.has_header
    assert table.columns == ("0", "1")[: text.split("\n")[0].count(",") + 1]
    assert len(rows_of(table)) == 2


def test_names_that_the_user_gives_are_a_header():
    table = opened("klasse,tekst\na,x\nb,y\n", columns=["klasse"])
    assert table.has_header
    chosen = tables.choose_columns(table, label="klasse")
    assert (chosen.label, chosen.texts) == ("klasse", ("tekst",))
    assert not opened("klasse,tekst\na,x\n", columns=["1"]).has_header
    assert not opened("label,text\na,x\n", allow=["first_row"]).has_header


def test_columns_that_are_not_there():
    table = opened("review,Sentiment,stars\na,x,1\n")
    with pytest.raises(
        SettingError, match=r"'sentimnt': .*'review', 'Sentiment', 'stars'; .*'Sentiment'\?"
    ):
        tables.choose_columns(table, label="sentimnt")
    with pytest.raises(SettingError, match=r"'sentiment': .*'Sentiment'\?"):
        tables.choose_columns(table, label="sentiment")
    with pytest.raises(SettingError, match=r"column 5: .* 3 \('review', "):
        tables.choose_columns(table, label=5)
    with pytest.raises(SettingError, match=r"column 'review' .*label .*text"):
        tables.choose_columns(table, label="review", texts=["review"])
    with pytest.raises(SettingError, match=r"--text_column=NAME.*'a', 'b', 'c'"):
        tables.choose_columns(opened("a,b,c\nd,e,f\n", columns=["a"]), label="a")
    table = opened("a,b\nc,d\n")
    with pytest.raises(SettingError, match=r"'label': .*header.*'0', '1'"):
        tables.choose_columns(table, label="label")


@pytest.mark.parametrize(
    ("header", "given", "texts", "found"),
    [
        ("label,title,body,stars", None, (), ("label", ("title", "body", "stars"))),
        ("label,title,body,stars", "label", (), ("label", ("title", "body"))),
        ("title,body,label", None, (), ("label", ("title", "body"))),
        ("id,words,category", None, (), ("category", ("words",))),
        ("title,body,stars,label_text,label", None, ("body",), ("label", ("body",))),
        ("title,body,stars", "-1", ("1", "0"), ("stars", ("body", "title"))),
        ("text,label", "1", (), ("label", ("text",))),
        ("id,tweet", None, (), (None, ("tweet",))),
    ],
)
def test_columns_are_chosen(header, given, texts, found):
    names = header.split(",")
    table = opened(f"{header}\n{','.join(names[::-1])}\n")
    chosen = tables.choose_columns(table, given, texts)
    assert (chosen.label, chosen.texts) == found


def test_texts_are_joined_without_empty_ones():
    table = opened("a,b,c,d\n x ,,z,1\n,y,,2\n,,,3\nu,v,w,4\n", columns=["a"])
    (batch,) = table.batches()
    assert tables.joined(batch, ["a", "b", "c"]).to_pylist() == ["x z", "y", "", "u v w"]
    assert tables.joined(batch, ["a"]).to_pylist() == ["x", "", "", "u"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"a": 1}\n{"a": }\n', r"t\.csv, line 2: .*JSON .Expecting value"),
        ('{"a": 1}\n[1]\n', r"line 2: .*JSON .*\[1\]:"),
        ('{"a": "\\ud800"}\n', r"line 1: .*JSON .surrogates"),
        ('[{"a": 1},\n{"a": 2}]', "JSON array.*lines=True"),
        ('{"label":{"0":"a","1":"b"},"text":{"0":"x","1":"y"}}\n', "JSON object.*lines=True"),
        ('{"label": ["a", "b"], "text": ["x", "y"]}', "JSON object.*lines=True"),
        ('{"columns":["label"],"index":[0],"data":[["a"]]}', "JSON object.*lines=True"),
        (json.dumps({"a": {str(n): "b" for n in range(9999)}}), "JSON object.*lines=True"),
        ('a,b\nc,"d\ne,f\n', "line 2: .*CSV"),
        ('a,b\nc,"d"d\ne,f\n', "line 2: .*CSV"),
        ("a,b\nc\n", "line 2: .*column.* 2:"),
        ("text,label\na,x\nHello, world,y\n", r"line 3: .* 3 columns .* 2: .*quotes"),
        (b"PK\x03\x04" + bytes(99), "workbook"),
        (b"PAR1" + bytes(99), r"t\.csv .*Parquet"),
        ("a,b\0\n", "NUL"),
        ("a,b\n" * 30_000 + "a,\0\n", "line 30001: .*NUL"),
        ("<!DOCTYPE html><html>", "web page"),
        (gzip.compress(b"a,b\n" * 99, mtime=0)[:-9], r"t\.csv .*Compressed file ended"),
    ],
)
def test_what_can_t_be_read_is_an_error(content, message):
    # As other files that a program can't open.
    kind = FileError if "Parquet" in message or "Compressed" in message else DataError
    with pytest.raises(kind, match=message):
        rows_of(opened(content))


def test_files_that_are_not_what_their_names_say(tmp_path):
    path = tmp_path / "t.csv.gz"
    path.write_text("a,b\n")
    assert rows_of(tables.open_table(path, columns=["a"])) == []
    assert tables.open_table(path).columns
    with pytest.raises(FileError, match=r"absent\.csv .No such file"):
        tables.open_table(tmp_path / "absent.csv")


@pytest.mark.parametrize("quote", ['\\"', "'"])
def test_other_quotes(quote):
    rows = [[cell.replace("\n", " it's ") for cell in row] for row in ROWS]
    if quote == "'":
        text = csv_text(rows, HEADER, quotechar="'", quoting=csv.QUOTE_ALL)
    else:
        text = csv_text(rows, HEADER, escapechar="\\", doublequote=False, quoting=csv.QUOTE_ALL)
    table = opened(text)
    assert rows_of(table) == rows
    assert any("quotes" in note for note in table.notes)


def test_only_escaped_quotes_and_backslashes_are_unescaped():
    """As MySQL and Spark write them, with \\N for a null."""
    lines = [
        "label,text",
        r'"pos","He said \"hi\"\nnext C:\\new"',
        r'\N,"caf\u00e9"',
        r'"neg",\N',
        r"neg,c:\temp",
        r"neg,one\, two",
    ]
    assert rows_of(opened("\n".join(lines))) == [
        ["pos", r'He said "hi"\nnext C:\new'],
        ["", r"caf\u00e9"],
        ["neg", ""],
        ["neg", r"c:\temp"],
        ["neg", "one, two"],
    ]


LOOSE = [
    [["pos", '"Great movie'], ["neg", "Bad"], ["pos", 'He said: "'], ["neg", "poor"]],
    [["pos", '"Great" movie, yes'], ["neg", "Bad, movie"], ["neg", "poor"]],
    [['"Great" movie, yes', "1"], ["Bad, movie", "0"], ["poor", "0"]],
    [["pos", 'He said "hi"'], ["neg", "Bad, movie"], ["neg", 'No ""']],
]


@pytest.mark.parametrize("rows", LOOSE)
@pytest.mark.parametrize("separator", [None, "\t"])
def test_quotes_that_belong_to_the_texts(rows, separator):
    table = opened("".join("\t".join(row) + "\n" for row in rows), separator=separator)
    assert rows_of(table) == rows
    assert any("tabs; quotes belong to the texts" in note for note in table.notes)


@pytest.mark.parametrize(
    ("content", "rows"),
    [
        ('a\t"two\nlines ""x"""\nb\t"c"\n', [["a", 'two\nlines "x"'], ["b", "c"]]),
        ('a\tx\nb\t"c \\"d\\""\n', [["a", "x"], ["b", 'c "d"']]),
        ('a\tx\nb\t"c"\n', [["a", "x"], ["b", "c"]]),
        ('a,"x\ty"\nb,"z\tw"\n', [["a", "x\ty"], ["b", "z\tw"]]),
    ],
)
def test_quotes_that_enclose_columns(content, rows):
    assert rows_of(opened(content)) == rows


@pytest.mark.parametrize("first", ['"label" ,"text"', '"a" b,c', '"label" "text"', '"a'])
def test_a_first_row_that_is_not_valid_is_an_error(first):
    with pytest.raises(DataError, match=r"t\.csv, line 1: .*CSV .*quotes"):
        opened(f"{first}\nb,c\n")


def test_spaces_before_quotes():
    table = opened('1, "The river rose, said the mayor."\n2, "b ""c"""\n')
    assert rows_of(table) == [["1", "The river rose, said the mayor."], ["2", 'b "c"']]


def test_a_declared_separator():
    text = csv_text(ROWS, HEADER, delimiter="^")
    assert rows_of(opened(text, separator="^")) == ROWS
    with pytest.raises(SettingError, match=r"separator .*'::': .*one character"):
        opened(text, separator="::")


@pytest.mark.parametrize(("separator", "said"), [("\t", "tabs"), (";", "semicolons")])
def test_a_comma_in_every_text(separator, said):
    rows = [[str(n), f"Two sentences, joined ({n})"] for n in range(9)]
    table = opened(csv_text(rows, delimiter=separator))
    assert rows_of(table) == rows
    assert any(said in note for note in table.notes)


def test_commas_in_texts_of_a_table_with_semicolons():
    text = "review;verdict\nGood, really;a\nBad;b\nMediocre, at best, and dear;c\n"
    table = opened(text, columns=["verdict"])
    assert rows_of(table)[2] == ["Mediocre, at best, and dear", "c"]


cells = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0\r"))


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.lists(cells, min_size=3, max_size=3), min_size=1, max_size=20),
    st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL, csv.QUOTE_NONNUMERIC]),
)
def test_every_row_that_is_not_empty_is_read(rows, quoting):
    content = csv_text(rows, ["text", "note", "label"], quoting=quoting)
    table = opened(content, columns=["text", "note", "label"], separator=",")
    parts = zip(*map(_columns, table.batches()), strict=True)
    found = [[*itertools.chain(*part)] for part in parts]
    # An invisible mark may be at the beginning of files that were joined.
    expected = [[a.strip("\ufeff\u200b\u200e\u200f\u2060"), b, c] for a, b, c in rows]
    expected = [[cell.strip() for cell in row] for row in expected]
    expected = [row for row in expected if any(row) and row != ["text", "note", "label"]]
    assert found == [list(column) for column in zip(*expected, strict=True)]


def _columns(batch):
    return [tables.strings(batch, name).to_pylist() for name in batch.schema.names]


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize(
    "write",
    [
        lambda text, label: json.dumps({"text": text, "label": label}),
        lambda text, label: f"{label},{text}",
        lambda text, label: f'"{label}";"{text}"',
    ],
)
def test_rows_of_more_characters_than_the_sample(write, rows):
    texts = [f"{number} " + "long " * 40_000 + "end" for number in range(rows)]
    content = "".join(write(text, "ab"[i % 2]) + "\n" for i, text in enumerate(texts))
    table = tables.open_table(io.BytesIO(content.encode()), name="t")
    chosen = tables.choose_columns(table)
    found = [text for b in table.batches() for text in tables.joined(b, chosen.texts).to_pylist()]
    assert found == texts
