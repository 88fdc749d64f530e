"""The C++ example: compiled here, and held against the Python client."""

import dataclasses
import json
import pathlib
import re
import shutil
import subprocess

import numpy as np
import pytest
import tensorflow as tf

from t2aux.export import tflite, variants
from t2aux_ondevice import litert, reading
from t2aux_ondevice.errors import DataError
from tests import networks, small_exports
from tests.cores import CORES
from tests.ondevice.cpp import build, make

INFOS = {
    "images": small_exports.IMAGES,
    "text": small_exports.TEXT,
    "vectors": small_exports.VECTORS,
}
FORMS = (litert.WHOLE_FORM, litert.STREAM_FORM)


@pytest.fixture(scope="module")
def exports(tmp_path_factory):
    """The folder of an export of each kind."""
    place = tmp_path_factory.mktemp("exports")
    for name, info in INFOS.items():
        small_exports.write(place / name, info)
    return place


@pytest.fixture
def copied(exports, tmp_path):
    """A copy of the export of vectors, to be damaged."""
    return shutil.copytree(exports / "vectors", tmp_path / "export")


def run(program, *arguments, given=b""):
    return subprocess.run(
        [program, *arguments],
        input=given if isinstance(given, bytes) else given.encode(),
        capture_output=True,
        timeout=120,
    )


def answers(program, *arguments, given):
    """The lines that a run answers with: steps read, and probabilities."""
    done = run(program, *arguments, given=given)
    assert (done.returncode, done.stderr) == (0, b""), done.stderr
    lines = [line.split() for line in done.stdout.decode().splitlines()]
    return [int(line[0]) for line in lines], np.array([line[1:] for line in lines], np.float64)


def fails(program, *arguments, given=b""):
    """The one sentence with which a run fails."""
    done = run(program, *arguments, given=given)
    error = done.stderr.decode()
    assert done.returncode == 1, (done.returncode, error)
    assert error.startswith("classify: error: ")
    assert error.endswith(".\n")
    assert error.count("\n") == 1
    return error


def sequence_of(info, steps, seed=0):
    rng = np.random.default_rng(seed)
    if info.is_text:
        return rng.integers(0, info.vocabulary_size, steps).astype("<i4")
    return rng.random([steps, info.channels]).astype("<f4")


def as_text(sequence):
    return "\n".join(",".join(map(str, np.ravel(step))) for step in sequence)


@pytest.mark.parametrize("kind", INFOS)
@pytest.mark.parametrize("form", FORMS)
def test_it_answers_as_the_python_client(classify, exports, kind, form):
    path = exports / kind / litert.file_name(form)
    client = litert.LiteRTClassifier(path)
    found = []
    longest = INFOS[kind].max_length or 301
    for seed, steps in enumerate([16] if INFOS[kind].length else [1, 2, 9, longest]):
        sequence = sequence_of(INFOS[kind], steps, seed)
        expected = client.probabilities(sequence)
        for arguments, given in (
            (["--input=raw"], sequence.tobytes()),
            (["--input=text"], as_text(sequence)),
            ([], as_text(sequence) + "\n"),
        ):
            read, probabilities = answers(classify, path, *arguments, given=given)
            assert read == [steps]
            np.testing.assert_allclose(probabilities, [expected], rtol=0, atol=1e-6)
        found.append(expected[0])
    assert len(found) == 1 or np.ptp(found) > 1e-3


@pytest.mark.parametrize("kind", INFOS)
@pytest.mark.parametrize("segment", [1, 4, 7, 100])
def test_it_streams_as_the_python_client(classify, exports, kind, segment):
    path = exports / kind / litert.STREAM
    sequence = sequence_of(INFOS[kind], 16)
    expected = list(litert.LiteRTClassifier(path).stream(sequence, segment))
    arguments = [path, f"--segment={segment}", "--input=raw"]
    read, probabilities = answers(classify, *arguments, "--every", given=sequence.tobytes())
    assert read == [steps for steps, _ in expected]
    np.testing.assert_allclose(probabilities, [p for _, p in expected], rtol=0, atol=1e-6)
    # Without --every only the last.
    read, last = answers(classify, *arguments, given=sequence.tobytes())
    assert read == [16]
    np.testing.assert_array_equal(last, probabilities[-1:])


