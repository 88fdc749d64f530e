"""`t2aux data convert`: whole or not at all, bounded memory, and a run on what it wrote."""

import resource
import shutil
import signal
import weakref

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from t2aux import config
from t2aux.data import convert
from t2aux.data.table import Rows, Table
from t2aux.errors import DataError, FileError, SettingError
from t2aux.run import load_run
from t2aux.training import evaluation
from t2aux.training import train as train_module
from t2aux_ondevice.preprocessing import DatasetInfo
from tests.cli_helpers import assert_one_sentence, python, t2aux
from tests.sources import load, read

INFO = DatasetInfo("made", "image", ("a", "b"), channels=1, length=10_000, side=100)


def rows(count=8, at_row=None):
    """Random images, made one at a time; `at_row` is called with the number of each."""

    def make():
        for index in range(count):
            if at_row is not None:
                at_row(index)
            yield np.full((10_000, 1), index, np.uint8)

    return Rows("Making", np.arange(count, dtype=np.int32) % 2, (10_000, 1), make)


def write(folder, **arguments):
    convert.convert(INFO, {"train": rows(), "test": rows(2)}, folder, **arguments)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_files_hold_about_as_many_as_wanted(tmp_path):
    write(tmp_path / "a", shards=3)
    assert [f"train-0000{n}-of-00003.tfrecord" in names(tmp_path / "a") for n in range(4)] == [
        *(3 * [True]),
        False,
    ]
    # Never more than examples; by size otherwise.
    assert "test-00001-of-00002.tfrecord" in names(tmp_path / "a")
    write(tmp_path / "b")
    assert "train-00000-of-00001.tfrecord" in names(tmp_path / "b")
    assert names(tmp_path) == ["a", "b"]
    np.testing.assert_array_equal(
        load("train", name="shards", data_dir=str(tmp_path / "a")).values[::10_000, 0], range(8)
    )


def test_images_are_held_one_at_a_time(tmp_path):
    alive = []

    def make():
        for index in range(50):
            row = np.full((10_000, 1), index, np.uint8)
            alive.append(weakref.ref(row))
            # The one before may still be held by a loop's variable.
            assert sum(reference() is not None for reference in alive) <= 3
            yield row
            del row

    train = Rows("Making", np.zeros(50, np.int32), (10_000, 1), make)
    convert.convert(INFO, {"train": train, "test": rows(1)}, tmp_path / "shards", shards=4)
    assert len(alive) == 50


def test_a_folder_of_images_is_converted_as_it_is_loaded(tmp_path):
    random = np.random.default_rng(0)
    for split in ("train", "test"):
        for name in "ab":
            (tmp_path / "images" / split / name).mkdir(parents=True)
            for number in range(3):
                pixels = random.integers(0, 256, (5, 7, 3), dtype=np.uint8)
                path = tmp_path / "images" / split / name / f"{number}.png"
                Image.fromarray(pixels).save(path)
    arguments = {
        "name": "image_folder",
        "data_dir": str(tmp_path / "images"),
        "side": 4,
        "border": 1,
        "permutation_seed": 3,
    }
    info, train = read("train", **arguments)
    assert isinstance(train, Rows)
    _, test = read("test", info=info, **arguments)
    convert.convert(info, {"train": train, "test": test}, tmp_path / "shards", compression="zlib")
    for split in ("train", "test"):
        theirs = load(split, **arguments)
        ours = load(split, name="shards", data_dir=str(tmp_path / "shards"))
        assert ours.info == theirs.info
        np.testing.assert_array_equal(ours.values, theirs.values)
        np.testing.assert_array_equal(ours.labels, theirs.labels)


def test_ids_of_a_narrower_test_split_take_the_type_of_the_training_data(tmp_path):
    vocabulary = ("\ufffd", *map(chr, range(0x4E00, 0x4E00 + 300)))
    info = DatasetInfo("t", "text", ("a",), tokens="characters", vocabulary=vocabulary)
    train = Table.of_lengths(np.array([290, 3], np.uint16), [2], [0])
    test = Table.of_lengths(np.array([1, 2], np.uint8), [1, 1], [0, 0])
    convert.convert(info, {"train": train, "test": test}, tmp_path / "shards")
    found = load("test", name="shards", data_dir=str(tmp_path / "shards"))
    assert [found.example(i).tolist() for i in range(2)] == [[1], [2]]


def test_an_error_of_the_source_leaves_nothing(tmp_path):
    def fail(index):
        if index == 5:
            raise DataError("image 5 is damaged")

    splits = {"train": rows(at_row=fail), "test": rows(1)}
    with pytest.raises(DataError, match="image 5"):
        convert.convert(INFO, splits, tmp_path / "shards", shards=4)
    assert names(tmp_path) == []


