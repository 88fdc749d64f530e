"""What the baselines answer is checked against scikit-learn, and against data that is known."""

import dataclasses

import numpy as np
import pytest
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression

from t2aux.data import DatasetInfo, Digits, Split, Table, baselines, load
from t2aux.data.part import PartSplit


def series(labels, seed=0, channels=2, scale=1.0):
    """Series of 20 to 39 steps, whose first channel has another mean for each class."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(20, 40, len(labels))
    rows = [rng.normal(size=(length, channels)) for length in lengths]
    for row, label in zip(rows, labels, strict=True):
        row[:, 0] += 3 * label
    values = scale * np.concatenate(rows).astype(np.float32)
    table = Table.of_lengths(values, lengths, np.asarray(labels, np.int32))
    classes = tuple("abc"[: max(labels) + 1])
    return Split(DatasetInfo("series", "vectors", classes, channels=channels), table)


def texts(count, kind="text"):
    """Texts whose class is the word in their midst."""
    rng = np.random.default_rng(0)
    words = ("river", "engine")
    labels = np.arange(count) % 2
    lines = [
        " ".join(["".join(rng.choice(list("abcdefg"), 5)), words[label], "of the same"])
        for label in labels
    ]
    info = DatasetInfo("texts", "text", words, tokens="bytes")
    if kind == "ids":
        info = DatasetInfo("texts", "ids", words, ids=256)
    ids = [np.frombuffer(line.encode(), np.uint8) for line in lines]
    table = Table.of_lengths(np.concatenate(ids), list(map(len, ids)), labels.astype(np.int32))
    return Split(info, table)


def test_the_majority_class_is_what_a_dummy_of_these_examples_reaches():
    labels = np.array([0, 1, 1, 2, 1, 2])
    dummy = DummyClassifier(strategy="most_frequent").fit(labels, labels)
    assert baselines.majority(np.bincount(labels)) == (1, dummy.score(labels, labels))


def test_series_of_known_classes():
    train, test = series([0, 1, 2] * 30), series([0, 1, 2] * 20, seed=1)
    found = baselines.logistic_regression(train, test)
    assert found.accuracy > 0.95
    assert (found.training_examples, found.of_training_examples) == (90, 90)
    assert (found.examples, found.of_examples) == (60, 60)
    # The unit that series are measured in makes no difference.
    smaller = [series([0, 1, 2] * n, seed, scale=1e-4) for seed, n in enumerate((30, 20))]
    assert baselines.logistic_regression(*smaller).accuracy == found.accuracy


def test_noise_can_not_be_classified():
    rng = np.random.default_rng(0)
    splits = [series([0, 1] * 100, seed) for seed in (0, 1)]
    for split in splits:
        rng.shuffle(split.labels)
    assert 0.35 < baselines.logistic_regression(*splits).accuracy < 0.65


def test_pixels_are_those_of_scikit_learn():
    train = load(Digits(), "train")
    test = load(Digits(), "test", train.info)
    found = baselines.logistic_regression(train, test)

    def flat(split):
        return np.stack([split.example(i).ravel() for i in range(len(split))])

    model = LogisticRegression(max_iter=1000).fit(flat(train), train.labels)
    assert found.accuracy == model.score(flat(test), test.labels)
    assert found.features == "pixels"
    assert found.describe("test").startswith("pixels; fitted to all 1,438 training examples; ")


def test_large_images_are_averaged_in_their_own_order():
    found = []
    for seed in (None, 7):
        source = Digits(side=60, border=2, permutation_seed=seed)
        train = load(source, "train", max_examples=100)
        test = load(source, "test", train.info, max_examples=100)
        found.append(dataclasses.replace(baselines.logistic_regression(train, test), seconds=0))
    assert found[0].features == "pixels, averaged to 32 x 32"
    assert found[0] == found[1]
    assert found[0].accuracy > 0.7


@pytest.mark.parametrize("kind", ["text", "ids"])
def test_words_of_texts_and_ids(kind):
    whole = texts(120, kind)
    train, test = PartSplit(whole, np.arange(80)), PartSplit(whole, np.arange(80, 120))
    assert baselines.logistic_regression(train, test).accuracy == 1.0


def test_what_is_too_much_is_cut_and_reported(monkeypatch):
    monkeypatch.setattr(baselines, "MAX_EXAMPLES", 30)
    train, test = series([0, 1, 2] * 30), series([0, 1, 2] * 20, seed=1)
    found = baselines.logistic_regression(train, test)
    assert (found.training_examples, found.examples) == (30, 30)
    text = found.describe("test")
    assert "fitted to 30 of 90 training examples, measured on 30 of 60 test examples" in text
    assert found.accuracy == baselines.logistic_regression(train, test).accuracy


def test_one_class_can_not_be_fitted():
    one = series([0] * 10)
    assert baselines.logistic_regression(one, one) is None
    counts = one.counts()
    assert baselines.to_json(("a",), counts, None) == {
        "majority_class": {"class": "a", "accuracy": 1.0},
        "logistic_regression": None,
    }
    assert "logistic" not in baselines.table("test", ("a",), counts)


def test_which_baseline_is_better_than_a_model():
    regression = baselines.Regression("pixels", 0.9, 1, 1, 1, 1, 0.0)
    counts = np.array([3, 7])
    assert baselines.better(0.95, counts, regression) is None
    assert baselines.better(0.8, counts, regression) == "logistic regression"
    assert baselines.better(0.6, counts, None) == "majority class"
    assert baselines.better(0.7, counts, None) is None
