"""Products in bfloat16: in all passes of a training step, and in nothing else."""

import threading

import numpy as np
import pytest
import tensorflow as tf

import t2aux
from t2aux import config
from t2aux.errors import SettingError
from t2aux.kernels import ops
from t2aux.losses.prediction import Prediction
from t2aux.losses.reconstruction import Reconstruction
from t2aux.losses.whole_sequence import LanguageModel, SequenceAutoencoder
from t2aux.training import train
from t2aux.training.trainer import Trainer
from tests import networks

KINDS = {
    "pixels": (networks.vectors_info(channels=2, length=20), [20] * 4),
    "ragged": (networks.vectors_info(channels=1), [20, 13, 9, 17]),
    "text": (networks.text_info(), [20, 13, 9, 17]),
}
LOSSES = {
    "r and p": [(Reconstruction, {"length": 4}), (Prediction, {"length": 6, "anchors": 2})],
    "sa": [(SequenceAutoencoder, {})],
    "lm": [(LanguageModel, {})],
}
TRUNCATED = {"supervised_bptt": 6, "auxiliary_bptt": 5}


@pytest.fixture(autouse=True)
def _available(monkeypatch):
    monkeypatch.delenv("T2AUX_KERNEL", raising=False)
    assert ops.enabled()
    monkeypatch.setattr(ops, "_has_bfloat16", lambda mode: True)


def make(kind, losses, precision, **truncation):
    info, lengths = KINDS[kind]
    classifier = networks.classifier(info, hidden=20)
    made = [loss(head_size=6, **more) for loss, more in LOSSES[losses]]
    return Trainer(classifier, made, precision=precision, **truncation), networks.batch(
        info, lengths
    )


def traced(trainer, batch):
    """A compiled step."""

    @tf.function(autograph=False)
    def step(batch):
        return trainer.step(
            batch, seed=tf.constant([5, 11]), progress=tf.constant(0.5), supervised=True
        )

    return step.get_concrete_function(batch)


def precisions(function):
    """Those of all LSTM ops in a graph and the functions that it calls."""
    definition = function.graph.as_graph_def()
    nodes = [*definition.node, *(n for f in definition.library.function for n in f.node_def)]
    found = [n.attr["precision"].s.decode() for n in nodes if n.op.startswith("T2auxLstm")]
    assert found
    return set(found)


@pytest.mark.parametrize(
    ("kind", "losses", "bptt"),
    [
        ("text", "lm", "full"),
        pytest.param("ragged", "r and p", "cut", marks=pytest.mark.long),
        pytest.param("pixels", "r and p", "full", marks=pytest.mark.long),
        pytest.param("ragged", "sa", "cut", marks=pytest.mark.long),
        pytest.param("text", "r and p", "full", marks=pytest.mark.long),
    ],
)
def test_all_passes_of_a_step_have_it_and_no_other(kind, losses, bptt):
    truncation = dict.fromkeys(TRUNCATED, "full") if bptt == "full" else TRUNCATED
    trainer, batch = make(kind, losses, "bfloat16", **truncation)
    assert precisions(traced(trainer, batch)) == {"bfloat16"}
    evaluate = tf.function(trainer.classifier.logits_of, autograph=False)
    assert precisions(evaluate.get_concrete_function(batch.inputs, batch.lengths)) == {"float32"}


@pytest.mark.parametrize(
    "kind", ["ragged", *(pytest.param(kind, marks=pytest.mark.long) for kind in ("pixels", "text"))]
)
def test_a_step_is_near_that_in_float32(kind):
    results = {}
    for precision in ("float32", "bfloat16"):
        trainer, batch = make(kind, "r and p", precision, **TRUNCATED)
        seed, progress = tf.constant([5, 11]), tf.constant(0.5)
        results[precision] = trainer.step(batch, seed=seed, progress=progress, supervised=True)
    got, want = results["bfloat16"], results["float32"]
    for name, value in want.metrics.items():
        np.testing.assert_allclose(got.metrics[name], value, rtol=0.02, err_msg=name)
    a, b = (tf.concat([tf.reshape(g, [-1]) for g in r.gradients], 0) for r in (got, want))
    assert 0 < tf.norm(a - b) < 0.03 * tf.norm(b)


def test_threads_that_make_their_graphs_at_once_may_differ():
    # As replicas are traced, each in a thread of its own.
    found, together = {}, threading.Barrier(2)

    def trace(precision):
        trainer, batch = make("pixels", "r and p", precision, **TRUNCATED)
        together.wait()
        found[precision] = precisions(traced(trainer, batch))

    threads = [threading.Thread(target=trace, args=[p]) for p in ("float32", "bfloat16")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {p: {p} for p in ("float32", "bfloat16")}


@pytest.mark.parametrize(
    ("core", "own", "want"),
    [
        ("float32", None, "float32"),
        ("bfloat16", None, "bfloat16"),
        ("bfloat16", "float32", "float32"),
    ],
)
def test_a_keras_model_takes_its_own_or_its_cores(core, own, want):
    model = t2aux.SequenceClassifier(
        classes=3,
        core=t2aux.layers.LSTM(8, precision=core),
        auxiliary=[Reconstruction(length=4, head_size=5)],
        precision=own,
        **TRUNCATED,
    )
    # Made again, with what its configuration has of it.
    model = t2aux.SequenceClassifier.from_config(model.get_config())
    model.build((None, 20, 2))
    batch = networks.batch(KINDS["pixels"][0], [20] * 4)
    assert precisions(traced(model.trainer, batch)) == {want}
    call = tf.function(lambda x, training: model(x, training=training), autograph=False)
    for training, precision in ((True, want), (False, "float32")):
        function = call.get_concrete_function(batch.inputs, training)
        assert precisions(function) == {precision}


def test_another_precision_is_an_error(tmp_path):
    with pytest.raises(SettingError, match=r"precision .*'float32' .*'bfloat16', .*'float16'\."):
        t2aux.SequenceClassifier(classes=2, precision="float16")
    with pytest.raises(SettingError, match=r"train\.precision .*'float32' .*'bfloat16', .*'half'"):
        config.parse(["quickstart_lstm"], ["train.precision = 'half'"])
    with pytest.raises(SettingError, match=r"train\.precision .*'float32' .*'bfloat16', .*'half'"):
        train.train(str(tmp_path / "run"), precision="half")
    assert not (tmp_path / "run").exists()


def test_a_transformer_has_none(tmp_path):
    text = config.parse(["quickstart", "models/transformer", "training/bfloat16"], [])
    with pytest.raises(SettingError, match=r"train\.precision = 'bfloat16' .*Transformer"):
        train.train(str(tmp_path / "run"), text)
    assert not (tmp_path / "run").exists()
