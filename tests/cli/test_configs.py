"""`t2aux configs`, from the command line."""

import subprocess
import sys

import pytest

from t2aux import config
from tests.cli_helpers import assert_one_sentence, environment, t2aux


def test_the_files_are_listed_by_folder():
    lines = t2aux("configs").stdout.splitlines()
    listed = [line.split()[0] for line in lines if line.startswith("  ")]
    assert sorted(listed[:-1]) == config.list_bundled()
    assert lines[-1] == "  t2aux configs quickstart"
    assert lines.index("models/") < lines.index(next(x for x in lines if "models/lstm " in x))
    assert max(map(len, lines)) <= 100


def test_a_file_is_explained_with_all_that_it_configures():
    shown = t2aux("configs", "quickstart").stdout
    assert shown.startswith("quickstart\n  The first run: r-LSTM on digits")
    assert "t2aux train --model_dir=runs/quickstart --gin_file=quickstart" in shown
    for line in (
        "Included files: base, datasets/digits, models/r_lstm.",
        "  JOINT_EPOCHS = 40  (quickstart): joint/Phase.epochs",
        "  train.batch_size = 16  (%BATCH_SIZE, quickstart; default 128)",
        "  train.clip_norm = 1.0",
        "  pretrain/Phase.epochs = 15  (%PRETRAIN_EPOCHS, quickstart; default 1000)",
        "      A whole number. l, the number of predicted tokens per segment.",
        "  digits.border = 1  (quickstart; default 0)",
        "Set, but not used by this configuration: Prediction.",
    ):
        assert f"\n{line}\n" in f"{shown}\n"


def test_files_are_taken_together_and_may_be_a_users_own(tmp_path):
    own = tmp_path / "mine.gin"
    own.write_text("# Mine.\n\ntrain.clip_norm = 0.5\n")
    shown = t2aux("configs", "paper/mnist", "models/p_lstm", str(own)).stdout
    assert "  Prediction.length = 600  (%SEGMENT_LENGTH, paper/images; default 600)" in shown
    # A long path has a line of its own.
    assert f"train.clip_norm = 0.5 ({own}; default 1.0)" in " ".join(shown.split())
    found = t2aux("configs", "mine", f"--gin_search_path={tmp_path}").stdout
    assert "train.clip_norm = 0.5" in found
    part = t2aux("configs", "training/full").stdout
    assert "  SUPERVISED_BPTT = 'full'  (training/full): used by base" in part


def test_a_configurable_a_parameter_and_a_macro():
    shown = t2aux("configs", "Reconstruction").stdout
    assert shown.startswith("Reconstruction: r-LSTM: reconstructs, from the state")
    assert "\n  Reconstruction.weight = 1.0\n" in shown
    assert t2aux("configs", "Phase.epochs").stdout.splitlines()[1:] == [
        "  Phase.epochs = 1000",
        "      A whole number. The number of passes over the training set.",
    ]
    macro = t2aux("configs", "SIDE").stdout
    assert "datasets/stanford_dogs\n  SIDE = %gin.REQUIRED\n" in macro


@pytest.mark.parametrize("arguments", [[], ["csv"], ["dataset.allow"], ["ANCHORS"]])
def test_what_needs_no_network_does_not_load_tensorflow(arguments):
    code = (
        "import sys\n"
        "from t2aux.cli import main\n"
        "sys.argv[0] = 't2aux'\n"
        "try: main.main()\n"
        "except SystemExit as end: assert not end.code\n"
        "assert 'tensorflow' not in sys.modules"
    )
    words = [sys.executable, "-c", code, "configs", *arguments]
    subprocess.run(words, env=environment(), check=True, capture_output=True)


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["quikstart"], ["'quikstart'", " quickstart?"]),
        (["Reconstrction"], ["'Reconstrction'", " Reconstruction?"]),
        (["Phase.epoch"], ["Phase", "'epoch'", " epochs?"]),
        (["ANCHOR"], ["'ANCHOR'", " ANCHORS?"]),
        (["quickstart", "models/rlstm"], ["'models/rlstm'", " models/r_lstm?"]),
    ],
)
def test_mistakes_name_the_nearest(arguments, parts):
    assert_one_sentence(t2aux("configs", *arguments, check=False), *parts)
