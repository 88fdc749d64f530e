import hashlib
import pathlib
import re
import subprocess
import sys

import gin
import numpy as np
import pytest
from PIL import Image

from t2aux import data
from t2aux.data import catalogue, digits
from t2aux.data.source import sources
from t2aux.data.table import subset
from t2aux.errors import FileError, SettingError
from tests.sources import load


@pytest.fixture(autouse=True)
def _no_folder_in_the_environment(monkeypatch):
    monkeypatch.delenv("T2AUX_DATA_DIR", raising=False)


def test_digits_are_the_default_and_real():
    train, test = load("train"), load("test")
    assert (len(train), len(test)) == (1438, 359)
    assert train.info == test.info
    assert train.info.classes == tuple("0123456789")
    assert (train.info.length, train.info.channels, train.info.side) == (64, 1, 8)
    values = np.concatenate([train.example(i) for i in range(len(train))])
    assert set(np.unique(np.round(values * 16, 1))) <= set(range(17))
    assert (values.min(), values.max()) == (0, 1)
    assert np.bincount(test.labels).min() >= 34


def test_the_split_of_digits_is_fixed():
    from sklearn.datasets import load_digits

    indices = digits.split_indices(load_digits().target)
    together = np.concatenate([indices["train"], indices["test"]])
    np.testing.assert_array_equal(np.sort(together), np.arange(1797))
    digest = hashlib.sha256(indices["test"].astype("<i8").tobytes()).hexdigest()
    assert digest.startswith("bd6dfde071e38c72")


def test_a_test_image_is_of_the_test_split():
    split = load("test")
    for index in (0, 358):
        pixels, name = digits.test_image(index)
        sequence = split.example(index)
        np.testing.assert_array_equal(pixels.reshape(-1, 1), np.round(255 * sequence))
        assert name == split.info.classes[split.labels[index]]


@pytest.mark.parametrize("side", [4, 8, 12, 28])
def test_digits_of_any_side(side):
    split = load("test", side=side)
    assert split.info.length == side * side
    assert split.example(0).shape == (side * side, 1)
    small = load("test").example(0).reshape(8, 8)
    image = Image.fromarray(np.round(small * 255).astype(np.uint8))
    resized = np.asarray(image.resize((side, side), Image.Resampling.BILINEAR), np.float32) / 255
    np.testing.assert_allclose(split.example(0).reshape(side, side), resized, atol=1e-6)


def test_the_permutation_is_the_same_for_both_splits():
    for split in ("train", "test"):
        plain, permuted = load(split), load(split, permutation_seed=7)
        order = permuted.info.permutation
        for index in (0, 100):
            np.testing.assert_array_equal(permuted.example(index), plain.example(index)[order])
    assert load("train", permutation_seed=7).info == load("test", permutation_seed=7).info


def test_a_classifier_sees_what_training_saw():
    split = load("test", side=12, permutation_seed=3)
    raw = np.round(load("test").example(5).reshape(8, 8) * 255).astype(np.uint8)
    np.testing.assert_array_equal(split.info.image_sequence(raw), split.example(5))


def test_max_examples_takes_a_fixed_choice_of_all_classes():
    split = load("train", max_examples=200)
    assert len(split) == 200
    assert len(np.unique(split.labels)) == 10
    np.testing.assert_array_equal(split.labels, load("train", max_examples=200).labels)
    assert len(load("test", max_examples=10**6)) == 359


def test_subset_is_ascending_and_without_repetition():
    chosen = subset(1000, 100)
    assert (np.diff(chosen) > 0).all()
    assert chosen.max() > 500


def test_info_of_a_run_fixes_the_preprocessing():
    info = load("train", side=6, permutation_seed=2).info
    split = load("test", info=info)
    assert split.info is info
    np.testing.assert_array_equal(
        split.example(0), load("test", side=6, permutation_seed=2).example(0)
    )


