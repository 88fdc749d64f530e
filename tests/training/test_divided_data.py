"""Runs on data that has no test set of its own, or a validation set of its own."""

import csv
import itertools
import re
import shutil

import gin
import pytest

from t2aux import config, data, files
from t2aux.data import convert, loading
from t2aux.errors import DataError, ModelError
from t2aux.evaluation import other_data
from t2aux.run import load_run
from t2aux.training import best, validation
from t2aux.training import train as train_module
from tests.cli_helpers import assert_one_sentence, t2aux

SETTINGS = [
    "JOINT_EPOCHS = 2",
    "PRETRAIN_EPOCHS = 0",
    "BATCH_SIZE = 8",
    "SUPERVISED_BPTT = 'full'",
    "Classifier.hidden_size = 4",
    "Classifier.projection_size = 2",
    "Classifier.head_size = 4",
    "RunConfig.checkpoint_minutes = 0",
]
FILES = ["base", "datasets/csv", "models/lstm"]
WORDS = ("ant", "bee", "cat")


def write(path, count=60, start=0):
    """A table as pandas writes it: an index column, a header, the label last."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["", "review", "stars"])
        for n in range(start, start + count):
            writer.writerow([n, f"{WORDS[n % 3] * (1 + n % 5)} {n}", n % 3 + 1])
    return path


def configure(path, *more):
    return config.parse(FILES, [*SETTINGS, f"dataset.data_dir = {str(path)!r}", *more])


def train(model_dir, path, *more, **options):
    try:
        return train_module.train(str(model_dir), configure(path, *more), **options)
    finally:
        gin.clear_config()


def texts_of(split):
    return [split.info.text(split.example(index)) for index in range(len(split))]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run on one table, with a share of it held out for validation."""
    folder = tmp_path_factory.mktemp("divided")
    path = write(folder / "reviews.csv")
    assert train(folder / "run", path, "train.validation = 0.25")
    return folder


def copied(run, tmp_path):
    """A copy of the run and its data, where the run finds the data."""
    folder = shutil.copytree(run, tmp_path / "copy")
    text = (folder / "run/config.gin").read_text()
    (folder / "run/config.gin").write_text(text.replace(str(run), str(folder)))
    return folder


def opened(run, *params, split="test"):
    """What evaluate reads."""
    loaded = load_run(run / "run", gin_params=params)
    _, whole, other = other_data.read(loaded, params, split)
    part = validation.part_of(split, whole, is_own=other is None, directory=loaded.model_dir)
    return texts_of(part), other


def test_the_split_is_kept_in_the_run(run):
    stored = files.read_json(run / "run/split.json")
    assert (stored["examples"], len(stored["test"])) == (60, 12)
    assert stored["data"] == str(run / "reviews.csv")
    with (run / "reviews.csv").open() as file:
        rows = [row["review"] for row in csv.DictReader(file)]
    parts = {split: opened(run, split=split) for split in ("train", "validation", "test")}
    assert all(other is None for _, other in parts.values())
    texts = {split: found for split, (found, _) in parts.items()}
    # The vocabulary is that of the training examples.
    assert [len(text) for text in texts["test"]] == [len(rows[i]) for i in stored["test"]]
    assert [len(texts[split]) for split in texts] == [36, 12, 12]
    known = data.DatasetInfo.from_json(files.read_json(run / "run/dataset.json"))
    read = [known.text(known.text_ids(row)) for row in rows]
    assert sorted(itertools.chain(*texts.values())) == sorted(read)
    assert files.read_json(run / "run" / best.FILE)["examples"] == 12


def test_a_resumed_run_has_the_same_split(run, tmp_path):
    folder = copied(run, tmp_path)
    before = (folder / "run/split.json").read_text()
    more = ("train.validation = 0.25", "JOINT_EPOCHS = 3")
    assert train(folder / "run", folder / "reviews.csv", *more, allow_changes=True)
    assert (
        files.read_json(folder / "run/split.json")["test"]
        == (files.read_json(run / "run/split.json")["test"])
    )
    assert before != (folder / "run/split.json").read_text()  # Only where the data lies.
    for setting in ("dataset.split_seed = 1", "dataset.test_fraction = 0.3"):
        with pytest.raises(ModelError, match="test examples"):
            train(folder / "run", folder / "reviews.csv", "train.validation = 0.25", setting)
    write(folder / "reviews.csv", count=70)
    with pytest.raises(ModelError, match="training examples: 48 -> 56"):
        train(folder / "run", folder / "reviews.csv", "train.validation = 0.25")


def test_data_that_changed_is_not_evaluated_on(run, tmp_path):
    folder = copied(run, tmp_path)
    assert opened(folder)[1] is None
    write(folder / "reviews.csv", count=70)
    with pytest.raises(DataError, match=r"reviews\.csv"):
        opened(folder)
    # Wherever the same data lies it is the same, and its test set is.
    moved = shutil.copy(run / "reviews.csv", tmp_path / "moved.csv")
    assert opened(folder, f"dataset.data_dir = {str(moved)!r}") == opened(run)


