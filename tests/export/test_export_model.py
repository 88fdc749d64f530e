"""`t2aux.export_model`: a Keras model with any core, exported as a run is."""

import doctest
import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

import t2aux
from t2aux import files
from t2aux.errors import DataError, FileError, ModelError, SettingError
from t2aux.export import keras_export
from t2aux.export.keras_models import info_of
from t2aux_ondevice import litert, reading
from tests.training.test_model import CORES

EXACT = 1e-5
LENGTHS = [9, 5, 1, 9, 7]
CHANNELS, IDS, CLASSES = 2, 7, 3


def model(core="lstm", ids=False, **parameters):
    """A built model whose answers differ."""
    made = t2aux.SequenceClassifier(
        classes=CLASSES,
        core=CORES[core]() if isinstance(core, str) else core,
        vocabulary_size=IDS if ids else None,
        projection_size=4,
        head_size=5,
        supervised_bptt=3,
        auxiliary=[t2aux.losses.Prediction(length=3, head_size=5)],
        **parameters,
    )
    made.build((None, None) if ids else (None, None, CHANNELS))
    for weight in made.weights:
        if weight.dtype == "float32":
            weight.assign(2 * weight)
    return made


# One that no test changes.
shared = functools.cache(model)


def sequences(ids=False, lengths=LENGTHS):
    rng = np.random.default_rng(0)
    if ids:
        return [rng.integers(0, IDS, n) for n in lengths]
    return [rng.normal(size=(n, CHANNELS)).astype(np.float32) for n in lengths]


def labels(count=5):
    return np.arange(count) % CLASSES


def export(made, folder, **options):
    return t2aux.export_model(made, folder, **{"serving_batch_sizes": (1, 2), **options})


def check(exported, made, x):
    """Asserts that every artefact of an export answers as the model does."""
    wanted = made.predict(x, verbose=0)
    assert np.ptp(wanted, 0).max() > 0.02
    assert exported.parity.passed
    written = files.read_json(exported.directory / "parity.json")
    assert written["passed"] is True
    assert written["measured"] is True
    assert all(a["largest_difference"] < EXACT for a in written["artefacts"].values())
    places = [exported.directory, *exported.directory.glob("*.tflite")]
    for place in places:
        found = t2aux.load(place).predict(x)
        np.testing.assert_allclose(found, wanted, rtol=0, atol=EXACT, err_msg=str(place))
    return places


