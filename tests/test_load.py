"""`t2aux.load`: every form of a classifier has one interface and answers alike."""

import doctest
import json
import shutil
import subprocess
import sys
import types

import gin
import keras
import numpy as np
import pytest
import tensorflow as tf

import t2aux
from t2aux.errors import DataError, FileError, ModelError, SettingError
from t2aux_ondevice import litert
from tests import small_exports
from tests.cli_helpers import environment
from tests.cli_helpers import t2aux as command
from tests.export.conftest import TEXTS, export_of, load, model_dir_of

EXACT = 1e-5
LENGTHS = [12, 1, 9, 4]


def of_run(kind, folder):
    """A run of a kind of data, its export, and its classifier in every form."""
    shutil.copytree(model_dir_of(kind), folder / "run")
    run = load(folder / "run")
    directory, _ = export_of(kind)
    places = {
        "run": folder / "run",
        "export": directory.parent,
        "version": directory,
        **{form: directory / litert.file_name(form) for form in litert.FORMS},
    }
    checkpoint = {"run": "ckpt-3"}
    return types.SimpleNamespace(
        classifier=run.classifier,
        info=run.info,
        directory=directory,
        places=places,
        loaded={n: t2aux.load(p, checkpoint=checkpoint.get(n)) for n, p in places.items()},
    )


@pytest.fixture(scope="module")
def vectors(tmp_path_factory):
    return of_run("vectors", tmp_path_factory.mktemp("load") / "vectors")


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    return of_run("characters", tmp_path_factory.mktemp("load") / "characters")


def sequences():
    rng = np.random.default_rng(3)
    # About as the values of the run's training data are, see `write_data`.
    mean, deviation = [12347.6, -69.995], [1.2, 3e-3]
    return [rng.normal(mean, deviation, (n, 2)).astype(np.float32) for n in LENGTHS]


def padded(rows):
    found = np.full((len(rows), max(map(len, rows)), 2), 7, np.float32)
    for target, row in zip(found, rows, strict=True):
        target[: len(row)] = row
    return found


def expected(classifier, rows):
    return np.stack([classifier(tf.constant(row[np.newaxis]))[0] for row in rows])


def test_all_forms_answer_alike(vectors):
    x, y = sequences(), np.array([0, 1, 2, 0])
    wanted = expected(vectors.classifier, x)
    assert np.ptp(wanted, 0).max() > 0.05
    loss = float(np.mean(-np.log(wanted[np.arange(4), y])))
    for name, loaded in vectors.loaded.items():
        assert loaded.classes == vectors.info.classes
        found = loaded.predict(x, batch_size=3)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, wanted, rtol=0, atol=EXACT, err_msg=name)
        measured = loaded.evaluate(x, y)
        assert set(measured) == {"accuracy", "loss"}
        assert measured["accuracy"] == np.mean(wanted.argmax(1) == y)
        assert measured["loss"] == pytest.approx(loss, abs=EXACT)
        stream = loaded.stream()
        for part in (x[0][:5], x[0][5:6], x[0][6:]):
            answer = stream.read(part)
        assert stream.steps == 12
        np.testing.assert_allclose(answer, wanted[0], rtol=0, atol=EXACT, err_msg=name)
        assert (loaded.model is not None) == (name == "run")
        # A stream of its own: what was read before does not matter.
        sofar = expected(vectors.classifier, [x[0][:4]])[0]
        np.testing.assert_allclose(loaded.stream().read(x[0][:4]), sofar, rtol=0, atol=EXACT)


def test_the_model_of_a_run_is_a_keras_model(vectors, tmp_path):
    x = sequences()
    loaded = t2aux.load(vectors.places["run"])
    model = loaded.model
    assert isinstance(model, t2aux.SequenceClassifier)
    before = loaded.predict(x)
    # Saved and exported it knows its data as the run does.
    model.save(tmp_path / "run.keras")
    restored = t2aux.load(tmp_path / "run.keras")
    assert restored.info == loaded.info
    np.testing.assert_allclose(restored.predict(x), before, rtol=0, atol=EXACT)
    exported = t2aux.export_model(restored.model, tmp_path / "export", formats=["tflite"])
    again = t2aux.load(exported.directory)
    assert again.info == loaded.info.without_normalization()
    np.testing.assert_allclose(again.predict(x), before, rtol=0, atol=EXACT)


