"""`t2aux.predict`: the output, its order, rows that can't be classified, and the summary."""

import doctest
import json
import os
import shutil
import threading

import numpy as np
import pyarrow.parquet
import pytest

import t2aux
from t2aux.errors import DataError, DivergenceError, FileError, ServerError, SettingError
from t2aux.prediction import pipeline, report
from t2aux.prediction.api import Writing, predict_with
from t2aux.prediction.model import Model, split_address
from t2aux.prediction.predictor import Predictions, Predictor
from t2aux.prediction.rows import Row
from t2aux.prediction.source import Reading, Source
from tests.prediction.conftest import expected, read_csv

TABLE = ",text,label\n10,abc,class 1\n11,,class 0\n12,fed cab,klass\n13,dddd,\n"


@pytest.fixture
def texts(models):
    return models("texts")


@pytest.fixture
def place(texts):
    return texts.place["tflite"]


@pytest.fixture
def table(tmp_path):
    (tmp_path / "t.csv").write_text(TABLE)
    return tmp_path / "t.csv"


def write_lines(folder, count):
    rng = np.random.default_rng(0)
    lines = ["abcdef"[i % 6] * n for i, n in enumerate(rng.integers(1, 80, count))]
    (folder / "lines.txt").write_text("\n".join(lines) + "\n")
    return folder / "lines.txt", lines


