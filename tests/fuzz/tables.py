"""Tables and arrays as people save them: read as what they are, or refused.

Not damaged bytes, as for the other readers, but whole files of other layouts: what is read must
have the classes, texts and labels that were saved.
"""

import csv
import io
import pathlib

import numpy as np
from hypothesis import strategies as st

from t2aux.data import checks
from t2aux.errors import UserError
from tests.sources import load

_CLASSES = ["a", "b", "c d", "1", "2", "10", "label", "text", "Cat", "caf\u00e9"]
_ODD_CLASSES = ["", " ", "nan", "None", "<NA>", "1.0", "cat", "e;f", "g|h", "i\tj"]
_TEXTS = [
    "x",
    "one, two",
    'a "quoted" word',
    "it's; so",
    "t\tu",
    "v|w",
    "lines\nof text",
    " y ",
    "\u4e2d",
]
_HEADERS = [["label", "text"], ["sentiment", "review"], ["klasse", "tekst"], ["text", "label"]]
_HEADERS += [["", "0"], ["0", "1"], ["Class Index", "Title"], ["v1", "v2"]]
_ENCODINGS = ["utf-8", "utf-8", "utf-8", "utf-8-sig", "utf-16", "utf-16-le", "latin-1"]


@st.composite
def _table(draw):
    """A CSV file's content, and what must come of it: rows, refusal (False), or either (None)."""
    names = _CLASSES + (_ODD_CLASSES if draw(st.integers(0, 2)) == 0 else [])
    names = draw(st.lists(st.sampled_from(names), min_size=1, max_size=4, unique=True))
    texts = st.one_of(st.sampled_from(_TEXTS), st.text(max_size=6))
    rows = draw(st.lists(st.tuples(st.sampled_from(names), texts), min_size=1, max_size=24))
    is_plain = True
    if draw(st.integers(0, 3)) == 0:
        rows, is_plain = [tuple(draw(st.sampled_from(_HEADERS))), *rows], False
    if draw(st.integers(0, 5)) == 0:
        change = draw(st.sampled_from(["reversed", "numbered", "three", "blank"]))
        is_plain = False
        if change == "reversed":
            rows = [row[::-1] for row in rows]
        elif change == "numbered":
            rows = [(str(number), *row) for number, row in enumerate(rows)]
        elif change == "three":
            rows = [(*row, "more, text") for row in rows]
        else:
            rows = [*rows, (), ("", ""), ()]
    separator = draw(st.sampled_from(",,,;\t|"))
    encoding = draw(st.sampled_from(_ENCODINGS))
    quoting = draw(st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL, csv.QUOTE_NONNUMERIC]))
    end = draw(st.sampled_from(["\n", "\r\n"]))
    stream = io.StringIO()
    csv.writer(stream, delimiter=separator, quoting=quoting, lineterminator=end).writerows(rows)
    content = stream.getvalue().encode(encoding, "replace")
    if encoding == "utf-16-le":
        return content, False  # Nothing marks it.
    return content, rows if is_plain and encoding != "latin-1" else None


def make(folder: pathlib.Path):
    """What fuzzes tables: its inputs, what reads one, and inputs that are right."""
    folder.mkdir()

    def split_of(name, content):
        (folder / f"train.{name}").write_bytes(content)
        options = {"tokens": "bytes"} if name.startswith("csv") else {}
        split = load("train", name=name, data_dir=str(folder), **options)
        present = np.bincount(split.labels)
        assert np.count_nonzero(present) > 1
        assert not checks.nearly_one_each(present)
        assert not any(map(checks.is_missing, split.info.classes))
        return split

    def read_csv(content, expected):
        split = split_of("csv", content)
        assert expected is not False, "another encoding was read as if it were UTF-8"
        if expected is None or any("header" in note for note in split.notes):
            return
        for index, (name, text) in enumerate(expected):
            assert split.info.classes[split.labels[index]] == name.strip()
            assert split.example(index).tolist() == list(text.strip().encode())

    def read_npz(content, labels):
        split = split_of("npz", content)
        assert labels.dtype.kind in "iu"
        # Labels that begin at 1 are the names of their classes.
        names = [split.info.classes[label] for label in split.labels]
        assert names == [str(label) for label in labels.tolist()]

    def read(table):
        name, content, expected = table
        try:
            {"csv": read_csv, "npz": read_npz}[name](content, expected)
        except UserError as error:
            message = str(error)
            assert message.strip()
            assert "Traceback" not in message
            return False
        return True

    seeds = [
        ("csv", b"a,x\nb,y\n", [("a", "x"), ("b", "y")]),
        ("npz", _npz(np.zeros((3, 2, 1)), np.array([0, 1, 1])), np.array([0, 1, 1])),
    ]
    tables = _table().map(lambda table: ("csv", *table))
    return st.one_of(tables, tables, _arrays()), read, seeds


@st.composite
def _arrays(draw):
    """The content of an .npz file, and its labels."""
    count = draw(st.integers(1, 12))
    labels = np.array(draw(st.lists(st.integers(0, 3), min_size=count, max_size=count)))
    kinds = [int, int, int, np.uint8, float, str, object, bool, "one-hot", "column"]
    kind = draw(st.sampled_from(kinds))
    if kind == "one-hot":
        labels = np.eye(4)[labels]
    elif kind == "column":
        labels = labels[:, np.newaxis]
    else:
        labels = labels.astype(kind)
    shape = draw(st.sampled_from([(3,), (3, 1), (2, 4), (2, 2, 2)]))
    inputs = np.arange(count * int(np.prod(shape))).reshape(count, *shape)
    inputs = inputs.astype(draw(st.sampled_from([float, float, np.int16, np.float16, object])))
    return "npz", _npz(inputs, labels), labels


def _npz(inputs, labels):
    stream = io.BytesIO()
    np.savez(stream, inputs=inputs, labels=labels)
    return stream.getvalue()
