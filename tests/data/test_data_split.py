import gc
import weakref

import numpy as np
import psutil
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

# tf.config has no public way back from enable_op_determinism.
from tensorflow.python.framework import config

from t2aux.data import Batch, Split, Table
from t2aux.errors import DataError, SettingError
from t2aux_ondevice.preprocessing import DatasetInfo

TEXT = DatasetInfo("text", "text", ("a", "b", "c"), tokens="bytes")


def text_split(lengths, bucket_batches=16, seed=0):
    """Each sequence is random; its label and number are recoverable from `labels`."""
    lengths = np.asarray(lengths)
    values = np.random.default_rng(seed).integers(1, 256, lengths.sum()).astype(np.uint8)
    labels = np.arange(len(lengths))
    return Split(TEXT, Table.of_lengths(values, lengths, labels), bucket_batches)


def image_split(count=10, side=3, channels=3):
    info = DatasetInfo(
        "image", "image", ("a", "b"), channels=channels, length=side * side, side=side
    )
    shape = (count, side * side, channels)
    rows = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    return Split(info, Table.of_rows(rows, np.arange(count) % 2)), rows


def vector_split(lengths):
    info = DatasetInfo("v", "vectors", ("a",), channels=2)
    values = np.random.default_rng(0).normal(size=(sum(lengths), 2)).astype(np.float32)
    return Split(info, Table.of_lengths(values, np.array(lengths), np.zeros(len(lengths))))


def as_lists(dataset):
    return [tuple(part.tolist() for part in batch) for batch in dataset.as_numpy_iterator()]


def first_batch(split, batch_size):
    return next(split.batches(batch_size).as_numpy_iterator())


def test_images_are_scaled_and_need_no_padding():
    split, rows = image_split()
    np.testing.assert_array_equal(split.lengths, 9)
    batch = first_batch(split, 4)
    np.testing.assert_array_equal(batch.inputs, rows[:4].astype(np.float32) / np.float32(255))
    np.testing.assert_array_equal(split.example(3), batch.inputs[3])
    np.testing.assert_array_equal(split.example(-1), split.example(9))
    np.testing.assert_array_equal(batch.labels, [0, 1, 0, 1])
    assert batch.inputs.dtype == np.float32
    assert (batch.lengths.dtype, batch.labels.dtype) == (np.int32, np.int32)


def test_vectors_are_padded_with_zeros():
    split = vector_split([2, 4])
    batch = first_batch(split, 2)
    assert batch.inputs.shape == (2, 4, 2)
    np.testing.assert_array_equal(batch.inputs[0, :2], split.example(0))
    np.testing.assert_array_equal(batch.inputs[0, 2:], 0)
    np.testing.assert_array_equal(batch.inputs[1], split.example(1))
    np.testing.assert_array_equal(batch.lengths, [2, 4])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32])
def test_ids_of_any_width_become_int32(dtype):
    values = np.array([1, 2, np.iinfo(dtype).max], dtype)
    for lengths in ([1, 2], [1, 1, 1]):
        split = Split(TEXT, Table.of_lengths(values, np.array(lengths), np.zeros(len(lengths))))
        assert split.example(len(lengths) - 1)[-1] == np.iinfo(dtype).max
        assert first_batch(split, 3).inputs[-1, -1] == np.iinfo(dtype).max


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=40), st.integers(1, 9), st.integers(0, 9))
def test_ragged_batches_equal_padding_by_hand(lengths, batch_size, seed):
    split = text_split(lengths)
    seen = []
    for batch in split.batches(batch_size, seed=seed).as_numpy_iterator():
        assert batch.inputs.shape == (len(batch.labels), batch.lengths.max())
        for row, length, label in zip(*batch, strict=True):
            assert length == lengths[label]
            np.testing.assert_array_equal(row[:length], text_split(lengths).example(label))
            np.testing.assert_array_equal(row[:length], split.example(label))
            assert (row[length:] == 0).all()
        seen += batch.labels.tolist()
    assert sorted(seen) == list(range(len(lengths)))


@pytest.mark.parametrize(
    ("split", "shape", "dtype"),
    [
        (image_split()[0], [None, 9, 3], tf.float32),
        (text_split([1, 2]), [None, None], tf.int32),
        (text_split([2, 2]), [None, 2], tf.int32),
        (vector_split([1, 2]), [None, None, 2], tf.float32),
    ],
)
def test_element_spec_is_static(split, shape, dtype):
    spec = split.batches(2).element_spec
    assert isinstance(spec, Batch)
    assert spec.inputs == tf.TensorSpec(shape, dtype)
    assert spec.lengths == tf.TensorSpec([None], tf.int32)
    assert spec.labels == tf.TensorSpec([None], tf.int32)
    batch = next(iter(split.batches(2)))
    assert batch.inputs.dtype == dtype


def test_without_seed_the_order_is_that_of_the_files():
    split = text_split([3, 1, 2, 5, 4])
    labels = [batch[2] for batch in as_lists(split.batches(2))]
    assert labels == [[0, 1], [2, 3], [4]]
    labels = [batch[2] for batch in as_lists(split.batches(2, drop_remainder=True))]
    assert labels == [[0, 1], [2, 3]]


