"""`SequenceClassifier`: Keras's interface, and the same gradients as those of the trainer."""

import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf

import t2aux
from t2aux.data import Batch
from t2aux.errors import DataError, FileError, ModelError, SettingError
from t2aux.model import weights
from t2aux.training.model import SequenceClassifier
from t2aux.training.trainer import Trainer
from tests import networks
from tests.cli_helpers import bare_python

LENGTHS = [20, 13, 9, 17, 20, 5]


@keras.saving.register_keras_serializable(package="tests")
class OwnCell(keras.layers.Layer):
    """A user's cell: its output is not its state, and the state has another size."""

    state_size = 3
    output_size = 6

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], 3), name="kernel")
        self.out = self.add_weight(shape=(3, 6), name="out")

    def call(self, inputs, states):
        state = tf.tanh(inputs @ self.kernel + 0.5 * states[0])
        return state @ self.out, [state]


CORES = {
    "lstm": lambda: t2aux.layers.LSTM(6),
    "gru": lambda: t2aux.layers.GRU(6),
    "mingru": lambda: t2aux.layers.MinGRU(6, layers=2),
    "Keras's LSTM": lambda: keras.layers.LSTM(6),
    "Keras's cell": lambda: keras.layers.GRUCell(6),
    "own cell": OwnCell,
    "stacked cells": lambda: keras.layers.StackedRNNCells(
        [keras.layers.LSTMCell(4), keras.layers.LSTMCell(6)]
    ),
}
# The others are in the long tier.
SHORT = ("lstm",)


def losses():
    return [
        t2aux.losses.Reconstruction(length=4, head_size=5, weight=0.5),
        t2aux.losses.Prediction(length=5, head_size=5),
    ]


def make(core="lstm", **parameters):
    parameters = {
        "auxiliary": losses(),
        "supervised_bptt": 6,
        "auxiliary_bptt": 5,
        "dropconnect": 0.0,
        "projection_size": 4,
        "head_size": 5,
        **parameters,
    }
    core = CORES[core]() if isinstance(core, str) else core
    return SequenceClassifier(classes=3, core=core, **parameters)


def examples(channels=2):
    batch = networks.batch(networks.vectors_info(channels=channels), LENGTHS)
    return batch.inputs.numpy(), batch.lengths.numpy(), batch.labels.numpy()


def test_fit_makes_the_step_of_the_training_binary():
    x, lengths, y = examples()
    info = networks.vectors_info(channels=2)
    classifier = networks.classifier(info, hidden=6, projection_size=4, head_size=5)
    auxiliary = losses()
    trainer = Trainer(classifier, auxiliary, supervised_bptt=6, auxiliary_bptt=5)
    model = make(clip_norm=None, seed=7)
    model.build([(None, None, 2), (None,)])
    for ours, theirs in [(model, classifier), *zip(model.auxiliary, auxiliary, strict=True)]:
        others = {name.replace("lstm/", "core/"): v for name, v in named(theirs).items()}
        for name, variable in named(ours).items():
            variable.assign(others.get(name, named(theirs).get(name)))
    before = {name: v.numpy() for name, v in named(model).items()}
    model.compile(keras.optimizers.SGD(1.0))
    history = model.fit((x, lengths), y, batch_size=len(y), verbose=0, shuffle=False).history
    want = trainer.step(
        Batch(tf.constant(x), tf.constant(lengths), tf.constant(y)),
        seed=tf.constant([7, 0]),
        progress=tf.constant(0.0),
        supervised=True,
    )
    gradients = dict(
        zip((v.ref() for v in trainer.variables_in_order), want.gradients, strict=True)
    )
    for name, variable in named(classifier).items():
        name = name.replace("lstm/", "core/")
        got = before[name] - named(model)[name].numpy()
        np.testing.assert_allclose(got, gradients[variable.ref()], atol=2e-6, err_msg=name)
    for name in ("loss", "reconstruction_loss", "prediction_loss", "supervised_loss"):
        np.testing.assert_allclose(history[name], [want.metrics[name]], rtol=1e-5)