@pytest.mark.parametrize("count", [30, 2])
def test_other_data_is_evaluated_on_whole(run, tmp_path, count):
    path = write(tmp_path / "newer.csv", count=count, start=100)
    texts, other = opened(run, f"dataset.data_dir = {str(path)!r}")
    assert (len(texts), other.data_dir) == (count, str(path))


def test_a_validation_set_of_its_own(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    write(folder / "train.csv")
    write(folder / "val.csv", count=9, start=200)
    assert train(tmp_path / "run", folder, "train.validation = 0.25")
    assert files.read_json(tmp_path / "run" / best.FILE)["examples"] == 9
    stored = files.read_json(tmp_path / "run/run.json")["data"]
    assert {name: part["examples"] for name, part in stored.items()} == {
        "train": 48,
        "test": 12,
        "validation": 9,
    }
    sizes = {s: len(opened(tmp_path, split=s)[0]) for s in ("train", "validation", "test")}
    assert sizes == {"train": 48, "validation": 9, "test": 12}
    # It continues, also as shards.
    assert train(tmp_path / "run", folder, "train.validation = 0.25")
    configure(folder)
    source = data.configured()
    arguments = {"data_dir": str(folder)}
    info, examples = loading.read(source, "train", **arguments)
    splits = {"train": examples}
    for split in ("validation", "test"):
        splits[split] = loading.read(source, split, info, **arguments)[1]
    gin.clear_config()
    convert.convert(info, splits, tmp_path / "shards")
    shards = (tmp_path / "shards", "train.validation = 0.25", "train.data = @shards()")
    assert train(tmp_path / "run", *shards)
    assert train(tmp_path / "other", *shards)
    assert files.read_json(tmp_path / "other" / best.FILE)["examples"] == 9


def test_a_run_that_held_out_a_share_continues_with_it(run, tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    shutil.copy(run / "reviews.csv", folder / "train.csv")
    shutil.copytree(run / "run", tmp_path / "run")
    write(folder / "val.csv", count=9, start=200)
    more = ("train.validation = 0.25", "JOINT_EPOCHS = 3")
    assert train(tmp_path / "run", folder, *more, allow_changes=True)
    assert files.read_json(tmp_path / "run" / best.FILE)["examples"] == 12


def test_a_table_as_pandas_writes_it_on_the_command_line(tmp_path):
    path = write(tmp_path / "reviews.csv")
    columns = ["--label_column=stars", "--text_column=review"]
    small = [f"--gin_param={setting}" for setting in SETTINGS[3:]]
    once = ["--gin_param=JOINT_EPOCHS = 1", "--gin_param=joint/Phase.min_updates = 0"]
    run = ["--gin_file=texts", f"--model_dir={tmp_path / 'run'}", f"--data_dir={path}", *columns]
    done = t2aux("train", *run, *small, *once, "--gin_param=MinGRU.layers = 1")
    assert "the class is the column 'stars', and the text is 'review'" in done.stderr
    assert "12 of its 60 examples" in done.stderr
    done = t2aux("evaluate", f"--model_dir={tmp_path / 'run'}")
    assert files.read_json(tmp_path / "run/evaluation/test/evaluation.json")["examples"] == 12
    done = t2aux("data", "csv", f"--data_dir={path}", "--label_column=star", check=False)
    assert_one_sentence(done, " 'star'", "'review', 'stars'", " 'stars'?")
    done = t2aux("data", "digits", "--label_column=stars", check=False)
    assert_one_sentence(done, "--label_column", " digits:")
    done = t2aux("data", "csv", f"--data_dir={path}")
    assert re.search(r"examples +48 +12\n", done.stdout)
    # Other names for the same columns.
    other = tmp_path / "newer.csv"
    other.write_text(path.read_text().replace("review,stars", "words,grade"))
    renamed = [f"--data_dir={other}", "--label_column=grade", "--text_column=words"]
    t2aux("evaluate", f"--model_dir={tmp_path / 'run'}", *renamed)


def test_a_folder_of_photos_on_the_command_line(tmp_path):
    import numpy as np
    from PIL import Image

    for label, name in enumerate(("cat", "dog")):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for n in range(10):
            pixels = np.full((30 + n, 40, 3), 100 * label + n, np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{n}.jpg")
    small = [f"--gin_param={setting}" for setting in SETTINGS[3:]]
    once = ["--gin_param=JOINT_EPOCHS = 1", "--gin_param=joint/Phase.min_updates = 0"]
    run = ["--gin_file=images", f"--model_dir={tmp_path / 'run'}"]
    done = t2aux("train", *run, f"--data_dir={tmp_path / 'photos'}", *small, *once)
    assert "4 of its 20 examples" in done.stderr
    stored = files.read_json(tmp_path / "run/split.json")["test"]
    assert sorted({name.split("/")[0] for name in stored}) == ["cat", "dog"]
