import io
import json
import pathlib
import re
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from t2aux.errors import DataError, FileError, ModelError
from t2aux_ondevice.images import image_pixels, read_image
from t2aux_ondevice.preprocessing import UNKNOWN, DatasetInfo

GREY = DatasetInfo("d", "image", ("a", "b"), channels=1, length=16, side=4)
RGB = DatasetInfo("d", "image", ("a", "b"), channels=3, length=16, side=4, permutation_seed=5)
TEXT = DatasetInfo(
    "d", "text", ("a",), tokens="characters", vocabulary=(UNKNOWN, "a", "b", "\u00e9", " ")
)
BYTES = DatasetInfo("d", "text", ("a",), tokens="bytes", max_length=7)
VECTORS = DatasetInfo("d", "vectors", ("a", "b"), channels=2)


def test_importing_it_imports_no_tensorflow():
    code = "import sys, t2aux_ondevice.preprocessing; sys.exit('tensorflow' in sys.modules)"
    root = pathlib.Path(__file__).parent.parent
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0


@pytest.mark.parametrize("info", [GREY, RGB, TEXT, BYTES, VECTORS])
def test_json_round_trip(info):
    assert DatasetInfo.from_json(json.loads(json.dumps(info.to_json()))) == info


@pytest.mark.parametrize(
    "change",
    [
        {"side": 5},
        {"length": "16"},
        {"channels": 2},
        {"channels": True},
        {"classes": []},
        {"classes": "ab"},
        {"kind": "sound"},
        {"name": 3},
        {"surprise": 1},
        {"permutation_seed": -1},
        {"kind": "text"},
    ],
)
def test_damaged_json_is_a_user_error(change):
    (name,) = change
    # What contradicts another entry is named with it.
    said = {"side": "side, .*length", "channels": "channels", "kind": "kind|vocabulary"}
    with pytest.raises(ModelError, match=rf"dataset\.json .*({said.get(name, name)})"):
        DatasetInfo.from_json({**GREY.to_json(), **change})


@pytest.mark.parametrize("vocabulary", [["a"], [UNKNOWN, "ab"], [UNKNOWN, "a", "a"], None, [1]])
def test_damaged_vocabulary_is_a_user_error(vocabulary):
    with pytest.raises(ModelError, match=r"dataset\.json .*vocabulary"):
        DatasetInfo.from_json({**TEXT.to_json(), "vocabulary": vocabulary})


def test_what_is_not_a_dictionary_is_a_user_error():
    with pytest.raises(ModelError, match=r"dataset\.json .* list "):
        DatasetInfo.from_json(["classes"])


def test_properties():
    assert (GREY.num_classes, GREY.is_text, GREY.vocabulary_size) == (2, False, None)
    assert (TEXT.is_text, TEXT.vocabulary_size, BYTES.vocabulary_size) == (True, 5, 256)


def test_image_of_the_right_size_is_only_scaled():
    image = np.arange(16, dtype=np.uint8).reshape(4, 4) * 17
    sequence = GREY.image_sequence(image)
    assert sequence.dtype == np.float32
    np.testing.assert_array_equal(sequence, image.reshape(16, 1) / np.float32(255))
    np.testing.assert_array_equal(GREY.image_sequence(Image.fromarray(image)), sequence)


def test_permutation_reorders_the_pixels_of_rgb():
    image = np.random.default_rng(0).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    expected = np.random.Generator(np.random.PCG64(5)).permutation(16)
    np.testing.assert_array_equal(
        RGB.image_sequence(image), (image.reshape(16, 3) / np.float32(255))[expected]
    )


@given(st.integers(0, 2**40), st.integers(1, 40))
def test_permutation_is_a_bijection(seed, side):
    info = DatasetInfo(
        "d", "image", ("a",), channels=1, length=side**2, side=side, permutation_seed=seed
    )
    np.testing.assert_array_equal(np.sort(info.permutation), np.arange(side**2))


def test_the_published_permutation_stays():
    info = DatasetInfo(
        "d", "image", ("a",), channels=1, length=784, side=28, permutation_seed=92916
    )
    assert info.permutation[:5].tolist() == [283, 28, 288, 783, 276]


def test_resize_is_bilinear_and_antialiased():
    # A checkerboard averages to grey: without antialiasing it would stay black or white.
    board = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    inner = GREY.image_sequence(board).reshape(4, 4)[1:3, 1:3]
    np.testing.assert_allclose(inner, 0.5, atol=0.02)


