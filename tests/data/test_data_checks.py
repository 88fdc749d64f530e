"""The checks that the data of every source passes, and the summary that shows what they find."""

import re

import numpy as np
import pytest
from absl import logging
from PIL import Image

from t2aux.data import checks, log_summary, summary
from t2aux.errors import DataError, SettingError
from tests.cli_helpers import assert_one_sentence, t2aux
from tests.data.test_data_idx import FILES, idx_bytes
from tests.sources import load

CHANCE = np.random.default_rng(0)


def csv(folder, split, labels):
    rows = (f"c{label},text {split} {n}\n" for n, label in enumerate(labels))
    (folder / f"{split}.csv").write_text("".join(rows))


def npz(folder, split, labels, **arrays):
    inputs = CHANCE.uniform(size=(len(labels), 4, 2))
    np.savez(folder / f"{split}.npz", **{"inputs": inputs, "labels": labels, **arrays})


def idx(folder, split, labels):
    images = CHANCE.integers(0, 256, (len(labels), 4, 4)).astype(np.uint8)
    (folder / FILES[split][0]).write_bytes(idx_bytes(images))
    (folder / FILES[split][1]).write_bytes(idx_bytes(np.array(labels, np.uint8)))


def image_folder(folder, split, labels):
    for number, label in enumerate(labels):
        path = folder / split / f"c{label}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(CHANCE.integers(0, 256, (4, 4)).astype(np.uint8)).save(path)


WRITERS = {writer.__name__: writer for writer in (csv, npz, idx, image_folder)}


def shards_of(name, folder, output, *arguments):
    """Converts a data set in the command line's process; returns what it printed."""
    return t2aux(
        "data", "convert", name, f"--data_dir={folder}", f"--output_dir={output}", *arguments
    )


@pytest.fixture(params=sorted(WRITERS))
def source(request, tmp_path):
    """The name of a source, and what writes a split of it and reads one."""
    name = request.param

    def write(split, labels):
        WRITERS[name](tmp_path, split, labels)

    def read(split="train", **arguments):
        return load(split, name=name, data_dir=str(tmp_path), **arguments)

    return name, write, read


def test_one_class_is_an_error(source):
    name, write, read = source
    write("train", [0] * 5)
    with pytest.raises(DataError, match=rf" 5 .* {name} .*'c?0'.*dataset\.allow.*one_class"):
        read()
    info = read(allow="one_class").info
    # A run that was trained on it is as it is.
    assert len(read(info=info)) == 5
    if name == "image_folder":
        with pytest.raises(DataError, match=r"train .*c0/ .*5"):
            read()


def test_nearly_a_class_an_example_is_an_error(source):
    _, write, read = source
    write("train", [0, 1, 2, 3, 4, 0])
    with pytest.raises(DataError, match=r" 6 .* 5 .*dataset\.allow.*class_per_example"):
        read()
    assert read(allow=("class_per_example", "one_class")).info.num_classes == 5


def test_small_data_is_right(source):
    _, write, read = source
    write("train", [0, 1, 2])
    write("test", [0])
    train = read()
    assert len(train) == 3
    assert any("single training example" in note for note in train.notes)
    assert any("All test examples are of one class" in note for note in read("test").notes)


def test_a_random_choice_of_examples_is_not_a_false_alarm(source):
    _, write, read = source
    write("train", [0, 1, 2, 3, 4, 5] * 4)
    write("test", [0, 1, 2, 3, 4, 5] * 2)
    for split in ("train", "test"):
        chosen = read(split, max_examples=7)
        assert len(chosen) == 7
        assert not chosen.notes
    assert len(read(max_examples=1)) == 1
    assert not load("train", name="digits", max_examples=6).notes


def test_classes_that_the_test_data_lacks_are_reported(source):
    _, write, read = source
    write("train", [0, 1, 2] * 3)
    write("test", [0, 1, 0, 1])
    assert not read().notes
    (note,) = read("test").notes
    assert "no test example: 'c2'" in note or "no test example: '2'" in note


def test_empty_classes_are_reported(tmp_path):
    npz(tmp_path, "train", [0, 2, 0, 2])
    (note,) = load("train", name="npz", data_dir=str(tmp_path)).notes
    assert "no training example: '1'" in note
    csv(tmp_path, "train", [0, 1, 0, 1])
    (tmp_path / "classes.txt").write_text("c0\nc1\nnever\n")
    (note,) = load("train", name="csv", data_dir=str(tmp_path)).notes
    assert "no training example: 'never'" in note


