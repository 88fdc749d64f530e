"""Every gin file that comes with t2aux: built, and run for a batch on stand-in data."""

import json

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from t2aux import config
from t2aux.data import convert
from t2aux.losses.reconstruction import Reconstruction
from t2aux.model.gru import GRU
from t2aux.model.lstm import LSTM
from t2aux.model.mingru import MinGRU
from t2aux.training import train as train_module
from t2aux.training.classifier import make_classifier
from tests import networks, sources

# The real lengths, with small networks: one batch of each phase.
SMALL = [
    "Classifier.hidden_size = 4",
    "Classifier.projection_size = 3",
    "Classifier.head_size = 4",
    "Reconstruction.head_size = 4",
    "Prediction.head_size = 4",
    "LanguageModel.head_size = 4",
    "SequenceAutoencoder.head_size = 4",
    "BATCH_SIZE = 2",
    "dataset.max_examples = 2",
]
EPOCHS = ["PRETRAIN_EPOCHS = 1", "JOINT_EPOCHS = 1"]

# With one to hold out, and batches of those that stay.
HELD_OUT = ["dataset.max_examples = 20", "train.validation = 0.5", "BATCH_SIZE = 1"]

# What each shipped file is tested in: the files, with it, and the settings it needs.
WHOLE = {
    "quickstart": (["quickstart"], []),
    "texts": (["texts"], HELD_OUT),
    "images": (["images"], HELD_OUT),
    "quickstart_lstm": (["quickstart_lstm"], []),
    "sequences": (["sequences"], ["UPDATES = 1", "SEGMENT_LENGTH = 2"]),
    "paper/images": (["paper/images", "datasets/mnist", "models/r_lstm"], []),
    "paper/mnist": (["paper/mnist", "models/r_lstm"], []),
    "paper/pmnist": (["paper/pmnist", "models/p_lstm"], []),
    "paper/cifar10": (["paper/cifar10", "models/r_lstm"], []),
    "paper/stanford_dogs": (["paper/stanford_dogs", "models/r_lstm"], ["SIDE = 40"]),
    "paper/dbpedia": (["paper/dbpedia", "models/r_lstm"], []),
    "base": (["base", "datasets/digits", "models/r_lstm"], ["SEGMENT_LENGTH = 20"]),
    "models/lstm": (["paper/mnist", "models/lstm"], []),
    "models/r_lstm": (["paper/mnist", "models/p_lstm", "models/r_lstm"], []),
    "models/p_lstm": (["paper/mnist", "models/p_lstm"], []),
    "models/rp_lstm": (["paper/cifar10", "models/lm_lstm", "models/rp_lstm"], []),
    "models/lm_lstm": (["paper/dbpedia", "models/lm_lstm"], []),
    "models/sa_lstm": (["paper/dbpedia", "models/sa_lstm"], []),
    "models/transformer": (["paper/mnist", "models/transformer"], ["Transformer.model_size = 8"]),
    "cores/gru": (["paper/mnist", "models/r_lstm", "cores/gru"], []),
    "cores/mingru": (["paper/mnist", "models/r_lstm", "cores/mingru"], []),
    "cores/lstm_plain": (["paper/mnist", "models/r_lstm", "cores/lstm_plain"], []),
    "cores/lstm_chrono": (["paper/mnist", "models/p_lstm", "cores/lstm_chrono"], []),
    "budgets/smoke": (["paper/mnist", "models/r_lstm", "budgets/smoke"], []),
    "budgets/short": (["paper/mnist", "models/r_lstm", "budgets/short"], []),
    "budgets/medium": (["paper/mnist", "models/r_lstm", "budgets/medium"], []),
    "budgets/paper": (["paper/dbpedia", "models/r_lstm", "budgets/paper"], []),
    "training/full": (["quickstart", "training/full"], []),
    "training/truncated": (["quickstart", "training/truncated"], []),
    "training/bfloat16": (["quickstart", "training/bfloat16"], []),
    "training/mirrored": (["quickstart", "training/mirrored"], []),
    "training/multi_worker": (["quickstart", "training/multi_worker"], []),
    "training/validation": (
        ["quickstart", "training/validation"],
        ["dataset.max_examples = 20", "BATCH_SIZE = 18"],
    ),
}
DATASETS = {
    "digits": ((64, 1), 10),
    "mnist": ((784, 1), 10),
    "pmnist": ((784, 1), 10),
    "cifar10": ((1024, 3), 10),
    "stanford_dogs": ((1600, 3), 120),
    "dbpedia": ((None,), 2),
    "csv": ((None,), 2),
    "image_folder": ((36, 3), 2),
    "npz": ((5, 2), 2),
    "series": ((5, 2), 2),
    "ts": ((5, 2), 2),
    "idx": ((16, 1), 10),
    "shards": ((16, 1), 10),
}


