"""The page that classifies in the browser, in a headless Chromium. Needs npm and its network.

The answers must be those of the Python client with the same export.
"""

import contextlib
import dataclasses
import json
import math
import re
import threading

import numpy as np
import pytest
from PIL import Image

from t2aux.data import digits
from t2aux.export import demo_page, static_server
from t2aux_ondevice import litert
from t2aux_ondevice.images import image_pixels
from tests import small_exports
from tests.cli_helpers import t2aux
from tests.ondevice import chromium

pytestmark = pytest.mark.browser

# Digits as lines through points, each in one or two strokes.
_ROUND = [(0.5 + 0.22 * math.sin(a / 4), 0.5 - 0.36 * math.cos(a / 4)) for a in range(26)]
DIGITS = {
    "0": [_ROUND],
    "1": [[(0.42, 0.3), (0.54, 0.14), (0.54, 0.86)]],
    "2": [
        [(0.3, 0.3), (0.4, 0.16), (0.58, 0.16), (0.68, 0.3), (0.6, 0.5), (0.3, 0.85), (0.72, 0.85)]
    ],
    "3": [
        [(0.32, 0.2), (0.5, 0.14), (0.66, 0.25), (0.62, 0.42), (0.46, 0.48)],
        [(0.46, 0.48), (0.64, 0.55), (0.68, 0.72), (0.52, 0.86), (0.3, 0.82)],
    ],
    "4": [[(0.5, 0.14), (0.28, 0.58), (0.74, 0.58)], [(0.6, 0.4), (0.56, 0.88)]],
    "5": [
        [(0.68, 0.15), (0.36, 0.15), (0.34, 0.44), (0.54, 0.42), (0.68, 0.58), (0.62, 0.8)],
        [(0.62, 0.8), (0.48, 0.87), (0.3, 0.8)],
    ],
    "6": [
        [(0.58, 0.14), (0.4, 0.34), (0.33, 0.62), (0.42, 0.84), (0.58, 0.84), (0.66, 0.68)],
        [(0.66, 0.68), (0.56, 0.55), (0.42, 0.58), (0.35, 0.7)],
    ],
    "7": [[(0.3, 0.16), (0.7, 0.16), (0.46, 0.86)], [(0.38, 0.5), (0.66, 0.5)]],
    "8": [
        [(0.5, 0.48), (0.36, 0.34), (0.42, 0.16), (0.58, 0.16), (0.64, 0.34), (0.5, 0.48)],
        [(0.5, 0.48), (0.34, 0.66), (0.42, 0.86), (0.58, 0.86), (0.66, 0.66), (0.5, 0.48)],
    ],
    "9": [
        [(0.64, 0.36), (0.52, 0.5), (0.38, 0.42), (0.38, 0.24), (0.52, 0.14), (0.64, 0.26)],
        [(0.64, 0.26), (0.64, 0.5), (0.58, 0.86)],
    ],
}

# What the page read last, as JSON can hold it.
LAST = """import('./main.js').then(({page}) => ({
    picture: page.picture && {...page.picture, data: Array.from(page.picture.data)},
    sequence: Array.from(page.sequence),
    probabilities: page.probabilities.map((p) => Array.from(p)),
}))"""


@pytest.fixture(scope="module")
def exported_digits(tmp_path_factory):
    """A classifier of the embedded digits: full BPTT, which is soon taught."""
    place = tmp_path_factory.mktemp("digits")
    gin_files = ["--gin_file=quickstart_lstm", "--gin_file=training/full"]
    params = ["--gin_param=JOINT_EPOCHS=20", "--gin_param=joint/Phase.decay_epochs=7"]
    t2aux("train", f"--model_dir={place / 'run'}", *gin_files, *params)
    directories = [f"--model_dir={place / 'run'}", f"--export_dir={place / 'export'}"]
    t2aux("export", *directories, "--formats=tflite")
    return place / "export"


@pytest.fixture(scope="module")
def exported_text(tmp_path_factory):
    place = tmp_path_factory.mktemp("text")
    small_exports.write(place / "1", small_exports.TEXT)
    return place


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    with chromium.browser(tmp_path_factory.mktemp("profile")) as page:
        page.size(1100, 1100)
        yield page