def test_it_reads_files_of_any_core(classify, tmp_path):
    small_exports.write(tmp_path / "export", INFOS["vectors"], core=CORES["own"])
    sequence = sequence_of(INFOS["vectors"], 16)
    for form, segment in ((litert.WHOLE_FORM, 16), (litert.STREAM_FORM, 5)):
        path = tmp_path / "export" / litert.file_name(form)
        expected = [p for _, p in litert.LiteRTClassifier(path).stream(sequence, segment)]
        arguments = [path, "--input=raw", *(["--every", f"--segment={segment}"] * (segment == 5))]
        _, found = answers(classify, *arguments, given=sequence.tobytes())
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
        assert np.ptp(found) > 1e-2


def test_it_reads_bytes_as_pixels(classify, exports):
    pixels = np.arange(16, dtype=np.uint8).reshape(4, 4) * 17
    for form in FORMS:
        client = litert.LiteRTClassifier(exports / "images" / litert.file_name(form))
        expected = client.probabilities(client.info.image_sequence(pixels))
        path = exports / "images" / litert.file_name(form)
        _, found = answers(classify, path, "--input=bytes", given=pixels.tobytes())
        np.testing.assert_allclose(found, [expected], rtol=0, atol=1e-6)


# Latin, Greek, Han and other characters, in and out of the Basic Multilingual Plane.
LETTERS = [*map(chr, range(32, 127)), *map(chr, range(0x391, 0x3CA)), *'é中文\n"\\\u2028😀𝄞\x01']
TEXTS = {
    "characters": dataclasses.replace(
        INFOS["text"], vocabulary=("\ufffd", *dict.fromkeys(LETTERS))
    ),
    "bytes": dataclasses.replace(INFOS["text"], tokens="bytes", vocabulary=None),
}


@pytest.fixture(scope="module", params=TEXTS)
def texts(request, tmp_path_factory):
    """The folder of an export that reads texts, and what it reads."""
    info = TEXTS[request.param]
    assert info.vocabulary_size > 122
    path = tmp_path_factory.mktemp("texts") / "export"
    small_exports.write(path, info)
    return path, info


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "text",
    [
        "A village in Norway.",
        "Ἀθῆναι, αβγ ΑΒΓ \u2028 中文 😀𝄞\x01",
        "ж is not in the vocabulary, 🚀 neither",
        '"\\',
        "\ufeffa byte order mark before it",
        "\ufeff\ufeff",
        "a line break at its end\n",
        "another\r\n",
        "one of the old kind\r",
        "two\n\n",
        "\r\r\n and \n\r",
        " " * 30 + "x",
        "z" * 100,
    ],
)
def test_a_text_is_read_as_by_the_python_client(classify, texts, tmp_path, form, text):
    folder, info = texts
    path = folder / litert.file_name(form)
    given = text.encode()
    (tmp_path / "it.txt").write_bytes(given)
    (item,) = reading.read_inputs(info, [str(tmp_path / "it.txt")])
    expected = litert.LiteRTClassifier(path).probabilities(item.sequence)
    read, found = answers(classify, path, "--input=bytes", given=given)
    assert read == [len(item.sequence)]
    np.testing.assert_allclose(found, [expected], rtol=0, atol=1e-6)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("text", ["é" * 60 + "a" * 240, " " * 150 + "x", "中" * 101, "a" * 101])
