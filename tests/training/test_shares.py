"""Shares of a batch: together they are the batch; and who the workers are."""

import itertools
import json

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import example, given, settings
from hypothesis import strategies as st

from t2aux import config
from t2aux.data import Batch, Split, Table
from t2aux.errors import SettingError
from t2aux.losses.prediction import Prediction
from t2aux.losses.reconstruction import Reconstruction
from t2aux.losses.whole_sequence import LanguageModel, SequenceAutoencoder
from t2aux.model.share import Share
from t2aux.model.transformer import Transformer
from t2aux.training import cluster, distribution, train
from t2aux.training.trainer import Trainer
from t2aux.training.transformer_trainer import TransformerTrainer
from t2aux_ondevice.preprocessing import DatasetInfo
from tests import networks

LENGTHS = [9, 4, 12, 7, 12, 3, 8]
KINDS = {
    "vectors": (networks.vectors_info(length=12), [12] * 7),
    "ragged": (networks.vectors_info(channels=2), LENGTHS),
    "text": (networks.text_info(), LENGTHS),
}
R, P = (Reconstruction, {"anchors": 2, "length": 4}), (Prediction, {"anchors": 2, "length": 5})
LOSSES = {
    "lstm": [],
    "r": [R],
    "p": [P],
    "r and p": [(Reconstruction, {"length": 4, "weight": 0.5}), P],
    "r close": [(Reconstruction, {"length": 4, "distant_past": False, "weight": 0.0}), P],
    "lm": [(LanguageModel, {})],
    "sa": [(SequenceAutoencoder, {})],
}
BPTT = {
    "full": {"supervised_bptt": "full", "auxiliary_bptt": "full"},
    "cut": {"supervised_bptt": 4, "auxiliary_bptt": 3},
}


def assert_shares_add_up(trainer, batch, replicas):
    """Not compiled: that takes long, and what runs on replicas is, in test_distribution."""
    arguments = {
        "seed": tf.constant([5, 7]),
        "progress": tf.constant(0.6),
        "supervised": True,
    }

    def step(batch, share=None):
        return trainer.step(batch, share=share, **arguments)

    whole = step(batch)
    gradients = [0.0] * len(whole.gradients)
    metrics = dict.fromkeys(whole.metrics, 0.0)
    for replica in range(replicas):
        rows = Batch(*(part[replica::replicas] for part in batch))
        part = step(rows, Share(replica, replicas, batch.lengths))
        gradients = [a + b for a, b in zip(gradients, part.gradients, strict=True)]
        metrics = {name: value + part.metrics[name] for name, value in metrics.items()}
    for name, value in whole.metrics.items():
        np.testing.assert_allclose(metrics[name], value, rtol=1e-5, err_msg=name)
    for got, want in zip(gradients, whole.gradients, strict=True):
        np.testing.assert_allclose(got, want, atol=1e-6)
    assert any(np.abs(want).max() > 1e-3 for want in whole.gradients)


# All of each in the default tier, and all together in the long one.
CHOSEN = {
    ("text", "r and p", "cut"),
    ("vectors", "r and p", "full"),
    ("ragged", "r close", "cut"),
    ("text", "lm", "full"),
    ("ragged", "sa", "cut"),
}


@pytest.mark.parametrize(
    ("kind", "losses", "bptt"),
    [
        pytest.param(*case, marks=[] if case in CHOSEN else pytest.mark.long)
        for case in itertools.product(KINDS, LOSSES, BPTT)
    ],
)
def test_the_shares_of_a_step_add_up_to_it(kind, losses, bptt):
    info, lengths = KINDS[kind]
    classifier = networks.classifier(info, dropconnect=0.5)
    made = [loss(head_size=6, **more) for loss, more in LOSSES[losses]]
    trainer = Trainer(classifier, made, **BPTT[bptt])
    assert_shares_add_up(trainer, networks.batch(info, lengths), 2 if bptt == "cut" else 3)


def test_the_shares_of_a_step_with_noise_add_up_to_it():
    info, lengths = KINDS["ragged"]
    classifier = networks.classifier(info, noise=0.5)
    assert_shares_add_up(classifier.trainer, networks.batch(info, lengths), 2)