@pytest.mark.parametrize("size", [(4, 30), (30, 4), (9, 17), (3, 3)])
def test_resize_does_not_depend_on_the_version_of_pillow(size):
    """Pillow 13 resizes tall images the other way around than earlier ones, if it is let."""
    width, height = size
    array = np.random.default_rng(0).integers(0, 256, [height, width]).astype(np.uint8)
    rows = Image.fromarray(array).resize((8, height), Image.Resampling.BILINEAR)
    expected = np.asarray(rows.resize((8, 8), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(image_pixels(array, 8, 1)[:, 0], expected.reshape(-1))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr"])
@pytest.mark.parametrize("channels", [1, 3])
def test_modes_convert(mode, channels):
    assert image_pixels(Image.new(mode, (5, 3)), 4, channels).shape == (16, channels)


def test_transparency_is_white():
    image = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    np.testing.assert_array_equal(GREY.image_sequence(image), 1.0)
    # A palette's transparent entry too.
    image = Image.new("P", (4, 4), 0)
    image.info["transparency"] = 0
    np.testing.assert_array_equal(GREY.image_sequence(image), 1.0)


@pytest.mark.parametrize("mode", ["I", "F", "I;16"])
def test_wide_modes_are_user_errors(mode):
    with pytest.raises(DataError, match=rf"mode .* {mode}: "):
        GREY.image_sequence(Image.new(mode, (4, 4)))


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 4), np.float32),
        np.zeros((4, 4, 2), np.uint8),
        np.zeros(4, np.uint8),
        np.zeros((0, 4), np.uint8),
    ],
)
def test_wrong_image_arrays_are_user_errors(array):
    shape = re.escape(str(list(array.shape)))
    with pytest.raises(DataError, match=rf"array .*{array.dtype} .*{shape}: .*uint8"):
        GREY.image_sequence(array)


def test_read_image(tmp_path):
    path = tmp_path / "a.png"
    pixels = np.arange(16, dtype=np.uint8).reshape(4, 4)
    Image.fromarray(pixels).save(path)
    np.testing.assert_array_equal(np.asarray(read_image(path)), pixels)


def test_read_image_turns_it_upright(tmp_path):
    image = Image.new("RGB", (6, 3))
    exif = image.getexif()
    exif[0x0112] = 6  # Turn by 90 degrees.
    image.save(tmp_path / "a.jpg", exif=exif)
    assert read_image(tmp_path / "a.jpg").size == (3, 6)


def png(pixels, *chunks, depth=8, colour=0):
    """A PNG file of rows of packed bytes, with chunks (kind, data) before the picture."""

    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    samples = {0: 1, 2: 3, 3: 1}[colour]
    width = len(pixels[0]) * 8 // depth // samples
    header = struct.pack(">IIBBBBB", width, len(pixels), depth, colour, 0, 0, 0)
    rows = b"".join(b"\0" + bytes(row) for row in pixels)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return io.BytesIO(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts))