@pytest.mark.long
@pytest.mark.parametrize("core", ["gru", "mingru"])
def test_every_core(core, tmp_path):
    made, x = model(core), sequences()
    exported = export(made, tmp_path, test_data=(x, labels()), formats=["tflite"])
    assert len(check(exported, made, x)) == 3
    described = litert.read_metadata(exported.directory)["model"]
    assert described["core"] == {"gru": "GRU", "mingru": "MinGRU"}[core]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An LSTM with everything exported: the model, its test inputs and the export."""
    folder = tmp_path_factory.mktemp("whole") / "name of it"
    made, x = model(), sequences()
    return made, x, export(made, folder, test_data=(x, labels()), dataset="waves")


def test_the_lstm_has_everything(whole):
    made, x, exported = whole
    assert exported.directory.name == "1"
    assert len(check(exported, made, x)) == 4  # The SavedModel and three files.
    names = {path.name for path in exported.directory.iterdir()}
    assert {"saved_model.pb", "metadata.json", "parity.json", "README.md"} <= names
    metadata = litert.read_metadata(exported.directory)
    parts = (made.input_layer, made.core, made.head)
    assert metadata["model"]["weights"] == sum(part.count_params() for part in parts)
    signatures = metadata["artefacts"]["SavedModel"]["signatures"]
    assert {"serving_default", "serving_classify", "step_segment", "describe"} <= set(signatures)
    stream = t2aux.load(exported.directory).stream()
    for part in np.array_split(x[0], 4):
        answer = stream.read(part)
    np.testing.assert_allclose(answer, made.predict([x[0]], verbose=0)[0], rtol=0, atol=EXACT)


def test_what_is_not_known_is_left_out(whole, tmp_path):
    made, _, exported = whole
    metadata = litert.read_metadata(exported.directory)
    assert {"checkpoint", "configuration"}.isdisjoint(metadata)
    card = (exported.directory / "README.md").read_text()
    assert card.startswith("# name of it\n")
    assert "| data | waves |" in card
    assert "checkpoint" not in card
    assert "prediction" in card  # The auxiliary loss.
    unmeasured = export(made, tmp_path, formats=["saved_model"], serving_batch_sizes=[1])
    card = (unmeasured.directory / "README.md").read_text()
    assert "| data |" not in card
    assert "not measured" in card
    written = files.read_json(unmeasured.directory / "parity.json")
    assert (written["measured"], written["passed"], written["artefacts"]) == (False, None, {})
    assert "Nothing was measured" in unmeasured.parity.table()


def test_a_session_loads_it_as_tensorflow_serving_does(whole):
    made, x, exported = whole
    with tf.compat.v1.Session(graph=tf.Graph()) as session:
        loaded = tf.compat.v1.saved_model.loader.load(
            session, ["serve"], str(exported.directory)
        ).signature_def["serving_default"]
        found = session.run(
            loaded.outputs["probabilities"].name,
            {loaded.inputs["inputs"].name: [x[0]], loaded.inputs["lengths"].name: [len(x[0])]},
        )
    np.testing.assert_allclose(found, made.predict([x[0]], verbose=0), rtol=0, atol=EXACT)


def test_the_next_version_reads_one_length_only(whole):
    made, _, exported = whole
    base, x = exported.directory.parent, sequences(lengths=[6, 6])
    options = {"test_data": (x, labels(2)), "steps": 6, "formats": ["tflite"]}
    again = export(made, base, parity_examples=1, **options)
    assert again.directory == base / "2"
    assert again.parity.examples == 1
    entry = litert.read_metadata(again.directory)["artefacts"]["classifier_stateful.tflite"]
    assert entry["segment"] == 6
    with pytest.raises(DataError, match=r" 5 steps .* 6"):
        t2aux.load(base).predict([x[0][:5]])
    with pytest.raises(FileError, match=f"^{base} .* 1: .* 3"):
        export(made, base, version=1)
    options["test_data"] = ([x[0], sequences()[0]], [0, 1])
    with pytest.raises(DataError, match=r"x\[1\]: .* 9 steps .* 6"):
        export(made, base, **options)
    assert sorted(path.name for path in base.iterdir()) == ["1", "2"]


@pytest.fixture(scope="module")
def of_ids(tmp_path_factory):
    made, x = model("own cell", ids=True), sequences(ids=True)
    folder = tmp_path_factory.mktemp("ids") / "ids"
    return made, x, export(made, folder, test_data=(x, labels()))


def test_ids_have_no_signature_for_text_and_a_cell_of_a_user_s_exports(of_ids):
    made, x, exported = of_ids
    assert len(check(exported, made, x)) == 3  # The SavedModel and two files.
    metadata = litert.read_metadata(exported.directory)
    assert metadata["kind"] == "ids"
    assert metadata["model"]["core"] == "OwnCell"
    assert metadata["state"] == {"output": [6], "states_0": [3]}
    assert metadata["preprocessing"]["ids"] == IDS
    assert "serving_text" not in metadata["artefacts"]["SavedModel"]["signatures"]
    assert "no signature for text" in (exported.directory / "README.md").read_text()
    assert set(exported.parity.artefacts) >= {"SavedModel serving_classify", litert.WHOLE}
    loaded = t2aux.load(exported.directory)
    with pytest.raises(DataError, match=r"ids.* text"):
        loaded.predict_texts(["abc"])
    with pytest.raises(DataError, match=r"x\[1\]: .* id 7"):
        loaded.predict([[1, 2], [7]])


def test_ids_are_read_from_files(of_ids, tmp_path):
    made, x, exported = of_ids
    np.savez(tmp_path / "x.npz", inputs=x[0][np.newaxis])
    loaded = litert.LiteRTClassifier(exported.directory / litert.STREAM)
    (item,) = reading.read_inputs(loaded.info, [str(tmp_path / "x.npz")])
    wanted = made.predict(x[:1], verbose=0)[0]
    np.testing.assert_allclose(loaded.probabilities(item.sequence), wanted, rtol=0, atol=EXACT)
    (tmp_path / "x.txt").write_text("abc")
    for given, texts in (([str(tmp_path / "x.txt")], []), ([], ["abc"])):
        with pytest.raises(DataError, match="sequences of ids"):
            list(reading.read_inputs(loaded.info, given, texts))


def test_variants(tmp_path, caplog):
    made, x = model(t2aux.layers.LSTM(32)), sequences()
    exported = export(
        made,
        tmp_path,
        test_data=(x, labels()),
        calibration_data=x,
        formats=["tflite"],
        variants=["int8", "float16"],
        quantised_accuracy_tolerance=100,
        quantised_probability_tolerance=5e-4,
    )
    assert {path.name for path in exported.directory.glob("*.tflite")} == {
        litert.file_name(form, "float16") for form in (litert.WHOLE_FORM, litert.STREAM_FORM)
    }
    assert exported.parity.passed is False
    (failure,) = exported.parity.failures()
    for part in ("int8", "the model's", "quantised_probability_tolerance=0.0005"):
        assert part in failure
    assert failure in caplog.text


FORMS = {
    "list": lambda x: x,
    "padded and lengths": lambda x: (padded(x), np.array(LENGTHS)),
    "padded and mask": lambda x: (padded(x), np.arange(9) < np.array(LENGTHS)[:, None]),
    "dictionary": lambda x: {"inputs": padded(x), "lengths": np.array(LENGTHS)},
    "ragged": lambda x: tf.RaggedTensor.from_row_lengths(np.concatenate(x), LENGTHS),
    "array of objects": lambda x: np.array([*x, None], object)[:-1],
}


def padded(rows):
    found = np.full((len(rows), 9, *rows[0].shape[1:]), 5, rows[0].dtype)
    for target, row in zip(found, rows, strict=True):
        target[: len(row)] = row
    return found


@pytest.mark.parametrize("ids", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_forms_of_test_data(form, ids):
    info, x = info_of(shared(ids=ids)), sequences(ids)
    split = keras_export._split(info, (FORMS[form](x), labels()), None)
    assert split.labels.tolist() == labels().tolist()
    for index, row in enumerate(x):
        np.testing.assert_array_equal(split.example(index), row)


def test_labels_may_be_one_hot_and_a_dataset_is_taken():
    info, x = info_of(shared()), sequences()
    given = (padded(x), np.array(LENGTHS)), keras.utils.to_categorical(labels(), CLASSES)
    split = keras_export._split(info, tf.data.Dataset.from_tensor_slices(given).batch(2), None)
    assert split.labels.tolist() == labels().tolist()
    assert split.lengths.tolist() == LENGTHS
    array = keras_export._split(info, (padded(x), labels()), 3)
    assert array.lengths.tolist() == [9, 9, 9]


@keras.saving.register_keras_serializable(package="tests")
class Begun(keras.layers.GRUCell):
    """Whose first state is not zeros."""

    def get_initial_state(self, batch_size=None):
        return [tf.ones([batch_size, self.units])]


def unbuilt():
    return t2aux.SequenceClassifier(classes=3)


def endless():
    return tf.data.Dataset.from_tensors((np.zeros([1, 3, 2]), [0])).repeat()


X = np.zeros([2, 4, 2], np.float32)


@pytest.mark.parametrize(
    ("make", "options", "kind", "message"),
    [
        (unbuilt, {}, ModelError, "weights"),
        (lambda: keras.Sequential(), {}, SettingError, " Sequential"),
        (lambda: model(Begun(4)), {}, ModelError, "Begun .*zeros"),
        (shared, {"test_data": X}, DataError, "test_data .* ndarray"),
        (shared, {"test_data": (X, [0])}, DataError, " 2 .* y 1"),
        (shared, {"test_data": (X, [0, 3])}, DataError, " 0 to 2.* 0 to 3"),
        (shared, {"test_data": (X, [0.5, 1])}, DataError, "float64"),
        (shared, {"test_data": (X[..., :1], [0, 1])}, DataError, r"x\[0\]: .*\[T, 2\]"),
        (shared, {"test_data": (X[0], [0, 1])}, DataError, r"\(4, 2\).*\[N, steps, channels\]"),
        (shared, {"test_data": (np.full_like(X, np.nan), [0, 1])}, DataError, r"x\[0\]: .*NaN"),
        (shared, {"test_data": (X[:0], [])}, DataError, "test_data .*empty"),
        (shared, {"test_data": ((X, [4, 5]), [0, 1])}, DataError, "1 to .* 4 .* 4 to 5"),
        (shared, {"test_data": endless}, DataError, r"repeat\(\)"),
        (lambda: shared(ids=True), {"test_data": ([[1, 7]], [0])}, DataError, r"x\[0\]: .* id 7"),
        (shared, {"variants": ["int8"]}, SettingError, "int8 .*calibration_data"),
        (shared, {"variants": ["int9"]}, SettingError, "'int9'"),
        (shared, {"variants": "float16"}, SettingError, r"variants .*\['float16'\]"),
        (shared, {"formats": ["onnx"]}, SettingError, "'onnx'"),
        (shared, {"version": 0}, SettingError, "version .* 0: .* 1 "),
        (shared, {"steps": 0}, SettingError, "steps .* 0: .* 1"),
        (shared, {"segment": 0}, SettingError, "segment .* 0 steps: .* 1"),
        (shared, {"parity_examples": -1}, SettingError, "parity_examples .* -1: .* 0"),
    ],
)
def test_wrong_use(make, options, kind, message, tmp_path):
    if callable(options.get("test_data")):
        options = {"test_data": options["test_data"]()}
    with pytest.raises(kind, match=message):
        t2aux.export_model(make(), tmp_path / "base", **options)
    assert not (tmp_path / "base").exists()


def test_a_directory_that_can_t_be(tmp_path):
    (tmp_path / "file").touch()
    for place in (tmp_path / "file", tmp_path / "file" / "base"):
        with pytest.raises(FileError, match=f" {place}: "):
            t2aux.export_model(shared(), place)
    for place, message in (("", "empty"), ("gs://bucket/x", "gs://bucket/x, "), (3, "int")):
        with pytest.raises(SettingError, match=f"output_dir .*{message}"):
            t2aux.export_model(shared(), place)


def test_the_docstring_s_example(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    x, y = np.random.default_rng(0).random([60, 8, CHANNELS], np.float32), labels(60)
    made = model("mingru")
    names = {"t2aux": t2aux, "model": made, "x": x, "y": y}
    (example,) = doctest.DocTestFinder().find(t2aux.export_model, "export_model", globs=names)
    assert example.examples
    assert not doctest.DocTestRunner().run(example).failed
    loaded = t2aux.load("exports/digits")
    np.testing.assert_allclose(loaded.predict(x[:5]), made.predict(x[:5]), rtol=0, atol=EXACT)
    assert litert.read_metadata("exports/digits/1")["model"]["core"] == "MinGRU"