@pytest.fixture
def opened(page, tmp_path):
    """Builds and serves an export's page, and goes there; checks its requests at the end."""
    with contextlib.ExitStack() as stack:
        addresses = []

        def open_page(export_dir, until="ready", spoil=lambda place: None):
            place = demo_page.build(export_dir, tmp_path / "page")
            spoil(place)
            server = stack.enter_context(static_server.Server(place, "127.0.0.1", 0))
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
            thread.start()
            stack.callback(thread.join)
            stack.callback(server.shutdown)
            page.requests.clear()
            page.problems.clear()
            addresses.append(server.url)
            page.open(server.url)
            page.wait(f"document.body.dataset.state === '{until}'")
            return page

        yield open_page
        (url,) = addresses
        foreign = [r for r in page.requests if not r.startswith((url, "blob:", "data:"))]
        assert page.requests
        assert not foreign
        page.open("about:blank")


def words(page, selector):
    return page.run(f"document.querySelector('{selector}').textContent.trim()")


def read(page):
    """Waits until a sequence is read. Returns the class, and what the page knew."""
    page.wait("document.body.dataset.state === 'done'")
    return words(page, "#answer"), page.run(LAST)


def stream_of(export_dir):
    return litert.LiteRTClassifier(demo_page.find_version(export_dir, None) / litert.STREAM)


def assert_same_answers(classifier, sequence, probabilities):
    """Asserts that after each step the page knew what the Python client knows."""
    stream = classifier.start()
    assert len(probabilities) == len(sequence)
    for step, given in enumerate(probabilities):
        known = stream.read(sequence[step : step + 1])
        np.testing.assert_allclose(given, known, rtol=0, atol=1e-4)


def draw(page, strokes):
    """Draws with the mouse: lines through points, in parts of the pad's width and height."""
    left, top, width, height = page.box("#pad")
    for points in strokes:
        page.stroke([(left + x * width, top + y * height) for x, y in points])


def test_draws_digits_and_reads_their_classes(exported_digits, opened):
    page = opened(exported_digits)
    classifier = stream_of(exported_digits)
    answers = ""
    for strokes in DIGITS.values():
        page.click("#clear")
        draw(page, strokes)
        page.click("#classify")
        answer, last = read(page)
        answers += answer
        picture = last["picture"]
        drawn = np.array(picture["data"], np.uint8).reshape(picture["height"], picture["width"], 3)
        sequence = classifier.info.image_sequence(drawn)
        np.testing.assert_array_equal(np.array(last["sequence"], np.float32), sequence.reshape(-1))
        assert_same_answers(classifier, sequence, last["probabilities"])
        assert f"Taken for {answer}, with" in words(page, "#status")
    right = sum(answer == digit for answer, digit in zip(answers, DIGITS, strict=True))
    assert right >= 7, f"{''.join(DIGITS)} are taken for {answers}"
    assert not problems(page)


def problems(page):
    """What the browser complained of; LiteRT.js writes its notes as errors, too."""
    return [found for found in page.problems if not re.search("(INFO|WARNING): ", found)]


def test_reads_the_test_images_beside_the_pad(exported_digits, opened):
    page = opened(exported_digits)
    classifier = stream_of(exported_digits)
    assert page.run("document.querySelectorAll('#thumbnails button').length") == 10
    index = next(i for i in range(100) if digits.test_image(i)[1] == "3")
    page.click("#thumbnails button:nth-child(4)")
    _, last = read(page)
    sequence = classifier.info.image_sequence(digits.test_image(index)[0])
    np.testing.assert_array_equal(np.array(last["sequence"], np.float32), sequence.reshape(-1))
    assert_same_answers(classifier, sequence, last["probabilities"])


@pytest.mark.parametrize("width", [360, 1100])
def test_fits_the_window(exported_digits, opened, page, width):
    page.size(width, 1100)
    opened(exported_digits)
    page.click("#thumbnails button:nth-child(1)")
    read(page)
    assert page.run("document.documentElement.scrollWidth") <= width
    page.size(1100, 1100)


