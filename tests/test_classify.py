"""t2aux classify: every form of a classifier, every kind of input, and errors."""

import dataclasses
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from t2aux import files
from t2aux.errors import DataError, DivergenceError, FileError, ModelError, UserError
from t2aux.evaluation import location
from t2aux.model import weights
from t2aux_ondevice import answers, litert, reading
from tests import cli_helpers, networks, small_exports


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """The directory of an export of images, in a base directory, and its classifier."""
    directory = tmp_path_factory.mktemp("images") / "12"
    return directory, small_exports.write(
        directory, small_exports.IMAGES, formats=("saved_model", "tflite")
    )


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """The same of text."""
    directory = tmp_path_factory.mktemp("texts") / "1"
    return directory, small_exports.write(
        directory, small_exports.TEXT, formats=("saved_model", "tflite")
    )


@pytest.fixture(scope="module")
def run_dir(images, tmp_path_factory):
    """A run's directory, of the classifier of images."""
    _, classifier = images
    directory = tmp_path_factory.mktemp("run")
    (directory / "config.gin").write_text(
        "Classifier.hidden_size = 5\nClassifier.projection_size = 4\nClassifier.head_size = 6\n"
    )
    files.write_json(directory / "dataset.json", classifier.info.to_json())
    tf.train.Checkpoint(classifier=weights.tree(classifier)).save(
        str(directory / "checkpoints" / "ckpt")
    )
    return directory


@pytest.fixture
def picture(tmp_path):
    """An image file, larger than the classifier's images."""
    pixels = np.random.default_rng(1).integers(0, 256, [8, 8], np.uint8)
    Image.fromarray(pixels).save(tmp_path / "picture.png")
    return tmp_path / "picture.png"


def made_up(sequence):
    return reading.Input("x", sequence, "x")


def expected(classifier, sequence):
    return classifier(tf.constant(sequence[np.newaxis]))[0].numpy()


# Where a classifier lies.


