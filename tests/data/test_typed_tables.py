"""Values of JSON lines and columns of Parquet: types, lists and objects, names, the index."""

import io
import json

import pyarrow as pa
import pytest
from pyarrow import parquet

from t2aux.data import tables
from t2aux.errors import DataError


def opened(content):
    return tables.open_table(io.BytesIO(content.encode()), name="t.jsonl")


def opened_parquet(table):
    file = io.BytesIO()
    parquet.write_table(table, file)
    return tables.open_table(io.BytesIO(file.getvalue()), name="t.parquet")


def test_types_of_parquet_become_texts():
    columns = {
        "label": pa.array([1.0, None, 2.5]),
        "big": pa.array([1, 2, 10**15]),
        "flag": pa.array([True, False, None]),
        "category": pa.array(["a", None, "b"]).dictionary_encode(),
        "bytes": pa.array([b"x", b"y", b"z"]),
        "half": pa.array([1.0, None, 2.5], pa.float16()),
        "list": pa.array([[1], [2], [3]]),
        "invalid": pa.array([b"x", b"\xff", b"z"]).view(pa.string()),
    }
    table = opened_parquet(pa.table(columns))
    (batch,) = table.batches()
    texts = {name: tables.strings(batch, name).to_pylist() for name in list(columns)[:-2]}
    assert texts == {
        "label": ["1", "", "2.5"],
        "big": ["1", "2", "1000000000000000"],
        "flag": ["true", "false", ""],
        "category": ["a", "", "b"],
        "bytes": ["x", "y", "z"],
        "half": ["1", "", "2.5"],
    }
    with pytest.raises(DataError, match=r"'invalid' .*string.* UTF-8"):
        tables.strings(batch, "invalid")
    with pytest.raises(DataError, match=r"'list' .*list<element: int64>"):
        tables.strings(batch, "list")


@pytest.mark.parametrize(
    ("index", "column"), [("__index_level_0__", "__index_level_0__"), ("", "Unnamed: 1")]
)
def test_the_index_that_pandas_keeps_in_parquet(index, column):
    table = pa.table({"text": ["a"], index: [0]})
    pandas = {b"pandas": json.dumps({"index_columns": [index]}).encode()}
    table = opened_parquet(table.replace_schema_metadata(pandas))
    assert table.index == column
    assert tables.choose_columns(table).texts == ("text",)


def test_columns_of_parquet_with_the_same_name():
    columns = [pa.array(values) for values in (["a", "b"], [1, 2], ["x", "y"], [3, 4])]
    table = opened_parquet(pa.table(columns, names=["label", "label", "text", "text"]))
    chosen = tables.choose_columns(table, label="label", texts=["text.1", "text"])
    (batch,) = table.batches()
    assert batch.schema.names == ["label", "label.1", "text", "text.1"]
    assert tables.strings(batch, chosen.label).to_pylist() == ["a", "b"]
    assert tables.joined(batch, chosen.texts).to_pylist() == ["3 x", "4 y"]


@pytest.mark.parametrize("lines", [1, 2])
def test_json_lines_that_begin_with_an_object(lines):
    table = opened('{"meta": {"a": 1}, "label": ["b"], "text": "x"}\n' * lines)
    tables.choose_columns(table)
    (batch,) = table.batches()
    assert [list(row.values()) for row in batch.to_pylist()] == [['{"a": 1}', "b", "x"]] * lines


def test_values_of_json_lines():
    lines = [
        {"label": 1, "text": "2024-01-01"},
        {"text": "\ud83d\ude00 \u00e9", "label": "x"},
        {"label": 1.0, "text": None, "more": [1, "\u00e9"]},
        {"label": True, "text": "z"},
    ]
    table = opened("\n".join(map(json.dumps, lines)))
    assert table.columns == ("label", "text", "more")
    (batch,) = table.batches()
    assert batch.column("label").to_pylist() == ["1", "x", "1", "true"]
    assert batch.column("more").to_pylist() == [None, None, '[1, "\u00e9"]', None]
    later = opened("".join(['{"a": 1}\n'] * 20_000 + ['{"a": 1, "b": 2}\n']))
    assert sum(map(len, later.batches())) == 20_001
    assert any("'b'" in note for note in later.notes)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (["pos"], "pos"),
        ([2.0], "2"),
        ([None], ""),
        ([], ""),
        ({}, ""),
        (["a", "b"], None),
        ([["a"]], None),
        ([[]], None),
        ([{"text": "a"}], None),
        ({"text": "a"}, None),
    ],
)
@pytest.mark.parametrize("column", ["label", "text"])
def test_lists_and_objects_in_the_class_or_the_text_of_json_lines(value, text, column):
    row = {"text": "x", "label": "neg"}
    rows = [row, {**row, column: value, "tags": ["a", "b"]}]
    table = opened("".join(f"{json.dumps(row)}\n" for row in rows))
    tables.choose_columns(table)
    if text is None:
        with pytest.raises(DataError, match=rf"t\.jsonl, line 2: .*'{column}' holds [\[{{]"):
            list(table.batches())
        return
    (batch,) = table.batches()
    assert tables.strings(batch, column).to_pylist() == [row[column], text]
    # A column that is only kept is not changed.
    assert batch.column("tags").to_pylist() == [None, '["a", "b"]']
