"""The parts of the method, turned on and off, through the real `train`."""

import functools
import itertools
import json
import shutil

import numpy as np
import pytest
import tensorflow as tf

from t2aux import config, data
from t2aux.errors import SettingError
from t2aux.model.weights import tree
from t2aux.reproduce import documents
from t2aux.run import load_run
from t2aux.training import train as train_module
from t2aux.training.trainer import Trainer
from tests.training.test_trainer import SEED, make, step

SMALL = [
    "dataset.max_examples = 80",
    "Classifier.hidden_size = 8",
    "Classifier.projection_size = 4",
    "Classifier.head_size = 8",
    "BATCH_SIZE = 16",
    "PRETRAIN_EPOCHS = 1",
    "JOINT_EPOCHS = 2",
    "RunConfig.log_every = 1",
    "train.evaluate_every = 1",
]


def train(model_dir, files, *settings):
    text = config.parse(["quickstart", *files], [*SMALL, *settings])
    assert train_module.train(str(model_dir), text)
    return [json.loads(line) for line in (model_dir / "metrics.jsonl").read_text().splitlines()]


def _is_variable(x):
    return isinstance(x, tf.Variable)


def weights(model_dir):
    """The classifier's and the auxiliary networks' weights by name."""
    run = load_run(model_dir, auxiliary=True)
    found = {}
    for module in (run.classifier, *run.losses):
        places = tree(module)._flatten(predicate=_is_variable, with_path=True)
        found |= {"/".join(map(str, (module.name, *place))): v.numpy() for place, v in places}
    return found


JOINT = "train.phases = [@joint/Phase()]"
# So low that every gradient is clipped: the norm must be that of the plain LSTM's gradient.
CLIP = "train.clip_norm = 0.05"
MODES = {"windowed": [], "full": ["training/full"]}
# The others are in the long tier.
SHORT = [("Reconstruction", "windowed"), ("LanguageModel", "full")]


@pytest.fixture(scope="module")
def plain_runs(tmp_path_factory):
    runs = {}
    for mode, files in MODES.items():
        folder = tmp_path_factory.mktemp("plain") / mode
        runs[mode] = folder, train(folder, ["models/lstm", *files], CLIP)
    return runs


@pytest.mark.parametrize(
    ("loss", "mode"),
    [
        pytest.param(*case, marks=[] if case in SHORT else pytest.mark.long)
        for case in itertools.product(
            ("Reconstruction", "LanguageModel", "Prediction", "SequenceAutoencoder"), MODES
        )
    ],
)
def test_a_run_with_weight_zero_is_the_plain_lstms_bit_for_bit(plain_runs, tmp_path, mode, loss):
    plain_dir, plain_lines = plain_runs[mode]
    lines = train(
        tmp_path / "run",
        ["models/lstm", *MODES[mode]],
        f"train.auxiliary_losses = [@{loss}]",
        f"{loss}.weight = 0.0",
        CLIP,
    )
    want, got = weights(plain_dir), weights(tmp_path / "run")
    assert len(want) == 9
    assert want.keys() < got.keys()
    for name, value in want.items():
        np.testing.assert_array_equal(got[name], value, err_msg=name)
    assert len(lines) == len(plain_lines) == 12
    for line, plain in zip(lines, plain_lines, strict=True):
        for key in plain.keys() - {"steps_per_second"}:
            assert line[key] == plain[key], (key, line, plain)
        if line["split"] == "train":
            assert plain["gradient_norm"] > 0.05
            # Measured all the same.
            (name,) = {key for key in line if key.endswith("_loss")} - {"supervised_loss"}
            assert line[name] > 0


@pytest.mark.parametrize("mode", ["windowed", pytest.param("full", marks=pytest.mark.long)])
def test_weight_zero_measures_what_it_would_otherwise(mode):
    bptt = {"windowed": 99, "full": "full"}[mode]
    for losses in ("r many", "p many", "r and p"):
        trainer, batch = make("text", losses, supervised_bptt=bptt, auxiliary_bptt=bptt)
        want = step(trainer, batch).metrics
        for loss in trainer.losses:
            loss.weight = 0.0
        got = step(trainer, batch).metrics
        assert got.keys() == want.keys()
        for name in want.keys() - {"loss"}:
            np.testing.assert_allclose(got[name], want[name], rtol=1e-5, err_msg=name)
        assert got["loss"] == got["supervised_loss"]


