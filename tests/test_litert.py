"""t2aux_ondevice.litert: right answers without TensorFlow, and one sentence for every damage."""

import json
import os
import shutil
import subprocess
import sys

import hypothesis
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import strategies as st

from t2aux.errors import DataError, DivergenceError, FileError, ModelError, SettingError, UserError
from t2aux.export import tflite
from t2aux_ondevice import litert
from tests import cli_helpers, networks, small_exports

INFOS = {
    "images": small_exports.IMAGES,
    "text": small_exports.TEXT,
    "vectors": small_exports.VECTORS,
}


@pytest.fixture(scope="module")
def exports(tmp_path_factory):
    """By kind of data: the directory of an export, and the classifier in it."""
    folder = tmp_path_factory.mktemp("exports")
    return {
        name: (folder / name, small_exports.write(folder / name, info))
        for name, info in INFOS.items()
    }


@pytest.fixture
def copied(exports, tmp_path):
    """A copy of the export of images, to be damaged."""
    return shutil.copytree(exports["images"][0], tmp_path / "export")


def rewrite_metadata(directory, **entries):
    path = directory / litert.METADATA
    path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))


def redescribe(directory, name):
    """Updates a file's entry in metadata.json."""
    described = json.loads((directory / litert.METADATA).read_text())["files"]
    described[name] = litert.digest((directory / name).read_bytes())
    rewrite_metadata(directory, files=described)


def sequences_of(info):
    """Three sequences; of different lengths where the classifier allows it."""
    lengths = [info.length] * 3 if info.length else [9, 4, 12]
    batch = networks.batch(info, lengths)
    return [batch.inputs[i, :n].numpy() for i, n in enumerate(lengths)]


@pytest.mark.parametrize("kind", INFOS)
def test_answers_equal_the_classifiers(exports, kind):
    directory, classifier = exports[kind]
    loaded = litert.LiteRTClassifier(directory / litert.WHOLE)
    # A normalisation is in the file itself.
    assert loaded.info == INFOS[kind].without_normalization()
    answers = []
    # Twice the same, since nothing may stay in the interpreter from one call to the next.
    for sequence in sequences_of(loaded.info) * 2:
        answers.append(loaded.probabilities(sequence))
        expected = classifier(tf.constant(sequence[np.newaxis]))[0]
        np.testing.assert_allclose(answers[-1], expected, atol=2e-6)
    assert answers[-1].dtype == np.float32
    assert np.ptp([answer[0] for answer in answers]) > 1e-3


@pytest.mark.parametrize("kind", INFOS)
@pytest.mark.parametrize("segment", [1, 5, 100])
def test_streamed_answers_are_those_of_the_beginnings(exports, kind, segment):
    directory, classifier = exports[kind]
    loaded = litert.LiteRTClassifier(directory / litert.WHOLE)
    for sequence in sequences_of(loaded.info):
        steps = []
        for done, probabilities in loaded.stream(sequence, segment):
            steps.append(done)
            expected = classifier(tf.constant(sequence[np.newaxis, :done]))[0]
            np.testing.assert_allclose(probabilities, expected, atol=2e-6)
        assert steps == [*range(segment, len(sequence), segment), len(sequence)]


def test_the_streaming_file_classifies_whole_sequences_too(exports):
    directory, _ = exports["text"]
    whole = litert.LiteRTClassifier(directory / litert.WHOLE)
    stream = litert.LiteRTClassifier(directory / litert.STREAM)
    for sequence in sequences_of(whole.info):
        np.testing.assert_allclose(
            stream.probabilities(sequence), whole.probabilities(sequence), atol=2e-6
        )


def test_a_renamed_file_is_known_by_its_content(copied):
    (copied / litert.WHOLE).rename(copied / "digits.tflite")
    sequence = sequences_of(small_exports.IMAGES)[0]
    assert litert.LiteRTClassifier(copied / "digits.tflite").probabilities(sequence).shape == (3,)


def test_tensorflow_is_not_imported(exports):
    code = (
        "import sys; sys.modules['tensorflow'] = sys.modules['keras'] = None\n"
        "import numpy as np, t2aux.evaluation.location, t2aux.cli.classify, t2aux.cli.main\n"
        "from t2aux_ondevice import litert\n"
        "loaded = litert.LiteRTClassifier(sys.argv[1])\n"
        "print(loaded.probabilities(np.ones([16, 1], 'f')).sum())\n"
        "for _ in loaded.stream(np.ones([16, 1], 'f'), 4): print(_[0])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, exports["images"][0] / litert.WHOLE],
        capture_output=True,
        text=True,
        env=cli_helpers.environment(),
    )
    assert done.returncode == 0, done.stderr
    total, *steps = done.stdout.split()
    assert float(total) == pytest.approx(1)
    assert steps == ["4", "8", "12", "16"]


