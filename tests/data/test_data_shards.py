"""Shards: the same batches as from memory, bit for bit, and damage that is found and named."""

import gc
import json
import os
import pathlib
import re
import shutil
import tempfile

import numpy as np
import psutil
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

# tf.config has no public way back from enable_op_determinism.
from tensorflow.python.framework import config

from t2aux import data
from t2aux.config import parse
from t2aux.data import Split, Table, convert, manifest, records
from t2aux.data.shards import Shards, ShardSplit
from t2aux.data.summary import summarise
from t2aux.errors import DataError, FileError, SettingError
from t2aux.evaluation.decoding import statistics
from t2aux_ondevice.preprocessing import DatasetInfo
from tests.sources import load, read

BYTES = DatasetInfo("text", "text", ("a", "b", "c"), tokens="bytes")
WIDE = "\ufffd" + "".join(map(chr, range(0x4E00, 0x4E00 + 300)))
INFOS = {
    "bytes": BYTES,
    "characters": DatasetInfo(
        "text", "text", ("a", "b", "c"), tokens="characters", vocabulary=tuple(WIDE)
    ),
    "vectors": DatasetInfo("v", "vectors", ("a", "b", "c"), channels=2),
    "grey": DatasetInfo("g", "image", ("a", "b", "c"), channels=1, length=9, side=3),
    "colour": DatasetInfo("c", "image", ("a", "b", "c"), channels=3, length=4, side=2),
}
DTYPES = {"bytes": np.uint8, "characters": np.uint16, "vectors": np.float32}


def make_table(kind, lengths, seed=0):
    info = INFOS[kind]
    random = np.random.default_rng(seed)
    lengths = np.array(lengths if info.length is None else [info.length] * len(lengths))
    shape = (lengths.sum(), info.channels) if info.channels else (lengths.sum(),)
    values = random.integers(0, 250, shape)
    if kind == "vectors":
        values = random.normal(size=shape)
    values = values.astype(DTYPES.get(kind, np.uint8))
    return Table.of_lengths(values, lengths, random.integers(0, 3, len(lengths)))


def write(folder, kind="bytes", lengths=range(1, 24), **arguments):
    """Writes shards of random data; returns the training table."""
    table = make_table(kind, lengths)
    test = make_table(kind, [2, 2, 2], seed=1)
    convert.convert(INFOS[kind], {"train": table, "test": test}, folder, **arguments)
    return table


def open_shards(folder, split="train", **arguments):
    arguments = {"allow": "one_class", **arguments}
    return load(split, name="shards", data_dir=str(folder), **arguments)


def assert_same_batches(ours, theirs):
    count = 0
    for one, other in zip(ours, theirs, strict=True):
        for a, b in zip(one, other, strict=True):
            assert (a.dtype, a.shape) == (b.dtype, b.shape)
            assert a.numpy().tobytes() == b.numpy().tobytes()
        count += 1
    return count