def touch(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


@pytest.mark.parametrize(
    ("files", "form", "found"),
    [
        (["config.gin", "dataset.json", "checkpoints/checkpoint"], "run", "."),
        (["saved_model.pb", "metadata.json", litert.WHOLE], "saved_model", "."),
        (["metadata.json", litert.WHOLE, litert.STREAM], "litert", litert.WHOLE),
        (["metadata.json", litert.STREAM], "litert", litert.STREAM),
        (["2/saved_model.pb", "10/saved_model.pb", "9/saved_model.pb"], "saved_model", "10"),
        (["2/saved_model.pb", "10/picture.png", "tmp/saved_model.pb"], "saved_model", "2"),
        (["3/metadata.json", f"3/{litert.WHOLE}"], "litert", f"3/{litert.WHOLE}"),
        (["3/metadata.json"], "saved_model", "3"),
    ],
)
def test_locate(tmp_path, files, form, found):
    touch(*(tmp_path / path for path in files))
    place = location.locate(tmp_path)
    assert (place.form, place.path) == (form, tmp_path / found)
    assert place.needs_tensorflow == (form != "litert")


def test_locate_nothing(tmp_path):
    with pytest.raises(FileError, match=f"{tmp_path / 'absent'} "):
        location.locate(tmp_path / "absent")
    touch(tmp_path / "1" / "picture.png")
    with pytest.raises(FileError, match=f"{tmp_path} "):
        location.locate(tmp_path)


# All forms answer alike.


@pytest.fixture(scope="module")
def all_forms(images, run_dir):
    directory, _ = images
    places = {"tflite": directory / litert.WHOLE, "export": directory.parent, "run": run_dir}
    return {name: location.locate(place).load() for name, place in places.items()}


@pytest.mark.parametrize("form", ["tflite", "export", "run"])
def test_all_forms_answer_alike(all_forms, images, picture, form):
    loaded = all_forms[form]
    _, classifier = images
    (item,) = reading.read_inputs(loaded.info, [str(picture)])
    assert item.name == item.title == str(picture)
    probabilities = expected(classifier, item.sequence)
    answer = answers.classify(loaded, item, top=2)
    best = np.argsort(-probabilities)[:2]
    assert answer.labels == tuple(best)
    assert answer.classes == tuple(small_exports.IMAGES.classes[i] for i in best)
    np.testing.assert_allclose(answer.probabilities, probabilities[best], atol=2e-6)
    streamed = list(answers.stream(loaded, item, segment=6, top=3))
    assert [(a.steps, a.total) for a in streamed] == [(6, 16), (12, 16), (16, 16)]
    for answer in streamed:
        sofar = expected(classifier, item.sequence[: answer.steps])
        np.testing.assert_allclose(answer.probabilities, -np.sort(-sofar), atol=2e-6)


@pytest.mark.parametrize("form", ["tflite", "export", "run"])
def test_all_forms_refuse_alike(all_forms, form):
    with pytest.raises(DataError, match=r"^x: .* 3 steps .* 16"):
        answers.classify(all_forms[form], made_up(np.zeros([3, 1])))
    with pytest.raises(DataError, match=r"^x: .*NaN"):
        list(answers.stream(all_forms[form], made_up(np.full([16, 1], np.nan))))


def test_texts_through_a_saved_model(texts):
    directory, classifier = texts
    loaded = location.locate(directory).load()
    for text in ("abc", "a bad cafe", "x"):
        (item,) = reading.read_inputs(loaded.info, [], [text])
        answers = loaded.probabilities(item.sequence)
        np.testing.assert_allclose(answers, expected(classifier, item.sequence), atol=2e-6)


@pytest.mark.parametrize("name", ["saved_model.pb", "variables/variables.data-00000-of-00001"])
def test_a_damaged_saved_model(images, tmp_path, name):
    directory = shutil.copytree(images[0], tmp_path / "export")
    content = (directory / name).read_bytes()
    (directory / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(ModelError, match=f"{directory / name} "):
        location.locate(directory).load()
    (directory / name).unlink()
    with pytest.raises(ModelError, match=f"{directory} .*{name}"):
        location.Location("saved_model", directory).load()


def test_weights_that_diverged_are_errors(images, run_dir, tmp_path):
    directory = shutil.copytree(run_dir, tmp_path / "run", ignore=lambda *_: ["checkpoints"])
    broken = networks.classifier(small_exports.IMAGES)
    broken.head.output_bias.assign(np.full(3, np.nan))
    tf.train.Checkpoint(classifier=weights.tree(broken)).save(
        str(directory / "checkpoints" / "ckpt")
    )
    with pytest.raises(DivergenceError, match=r"^x: .*NaN"):
        answers.classify(location.locate(directory).load(), made_up(np.zeros([16, 1])))


# Inputs.


def read(info, *paths, texts=()):
    found = reading.read_inputs(info, map(str, paths), texts)
    return [(item.name, item.sequence) for item in found]


def test_images_become_sequences(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, [4, 4, 3], np.uint8)
    image = Image.fromarray(pixels)
    for name in ("a.png", "a.bmp", "a.PNG", "no_suffix"):
        image.save(tmp_path / name, "bmp" if name == "a.bmp" else "png")
        ((_, sequence),) = read(small_exports.IMAGES, tmp_path / name)
        grey = np.asarray(image.convert("L")).reshape(16, 1) / np.float32(255)
        np.testing.assert_allclose(sequence, grey, atol=1e-6)


def test_texts_become_ids(tmp_path):
    for name, content in (
        ("plain.txt", b"abz\n"),
        ("windows.txt", b"abz\r\n"),
        ("mark.TXT", b"\xef\xbb\xbfabz"),
        ("no_suffix", b"abz"),
        ("notes.md", b"abz"),
    ):
        (tmp_path / name).write_bytes(content)
        ((_, ids),) = read(small_exports.TEXT, tmp_path / name)
        assert ids.tolist() == [1, 2, 0]
    ((name, ids),) = read(small_exports.TEXT, texts=["a\nb"])
    assert (name, ids.tolist()) == ("a\nb", [1, 0, 2])
    (item,) = reading.read_inputs(small_exports.TEXT, [], ["ab\n" * 500])
    assert len(item.sequence) == 100
    assert item.name == "ab\n" * 500
    assert item.title.startswith("'ab ab")
    assert len(item.title) < 80


def save(path, **arrays):
    np.savez(path, **arrays)
    return path


def test_arrays_become_sequences(tmp_path):
    random = np.random.default_rng(0)
    vectors = random.random([3, 5, 2])
    vectors[1, 4] = np.nan  # Behind the end of sequence 1.
    path = save(tmp_path / "a.npz", inputs=vectors, lengths=np.array([5, 4, 1]))
    found = read(small_exports.VECTORS, path)
    assert [name for name, _ in found] == [f"{path}[{i}]" for i in range(3)]
    assert [sequence.shape for _, sequence in found] == [(5, 2), (4, 2), (1, 2)]
    np.testing.assert_allclose(found[0][1], vectors[0], rtol=1e-6)

    ids = random.integers(0, 7, [2, 6])
    path = save(tmp_path / "b.npz", inputs=ids, lengths=np.array([6, 2]))
    assert [s.tolist() for _, s in read(small_exports.TEXT, path)] == [
        ids[0].tolist(),
        ids[1, :2].tolist(),
    ]

    pixels = random.integers(0, 256, [2, 16], np.uint8)
    forms = {
        "float [N, T]": pixels / 255,
        "float [N, T, 1]": pixels[..., np.newaxis] / 255,
        "uint8 [N, T]": pixels,
        "uint8 [N, T, 1]": pixels[..., np.newaxis],
        "images [N, H, W]": pixels.reshape(2, 4, 4),
        "images [N, H, W, 1]": pixels.reshape(2, 4, 4, 1),
    }
    for number, (form, inputs) in enumerate(forms.items()):
        found = read(small_exports.IMAGES, save(tmp_path / f"{number}.npz", inputs=inputs))
        assert len(found) == 2
        for index, (_, sequence) in enumerate(found):
            np.testing.assert_allclose(sequence[:, 0], pixels[index] / 255, atol=1e-6, err_msg=form)
    larger = save(tmp_path / "larger.npz", inputs=np.zeros([2, 9, 7, 3], np.uint8))
    assert [sequence.shape for _, sequence in read(small_exports.IMAGES, larger)] == [(16, 1)] * 2


@pytest.mark.parametrize(
    ("info", "arrays", "message"),
    [
        ("VECTORS", {"x": np.zeros([1, 2])}, "`inputs`"),
        ("VECTORS", {"inputs": np.zeros([2, 3, 3])}, r"\[2, 3, 3\], .*\[N, T, 2\]"),
        ("VECTORS", {"inputs": np.zeros([2, 3])}, r"\[2, 3, 1\], .*\[N, T, 2\]"),
        ("VECTORS", {"inputs": np.zeros([3])}, r" \[3\]"),
        ("VECTORS", {"inputs": np.zeros([0, 3, 2])}, r"\[0, 3, 2\]: .* 0\."),
        ("VECTORS", {"inputs": np.full([1, 3, 2], "a")}, "<U1 .*numbers"),
        ("VECTORS", {"inputs": np.array([[[0, 1], [np.nan, 1]]])}, r"\[0\]: .*NaN.*step 1"),
        ("VECTORS", {"inputs": np.array([[[np.inf, 1]]])}, "infinite"),
        ("VECTORS", {"inputs": np.ones([2, 3, 2]), "lengths": [3]}, r"integers \[2\]"),
        ("VECTORS", {"inputs": np.ones([2, 3, 2]), "lengths": [1.0, 2.0]}, "integers"),
        ("VECTORS", {"inputs": np.ones([2, 3, 2]), "lengths": [3, 4]}, "sequence 1 .* is 4"),
        ("VECTORS", {"inputs": np.ones([2, 3, 2]), "lengths": [0, 3]}, "sequence 0 .* is 0"),
        ("VECTORS", {"inputs": np.array([{}, []], object)}, "Python objects"),
        ("IMAGES", {"inputs": np.zeros([1, 9, 1])}, r"\[0\]: .* 9 steps .* 16"),
        ("IMAGES", {"inputs": np.zeros([1, 16, 3])}, r"\[1, 16, 3\], .*\[N, T, 1\]"),
        ("IMAGES", {"inputs": np.full([1, 16], 255.0)}, "pixel .* 255: "),
        ("IMAGES", {"inputs": np.full([1, 16], -1)}, "pixel .* -1: "),
        ("IMAGES", {"inputs": np.zeros([1, 4, 4, 2], np.uint8)}, r"\[0\]: .*shape \[4, 4, 2\]"),
        ("TEXT", {"inputs": np.zeros([1, 4])}, "integer ids"),
        ("TEXT", {"inputs": np.zeros([1, 4, 1], int)}, r"\[1, 4, 1\], .*\[N, T\]"),
        ("TEXT", {"inputs": np.array([[1, 7]])}, " id 7"),
    ],
)
def test_wrong_arrays(tmp_path, info, arrays, message):
    path = save(tmp_path / "wrong.npz", **arrays)
    with pytest.raises(DataError, match=message) as error:
        read(getattr(small_exports, info), path)
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)


def test_damaged_arrays(tmp_path):
    whole = save(tmp_path / "whole.npz", inputs=np.ones([4, 3, 2])).read_bytes()
    path = tmp_path / "damaged.npz"
    for content in (b"", b"abc", whole[:40], whole[: len(whole) // 2], whole[:-1]):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"/damaged\.npz .*\.npz file"):
            read(small_exports.VECTORS, path)
    for position in range(0, len(whole), 3):
        path.write_bytes(whole[:position] + b"\xff" + whole[position + 1 :])
        try:
            read(small_exports.VECTORS, path)
        except UserError as error:
            assert "\n" not in str(error)  # noqa: PT017


@pytest.mark.parametrize(
    ("info", "name", "content", "message"),
    [
        ("IMAGES", "a.png", b"", "empty"),
        ("IMAGES", "a.png", b"\x89PNG\r\n\x1a\n half", "damaged"),
        ("IMAGES", "a.txt", b"a", " text, .* images"),
        ("TEXT", "a.png", b"a", " image, .* texts"),
        ("TEXT", "a.txt", b"", r"a\.txt: .*empty"),
        ("TEXT", "a.txt", b" \n", r"a\.txt: .*empty"),
        ("TEXT", "a.txt", b"caf\xe9", "UTF-8"),
        ("VECTORS", "a.png", b"a", " image, .* vectors"),
        ("VECTORS", "a.txt", b"a", " text, .* vectors"),
    ],
)
def test_wrong_files(tmp_path, info, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as error:
        read(getattr(small_exports, info), tmp_path / name)
    assert str(tmp_path / name) in str(error.value)


def test_an_image_of_an_unsupported_mode(tmp_path):
    Image.fromarray(np.zeros([4, 4], np.float32)).save(tmp_path / "a.tiff")
    with pytest.raises(DataError, match=r"mode .*/a\.tiff .* F: "):
        read(small_exports.IMAGES, tmp_path / "a.tiff")


@pytest.mark.parametrize("name", ["absent.png", "absent.txt", "absent.npz", "absent"])
@pytest.mark.parametrize("info", ["IMAGES", "TEXT", "VECTORS"])
def test_absent_files_and_directories(tmp_path, info, name):
    with pytest.raises(FileError, match=f" {tmp_path / name}: "):
        read(getattr(small_exports, info), tmp_path / name)
    (tmp_path / name).mkdir()
    with pytest.raises(FileError, match=f"^{tmp_path / name} .*--data={tmp_path / name}`"):
        read(getattr(small_exports, info), tmp_path / name)


def test_a_text_in_the_place_of_a_file():
    with pytest.raises(FileError, match=r" word word .*--text"):
        read(small_exports.TEXT, "word " * 200)
    with pytest.raises(FileError, match="word word "):
        location.locate("word " * 200)


def test_wrong_texts():
    with pytest.raises(DataError, match=r"--text='': .*empty"):
        read(small_exports.TEXT, texts=[""])
    with pytest.raises(DataError, match=r"--text='a' .* text, .* images"):
        read(small_exports.IMAGES, texts=["a"])


# The command line; through LiteRT mostly, which starts faster.


def without_tensorflow(*arguments):
    """Runs `t2aux classify` where TensorFlow can't be imported."""
    code = (
        "import sys; sys.modules['tensorflow'] = sys.modules['keras'] = None\n"
        "sys.argv[:1] = ['t2aux', 'classify']\n"
        "from t2aux.cli import main; main.main()"
    )
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        env=cli_helpers.environment(),
        timeout=300,
    )


def test_it_prints_answers_without_tensorflow(images, picture):
    done = without_tensorflow(f"--model={images[0] / litert.WHOLE}", picture, picture, "--top=2")
    assert (done.returncode, done.stderr) == (0, "")
    first, *rest = done.stdout.splitlines()
    assert len(rest) == 5
    assert rest[2] == first
    name, best = first.rsplit(": ", 1)
    assert name == str(picture)
    assert rest[0].split()[0] == best.split(",")[0]
    assert rest[0].split()[1] == best.split()[1] == rest[0].split()[1]
    assert "#" in rest[0]


def test_it_prints_json(images, picture):
    model = images[0] / litert.WHOLE
    done = without_tensorflow(f"--model={model}", "--json", picture)
    (answer,) = map(json.loads, done.stdout.splitlines())
    assert answer["input"] == str(picture)
    assert answer["class"] == answer["top"][0]["class"]
    assert answer["probability"] == answer["top"][0]["probability"]
    assert sum(guess["probability"] for guess in answer["top"]) == pytest.approx(1)
    done = without_tensorflow(f"--model={model}", "--json", "--stream", "--segment=10", picture)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(a["steps"], a["of"]) for a in answers] == [(10, 16), (16, 16)]
    assert answers[-1]["top"][0]["probability"] == pytest.approx(answer["probability"], abs=1e-5)


def test_it_works_with_stderr_closed(images, picture):
    command = 'exec "$@" 2>&-'
    arguments = [sys.executable, "-m", "t2aux", "classify", f"--model={images[0] / litert.WHOLE}"]
    done = subprocess.run(
        ["sh", "-c", command, "sh", *arguments, str(picture)],
        stdout=subprocess.PIPE,
        text=True,
        env=cli_helpers.environment(),
    )
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == 4


def test_texts_with_anything_in_them(texts):
    done = without_tensorflow(
        f"--model={texts[0] / litert.WHOLE}",
        "--stream",
        "--segment=2",
        "--text=caf\u00e9 \U0001f600",
    )
    assert (done.returncode, done.stderr) == (0, "")
    heading, *lines = done.stdout.splitlines()
    assert heading.endswith(", 6 steps")
    assert [line.split()[0] for line in lines] == ["2", "4", "6"]


@pytest.mark.parametrize("tokens", ["characters", "bytes"])
def test_a_text_that_is_cut_is_an_error(tokens, tmp_path):
    vocabulary = small_exports.TEXT.vocabulary if tokens == "characters" else None
    info = dataclasses.replace(small_exports.TEXT, tokens=tokens, vocabulary=vocabulary)
    assert info.max_length == 100
    wide = "é" * (51 if tokens == "bytes" else 101)
    inputs = [*reading.read_inputs(info, [], ["a" * 100, "a" * 600, wide[1:], wide])]
    (tmp_path / "long.txt").write_text("a" * 101)
    (tmp_path / "exact.txt").write_text("a" * 100 + "\n")
    np.savez(tmp_path / "ids.npz", inputs=np.ones([2, 101], int), lengths=[100, 101])
    files = [tmp_path / name for name in ("long.txt", "exact.txt", "ids.npz")]
    inputs += reading.read_inputs(info, map(str, files))
    assert [item.cut for item in inputs] == [False, True, False, True, True, False, False, True]
    assert {len(item.sequence) for item in inputs} == {100}
    unlimited = dataclasses.replace(info, max_length=None)
    assert [item.cut for item in reading.read_inputs(unlimited, [], ["a" * 600])] == [False]


def test_an_answer_to_a_part_of_a_text_says_so(texts):
    model = f"--model={texts[0] / litert.WHOLE}"
    given = ["--text=" + "ab " * 200, "--text=" + "a" * 100]
    part, whole = (
        line for line in without_tensorflow(model, *given).stdout.splitlines() if line[0] != " "
    )
    assert part.endswith("%, from its first 100 steps")
    assert whole.endswith("%")
    streamed = without_tensorflow(model, *given, "--stream", "--segment=100").stdout.splitlines()
    assert streamed[0].endswith(", its first 100 steps")
    assert streamed[2].endswith("aaa...', 100 steps")
    for flags in ([], ["--stream", "--segment=100"]):
        lines = without_tensorflow(model, *given, "--json", *flags).stdout.splitlines()
        assert [json.loads(line)["cut"] for line in lines] == [True, False]


def test_what_was_classified_before_an_error_is_printed(images, picture, tmp_path):
    (tmp_path / "damaged.png").write_bytes(picture.read_bytes()[:50])
    done = without_tensorflow(
        f"--model={images[0]}/{litert.WHOLE}", "--json", picture, tmp_path / "damaged.png", picture
    )
    assert len(done.stdout.splitlines()) == 1
    assert done.stderr.count("\n") == 1
    cli_helpers.assert_one_sentence(done, "damaged.png")


def test_mistakes_on_the_command_line(images, picture, tmp_path):
    model = f"--model={images[0]}/{litert.WHOLE}"
    (tmp_path / "damaged.tflite").write_bytes((images[0] / litert.WHOLE).read_bytes()[:-300])
    for arguments, *parts in (
        ([picture], "--model"),
        ([model], "--text"),
        ([model, "--top=0", picture], "--top"),
        ([model, "--segment=0", "--stream", picture], "--segment"),
        ([f"--model={tmp_path}/damaged.tflite", picture], "metadata.json", f" {tmp_path}: "),
        ([f"--model={picture}", picture], f"{picture} ", "TensorFlow Lite"),
    ):
        done = without_tensorflow(*arguments)
        assert done.stdout == ""
        assert done.stderr.count("\n") == 1
        cli_helpers.assert_one_sentence(done, *parts)


def test_inputs_stand_anywhere_among_the_flags(images, picture):
    flags = [f"--model={images[0] / litert.WHOLE}", "--stream", "--segment", "8", "--top=1"]
    wanted = without_tensorflow(*flags, picture, picture).stdout
    assert wanted.count("picture.png, 16 steps") == 2
    for arguments in (
        [picture, *flags, picture],
        [*flags[:2], picture, *flags[2:], picture],
        [picture, picture, *flags],
        [*flags, "--", picture, picture],
    ):
        done = without_tensorflow(*arguments)
        assert (done.returncode, done.stdout) == (0, wanted), done.stderr


def test_a_damaged_tflite_file_on_the_command_line(images, picture, tmp_path):
    directory = shutil.copytree(images[0], tmp_path / "export")
    content = (directory / litert.WHOLE).read_bytes()
    (directory / litert.WHOLE).write_bytes(content[:-300])
    done = without_tensorflow(f"--model={directory / litert.WHOLE}", picture)
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    cli_helpers.assert_one_sentence(done, f"{directory / litert.WHOLE} ", litert.METADATA)


def test_a_saved_model_on_the_command_line(images, picture):
    done = cli_helpers.t2aux("classify", f"--model={images[0].parent}", picture, "--top=1")
    assert len(done.stdout.splitlines()) == 2