def test_a_run_is_trained_further(tmp_path):
    settings = ["dataset.max_examples = 20", "BATCH_SIZE = 10", "digits.side = 4"]
    settings += ["PRETRAIN_EPOCHS = 0", "JOINT_EPOCHS = 1", "SUPERVISED_BPTT = 5"]
    settings += ["Reconstruction.length = 6", "Classifier.hidden_size = 4"]
    settings = [f"--gin_param={setting}" for setting in settings]
    command("train", f"--model_dir={tmp_path / 'run'}", "--gin_file=quickstart", *settings)
    model = t2aux.load(tmp_path / "run").model
    (loss,) = model.auxiliary
    assert (loss.name, loss.length) == ("reconstruction", 6)
    assert model.trainer.supervised_bptt == 5
    # With the weights of the run's auxiliary network.
    reader = tf.train.load_checkpoint(tf.train.latest_checkpoint(str(tmp_path / "run/checkpoints")))
    for place in reader.get_variable_to_shape_map():
        if place.startswith("auxiliary/") and "OPTIMIZER_SLOT" not in place:
            value = reader.get_tensor(place)
            assert any(np.array_equal(w, value) for w in loss.get_weights()), place
    x, y = np.random.default_rng(0).random((10, 16, 1)).astype(np.float32), np.arange(10)
    before = [np.array(weight) for weight in model.weights]
    model.compile(keras.optimizers.SGD(0.1), run_eagerly=True)
    history = model.fit(x, y, epochs=1, verbose=0).history
    assert {"reconstruction_loss", "supervised_loss"} <= set(history)
    assert all(
        np.abs(weight - old).max() > 0 for weight, old in zip(model.weights, before, strict=True)
    )


def test_forms_of_inputs(vectors):
    x = sequences()
    loaded = vectors.loaded["whole"]
    wanted = loaded.predict(x)
    for given in (
        (padded(x), np.array(LENGTHS)),
        (padded(x), np.arange(12) < np.array(LENGTHS)[:, None]),
        {"inputs": padded(x), "lengths": LENGTHS},
        {"inputs": padded(x), "mask": np.arange(12) < np.array(LENGTHS)[:, None]},
        tf.RaggedTensor.from_row_lengths(np.concatenate(x), LENGTHS),
        [row.tolist() for row in x],
        (tf.constant(padded(x)), tf.constant(LENGTHS)),
    ):
        np.testing.assert_array_equal(loaded.predict(given), wanted)
    array = np.stack([x[0], x[0][::-1]])
    np.testing.assert_array_equal(loaded.predict(array), loaded.predict(list(array)))
    labels = keras.utils.to_categorical([0, 2], 3)
    assert loaded.evaluate(array, labels) == loaded.evaluate(array, [[0], [2]])
    for name in ("run", "whole"):
        assert vectors.loaded[name].predict([]).shape == (0, 3)


@pytest.mark.parametrize("name", ["run", "export", "whole"])
def test_wrong_inputs(vectors, name):
    loaded, x = vectors.loaded[name], sequences()
    bad = x[1].copy()
    bad[0, 1] = np.nan
    for given, message in (
        ([x[0], bad], r"x\[1\]: .*NaN"),
        ([x[0], x[1][:, :1]], r"x\[1\]: .*\[1, 1\]: .*\[T, 2\]"),
        (x[0], r"^x .*\(12, 2\): .*\[N, steps, channels\]"),
        ((padded(x), [13, 1, 1, 1]), "lengths .*x .* 12 .* 13"),
        ((padded(x), [1, 1]), r"\(4, 12, 2\) and \(2,\)"),
        ((padded(x), np.zeros([4, 12])), "mask .*x .*step"),
        (["some text"], "^x .*predict_texts"),
        ({"inputs": x}, "^x .*inputs: .*lengths"),
        ([[[1, 2], [3]]], r"x\[0\] .*inhomogeneous"),
        (3, "^x .* int: "),
        (None, "^x .* NoneType: "),
    ):
        with pytest.raises(DataError, match=message):
            loaded.predict(given)
    for labels, message in (
        ([0], "x .* 4 .*y 1 "),
        ([0, 1, 2, 3], " 0 to 2, .* 3 .*y .* 3"),
        (np.full([4, 3], 1 / 3), "y .*not one-hot"),
        ([[1, 1, 0]] * 4, "y .*not one-hot"),
    ):
        with pytest.raises(DataError, match=message):
            loaded.evaluate(x, labels)
    with pytest.raises(DataError, match=r"x .*empty"):
        loaded.evaluate([], [])
    for size in (0, 2.5):
        with pytest.raises(SettingError, match=rf"batch_size .* 1, .* {size}"):
            loaded.predict(x, batch_size=size)
    with pytest.raises(DataError, match=r"texts\[0\]: .*vectors, not text"):
        loaded.predict_texts(["a"])
    stream = loaded.stream()
    with pytest.raises(DataError, match=r"NaN .*step 0 "):
        stream.read(bad)
    assert stream.steps == 0