LENGTHS = st.one_of(
    st.lists(st.integers(1, 12), min_size=1, max_size=25),
    st.integers(1, 25).map(lambda count: [4] * count),
)


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(sorted(INFOS)), LENGTHS, st.integers(1, 9), st.booleans(), st.data())
def test_any_table_and_any_number_of_shards(kind, lengths, shards, packed, draw):
    """Round trip, order, and going on at any batch, against the same table in memory."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "shards"
        compression = "zlib" if packed else "none"
        table = write(path, kind, lengths, shards=shards, compression=compression)
        ours, theirs = open_shards(path), Split(INFOS[kind], table)
        assert ours.info == theirs.info
        np.testing.assert_array_equal(ours.labels, theirs.labels)
        np.testing.assert_array_equal(ours.lengths, theirs.lengths)
        assert (ours.labels.dtype, ours.lengths.dtype) == (np.int32, np.int32)
        assert ours.values.dtype == table.values.dtype
        assert ours.values.tobytes() == table.values.tobytes()
        index = draw.draw(st.integers(-len(lengths), len(lengths) - 1))
        assert ours.example(index).dtype == theirs.example(index).dtype
        np.testing.assert_array_equal(ours.example(index), theirs.example(index))
        batch_size = draw.draw(st.integers(1, 8))
        arguments = {
            "seed": draw.draw(st.sampled_from([None, 0, 7])),
            "epoch": draw.draw(st.integers(0, 3)),
            "first_batch": draw.draw(st.integers(0, theirs.num_batches(batch_size))),
        }
        batches = ours.batches(batch_size, **arguments), theirs.batches(batch_size, **arguments)
        assert batches[0].element_spec == batches[1].element_spec
        done = assert_same_batches(*batches)
        assert done == theirs.num_batches(batch_size) - arguments["first_batch"]


def test_chosen_examples_are_read_in_any_order_and_in_a_graph(tmp_path):
    table = write(tmp_path / "shards", "characters", shards=4)
    read = tf.function(open_shards(tmp_path / "shards").reader())
    theirs = Split(INFOS["characters"], table).reader()
    for chosen in ([5], [22, 0, 7, 7], list(range(23))):
        chosen = tf.constant(chosen, tf.int64)
        assert_same_batches([read(chosen)], [theirs(chosen)])


def test_a_pipeline_outlives_its_split(tmp_path):
    table = write(tmp_path / "shards", "colour")
    batches = iter(open_shards(tmp_path / "shards").batches(4, seed=1))
    gc.collect()
    assert_same_batches(batches, Split(INFOS["colour"], table).batches(4, seed=1))


def test_deterministic_ops_do_not_hinder(tmp_path):
    table = write(tmp_path / "shards")
    config.enable_op_determinism()
    try:
        ours = open_shards(tmp_path / "shards").batches(4, seed=1)
        assert_same_batches(ours, Split(BYTES, table).batches(4, seed=1))
    finally:
        config.disable_op_determinism()


def test_so_many_examples_are_those_of_the_source(tmp_path):
    folder = tmp_path / "shards"
    info, train = read("train", side=4)
    _, test = read("test", side=4, info=info)
    convert.convert(info, {"train": train, "test": test}, folder, shards=3)
    ours, theirs = open_shards(folder, max_examples=50), load("train", side=4, max_examples=50)
    assert_same_batches(ours.batches(20, seed=2), theirs.batches(20, seed=2))
    # Evaluation, with what a classifier was trained on.
    ours, theirs = open_shards(folder, "test", info=info), load("test", info=info)
    assert_same_batches(ours.batches(100), theirs.batches(100))
    with pytest.raises(DataError, match=r"digits .*length .* 16 .* 25;"):
        open_shards(folder, "test", info=load("train", side=5).info)


def test_a_record_is_an_example_that_others_can_read(tmp_path):
    for compression in records.COMPRESSIONS:
        folder = tmp_path / compression
        table = write(folder, "vectors", shards=3, compression=compression)
        files = [str(folder / name) for name, _ in manifest.file_names("train", 3)]
        features = {
            "values": tf.io.FixedLenFeature([], tf.string),
            "length": tf.io.FixedLenFeature([], tf.int64),
            "label": tf.io.FixedLenFeature([], tf.int64),
        }
        # Their own checksums are read and compared here.
        found = [tf.io.parse_single_example(r, features) for r in tf.data.TFRecordDataset(files)]
        assert len(found) == 23
        for example, sequence, label in zip(found, table.sequences(), table.labels, strict=True):
            values = example["values"]
            if compression == "zlib":
                values = tf.io.decode_compressed(values, "ZLIB")
            values = tf.reshape(tf.io.decode_raw(values, tf.float32), [-1, 2])
            np.testing.assert_array_equal(values, sequence)
            assert (example["length"], example["label"]) == (len(sequence), label)


def test_summary_and_statistics_are_those_of_the_data_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("t2aux.data.shards._CHUNK_BYTES", 50)
    for kind in INFOS:
        table = write(tmp_path / kind, kind, shards=2)
        ours, theirs = open_shards(tmp_path / kind), Split(INFOS[kind], table)
        assert len(list(ours.chunks())) > 2
        summary, expected = (
            re.sub("memory.*", "", summarise({"train": split})) for split in (ours, theirs)
        )
        assert summary == expected
        found, known = (statistics(split, reverse=False) for split in (ours, theirs))
        for name in ("mean", "by_position", "unigram", "bigram"):
            if getattr(known, name) is not None:
                np.testing.assert_allclose(getattr(found, name), getattr(known, name), rtol=1e-6)


def test_memory_is_that_of_the_index(tmp_path):
    write(tmp_path / "shards", "colour", lengths=[1] * 100)
    split = open_shards(tmp_path / "shards")
    assert split.nbytes == 100 * 28
    next(iter(split.batches(5)))
    assert split.nbytes == 100 * 28


def test_epochs_do_not_leak(tmp_path):
    # Each epoch's order takes 8 MB: were they kept, 30 would take 240 MB.
    write(tmp_path / "shards", lengths=[2])
    one = open_shards(tmp_path / "shards")._shards
    places = np.repeat(one.places, 1_000_000)
    split = ShardSplit(BYTES, Shards(one._keys, places, one.dtype, None, "none"))

    def run(epochs):
        for epoch in range(epochs):
            next(iter(split.batches(1000, seed=0, epoch=epoch)))
            gc.collect()
        return psutil.Process().memory_info().rss

    before = run(5)
    assert run(30) - before < 120e6


def edit(path, change):
    described = json.loads(path.read_text())
    change(described)
    path.write_text(json.dumps(described))


def at_byte(path, position, mask=1):
    content = bytearray(path.read_bytes())
    content[position] ^= mask
    path.write_bytes(content)


TRAIN, INDEX = "train-00001-of-00003.tfrecord", "train-00001-of-00003.index.npy"


def another_conversion(folder, *names):
    """Puts files of other data of the same shapes in their place."""
    other = folder.parent / "other"
    tables = {split: make_table("colour", [4] * 23, seed=9) for split in ("train", "test")}
    convert.convert(INFOS["colour"], tables, other, shards=3)
    for name in names:
        shutil.copy(other / name, folder / name)


def forge(folder, name, value):
    """Changes an index, and what the manifest says of it."""
    index = np.load(folder / INDEX)
    index[name][2] = value
    np.save(folder / INDEX, index)
    sealed(folder)


def sealed(folder, **entries):
    """Writes an index' checksum into the manifest, and other entries beside it."""
    entries["index_sha256"] = manifest.sha256(folder / INDEX)
    edit(folder / "dataset.json", lambda d: d["splits"]["train"][1].update(entries))


