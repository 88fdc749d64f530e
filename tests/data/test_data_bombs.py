"""Small files that claim, or unpack to, more than any memory: refused in a sentence."""

import gzip
import io
import struct
import tarfile
import tracemalloc
import zipfile
import zlib

import numpy as np
import pytest
from PIL import Image

from t2aux.data.idx import read_array
from t2aux.errors import DataError, FileError, SettingError
from t2aux_ondevice import arrays, images, limits
from tests.sources import load

MAX_MIB = 64


def refused(read, *arguments, match, kind=DataError):
    """Asserts a refusal that takes little memory."""
    tracemalloc.start()
    try:
        with pytest.raises(kind, match=match) as caught:
            read(*arguments)
        assert tracemalloc.get_traced_memory()[1] < MAX_MIB << 20
    finally:
        tracemalloc.stop()
    return str(caught.value)


def picture():
    stream = io.BytesIO()
    Image.fromarray(np.zeros((3, 3, 3), np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def test_an_idx_header_takes_no_memory(tmp_path):
    header = struct.pack(">BBBBIII", 0, 0, 8, 3, 2**10, 2**15, 2**15)
    for name, content in (("plain", header), ("packed.gz", gzip.compress(header))):
        (tmp_path / name).write_bytes(content + b"")
        refused(read_array, tmp_path / name, 3, match=rf"{name} .*1,099,511,627,776 .* 0\b")


def test_an_idx_file_without_examples(tmp_path):
    (tmp_path / "x").write_bytes(struct.pack(">BBBBIII", 0, 0, 8, 3, 2**32 - 1, 0, 2**32 - 1))
    refused(read_array, tmp_path / "x", 3, match=r"/x .*examples")


def test_packed_in_earnest_is_read(monkeypatch):
    monkeypatch.setenv(limits.UNPACKED_MB, "1")
    assert limits.most_unpacked(10) == 1_000_000
    assert limits.most_unpacked(10**9) == 20 * 10**9
    monkeypatch.setenv(limits.UNPACKED_MB, "many")
    with pytest.raises(SettingError, match=r"T2AUX_MAX_UNPACKED_MB .*'many'"):
        limits.most_unpacked(10)


def npz(path, **members):
    with zipfile.ZipFile(path, "w", members.pop("packing", zipfile.ZIP_DEFLATED)) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)


def npy(shape, dtype="<f4", content=b""):
    stream = io.BytesIO()
    header = {"descr": dtype, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, header)
    return stream.getvalue() + content


@pytest.mark.parametrize("shape", [(2**40,), (2**20, 2**20), (2**33, 1), (-1,)])
def test_an_npz_header_takes_no_memory(tmp_path, shape):
    npz(tmp_path / "x.npz", inputs=npy(shape))
    refused(arrays.read_npz, tmp_path / "x.npz", ["inputs"], match=r"x\.npz .*inputs\.npy.*header")


def test_an_npz_member_holds_what_its_header_says(tmp_path):
    npz(tmp_path / "x.npz", inputs=npy((1,), content=bytes(8)))
    refused(arrays.read_npz, tmp_path / "x.npz", ["inputs"], match=r"x\.npz .*inputs\.npy.*header")


def test_an_npz_file_of_zeros_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv(limits.UNPACKED_MB, "2")
    npz(tmp_path / "x.npz", inputs=npy((10**6,), content=bytes(4 * 10**6)))
    refused(
        arrays.read_npz, tmp_path / "x.npz", ["inputs"], match=r"2,000,000.*T2AUX_MAX_UNPACKED_MB"
    )


def test_an_npz_file_in_another_packing_is_refused(tmp_path):
    npz(tmp_path / "x.npz", inputs=npy((1,), content=bytes(4)), packing=zipfile.ZIP_LZMA)
    refused(arrays.read_npz, tmp_path / "x.npz", ["inputs"], match=r"inputs\.npy .*compressed")


def png(width, height):
    """A picture of zeros, of any size, in a few bytes."""

    def chunk(kind, content):
        checksum = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + checksum

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize("size", [(10_000, 9_000), (2**31 - 1, 2**31 - 1)])
def test_a_picture_of_many_pixels_is_refused(size):
    refused(images.read_image, io.BytesIO(png(*size)), "it", match=r"\bit\b.* 89,478,485 ")


def test_the_limit_of_pixels_can_be_changed(monkeypatch):
    monkeypatch.setenv(limits.IMAGE_PIXELS, "8")
    with pytest.raises(DataError, match=r"\bit\b.* 8 .*T2AUX_MAX_IMAGE_PIXELS"):
        images.read_image(io.BytesIO(picture()), "it")
    monkeypatch.setenv(limits.IMAGE_PIXELS, "9")
    assert images.read_image(io.BytesIO(picture()), "it").size == (3, 3)


def test_an_icon_of_a_larger_picture_than_it_says_is_refused(monkeypatch):
    monkeypatch.setenv(limits.IMAGE_PIXELS, "1000")
    content = png(100, 100)
    # One picture of 16 x 16, it says.
    entry = struct.pack("<BBBBHHII", 16, 16, 0, 0, 1, 8, len(content), 22)
    icon = struct.pack("<HHH", 0, 1, 1) + entry + content
    refused(images.read_image, io.BytesIO(icon), "it.ico", match=r"it\.ico")


def test_a_long_text_in_a_picture_takes_no_memory():
    text = b"Comment\0\0" + zlib.compress(bytes(200 << 20), 9)
    checksum = struct.pack(">I", zlib.crc32(b"zTXt" + text))
    chunk = struct.pack(">I", len(text)) + b"zTXt" + text + checksum
    content = picture()
    content = content[:33] + chunk + content[33:]
    tracemalloc.start()
    assert images.read_image(io.BytesIO(content), "it").size == (3, 3)
    assert tracemalloc.get_traced_memory()[1] < MAX_MIB << 20
    tracemalloc.stop()


def test_pillow_runs_no_program(monkeypatch):
    from PIL import EpsImagePlugin

    ran = []
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *a, **k: ran.append(a))
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 5 5\n%%EndComments\nshowpage\n"
    for name in ("it.png", "it.eps", "it.ps", "it.iim", "it"):
        with pytest.raises(DataError, match=f"^{name} .*PNG"):
            images.read_image(io.BytesIO(eps), name)
        assert name == "it.png" or not images.is_image(name, lambda: eps)
    assert not {".eps", ".ps", ".iim", ".fits", ".pdf"} & images.image_suffixes().keys()
    assert not ran


