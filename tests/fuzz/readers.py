"""Every reader of what others may have made: its inputs, and what it may do with them.

A reader takes bytes and returns whether it read them; False where it refused them as it documents.
Anything else that it raises is a fault.
"""

import contextlib
import copy
import dataclasses
import gzip
import hashlib
import io
import json
import lzma
import pathlib
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable

import gin
import numpy as np
from google.protobuf.message import DecodeError
from hypothesis import strategies as st
from PIL import Image

import t2aux.training.train  # noqa: F401  The configurables that gin text may name.
from t2aux import config, files
from t2aux.data import convert, manifest, records
from t2aux.data.idx import read_array
from t2aux.data.table import Table
from t2aux.errors import UserError
from t2aux.tf_serving import protos
from t2aux_ondevice import images, litert, reading
from t2aux_ondevice.preprocessing import DatasetInfo
from tests import networks, small_exports
from tests.fuzz import mutations, tables
from tests.sources import load

LONGEST_MESSAGE = 20_000


@dataclasses.dataclass(frozen=True)
class Reader:
    """What is fuzzed.

    Attributes:
        inputs: The strategy of its inputs.
        read: Takes an input; returns whether it was read.
        seeds: What the inputs are made from by damage.
    """

    inputs: st.SearchStrategy
    read: Callable[[object], bool]
    seeds: list


def check_refusal(error):
    """Checks a refusal: something is said, and no traceback."""
    message = str(error)
    assert message.strip(), "a refusal without a word"
    assert "Traceback" not in message, message
    assert len(message) < LONGEST_MESSAGE, len(message)


def read_or_refused(read, *arguments, **options):
    """Whether `read` gives a value; False where it says why not."""
    try:
        read(*arguments, **options)
    except UserError as error:
        check_refusal(error)
        return False
    return True


def make_all(folder: pathlib.Path) -> dict[str, Reader]:
    """The readers of files, by name; they write their inputs to `folder`."""
    return {
        "idx": _idx(folder / "idx"),
        "npz": _npz(folder / "npz"),
        "csv": _csv(folder / "csv"),
        "tables": Reader(*tables.make(folder / "tables")),
        "image": _image(),
        "archive": _archive(folder / "archive"),
        "metadata.json": _metadata(folder / "metadata"),
        "dataset.json": _dataset(folder / "dataset"),
        "shards": _shards(folder / "shards"),
        "gin": _gin(folder / "gin"),
        "answer": _answer(),
    }


def _idx(folder):
    folder.mkdir()

    def idx(array):
        header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
        return header + array.tobytes()

    pictures = idx(np.arange(27, dtype=np.uint8).reshape(3, 3, 3))
    labels = idx(np.array([0, 2, 1], np.uint8))
    (folder / "train-images-idx3-ubyte").write_bytes(pictures)
    (folder / "train-labels-idx1-ubyte").write_bytes(labels)
    seeds = [pictures, labels, gzip.compress(pictures), gzip.compress(bytes(1 << 16))]

    def read(content):
        packed = content[:1] == b"\x1f"
        path = folder / f"file{'.gz' if packed else ''}"
        path.write_bytes(content)
        read_or_refused(read_array, path, 1)
        alone = read_or_refused(read_array, path, 3)
        (folder / "train-labels-idx1-ubyte").write_bytes(content)
        return read_or_refused(load, "train", name="idx", data_dir=str(folder)) or alone

    return Reader(mutations.files(seeds), read, seeds)


def _npz(folder):
    folder.mkdir()

    def npz(save=np.savez, **arrays):
        stream = io.BytesIO()
        save(stream, **arrays)
        return stream.getvalue()

    inputs = np.linspace(0, 1, 24, dtype=np.float32).reshape(3, 4, 2)
    labels = np.array([0, 2, 1])
    seeds = [
        npz(inputs=inputs, labels=labels),
        npz(np.savez_compressed, inputs=inputs, labels=labels, lengths=np.array([4, 1, 2])),
        npz(inputs=inputs.astype(">f8"), labels=labels, classes=np.array(["a", "b", "c"])),
        npz(inputs=np.array([{}] * 3), labels=labels),
    ]

    def read(content):
        (folder / "train.npz").write_bytes(content)
        ours = read_or_refused(load, "train", name="npz", data_dir=str(folder))
        sequences = reading.read_npz(small_exports.VECTORS, folder / "train.npz")
        return read_or_refused(list, sequences) or ours

    return Reader(mutations.files(seeds), read, seeds)


