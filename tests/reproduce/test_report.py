"""The report, from made-up results."""

import dataclasses
import re
import xml.etree.ElementTree

import pytest

from t2aux.errors import UserError
from t2aux.reproduce import experiments, report, results
from t2aux.reproduce.results import Result
from t2aux.reproduce.rows import Row
from tests.cli_helpers import assert_one_sentence, t2aux


def result(row, accuracy, seed=0, budget="short", **more):
    return Result(
        row=row.id,
        budget=budget,
        seed=seed,
        accuracy=accuracy,
        test=[(100, accuracy / 2), (200, accuracy)],
        train=[(100, accuracy / 2), (200, accuracy)],
        updates=200,
        seconds=90.0,
        **{"flags": ["--gin_file=paper/mnist"], "seconds_per_step": 0.45, **more},
    )


R_LSTM = Row("mnist", "r_lstm")


def write(tmp_path, *found):
    return [path.read_text(encoding="utf-8") for path in report.write(found, tmp_path)]


def line_of(markdown, name):
    return next(line for line in markdown.splitlines() if line.startswith(f"| {name}"))


def test_means_spreads_and_differences(tmp_path):
    found = [result(R_LSTM, accuracy, seed) for seed, accuracy in enumerate((0.90, 0.92, 0.97))]
    markdown, _ = write(tmp_path, *found)
    cells = [cell.strip() for cell in line_of(markdown, "r-LSTM, truncated 300").split("|")]
    # Mean 93; sample standard deviation of 90, 92, 97; published 96.4.
    assert cells[2:5] == ["96.4", "93.0 ± 3.6 (n 3)", "-3.4"]
    assert "90.00" in line_of(markdown, "mnist/r_lstm_truncated, seed 0")


def test_what_was_not_run_is_a_dash(tmp_path):
    markdown, _ = write(tmp_path, result(R_LSTM, 0.9))
    cells = [cell.strip() for cell in line_of(markdown, "LSTM, truncated 300").split("|")]
    assert cells[2:5] == ["11.3", "–", "–"]
    cells = [cell.strip() for cell in line_of(markdown, "iRNN").split("|")]
    assert cells[2:5] == ["97", "–", "–"]
    # Not even a heading of what nothing was run for.
    assert "Table 4" not in markdown


def test_an_unfinished_row_says_how_far_it_is(tmp_path):
    rp_lstm, part = Row("cifar10", "rp_lstm"), Row("cifar10", "rp_lstm", off="pretraining")
    gru = Row("mnist", "lstm", core="gru")
    found = [
        result(R_LSTM, 0.9, planned=2000),
        result(Row("mnist", "lstm"), 0.5, planned=2000),
        result(Row("mnist", "lstm"), 0.4, seed=1),
        result(rp_lstm, 0.6),
        result(part, 0.5, planned=2000),
        result(gru, 0.3),
    ]
    markdown, _ = write(tmp_path, *found)
    here = line_of(markdown, "r-LSTM, truncated 300").split("|")[2:5]
    assert here == [" 96.4 ", " 90.0 at 200 ", " – "]
    # Under Table 2; Table 3's rows and Figure 6's are dashes, or done.
    assert markdown.count("not finished") == 1
    # A seed that is done counts alone.
    assert line_of(markdown, "LSTM, truncated 300").split("|")[3] == " 40.0 "
    assert line_of(markdown, "without pretraining").split("|")[2:5] == [" 2.9 ", " – ", " – "]
    assert "| 200 of 2,000 |" in line_of(markdown, "mnist/r_lstm_truncated, seed 0")
    assert "| MNIST | 200 to 2,000 |" in markdown


def test_error_and_points_lost(tmp_path):
    full = Row("cifar10", "rp_lstm")
    without = Row("cifar10", "rp_lstm", off="pretraining")
    markdown, _ = write(
        tmp_path,
        result(Row("dbpedia", "p_lstm"), 0.9013),
        result(full, 0.60),
        result(without, 0.55),
    )
    assert line_of(markdown, "p-LSTM |").split("|")[2:5] == [" 2.85 ", " 9.9 ", " +7.0 "]
    assert line_of(markdown, "without pretraining").split("|")[2:5] == [" 2.9 ", " 5.0 ", " +2.1 "]