def test_a_long_text_is_cut_as_by_the_python_client(classify, texts, tmp_path, form, text):
    folder, info = texts
    path = folder / litert.file_name(form)
    ids = info.text_ids(text)
    assert len(ids) == 100
    expected = litert.LiteRTClassifier(path).probabilities(ids)
    for arguments, given in (
        (["--input=bytes"], text),
        (["--input=raw"], np.append(ids, [1] * 50).astype("<i4").tobytes()),
        (["--input=text"], as_text([*ids, 1])),
    ):
        done = run(classify, path, *arguments, given=given)
        assert done.returncode == 0, done.stderr
        assert re.fullmatch(rb"classify: .* cut .* 100 steps, .*\n", done.stderr)
        steps, *found = done.stdout.split()
        assert int(steps) == 100
        np.testing.assert_allclose(np.array(found, float), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("given", "message"),
    [
        (b"", "empty"),
        (b"\xef\xbb\xbf\n", "empty"),
        (" \t\x1c\x85\xa0\u1680\u2003\u2029\u3000\n".encode(), "empty"),
        (b" " * 500, "empty"),
        (b"\xff", "UTF-8"),
        (b"ab\xc3", "UTF-8"),
        (b"\xc0\x80", "UTF-8"),
        (b"\xed\xa0\x80", "UTF-8"),
        (b"\xf4\x90\x80\x80", "UTF-8"),
    ],
)
def test_a_wrong_text_is_one_sentence(classify, texts, tmp_path, form, given, message):
    folder, info = texts
    (tmp_path / "it.txt").write_bytes(given)
    with pytest.raises(DataError, match=message):
        list(reading.read_inputs(info, [str(tmp_path / "it.txt")]))
    path = folder / litert.file_name(form)
    assert message in fails(classify, path, "--input=bytes", given=given)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace('"characters"', '"syllables"'), "tokens .*vocabulary"),
        (lambda text: text.replace('"characters"', "null"), "tokens .*vocabulary"),
        (lambda text: text.replace('"a"', '"ab"', 1), "tokens .*vocabulary"),
        (lambda text: text.replace('"b"', '"a"', 1), "tokens .*vocabulary"),
        (lambda text: text.replace('"preprocessing"', '"other"'), " text .* ids"),
        (lambda text: text.replace('"max_length": 100', '"max_length": -1'), "JSON"),
        (lambda text: text.replace('"a"', '"\\ud8"', 1), "JSON"),
        (lambda text: text + "}", "JSON"),
        (lambda text: text.rstrip()[:-1], "JSON"),
        (lambda text: text.replace("{", '{"x": ' + "[" * 1_000_000, 1), "JSON"),
    ],
)
def test_damaged_metadata_is_one_sentence(classify, exports, tmp_path, change, message):
    folder = shutil.copytree(exports / "text", tmp_path / "export")
    metadata = folder / litert.METADATA
    changed = change(metadata.read_text())
    assert changed != metadata.read_text()
    metadata.write_text(changed)
    error = fails(classify, folder / litert.WHOLE, "--input=bytes", given="abc")
    assert re.search(f"{metadata.name} .*{message}", error)


def test_metadata_is_read_however_json_writes_it(classify, tmp_path):
    """Characters as escapes, as themselves, and in halves."""
    info = TEXTS["characters"]
    small_exports.write(tmp_path / "export", info)
    path = tmp_path / "export" / litert.WHOLE
    metadata = path.with_name(litert.METADATA)
    expected = litert.LiteRTClassifier(path).probabilities(info.text_ids('中😀é"/'))
    for ascii_only in (False, True):
        for indent in (None, 2):
            written = json.loads(metadata.read_text())
            text = json.dumps(written, ensure_ascii=ascii_only, indent=indent)
            metadata.write_text(text.replace('"/"', '"\\/"'))
            _, found = answers(classify, path, "--input=bytes", given='中😀é"/')
            np.testing.assert_allclose(found, [expected], rtol=0, atol=1e-6)


def resident(process):
    status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0])