def test_texts(texts):
    ids = [texts.info.text_ids(text) for text in TEXTS]
    wanted = expected(texts.classifier, ids)
    for name, loaded in texts.loaded.items():
        found = loaded.predict_texts(TEXTS)
        np.testing.assert_allclose(found, wanted, rtol=0, atol=EXACT, err_msg=name)
        np.testing.assert_allclose(loaded.predict(ids), wanted, rtol=0, atol=EXACT, err_msg=name)
    for given, message in (
        ("a text", r"predict_texts .*\[text\]"),
        (["a", " "], r"texts\[1\]: .*empty"),
        ([b"a"], r"texts\[0\]: .*bytes"),
    ):
        with pytest.raises(DataError, match=message):
            loaded.predict_texts(given)


def test_images_of_any_size(tmp_path):
    classifier = small_exports.write(tmp_path / "1", small_exports.IMAGES)
    loaded = t2aux.load(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, [3, 9, 7], np.uint8)
    rows = [small_exports.IMAGES.image_sequence(image) for image in pixels]
    found = loaded.predict(pixels)
    np.testing.assert_allclose(found, expected(classifier, rows), rtol=0, atol=EXACT)
    np.testing.assert_array_equal(loaded.predict(np.stack(rows)), found)
    np.testing.assert_array_equal(loaded.predict(list(pixels)), found)
    with pytest.raises(DataError, match=r"x\[0\]: .*pixel .* 255: .*\[0, 1\]"):
        loaded.predict(np.full([1, 16, 1], 255.0))


def test_a_keras_file(tmp_path):
    model = t2aux.SequenceClassifier(classes=["up", "down"], core=t2aux.layers.LSTM(5))
    model.build((None, None, 2))
    model.compile(keras.optimizers.Adam())
    model.save(tmp_path / "waves.keras")
    loaded, x = t2aux.load(tmp_path / "waves.keras"), sequences()
    assert loaded.classes == ("up", "down")
    assert isinstance(loaded.model, t2aux.SequenceClassifier)
    assert loaded.model.optimizer is not None
    wanted = model.predict(x, verbose=0)
    np.testing.assert_allclose(loaded.predict(x), wanted, rtol=0, atol=EXACT)
    np.testing.assert_allclose(loaded.stream().read(x[0]), wanted[0], rtol=0, atol=EXACT)
    np.savez(tmp_path / "x.npz", inputs=padded(x), lengths=LENGTHS)
    done = command("classify", f"--model={tmp_path / 'waves.keras'}", "--json", tmp_path / "x.npz")
    labels = [json.loads(line)["top"][0]["label"] for line in done.stdout.splitlines()]
    assert labels == wanted.argmax(1).tolist()
    with pytest.raises(SettingError, match=r" best .*waves\.keras .*\.keras"):
        t2aux.load(tmp_path / "waves.keras", checkpoint="best")


@keras.saving.register_keras_serializable(package="tests")
class Known(keras.layers.GRUCell):
    """A class that can be made unknown."""