def write_stand_ins(folder):
    """A folder that every source of a user's own files can read."""
    from PIL import Image

    rng = np.random.default_rng(0)
    text = "words of a document about nothing in particular, " * 8
    for split, prefix in (("train", "train"), ("test", "t10k")):
        rows = [f'"{n % 2 + 1}","title {n}","{text}"\n' for n in range(4)]
        (folder / f"{split}.csv").write_text("".join(rows))
        inputs = rng.random((4, 5, 2)).astype(np.float32)
        np.savez(folder / f"{split}.npz", inputs=inputs, labels=np.array([0, 1, 0, 1]))
        rows = [",".join(map(str, range(5)))] * 2
        (folder / "ts").mkdir(exist_ok=True)
        (folder / "ts" / f"{split}.ts").write_text(
            "@classLabel true a b\n@data\n" + "".join(":".join([*rows, c]) + "\n" for c in "ab")
        )
        for label in ("cat", "dog"):
            place = folder / split / label
            place.mkdir(parents=True)
            pixels = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
            for number in range(2):
                Image.fromarray(pixels).save(place / f"{number}.png")
        images = rng.integers(0, 256, (20, 4, 4), dtype=np.uint8)
        header = np.array([0x803, *images.shape], ">u4").tobytes()
        (folder / f"{prefix}-images-idx3-ubyte").write_bytes(header + images.tobytes())
        labels = np.arange(20, dtype=np.uint8) % 10
        header = np.array([0x801, len(labels)], ">u4").tobytes()
        (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(header + labels.tobytes())
    info, train = sources.read("train", name="idx", data_dir=str(folder))
    _, test = sources.read("test", name="idx", data_dir=str(folder))
    convert.convert(info, {"train": train, "test": test}, folder / "shards")
    for path in (folder / "shards").iterdir():
        path.rename(folder / path.name)


@pytest.fixture(scope="module")
def stand_ins(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stand_ins")
    write_stand_ins(folder)
    with tfds.testing.mock_data(num_examples=4):
        yield folder


def test_every_file_is_covered():
    datasets = {f"datasets/{name}" for name in DATASETS}
    assert set(config.list_bundled()) == {*WHOLE, *datasets}


# They differ from another file in their data alone, which the test of data sets has, too, or in a
# value that tests of the training loop have.
ALIKE = {"paper/images", "paper/pmnist", "paper/stanford_dogs"}
ALIKE |= {"cores/lstm_chrono", "cores/lstm_plain", "training/truncated", "training/full"}
ALIKE |= {"base", "models/r_lstm", "budgets/short", "budgets/medium", "budgets/paper"}
# The demo, the examples and tests of the trainer and of strategies run what these set.
ALIKE |= {"quickstart", "images", "paper/cifar10", "models/lstm", "models/p_lstm", "cores/gru"}
ALIKE |= {"budgets/smoke", "training/bfloat16", "training/mirrored", "training/validation"}
ALIKE |= {"models/transformer", "cores/mingru"}
# test_divided_data trains texts, test_next_steps sequences, test_accidents quickstart_lstm, and
# test_method models/rp_lstm and SA-LSTM's file, which, as LM-LSTM's, is for paper/dbpedia.
ALIKE |= {"texts", "sequences", "quickstart_lstm", "models/rp_lstm", "models/sa_lstm"}
ALIKE |= {"paper/dbpedia"}
# The README's commands train with these.
ALIKE |= {"paper/mnist", "training/multi_worker"}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.long] if name in ALIKE else []) for name in WHOLE],
)
def test_it_is_built_and_run_for_a_batch(name, stand_ins, tmp_path):
    files, settings = WHOLE[name]
    if name in ("texts", "images"):
        settings = ["joint/Phase.min_updates = 0", *settings]
    settings = [*SMALL, *EPOCHS, f"dataset.data_dir = {str(stand_ins)!r}", *settings]
    text = config.parse(files, settings)
    assert train_module.train(str(tmp_path / "run"), text)
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    plain = name in ("models/lstm", "models/transformer", "quickstart_lstm", "texts", "images")
    phases = ["joint"] if plain or name == "sequences" else ["pretrain", "joint"]
    assert [line["phase"] for line in lines if line["split"] == "train"] == phases
    assert np.isfinite([line["loss"] for line in lines]).all()
    # LM-LSTM and SA-LSTM are fine-tuned; the others' joint phase has their losses, too.
    auxiliary = {key for line in lines for key in line if key.endswith("_loss")} - {
        "supervised_loss"
    }
    fine_tuned = name in ("models/lm_lstm", "models/sa_lstm")
    for line in lines:
        if line["split"] == "train" and line["phase"] == "joint":
            assert not auxiliary & line.keys() if fine_tuned else auxiliary <= line.keys()
    assert bool(auxiliary) != plain
    # What was written is a configuration that means the same.
    assert config.parse([str(tmp_path / "run/config.gin")], []) == text


