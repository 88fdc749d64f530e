"""Every form of a model, over every main kind of data: the same answers as one by one."""

import pickle

import numpy as np
import pytest

import t2aux
from t2aux import data
from t2aux.evaluation import location
from t2aux.prediction import batching
from t2aux.prediction.model import Model
from t2aux.prediction.predictor import Predictor
from t2aux.prediction.rows import Row
from t2aux.training import evaluation
from t2aux_ondevice import answers, reading
from tests.prediction.conftest import FORMS, expected, read_csv

TEXTS = ["abc", "fed cab", "x", "a, b", 'say "abc"', "a much longer text, of many characters", "é"]


def write_data(kind, folder):
    """Data of a kind, with labels: its path, the rows' names and the labels."""
    rng = np.random.default_rng(0)
    labels = [f"class {i % 3}" for i in range(7)]
    if kind == "texts":
        quoted = [text.replace('"', '""') for text in TEXTS]
        lines = [f'{i},"{t}",{la}\n' for i, (t, la) in enumerate(zip(quoted, labels, strict=True))]
        (folder / "texts.csv").write_text(",text,label\n" + "".join(lines), encoding="utf-8")
        return folder / "texts.csv", list(range(7)), labels
    lengths = np.array([3, 12, 1, 12, 7, 5, 2])
    inputs = rng.random((7, 12, 2), np.float32)
    np.savez(folder / "v.npz", inputs=inputs, lengths=lengths, labels=np.arange(7) % 3)
    return folder / "v.npz", list(range(7)), labels


def sequences_of(kind, info, path):
    if kind == "texts":
        return [info.text_ids(text) for text in TEXTS]
    return [item.sequence for item in reading.read_npz(info, path)]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", ["texts", "vectors"])
def test_tables_and_arrays_through_every_form(models, tmp_path, kind, form):
    model = models(kind)
    path, names, labels = write_data(kind, tmp_path)
    output = tmp_path / "out.csv"
    summary = t2aux.predict(model.place[form], path, output, all_classes=True, batch_size=3)
    found = read_csv(output)
    wanted = expected(model.classifier, sequences_of(kind, model.info, path))
    got = np.stack([found[f"probability_{name}"] for name in model.info.classes], axis=1)
    np.testing.assert_allclose(got, wanted, atol=2e-6)
    assert found["input"] == names
    assert found["label"] == labels
    assert found["class"] == [model.info.classes[i] for i in wanted.argmax(axis=1)]
    np.testing.assert_allclose(found["probability"], wanted.max(axis=1), atol=2e-6)
    assert list(found)[:4] == ["input", "label", "class", "probability"]
    true = np.arange(7) % 3
    assert summary.evaluation.accuracy == np.mean(wanted.argmax(axis=1) == true)
    loss = -np.log(wanted[np.arange(7), true]).mean()
    assert summary.evaluation.loss == pytest.approx(loss, abs=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_a_folder_of_images_through_every_form(models, photos, tmp_path, form):
    model = models("images")
    output = tmp_path / "out.csv"
    summary = t2aux.predict(model.place[form], photos, output, top=2)
    found = read_csv(output)
    paths = sorted(photos.rglob("*.png"))
    assert found["input"] == [path.relative_to(photos).as_posix() for path in paths]
    assert found["label"] == [path.parent.name for path in paths]
    items = list(reading.read_inputs(model.info, map(str, paths)))
    # As `t2aux classify` answers.
    whole = location.locate(model.place["tflite"]).load()
    one_by_one = [answers.classify(whole, item, top=2) for item in items]
    for index, answer in enumerate(one_by_one):
        assert (found["class"][index], found["class_2"][index]) == answer.classes
        got = found["probability"][index], found["probability_2"][index]
        np.testing.assert_allclose(got, answer.probabilities, atol=2e-6)
    known = [label in model.info.classes for label in found["label"]]
    right = [c == la for c, la in zip(found["class"], found["label"], strict=True)]
    assert summary.evaluation.examples == sum(known) == 7
    assert summary.evaluation.accuracy == sum(right) / 7
    assert summary.unknown == {"yak": 2}


def test_a_run_is_evaluated_as_by_evaluate(models, tmp_path):
    model = models("vectors")
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 3, 50).astype(np.int32)
    lengths = rng.integers(1, 20, 50)
    values = rng.random((lengths.sum(), 2), np.float32)
    table = data.Table.of_lengths(values, lengths, labels)
    padded = np.zeros((50, 20, 2), np.float32)
    for row, sequence in zip(padded, table.sequences(), strict=True):
        row[: len(sequence)] = sequence
    np.savez(tmp_path / "v.npz", inputs=padded, lengths=lengths, labels=labels)

    def logits(batch):
        return model.classifier.logits_of(batch.inputs, batch.lengths)

    wanted = evaluation.evaluate(logits, data.Split(model.info, table), 8)
    for form in ("run", "tflite"):
        output = tmp_path / f"{form}.csv"
        found = t2aux.predict(model.place[form], tmp_path / "v.npz", output).evaluation
        np.testing.assert_array_equal(found.confusion, wanted.confusion)
        assert found.loss == pytest.approx(wanted.loss, abs=1e-5)
        assert found.classes == wanted.classes


@pytest.mark.parametrize("form", ["run", "export", "tflite"])
def test_an_answer_depends_on_its_row_alone(models, form):
    model = models("texts")
    rng = np.random.default_rng(4)
    letters = np.array(list("abcdef "))
    texts = ["a" + "".join(letters[rng.integers(0, 7, n)]) for n in rng.integers(0, 60, 300)]
    rows = [Row(i, f"row {i}", text) for i, text in enumerate(texts)]
    predictor = Predictor(Model(model.place[form]), batch_size=128)
    whole = predictor(rows).probabilities
    # Each process loads the model by itself.
    other = pickle.loads(pickle.dumps(predictor))
    assert other._callers is None
    for part in (rows[:1], rows[40:47], rows[100:300], rows[::-1]):
        found = other(part).probabilities
        np.testing.assert_array_equal(found, whole[[row.name for row in part]])


def test_tensorflow_traces_a_model_once(models, tmp_path):
    model = models("texts")
    (tmp_path / "t.txt").write_text("".join("abc" * n + "\n" for n in range(1, 30)))
    predictor = Predictor(Model(model.place["keras"]), batch_size=4)
    for part in range(3):
        rows = [Row(i, "x", "abc" * (i + 1)) for i in range(part, 20 + 3 * part)]
        predictor(rows)
    whole = predictor.callers[0]._classifier._whole
    assert whole.experimental_get_tracing_count() == 1


def test_a_batch_is_as_large_as_its_own_lengths_say():
    lengths = np.random.default_rng(5).integers(1, 100_000, 500)
    seen = []
    for chosen, rows in batching.plan(lengths, 256):
        assert len(chosen) <= rows
        assert {batching.rows_of(n, 256) for n in lengths[chosen]} == {rows}
        assert rows * lengths[chosen].max() <= 1 << 18 or rows == 1
        seen += chosen.tolist()
    assert sorted(seen) == list(range(500))
    assert batching.rows_of(400) == 128
    assert batching.plan([], 4) == []