@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=50),
    st.integers(1, 8),
    st.integers(0, 2**32),
    st.integers(0, 1000),
    st.integers(1, 5),
)
def test_every_order_holds_every_example_once(lengths, batch_size, seed, epoch, bucket_batches):
    split = text_split(lengths, bucket_batches)
    order = split.order(batch_size, seed=seed, epoch=epoch)
    np.testing.assert_array_equal(np.sort(order), np.arange(len(lengths)))
    again = text_split(lengths, bucket_batches).order(batch_size, seed=seed, epoch=epoch)
    np.testing.assert_array_equal(order, again)


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=40),
    st.integers(1, 8),
    st.sampled_from([None, 0, 3]),
    st.integers(0, 5),
    st.booleans(),
    st.data(),
)
def test_resumed_batches_are_the_tail(lengths, batch_size, seed, epoch, drop_remainder, data):
    split = text_split(lengths, bucket_batches=2)
    arguments = {"seed": seed, "epoch": epoch, "drop_remainder": drop_remainder}
    count = split.num_batches(batch_size, drop_remainder)
    if not count:
        with pytest.raises(SettingError, match=f"batch size .*{batch_size} .* {len(lengths)} "):
            split.batches(batch_size, **arguments)
        return
    whole = as_lists(split.batches(batch_size, **arguments))
    assert len(whole) == count
    first = data.draw(st.integers(0, count))
    assert as_lists(split.batches(batch_size, first_batch=first, **arguments)) == whole[first:]


def test_orders_differ_between_seeds_and_epochs():
    split = text_split(np.full(100, 3))
    orders = {
        tuple(split.order(10, seed=seed, epoch=epoch)) for seed in range(3) for epoch in range(3)
    }
    assert len(orders) == 9


def test_buckets_save_padding_and_shuffle_the_batches():
    lengths = np.random.default_rng(1).integers(1, 100, 640)

    def padding(split):
        order = split.order(8, seed=1).reshape(-1, 8)
        return (lengths[order].max(1, keepdims=True) - lengths[order]).mean()

    assert padding(text_split(lengths)) < 0.2 * padding(text_split(lengths, bucket_batches=1))
    longest = lengths[text_split(lengths).order(8, seed=1).reshape(-1, 8)].max(1)
    assert (np.diff(longest) < 0).mean() > 0.3


def test_the_remainder_stays_at_the_end():
    split = text_split(np.arange(1, 24))
    whole = split.order(4, seed=2)
    assert len(as_lists(split.batches(4, seed=2))[-1][1]) == 3
    dropped = {tuple(split.order(4, seed=2, epoch=epoch)[20:]) for epoch in range(5)}
    assert len(whole) == 23
    assert len(dropped) == 5


def test_deterministic_ops_do_not_hinder():
    split = text_split(np.arange(1, 30))
    expected = as_lists(split.batches(4, seed=1))
    config.enable_op_determinism()
    try:
        assert as_lists(split.batches(4, seed=1)) == expected
    finally:
        config.disable_op_determinism()


def test_batches_can_be_iterated_inside_a_function():
    split, rows = image_split()
    dataset = split.batches(4)

    @tf.function
    def total(dataset):
        result = 0.0
        for batch in dataset:
            result += tf.reduce_sum(batch.inputs)
        return result

    np.testing.assert_allclose(total(dataset), (rows / 255).sum(), rtol=1e-5)


def test_iterators_have_no_tuner_that_holds_them_up():
    split = text_split([3, 4, 5])
    for dataset in (split.batches(2, seed=0), split.shares(2, [(0, 2), (1, 2)], seed=0)):
        assert dataset.options().autotune.enabled is False
        assert dataset.map(lambda *batch: batch).options().autotune.enabled is False


def test_epochs_do_not_leak():
    # Each epoch's order takes 8 MB: were they kept, 15 would take 120 MB.
    split = text_split(np.full(1_000_000, 2))

    def run(epochs):
        for epoch in range(epochs):
            next(iter(split.batches(1000, seed=0, epoch=epoch)))
            gc.collect()
        return psutil.Process().memory_info().rss

    before = run(5)
    assert run(15) - before < 60e6


def test_the_table_is_held_once():
    split, rows = image_split()
    expected = [split.example(i) for i in range(10)]
    original = weakref.ref(rows)
    del rows
    batch = first_batch(split, 10)
    gc.collect()
    # TensorFlow has its own copy, and numpy looks into that.
    assert original() is None
    np.testing.assert_array_equal(batch.inputs, expected)
    np.testing.assert_array_equal([split.example(i) for i in range(10)], expected)
    assert split.nbytes == 10 * (27 + 8 + 4 + 4) + 8


@pytest.mark.parametrize("arguments", [{"batch_size": 0}, {"batch_size": 2, "seed": -1}])
def test_arguments_out_of_range_are_user_errors(arguments):
    name = "seed .*-1" if "seed" in arguments else "batch size .*0"
    with pytest.raises(SettingError, match=name):
        text_split([1, 2]).batches(**arguments)


def test_a_start_out_of_range_is_an_error():
    with pytest.raises(ValueError, match="first_batch"):
        text_split([1, 2]).batches(1, first_batch=3)


def test_no_examples_are_a_user_error():
    with pytest.raises(DataError, match=r"text .*examples"):
        text_split(np.zeros(0, np.int64))