def test_the_example_of_the_docstring_runs(models, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(models("vectors").place["export"], "exports/digits")
    np.savez("digits.npz", inputs=np.ones((48, 5, 2)), labels=np.arange(48) % 3)
    (example,) = doctest.DocTestFinder(recurse=False).find(t2aux.predict, globs={"t2aux": t2aux})
    assert example.examples
    assert not doctest.DocTestRunner().run(example).failed


# The output.


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_every_format_says_the_same(place, table, tmp_path, suffix):
    output = tmp_path / f"out{suffix}"
    summary = t2aux.predict(place, table, output, on_error="skip", top=2)
    if suffix == ".csv":
        found = read_csv(output)
        found["input"] = list(map(str, found["input"]))
    elif suffix == ".parquet":
        found = pyarrow.parquet.read_table(output).to_pydict()
    else:
        rows = [json.loads(line) for line in output.read_text().splitlines()]
        found = {name: [row[name] for row in rows] for name in rows[0]}
    names = ["input", "label", "class", "probability", "class_2", "probability_2", "error"]
    assert list(found) == names
    assert found["input"] == ["10", "11", "12", "13"]
    assert found["label"] == ["class 1", "class 0", "klass", None]
    assert [c is None for c in found["class"]] == [False, True, False, False]
    assert [c is None for c in found["probability_2"]] == [False, True, False, False]
    reason = "The text is empty: give at least one visible character."
    assert found["error"] == [None, f"{table}, line 3: {reason}", None, None]
    assert (summary.rows, summary.skipped, summary.unlabelled) == (4, 1, 1)
    assert summary.unknown == {"klass": 1}
    assert summary.evaluation.examples == 1


def test_float32_is_written_as_the_shortest_number_that_is_it(place, tmp_path):
    path, _ = write_lines(tmp_path, 20)
    t2aux.predict(place, path, tmp_path / "o.csv")
    t2aux.predict(place, path, tmp_path / "o.jsonl")
    of_csv = read_csv(tmp_path / "o.csv")["probability"]
    of_json = [json.loads(x)["probability"] for x in (tmp_path / "o.jsonl").open()]
    assert of_csv == of_json
    assert of_csv == [float(str(np.float32(p))) for p in of_csv]


def test_the_columns_of_a_table_are_kept(place, tmp_path):
    (tmp_path / "t.csv").write_text('id,text,class\nx,"a, ""b""\nc",class 1\ny,de,class 0\n')
    t2aux.predict(place, tmp_path / "t.csv", tmp_path / "o.csv", keep_columns=True)
    found = read_csv(tmp_path / "o.csv")
    assert list(found) == ["id", "text", "input_class", "class", "probability"]
    assert found["text"] == ['a, "b"\nc', "de"]
    assert found["input_class"] == ["class 1", "class 0"]


def test_columns_of_other_types_are_kept_or_refused(place, tmp_path):
    table = pyarrow.table({"text": ["abc", "de"], "tags": [[1, 2], []], "n": [1.5, None]})
    pyarrow.parquet.write_table(table, tmp_path / "t.parquet")
    for suffix in ("parquet", "jsonl"):
        output = tmp_path / f"o.{suffix}"
        t2aux.predict(place, tmp_path / "t.parquet", output, keep_columns=True)
    found = pyarrow.parquet.read_table(tmp_path / "o.parquet")
    assert found.drop_columns(["class", "probability"]).equals(table)
    rows = [json.loads(line) for line in (tmp_path / "o.jsonl").open()]
    assert [row["tags"] for row in rows] == [[1, 2], []]
    with pytest.raises(SettingError, match=r"csv .*--output=FILE\.jsonl.*--keep_columns"):
        t2aux.predict(place, tmp_path / "t.parquet", tmp_path / "o.csv", keep_columns=True)
    assert not (tmp_path / "o.csv").exists()


def test_standard_output(place, table, capfdbinary):
    t2aux.predict(place, table, "-", on_error="skip", output_format="jsonl")
    rows = [json.loads(line) for line in capfdbinary.readouterr().out.splitlines()]
    assert [row["input"] for row in rows] == ["10", "11", "12", "13"]
    with pytest.raises(DataError, match=r"t\.csv, line 3: .*--on_error=skip"):
        t2aux.predict(place, table, "-")
    assert capfdbinary.readouterr().out == b""
    with pytest.raises(SettingError, match=r"Parquet .*standard output"):
        t2aux.predict(place, table, "-", output_format="parquet")


# The order, and what is in memory.


@pytest.mark.parametrize("form", ["keras", "tflite", "grpc"])
def test_the_order_is_that_of_the_rows(texts, tmp_path, monkeypatch, form):
    monkeypatch.setattr(pipeline, "_POOL_BYTES", 4000)
    monkeypatch.setattr(pipeline, "ROWS_AT_ONCE", 7)
    path, lines = write_lines(tmp_path, 150)
    t2aux.predict(texts.place[form], path, tmp_path / "o.csv", batch_size=4)
    found = read_csv(tmp_path / "o.csv")
    assert found["input"] == list(range(150))
    wanted = expected(texts.classifier, [texts.info.text_ids(line) for line in lines])
    np.testing.assert_allclose(found["probability"], wanted.max(axis=1), atol=2e-6)


def test_few_rows_are_read_ahead_of_what_is_written(place, texts, monkeypatch):
    monkeypatch.setattr(pipeline, "_POOL_BYTES", 1)
    monkeypatch.setattr(pipeline, "ROWS_AT_ONCE", 10)
    read = 0

    def rows():
        nonlocal read
        for read in range(1, 501):
            yield Row(read, "x", "abc")

    predictor = Predictor(Model(place))
    written = 0
    for answers in pipeline.predictions(predictor, Source("made up", rows, labelled=False)):
        written += len(answers.rows)
        assert read - written <= 40
    assert written == 500


def test_reading_continues_while_the_model_computes(place):
    predictor = Predictor(Model(place), batch_size=1)
    first_computed, second_read = threading.Event(), threading.Event()
    run = predictor.run

    def waiting(*arguments):
        first_computed.set()
        assert second_read.wait(60)
        return run(*arguments)

    predictor.run = waiting

    def rows():
        for number in range(32):
            if number == 20:
                assert first_computed.wait(60)
                second_read.set()
            yield Row(number, "x", "abc")

    found = list(pipeline.predictions(predictor, Source("made up", rows, labelled=False)))
    assert sum(len(answers.rows) for answers in found) == 32


# Rows that can't be classified.


def test_a_row_that_cannot_be_classified_stops_it(place, table, tmp_path):
    with pytest.raises(DataError, match=r"t\.csv, line 3: .*--on_error=skip"):
        t2aux.predict(place, table, tmp_path / "o.csv")
    assert sorted(os.listdir(tmp_path)) == ["t.csv"]


def test_a_damaged_image_is_named_or_skipped(models, photos, tmp_path):
    place = models("images").place["tflite"]
    (photos / "cat" / "1.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    with pytest.raises(DataError, match=r"cat/1\.png"):
        t2aux.predict(place, photos, tmp_path / "o.csv")
    summary = t2aux.predict(place, photos, tmp_path / "o.csv", on_error="skip")
    found = read_csv(tmp_path / "o.csv")
    assert [i for i, c in enumerate(found["class"]) if c is None] == [1]
    assert "cat/1.png" in found["error"][1]
    assert summary.evaluation.examples == 6
    assert "1 could not be classified" in summary.text()
    assert "cat/1.png" in summary.text()


def test_nan_is_named_or_skipped(models, tmp_path):
    place = models("vectors").place["tflite"]
    inputs = np.ones((3, 4, 2))
    inputs[1, 2, 0] = np.nan
    np.savez(tmp_path / "v.npz", inputs=inputs)
    with pytest.raises(DataError, match=r"v\.npz\[1\]: .*NaN .* step 2"):
        t2aux.predict(place, tmp_path / "v.npz", tmp_path / "o.csv")
    t2aux.predict(place, tmp_path / "v.npz", tmp_path / "o.csv", on_error="skip")
    assert [c is None for c in read_csv(tmp_path / "o.csv")["class"]] == [False, True, False]


def test_nothing_is_written_where_no_row_can_be_classified(place, tmp_path):
    (tmp_path / "t.csv").write_text("text,label\n,a\n ,b\n")
    with pytest.raises(DataError, match=r" 2 rows .*t\.csv .*t\.csv, line 2: "):
        t2aux.predict(place, tmp_path / "t.csv", tmp_path / "o.csv", on_error="skip")
    (tmp_path / "e.csv").write_text("text,label\n")
    with pytest.raises(DataError, match=r"e\.csv .*rows"):
        t2aux.predict(place, tmp_path / "e.csv", tmp_path / "o.csv")
    assert not (tmp_path / "o.csv").exists()


def test_a_file_that_is_damaged_further_on_leaves_nothing(place, tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline, "_POOL_BYTES", 1)
    lines = b"abc\n" * 5000 + b"\xff\xfe\n"
    (tmp_path / "a.txt").write_bytes(lines)
    with pytest.raises(DataError, match=r"a\.txt .*UTF-8 .* \d+: .*--encoding"):
        t2aux.predict(place, tmp_path / "a.txt", tmp_path / "o.csv")
    assert os.listdir(tmp_path) == ["a.txt"]


def test_weights_that_are_nan_are_an_error(models, tmp_path, monkeypatch):
    predictor = Predictor(Model(models("texts").place["tflite"]), on_error="skip")
    broken = np.full([1, 3], np.nan, np.float32)
    monkeypatch.setattr(predictor, "_callers", [_Answering(predictor.info, broken)])
    with pytest.raises(DivergenceError, match="NaN"):
        predictor([Row(0, "x", "abc")])


class _Answering:
    def __init__(self, info, answer):
        self.info = info
        self._answer = answer

    def __call__(self, sequences, rows):
        return self._answer


# What is refused.


def test_an_output_that_exists_is_refused_or_replaced(place, table, tmp_path):
    output = tmp_path / "o.csv"
    output.write_text("mine")
    with pytest.raises(FileError, match=r"o\.csv .*--output, .*--overwrite"):
        t2aux.predict(place, table, output, on_error="skip")
    assert output.read_text() == "mine"
    t2aux.predict(place, table, output, on_error="skip", overwrite=True)
    assert output.read_text().startswith('"input"')
    with pytest.raises(SettingError, match=r"t\.csv .*--output"):
        t2aux.predict(place, table, table, on_error="skip", overwrite=True)
    assert table.read_text() == TABLE


@pytest.mark.parametrize(
    ("given", "kind", "message"),
    [
        ({"output": "o.xls"}, FileError, r"o\.xls .*\.parquet.*--output_format"),
        ({"output": "."}, FileError, r" \. .*folder"),
        ({"top": 0}, SettingError, "top .*0: .* 1"),
        ({"top": 2, "all_classes": True}, SettingError, "--top .*--probabilities"),
        ({"on_error": "ignore"}, SettingError, "on_error .*'ignore': .*stop .*skip"),
        ({"batch_size": 0}, SettingError, "batch_size .*0: .* 1"),
        ({"output_format": "xls"}, SettingError, "output .*'xls': .*csv, jsonl"),
        ({"data_format": "xls"}, SettingError, "data .*'xls': .*table, lines"),
        ({"checkpoint": "best"}, SettingError, r"best .*classifier\.tflite"),
        ({"model": "ftp://host/x"}, SettingError, "'ftp://host/x': .*grpc://HOST:PORT/NAME"),
        ({"model": "grpc://host:1"}, SettingError, "'grpc://host:1': .*grpc://HOST:PORT/NAME"),
        ({"model": "no/such"}, FileError, r"no/such .*\.tflite .*model_dir"),
    ],
)
def test_arguments_out_of_range(place, table, tmp_path, monkeypatch, given, kind, message):
    monkeypatch.chdir(tmp_path)
    arguments = {"model": place, "data": table, "output": "o.csv", **given}
    with pytest.raises(kind, match=message):
        t2aux.predict(**arguments)
    assert os.listdir(tmp_path) == ["t.csv"]


def test_a_server_s_address():
    assert split_address("grpc://localhost:8500/news") == ("grpc://localhost:8500", "news")
    assert split_address("https://[::1]:8501/a%20b/") == ("https://[::1]:8501", "a b")


def test_a_server_that_is_not_there(table, tmp_path):
    connection = t2aux.prediction.model.Connection(retries=0, timeout=2)
    with pytest.raises(ServerError, match=r"grpc://localhost:1 .*127.0.0.1:1"):
        t2aux.predict("grpc://localhost:1/news", table, tmp_path / "o.csv", connection=connection)


def test_other_classes_on_the_server_stop_it(texts, table, tmp_path):
    predictor = Predictor(Model(texts.place["grpc"]), on_error="skip")
    classifier = predictor.callers[0]._classifier
    other = type(texts.info).from_json({**texts.info.to_json(), "classes": ["a", "b", "c"]})
    classifier.info = other
    with pytest.raises(ServerError, match=r"version .*classes"):
        predictor([Row(0, "x", "abc")])
    predictor.close()


# The summary and the report.


def test_a_report(place, table, tmp_path):
    summary = t2aux.predict(
        place, table, tmp_path / "o.csv", on_error="skip", report=tmp_path / "report"
    )
    found = json.loads((tmp_path / "report" / "evaluation.json").read_text())
    assert found["accuracy"] == summary.evaluation.accuracy
    assert found["rows"] == 4
    assert found["unknown_labels"] == {"klass": 1}
    assert found["model"] == place
    assert found["data"] == str(table)
    assert found["by_class"].keys() == set(found["classes"])
    assert (tmp_path / "report" / "confusion.png").read_bytes().startswith(b"\x89PNG")


def test_a_report_without_labels_is_refused(place, tmp_path):
    (tmp_path / "t.csv").write_text("text,stars\nabc,good\nde,bad\n")
    for given, message in (
        ({}, r"'(bad|good)'"),
        ({"label_column": "text", "text_columns": ["stars"]}, "'(abc|de)'"),
    ):
        with pytest.raises(DataError, match=rf"t\.csv .*{message}.*--label_column.*--report"):
            t2aux.predict(
                place, tmp_path / "t.csv", tmp_path / "o.csv", report=tmp_path / "r", **given
            )
    (tmp_path / "t.txt").write_text("abc\n")
    with pytest.raises(DataError, match=r"t\.txt .*labels, .*--report.*--label_column"):
        t2aux.predict(place, tmp_path / "t.txt", tmp_path / "o.csv", report=tmp_path / "r")
    assert not (tmp_path / "o.csv").exists()


def test_a_tally_is_bounded_and_in_normal_form():
    tally = report.Tally(("cafe\u0301", "b"), labelled=True)
    probabilities = np.array([[0.9, 0.1]], np.float32)
    for label in ("café", "b", 0, 7, None, *map(str, range(1500))):
        tally.add(Predictions([Row(0, "x", "y", label)], probabilities, {}, 0))
    found = tally.summary("o.csv")
    assert found.evaluation.confusion.tolist() == [[2, 0], [1, 0]]
    assert found.unlabelled == 1
    assert len(found.unknown) == 1001
    assert sum(found.unknown.values()) == 1501
    assert "1,501 have a label that is not a class" in found.text()


def test_cut_texts_are_counted(place, tmp_path):
    (tmp_path / "t.txt").write_text("a" * 101 + "\n" + "b" * 100 + "\n")
    summary = t2aux.predict(place, tmp_path / "t.txt", tmp_path / "o.csv")
    assert summary.cut == 1
    assert "1 were longer than the classifier reads, and were cut" in summary.text()
    assert summary.evaluation is None


def test_what_a_killed_process_left_is_removed(place, table, tmp_path):
    left = tmp_path / ".o.csv.abcdefgh"
    left.write_text("half")
    shutil.copy(table, tmp_path / "other.csv")
    predictor = Predictor(Model(place), on_error="skip")
    predict_with(predictor, str(table), Reading(), Writing(str(tmp_path / "o.csv")))
    assert sorted(os.listdir(tmp_path)) == ["o.csv", "other.csv", "t.csv"]


@pytest.mark.parametrize("separate", ["grade", None])
def test_the_columns_are_those_of_the_training_data(models, tmp_path, separate):
    run = tmp_path / "run"
    shutil.copytree(models("texts").place["run"], run)
    with (run / "config.gin").open("a") as file:
        file.write("train.data = @csv()\ncsv.label_column = 'grade'\ncsv.text_columns = 'essay'\n")
    rows = [("abc", "class 0"), ("bcd", "class 1"), ("ddd", "class 2")]
    # The usual names are there, too, with other content.
    header = f"text,label,essay,{separate or 'mark'}\n"
    lines = [f"other,class 1,{text},{label}\n" for text, label in rows]
    (tmp_path / "t.csv").write_text(header + "".join(lines))
    t2aux.predict(run, tmp_path / "t.csv", tmp_path / "found.csv")
    (tmp_path / "plain.csv").write_text("text\n" + "".join(f"{text}\n" for text, _ in rows))
    t2aux.predict(run, tmp_path / "plain.csv", tmp_path / "plain_found.csv")
    found, plain = (read_csv(tmp_path / f"{name}.csv") for name in ("found", "plain_found"))
    assert found["probability"] == plain["probability"]
    assert found["label"] == ([label for _, label in rows] if separate else ["class 1"] * 3)