def tar(*members):
    """An archive of (header, content)."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for header, content in members:
            archive.addfile(header, io.BytesIO(content))
    return stream.getvalue()


def member(name, size, kind=tarfile.REGTYPE):
    header = tarfile.TarInfo(name)
    header.size, header.type = size, kind
    return header


def read_folder(folder):
    return load("train", name="image_folder", data_dir=str(folder), side=3)


def test_a_negative_size_ends(tmp_path):
    content = bytearray(tar((member("a/x.png", 0), b"")))
    content[124:136] = (2**96 - 512).to_bytes(12, "big")
    content[148:156] = b" " * 8
    content[148:156] = b"%06o\0 " % sum(content[:512])
    (tmp_path / "train.tar").write_bytes(content)
    refused(read_folder, tmp_path, match=r"train\.tar .*negative", kind=FileError)


def test_archives_write_nothing_outside(tmp_path):
    data = tmp_path / "deep" / "data"
    data.mkdir(parents=True)
    content = picture()
    link = member("a/link", 0, tarfile.SYMTYPE)
    link.linkname = str(tmp_path)
    names = ["a/1.png", "../../b/2.png", f"{tmp_path}/c/3.png", "a/link/4.png"]
    members = [(member(n, len(content)), content) for n in names]
    members.append((member("a/5.png", 0, tarfile.CHRTYPE), b""))
    (data / "train.tar").write_bytes(tar((link, b""), *members))
    with pytest.raises(DataError, match=rf"a/link .*train\.tar .*{tmp_path},"):
        read_folder(data)
    (data / "train.tar").write_bytes(tar(*members))
    with zipfile.ZipFile(data / "other.zip", "w") as archive:
        for name in names:
            archive.writestr(name, content)
    before = sorted(tmp_path.rglob("*"))
    assert len(read_folder(data).labels) >= 2
    (data / "train.tar").unlink()
    (data / "other.zip").rename(data / "train.zip")
    assert len(read_folder(data).labels) >= 2
    after = sorted(tmp_path.rglob("*"))
    assert len(after) == len(before) - 1


def test_a_zip_member_in_another_packing_is_read(tmp_path):
    with zipfile.ZipFile(tmp_path / "train.zip", "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("a/1.png", picture())
        archive.writestr("b/1.png", picture())
    assert len(read_folder(tmp_path)) >= 1


def test_a_zip_member_without_a_name_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "train.zip", "w") as archive:
        archive.writestr("a/1.png", picture())
        archive.writestr("x", b"")
    content = (tmp_path / "train.zip").read_bytes()
    place = content.rindex(b"PK\x01\x02")
    # Its name becomes a comment in the directory.
    lengths = content[place + 28 : place + 34]
    assert lengths == b"\1\0\0\0\0\0"
    content = content[: place + 28] + b"\0\0\0\0\1\0" + content[place + 34 :]
    (tmp_path / "train.zip").write_bytes(content)
    refused(read_folder, tmp_path, match=r"train\.zip .*name", kind=FileError)


def test_more_pictures_than_memory_are_reported(monkeypatch, tmp_path):
    (tmp_path / "train" / "a").mkdir(parents=True)
    (tmp_path / "train" / "a" / "1.png").write_bytes(picture())
    with pytest.raises(DataError, match=r"image_folder.* 1 .*72,057,594,037,927,936 .*side"):
        load("train", name="image_folder", data_dir=str(tmp_path), side=2**28, allow="one_class")