@pytest.mark.parametrize("kind", ["text", pytest.param("vectors", marks=pytest.mark.long)])
def test_the_shares_of_a_transformers_step_add_up_to_it(kind):
    info, lengths = KINDS[kind]
    network = Transformer(info, model_size=8, heads=2, feed_forward_size=6, layers=1, dropout=0.3)
    assert_shares_add_up(TransformerTrainer(network), networks.batch(info, lengths), 2)


def numbered_split(lengths, bucket_batches):
    info = DatasetInfo("text", "text", ("a",), tokens="bytes")
    values = np.arange(1, 1 + sum(lengths)).astype(np.int32)
    table = Table.of_lengths(values, np.array(lengths), np.arange(len(lengths)))
    return Split(info, table, bucket_batches)


# One row for eight replicas, and rows that end within a worker.
@example([2], 1, 4, 2, 1, 0)
@example([3, 1, 2, 5, 4], 3, 2, 2, 2, 1)
@settings(max_examples=10, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 5), min_size=1, max_size=23),
    batch_size=st.integers(1, 9),
    workers=st.integers(1, 4),
    per_worker=st.integers(1, 2),
    bucket_batches=st.integers(1, 3),
    first_batch=st.integers(0, 22),
)
def test_no_example_is_seen_twice_and_none_is_lost(
    lengths, batch_size, workers, per_worker, bucket_batches, first_batch
):
    split = numbered_split(lengths, bucket_batches)
    replicas = workers * per_worker
    first_batch %= split.num_batches(batch_size)
    place = {"seed": 3, "epoch": 1, "first_batch": first_batch}
    whole = list(split.batches(batch_size, **place).as_numpy_iterator())
    for worker in range(workers):
        shares = [(worker * per_worker + i, replicas) for i in range(per_worker)]
        parts = list(split.shares(batch_size, shares, **place).as_numpy_iterator())
        assert len(parts) == len(whole)
        for batch, (own, all_lengths) in zip(whole, parts, strict=True):
            np.testing.assert_array_equal(all_lengths, batch.lengths)
            for (replica, _), rows in zip(shares, own, strict=True):
                share = Share(replica, replicas, tf.constant(all_lengths))
                # With no row of its own it has the first, and does not count.
                assert bool(share.has_rows) == (replica < len(batch.labels))
                start = replica if share.has_rows else 0
                for got, want in zip(rows, batch, strict=True):
                    np.testing.assert_array_equal(got, want[start::replicas])
    # So the rows that count are the batch: each is in one of the slices replica::replicas alone.


def set_tf_config(monkeypatch, value):
    monkeypatch.setenv("TF_CONFIG", value if isinstance(value, str) else json.dumps(value))


def of_workers(*addresses, kind="worker", index=0, **more):
    return {"cluster": {"worker": list(addresses), **more}, "task": {"type": kind, "index": index}}


