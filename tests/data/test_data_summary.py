import shutil

import numpy as np
import pytest
from PIL import Image

from t2aux.data.summary import draw_sequences, summarise
from t2aux.errors import FileError
from tests.sources import load


@pytest.fixture
def texts(tmp_path):
    (tmp_path / "train.csv").write_text(
        "".join(f"{c},${c} text$ \u4e2d {c * 300}\n" for c in "xyz")
    )
    (tmp_path / "test.csv").write_text("x,0123 x\nz,z\n")
    return {
        split: load(split, name="csv", data_dir=str(tmp_path), vocabulary_size=9)
        for split in ("train", "test")
    }


@pytest.fixture
def vectors(tmp_path):
    inputs = np.random.default_rng(0).normal(size=(6, 9, 2))
    for split in ("train", "test"):
        np.savez(tmp_path / f"{split}.npz", inputs=inputs, labels=[0, 1, 0, 1, 0, 1])
    return {split: load(split, name="npz", data_dir=str(tmp_path)) for split in ("train", "test")}


def cells_of(summary):
    """The cells of each row, by its first."""
    return {line.split("  ")[0].strip(): line.split() for line in summary.splitlines()}


def test_summary_of_images():
    splits = {split: load(split, side=12, permutation_seed=3) for split in ("train", "test")}
    summary = summarise(splits)
    assert summary.startswith("digits: grey images of 12 x 12, one pixel a step\n")
    first = ", ".join(map(str, splits["train"].info.permutation[:5]))
    assert f"permuted with seed 3 (pixels {first}, ...)" in summary
    cells = cells_of(summary)
    assert cells["examples"][-2:] == ["1,438", "359"]
    assert cells["length, mean"][-2:] == ["144", "144"]
    counts = [np.bincount(split.labels) for split in splits.values()]
    for label in range(10):
        assert f"\n  {label} " in summary
        line = next(line for line in summary.splitlines() if line.startswith(f"  {label} "))
        assert line.split() == [str(label), *(str(count[label]) for count in counts)]


def test_summary_of_texts(texts):
    summary = summarise(texts)
    assert summary.startswith("csv: texts, one of 9 characters a step\n")
    cells = cells_of(summary)
    assert cells["length, shortest"][-2:] == ["311", "1"]
    assert cells["length, longest"][-2:] == ["311", "6"]
    # Of "0123 x" four are unknown, of "z" none: 4 of 7 characters.
    assert cells["unknown characters, %"][-1] == "57.14"


def test_summary_of_vectors(vectors):
    assert "npz: sequences of real vectors of 2 channels" in summarise(vectors)


@pytest.mark.parametrize("suffix", ["png", "pdf", "svg"])
def test_pictures_have_their_format(tmp_path, suffix):
    path = tmp_path / f"picture.{suffix}"
    draw_sequences(load("test"), path, count=2)
    start = {"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xml"}[suffix]
    assert path.read_bytes().startswith(start)


def test_pictures_of_all_kinds(tmp_path, texts, vectors):
    colour = tmp_path / "train" / "a"
    colour.mkdir(parents=True)
    Image.new("RGB", (3, 3), "red").save(colour / "a.png")
    shutil.copytree(colour, tmp_path / "train" / "b")
    splits = [
        load("train", permutation_seed=1),
        load("train", name="image_folder", data_dir=str(tmp_path)),
        texts["train"],
        vectors["test"],
    ]
    for number, split in enumerate(splits):
        path = tmp_path / f"{number}.png"
        draw_sequences(split, path)
        pixels = np.asarray(Image.open(path).convert("L"))
        # Something is drawn, and most of the paper is left white.
        assert 0.002 < (pixels < 200).mean() < 0.6


def test_a_picture_shows_the_image_unpermuted(tmp_path):
    draw_sequences(load("train"), tmp_path / "plain.png", count=1)
    draw_sequences(load("train", permutation_seed=1), tmp_path / "permuted.png", count=1)
    plain, permuted = (
        np.asarray(Image.open(tmp_path / f"{name}.png").convert("L"))
        for name in ("plain", "permuted")
    )
    left = slice(0, plain.shape[1] // 7)
    below_title = slice(plain.shape[0] // 4, None)
    np.testing.assert_array_equal(plain[below_title, left], permuted[below_title, left])
    assert (plain != permuted).any()


def test_an_unwritable_picture_is_a_user_error(tmp_path):
    split = load("test")
    with pytest.raises(FileError, match=r"picture\.doc.*\.png .*\.pdf .*\.svg"):
        draw_sequences(split, tmp_path / "picture.doc")
    with pytest.raises(FileError, match=r"/none/picture\.png.*No such file"):
        draw_sequences(split, tmp_path / "none" / "picture.png")
    assert not list(tmp_path.iterdir())