def test_a_long_sequence_is_read_as_it_comes_in_constant_memory(classify, exports):
    path = exports / "vectors" / litert.STREAM
    sequence = sequence_of(INFOS["vectors"], 16_384)
    command = [classify, path, "--input=raw", "--segment=64", "--every"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        kilobytes = []
        for begin in range(0, len(sequence), 64):
            process.stdin.write(sequence[begin : begin + 64].tobytes())
            process.stdin.flush()
            steps, *probabilities = process.stdout.readline().split()
            assert int(steps) == begin + 64
            kilobytes.append(resident(process))
        process.stdin.close()
        assert process.stdout.read() == b""
        assert process.wait(120) == 0
    assert kilobytes[-1] - kilobytes[32] < 100
    expected = litert.LiteRTClassifier(path).probabilities(sequence)
    np.testing.assert_allclose(np.array(probabilities, float), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["float16", "dynamic_int8"])
def test_it_runs_variants(classify, tmp_path, name):
    # Smaller matrices are not quantised.
    content = tflite.convert(
        networks.classifier(INFOS["text"], hidden=32), litert.STREAM_FORM, variants.VARIANTS[name]
    )
    path = tmp_path / "renamed.tflite"
    path.write_bytes(content)
    (tmp_path / litert.METADATA).write_text(json.dumps(litert.digest(content)))
    sequence = sequence_of(INFOS["text"], 50)
    _, found = answers(classify, path, "--input=raw", "--segment=9", given=sequence.tobytes())
    zeros = np.zeros([1, 32], np.float32)
    expected = litert.LiteRTModel(path)(segment=sequence[np.newaxis], h=zeros, c=zeros)
    np.testing.assert_allclose(found, expected["probabilities"], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "arguments", "given", "message"),
    [
        ("images", [], "0.5 " * 15, " 15 steps .* 16"),
        ("images", [], "0.5 " * 17, " 16 steps"),
        ("vectors", [], "", "empty"),
        ("vectors", ["--input=raw"], "", "empty"),
        ("vectors", [], " ,\n", "comma .*number"),
        ("vectors", [], "1 2 3", " 3 values, .* 2 values"),
        ("vectors", [], "1 2 0 nan", "NaN .*step 1 .*0"),
        ("vectors", [], "1 -inf", "NaN .*step 0 "),
        ("vectors", [], "1 1e300", "NaN .*step 0 "),
        ("vectors", [], "1,,2,3", "comma .*number"),
        ("vectors", [], "1, 2\n,3\n", "comma .*number"),
        ("vectors", [], ",1,2", "comma .*number"),
        ("text", [], "1,2,,3", "comma .* id"),
        ("vectors", [], "1 one", '"one" .*number'),
        ("vectors", [], "1\0 2", r'"1\?" .*number'),
        ("vectors", [], b"\x89PNG\r\n", r'"\?PNG" .*number'),
        ("vectors", [], "1" * 100, '"111.*number'),
        ("vectors", ["--input=raw"], "1234567", "within a value"),
        ("vectors", ["--input=raw"], b"\0\0\xc0\x7f" * 2, "NaN .*step 0 "),
        ("text", [], "1 2.5", r'"2\.5" .* id '),
        ("text", [], "1 -1", " -1 .*step 1"),
        ("text", [], "1 99999999999", " 99999999999, .*vocabulary"),
        ("text", [], "1 7", "vocabulary"),
    ],
)
def test_a_wrong_sequence_is_one_sentence(classify, exports, kind, arguments, given, message):
    error = fails(classify, exports / kind / litert.WHOLE, *arguments, given=given)
    assert re.search(message, error)
    if kind != "images":  # The file does not have the number of steps of an image.
        path = exports / kind / litert.STREAM
        assert re.search(message, fails(classify, path, *arguments, given=given))


def test_steps_are_counted_over_all_segments(classify, exports):
    given = "0 " * 20 + "0 nan"
    error = fails(classify, exports / "vectors" / litert.STREAM, "--segment=4", given=given)
    assert "step 10 (" in error


@pytest.mark.parametrize("name", [litert.WHOLE, litert.STREAM])
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: b"", "empty"),
        (lambda content: content[:7], "TensorFlow Lite"),
        (lambda content: b"not a flatbuffer at all", "TensorFlow Lite"),
        (lambda content: content[: len(content) // 2], litert.METADATA),
        (lambda content: content[:-1], litert.METADATA),
        (lambda content: content + b"\0", litert.METADATA),
        (lambda content: content[:999] + b"~" + content[1000:], litert.METADATA),
    ],
)
def test_a_damaged_model_is_one_sentence(classify, copied, name, damage, message):
    path = copied / name
    path.write_bytes(damage(path.read_bytes()))
    assert re.search(f"{path} .*{message}", fails(classify, path, given="1 2"))


def test_a_model_of_any_size_is_known_by_its_digest(classify, copied, monkeypatch):
    path, metadata = copied / litert.WHOLE, copied / litert.METADATA
    whole = path.read_bytes()
    expected = answers(classify, path, given="1 2")[1]
    # LiteRT does not mind what follows.
    for more in range(1, 65):
        path.write_bytes(whole + bytes(more))
        metadata.write_text(json.dumps(litert.digest(path.read_bytes())))
        np.testing.assert_array_equal(answers(classify, path, given="1 2")[1], expected)
    # In its own folder, too.
    monkeypatch.chdir(copied)
    np.testing.assert_array_equal(answers(classify, path.name, given="1 2")[1], expected)


def test_a_missing_file_is_one_sentence(classify, copied):
    assert " absent.tflite: " in fails(classify, "absent.tflite")
    assert f" {copied} (Is a directory)" in fails(classify, copied)
    (copied / litert.METADATA).unlink()
    assert f" {copied / litert.METADATA}: " in fails(classify, copied / litert.WHOLE)


