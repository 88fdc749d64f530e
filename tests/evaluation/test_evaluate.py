"""Evaluation against scikit-learn, its report, and the command."""

import json
import re

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn import metrics

from t2aux import data
from t2aux.data.table import subset
from t2aux.evaluation import classification_report
from t2aux.training.evaluation import evaluate
from t2aux.training.scores import Evaluation
from tests.cli_helpers import assert_one_sentence, t2aux
from tests.export.conftest import make_run
from tests.fork_server import Server


def outcome(labels, predicted, classes):
    confusion = np.zeros((classes, classes), np.int64)
    np.add.at(confusion, (labels, predicted), 1)
    return Evaluation(tuple(f"class {i}" for i in range(classes)), confusion, 0.5)


@settings(deadline=None)
@given(st.integers(2, 6), st.integers(1, 40), st.integers(0, 2**31))
def test_scores_equal_scikit_learns(classes, examples, seed):
    rng = np.random.default_rng(seed)
    labels, predicted = rng.integers(0, classes, (2, examples))
    got = outcome(labels, predicted, classes)
    precision, recall, f1, support = metrics.precision_recall_fscore_support(
        labels, predicted, labels=range(classes), zero_division=0
    )
    assert got.accuracy == pytest.approx(metrics.accuracy_score(labels, predicted))
    rows = list(got.by_class().values())
    np.testing.assert_allclose([row["precision"] for row in rows], precision)
    np.testing.assert_allclose([row["recall"] for row in rows], recall)
    np.testing.assert_allclose([row["f1"] for row in rows], f1)
    np.testing.assert_array_equal([row["examples"] for row in rows], support)
    assert json.loads(json.dumps(got.to_json()))["examples"] == examples


def test_loss_and_confusion_over_uneven_batches():
    split = data.load(data.Digits(), "test", max_examples=50)
    weights = tf.random.stateless_normal([64, 10], [1, 2])

    def predict(batch):
        return tf.reshape(batch.inputs, [-1, 64]) @ weights

    done = []
    got = evaluate(predict, split, batch_size=16, progress=done.append)
    assert done == [16, 32, 48, 50]
    logits = np.stack([split.example(i)[:, 0] for i in range(50)]) @ weights.numpy()
    shares = np.exp((logits - logits.max(1, keepdims=True)).astype(np.float64))
    shares /= shares.sum(1, keepdims=True)
    assert got.loss == pytest.approx(metrics.log_loss(split.labels, shares, labels=range(10)))
    want = metrics.confusion_matrix(split.labels, logits.argmax(1), labels=range(10))
    np.testing.assert_array_equal(got.confusion, want)


@pytest.mark.parametrize("classes", [3, 120])
def test_the_table_fits_a_terminal_and_names_the_worst(classes):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, classes, 1000)
    predicted = np.where(rng.random(1000) < 0.8, labels, 0)
    got = outcome(labels, predicted, classes)
    names = tuple(f"{i} a breed with a name that is long enough to be cut" for i in range(classes))
    text = classification_report.table(Evaluation(names, got.confusion, 0.5))
    lines = text.splitlines()
    assert max(map(len, lines)) <= 80
    assert f"accuracy {100 * got.accuracy:.2f} %" in lines[-1]
    rows = [line for line in lines if "a breed" in line]
    assert len(rows) == (3 if classes == 3 else 20)
    if classes == 120:
        worst = min(got.by_class().values(), key=lambda row: row["f1"])
        assert f"{100 * worst['f1']:.1f}%" in rows[0]


@pytest.mark.parametrize("classes", [2, 10, 21])
def test_the_picture_shows_the_matrix(classes, tmp_path):
    labels = np.arange(classes * 5) % classes
    path = tmp_path / "confusion.png"
    classification_report.draw_confusion(outcome(labels, labels, classes), path, "all right")
    diagonal = np.asarray(Image.open(path).convert("L"), np.float32)
    labels = np.zeros_like(labels)
    classification_report.draw_confusion(outcome(labels, labels, classes), path, "all right")
    column = np.asarray(Image.open(path).convert("L"), np.float32)
    assert min(diagonal.shape) > 300
    assert np.abs(diagonal - column).max() > 100