@pytest.mark.parametrize(
    ("core", "kind"),
    [("gru", GRU), ("mingru", MinGRU), ("lstm_plain", LSTM), ("lstm_chrono", LSTM)],
)
def test_a_core_is_the_main_networks_alone(core, kind):
    def make(*files):
        config.parse(["quickstart", *files], ["Reconstruction.layers = 1"])
        info = networks.vectors_info(length=64)
        classifier = make_classifier(info, seed=0)
        loss = Reconstruction()
        loss.build(classifier.network)
        return classifier, loss

    standard, standard_loss = make()
    classifier, loss = make(f"cores/{core}")
    assert isinstance(classifier.core, kind)
    (own,), (theirs,) = loss.layers, standard_loss.layers
    for a, b in zip(own.variables, theirs.variables, strict=True):
        np.testing.assert_array_equal(a, b)
    if kind is not LSTM:
        return
    put_in, forget, others = np.split(classifier.core.bias, [128, 256])
    assert not np.any(others)
    np.testing.assert_array_equal(classifier.core.kernel, standard.core.kernel)
    same = np.array_equal(classifier.core.recurrent_kernel, standard.core.recurrent_kernel)
    if core == "lstm_plain":
        assert not same
        assert not np.any(put_in)
        assert not np.any(forget)
    else:
        assert same
        np.testing.assert_array_equal(put_in, -forget)
        assert 0 <= forget.min() < forget.max() <= np.log(783)


@pytest.mark.parametrize("name", DATASETS)
def test_a_data_set_has_its_shape(name, stand_ins):
    (shape, classes) = DATASETS[name]
    folder = stand_ins / "ts" if name == "ts" else stand_ins
    settings = [*SMALL, *EPOCHS, f"dataset.data_dir = {str(folder)!r}"]
    if name == "stanford_dogs":
        settings.append("SIDE = 40")
    config.parse(["base", f"datasets/{name}", "models/lstm"], settings)
    split = sources.configured("train")
    assert split.info.num_classes == classes
    batch = next(iter(split.batches(2)))
    if shape == (None,):
        assert batch.inputs.dtype == tf.int32
        assert batch.inputs.shape.rank == 2
    else:
        assert tuple(batch.inputs.shape[1:]) == shape


@pytest.mark.parametrize("name", ["csv", "npz", "idx", "shards"])
def test_a_data_set_of_ones_own_after_the_quickstart(name, stand_ins):
    settings = [*SMALL, f"dataset.data_dir = {str(stand_ins)!r}"]
    config.parse(["quickstart", f"datasets/{name}"], settings)
    info = sources.configured("train").info
    # Not the quickstart's size and border.
    assert (info.side, info.border) == ((4, 0) if name in ("idx", "shards") else (None, 0))


def test_the_eight_lengths_of_stanford_dogs(stand_ins):
    for side in (40, 48, 56, 72, 80, 96, 112, 128):
        settings = [*SMALL, f"SIDE = {side}", f"dataset.data_dir = {str(stand_ins)!r}"]
        config.parse(["paper/stanford_dogs", "models/lstm"], settings)
        assert sources.configured("train").info.length == side * side
