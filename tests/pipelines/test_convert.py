"""`t2aux data convert --runner`: the shards of one machine."""

import numpy as np
import pytest
from PIL import Image

from t2aux.data import convert as here
from t2aux.data import loading, manifest, named
from t2aux.data.image_folder import ImageFolder
from t2aux.errors import FileError
from t2aux.pipelines import convert, runners
from tests.cli_helpers import assert_one_sentence
from tests.pipelines.conftest import run_all

RUNNER = runners.Runner("DirectRunner")


@pytest.fixture
def photos(tmp_path):
    rng = np.random.default_rng(0)
    for split, count in (("train", 12), ("test", 5)):
        for number in range(count):
            path = tmp_path / "photos" / split / "ab"[number % 2] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (5, 5, 3), np.uint8)).save(path)
    return tmp_path / "photos"


def write_here(source, data_dir, folder, **arguments):
    info, train = loading.read(source, "train", data_dir=data_dir)
    _, test = loading.read(source, "test", info, data_dir=data_dir)
    here.convert(info, {"train": train, "test": test}, folder, **arguments)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_images_only_those_of_a_shard_are_made(photos, tmp_path, bucket):
    source = ImageFolder()
    write_here(source, str(photos), tmp_path / "here", shards=3, compression="zlib")
    given = {"shards": 3, "compression": "zlib"}
    info, total = convert.convert(
        RUNNER, source, {"data_dir": str(photos)}, str(tmp_path / "there"), **given
    )
    assert (info.classes, total) == (("a", "b"), 17)
    assert contents(tmp_path / "there") == contents(tmp_path / "here")
    assert manifest.verify(tmp_path / "there", lambda name: None) == 6
    assert sorted(path.name for path in tmp_path.iterdir()) == ["here", "photos", "there"]
    # From a bucket into a bucket.
    folder = bucket.add(photos, "photos")
    before = set(bucket.files)
    convert.convert(RUNNER, source, {"data_dir": folder}, f"{bucket.root}/shards", **given)
    made = {name.rpartition("/")[2]: bucket.files[name] for name in set(bucket.files) - before}
    assert made == contents(tmp_path / "here")
    with pytest.raises(FileError, match=r"://b/shards .*--output_dir"):
        convert.convert(RUNNER, source, {"data_dir": folder}, f"{bucket.root}/shards")


def test_texts_and_their_notes(tmp_path):
    (tmp_path / "data").mkdir()
    for split, count in (("train", 8), ("test", 4)):
        lines = [f'class {i % 2},"same text"\n' for i in range(count)]
        (tmp_path / "data" / f"{split}.csv").write_text("label,text\n" + "".join(lines))
    source = named("csv")
    write_here(source, str(tmp_path / "data"), tmp_path / "here", shards=2)
    arguments = {"data_dir": str(tmp_path / "data")}
    convert.convert(RUNNER, source, arguments, str(tmp_path / "there"), shards=2)
    assert contents(tmp_path / "there") == contents(tmp_path / "here")
    assert "are the same" in str(manifest.read(tmp_path / "there").found["train"]["notes"])


def test_the_command(photos, tmp_path):
    command = ["data", "convert", "image_folder"]
    given, runner = f"--data_dir={photos}", "--runner=DirectRunner"
    to_there, to_other = (f"--output_dir={tmp_path / name}" for name in ("there", "other"))
    done, again = run_all(*[[*command, given, to_there, runner]] * 2)
    assert done.returncode == 0, done.stderr
    assert "17 sequences of image_folder are in" in done.stdout
    assert "t2aux train" in done.stdout
    assert_one_sentence(again, "/there ", "--output_dir")
    (photos / "train" / "a" / "0.png").write_bytes(b"\x89PNG\r\n\x1a\n no image")
    damaged, without, data_dir, output_dir = run_all(
        [*command, given, to_other, runner],
        ["data", "image_folder", given, runner],
        [*command, to_other, "--data_dir=gs://b/x"],
        [*command, given, "--output_dir=gs://b/x"],
    )
    assert_one_sentence(damaged, "0.png")
    assert not (tmp_path / "other").exists()
    assert_one_sentence(without, "--runner")
    for flag, done in (("data_dir", data_dir), ("output_dir", output_dir)):
        assert_one_sentence(done, f"--{flag} ", "gs://b/x")