def named(network):
    """The variables of a classifier or a loss by their places; what is in losses left out."""
    tree = weights.tree(network)
    return {
        "/".join(map(str, path)): v
        for path, v in tree._flatten(predicate=lambda v: isinstance(v, tf.Variable), with_path=True)
        if path[0] != "auxiliary"
    }


def gradients_of(model, batch):
    trainer = Trainer(model, model.auxiliary, supervised_bptt=6, auxiliary_bptt=5)
    return trainer.step(
        batch, seed=tf.constant([5, 1]), progress=tf.constant(0.5), supervised=True, padded=True
    )


@pytest.mark.parametrize(("core", "same"), [("lstm", "Keras's LSTM"), ("gru", "Keras's cell")])
def test_keras_own_cells_in_a_loop_have_the_same_values_and_gradients(core, same):
    x, lengths, y = examples()
    ours, theirs = make(core), make(same)
    for model in (ours, theirs):
        model.build((None, None, 2))
    theirs.core.set_weights(ours.core.get_weights())
    batch = Batch(tf.constant(x), tf.constant(lengths), tf.constant(y))
    got, want = gradients_of(theirs, batch), gradients_of(ours, batch)
    for name, value in want.metrics.items():
        np.testing.assert_allclose(got.metrics[name], value, rtol=1e-5, err_msg=name)
    shapes = sorted(g.shape.as_list() for g in want.gradients)
    assert sorted(g.shape.as_list() for g in got.gradients) == shapes
    norms = [sorted(float(tf.norm(g)) for g in step.gradients) for step in (got, want)]
    np.testing.assert_allclose(*norms, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "core",
    [pytest.param(core, marks=[] if core in SHORT else pytest.mark.long) for core in CORES],
)
def test_every_core_is_trained_and_saved(core, tmp_path):
    x, lengths, y = examples()
    model = make(core, auxiliary=losses()[: 1 if core in SHORT else 2])
    model.compile("adam", metrics=["accuracy"])
    first = model.fit((x, lengths), y, verbose=0, epochs=2).history
    assert np.isfinite(first["loss"]).all()
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded((x, lengths)), model((x, lengths)), atol=1e-6)
    assert loaded.count_params() == model.count_params() > 100
    # What is random in a step belongs to the rows of a batch: in the same order.
    model.run_eagerly = loaded.run_eagerly = True
    again, other = (
        m.fit((x, lengths), y, verbose=0, shuffle=False).history["loss"] for m in (loaded, model)
    )
    np.testing.assert_allclose(again, other, rtol=1e-5)


def test_the_forms_of_sequences_of_different_lengths_give_the_same():
    x, lengths, y = examples()
    model = make()
    rows = [row[:length] for row, length in zip(x, lengths, strict=True)]
    want = np.concatenate([model(row[np.newaxis]) for row in rows])
    # The masked steps may be anywhere.
    mask, scattered = np.zeros(x.shape[:2], bool), np.full_like(x, np.nan)
    rng = np.random.default_rng(0)
    for b, row in enumerate(rows):
        at = np.sort(rng.permutation(x.shape[1])[: len(row)])
        mask[b, at], scattered[b, at] = True, row
    ragged = tf.RaggedTensor.from_row_lengths(np.concatenate(rows), lengths)
    forms = {
        "lengths": (x, lengths),
        "list": rows,
        "mask": (np.nan_to_num(scattered), mask),
        "dictionary": {"inputs": x, "lengths": lengths},
        "ragged": ragged,
        "dataset": tf.data.Dataset.from_tensor_slices(((x, lengths),)).batch(4),
        "ragged dataset": tf.data.Dataset.from_tensor_slices((ragged,)).batch(4),
    }
    for name, form in forms.items():
        got = model.predict(form, verbose=0)
        np.testing.assert_allclose(got, want, atol=1e-6, err_msg=name)
    np.testing.assert_allclose(want.sum(1), 1, atol=1e-5)
    model.compile("sgd", metrics=["accuracy"])
    first, *others = (
        model.evaluate(forms[name], y, verbose=0) for name in ("lengths", "list", "mask")
    )
    for other in others:
        np.testing.assert_allclose(other, first, rtol=1e-5)
    labels = -np.log(want[range(len(y)), y])
    np.testing.assert_allclose(first, [labels.mean(), (want.argmax(1) == y).mean()], rtol=1e-5)