def test_gin_binds_the_arguments():
    gin.parse_config("digits.side = 5\ndataset.max_examples = 9")
    split = data.load(data.Digits(), "test")
    assert (split.info.side, len(split)) == (5, 9)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("digits", {"side": 0}),
        ("digits", {"side": 8.0}),
        ("digits", {"side": True}),
        ("digits", {"border": -1}),
        ("image_folder", {"grey": 1}),
        ("mnist", {"permutation_seed": -1}),
        ("idx", {"permutation_seed": "1"}),
        ("csv", {"tokens": "words"}),
        ("csv", {"max_length": 0}),
        ("csv", {"vocabulary_size": 1}),
        ("csv", {"vocabulary_size": None}),
        ("tfds", {"side": 0}),
        ("tfds", {"tokens": "words"}),
        ("dataset", {"bucket_batches": 0}),
        ("dataset", {"max_examples": 0}),
        ("dataset", {"splits": ("train",)}),
        ("dataset", {"splits": "train"}),
        ("dataset", {"data_dir": 3}),
        ("dataset", {"allow": "all"}),
    ],
)
def test_arguments_out_of_range_are_user_errors(name, arguments):
    ((argument, value),) = arguments.items()
    with pytest.raises(SettingError, match=rf"{name}\.{argument} .*{re.escape(repr(value))}"):
        load("train", "digits" if name == "dataset" else name, **arguments)


def test_other_wrong_arguments_are_user_errors():
    with pytest.raises(SettingError, match=r"'valid': .*train .*test"):
        load("valid")
    with pytest.raises(SettingError, match=r"tfds\.name .*''"):
        data.Tfds()
    with pytest.raises(SettingError, match=r"dataset\.splits .*digits"):
        load("train", splits=("train", "test"))
    # A parameter that means nothing to a source is not its own.
    for source, name in ((data.Csv, "side"), (data.Digits, "tokens"), (data.Npz, "grey")):
        with pytest.raises(TypeError, match=name):
            source(**{name: 1})


@pytest.mark.parametrize("name", ["csv", "npz", "idx", "image_folder"])
def test_a_missing_folder_is_a_user_error(name, tmp_path):
    with pytest.raises(SettingError, match="T2AUX_DATA_DIR"):
        load("train", name=name)
    with pytest.raises(FileError, match=r"/none: .*--data_dir"):
        load("train", name=name, data_dir=str(tmp_path / "none"))
    with pytest.raises(FileError, match=r" train.*--data_dir"):
        load("train", name=name, data_dir=str(tmp_path))


def test_the_environment_gives_the_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("T2AUX_DATA_DIR", str(tmp_path))
    (tmp_path / "train.csv").write_text("a,hello\nb,world\n")
    assert len(load("train", name="csv")) == 2


def test_the_catalogue_names_every_source():
    listing = catalogue.listing()
    assert {"digits", "image_folder", "csv", "npz", "idx", "shards", "mnist"} < set(sources())
    # "digits" is a class of ours, and no test's.
    ours = [n for n, source in sources().items() if source.__module__.startswith("t2aux.")]
    for name in ours:
        assert re.search(rf"^  {name} +\w.*\w", listing, re.MULTILINE), name


def test_every_source_is_made_by_its_name():
    for name, source in sources().items():
        if not source.__module__.startswith("t2aux."):
            continue  # Another test's.
        made = source(name="x") if name == "tfds" else source()
        titles = {"tfds": "x", "dbpedia": "csv"}
        assert (made.gin_name, made.title) == (name, titles.get(name, name))
        assert isinstance(made, data.Source)
    assert data.named("pmnist").permutation_seed == 92916
    assert data.named("emnist/letters") == data.Tfds("emnist/letters")
    assert data.named("tfds:digits") == data.Tfds("digits")


def test_reading_needs_no_tensorflow():
    code = (
        "import sys; from t2aux.data import Digits, load; load(Digits(), 'test'); "
        "sys.exit('tensorflow' in sys.modules)"
    )
    root = pathlib.Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0


def test_a_border_around_digits():
    plain, bordered = load("train"), load("train", border=1)
    assert bordered.info.length == 100
    np.testing.assert_array_equal(
        bordered.example(7).reshape(10, 10)[1:-1, 1:-1], plain.example(7).reshape(8, 8)
    )
    assert load("test", info=bordered.info).info == bordered.info
    with pytest.raises(SettingError, match=r"digits\.border .*-1"):
        load("train", border=-1)
