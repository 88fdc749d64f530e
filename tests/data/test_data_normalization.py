import dataclasses

import numpy as np
import pytest
from sklearn.preprocessing import StandardScaler

from t2aux.data import DatasetInfo, Split, Table, convert, normalization
from t2aux.errors import ModelError
from t2aux.training.validation import load as load_splits
from tests import sources

LENGTHS = np.array([5, 1, 3, 9, 2, 5])
LABELS = np.array([0, 1, 0, 1, 0, 1])


def values(seed=0, steps=25):
    """A large mean, a small deviation, and a channel that never varies."""
    numbers = np.random.default_rng(seed).normal(size=(steps, 3))
    return (numbers * [1, 1e-3, 0] + [1e4, 0.5, 7]).astype(np.float32)


def split_of(steps, lengths=LENGTHS):
    info = DatasetInfo("made up", "vectors", ("a", "b"), channels=steps.shape[1])
    return Split(info, Table.of_lengths(steps, lengths, LABELS[: len(lengths)]))


@pytest.mark.parametrize("at_once", [1, 7, 1 << 16])
def test_it_is_that_of_the_steps_of_all_sequences(monkeypatch, at_once):
    monkeypatch.setattr(normalization, "_AT_ONCE", at_once)
    steps = values()
    split = split_of(steps)
    info = normalization.fitted(split)
    assert split.info.mean is None
    scaler = StandardScaler().fit(steps.astype(np.float64))
    np.testing.assert_allclose(info.mean, scaler.mean_, rtol=1e-7)
    np.testing.assert_allclose(info.deviation[:2], scaler.scale_[:2], rtol=1e-6)
    assert info.deviation[2] == 1.0
    assert DatasetInfo.from_json(info.to_json()) == info
    assert info.without_normalization() == split.info


def test_what_pads_a_sequence_does_not_count(tmp_path):
    inputs = np.full((6, 9, 3), np.nan)
    steps = values()
    for row, length, part in zip(
        inputs, LENGTHS, np.split(steps, LENGTHS.cumsum()[:-1]), strict=True
    ):
        row[:length] = part
    np.savez(tmp_path / "train.npz", inputs=inputs, labels=LABELS, lengths=LENGTHS)
    read = sources.load("train", name="npz", data_dir=str(tmp_path))
    found = normalization.fitted(read)
    assert found.mean == normalization.fitted(split_of(steps)).mean


@pytest.mark.parametrize("largest", [3e38, 1e-38, 0.0])
def test_the_numbers_are_finite(largest):
    steps = np.array([[-largest], [largest]] * 11 + [[largest]], np.float32)[: LENGTHS.sum()]
    info = normalization.fitted(split_of(np.resize(steps, (LENGTHS.sum(), 1))))
    assert np.isfinite(info.mean).all()
    assert info.deviation[0] >= np.finfo(np.float32).tiny


def test_bytes_count_as_the_network_sees_them():
    steps = np.random.default_rng(0).integers(0, 256, (LENGTHS.sum(), 1)).astype(np.uint8)
    info = normalization.fitted(split_of(steps))
    np.testing.assert_allclose(info.mean, [steps.mean() / 255], rtol=1e-6)


def test_images_and_texts_have_none(tmp_path):
    digits = sources.load("train", side=5)
    assert normalization.fitted(digits) == digits.info
    (tmp_path / "train.csv").write_text("a,x\nb,y\n")
    texts = sources.load("train", name="csv", data_dir=str(tmp_path))
    assert normalization.fitted(texts) == texts.info


def test_shards_have_the_same_numbers_and_values_as_they_were(tmp_path, monkeypatch):
    monkeypatch.setattr(normalization, "_AT_ONCE", 4)
    folder = tmp_path / "arrays"
    folder.mkdir()
    inputs = values(steps=60).reshape(6, 10, 3)
    for split in ("train", "test"):
        np.savez(folder / f"{split}.npz", inputs=inputs, labels=LABELS)
    info, train = sources.read("train", name="npz", data_dir=str(folder))
    convert.convert(info, {"train": train, "test": train}, tmp_path / "shards", shards=4)
    memory, shards = (
        sources.load("train", name=name, data_dir=str(where))
        for name, where in (("npz", folder), ("shards", tmp_path / "shards"))
    )
    np.testing.assert_array_equal(shards.values, inputs.reshape(60, 3))
    assert shards.info.mean is None
    assert normalization.fitted(shards) == normalization.fitted(memory)


def test_what_is_held_out_does_not_count(tmp_path):
    inputs = np.random.default_rng(0).normal(size=(20, 4, 1))
    for split in ("train", "test"):
        np.savez(tmp_path / f"{split}.npz", inputs=inputs, labels=np.arange(20) % 2)
    source, _ = sources.made("npz", {})
    import gin

    with gin.unlock_config():
        gin.bind_parameter("dataset.data_dir", str(tmp_path))
    splits = load_splits(source, 0.5, 0)
    trained = np.concatenate([splits.train.example(i) for i in range(10)])
    np.testing.assert_allclose(normalization.fitted(splits.train).mean, trained.mean(0), rtol=1e-6)


@pytest.mark.parametrize(
    "wrong",
    [
        {"mean": None},
        {"deviation": None},
        {"mean": [1.0]},
        {"deviation": [1.0, 0.0]},
        {"deviation": [1.0, -1.0]},
        {"mean": [1.0, float("nan")]},
        {"mean": ["1", "2"]},
        {"kind": "image"},
    ],
)
def test_damaged_numbers_are_reported(wrong):
    info = DatasetInfo("x", "vectors", ("a",), channels=2, mean=(1.0, 2.0), deviation=(1.0, 2.0))
    assert DatasetInfo.from_json(info.to_json()) == info
    with pytest.raises(ModelError, match=r"dataset\.json"):
        DatasetInfo.from_json({**info.to_json(), **wrong})


def test_a_classifiers_numbers_are_none_of_other_data(tmp_path):
    inputs = values(steps=60).reshape(6, 10, 3)
    np.savez(tmp_path / "test.npz", inputs=inputs, labels=LABELS)
    info = DatasetInfo("npz", "vectors", ("0", "1"), channels=3, length=10)
    trained = dataclasses.replace(info, mean=(0.0, 1.0, 2.0), deviation=(1.0, 2.0, 3.0))
    read = sources.load("test", name="npz", data_dir=str(tmp_path), info=trained)
    assert read.info == trained
    np.testing.assert_array_equal(read.values, inputs.reshape(60, 3))