def _csv(folder):
    folder.mkdir()
    text = 'class,text\nant,"An ""ant"", small"\nbee,A bee,with two columns\n'
    seeds = [text.encode(), text.encode("utf-8-sig"), b"1,a\n2,b\n", gzip.compress(text.encode())]

    def read(content):
        packed = content[:2] == b"\x1f\x8b"
        for name in ("train.csv", "train.csv.gz"):
            (folder / name).unlink(missing_ok=True)
        (folder / f"train.csv{'.gz' if packed else ''}").write_bytes(content)
        return read_or_refused(load, "train", name="csv", data_dir=str(folder))

    return Reader(mutations.files(seeds), read, seeds)


def pictures():
    """Small image files of every format, by suffix."""
    grey = Image.fromarray(np.arange(25, dtype=np.uint8).reshape(5, 5) * 10)
    colour = Image.fromarray(np.arange(75, dtype=np.uint8).reshape(5, 5, 3) * 3)
    exif = Image.Exif()
    exif[0x0112] = 6
    made = [
        (grey, "PNG", {}),
        (colour.convert("P"), "PNG", {"transparency": 1}),
        (grey.convert("1"), "PNG", {}),
        (colour.convert("RGBA"), "PNG", {}),
        (colour, "JPEG", {"exif": exif}),
        (colour, "JPEG", {"progressive": True}),
        (colour.convert("P"), "GIF", {}),
        (colour, "BMP", {}),
        (colour, "WEBP", {}),
        (grey, "TIFF", {}),
        (colour, "TIFF", {"compression": "tiff_lzw"}),
        (colour, "PPM", {}),
        (colour, "ICO", {}),
        (colour, "JPEG2000", {}),
        (colour, "QOI", {}),
        (colour, "DDS", {}),
        (colour, "SGI", {}),
    ]
    found = []
    for image, kind, options in made:
        stream = io.BytesIO()
        image.save(stream, kind, **options)
        found.append((kind.lower(), stream.getvalue()))
    return found


def _image():
    # An image in a format of which Pillow runs a program is refused.
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 5 5\n%%EndComments\nshowpage\n"
    seeds = [*(content for _, content in pictures()), eps]

    # The suffixes of those that are not recognised by their content alone.
    marks = {b"\0\0\1": ".ico", b"\0\0\0\x0c": ".jp2", b"\xff\x4f": ".jp2", b"qoif": ".qoi"}
    marks |= {b"DDS": ".dds", b"\1\xda": ".sgi"}

    def read_pixels(content):
        suffix = next((marks[mark] for mark in marks if content.startswith(mark)), None)
        images.is_image(f"it{suffix or ''}", lambda: content[: images.BEGINNING])
        images.image_pixels(images.read_image(io.BytesIO(content), "it", suffix), 4, 3)

    return Reader(
        mutations.files(seeds), lambda content: read_or_refused(read_pixels, content), seeds
    )


def _archive(folder):
    folder.mkdir()
    members = [(f"{name}/{n}.{k}", c) for n, (k, c) in enumerate(pictures()[:3]) for name in "ab"]

    def tar(kind):
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w", format=kind) as archive:
            for name, content in [*members, (f"a/{'long' * 20}/{'name' * 9}.png", members[0][1])]:
                header = tarfile.TarInfo(name)
                header.size = len(content)
                archive.addfile(header, io.BytesIO(content))
            link = tarfile.TarInfo("a/link.png")
            link.type, link.linkname = tarfile.SYMTYPE, members[0][0].partition("/")[2]
            archive.addfile(link)
            link.name, link.type, link.linkname = "a/hard.png", tarfile.LNKTYPE, members[0][0]
            archive.addfile(link)
        # Without the blocks of zeros at the end.
        return stream.getvalue().rstrip(b"\0") + bytes(1024)

    def zipped(packing):
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w", packing) as archive:
            for name, content in [*members, ("../../b/up.png", members[0][1])]:
                archive.writestr(name, content)
            link = zipfile.ZipInfo("b/link.png")
            link.external_attr = 0o120777 << 16
            archive.writestr(link, members[1][0].partition("/")[2])
        return stream.getvalue()

    tars = [tar(kind) for kind in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)]
    zips = [zipped(kind) for kind in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)]
    packed = [gzip.compress(tars[0]), lzma.compress(tars[1])]
    headers = st.tuples(mutations.files([t[:1024] for t in tars]), st.sampled_from(tars)).map(
        lambda both: both[0][:1024] + both[1][1024:]
    )
    marks = {b"PK": ".zip", b"\x1f\x8b": ".tar.gz", b"\xfd7": ".tar.xz"}

    def read(content):
        path = folder / f"train{marks.get(content[:2], '.tar')}"
        path.write_bytes(content)
        try:
            return read_or_refused(load, "train", name="image_folder", data_dir=str(folder), side=4)
        finally:
            path.unlink()
            assert not list(folder.iterdir()), "something was unpacked"

    seeds = [*tars, *zips, *packed]
    return Reader(st.one_of(mutations.files(seeds), headers), read, seeds)