def test_keras_files_that_can_t_be_loaded(tmp_path):
    place = tmp_path / "x.keras"
    keras.Sequential([keras.layers.Input([3]), keras.layers.Dense(2)]).save(place)
    with pytest.raises(ModelError, match=r"/x\.keras .*Sequential"):
        t2aux.load(place)
    model = t2aux.SequenceClassifier(classes=3, core=Known(4))
    model.build((None, None, 2))
    model.save(place)
    assert t2aux.load(place).predict(sequences()).shape == (4, 3)
    content = place.read_bytes()
    registered = keras.saving.get_custom_objects()
    kept = registered.pop("tests>Known")
    try:
        with pytest.raises(ModelError, match=r"/x\.keras .*Known, .*register_keras_serializable"):
            t2aux.load(place)
    finally:
        registered["tests>Known"] = kept
    half = len(content) // 2
    flipped = content[:half] + bytes([content[half] ^ 255]) + content[half + 1 :]
    for damaged in (b"", b"abc", content[:half], flipped):
        place.write_bytes(damaged)
        with pytest.raises(ModelError, match=r"/x\.keras .*damaged"):
            t2aux.load(place)


def test_a_tflite_file_needs_no_tensorflow(vectors, tmp_path):
    np.savez(tmp_path / "x.npz", x=padded(sequences()))
    code = (
        "import sys; sys.modules['tensorflow'] = sys.modules['keras'] = None\n"
        "import numpy as np, t2aux\n"
        "x = np.load(sys.argv[2])['x']\n"
        "loaded = t2aux.load(sys.argv[1])\n"
        "answers = loaded.predict((x, [12, 1, 9, 4]))\n"
        "assert abs(loaded.stream().read(x[0]) - answers[0]).max() < 1e-5\n"
        "assert loaded.evaluate(list(x), [0, 1, 2, 0])['loss'] > 0\n"
        "print(answers.tolist())\n"
    )
    place = vectors.places["whole"]
    done = subprocess.run(
        [sys.executable, "-c", code, place, tmp_path / "x.npz"],
        capture_output=True,
        text=True,
        env=environment(),
    )
    assert done.returncode == 0, done.stderr
    wanted = vectors.loaded["whole"].predict(sequences())
    np.testing.assert_allclose(json.loads(done.stdout), wanted, rtol=0, atol=EXACT)


def test_what_is_none_of_these(vectors, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.tflite").write_bytes(b"x" * 100)
    for place, kind, message in (
        (tmp_path / "absent", FileError, r"/absent .*\.tflite .*model_dir"),
        (tmp_path / "absent.keras", FileError, r"/absent\.keras .*\.tflite .*model_dir"),
        (tmp_path / "empty", FileError, "/empty .*--model_dir"),
        (tmp_path / "file.tflite", ModelError, r"/file\.tflite .*damaged"),
        (vectors.places["version"] / "saved_model.pb", ModelError, r"/saved_model\.pb .*damaged"),
        ("", SettingError, "path .*empty"),
        ("s3://bucket/model", SettingError, "path .*s3://bucket/model, "),
        (vectors.loaded["run"], SettingError, "path .* LoadedClassifier: "),
    ):
        with pytest.raises(kind, match=message):
            t2aux.load(place)
    with pytest.raises(SettingError, match=r" latest .*export"):
        t2aux.load(vectors.places["whole"], checkpoint="latest")
    with pytest.raises(ModelError, match=r"\bckpt-9\b"):
        t2aux.load(vectors.places["run"], checkpoint="ckpt-9")
    alone = tmp_path / "alone"
    alone.mkdir()
    for name in (litert.WHOLE, litert.METADATA):
        shutil.copy(vectors.directory / name, alone)
    loaded = t2aux.load(alone / litert.WHOLE)
    with pytest.raises(ModelError, match=r" classifier_stream\.tflite .*/alone"):
        loaded.stream()


def test_gin_s_configuration_stays(vectors):
    with gin.unlock_config():
        gin.bind_parameter("Classifier.hidden_size", 77)
    t2aux.load(vectors.places["run"], checkpoint="ckpt-3")
    assert gin.query_parameter("Classifier.hidden_size") == 77
    gin.clear_config()


def test_the_docstring_s_example(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = t2aux.SequenceClassifier(classes=10, core=t2aux.layers.LSTM(4))
    x = np.random.default_rng(0).random([5, 6, 1], np.float32)
    model.build(x.shape)
    model.save("digits.keras")
    (example,) = doctest.DocTestFinder().find(t2aux.load, "load", globs={"t2aux": t2aux, "x": x})
    assert example.examples
    assert not doctest.DocTestRunner().run(example).failed
