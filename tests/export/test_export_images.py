"""`serving_image` makes of an image's file what the client makes of it, pixel by pixel."""

import io
import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from t2aux.export import images
from t2aux_ondevice.images import read_image
from t2aux_ondevice.preprocessing import DatasetInfo
from tests.export.conftest import kinds

SIZES = [(1, 1), (5, 5), (28, 28), (97, 131), (3, 400), (400, 3)]
INFOS = [
    DatasetInfo("grey", "image", ("a", "b"), channels=1, length=28 * 28, side=28),
    DatasetInfo(
        *("rgb", "image", ("a", "b")),
        **{"channels": 3, "length": 49, "side": 5, "border": 1, "permutation_seed": 7},
    ),
]
RNG = np.random.default_rng(0)


@pytest.fixture(scope="module", params=INFOS, ids=lambda info: info.name)
def prepared(request):
    """A description, and the graph's function for it."""
    return request.param, graph(request.param)


def graph(info):
    return tf.function(
        images.ImageSequences(info),
        input_signature=[tf.TensorSpec([None], tf.string)],
        autograph=False,
    )


def picture(height, width, mode):
    """A picture with structure, so that a wrong pixel is a visible one."""
    small = RNG.integers(0, 256, (height // 4 + 2, width // 4 + 2, 4), np.uint8)
    image = Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)
    if mode in ("P", "P4"):
        return image.convert("RGB").quantize(9 if mode == "P4" else 200)
    return image if mode == "RGBA" else image.convert(mode)


def saved(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def check(prepared, files):
    """Asserts that the graph and the client make the same of files {name: content}."""
    info, function = prepared
    found = function(tf.constant(list(files.values()))).numpy()
    assert found.dtype == np.float32
    for (name, content), sequence in zip(files.items(), found, strict=True):
        wanted = info.image_sequence(read_image(io.BytesIO(content), name))
        np.testing.assert_array_equal(sequence, wanted, name)


def test_pngs_of_every_mode_and_size_in_one_batch(prepared):
    files = {}
    for height, width in SIZES:
        for mode in ("1", "L", "LA", "P", "P4", "RGB", "RGBA"):
            image = picture(height, width, mode)
            files[f"{mode} {height} x {width}"] = saved(image)
            first = np.asarray(image)[0, 0]
            if mode == "P":
                some = {"transparency": bytes(range(0, 200, 3))}
            elif mode in ("L", "RGB"):
                first = int(first) if mode == "L" else tuple(map(int, first))
                some = {"transparency": first}
            else:
                continue
            files[f"{mode} {height} x {width}, transparent colours"] = saved(image, **some)
    check(prepared, files)


def test_jpegs(prepared):
    files = {}
    for (height, width), subsampling in zip(SIZES, (0, 1, 2, 0, 1, 2), strict=True):
        for mode in ("L", "RGB"):
            options = {} if mode == "L" else {"subsampling": subsampling}
            for progressive in (False, True):
                options |= {"progressive": progressive, "quality": 70}
                content = saved(picture(height, width, mode), "JPEG", **options)
                files[f"{mode} {height} x {width} {options}"] = content
    check(prepared, files)


def exif(orientation, order="<"):
    """A TIFF header with an entry before the one that counts."""
    mark = {"<": b"II", ">": b"MM"}[order]
    width = struct.pack(f"{order}HHIHH", 0x0100, 3, 1, 9, 0)
    entry = struct.pack(f"{order}HHIHH", 0x0112, 3, 1, orientation, 0)
    return mark + struct.pack(f"{order}HIH", 42, 8, 2) + width + entry + bytes(4)


def test_images_are_turned_as_their_exif_says(prepared):
    image = picture(20, 31, "RGB")
    files = {}
    for orientation in range(10):
        for order in "<>":
            data = exif(orientation, order)
            content = saved(image, "JPEG", exif=b"Exif\0\0" + data)
            files[f"JPEG {orientation} {order}"] = content
            files[f"PNG {orientation} {order}"] = png(31, 20, 8, 2, rows(image), (b"eXIf", data))
    check(prepared, files)


def test_odd_and_damaged_orientations(prepared):
    image = picture(20, 31, "RGB")
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><a tiff:Orientation="8"/></x:xmpmeta>'
    itxt = b"XML:com.adobe.xmp\0\0\0\0\0" + xmp
    good = exif(6)
    files = {
        "cut": saved(image, "JPEG", exif=b"Exif\0\0" + good[:20]),
        "empty": saved(image, "JPEG", exif=b"Exif\0\0"),
        "outside": saved(image, "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff"),
        "no TIFF": saved(image, "JPEG", exif=b"Exif\0\0II*\1" + good[4:]),
        "bytes between segments": between(saved(image, "JPEG", exif=b"Exif\0\0" + good)),
        "XMP": saved(image, "JPEG", xmp=xmp),
        "EXIF before XMP": saved(image, "JPEG", exif=b"Exif\0\0" + good, xmp=xmp),
        "PNG's XMP": png(31, 20, 8, 2, rows(image), (b"iTXt", itxt)),
        "PNG, behind the picture": png(31, 20, 8, 2, rows(image), after=[(b"eXIf", good)]),
        "two": png(31, 20, 8, 2, rows(image), (b"eXIf", good), after=[(b"tEXt", b"eXIf\0x")]),
    }
    check(prepared, files)


def between(content):
    """A JPEG file with fill bytes and others before its second segment."""
    end = 4 + struct.unpack(">H", content[4:6])[0]
    return content[:end] + b"\0ab\xff\xff" + content[end:]


def rows(image):
    return [row.tobytes() for row in np.asarray(image)]


def chunk(name, content):
    checked = name + content
    return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))