# Figure 6: each part of the method turned off alone; "predict future" is off in r-LSTM itself.
PARTS = {
    "none": (["models/rp_lstm"], []),
    "joint training": (["models/rp_lstm"], ["joint/Phase.auxiliary = False"]),
    "scheduled sampling": (["models/rp_lstm"], ["Reconstruction.scheduled_sampling = False"]),
    "pretraining": (["models/rp_lstm"], [JOINT]),
    "predict future": (["models/r_lstm"], []),
    "distant past": (["models/rp_lstm"], ["Reconstruction.distant_past = False"]),
    "input projection": (["models/rp_lstm"], ["Classifier.projection_size = None"]),
    "reversed reconstruction": (["models/rp_lstm"], ["Reconstruction.reverse = False"]),
    "second auxiliary layer": (
        ["models/rp_lstm"],
        ["Reconstruction.layers = 1", "Prediction.layers = 1"],
    ),
}


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """Gives a part's run: its lines and final weights."""

    @functools.cache
    def run(part):
        files, settings = PARTS[part]
        folder = tmp_path_factory.mktemp("parts") / "run"
        # The quickstart leaves one part out.
        settings = ["Reconstruction.distant_past = True", *settings]
        return train(folder, files, *settings), weights(folder)

    return run


@pytest.mark.parametrize(
    "part",
    [
        pytest.param(part, marks=[] if part == "joint training" else pytest.mark.long)
        for part in PARTS
    ],
)
def test_each_part_of_figure_6_alone(parts, part):
    lines, final = parts(part)
    lines = [line for line in lines if line["split"] == "train"]
    assert np.isfinite([line["loss"] for line in lines]).all()
    pretraining = [] if part == "pretraining" else ["pretrain"] * 5
    assert [line["phase"] for line in lines] == [*pretraining, *["joint"] * 10]
    for line in lines:
        auxiliary = {k for k in line if k.endswith("_loss")} - {"supervised_loss"}
        wanted = {"reconstruction_loss", "prediction_loss"}
        if part == "predict future":
            wanted = {"reconstruction_loss"}
        elif part == "joint training" and line["phase"] == "joint":
            wanted = set()
        assert auxiliary == wanted
        assert ("supervised_loss" in line) == (line["phase"] == "joint")
    shapes = {name: value.shape for name, value in final.items()}
    assert any("input" in name for name in shapes) == (part != "input projection")
    second = {name.partition("/")[0] for name in shapes if "/layers/1/" in name}
    losses = {name.partition("/")[0] for name in shapes} - {"classifier"}
    assert second == (set() if part == "second auxiliary layer" else losses)


@pytest.mark.long
def test_turning_a_part_off_makes_a_difference(parts):
    """No setting is without effect; of joint training the next test says more."""
    _, whole = parts("none")
    for part in PARTS.keys() - {"none"}:
        _, final = parts(part)
        assert whole.keys() != final.keys() or any(
            whole[name].shape != final[name].shape or np.any(whole[name] != final[name])
            for name in whole
        ), part


def test_without_joint_training_the_auxiliary_networks_stay_as_pretrained(parts, tmp_path):
    _, final = parts("joint training")
    train(
        tmp_path / "run",
        ["models/rp_lstm"],
        "Reconstruction.distant_past = True",
        "JOINT_EPOCHS = 0",
    )
    pretrained = weights(tmp_path / "run")
    assert pretrained.keys() == final.keys()
    for name, value in pretrained.items():
        if not name.startswith("classifier/"):
            np.testing.assert_array_equal(final[name], value, err_msg=name)
        elif "lstm" in name or "head" in name:
            assert np.any(final[name] != value), name


def operations(trainer, batch, **settings):
    """How many operations of each type a step needs, those of its loops among them."""

    @tf.function(autograph=False)
    def run():
        return trainer.step(
            batch, seed=SEED, progress=tf.constant(0.5), supervised=True, **settings
        )

    concrete = run.get_concrete_function()
    graph_def = tf.compat.v1.graph_util.extract_sub_graph(
        concrete.graph.as_graph_def(), [t.op.name for t in concrete.outputs]
    )
    counts = {}
    for node in graph_def.node:
        counts[node.op] = counts.get(node.op, 0) + 1
    return counts