def test_slider_shows_what_was_known_earlier(exported_digits, opened):
    page = opened(exported_digits)
    page.click("#thumbnails button:nth-child(1)")
    _, last = read(page)
    classes = stream_of(exported_digits).info.classes
    for step in (1, 20, 64):
        page.run(
            f"(() => {{ const s = document.getElementById('step'); s.value = {step};"
            " s.dispatchEvent(new Event('input')); })()"
        )
        known = classes[int(np.argmax(last["probabilities"][step - 1]))]
        assert words(page, "#answer") == known
        assert words(page, "#count") == f"{step} of 64 pixels read"


def test_reads_a_typed_text(exported_text, opened):
    page = opened(exported_text)
    classifier = stream_of(exported_text)
    for text in ("abcdef", "a", "no such letter: \N{GRINNING FACE}\n", "b" * 100, "b" * 150):
        page.run(f"document.getElementById('text').value = {json.dumps(text)}")
        page.click("#classify")
        _, last = read(page)
        ids = classifier.info.text_ids(text)
        assert last["sequence"] == ids.tolist()
        assert_same_answers(classifier, ids, last["probabilities"])
        assert words(page, "#status").endswith(", from its first 100.") == (len(text) == 150)
    assert not problems(page)


def test_a_text_of_bytes_is_cut_as_in_python(exported_text, opened):
    page = opened(exported_text)
    info = dataclasses.replace(small_exports.TEXT, tokens="bytes", vocabulary=None)
    for text in ("é" * 50, "é" * 51, "a" * 100, "a" * 101, "\N{GRINNING FACE}" * 25):
        found = page.run(
            "import('./preprocessing.js').then(({isCut, textIds}) => [isCut, textIds].map((f) => "
            f"f({json.dumps(text)}, {json.dumps(info.to_json())}))).then(([cut, ids]) => "
            "({cut, ids: Array.from(ids)}))"
        )
        assert found == {"cut": info.cuts(text), "ids": info.text_ids(text).tolist()}


@pytest.mark.parametrize("text", ["", " \n\t"])
def test_nothing_to_read_is_one_sentence(exported_text, opened, text):
    page = opened(exported_text)
    page.run(f"document.getElementById('text').value = {json.dumps(text)}")
    page.click("#classify")
    page.wait("!document.getElementById('error').hidden")
    assert "empty" in words(page, "#error")


def test_nothing_drawn_is_one_sentence(exported_digits, opened):
    page = opened(exported_digits)
    page.click("#classify")
    page.wait("!document.getElementById('error').hidden")
    assert "draw something first" in words(page, "#error")


def test_page_without_its_model_says_so(exported_text, opened):
    page = opened(exported_text, "error", lambda place: (place / demo_page.MODEL).unlink())
    assert "classifier.tflite" in words(page, "#error")


def test_pictures_are_prepared_as_in_python(exported_text, opened):
    """To the last bit, in every shape: the classifier was trained on Pillow's pixels."""
    page = opened(exported_text)
    rng = np.random.default_rng(5)
    for number in range(40):
        height, width = rng.integers(1, 40, 2)
        given, channels = rng.choice([1, 3], 2)
        side, border = int(rng.integers(1, 24)), int(rng.integers(0, 3))
        array = rng.integers(0, 256, [height, width, given]).astype(np.uint8)
        if number % 3 == 0:
            array[:] = 255 * (array > 127)
        picture = {"width": int(width), "height": int(height), "channels": int(given)}
        preprocessing = {"side": side, "border": border, "channels": int(channels)}
        made = page.run(
            "import('./preprocessing.js').then(({imagePixels}) => Array.from(imagePixels("
            f"{{...{json.dumps(picture)}, data: Uint8Array.from({array.reshape(-1).tolist()})}}, "
            f"{json.dumps(preprocessing)})))"
        )
        image = Image.fromarray(array[:, :, 0] if given == 1 else array)
        expected = image_pixels(image, side, int(channels), border)
        np.testing.assert_array_equal(np.array(made, np.uint8), expected.reshape(-1))