def png(width, height, depth, colour, lines, *before, after=(), interlace=0):
    """A PNG file of raw lines: what Pillow can't write."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace)
    data = zlib.compress(b"".join(b"\0" + line for line in lines))
    parts = [(b"IHDR", header), *before, (b"IDAT", data), *after, (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def noise(lines, size):
    return [RNG.integers(0, 256, size, np.uint8).tobytes() for _ in range(lines)]


def test_pngs_that_are_rare(prepared):
    pixels = RNG.integers(0, 256, (9, 11, 3), np.uint8)
    passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4)]
    passes += [(1, 0, 2, 2), (0, 1, 1, 2)]
    interlaced = [line for x, y, dx, dy in passes for line in rows(pixels[y::dy, x::dx]) if line]
    palette = (b"PLTE", bytes(range(0, 240, 20)))
    files = {
        "1 bit": png(8, 8, 1, 0, noise(8, 1)),
        "2 bits": png(8, 8, 2, 0, noise(8, 2)),
        "4 bits": png(8, 8, 4, 0, noise(8, 4)),
        "a palette of 2 bits": png(8, 8, 2, 3, noise(8, 2), palette),
        "with alpha": png(8, 8, 2, 3, noise(8, 2), palette, (b"tRNS", b"\0\x80")),
        "16 bits, grey and alpha": png(8, 8, 16, 4, noise(8, 32)),
        "16 bits, RGB": png(8, 8, 16, 2, noise(8, 48)),
        "16 bits, RGBA": png(8, 8, 16, 6, noise(8, 64)),
        "interlaced": png(11, 9, 8, 2, interlaced, interlace=1),
        "gamma": png(11, 9, 8, 2, rows(pixels), (b"gAMA", struct.pack(">I", 100_000))),
    }
    check(prepared, files)


def test_few_bits_with_a_transparent_value_are_white_there(prepared):
    info, function = prepared
    # Values 1 and 3 of 0 to 3, which are 85 and 255 of 255; 1 is transparent.
    lines = [bytes([0b01011111])] * 4
    content = png(4, 4, 2, 0, lines, (b"tRNS", b"\0\1"))
    white = np.full((4, 4), 255, np.uint8)
    np.testing.assert_array_equal(function([content])[0], info.image_sequence(white))


def test_a_large_image_is_worked_on_in_parts(prepared, monkeypatch):
    info, _ = prepared
    monkeypatch.setattr(images, "_BLOCK", 1000)
    content = saved(picture(150, 130, "RGBA"))
    check((info, graph(info)), {"large": content})


def test_a_stored_sequence_survives_as_a_png_file(prepared):
    info, function = prepared
    image = RNG.integers(0, 256, (info.side, info.side, info.channels), np.uint8)
    sequence = info.image_sequence(image)
    np.testing.assert_array_equal(function([images.encoded(info, sequence)])[0], sequence)


SOUND = {kind: saved(picture(28, 28, "RGB"), kind) for kind in ("PNG", "JPEG")}
REFUSED = {
    "nothing": (b"", "PNG or JPEG"),
    "a text": (b"hello", "PNG or JPEG"),
    "GIF": (saved(picture(5, 5, "P"), "GIF"), "PNG or JPEG"),
    "a PNG's beginning": (SOUND["PNG"][:8], "damaged"),
    "half a PNG": (SOUND["PNG"][: len(SOUND["PNG"]) // 2], "Invalid PNG"),
    "a PNG of no size": (png(0, 5, 8, 2, []), "Invalid PNG"),
    "a JPEG's beginning": (SOUND["JPEG"][:3], "Invalid JPEG"),
    "half a JPEG": (SOUND["JPEG"][: len(SOUND["JPEG"]) // 2], "Invalid JPEG"),
    "CMYK": (saved(picture(5, 5, "RGB").convert("CMYK"), "JPEG"), "CMYK"),
    "16-bit grey": (png(8, 8, 16, 0, noise(8, 16)), "16-bit grey"),
    "a bomb": (png(60_000, 60_000, 8, 2, []), "89,478,485 pixels"),
    "too wide": (png(70_000, 1, 8, 0, [bytes(70_000)]), "65,535 pixels"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(exports, name):
    content, reason = REFUSED[name]
    model = exports("rgb").saved_model
    with pytest.raises(tf.errors.InvalidArgumentError, match=reason):
        model.image_batch([SOUND["PNG"], content])


def test_a_limit_of_ones_own(monkeypatch):
    monkeypatch.setenv("T2AUX_MAX_IMAGE_PIXELS", "100")
    function = graph(INFOS[1])
    assert function([saved(picture(10, 10, "L"))]).shape == (1, 49, 3)
    with pytest.raises(tf.errors.InvalidArgumentError, match=" 100 pixels"):
        function([saved(picture(10, 11, "L"))])


@pytest.mark.parametrize("kind", kinds("grey", "rgb"))
def test_the_signature_answers_as_the_client_does(exports, kind):
    exported = exports(kind)
    files = [saved(picture(height, width, "RGBA")) for height, width in SIZES]
    files += [saved(picture(height, width, "RGB"), "JPEG") for height, width in SIZES]
    found = exported.saved_model.image_batch(files)
    for content, probabilities in zip(files, found, strict=True):
        sequence = exported.info.image_sequence(read_image(io.BytesIO(content)))
        wanted = exported.checkpoint.probabilities(sequence)
        np.testing.assert_allclose(probabilities, wanted, atol=1e-5)


def test_only_image_classifiers_have_it(exports):
    for kind in ("vectors", "characters"):
        assert "serving_image" not in exports(kind).saved_model._signatures
