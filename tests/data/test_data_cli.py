import pytest

from tests.cli_helpers import assert_one_sentence, t2aux


def test_lists_the_names():
    output = t2aux("data").stdout
    for name in ("digits", "image_folder", "csv", "npz", "idx", "shards", "mnist", "cifar10"):
        assert f"\n  {name} " in output


def test_summary_and_picture(tmp_path):
    picture = tmp_path / "digits.png"
    done = t2aux("data", "digits", "--gin_param=digits.side = 12", f"--picture={picture}")
    assert "digits: grey images of 12 x 12" in done.stdout
    assert "1,438" in done.stdout
    assert str(picture) in done.stdout
    assert picture.stat().st_size > 10_000


def test_configuration_of_a_whole_run():
    assert "digits: grey images" in t2aux("data", "--gin_file=quickstart").stdout


def test_data_dir(tmp_path):
    for split in ("train", "test"):
        (tmp_path / f"{split}.csv").write_text("a,one\nb,two\n")
    assert "csv: texts" in t2aux("data", "csv", f"--data_dir={tmp_path}").stdout
    assert "csv: texts" in t2aux("data", "csv", T2AUX_DATA_DIR=str(tmp_path)).stdout


def test_preparing_what_needs_none():
    assert "digits needs no preparation." in t2aux("data", "digits", "--prepare").stdout


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["mnst"], ["'mnst'", " mnist?"]),
        (["csv", "--data_dir=none"], [" none: ", "--data_dir"]),
        (["digits", "mnist"], ["2: digits mnist"]),
        (["--picture=a.png"], ["t2aux data NAME"]),
        (["digits", "--picture=a.doc"], [" a.doc", ".png", ".pdf", ".svg"]),
        (["digits", "--gin_param=digits.sid = 3"], ["'sid'", " side?"]),
        (["digits", "--gin_param=digits.side = 0"], ["digits.side", " 0:"]),
        (["digits", "--pictur=a.png"], ["--pictur:", "--picture?"]),
    ],
)
def test_mistakes_are_one_sentence(arguments, parts):
    assert_one_sentence(t2aux("data", *arguments, check=False), *parts)