def test_ids_one_hot_labels_weights_and_another_loss():
    batch = networks.batch(networks.text_info(), LENGTHS)
    x, lengths, y = (part.numpy() for part in batch)
    weight = np.array([0.0, 1.0, 2.0, 1.0, 0.5, 1.5], np.float32)
    # Of the first, whose weight is 0, the label does not count.
    other = np.concatenate([(y[:1] + 1) % 3, y[1:]])
    results = []
    for labels, loss in (
        (y, None),
        (keras.utils.to_categorical(other, 3), None),
        (y, "sparse_categorical_crossentropy"),
    ):
        keras.utils.set_random_seed(0)
        model = make(vocabulary_size=7, auxiliary=[])
        model.compile("sgd", loss=loss, weighted_metrics=["accuracy"], run_eagerly=True)
        history = model.fit((x, lengths), labels, sample_weight=weight, verbose=0, epochs=2)
        results.append(history.history["loss"])
    np.testing.assert_allclose(results[1:], [results[0]] * 2, rtol=1e-4)


def test_stock_callbacks(tmp_path):
    x, lengths, y = examples()
    model = make(auxiliary=losses()[:1])
    model.compile(keras.optimizers.RMSprop(1e-3), metrics=["accuracy"], steps_per_execution=2)
    pretrain = t2aux.callbacks.Pretrain(epochs=2)
    history = model.fit(
        (x, lengths),
        y,
        batch_size=2,
        epochs=6,
        verbose=0,
        validation_data=((x, lengths), y),
        callbacks=[
            pretrain,
            keras.callbacks.EarlyStopping("val_accuracy", patience=1, mode="min", baseline=-1.0),
            keras.callbacks.ModelCheckpoint(str(tmp_path / "best.keras"), save_best_only=True),
            keras.callbacks.TensorBoard(str(tmp_path / "tensorboard")),
            keras.callbacks.ReduceLROnPlateau("val_accuracy", mode="min", patience=0),
            keras.callbacks.TerminateOnNaN(),
        ],
    ).history
    assert len(history["loss"]) < 6
    assert set(pretrain.history.history) == {"loss", "reconstruction_loss"}
    assert len(pretrain.history.history["loss"]) == 2
    assert float(model.optimizer.learning_rate) < 1e-3
    assert list((tmp_path / "tensorboard").rglob("events*"))
    best = keras.saving.load_model(tmp_path / "best.keras")
    loss = -np.log(best((x, lengths)).numpy()[range(len(y)), y]).mean()
    np.testing.assert_allclose(loss, min(history["val_loss"]), rtol=1e-5)