def test_what_is_there_is_not_touched(tmp_path):
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "mine").write_text("x")
    with pytest.raises(FileError, match=r"/shards .*--output_dir"):
        write(tmp_path / "shards")
    (tmp_path / "file").write_text("x")
    with pytest.raises(FileError, match=r"/file .*--output_dir"):
        write(tmp_path / "file")

    # It appears while the conversion is at work.
    def appear(done):
        (tmp_path / "late").mkdir(exist_ok=True)
        (tmp_path / "late" / "theirs").write_text("x")

    with pytest.raises(FileError, match=r"/late .*--output_dir"):
        write(tmp_path / "late", progress=appear)
    assert names(tmp_path) == ["file", "late", "shards"]
    assert names(tmp_path / "late") == ["theirs"]
    (tmp_path / "empty").mkdir()
    write(tmp_path / "empty")
    assert "dataset.json" in names(tmp_path / "empty")


def test_a_full_disk_leaves_nothing(tmp_path):
    # A limit on the size of a file fails as a full disk does, when the data is written out.
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, limits[1]))
    try:
        with pytest.raises(FileError, match=r"train-00000-of-00001\.tfrecord .*File too large"):
            write(tmp_path / "shards")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert names(tmp_path) == []


# As little as it takes, since TensorFlow is slow to import.
KILLED = """
import os, signal, sys
import numpy as np
from t2aux.data import convert
from t2aux.data.table import Rows
from t2aux_ondevice.preprocessing import DatasetInfo
def make():
    for index in range(8):
        if index == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        yield np.zeros((10_000, 1), np.uint8)
info = DatasetInfo("made", "image", ("a",), channels=1, length=10_000, side=100)
rows = Rows("Making", np.zeros(8, np.int32), (10_000, 1), make)
convert.convert(info, {"train": rows, "test": rows}, sys.argv[1], shards=4)
"""


def test_a_killed_conversion_is_absent_and_is_cleared_away(tmp_path):
    done = python(KILLED, tmp_path / "shards", check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    (left,) = names(tmp_path)
    assert left.startswith(".shards.converting-")
    write(tmp_path / "shards", shards=2)
    assert names(tmp_path) == ["shards"]
    assert len(load("train", name="shards", data_dir=str(tmp_path / "shards"))) == 8


def test_a_conversion_at_work_is_not_cleared_away(tmp_path):
    inner = []

    def again(done):
        if not inner:
            inner.append(done)
            write(tmp_path / "shards")

    with pytest.raises(FileError, match=r"/shards .*--output_dir"):
        write(tmp_path / "shards", progress=again)
    assert names(tmp_path) == ["shards"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"compression": "gzip"}, "compression .*'gzip'.*none .*zlib"),
        ({"shards": 0}, "--shards .* 0: .*1 .*99999"),
        ({"shard_mebibytes": -1}, "--shard_mebibytes .* -1: .*1 .*99999"),
    ],
)
def test_values_out_of_range(tmp_path, arguments, message):
    with pytest.raises(SettingError, match=message):
        write(tmp_path / "shards", **arguments)
    assert names(tmp_path) == []


def test_a_sequence_beyond_a_record_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("t2aux.data.records.LARGEST", 9_999)
    with pytest.raises(DataError, match=r"10,000 .*9,999 .*max_length.*side"):
        write(tmp_path / "shards")


def weights(model_dir):
    reader = tf.train.load_checkpoint(str(model_dir / "checkpoints"))
    return {
        name: reader.get_tensor(name)
        for name in reader.get_variable_to_shape_map()
        if name.startswith(("classifier/", "auxiliary/", "optimizer/", "position/"))
    }


SMALL = [
    "Classifier.hidden_size = 4",
    "Classifier.projection_size = 3",
    "Classifier.head_size = 4",
    "Reconstruction.head_size = 4",
    "PRETRAIN_EPOCHS = 1",
    "JOINT_EPOCHS = 2",
    "BATCH_SIZE = 32",
    "dataset.max_examples = 150",
]


@pytest.fixture(scope="module")
def digits_and_shards(tmp_path_factory):
    """A run on the embedded digits, and their shards."""
    folder = tmp_path_factory.mktemp("digits")
    setting = "--gin_param=digits.side = 6"
    done = t2aux(
        "data", "convert", "digits", setting, f"--output_dir={folder / 'shards'}", "--shards=5"
    )
    assert "1,797 sequences of digits" in done.stdout
    assert "1438 training and 359 test sequences" in done.stderr
    assert "1797 sequences" in (folder / "shards" / "convert.log").read_text()
    files = ["base", "datasets/digits", "models/r_lstm"]
    text = config.parse(files, [*SMALL, "digits.side = 6", "SEGMENT_LENGTH = 5"])
    assert train_module.train(str(folder / "run"), text)
    return folder