INFOS = (small_exports.IMAGES, networks.text_info(), small_exports.VECTORS)


def _use(info):
    """What a client does with a description."""
    with contextlib.suppress(UserError):
        if info.kind == "image":
            info.image_sequence(Image.new("L", (3, 3)))
        elif info.kind == "text":
            info.text(info.text_ids("abc"))
        else:
            info.vector_sequence(np.zeros([2, 1]))


def _metadata(folder):
    folder.mkdir()
    (folder / "classifier.tflite").write_bytes(b"\0\0\0\0TFL3" + bytes(20))
    described = [
        {
            **litert.description(info),
            "artefacts": {"classifier.tflite": {"form": "whole", "variant": "float32"}},
            "files": {"classifier.tflite": {"bytes": 28, "sha256": "00"}},
        }
        for info in INFOS
    ]

    def read(content):
        (folder / litert.METADATA).write_bytes(content)
        # Never run: its SHA-256 is wrong.
        assert not read_or_refused(litert.LiteRTClassifier, folder / "classifier.tflite")

        def read_it():
            _use(DatasetInfo.from_json(litert.read_metadata(folder)["preprocessing"]))

        return read_or_refused(read_it)

    seeds = [json.dumps(entry).encode() for entry in described]
    return Reader(mutations.documents(described), read, seeds)


def _dataset(folder):
    folder.mkdir()

    def read(content):
        (folder / "dataset.json").write_bytes(content)
        return read_or_refused(
            lambda: _use(DatasetInfo.from_json(files.read_json(folder / "dataset.json")))
        )

    described = [info.to_json() for info in INFOS]
    seeds = [json.dumps(entry).encode() for entry in described]
    return Reader(mutations.documents(described), read, seeds)


SHARD, INDEX = manifest.file_names("train", 1)[0]


def _shards(folder):
    """A folder of shards; an input is what dataset.json, an index and a file are to be."""
    folder.mkdir()
    chance = np.random.default_rng(0)
    lengths = {"image": [16] * 4, "text": [3, 1, 4, 1], "vectors": [2, 5, 1, 3]}
    cases, folders = [], {}
    for info in INFOS:
        steps = lengths[info.kind]
        shape = (sum(steps), info.channels) if info.channels else (sum(steps),)
        dtype = np.float32 if info.kind == "vectors" else np.uint8
        table = Table.of_lengths(chance.integers(0, 3, shape).astype(dtype), steps, [0, 1, 2, 1])
        for compression in records.COMPRESSIONS:
            made = folder / f"{info.kind}-{compression}"
            splits = {"train": table, "test": table}
            convert.convert(info, splits, made, shards=1, compression=compression)
            described = json.loads((made / manifest.DESCRIPTION).read_text())
            cases.append((described, np.load(made / INDEX), (made / SHARD).read_bytes()))
            folders[info.kind, compression] = made

    def read(content):
        place, *contents = content
        for name, part in zip((manifest.DESCRIPTION, INDEX, SHARD), contents, strict=True):
            (folders[place] / name).write_bytes(part)

        def read_it():
            split = load("train", name="shards", data_dir=str(folders[place]))
            for _ in split.chunks():
                pass

        verified = read_or_refused(manifest.verify, folders[place], lambda name: None)
        return read_or_refused(read_it) or verified

    seeds = [
        ((d["dataset"]["kind"], d["compression"]), json.dumps(d).encode(), _npy(index), shard)
        for d, index, shard in cases
    ]
    return Reader(_forged_shards(cases), read, seeds)