def test_backup_and_restore_resumes(tmp_path):
    x, lengths, y = examples()
    epochs = []

    def fit(folder, *callbacks):
        keras.utils.set_random_seed(1)
        model = make(auxiliary=losses()[:1])
        model.compile(keras.optimizers.RMSprop(1e-2), run_eagerly=True)
        callbacks = [keras.callbacks.BackupAndRestore(folder), *callbacks]
        fit = {"batch_size": 3, "epochs": 4, "shuffle": False, "verbose": 0}
        model.fit((x, lengths), y, callbacks=callbacks, **fit)
        return model.get_weights()

    def begin(epoch, logs):
        epochs.append(epoch)
        # What there is when it is killed then.
        if epoch == 2:
            shutil.copytree(tmp_path / "backup", tmp_path / "killed")

    note = keras.callbacks.LambdaCallback(on_epoch_begin=begin)
    want = fit(tmp_path / "backup", note)
    assert epochs == [0, 1, 2, 3]
    shutil.rmtree(tmp_path / "backup", ignore_errors=True)
    (tmp_path / "killed").rename(tmp_path / "backup")
    epochs.clear()
    note = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: epochs.append(epoch))
    got = fit(tmp_path / "backup", note)
    assert epochs == [2, 3]
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_pretraining_leaves_the_head_alone():
    x, lengths, y = (part.numpy() for part in networks.batch(networks.text_info(), LENGTHS))
    model = make(vocabulary_size=7, auxiliary=losses()[:1])
    model.compile(keras.optimizers.SGD(0.1))
    model.build((None, None))
    head, core = model.head.get_weights(), model.core.get_weights()
    model._fit_phase((x, lengths), y, pretraining=True, verbose=0)
    for a, b in zip(head, model.head.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert any((a != b).any() for a, b in zip(core, model.core.get_weights(), strict=True))


def test_a_saved_model_predicts_the_same_in_a_new_process(tmp_path):
    x, lengths, _ = examples()
    model = make()
    want = model((x, lengths)).numpy()
    model.save(tmp_path / "model.keras")
    model.save_weights(tmp_path / "model.weights.h5")
    np.savez(tmp_path / "x.npz", x=x, lengths=lengths, want=want)
    code = """if True:
        import sys
        assert not [name for name in sys.modules if name.startswith("t2aux")]
        import keras, numpy as np, t2aux
        folder = sys.argv[1]
        data = np.load(f"{folder}/x.npz")
        model = keras.saving.load_model(f"{folder}/model.keras")
        got = model((data["x"], data["lengths"]))
        np.testing.assert_allclose(got, data["want"], atol=1e-6)
        model.load_weights(f"{folder}/model.weights.h5")
    """
    bare_python(code, tmp_path)


def fitted(model=None, x=None, y=None, **fit):
    model = model or make()
    model.compile("sgd", run_eagerly=True)
    own_x, lengths, own_y = examples()
    y = own_y if y is None else None if y is False else y
    model.fit((own_x, lengths) if x is None else x, y, verbose=0, **fit)


def built():
    model = make()
    model.build((None, 20, 2))
    return model


def distributed():
    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        model = make()
    fitted(model)


def dataset(*parts):
    return tf.data.Dataset.from_tensor_slices(parts[0] if len(parts) == 1 else parts).batch(3)


def unknown_channels():
    return dataset(X, Y).map(lambda x, y: (tf.ensure_shape(tf.transpose(x), [None] * 3), y))


def unknown_shapes():
    return tf.data.Dataset.from_generator(lambda: [(X, Y)], output_types=(tf.float32, tf.int32))


X, L, Y = examples()
RECONSTRUCTION = t2aux.losses.Reconstruction
WRONG_DATA = {
    "label": (lambda: fitted(y=Y + 3), "0 to 2"),
    "negative label": (lambda: fitted(y=Y - 5), "0 to 2"),
    "float labels": (lambda: fitted(y=Y + 0.5), "float64"),
    "length": (lambda: fitted(x=(X, L + 1)), "1 to .* 20 .* 6 to 21"),
    "no step": (lambda: fitted(x=(X, L - 5)), "1 to .* 20 .* 0 to 15"),
    "fewer lengths": (lambda: fitted(x=(X, L[:2])), r"\(2,\)"),
    "NaN": (lambda: fitted(x=np.full_like(X, np.nan)), "NaN"),
    "no channels": (lambda: fitted(x=X[..., 0]), r"\[batch, steps, channels\]"),
    "ids": (lambda: fitted(make(vocabulary_size=4), x=X[..., 0].astype(int) + 4), "0 to 3"),
    "no ids": (lambda: fitted(make(vocabulary_size=4), x=X[..., 0]), "vocabulary_size = 4"),
    "no labels": (lambda: fitted(x=X, y=False), "Labels .* y,"),
    "empty": (lambda: make().predict([]), "empty"),
    "dictionary": (lambda: fitted(x={"a": X}), ' a: .*"inputs"'),
    "channels": (lambda: built().predict(X[..., :1]), r"steps, 2\]"),
    "unknown shapes": (lambda: fitted(x=unknown_shapes(), y=False), "output_signature"),
    "unknown channels": (lambda: fitted(x=unknown_channels(), y=False), "channels .*ensure_shape"),
    "dataset without labels": (lambda: fitted(x=dataset(X), y=False), "Labels .*pairs"),
    "dataset of dictionaries": (lambda: fitted(x=dataset({"x": X}), y=False), "Labels .*pairs"),
    "names in a dataset": (
        lambda: fitted(x=dataset(X, [str(label) for label in Y]), y=False),
        "labels are strings",
    ),
    "strings": (lambda: fitted(x=X.astype(str)), "real numbers, .*<U"),
    "complex": (lambda: fitted(x=X.astype(complex)), "real numbers, .*complex"),
    "tensor with NaN": (lambda: fitted(x=tf.fill(X.shape, np.nan)), "NaN"),
}
WRONG_SETTINGS = {
    "segment": (
        lambda: fitted(make(auxiliary=[RECONSTRUCTION(length=20)])),
        r"Reconstruction\.length = 20 .* 21 ",
    ),
    "no state": (lambda: fitted(make(core=keras.layers.Dense(4))), "Dense, .*size"),
    "images": (
        lambda: fitted(make(core=keras.layers.ConvLSTM1D(4, 3))),
        r"ConvLSTM.*\[batch, size\]",
    ),
    "regularizer": (
        lambda: fitted(make(core=t2aux.layers.LSTM(4, kernel_regularizer="l2"))),
        "kernel_regularizer",
    ),
    "backwards": (lambda: fitted(make(core=t2aux.layers.GRU(4, go_backwards=True))), "backwards"),
    "stateful": (lambda: fitted(make(core=t2aux.layers.LSTM(4, stateful=True))), "stateful"),
    "dtype": (lambda: make(dtype="mixed_bfloat16"), "mixed_bfloat16"),
    "strategy": (lambda: distributed(), "fit .*training/mirrored"),
    "truncation": (lambda: make(supervised_bptt="ful"), "supervised_bptt .*'ful'"),
    "truncation of a loss": (
        lambda: fitted(make(auxiliary=[RECONSTRUCTION(length=4, bptt=0.5)])),
        r"Reconstruction\.bptt .* 0\.5",
    ),
    "clipping": (lambda: make(clip_norm=0.0), r"clip_norm .* 0\.0"),
    "class of a loss": (lambda: make(auxiliary=RECONSTRUCTION), "auxiliary .*<class"),
    "pretraining": (lambda: t2aux.callbacks.Pretrain(1.5), r"Pretrain\.epochs .*1\.5"),
    "no layer": (lambda: fitted(make(core=3)), "core .* 3: "),
    "dropout": (lambda: fitted(make(core=keras.layers.LSTM(4, dropout=0.1))), "LSTM.* dropout"),
    "no loss": (lambda: make(auxiliary=["r"]), "auxiliary .*'r'"),
    "twice": (lambda: fitted(make(auxiliary=[*losses(), *losses()])), " 2 .* reconstruction, "),
    "bptt": (lambda: fitted(make(auxiliary_bptt=-1)), "auxiliary_bptt .* -1"),
    "negative bptt": (lambda: fitted(make(supervised_bptt=-1)), "supervised_bptt"),
    "classes": (lambda: SequenceClassifier(classes=["a", "a"]), r"classes .*\['a', 'a'\]"),
    "number of classes": (lambda: SequenceClassifier(classes=3.0), r"classes .*3\.0"),
    "generator to pretrain on": (
        lambda: fitted(x=iter([(X, Y)]), y=False, callbacks=[t2aux.callbacks.Pretrain(1)]),
        "generator .*Dataset",
    ),
    "nothing to pretrain": (
        lambda: fitted(make(auxiliary=[]), callbacks=[t2aux.callbacks.Pretrain(1)]),
        "auxiliary losses",
    ),
}
WRONG = {
    **{case: (DataError, *found) for case, found in WRONG_DATA.items()},
    **{case: (SettingError, *found) for case, found in WRONG_SETTINGS.items()},
    "unbuilt": (ModelError, lambda: make().save("x.keras"), r" save .* fit, .*build\("),
    "unbuilt weights": (
        ModelError,
        lambda: make().save_weights("x.weights.h5"),
        r" save_weights .* fit, .*build\(",
    ),
    "h5": (FileError, lambda: built().save("x.h5"), r"\.h5 .*\.keras"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_use_is_one_sentence(case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    kind, wrong, part = WRONG[case]
    with pytest.raises(kind, match=part) as error:
        wrong()
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("part", ["core", "head", "input_layer", "auxiliary", ""])
def test_what_is_frozen_keeps_its_weights(part):
    x, lengths, y = examples()
    model = make(auxiliary=losses()[:1])
    model.build((None, None, 2))
    network = getattr(model, part) if part else model
    network = network[0] if part == "auxiliary" else network
    network.trainable = False
    frozen = [id(v) for v in network.weights]
    before = {id(v): v.numpy() for v in model.weights}
    model.compile(keras.optimizers.SGD(0.1), run_eagerly=part != "core")
    model.fit((x, lengths), y, verbose=0)
    for variable in model.weights:
        if "phase" not in variable.path:
            same = np.array_equal(variable.numpy(), before[id(variable)])
            assert same == (id(variable) in frozen), variable.path


@pytest.mark.parametrize("core", ["lstm", "Keras's cell"])
def test_as_a_part_of_another_model_it_is_trained_by_backpropagation_through_all_steps(core):
    x, lengths, y = examples()
    model = make(core, auxiliary=[], supervised_bptt="full", clip_norm=None)
    inputs = keras.Input((20, 2)), keras.Input((), dtype="int32")
    outer = keras.Model(inputs, model(inputs))
    before = model.get_weights()
    for one in (outer, model):
        one.compile(
            *(keras.optimizers.SGD(1.0), "sparse_categorical_crossentropy"),
            run_eagerly=core != "lstm",
        )
    outer.fit((x, lengths), y, verbose=0)
    got = [a - b for a, b in zip(before, model.get_weights(), strict=True)]
    model.set_weights(before)
    model.fit((x, lengths), y, verbose=0)
    want = [a - b for a, b in zip(before, model.get_weights(), strict=True)]
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-6)


def test_what_needs_no_fit_before():
    x, lengths, y = examples()
    for use in (
        lambda m: m.evaluate((x, lengths), y, 3, 0),
        lambda m: m.predict((x, lengths), 3, 0),
        lambda m: m.test_on_batch((x, lengths), y),
    ):
        model = make(SequenceClassifier.__init__.__kwdefaults__["core"])
        model.compile("sgd", run_eagerly=True)
        use(model)
    assert make("stacked cells").predict(x, verbose=0).shape == (6, 3)
    assert make().compute_output_shape((None, 20, 2)) == (None, 3)


def test_export_of_keras(tmp_path):
    model = make(auxiliary=losses()[:1])
    fitted(model, x=X)
    model.export(tmp_path / "saved", verbose=False)
    loaded = tf.saved_model.load(str(tmp_path / "saved"))
    np.testing.assert_allclose(loaded.serve(X[:2]), model(X[:2]), atol=1e-6)


def test_fit_without_compile_is_named():
    with pytest.raises(ValueError, match="compile"):
        make().fit((X, L), Y, verbose=0)


def test_a_wrong_label_in_a_dataset_is_named():
    dataset = tf.data.Dataset.from_tensor_slices((X, Y + 1)).batch(3)
    model = make(auxiliary=[])
    model.compile("sgd")
    with pytest.raises(tf.errors.InvalidArgumentError, match="0 to 2"):
        model.fit(dataset, verbose=0)