@pytest.mark.parametrize("bptt", [4, "full"])
def test_a_phase_without_auxiliary_losses_costs_what_the_plain_lstm_does(bptt):
    plain, batch = make("text", "lstm", supervised_bptt=bptt, auxiliary_bptt=bptt)
    whole, _ = make("text", "r and p", supervised_bptt=bptt, auxiliary_bptt=bptt)
    want, got = operations(plain, batch), operations(whole, batch, auxiliary=False)
    assert got == want
    assert sum(operations(whole, batch).values()) > sum(want.values())
    fine_tuned = Trainer.step(
        whole, batch, seed=SEED, progress=tf.constant(0.5), supervised=True, auxiliary=False
    )
    step_of_plain = Trainer.step(
        plain, batch, seed=SEED, progress=tf.constant(0.5), supervised=True
    )
    assert fine_tuned.metrics.keys() == step_of_plain.metrics.keys()
    variables = whole.trained_variables(auxiliary=False)
    assert [v.name for v in variables] == [v.name for v in plain.variables_in_order]
    for a, b in zip(fine_tuned.gradients, step_of_plain.gradients, strict=True):
        np.testing.assert_array_equal(a, b)


def test_pretraining_on_weights_of_zero_is_refused(tmp_path):
    with pytest.raises(SettingError, match=r" pretrain .* 0: .*train\.phases"):
        train(tmp_path / "run", ["models/r_lstm"], "Reconstruction.weight = 0.0")
    assert not (tmp_path / "run" / "checkpoints").exists()


FINE_TUNED = {"LanguageModel": "models/lm_lstm", "SequenceAutoencoder": "models/sa_lstm"}
EVERY_STEP = [
    "RunConfig.checkpoint_minutes = 0.0",
    "RunConfig.checkpoints_kept = 100",
    "RunConfig.steps_per_call = 1",
]


@pytest.fixture(scope="module")
def fine_tuned(tmp_path_factory):
    """Gives a run and its lines, for a loss that pretrains it."""

    @functools.cache
    def run(loss):
        folder = tmp_path_factory.mktemp("fine_tuned") / "run"
        return folder, train(folder, [FINE_TUNED[loss]], *EVERY_STEP)

    return run


# In pretraining, at its end, and in fine-tuning.
@pytest.mark.parametrize(
    ("loss", "step"),
    [
        *(("SequenceAutoencoder", step) for step in (3, 8)),
        pytest.param("SequenceAutoencoder", 5, marks=pytest.mark.long),
        *(pytest.param("LanguageModel", step, marks=pytest.mark.long) for step in (3, 5, 8)),
    ],
)
def test_a_fine_tuned_run_continues_as_if_never_stopped(fine_tuned, tmp_path, loss, step):
    run, lines = fine_tuned(loss)
    want = weights(run)
    shutil.copytree(run, tmp_path / "run")
    # As a kill leaves it: the newest checkpoint is an earlier one.
    (tmp_path / "run" / "checkpoints" / "checkpoint").write_text(
        f'model_checkpoint_path: "ckpt-{step}"\nall_model_checkpoint_paths: "ckpt-{step}"\n'
    )
    again = train(tmp_path / "run", [FINE_TUNED[loss]], *EVERY_STEP)
    for name, value in weights(tmp_path / "run").items():
        np.testing.assert_array_equal(value, want[name], err_msg=name)
    for line, before in zip(again, lines, strict=True):
        assert {**line, "steps_per_second": 0} == {**before, "steps_per_second": 0}


@pytest.mark.parametrize("model", ["sa_lstm", pytest.param("lm_lstm", marks=pytest.mark.long)])
def test_pretraining_on_texts_learns_them(tmp_path, model):
    documents.write(tmp_path)
    settings = [
        *SMALL[1:],
        f"dataset.data_dir = '{tmp_path}'",
        "dbpedia.max_length = 40",
        "PRETRAIN_EPOCHS = 8",
        "JOINT_EPOCHS = 0",
        "Classifier.hidden_size = 32",
        "LEARNING_RATE = 0.01",
    ]
    text = config.parse(["paper/dbpedia", f"models/{model}"], settings)
    assert train_module.train(str(tmp_path / "run"), text)
    run = load_run(tmp_path / "run")
    split = data.load(run.source, "train", run.info)
    shares = np.bincount(split.values) / len(split.values)
    shares = shares[shares > 0]
    unigram = -(shares * np.log(shares)).sum()
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    losses = [line["loss"] for line in map(json.loads, lines) if line.get("phase") == "pretrain"]
    # Better than knowing how often each character occurs: it has learned what follows what.
    assert np.mean(losses[:5]) > unigram
    assert np.mean(losses[-5:]) < 0.9 * unigram