def test_another_form_is_one_sentence(classify, exports):
    path = exports / "vectors" / litert.file_name(litert.STATEFUL_FORM)
    assert f" {path} keeps its state" in fails(classify, path, given="1 2")
    for flag in ("--every", "--segment=3"):
        error = fails(classify, exports / "vectors" / litert.WHOLE, flag, given="1 2")
        assert f" {litert.STREAM} " in error


def test_a_file_of_something_else_is_one_sentence(classify, tmp_path):
    @tf.function(input_signature=[tf.TensorSpec([1, 3], name="inputs")])
    def double(inputs):
        return {"probabilities": inputs + inputs}

    content = tf.lite.TFLiteConverter.from_concrete_functions(
        [double.get_concrete_function()], tf.Module()
    ).convert()
    (tmp_path / "double.tflite").write_bytes(content)
    (tmp_path / litert.METADATA).write_text(json.dumps(litert.digest(content)))
    error = fails(classify, tmp_path / "double.tflite", given="1 2 3")
    assert re.search(r"/double\.tflite .*classifier .*t2aux ", error)


def test_weights_with_nan_are_errors(classify, tmp_path):
    classifier = networks.classifier(INFOS["vectors"])
    for variable in classifier.trainable_variables:
        variable.assign(variable * float("nan"))
    content = tflite.convert(classifier, litert.WHOLE_FORM)
    (tmp_path / litert.WHOLE).write_bytes(content)
    (tmp_path / litert.METADATA).write_text(json.dumps(litert.digest(content)))
    error = fails(classify, tmp_path / litert.WHOLE, given="1 2")
    assert re.search(f" {tmp_path / litert.WHOLE} .*NaN", error)


def test_an_answer_that_cannot_be_written_is_an_error(classify, exports):
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [classify, exports / "vectors" / litert.WHOLE],
            input=b"1 2",
            stdout=full,
            stderr=subprocess.PIPE,
        )
    assert done.returncode == 1
    assert re.fullmatch(rb"classify: error: .*\(No space left on device\)\.\n", done.stderr)


def test_litert_notes_what_it_does_only_where_wanted(classify, exports):
    path = exports / "vectors" / litert.WHOLE
    done = run(classify, path, "--verbose", given="1 2")
    assert done.returncode == 0
    assert b"INFO" in done.stderr
    assert done.stdout == run(classify, path, given="1 2").stdout


def value(sequence, i):
    return np.float32((i * (sequence + 3)) % 17) / np.float32(16)


def test_the_library_reads_sequences_by_turns(exports, tmp_path):
    """See turns.cc."""
    main = pathlib.Path(__file__).parent / "turns.cc"
    program = build(tmp_path / "turns", f"MAIN={main}", "CXXFLAGS=-O0 -Wall -Wextra -Werror")
    other = networks.classifier(INFOS["vectors"], hidden=6)
    content = tflite.convert(other, litert.STREAM_FORM)
    (tmp_path / litert.STREAM).write_bytes(content)
    (tmp_path / litert.METADATA).write_text(json.dumps(litert.digest(content)))
    folder = exports / "vectors"
    files = [folder / litert.STREAM, tmp_path / litert.STREAM, folder / litert.WHOLE]
    done = run(program, *files)
    assert done.returncode == 0, done.stderr
    lines = [line.split(" ", 1) for line in done.stdout.decode().splitlines()]
    assert "turn" not in {name for name, _ in lines}
    assert [text for name, text in lines if name in ("load", "length")] == ["ok"] * 5
    found = dict(lines)

    client = litert.LiteRTClassifier(folder / litert.WHOLE)
    for sequence, names in enumerate([["first"], ["second", "all"]]):
        values = np.array([value(sequence, i) for i in range(80)]).reshape(40, 2)
        expected = client.probabilities(values)
        for name in names:
            np.testing.assert_allclose(
                np.array(found[name].split(), float), expected, rtol=0, atol=1e-6
            )
    assert found["kept"] == "1"
    assert re.search("NaN .*step 41", found["nan"])
    assert " 3 values" in found["cut"]
    assert "empty" in found["none"]
    assert "real numbers" in found["ids"]
    assert "InitialState()" in found["strange"]
    assert "whole sequences" in found["whole"]
    assert int(found["resident"]) > 1000
    assert int(found["grown"]) < 100


def test_without_litert_make_says_so(tmp_path):
    done = make(tmp_path / "build", "LITERT=absent/libLiteRt.so")
    assert done.returncode != 0
    assert "'absent/libLiteRt.so'" in done.stderr
    assert not (tmp_path / "build").exists()