@pytest.mark.parametrize(
    ("kind", "sequence", "message"),
    [
        ("images", np.zeros([15, 1]), " 15 steps .* 16"),
        ("images", np.zeros([16, 3]), r" \[16, 3\]: .*\[T, 1\]"),
        ("images", np.zeros([16]), r" \[16\]: .*\[T, 1\]"),
        ("images", np.full([16, 1], "a"), "real numbers"),
        ("vectors", np.zeros([0, 2]), r" \[0, 2\]: .*one step"),
        ("vectors", np.array([[0, 0], [0, np.nan]]), "NaN .*step 1 "),
        ("vectors", np.array([[0, -np.inf]]), "NaN .*step 0 "),
        ("vectors", np.array([[0, 1e300]]), "NaN .*step 0 "),
        ("text", np.zeros([0], int), "one step"),
        ("text", np.zeros([4]), "integer ids"),
        ("text", np.zeros([4, 1], int), "integer ids"),
        ("text", np.array([0, 7]), " id 7: .* 0 to 6"),
        ("text", np.array([0, -1]), " id -1: "),
        ("text", np.array([2**40]), " id 1099511627776: "),
    ],
)
def test_a_wrong_sequence_is_one_sentence(exports, kind, sequence, message):
    loaded = litert.LiteRTClassifier(exports[kind][0] / litert.WHOLE)
    with pytest.raises(DataError, match=message):
        loaded.probabilities(sequence)
    with pytest.raises(DataError, match=message):
        list(loaded.stream(sequence, 4))


def test_a_segment_has_a_step(exports):
    loaded = litert.LiteRTClassifier(exports["images"][0] / litert.WHOLE)
    with pytest.raises(SettingError, match=r"segment .* 0 steps"):
        list(loaded.stream(np.zeros([16, 1]), 0))


def flip(content, position):
    return content[:position] + bytes([content[position] ^ 4]) + content[position + 1 :]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: b"", "empty"),
        (lambda content: content[:7], "TensorFlow Lite"),
        (lambda content: b"PK\x03\x04" + content[4:], "damaged"),
        (lambda content: b"not a flatbuffer at all", "TensorFlow Lite"),
        (lambda content: content[: len(content) // 2], "damaged"),
        (lambda content: content[:-1], "damaged"),
        (lambda content: content + b"\0", "damaged"),
        (lambda content: flip(content, len(content) // 2), "sha256"),
        (lambda content: flip(content, len(content) - 1), "sha256"),
    ],
)
@pytest.mark.parametrize("name", [litert.WHOLE, litert.STREAM])
def test_a_damaged_file_is_one_sentence(copied, name, damage, message):
    path = copied / name
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ModelError, match=message) as error:
        list(litert.LiteRTClassifier(copied / litert.WHOLE).stream(np.zeros([16, 1]), 16))
    assert "\n" not in str(error.value)
    assert name in str(error.value)


def test_a_file_that_was_damaged_before_it_was_described(copied):
    path = copied / litert.WHOLE
    path.write_bytes(path.read_bytes()[:-200])
    redescribe(copied, litert.WHOLE)
    with pytest.raises(ModelError, match=rf"LiteRT .* {path} \("):
        litert.LiteRTClassifier(path)


def test_a_file_of_another_export(copied, exports):
    shutil.copy(exports["vectors"][0] / litert.WHOLE, copied / litert.WHOLE)
    with pytest.raises(ModelError, match=r"/classifier\.tflite .*metadata\.json .*bytes: "):
        litert.LiteRTClassifier(copied / litert.WHOLE)


def test_metadata_that_contradicts_the_file(copied):
    preprocessing = json.loads((copied / litert.METADATA).read_text())["preprocessing"]
    preprocessing["classes"] = preprocessing["classes"][:2]
    rewrite_metadata(copied, preprocessing=preprocessing, classes=preprocessing["classes"])
    with pytest.raises(ModelError, match=r" \[1, 3\], .* 2 classes"):
        litert.LiteRTClassifier(copied / litert.WHOLE).probabilities(np.zeros([16, 1]))


def test_a_tflite_file_of_something_else(copied):
    @tf.function(input_signature=[tf.TensorSpec([1, 3], name="x")])
    def double(x):
        return {"y": x + x}

    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [double.get_concrete_function()], tf.Module()
    )
    (copied / litert.WHOLE).write_bytes(converter.convert())
    with pytest.raises(ModelError, match=r"/classifier\.tflite .*metadata\.json .*bytes: "):
        litert.LiteRTClassifier(copied / litert.WHOLE)
    redescribe(copied, litert.WHOLE)
    with pytest.raises(ModelError, match=r"/classifier\.tflite .* t2aux "):
        litert.LiteRTClassifier(copied / litert.WHOLE)


