import numpy as np
import pytest
import tensorflow_datasets as tfds

from t2aux.errors import DataError, FileError, SettingError
from tests.sources import load, prepare
from tests.text_memory import LONG, TEXTS, assert_held_one_at_a_time


class Shapes(tfds.core.GeneratorBasedBuilder):
    """Images of various sizes, made here, with splits of unusual names."""

    VERSION = tfds.core.Version("1.0.0")
    images = np.random.default_rng(0).integers(0, 256, (12, 6, 6, 3)).astype(np.uint8)

    def _info(self):
        features = {
            "image": tfds.features.Image(shape=(None, None, 3)),
            "mask": tfds.features.Image(shape=(None, None, 1)),
            "label": tfds.features.ClassLabel(names=["x", "y", "z"]),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(features),
            supervised_keys=("image", "label"),
        )

    def _split_generators(self, dl_manager):
        return {
            "train": self._generate_examples(0, 8),
            "validation": self._generate_examples(8, 12),
        }

    def _generate_examples(self, start, end):
        for index in range(start, end):
            height = 6 - index % 2
            image = self.images[index, :height]
            yield index, {"image": image, "mask": image[:, :, :1], "label": index % 3}


class Sayings(tfds.core.GeneratorBasedBuilder):
    """Texts; one of the split "extra" is empty, and one has no class."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = {
            "text": tfds.features.Text(),
            "label": tfds.features.ClassLabel(names=["no", "yes"]),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {
            "train": [(i, {"text": f"aab\u00e9 {i % 2}", "label": i % 2}) for i in range(6)],
            "test": [(i, {"text": "b?", "label": 1}) for i in range(3)],
            "extra": [(0, {"text": " ", "label": 1})],
            "unlabelled": [(0, {"text": "x", "label": -1})],
        }

    def _generate_examples(self):
        raise NotImplementedError


class Essays(Sayings):
    """Texts that together are larger than one alone by far."""

    VERSION = tfds.core.Version("1.0.0")

    def _split_generators(self, dl_manager):
        return {"train": ((i, {"text": f"{i} {LONG}", "label": i % 2}) for i in range(TEXTS))}


class Broken(Sayings):
    """Fails while it is prepared, as without a connection."""

    VERSION = tfds.core.Version("1.0.0")

    def _split_generators(self, dl_manager):
        raise ConnectionError("no route to host\nmore lines")


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("tfds"))
    assert prepare("shapes", folder)
    assert prepare("tfds:sayings", folder)
    return folder


def test_images_that_were_prepared(data_dir):
    split = load("train", "shapes", data_dir, side=4, permutation_seed=1)
    assert (len(split), split.info.name, split.info.classes) == (8, "shapes", ("x", "y", "z"))
    expected = {
        split.info.image_sequence(Shapes.images[i, : 6 - i % 2]).tobytes(): i % 3 for i in range(8)
    }
    found = {split.example(i).tobytes(): split.labels[i] for i in range(8)}
    assert found == expected
    # "validation" stands in for a missing "test".
    test = load("test", "shapes", data_dir, side=4, permutation_seed=1)
    assert (len(test), test.info) == (4, split.info)


def test_the_order_is_fixed_and_a_choice_keeps_it(data_dir):
    split = load("train", "shapes", data_dir, side=4)
    again = load("train", "shapes", data_dir, side=4)
    everything = [split.example(i).tobytes() for i in range(8)]
    assert [again.example(i).tobytes() for i in range(8)] == everything
    some = load("train", "shapes", data_dir, side=4, max_examples=3)
    where = [everything.index(some.example(i).tobytes()) for i in range(3)]
    assert where == sorted(where)
    assert some.labels.tolist() == split.labels[where].tolist()


def test_texts_that_were_prepared(data_dir):
    split = load("train", "sayings", data_dir)
    assert split.info.vocabulary == ("\ufffd", "a", " ", "b", "\u00e9", "0", "1")
    assert sorted(split.labels) == [0, 0, 0, 1, 1, 1]
    assert split.example(0).tolist()[:5] == [1, 1, 3, 4, 2]
    test = load("test", "sayings", data_dir)
    assert (test.info, test.example(0).tolist()) == (split.info, [3, 0])


def test_texts_are_held_one_at_a_time(tmp_path):
    prepare("essays", str(tmp_path))
    assert_held_one_at_a_time(name="essays", data_dir=str(tmp_path))


def test_splits_of_ones_own(data_dir):
    arguments = {"name": "shapes", "data_dir": data_dir, "side": 4}
    splits = ("train[:5]", "train[5:]+validation")
    assert len(load("train", splits=splits, **arguments)) == 5
    assert len(load("test", splits=splits, **arguments)) == 7
    with pytest.raises(SettingError, match=r"shapes .*'valid', .*train, validation: "):
        load("test", splits=("train", "valid"), **arguments)


def test_bad_examples_are_user_errors(data_dir):
    with pytest.raises(DataError, match=r"example 0 .*'extra' .*sayings .*dataset\.splits"):
        load("test", "sayings", data_dir, splits=("train", "extra"))
    with pytest.raises(DataError, match=r"Example 0 .*'unlabelled' .*sayings .*dataset\.splits"):
        load("test", "sayings", data_dir, splits=("train", "unlabelled"))


def test_damaged_files_are_user_errors(tmp_path):
    prepare("sayings", str(tmp_path))
    (file,) = tmp_path.glob("sayings/1.0.0/*train.tfrecord*")
    file.write_bytes(file.read_bytes()[:-30])
    with pytest.raises(FileError, match=r"sayings .*sayings/1\.0\.0 .*truncated"):
        load("train", "sayings", str(tmp_path))
    file.unlink()
    with pytest.raises(FileError, match=r"sayings .*sayings/1\.0\.0 "):
        load("train", "sayings", str(tmp_path))


def test_a_failed_preparation_is_a_user_error(tmp_path):
    with pytest.raises(FileError, match=r"broken .*broken/1\.0\.0 .*\(no route to host\)"):
        prepare("broken", str(tmp_path))
    with pytest.raises(FileError, match=r"broken/1\.0\.0: .*`t2aux data broken --prepare`"):
        load("train", "broken", str(tmp_path))


def test_what_is_not_prepared_says_how_to(tmp_path):
    for name in ("mnist", "emnist/letters", "ag_news_subset"):
        with pytest.raises(FileError, match=f"`t2aux data {name} --prepare`"):
            load("train", name, str(tmp_path))
    assert not list(tmp_path.iterdir())


def test_own_sources_need_no_preparation():
    assert not prepare("digits")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mnst", "'mnst': .*mnist"),
        ("digit", "'digit': .*digits"),
        ("image_foldr", "'image_foldr': .*image_folder"),
        ("qqqqqqqqqq", "'qqqqqqqqqq': .*`t2aux data`"),
        ("tfds:digits", "'digits': "),
        ("emnist/nonsense", "tensorflow-datasets .*'emnist/nonsense'"),
        ("mnist:9.9.9", r"tensorflow-datasets .*'mnist:9\.9\.9'"),
        ("two words", "tensorflow-datasets .*'two words'"),
        ("coco", "coco .*single image"),
        ("wikipedia", "wikipedia .*single image"),
    ],
)
def test_wrong_names_are_user_errors(name, message, tmp_path):
    for function in (lambda: load("train", name, str(tmp_path)), lambda: prepare(name)):
        if "single" not in message:
            with pytest.raises(SettingError, match=message):
                function()
    with pytest.raises(SettingError, match=message):
        load("train", name, str(tmp_path))


@pytest.mark.parametrize(("name", "reader"), [("photos", "image_folder"), ("reviews.csv", "csv")])
def test_a_path_instead_of_a_name_says_where_it_belongs(name, reader, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    (tmp_path / "reviews.csv").touch()
    for given in (name, str(tmp_path / name)):
        with pytest.raises(SettingError, match=f"`t2aux data {reader} --data_dir={given}`"):
            prepare(given)


@pytest.mark.parametrize(
    ("name", "arguments", "steps", "channels", "classes"),
    [
        ("mnist", {}, 784, 1, 10),
        ("tfds:mnist", {"permutation_seed": 3}, 784, 1, 10),
        ("fashion_mnist", {"side": 7}, 49, 1, 10),
        ("cifar10", {}, 1024, 3, 10),
        ("cifar10", {"grey": True}, 1024, 1, 10),
        ("stanford_dogs", {"side": 40}, 1600, 3, 120),
    ],
)
def test_public_images(name, arguments, steps, channels, classes, tmp_path):
    with tfds.testing.mock_data(num_examples=5):
        for part in ("train", "test"):
            split = load(part, name, str(tmp_path), **arguments)
            assert len(split) == 5
            assert split.info.num_classes == classes
            batch = next(split.batches(5).as_numpy_iterator())
            assert batch.inputs.shape == (5, steps, channels)
            assert 0 <= batch.inputs.min() < batch.inputs.max() <= 1


def test_stanford_dogs_needs_a_side(tmp_path):
    with pytest.raises(SettingError, match=r"stanford_dogs\.side"):
        load("train", "stanford_dogs", str(tmp_path))


@pytest.mark.parametrize("tokens", ["characters", "bytes"])
@pytest.mark.parametrize(("name", "classes"), [("ag_news_subset", 4), ("imdb_reviews", 2)])
def test_public_texts(name, classes, tokens, tmp_path):
    with tfds.testing.mock_data(num_examples=5):
        split = load("train", name, str(tmp_path), tokens=tokens, max_length=15)
        assert split.info == load("test", name, str(tmp_path), tokens=tokens, max_length=15).info
    assert (split.info.kind, split.info.num_classes) == ("text", classes)
    assert split.lengths.max() <= 15