def _npy(array):
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


@st.composite
def _forged_shards(draw, cases):
    """Damaged shards whose checksums and sums are mostly right: what is behind these is reached."""
    described, index, shard = copy.deepcopy(draw(st.sampled_from(cases)))
    place = described["dataset"]["kind"], described["compression"]
    if draw(st.integers(0, 2)) == 0:
        shard = draw(mutations.files([shard]))
    for _ in range(draw(st.integers(0, 2))):
        row, name = draw(st.integers(0, len(index) - 1)), draw(st.sampled_from(index.dtype.names))
        limits = np.iinfo(index.dtype[name])
        value = draw(st.one_of(st.sampled_from(mutations.NUMBERS), st.integers(-9, 2000)))
        index[name][row] = min(max(value, limits.min), limits.max)
    if draw(st.integers(0, 5)):
        for entry in index:
            begin, size = max(int(entry["begin"]), 0), int(entry["size"])
            entry["crc32"] = zlib.crc32(shard[begin : begin + size])
    packed = _npy(index)
    if draw(st.integers(0, 4)) == 0:
        packed = draw(mutations.files([packed]))
    if draw(st.integers(0, 9)):
        described["splits"]["train"][0] = {
            "examples": len(index),
            "steps": int(index["steps"].sum(dtype=np.int64)),
            "bytes": len(shard),
            "sha256": hashlib.sha256(shard).hexdigest(),
            "index_sha256": hashlib.sha256(packed).hexdigest(),
        }
    content = json.dumps(described).encode()
    if draw(st.integers(0, 2)) == 0:
        content = draw(mutations.documents([described]))
    return place, content, packed, shard


GIN_LINES = [
    "include 'base.gin'",
    "include 'quickstart.gin'",
    "include 'mine.gin'",
    "import os",
    "from os import system",
    "train.seed = 3",
    "SEED = 3",
    "BATCH_SIZE = %SEED",
    "SEED = %BATCH_SIZE",
    "train.auxiliary_losses = [@Reconstruction, @Prediction]",
    "train.optimizer = @Adam",
    "Adam.learning_rate = @Adam()",
    "joint/Phase.epochs = 3",
    "dataset.data_dir = '/'",
    "dataset.splits = ('train', 'test')",
    "train.data = @digits()",
    "digits.side = 3",
    "load.name = 'csv'",
    "load.side = 3",
    "Phase: # a block\n  epochs = 2\n",
    "train.phases = {'a': [1, 2.5, (3,)], 'b': None}",
]
GIN_WORDS = ["=", "%A", "@dataset()", "@train", "%gin.REQUIRED", "gin.macro.value", "[[", "{[1]:2}"]
GIN_WORDS += ["-1", "1e999", "'\\x00'", "a/b/c", "()", "lambda:0", "[" * 300, "'''", "\\", "x\t"]


def _gin(folder):
    folder.mkdir()

    def read(content):
        (folder / "mine.gin").write_bytes(content)
        try:
            return read_or_refused(config.parse, [str(folder / "mine.gin")], [])
        finally:
            gin.clear_config()  # The other readers are configurable.

    seeds = [line.encode() for line in GIN_LINES]
    return Reader(mutations.texts(GIN_LINES, GIN_WORDS), read, seeds)


def _answer():
    """What a server answers, as the client reads it."""
    response = protos.PredictResponse()
    response.outputs["probabilities"].CopyFrom(protos.to_tensor(np.zeros([1, 3], np.float32)))
    response.outputs["filled"].CopyFrom(protos.filled_tensor((2, 3), 1, np.int32))
    response.outputs["metadata"].CopyFrom(protos.to_tensor(np.array(["{}"], object)))
    described = json.dumps(litert.description(small_exports.IMAGES)).encode()

    def read(content):
        try:
            message = protos.PredictResponse.FromString(content)
        except DecodeError:  # grpc ends the call with INTERNAL.
            return False
        try:
            for tensor in message.outputs.values():
                protos.to_array(tensor)
        except ValueError as error:
            check_refusal(error)
            return False
        return True

    seeds = [response.SerializeToString(), described]
    return Reader(mutations.files(seeds), read, seeds)