def every_row(**more):
    return [
        result(row, 0.5, stand_in="digits" if row.side else None, peak_mib=900.0, **more)
        for row in experiments.rows_of("all")
    ]


def test_the_page_is_whole_and_needs_nothing_else(tmp_path):
    markdown, page = write(tmp_path, *every_row())
    tree = xml.etree.ElementTree.fromstring(page.removeprefix("<!DOCTYPE html>"))
    assert len(tree.findall(".//{http://www.w3.org/2000/svg}svg")) == 4
    assert len(tree.findall(".//table")) == markdown.count("\n| --- ")
    assert not re.search(r'(src|href)="(?!#)', page)
    for name in ("Table 2", "Table 3", "Table 4", "Table 6", "Figure 3", "Figure 5", "Figure 6"):
        assert name in markdown
        assert name in page
    assert "digits" in markdown[markdown.index("deviates") :]


def flags(*settings):
    return ["--gin_file=paper/mnist", *(f"--gin_param={setting}" for setting in settings)]


def test_the_recipe_is_told_from_the_runs_own_flags(tmp_path):
    common = ("BATCH_SIZE = 24", "LSTM.forget_bias = 0.25", "load.name = 'idx'")
    pretrained = ("PRETRAIN_EPOCHS = 2", "JOINT_EPOCHS = 5", "ANCHORS = 3")
    varied = Row("mnist", "r_lstm", anchors=2, length=7)
    markdown, _ = write(
        tmp_path,
        result(R_LSTM, 0.9, flags=flags(*common, *pretrained)),
        result(Row("mnist", "lstm"), 0.1, flags=flags(*common, "JOINT_EPOCHS = 7")),
        result(varied, 0.1, flags=flags("BATCH_SIZE = 24", "LSTM.forget_bias = 3", "ANCHORS = 2")),
    )
    assert (
        "MNIST: 2 + 5 epochs in batches of 24 or 7 epochs in batches of 24; "
        "`LSTM.forget_bias = 0.25`; `ANCHORS = 3` in r_lstm_truncated." in markdown
    )
    assert "CIFAR10: " not in markdown


def test_seeds_with_other_settings_are_not_averaged(tmp_path):
    first = result(R_LSTM, 0.9, flags=flags("SEED = 0"))
    write(tmp_path, first, result(R_LSTM, 0.8, 1, flags=flags("SEED = 1")))
    other = result(R_LSTM, 0.8, 1, flags=flags("SEED = 1", "BATCH_SIZE = 3"))
    with pytest.raises(UserError, match=r"other settings for seed 1 .*BATCH_SIZE = 3"):
        report.write([first, other], tmp_path)


def test_figure_5_counts_joint_updates_of_all_seeds(tmp_path):
    row = Row("cifar10", "r_lstm")
    summary = results.by_row(
        [result(row, 0.5, pretraining=40), result(row, 0.7, 1, pretraining=40)], "short"
    )[row.id]
    assert summary.curve("test") == pytest.approx({60: 30.0, 160: 60.0})
    markdown, _ = write(tmp_path, *summary.runs)
    assert "| r-LSTM, truncated 300, test | 160 | 60.0 |" in markdown


def test_the_markdowns_drawings_lie_beside_it(tmp_path):
    markdown, _ = write(tmp_path, *every_row())
    drawings = re.findall(r"\]\((\S+\.svg)\)", markdown)
    assert len(drawings) == 4
    for name in drawings:
        assert (tmp_path / name).read_text(encoding="utf-8").startswith("<svg")


def test_the_same_results_give_the_same_files(tmp_path):
    first = write(tmp_path / "a", *every_row())
    assert first == write(tmp_path / "b", *every_row())


def test_the_largest_budget_is_reported(tmp_path):
    markdown, _ = write(
        tmp_path, result(R_LSTM, 0.1, budget="smoke"), result(R_LSTM, 0.9, budget="short")
    )
    assert "`short`" in markdown
    assert "10.00" not in markdown