def on_shards(folder, name="shards"):
    files = ["base", "datasets/digits", "models/r_lstm", "datasets/shards"]
    data_dir = f"dataset.data_dir = {str(folder / name)!r}"
    return config.parse(files, [*SMALL, "SEGMENT_LENGTH = 5", data_dir])


def test_a_run_on_shards_has_the_weights_of_one_on_the_source(digits_and_shards, tmp_path):
    text = on_shards(digits_and_shards)
    assert train_module.train(str(tmp_path / "run"), text)
    want = weights(digits_and_shards / "run")
    got = weights(tmp_path / "run")
    assert got.keys() == want.keys()
    assert len(got) > 20
    for name, value in want.items():
        np.testing.assert_array_equal(got[name], value, err_msg=name)
    for name in ("config.gin", "dataset.json"):
        assert (tmp_path / "run" / name).exists()
    assert (tmp_path / "run/dataset.json").read_text() == (
        digits_and_shards / "run/dataset.json"
    ).read_text()


@pytest.fixture
def damaged_shards(digits_and_shards, tmp_path):
    """Shards that have been damaged where only reading a sequence finds it."""
    folder = tmp_path / "damaged"
    shutil.copytree(digits_and_shards / "shards", folder)
    for split in ("train", "test"):
        name = f"{split}-00002-of-00005"
        content = bytearray((folder / f"{name}.tfrecord").read_bytes())
        for begin in np.load(folder / f"{name}.index.npy")["begin"][:-1]:
            content[begin] ^= 1
        (folder / f"{name}.tfrecord").write_bytes(content)
    return folder


def test_damage_while_training_and_evaluating_is_a_users_error(
    digits_and_shards, damaged_shards, tmp_path
):
    text = on_shards(damaged_shards.parent, damaged_shards.name)
    with pytest.raises(FileError, match=r"train-00002-of-00005\.tfrecord .*t2aux data convert"):
        train_module.train(str(tmp_path / "run"), text)
    run = load_run(digits_and_shards / "run")
    split = load("test", info=run.info, name="shards", data_dir=str(damaged_shards))
    predict = tf.function(
        lambda batch: run.classifier.logits_of(batch.inputs, batch.lengths), autograph=False
    )
    with pytest.raises(FileError, match=r"test-00002-of-00005\.tfrecord .*t2aux data convert"):
        evaluation.evaluate(predict, split)


@pytest.mark.long
def test_damage_is_one_sentence_on_the_command_line(digits_and_shards, damaged_shards, tmp_path):
    arguments = [f"--gin_param={setting}" for setting in (*SMALL, "SEGMENT_LENGTH = 5")]
    files = [f"--gin_file={name}" for name in ("base", "models/r_lstm", "datasets/shards")]
    data_dir = f"--data_dir={damaged_shards}"
    done = t2aux(
        "train", f"--model_dir={tmp_path / 'run'}", *files, data_dir, *arguments, check=False
    )
    assert_one_sentence(done, "train-00002-of-00005.tfrecord", "`t2aux data convert`")
    run = f"--model_dir={digits_and_shards / 'run'}"
    done = t2aux("evaluate", run, "--gin_param=train.data = @shards()", data_dir, check=False)
    assert_one_sentence(done, "test-00002-of-00005.tfrecord", "`t2aux data convert`")
    done = t2aux("data", "shards", "--verify", data_dir, check=False)
    assert_one_sentence(done, "train-00002-of-00005.tfrecord", "SHA-256")


def test_evaluation_on_shards_is_that_on_the_source(digits_and_shards):
    run = load_run(digits_and_shards / "run")
    results = []
    for arguments in ({}, {"name": "shards", "data_dir": str(digits_and_shards / "shards")}):
        split = load("test", info=run.info, **arguments)
        predict = tf.function(
            lambda batch: run.classifier.logits_of(batch.inputs, batch.lengths), autograph=False
        )
        results.append(evaluation.evaluate(predict, split).to_json())
    assert results[0] == results[1]


@pytest.mark.long
def test_an_export_is_checked_on_shards(digits_and_shards, tmp_path):
    text = on_shards(digits_and_shards)
    assert train_module.train(str(tmp_path / "run"), text)
    done = t2aux("export", f"--model_dir={tmp_path / 'run'}", f"--export_dir={tmp_path / 'export'}")
    assert "test examples of digits" in done.stdout
    assert (tmp_path / "export" / "1" / "parity.json").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["convert", "digits"], "--output_dir"),
        (["convert", "--output_dir=x"], "t2aux data convert NAME"),
        (["digits", "--shards=3"], "--shards"),
        (["digits", "--verify"], "--verify"),
        (["shards", "--data_dir=none", "--verify"], " none: "),
    ],
)
def test_mistakes_are_one_sentence(arguments, message, tmp_path):
    assert_one_sentence(t2aux("data", *arguments, check=False), message)