@pytest.mark.parametrize("name", ["nan", "None", "NULL"])
def test_names_of_missing_labels_are_errors(tmp_path, name):
    image_folder(tmp_path, "train", [0, 1, 0, 1])
    (tmp_path / "train" / "c1").rename(tmp_path / "train" / name)
    with pytest.raises(DataError, match=rf"image_folder .*'{name}'.*missing_labels"):
        load("train", name="image_folder", data_dir=str(tmp_path))
    npz(tmp_path, "train", [0, 1, 0, 1], classes=np.array(["a", name]))
    with pytest.raises(DataError, match=rf"npz .*'{name}'.*missing_labels"):
        load("train", name="npz", data_dir=str(tmp_path))
    found = load("train", name="npz", data_dir=str(tmp_path), allow=["missing_labels"])
    assert found.info.classes == ("a", name)


@pytest.mark.parametrize("allow", ["all", ["one_class", "none"], 3, None, [["one_class"]]])
def test_what_is_allowed_has_a_name(allow):
    with pytest.raises(
        SettingError, match=rf"dataset\.allow .*{re.escape(repr(allow))}.* one_class"
    ):
        load("train", name="digits", allow=allow)


def vectors(folder, values, split="train"):
    count = len(values)
    np.savez(folder / f"{split}.npz", inputs=values, labels=np.arange(count) % 2)
    return load(split, name="npz", data_dir=str(folder)).notes


def test_values_of_any_size_are_right_for_the_network_normalises_them(tmp_path):
    inputs = CHANCE.uniform(size=(8, 5, 3))
    for values in (inputs, 8 * inputs - 4, inputs > 0.5, 1e4 * inputs + 5e4, inputs * 1e-4):
        assert not vectors(tmp_path, values)


def test_test_values_in_another_unit_are_reported(tmp_path):
    inputs = CHANCE.uniform(size=(8, 5, 3))
    vectors(tmp_path, inputs)
    for test, is_noted in ((inputs + 0.5, False), (5 * inputs, False), (1000 * inputs, True)):
        vectors(tmp_path, test, "test")
        splits = {s: load(s, name="npz", data_dir=str(tmp_path)) for s in ("train", "test")}
        found = [note for note in summary.notes(splits) if "same unit" in note]
        assert len(found) == is_noted
    assert "The test values (" in found[0]
    assert not checks.beyond((1.0, 1.0), (5.0, 6.0))


@pytest.mark.parametrize("steps", [1, 255, 256, 257, 1000])
def test_the_range_of_each_channel(steps):
    for values, scale in (
        (CHANCE.normal(size=(steps, 3)).astype(np.float32), 1),
        (CHANCE.integers(0, 256, (steps, 1)).astype(np.uint8), 255),
    ):
        found = checks.ValueRange()
        for part in np.array_split(values, 2) if steps > 1 else [values]:
            found.add(part)
        np.testing.assert_allclose(found.least, values.min(axis=0) / scale)
        np.testing.assert_allclose(found.largest, values.max(axis=0) / scale)


def test_constant_channels_and_equal_sequences_are_reported(tmp_path):
    inputs = CHANCE.uniform(size=(8, 5, 3))
    inputs[:, :, 1] = 0.25
    (note,) = vectors(tmp_path, inputs)
    assert "never vary (channel 1: 0.25 to 0.25)" in note
    (note,) = vectors(tmp_path, np.repeat(CHANCE.uniform(size=(1, 5, 3)), 8, axis=0))
    assert "All 8 training sequences are the same" in note
    csv(tmp_path, "train", [0, 1])
    (tmp_path / "train.csv").write_text("a,same\nb,same\n")
    notes = load("train", name="csv", data_dir=str(tmp_path)).notes
    assert any("All 2 training sequences are the same" in note for note in notes)


def test_exchanged_axes_are_reported(tmp_path):
    inputs = CHANCE.uniform(size=(8, 2, 20))
    (note,) = vectors(tmp_path, inputs)
    assert "2 steps of 20 channels" in note
    assert not vectors(tmp_path, inputs.transpose(0, 2, 1))


def test_images_of_zeros_and_ones_are_reported(tmp_path):
    idx(tmp_path, "train", [0, 1] * 3)
    images = CHANCE.integers(0, 2, (6, 4, 4)).astype(np.uint8)
    (tmp_path / FILES["train"][0]).write_bytes(idx_bytes(images))
    (note,) = load("train", name="idx", data_dir=str(tmp_path)).notes
    assert "hardly vary (channel 0: 0 to 0.003922)" in note