def test_results_are_read_as_they_were_written(tmp_path):
    want = result(R_LSTM, 0.9, peak_mib=700.0, stand_in="digits")
    path = tmp_path / results.file_name(want.row, 0)
    results.write(path, want)
    assert results.read(path) == want
    assert results.read_all(tmp_path) == [want]


@pytest.mark.parametrize("place", [".", "rows", "short/rows"])
def test_results_are_found_where_reproduce_leaves_them(tmp_path, place):
    want = result(R_LSTM, 0.9)
    (tmp_path / place).mkdir(parents=True, exist_ok=True)
    results.write(tmp_path / place / results.file_name(want.row, 0), want)
    assert results.read_all(tmp_path) == [want]


def test_a_damaged_result_is_one_sentence(tmp_path):
    path = tmp_path / "mnist__x.seed0.json"
    path.write_text('{"row": "mnist/x"}')
    with pytest.raises(UserError, match="no result of `t2aux reproduce`"):
        results.read(path)
    assert_one_sentence(t2aux("report", tmp_path, check=False), "no result of `t2aux reproduce`")
    path.write_text("{")
    assert_one_sentence(t2aux("report", tmp_path, check=False), "damaged")
    results.write(path, dataclasses.replace(result(R_LSTM, 0.9), budget="long"))
    assert_one_sentence(t2aux("report", tmp_path, check=False), "'budget' can't be \"long\"")
    assert_one_sentence(t2aux("report", tmp_path / "none", check=False), "There are no results")
    assert_one_sentence(t2aux("report", check=False), "Name one folder")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("budget", None),
        ("accuracy", float("nan")),
        ("accuracy", "0.5"),
        ("seed", 1.5),
        ("test", None),
        ("test", [[1]]),
        ("train", [[1, 2.0]]),
        ("updates", -1),
        ("flags", [1]),
        ("seconds_per_step", "fast"),
        ("stand_in", 3),
    ],
)
def test_a_wrong_value_in_a_result_is_named(tmp_path, name, value):
    path = tmp_path / "mnist__x.seed0.json"
    results.write(path, dataclasses.replace(result(R_LSTM, 0.9), **{name: value}))
    with pytest.raises(UserError, match=f"{path} is damaged: its '{name}' can't be"):
        results.read(path)


def test_the_command_writes_beside_the_results(tmp_path):
    results.write(tmp_path / results.file_name(R_LSTM.id, 0), result(R_LSTM, 0.9))
    done = t2aux("report", tmp_path)
    assert done.stdout.split() == [
        str(tmp_path / "report" / "results.md"),
        str(tmp_path / "report" / "results.html"),
    ]


def test_time_is_that_of_the_steps_alone():
    lines = [
        {"split": "train", "phase": "pretrain", "step": 10, "steps_per_second": 2.0},
        {"split": "train", "phase": "joint", "step": 20, "accuracy": 0.2},
        {
            "split": "train",
            "phase": "joint",
            "step": 40,
            "accuracy": 0.4,
            "steps_per_second": 5.0,
        },
        {"split": "test", "step": 40, "accuracy": 0.5},
    ]
    got = results.measured(lines)
    # The second line has no rate: the typical one of its phase.
    assert got["seconds"] == pytest.approx(10 / 2 + 10 / 5 + 20 / 5)
    assert (got["accuracy"], got["updates"], got["seconds_per_step"]) == (0.5, 40, 0.2)
    assert got["pretraining"] == 10
    assert (got["test"], got["train"]) == ([(40, 0.5)], [(20, 0.2), (40, 0.4)])


@pytest.mark.parametrize("count", [1, 29, 30, 31, 100])
def test_thinned_curves_keep_their_end(count):
    points = list(range(count))
    got = results.thinned(points)
    assert len(got) == min(count, 30)
    assert got[-1] == count - 1
    assert got == sorted(set(got))


def test_every_field_of_a_result_has_a_place():
    assert {field.name for field in dataclasses.fields(Result)} == results._CHECKS.keys()
    assert set(results._KEYS) <= results._CHECKS.keys()