def test_a_cluster_is_read(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    assert cluster.read() is None
    # As Vertex AI sets it where one machine trains.
    set_tf_config(monkeypatch, {"environment": "cloud", "task": {"type": "worker", "index": 0}})
    assert cluster.read() is None
    set_tf_config(monkeypatch, of_workers("a:1", "b:22", index=1))
    nodes = cluster.read()
    assert (nodes.workers, nodes.number) == (["a:1", "b:22"], 1)
    # And where several do.
    several = {**of_workers("a:1", "b:22", index="1", chief=["c:3"]), "environment": "cloud"}
    several["task"]["trial"] = "7"
    set_tf_config(monkeypatch, several)
    nodes = cluster.read()
    assert (nodes.workers, nodes.number) == (["c:3", "a:1", "b:22"], 2)
    assert nodes.describe("worker", 0) == "worker 1 (a:1)"
    assert nodes.describe("chief", 0) == "worker 0 (c:3)"
    set_tf_config(monkeypatch, of_workers("a:1", kind="chief", chief=["c:3"]))
    assert cluster.read().number == 0


@pytest.mark.parametrize(
    ("value", "part"),
    [
        ("{", "not JSON"),
        ("[]", "JSON object"),
        ({"cluster": ["a:1"]}, '"cluster" that'),
        ({"cluster": {"worker": ["a:1"]}}, 'no "task"'),
        ({"cluster": {"worker": "a:1"}, "task": {"type": "worker"}}, "no list"),
        (of_workers(), "no list"),
        (of_workers("a"), "'a' .*'worker'"),
        (of_workers("a:0"), "'a:0' .*'worker'"),
        (of_workers("a:1", "a:99999"), "'a:99999' .*'worker'"),
        (of_workers("a:1", 7), " 7 .*'worker'"),
        (of_workers("a:1", index=1), "worker 1, .* 1 "),
        (of_workers("a:1", index=-1), "worker -1, .* 1 "),
        (of_workers("a:1", index=None), "worker None, .* 1 "),
        (of_workers("a:1", index=True), "worker True, .* 1 "),
        (of_workers("a:1", kind="chief"), "chief 0, .* 0 "),
        (of_workers("a:1", chief=["c:1", "c:2"]), "2 chiefs"),
        (of_workers("a:1", "b:1", "a:1"), "twice"),
        (of_workers("a:1", kind="evaluator"), "type 'evaluator'"),
        (of_workers("a:1", ps=["b:1"]), "type 'ps'"),
    ],
)
def test_a_wrong_cluster_is_one_sentence(monkeypatch, value, part):
    set_tf_config(monkeypatch, value)
    with pytest.raises(SettingError, match=f"TF_CONFIG .*{part}") as error:
        distribution.multi_worker()
    assert "\n" not in str(error.value).split("\n  In call to")[0]


@pytest.mark.parametrize("strategy", [None, distribution.mirrored])
def test_workers_without_a_strategy_for_them_are_refused(monkeypatch, strategy):
    set_tf_config(monkeypatch, of_workers("a:1", "b:1"))
    with pytest.raises(SettingError, match=r"TF_CONFIG .* 2 .*training/multi_worker"):
        distribution.replicas_of(strategy)
    set_tf_config(monkeypatch, of_workers("a:1"))
    assert distribution.replicas_of(strategy).workers == 1


@pytest.mark.parametrize("value", ["@MirroredStrategy()", "@Classifier"])
def test_what_is_no_strategy_is_refused(tmp_path, value):
    text = config.parse(["quickstart_lstm"], [f"RunConfig.strategy = {value}"])
    with pytest.raises(SettingError, match=r"RunConfig\.strategy .*@MultiWorkerMirroredStrategy, "):
        train.train(str(tmp_path / "run"), text)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("make", "parameter"),
    [
        (lambda: distribution.mirrored(cpus=0), "MirroredStrategy.cpus"),
        (lambda: distribution.multi_worker(start_seconds=0), "start_seconds"),
        (lambda: distribution.multi_worker(check_seconds=-1), "check_seconds"),
        (lambda: distribution.multi_worker(communication="MPI"), "communication"),
    ],
)
def test_a_wrong_parameter_is_one_sentence(make, parameter):
    with pytest.raises(SettingError, match=parameter):
        make()


def test_fewer_rows_than_replicas_are_refused(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    replicas = distribution.multi_worker()
    replicas.count = 3
    with pytest.raises(SettingError, match=r"train\.batch_size .* 3 .* 2: "):
        replicas.batches(numbered_split([2] * 9, 1), 2, seed=0, epoch=0, first_batch=0)


def test_workers_that_were_started_differently_are_reported(monkeypatch):
    class Second(distribution.Replicas):
        """Worker 1; what the chief has is in `chief`."""

        workers, worker = 2, 1

        def __init__(self):
            self.chief = []

        def total(self, values):
            own = values[1]
            return np.array([self.chief.pop(0) if self.chief else own, own])

    split = numbered_split([2, 3], 1)
    text = "train.seed = 0\ndataset.data_dir = '/mnt/%s'\n"
    seen = []
    chief = Second()
    monkeypatch.setattr(
        chief, "total", lambda values: seen.append(values[1]) or np.full(2, values[1])
    )
    chief.check_same(text % "a", split)

    def second(configuration, split):
        worker = Second()
        worker.chief = list(seen)
        worker.check_same(configuration, split)

    second(text % "b", split)
    with pytest.raises(SettingError, match=r"Worker 1 .*configuration "):
        second(text.replace("0", "1") % "a", split)
    with pytest.raises(SettingError, match=r"Worker 1 .*training data "):
        second(text % "a", numbered_split([2, 4], 1))