def test_the_command_writes_and_prints_the_same(tmp_path):
    model_dir = make_run("grey", tmp_path / "grey")
    done = t2aux("evaluate", f"--model_dir={model_dir}", "--checkpoint=ckpt-3", "--batch_size=5")
    folder = model_dir / "evaluation" / "test"
    report = json.loads((folder / "evaluation.json").read_text())
    assert report["examples"] == 24 == len(subset(359, 24))
    assert (report["dataset"], report["split"], report["step"]) == ("digits", "test", 3)
    assert np.trace(report["confusion"]) / 24 == report["accuracy"]
    assert f"accuracy {100 * report['accuracy']:.2f} %   loss {report['loss']:.4f}" in done.stdout
    assert Image.open(folder / "confusion.png").format == "PNG"
    baselines = report["baselines"]
    most = max(row["examples"] for row in report["by_class"].values())
    assert baselines["majority_class"]["accuracy"] == most / 24
    assert baselines["logistic_regression"]["examples"] == 24
    for name, found in baselines.items():
        name = name.replace("_", " ")
        assert re.search(rf"  {name} +{100 * found['accuracy']:.2f} %", done.stdout)
    if max(found["accuracy"] for found in baselines.values()) > report["accuracy"]:
        assert "The logistic regression is better than this model." in done.stdout
    # The true lengths do not depend on the batch, and neither does the outcome.
    t2aux("evaluate", f"--model_dir={model_dir}", "--checkpoint=ckpt-3", "--batch_size=24")
    again = json.loads((folder / "evaluation.json").read_text())
    assert again["baselines"] == baselines
    assert again["confusion"] == report["confusion"]
    assert again["loss"] == pytest.approx(report["loss"], rel=1e-5)


def report_of(folder):
    return json.loads((folder / "evaluation.json").read_text())


def test_other_data_is_named_and_goes_elsewhere(tmp_path):
    model_dir = make_run("vectors", tmp_path / "vectors")
    run = [f"--model_dir={model_dir}", "--checkpoint=ckpt-3"]
    places = [tmp_path / "new" / "news", tmp_path / "newer" / "news"]
    for seed, place in enumerate(places):
        place.mkdir(parents=True)
        inputs = np.random.default_rng(seed).random((9 + seed, 12, 2))
        for split in ("train", "test"):
            np.savez(
                place / split,
                inputs=inputs,
                labels=np.arange(9 + seed) % 3,
                lengths=[5] * len(inputs),
            )
    with Server() as server:

        def evaluate_on(*flags):
            done = server.run(tmp_path / "log", "evaluate", *run, *flags)
            assert done.returncode == 0, done.stderr
            return done.stderr

        evaluate_on()
        own = (model_dir / "evaluation" / "test" / "evaluation.json").read_bytes()
        printed = evaluate_on(f"--data_dir={places[0]}")
        assert f"npz in {places[0]}, test (trained on npz, step 3)" in printed
        first = report_of(model_dir / "evaluation" / "test-news")
        assert (first["data_dir"], first["examples"]) == (str(places[0]), 9)
        assert first["trained_on"] == "npz"
        # Another folder of the same name.
        assert "test-news-2" in evaluate_on(f"--data_dir={places[1]}")
        second = report_of(model_dir / "evaluation" / "test-news-2")
        assert (second["data_dir"], second["examples"]) == (str(places[1]), 10)
        assert report_of(model_dir / "evaluation" / "test-news") == first
        # The first again, under another name of its folder.
        (tmp_path / "link").symlink_to(places[0])
        assert "test-news/" in evaluate_on(f"--data_dir={tmp_path / 'link'}")
        evaluate_on("--gin_param=dataset.max_examples = 4")
        few = report_of(model_dir / "evaluation" / "test-max_examples_4")
        assert (few["examples"], few["settings"]) == (4, {"max_examples": 4})
        evaluate_on(f"--data_dir={places[1]}", f"--output_dir={tmp_path / 'out'}")
        assert report_of(tmp_path / "out")["data_dir"] == str(places[1])
        names = {path.name for path in (model_dir / "evaluation").iterdir()}
        assert names == {"test", "test-news", "test-news-2", "test-max_examples_4"}
        assert (model_dir / "evaluation" / "test" / "evaluation.json").read_bytes() == own
        # The run's own data, given again, and settings that do not change it.
        again = [f"--data_dir={tmp_path / 'vectors'}/../vectors", "--gin_param=train.seed = 3"]
        evaluate_on(*again, "--gin_param=dataset.bucket_batches = 1")
        assert (model_dir / "evaluation" / "test" / "evaluation.json").read_bytes() == own
        assert {path.name for path in (model_dir / "evaluation").iterdir()} == names


def test_mistakes_of_the_command_are_one_sentence_each(tmp_path):
    model_dir = make_run("vectors", tmp_path / "vectors")
    run = f"--model_dir={model_dir}"
    taken = tmp_path / "file"
    taken.write_text("")
    for arguments, parts in (
        (["--model_dir=/nowhere"], [" /nowhere ", "--model_dir"]),
        ([run, "--checkpoint=ckpt-9"], ["ckpt-9"]),
        ([run, "--split=valid"], ["--split", "test"]),
        ([run, "--checkpoint=ckpt-3", "--data_dir=/nowhere"], ["/nowhere"]),
        ([run, "--checkpoint=ckpt-3", f"--output_dir={taken}"], [str(taken)]),
    ):
        assert_one_sentence(t2aux("evaluate", *arguments, check=False), *parts)
    assert not (model_dir / "evaluation").exists()