def described(change):
    """Changes what the manifest says."""
    return lambda folder: edit(folder / "dataset.json", change)


def of_shard(**entries):
    """Changes what the manifest says of a shard."""
    return described(lambda d: d["splits"]["train"][1].update(entries))


def other_channels(found):
    found.update(dtype="float32")
    found["dataset"].update(kind="vectors", channels=2**62, length=None, side=None)


# What happens to the folder, of which kind the error is, and what its message must say.
DAMAGE = {
    "no description": (lambda f: (f / "dataset.json").unlink(), FileError, "dataset.json in "),
    "cut description": (lambda f: os.truncate(f / "dataset.json", 90), DataError, "json .*JSON"),
    "other json": (lambda f: (f / "dataset.json").write_text("[1]"), DataError, "--data_dir"),
    "version": (
        described(lambda d: d.update(version=2)),
        DataError,
        "json .*version 2 .* 1:",
    ),
    "no entry": (described(lambda d: d.pop("dtype")), DataError, "dataset.json .*'dtype'"),
    "dtype": (described(lambda d: d.update(dtype="float32")), DataError, "dataset.json .* dtype,"),
    "compression": (
        described(lambda d: d.update(compression="zlib")),
        FileError,
        "train-00000-of-00003.tfrecord .*byte [0-9]+: .*decompressing",
    ),
    "info": (
        described(lambda d: d["dataset"].update(channels=2)),
        DataError,
        "dataset.json .*side, border",
    ),
    "splits": (described(lambda d: d["splits"].pop("test")), DataError, "dataset.json .*splits"),
    "entries": (
        described(lambda d: d["splits"]["test"][0].pop("sha256")),
        DataError,
        "dataset.json .*'sha256'",
    ),
    "fewer files": (
        described(lambda d: d["splits"]["train"].pop()),
        FileError,
        "train-00000-of-00002.tfrecord .*No such file",
    ),
    "examples": (of_shard(examples=5), FileError, f"{INDEX} .* 5 entries"),
    "steps": (of_shard(steps=5), FileError, f"{INDEX} .* lengths"),
    "missing": (lambda f: (f / TRAIN).unlink(), FileError, f"{TRAIN} .*No such file"),
    "cut": (lambda f: os.truncate(f / TRAIN, 300), FileError, f"{TRAIN} .* 300 bytes"),
    "longer": (lambda f: os.truncate(f / TRAIN, 9000), FileError, f"{TRAIN} .* 9,000 bytes"),
    "another's shard": (lambda f: another_conversion(f, TRAIN), FileError, f"{TRAIN} .* byte "),
    "another's index": (lambda f: another_conversion(f, INDEX), FileError, f"{INDEX} .*SHA-256"),
    "no index": (lambda f: (f / INDEX).unlink(), FileError, f"{INDEX} .*No such file"),
    "index": (lambda f: at_byte(f / INDEX, 200), FileError, f"{INDEX} .*SHA-256"),
    "channels": (described(other_channels), DataError, "dataset.json .*channels, dtype"),
    "place": (lambda f: forge(f, "begin", 1 << 40), FileError, f"{INDEX} .* outside"),
    "last place": (lambda f: forge(f, "begin", 2**63 - 1), FileError, f"{INDEX} .* outside"),
    "same place": (lambda f: forge(f, "begin", 60), FileError, f"{INDEX} .* overlap"),
    "size": (lambda f: forge(f, "size", 11), FileError, f"{INDEX} .* sizes"),
    "steps of one": (lambda f: forge(f, "steps", 3), FileError, f"{INDEX} .* lengths"),
    "label": (lambda f: forge(f, "label", 3), FileError, f"{INDEX} .* labels"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_found_when_the_data_is_opened(tmp_path, name):
    damage, kind, message = DAMAGE[name]
    write(tmp_path / "shards", "colour", shards=3)
    open_shards(tmp_path / "shards")
    damage(tmp_path / "shards")
    with pytest.raises(kind, match=message) as error:
        open_shards(tmp_path / "shards")
    # gin adds where it was called, which the command line takes off again.
    assert "\n" not in str(error.value).split("\n  In call to configurable")[0]


@pytest.mark.parametrize("steps", [1100, 2**31 - 1])
def test_a_packed_sequence_of_another_length_is_damage(tmp_path, steps):
    folder = tmp_path / "shards"
    write(folder, lengths=[1] * 6, shards=3, compression="zlib")
    index = np.load(folder / INDEX)
    index["steps"][-1] = steps
    index["size"][-1] = min(index["size"][-1], steps // 1100)
    np.save(folder / INDEX, index)
    sealed(folder, steps=1 + steps)
    with pytest.raises(FileError, match=f"{TRAIN} .* byte 139 "):
        open_shards(folder)


def test_more_than_there_is_memory_for_is_one_sentence(tmp_path):
    write(tmp_path / "shards", lengths=[3])
    shards = open_shards(tmp_path / "shards")._shards
    places = np.repeat(shards.places, 1 << 17)
    places["steps"] = 2**31 - 1
    with pytest.raises(DataError, match=r" 281[\d,]+ bytes .*131,072 "):
        shards.read(places)


def test_an_index_whose_header_claims_much(tmp_path):
    folder = tmp_path / "shards"
    write(folder, "colour", shards=3)
    content = (folder / INDEX).read_bytes()
    short, long = b"(8,), }                 ", b"(9999999999999999,), }  "
    assert content.count(short) == 1
    (folder / INDEX).write_bytes(content.replace(short, long))
    sealed(folder)
    with pytest.raises(FileError, match=f"{INDEX} .*numpy array"):
        open_shards(folder)


def test_a_pickle_in_place_of_an_index_is_not_read(tmp_path):
    folder = tmp_path / "shards"
    write(folder, "colour", shards=3)
    trace = tmp_path / "trace"

    class Evil:
        def __reduce__(self):
            return (os.mkdir, (str(trace),))

    np.save(folder / INDEX, np.array([Evil()], object), allow_pickle=True)
    sealed(folder)
    with pytest.raises(FileError, match=f"{INDEX} .*numpy array"):
        open_shards(folder)
    assert not trace.exists()


@pytest.mark.parametrize("compression", records.COMPRESSIONS)
def test_a_changed_byte_is_found_when_it_is_read(tmp_path, compression):
    folder = tmp_path / "shards"
    write(folder, shards=3, compression=compression)
    index = np.load(folder / INDEX)
    at_byte(folder / TRAIN, index["begin"][3])
    split = open_shards(folder)
    step = tf.function(lambda iterator: next(iterator))

    def epoch():
        iterator = iter(split.batches(5, seed=0))
        with data.user_errors():
            for _ in range(5):
                step(iterator)

    for deterministic in (False, True):
        if deterministic:
            config.enable_op_determinism()
        try:
            with pytest.raises(FileError, match=f"{TRAIN} .* byte ") as error:
                epoch()
        finally:
            config.disable_op_determinism()
        assert "Traceback" not in str(error.value)
    with pytest.raises(FileError, match=f"{TRAIN} .* byte "):
        list(split.chunks())
    with pytest.raises(FileError, match=f"{TRAIN} .*SHA-256"):
        manifest.verify(folder, lambda name: None)


def test_what_no_sequence_covers_is_found_by_verify(tmp_path):
    folder = tmp_path / "shards"
    write(folder, shards=3)
    names = []
    assert manifest.verify(folder, names.append) == 6
    assert names[0] == "train-00000-of-00003.tfrecord"
    at_byte(folder / TRAIN, 3)  # A record's length, which we do not need.
    assert len(open_shards(folder).values)
    with pytest.raises(FileError, match=f"{TRAIN} .*SHA-256"):
        manifest.verify(folder, names.append)


def test_a_file_that_shrinks_while_it_is_open(tmp_path):
    folder = tmp_path / "shards"
    write(folder, shards=3)
    split = open_shards(folder)
    os.truncate(folder / TRAIN, 100)
    with pytest.raises(FileError, match=f"{TRAIN} .*ends .* byte 147"):
        list(split.chunks())


def test_other_errors_of_tensorflow_pass():
    with pytest.raises(tf.errors.UnknownError), data.user_errors():
        raise tf.errors.UnknownError(None, None, "something else")


def test_what_the_conversion_did_can_not_be_set(tmp_path):
    write(tmp_path / "shards", "colour")
    with pytest.raises(SettingError, match=r"dataset\.splits .*shards"):
        open_shards(tmp_path / "shards", splits=("a", "b"))
    for name in ("side", "border", "grey", "permutation_seed", "max_length", "tokens"):
        with pytest.raises(SettingError, match=rf"shards .*'{name}' .*shards\.{name} = 1"):
            parse([], [f"shards.{name} = 1"])