def test_weights_with_nan_are_errors(copied):
    classifier = networks.classifier(INFOS["images"])
    for variable in classifier.trainable_variables:
        variable.assign(variable + np.nan)
    (copied / litert.WHOLE).write_bytes(tflite.convert(classifier, litert.WHOLE_FORM))
    redescribe(copied, litert.WHOLE)
    with pytest.raises(DivergenceError, match="NaN"):
        litert.LiteRTClassifier(copied / litert.WHOLE).probabilities(np.ones([16, 1]))


@pytest.mark.parametrize(
    ("missing", "kind"),
    [(litert.WHOLE, FileError), (litert.METADATA, ModelError), (litert.STREAM, ModelError)],
)
def test_a_missing_file(copied, missing, kind):
    os.remove(copied / missing)
    with pytest.raises(kind, match=rf"[ /]{missing}\b"):
        list(litert.LiteRTClassifier(copied / litert.WHOLE).stream(np.zeros([16, 1]), 4))


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"format": "keras"}, r"/metadata\.json .* t2aux"),
        ({"format_version": 2}, "version 2, .* 1"),
        ({"format_version": True}, "version True, .* 1"),
        ({"format_version": "1"}, "version '1', .* 1"),
        ({"preprocessing": None}, "preprocessing"),
        ({"preprocessing": {"name": "x"}}, "preprocessing"),
        ({"classes": ["a"]}, "`classes`"),
        ({"files": None}, "`files`"),
        ({"files": {litert.WHOLE: 3}}, "`files`"),
        ({"files": {}}, r"^metadata\.json .*classifier\.tflite"),
        ({"files": {litert.WHOLE: {}}}, r"/classifier\.tflite .*metadata\.json"),
        ({"artefacts": []}, "`artefacts`"),
    ],
)
def test_damaged_metadata(copied, entries, message):
    rewrite_metadata(copied, **entries)
    with pytest.raises(ModelError, match=message):
        litert.LiteRTClassifier(copied / litert.WHOLE)


@pytest.mark.parametrize("content", ["", "[" * 100_000, "[]", "null", '{"format"', "\ufeff{}"])
def test_metadata_that_is_invalid(copied, content):
    (copied / litert.METADATA).write_text(content, "utf-8")
    with pytest.raises(ModelError, match=r"/metadata\.json"):
        litert.LiteRTClassifier(copied / litert.WHOLE)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


def entries_of(value, place=()):
    """All places in a JSON value."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield (*place, key)
            yield from entries_of(inner, (*place, key))


@hypothesis.settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
@hypothesis.given(st.data())
def test_metadata_with_anything_anywhere_never_ends_in_a_traceback(copied, exports, data):
    metadata = json.loads((exports["images"][0] / litert.METADATA).read_text())
    *way, last = data.draw(st.sampled_from(list(entries_of(metadata))))
    entry = metadata
    for key in way:
        entry = entry[key]
    if data.draw(st.booleans()):
        entry[last] = data.draw(JSON)
    else:
        del entry[last]
    (copied / litert.METADATA).write_text(json.dumps(metadata))
    try:
        answer = litert.LiteRTClassifier(copied / litert.WHOLE).probabilities(np.zeros([16, 1]))
    except UserError as error:
        assert "\n" not in str(error)  # noqa: PT017
    else:
        assert answer.shape == (3,)


@hypothesis.settings(
    max_examples=50,
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
@hypothesis.given(st.data())
def test_metadata_with_damaged_bytes_never_ends_in_a_traceback(copied, exports, data):
    content = bytearray((exports["images"][0] / litert.METADATA).read_bytes())
    position = data.draw(st.integers(0, len(content) - 1))
    content[position] = data.draw(st.integers(0, 255))
    del content[data.draw(st.integers(position, len(content))) :]
    (copied / litert.METADATA).write_bytes(content)
    try:
        litert.LiteRTClassifier(copied / litert.WHOLE)
    except UserError as error:
        assert "\n" not in str(error)  # noqa: PT017