def test_test_examples_among_the_training_data_are_reported(tmp_path):
    csv(tmp_path, "train", [0, 1] * 10)
    rows = (tmp_path / "train.csv").read_text().splitlines(keepends=True)
    (tmp_path / "test.csv").write_text(
        "".join([*rows[:5], *(f"c{n % 2},new {n}\n" for n in range(5))])
    )
    splits = {s: load(s, name="csv", data_dir=str(tmp_path)) for s in ("train", "test")}
    (note,) = summary.notes(splits)
    assert "5 of the 10 test sequences (50 %)" in note
    digits = {split: load(split, name="digits") for split in ("train", "test")}
    assert summary.notes(digits) == []


def test_the_log_has_classes_lengths_values_and_notes_as_warnings(tmp_path, monkeypatch):
    logged = {"info": [], "warning": []}
    for level, lines in logged.items():
        monkeypatch.setattr(logging, level, lambda form, *a, lines=lines: lines.append(form % a))
    npz(tmp_path, "train", np.arange(60) % 15)
    npz(tmp_path, "test", np.arange(14))
    log_summary({s: load(s, name="npz", data_dir=str(tmp_path)) for s in ("train", "test")})
    text = "\n".join(logged["info"])
    assert "train: 60 examples, length 4, values 0." in text
    assert "test: 14 examples" in text
    assert "15 classes (train and test examples): 0 (4, 1), 1 (4, 1)" in text
    assert "9 (4, 1) and 5 more" in text
    assert logged["warning"] == ["Note: 1 class has no test example: '14'."]


def test_data_shows_the_range_and_the_notes(tmp_path):
    npz(tmp_path, "train", [0, 1, 2] * 4)
    npz(tmp_path, "test", [0, 1] * 4)
    shown = t2aux("data", "npz", f"--data_dir={tmp_path}").stdout
    assert "value, smallest" in shown
    assert "Note: 1 class has no test example: '2'." in shown


def test_errors_name_what_allows_them(tmp_path):
    csv(tmp_path, "train", [0] * 4)
    csv(tmp_path, "test", [0] * 4)
    done = t2aux("data", "csv", f"--data_dir={tmp_path}", check=False)
    parameter = "dataset.allow = ['one_class']"
    assert_one_sentence(done, " csv ", "'c0'", f'--gin_param="{parameter}"')
    done = t2aux("data", "csv", f"--data_dir={tmp_path}", f"--gin_param={parameter}")
    assert "1 class\n" in done.stdout


def test_shards_keep_what_was_found(tmp_path):
    labels = [0, 1, 2] * 4
    for split, count in (("train", 12), ("test", 8)):
        inputs = 1e4 * CHANCE.uniform(size=(count, 4, 2)) + 5e4
        inputs[:, :, 1] = 0.5
        npz(tmp_path, split, labels[:count], inputs=inputs, classes=np.array(["a", "b", "c", "d"]))
    done = shards_of("npz", tmp_path, tmp_path / "shards", "--compression=zlib")
    for part in (
        "train: 12 examples",
        "never vary",
        "no training example: 'd'",
    ):
        assert part in done.stdout
    memory, shards = (
        {split: load(split, name=name, data_dir=str(folder)) for split in ("train", "test")}
        for name, folder in (("npz", tmp_path), ("shards", tmp_path / "shards"))
    )
    assert summary.notes(shards) == summary.notes(memory)
    for split in memory:
        assert shards[split].value_range() == pytest.approx(memory[split].value_range())
    assert summary.brief(shards) == summary.brief(memory)


def test_shards_pass_the_check(tmp_path):
    csv(tmp_path, "train", [0] * 4)
    csv(tmp_path, "test", [0] * 4)
    allowed = "--gin_param=dataset.allow = 'one_class'"
    shards_of("csv", tmp_path, tmp_path / "shards", allowed)
    with pytest.raises(DataError, match=r"'c0'.*dataset\.allow.*one_class"):
        load("train", name="shards", data_dir=str(tmp_path / "shards"))
    assert (
        len(load("train", name="shards", data_dir=str(tmp_path / "shards"), allow="one_class")) == 4
    )


def test_listings_are_short():
    assert checks.listing(map(str, range(7))) == "0, 1, 2, 3, 4 and 2 more"
    assert checks.listing(["a"]) == "a"


def test_sequences_of_several_classes_are_noted():
    sequences = np.array([1, 1, 2, 2, 3, 4, 4, 5, 6, 7], np.uint64)
    labels = np.array([0, 1, 2, 2, 0, 1, 0, 1, 1, 1], np.int32)
    (note,) = checks.contradictory(sequences, labels)
    assert "4 of the 10" in note
    assert not checks.contradictory(sequences, labels * 0)
    assert not checks.contradictory(np.arange(10, dtype=np.uint64), labels)