@pytest.mark.parametrize(
    ("depth", "rows"), [(1, [[0x40]]), (2, [[0x1B]]), (4, [[0x1F]]), (8, [[1]])]
)
def test_a_transparent_level_is_scaled_as_the_pixels_are(depth, rows):
    """Level 1 shows white, whatever the largest level is; the others stay."""
    level = struct.pack(">H", 1)
    with_level = read_image(png(rows, (b"tRNS", level), depth=depth), "it")
    image = read_image(png(rows, depth=depth), "it")
    expected = np.asarray(image.convert("L")).copy()
    expected[expected == 255 // (2**depth - 1)] = 255
    image = with_level.convert("RGBA")
    shown = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("L")
    np.testing.assert_array_equal(np.asarray(shown), expected)
    assert image_pixels(with_level, 1, 1).shape == (1, 1)


@pytest.mark.parametrize("depth", [8, 16])
def test_a_transparent_colour_is_white(depth):
    colours = [[10, 20, 30], [40, 50, 60]]
    wide = depth == 16
    row = [byte for colour in colours for value in colour for byte in ([value] * (1 + wide))]
    transparent = struct.pack(">HHH", *(value * 257 if wide else value for value in colours[1]))
    image = read_image(png([row, row], (b"tRNS", transparent), depth=depth, colour=2), "it")
    expected = [[10, 20, 30], [255, 255, 255]] * 2
    assert image_pixels(image, 2, 3).tolist() == expected


def test_transparent_entries_of_a_palette_are_white():
    palette = (b"PLTE", bytes([9, 9, 9, 7, 7, 7, 5, 5, 5, 3, 3, 3]))
    chunks = (palette, (b"tRNS", bytes([255, 0, 255])))
    image = read_image(png([[0x1B], [0x1B], [0x1B], [0x1B]], *chunks, depth=2, colour=3), "it")
    assert image_pixels(image, 4, 1)[:4, 0].tolist() == [9, 255, 5, 3]


LONG = zlib.compress(bytes(5 << 20))
BESIDE = {
    "a long text": (b"zTXt", b"Comment\0\0" + LONG),
    "a long international text": (b"iTXt", b"Comment\0\1\0\0\0" + LONG),
    "a long profile": (b"iCCP", b"profile\0\0" + LONG),
    "a text in an unknown packing": (b"zTXt", b"Comment\0\7xxx"),
    "a text in bytes": (b"iTXt", b"Comment\0\1\7\0\0xxx"),
    "a profile in an unknown packing": (b"iCCP", b"profile\0\7xxx"),
    "a text of a confusing name": (b"tEXt", b"transparency\0much"),
    "another text of a confusing name": (b"tEXt", b"exif\0much"),
    "a short size": (b"pHYs", b"x"),
    "damaged EXIF": (b"eXIf", b"MM\0*\xff\xff\xff\xff"),
    "no EXIF": (b"eXIf", b"x"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("what", BESIDE)
def test_what_stands_beside_a_picture_does_not_matter(tmp_path, what):
    path = tmp_path / "a.png"
    path.write_bytes(png([[10, 20], [30, 40]], BESIDE[what]).getvalue())
    for source in (path, png([[10, 20], [30, 40]], BESIDE[what])):
        assert np.asarray(read_image(source, "it")).tolist() == [[10, 20], [30, 40]]


def test_a_damaged_text_is_passed_over_and_a_damaged_picture_is_not():
    whole = png([[10, 20], [30, 40]], (b"tEXt", b"Comment\0text"), BESIDE["a long text"]).getvalue()
    damaged = bytearray(whole)
    damaged[whole.index(b"Comment")] ^= 1
    assert np.asarray(read_image(io.BytesIO(damaged), "it")).tolist() == [[10, 20], [30, 40]]
    damaged[whole.index(b"IDAT") + 6] ^= 1
    for content in (bytes(damaged), whole[: whole.index(b"IDAT") + 8]):
        with pytest.raises(DataError, match=r"\bit\b"):
            read_image(io.BytesIO(content), "it")


def test_a_long_text_does_not_hide_the_orientation():
    exif = Image.Exif()
    exif[0x0112] = 6
    block = exif.tobytes().removeprefix(b"Exif\0\0")
    image = read_image(png([[1, 2, 3]], BESIDE["a long text"], (b"eXIf", block)), "it")
    assert image.size == (1, 3)


@pytest.mark.parametrize("kind", ["jpeg", "png", "tiff", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_turned_upright(kind, orientation):
    image = Image.fromarray(
        np.repeat(np.arange(6).reshape(2, 3) * 40, 8, 0).repeat(8, 1).astype(np.uint8)
    )
    exif = image.getexif()
    exif[0x0112] = orientation
    expected = ImageOps.exif_transpose(image)
    stream = io.BytesIO()
    image.save(stream, kind, exif=exif, quality=100)
    found = np.asarray(read_image(io.BytesIO(stream.getvalue()), "it").convert("L"))
    assert found.shape == np.asarray(expected).shape
    np.testing.assert_allclose(found, np.asarray(expected), atol=5)


def test_formats_without_a_mark_are_read_by_their_suffix_only(tmp_path):
    image = Image.fromarray(np.arange(16, dtype=np.uint8).reshape(4, 4))
    image.save(tmp_path / "a.tga")
    np.testing.assert_array_equal(np.asarray(read_image(tmp_path / "a.tga")), np.asarray(image))
    (tmp_path / "a.tga").rename(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"a\.png .*PNG, "):
        read_image(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    assert read_image(io.BytesIO(content), "it", ".TGA").size == (4, 4)
    with pytest.raises(DataError, match=r"^it .*TGA: "):
        read_image(io.BytesIO(content[:9]), "it", ".tga")


def test_bad_image_files_are_user_errors(tmp_path):
    with pytest.raises(FileError, match=r"/none\.png"):
        read_image(tmp_path / "none.png")
    (tmp_path / "text.png").write_text("not an image")
    with pytest.raises(DataError, match=r"/text\.png .*PNG, "):
        read_image(tmp_path / "text.png")
    Image.new("I;16", (4, 4)).save(tmp_path / "wide.png")
    with pytest.raises(DataError, match=r"/wide\.png .* I;16: "):
        read_image(tmp_path / "wide.png")
    with pytest.raises(FileError, match=f"{tmp_path} .*Is a directory"):
        read_image(tmp_path)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "bmp", "tiff", "webp", "ppm"])
def test_truncated_images_are_user_errors(tmp_path, suffix):
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(noise).save(path)
    content = path.read_bytes()
    for end in (0, 3, 20, len(content) // 2):
        path.write_bytes(content[:end])
        with pytest.raises(DataError, match=rf"/a\.{suffix} "):
            read_image(path)


def test_characters_to_ids():
    ids = TEXT.text_ids("ba\u00e9z\U0001f600 a")
    assert ids.dtype == np.int32
    assert ids.tolist() == [2, 1, 3, 0, 0, 4, 1]


def test_bytes_are_cut_at_the_limit():
    assert BYTES.text_ids("a\u00e9").tolist() == [97, 0xC3, 0xA9]
    assert BYTES.text_ids("abcdefghi").tolist() == list(b"abcdefg")
    assert len(BYTES.text_ids("\u00e9" * 9)) == 7


@given(st.text(st.characters(exclude_categories=("Cs",)), min_size=1).filter(str.strip))
def test_text_ids_round_trip(text):
    vocabulary = (UNKNOWN, *sorted(set(text) - {UNKNOWN}))
    info = DatasetInfo("d", "text", ("a",), tokens="characters", vocabulary=vocabulary)
    assert "".join(vocabulary[i] for i in info.text_ids(text)) == text
    info = DatasetInfo("d", "text", ("a",), tokens="bytes")
    assert bytes(info.text_ids(text).astype(np.uint8)).decode() == text


@given(st.text(min_size=1).filter(str.strip), st.integers(1, 9))
def test_cut_ids_are_the_beginning(text, limit):
    for tokens, vocabulary in (("characters", (UNKNOWN, "a", "0")), ("bytes", None)):
        whole = DatasetInfo("d", "text", ("a",), tokens=tokens, vocabulary=vocabulary)
        cut = DatasetInfo(
            "d", "text", ("a",), tokens=tokens, vocabulary=vocabulary, max_length=limit
        )
        np.testing.assert_array_equal(cut.text_ids(text), whole.text_ids(text)[:limit])


@pytest.mark.parametrize("text", ["", " ", "\n\t "])
@pytest.mark.parametrize("info", [TEXT, BYTES])
def test_empty_text_is_a_user_error(info, text):
    with pytest.raises(DataError, match=r"text .*empty"):
        info.text_ids(text)


def test_undecodable_arguments_keep_their_bytes():
    assert BYTES.text_ids(b"a\xff".decode("utf-8", "surrogateescape")).tolist() == [97, 255]
    assert TEXT.text_ids("a\udcff").tolist() == [1, 0]
    with pytest.raises(DataError, match=r"Unicode .*\\ud800"):
        BYTES.text_ids("a\ud800")


def test_vectors():
    sequence = VECTORS.vector_sequence(np.array([[1, 2], [3, 4], [5, 6]], np.int16))
    assert sequence.dtype == np.float32
    assert sequence.tolist() == [[1, 2], [3, 4], [5, 6]]
    single = DatasetInfo("d", "vectors", ("a",), channels=1)
    assert single.vector_sequence(np.arange(3.0)).shape == (3, 1)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((3, 3)), r"shape \[3, 3\]: .*\[T, 2\]"),
        (np.zeros(3), r"shape \[3\]: .*\[T, 2\]"),
        (np.zeros((0, 2)), r"shape \[0, 2\]: .*\[T, 2\]"),
        (np.array([["a", "b"]]), "<U1"),
        (np.array([[0, 1], [0, np.nan]]), "NaN .*step 1 "),
        (np.array([[np.inf, 1], [0, 1]]), "NaN .*step 0 "),
        (np.array([[1e300, 1]]), "NaN .*step 0 "),
    ],
)
def test_bad_vectors_are_user_errors(array, message):
    with pytest.raises(DataError, match=message):
        VECTORS.vector_sequence(array)


def test_input_of_another_kind_is_a_user_error():
    with pytest.raises(DataError, match="text, not images"):
        TEXT.image_sequence(np.zeros((4, 4), np.uint8))
    with pytest.raises(DataError, match="image, not text"):
        GREY.text_ids("a")
    with pytest.raises(DataError, match="image, not vectors"):
        GREY.vector_sequence(np.zeros((4, 1)))


def test_a_border_is_black_and_part_of_the_sequence():
    pixels = np.arange(1, 10, dtype=np.uint8).reshape(3, 3)
    bordered = image_pixels(pixels, 3, 1, border=2)
    assert bordered.shape == (49, 1)
    np.testing.assert_array_equal(bordered.reshape(7, 7)[2:5, 2:5], pixels)
    assert bordered.sum() == pixels.sum()
    info = DatasetInfo("x", "image", ("a",), channels=1, length=49, side=3, border=2)
    np.testing.assert_array_equal(info.image_sequence(pixels) * 255, bordered)
    assert DatasetInfo.from_json(info.to_json()) == info
    with pytest.raises(ModelError, match="border, length"):
        DatasetInfo.from_json({**info.to_json(), "border": 1})
