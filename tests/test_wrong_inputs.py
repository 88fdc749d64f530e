"""What no classifier reads: tables, archives, documents, and what only looks like a text."""

import pytest

from t2aux.errors import DataError, SettingError
from t2aux_ondevice import answers, litert, reading
from tests import cli_helpers, small_exports


def read(info, path):
    return list(reading.read_inputs(info, [str(path)]))


TABLE = "table .*`t2aux predict --data=FILE`"
ROWS = "".join(f"a text, number {i}; and more\t{i % 3}\n" for i in range(1400))


@pytest.mark.parametrize("info", ["IMAGES", "TEXT", "VECTORS"])
@pytest.mark.parametrize(
    ("name", "what"),
    [
        *((f"hidden.{suffix}", TABLE) for suffix in ("csv", "TSV", "jsonl", "parquet", "xlsx")),
        ("hidden.csv.gz", "compressed"),
        ("images.zip", "archive "),
        ("hidden.npy", r"arrays: .*numpy\.savez"),
        ("hidden.pdf", "document"),
        ("classifier.tflite", "model"),
    ],
)
def test_what_no_classifier_reads_is_named(tmp_path, info, name, what):
    (tmp_path / name).write_text(ROWS)
    with pytest.raises(DataError, match=f"/{name} .*{what}"):
        read(getattr(small_exports, info), tmp_path / name)


@pytest.mark.parametrize(
    "content",
    [
        ROWS,
        "text\tclass\n" + "a\tb\n" * 4,
        "".join(f"{i};a text\n" for i in range(10)),
        "".join(f'"{i % 4}","a title","a text, with ""quotes"" and,\nlines"\n' for i in range(12)),
        '{"text": "a"}\n{"text": "b"}\n',
        '[{"text": "a"}, {"text": "b"}]',
        '[\n  {"text": "a"},\n  {"text": "b"}\n]\n',
        "id|text|class\n" * 6,
    ],
)
@pytest.mark.parametrize("name", ["hidden.txt", "hidden", "hidden.data"])
def test_a_table_under_another_name_is_noticed(tmp_path, content, name):
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=rf"/{name} .*--text.*{TABLE}"):
        read(small_exports.TEXT, tmp_path / name)


@pytest.mark.parametrize(
    "content",
    [
        "A text, with a comma.\nAnd another line.\n" * 30,
        "def f(x):\n" + "\treturn x\n" * 20,
        "Dear Ada,\n\nit rains.\n\nYours, Bob\n",
        "[1]\n[2]\n[3]\n",
        "{\n  it is no JSON;\n}\n" * 4,
        "a\tb\nc\td\n",
        "".join(f"line {i}\n" for i in range(1400)),
    ],
)
def test_a_text_is_not_taken_for_a_table(tmp_path, content):
    (tmp_path / "a.txt").write_text(content)
    (item,) = reading.read_inputs(small_exports.TEXT, [str(tmp_path / "a.txt")])
    assert item.text_lines == content.count("\n")


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"abc\0def", "binary"),
        ("a text".encode("utf-16"), "UTF-16"),
        ("a text".encode("utf-16-le"), "UTF-16"),
        ("caf\u00e9".encode("latin-1"), "UTF-8"),
        (b"PK\x03\x04abc", "archive"),
        (b"\x1f\x8babc", "compressed"),
        (b"%PDF-1.7\nabc", "PDF"),
        (b"\x89PNG\r\n\x1a\n", "PNG"),
    ],
)
@pytest.mark.parametrize("name", ["a.txt", "no_suffix"])
def test_a_text_that_is_none(tmp_path, content, what, name):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=f"/{name} .*{what}"):
        read(small_exports.TEXT, tmp_path / name)


def test_vectors_come_from_npz_files_alone(tmp_path):
    (tmp_path / "a.dat").write_text("1 2 3\n")
    with pytest.raises(DataError, match=r"/a\.dat .*\.npz"):
        read(small_exports.VECTORS, tmp_path / "a.dat")


def test_an_empty_name():
    with pytest.raises(SettingError, match="empty name"):
        list(reading.read_inputs(small_exports.TEXT, [""]))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The .tflite file of a classifier of texts."""
    directory = tmp_path_factory.mktemp("texts") / "1"
    small_exports.write(directory, small_exports.TEXT)
    return directory / litert.WHOLE


def test_a_table_on_the_command_line_is_not_one_text(model, tmp_path):
    (tmp_path / "hidden.csv").write_text(ROWS)
    for given, part in (("hidden.csv", "hidden.csv "), ("", f"{tmp_path} ")):
        arguments = [f"--model={model}", "--json", tmp_path / given]
        done = cli_helpers.t2aux("classify", *arguments, check=False)
        assert done.stdout == ""
        cli_helpers.assert_one_sentence(done, part, "t2aux predict --data=")


def test_a_text_of_many_lines_is_reported(model, tmp_path, capsys):
    (tmp_path / "lines.txt").write_text("a line\n" * 1400)
    classifier = litert.LiteRTClassifier(model)
    answers.Show(top=1)(classifier, read(small_exports.TEXT, tmp_path / "lines.txt"))
    assert "one text of 1,400 lines" in capsys.readouterr().out.splitlines()[0]
