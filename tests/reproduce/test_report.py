"""The report, from made-up results."""

import dataclasses
import json
import pathlib
import re
import xml.etree.ElementTree

import jinja2
import numpy as np
import pytest

from t2aux import data
from t2aux.errors import ModelError
from t2aux.reproduce import (
    decoding_table,
    deviations,
    drawings,
    experiments,
    findings,
    report,
    results,
)
from t2aux.reproduce.document import Table
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
        seconds=90.0,
        **{
            "flags": ["--gin_file=paper/mnist"],
            "updates": 200,
            "seconds_per_step": 0.45,
            **more,
        },
    )


R_LSTM = Row("mnist", "r_lstm")


@pytest.fixture(autouse=True, scope="module")
def _templates_are_compiled_once():
    compiled, compile_one = {}, jinja2.Environment.from_string

    def from_string(environment, source):
        if source not in compiled:
            compiled[source] = compile_one(environment, source)
        return compiled[source]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jinja2.Environment, "from_string", from_string)
        yield


def write(tmp_path, *found, memory=()):
    """The Markdown, with one space around the cells of tables, and the page."""
    markdown, page = (p.read_text("utf-8") for p in report.write(found, tmp_path, memory)[:2])
    return re.sub(r" +\|", " |", re.sub(r"\| +", "| ", markdown)), page


def line_of(markdown, name, under=""):
    """The first line of a table that begins so, after a heading."""
    lines = markdown[markdown.index(under) :].splitlines()
    return next(line for line in lines if line.startswith(f"| {name}"))


def cells_of(markdown, name, under=""):
    return [cell.strip() for cell in line_of(markdown, name, under).split("|")[2:-1]]


def test_means_spreads_and_differences(tmp_path):
    found = [result(R_LSTM, accuracy, seed) for seed, accuracy in enumerate((0.90, 0.92, 0.97))]
    markdown, _ = write(tmp_path, *found)
    # Mean 93; sample standard deviation of 90, 92, 97; published 96.4; 90 seconds.
    assert cells_of(markdown, "r-LSTM, truncated 300")[:4] == ["96.4", "93.0 ± 3.6", "−3.4", "2"]
    assert "over 3 seeds" in markdown
    assert cells_of(markdown, "r-LSTM, truncated 300", "## The runs")[:2] == ["0", "90.00"]
    assert "`t2aux reproduce table2 --budget=short --data_dir=DATA --seeds=0,1,2 " in markdown


def test_budgets_are_kept_apart_but_for_the_claims(tmp_path):
    lstm, p_lstm = Row("mnist", "lstm"), Row("mnist", "p_lstm")
    short = [result(row, x) for row, x in ((R_LSTM, 0.8), (lstm, 0.9), (p_lstm, 0.95))]
    medium = [result(row, x, budget="medium") for row, x in ((R_LSTM, 0.99), (lstm, 0.6))]
    smoke = result(lstm, 0.1, budget="smoke")
    paths = report.write([*short, *medium, smoke], tmp_path)
    names = ["results", "results_short", "results_smoke"]
    assert paths == [tmp_path / f"{name}.{kind}" for name in names for kind in ("md", "html")]
    markdown, page = write(tmp_path, *short, *medium, smoke)
    assert cells_of(markdown, "MNIST: r-LSTM beats") == [
        *("medium", "96.4 against 11.3", "99.0 against 60.0", "seen")
    ]
    assert cells_of(markdown, "MNIST: p-LSTM beats")[0] == "short"
    assert cells_of(markdown, "LSTM, truncated 300")[:2] == ["11.3", "60.0"]
    assert cells_of(markdown, "p-LSTM, truncated 300")[:2] == ["95.4", "–"]
    assert "[`short`](results_short.md)" in markdown
    assert 'href="results_short.html"' in page
    older = (tmp_path / "results_short.md").read_text("utf-8")
    assert cells_of(older, "LSTM, truncated 300")[1] == "90.0"
    assert cells_of(older, "MNIST: r-LSTM beats")[-1] == "not seen"
    assert "99.0" not in older
    # The numbers of a smoke budget mean nothing.
    assert "## Findings" not in (tmp_path / "results_smoke.md").read_text("utf-8")


def test_what_was_not_run_is_a_dash(tmp_path):
    markdown, _ = write(tmp_path, result(R_LSTM, 0.9))
    assert cells_of(markdown, "LSTM, truncated 300")[:4] == ["11.3", "–", "–", "–"]
    assert cells_of(markdown, "iRNN")[:4] == ["97.0", "–", "–", "–"]
    # Rows of ours that were not run are left out, and so is the heading of a table without any.
    assert "| GRU" not in markdown
    assert "## Table 4" not in markdown
    assert "Nothing was run for Table 3, Table 4, " in markdown


def test_a_figure_whose_only_row_is_another_tables_is_left_out(tmp_path):
    r_lstm = result(Row("cifar10", "r_lstm"), 0.6)
    markdown, _ = write(tmp_path, r_lstm)
    assert "## Table 2" in markdown
    assert "## Figure 4" not in markdown
    assert "## Figure 6" not in markdown
    markdown, _ = write(tmp_path, r_lstm, result(Row("cifar10", "r_lstm", bptt=50), 0.5))
    assert "## Figure 4" in markdown
    full = result(Row("cifar10", "rp_lstm"), 0.61)
    markdown, _ = write(tmp_path, full)
    assert "The full setting: 61.00 %." in markdown
    assert "results-figure6.svg" not in markdown


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
    here = cells_of(markdown, "r-LSTM, truncated 300")[:3]
    assert here == ["96.4", "90.0 after 200 of 2,000", "–"]
    # Under Table 2; the rows of Table 3 and Figure 6 are dashes, or done.
    assert markdown.count("row which is not finished") == 1
    # A seed that is done counts alone.
    assert cells_of(markdown, "LSTM, truncated 300")[1] == "40.0"
    assert cells_of(markdown, "without pretraining")[:3] == ["2.90", "–", "–"]
    assert cells_of(markdown, "r-LSTM, truncated 300", "## The runs")[2] == "200 of 2,000"
    assert cells_of(markdown, "MNIST |", "## Budget")[2] == "200 to 2,000"


def test_of_several_unfinished_seeds_the_furthest_is_shown(tmp_path):
    found = [
        result(R_LSTM, 0.3, seed, planned=2000, updates=updates)
        for seed, updates in enumerate((300, 1500, 900))
    ]
    found[1] = dataclasses.replace(found[1], accuracy=0.7)
    markdown, _ = write(tmp_path, *found)
    assert cells_of(markdown, "r-LSTM, truncated 300")[1] == "70.0 after 1,500 of 2,000"


def test_error_and_points_lost(tmp_path):
    full = Row("cifar10", "rp_lstm")
    without = Row("cifar10", "rp_lstm", off="pretraining")
    markdown, _ = write(
        tmp_path,
        result(Row("dbpedia", "p_lstm"), 0.9013),
        result(full, 0.60),
        result(without, 0.55),
    )
    assert cells_of(markdown, "p-LSTM |")[:3] == ["2.85", "9.87", "+7.02"]
    assert cells_of(markdown, "without pretraining")[:3] == ["2.90", "5.00", "+2.10"]
    assert cells_of(markdown, "p-LSTM (Table 4)", "## The runs")[1] == "9.87"


def test_points_lost_have_the_spread_of_both_rows(tmp_path):
    full, part = Row("cifar10", "rp_lstm"), Row("cifar10", "rp_lstm", off="pretraining")
    found = [result(full, 0.60, 0), result(full, 0.66, 1), result(part, 0.5), result(part, 0.58, 1)]
    # Standard deviations of 3 and 4 points times the root of 2.
    markdown, _ = write(tmp_path, *found)
    assert cells_of(markdown, "without pretraining")[1] == "9.00 ± 7.07"
    # With one seed of the full setting nothing is known of the difference's.
    markdown, _ = write(tmp_path, *found[1:])
    assert cells_of(markdown, "without pretraining")[1] == "12.00"


def test_other_data_has_no_difference(tmp_path):
    markdown, _ = write(tmp_path, result(Row("dbpedia", "p_lstm"), 0.9, stand_in="debian_sections"))
    assert "| paper: DBpedia | here: Debian sections | min |" in markdown
    assert cells_of(markdown, "p-LSTM |") == ["2.85", "10.00", "2"]
    assert "In place of DBpedia: descriptions of Debian packages" in markdown


def verdicts(*found):
    """Of the claims whose rows were run, by claim."""
    rows = results.by_row(found, "short")
    return {
        finding.claim: finding.verdict
        for finding in findings.findings(rows)
        if finding.verdict != findings.NOT_RUN
    }


@pytest.mark.parametrize(
    ("accuracy", "verdict"),
    [(0.55, "seen"), (0.511, "within noise"), (0.50, "not seen"), (0.3, "not seen")],
)
def test_a_claim_is_seen_where_the_difference_is_more_than_noise(accuracy, verdict):
    found = result(R_LSTM, accuracy), result(Row("mnist", "lstm"), 0.5)
    assert verdicts(*found) == {"MNIST: r-LSTM beats the LSTM, both truncated 300": verdict}
    # An unfinished row says nothing.
    assert verdicts(dataclasses.replace(found[0], planned=9000), found[1]) == {}


def test_each_truncation_has_its_own_pair():
    found = [
        result(Row("mnist", model, bptt=steps), accuracy)
        for steps, model, accuracy in ((0, "lstm", 0.2), (0, "r_lstm", 0.6), (50, "p_lstm", 0.7))
    ]
    assert verdicts(*found) == {"MNIST: r-LSTM beats the LSTM, supervised BPTT 0": "seen"}


def test_seeds_say_how_much_noise_there_is():
    lstm = Row("mnist", "lstm")
    ahead = [result(R_LSTM, 0.909, 0), result(R_LSTM, 0.911, 1)]
    near = [result(lstm, 0.90, 0), result(lstm, 0.902, 1)]
    # 0.9 points: less than NOISE_POINTS, but many standard errors.
    assert list(verdicts(*near, *ahead).values()) == ["seen"]
    far = [result(R_LSTM, 0.88, 0), result(R_LSTM, 0.96, 1)]
    assert list(verdicts(*near, *far).values()) == ["within noise"]


@pytest.mark.parametrize(
    ("stand_in", "ahead", "verdict"),
    [
        # Of 359 digits two networks of 50 and 57 % differ by chance: 2 sqrt(2 x 50 x 50 / 359).
        ("digits", 0.57, "within noise"),
        ("digits", 0.58, "seen"),
        # Of StanfordDogs' 8,580 images not so.
        (None, 0.57, "seen"),
    ],
)
def test_a_small_test_set_makes_noise(stand_in, ahead, verdict):
    r_lstm = Row("stanford_dogs", "r_lstm", side=112, anchors=20, length=30)
    lstm = Row("stanford_dogs", "lstm", side=112, full=True)
    found = [result(r_lstm, ahead, stand_in=stand_in), result(lstm, 0.5, stand_in=stand_in)]
    assert list(verdicts(*found).values()) == [verdict]


def test_figure_3_says_how_large_a_transformers_batches_are(tmp_path):
    lstm = Row("stanford_dogs", "lstm", side=40, full=True)
    markdown, _ = write(
        tmp_path,
        result(lstm, 0.5, flags=flags("BATCH_SIZE = 16")),
        result(Row("stanford_dogs", "r_lstm", side=40), 0.5, flags=flags("BATCH_SIZE = 16")),
        result(Row("stanford_dogs", "transformer", side=40), 0.4, flags=flags("BATCH_SIZE = 4")),
    )
    assert "16 sequences here (4 in the Transformer's rows) and 128 in the paper" in markdown
    assert "Seconds a training batch: 16 sequences here (4 in the Transformer's rows)" in markdown


def test_claims_of_series_and_of_the_best():
    steps = {None: 0.60, 200: 0.59, 100: 0.595, 50: 0.5, 1: 0.4, 0: 0.3}
    falling = [result(Row("cifar10", "r_lstm", bptt=b), a) for b, a in steps.items()]
    (fall,) = verdicts(*falling).items()
    assert fall == ("CIFAR10: r-LSTM falls from supervised BPTT 300, 200, 100, 50, 1 to 0", "seen")
    falling[2] = result(Row("cifar10", "r_lstm", bptt=100), 0.65)
    assert list(verdicts(*falling).values()) == ["not seen"]
    best = Row("cifar10", "r_lstm", bptt=1, anchors=20, length=30)
    found = verdicts(falling[4], result(best, 0.45))
    assert found == {
        "CIFAR10, supervised BPTT 1 step: 20x30 beats every other n x l (1 of 5 run)": "seen"
    }


def every_row(**more):
    return [
        result(row, 0.5, stand_in="digits" if row.side else None, peak_mib=900.0, **more)
        for row in experiments.rows_of("all")
    ]


def test_the_page_is_whole_and_needs_nothing_else(tmp_path):
    markdown, page = write(tmp_path, *every_row())
    tree = xml.etree.ElementTree.fromstring(page.removeprefix("<!DOCTYPE html>"))
    assert len(tree.findall(".//{http://www.w3.org/2000/svg}svg")) == 5
    assert len(tree.findall(".//table")) == len(re.findall(r"\n\|:-+\|", markdown))
    assert not re.search(r'(src|href)="(?!#)', page)
    for name in ("Table 2", "Table 3", "Table 4", "Table 6", "Figure 3", "Figure 5", "Figure 6"):
        assert name in markdown
        assert name in page
    assert "digits" in markdown[markdown.index("deviates") :]
    assert "`" not in page
    assert "<code>t2aux reproduce figure3 " in page


def test_headers_have_two_rows_on_the_page_and_one_in_markdown():
    table = Table(["", "paper", "here"], [["a", "1", "−2"]], [("M & N", 2)])
    assert "M & N: paper |   M & N: here |" in table.markdown()
    assert '<th class="group first" colspan="2">M &amp; N</th>' in table.html()
    assert '<td class="first">1</td>' in table.html()


def test_two_tasks_are_never_in_the_same_axes(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(drawings, "draw", lambda panels: drawn.append(panels) or "<svg/>")
    rows = experiments.rows_of("figure3")
    write(tmp_path, *[result(row, 0.5, stand_in="digits") for row in rows])
    write(tmp_path, *[result(row, 0.5) for row in rows])
    stand_in, own = drawn
    accuracies = [panel for panel in stand_in if panel.title.startswith("Accuracy")]
    assert len(accuracies) == 2
    for panel in accuracies:
        assert not (
            any(curve.measured for curve in panel.curves)
            and any(curve.published for curve in panel.curves)
        )
    assert own[0].curves[0].measured
    assert own[0].curves[0].published


def flags(*settings):
    return ["--gin_file=paper/mnist", *(f"--gin_param={setting}" for setting in settings)]


def test_the_recipe_is_read_from_the_runs_own_flags(tmp_path):
    common = ("BATCH_SIZE = 24", "LSTM.forget_bias = 0.25", "train.data = @idx()")
    pretrained = ("PRETRAIN_EPOCHS = 2", "JOINT_EPOCHS = 5", "ANCHORS = 3")
    varied = Row("mnist", "r_lstm", anchors=2, length=7)
    markdown, _ = write(
        tmp_path,
        result(R_LSTM, 0.9, flags=flags(*common, *pretrained)),
        result(Row("mnist", "lstm"), 0.1, flags=flags(*common, "JOINT_EPOCHS = 7")),
        result(varied, 0.1, flags=flags("BATCH_SIZE = 24", "LSTM.forget_bias = 3", "ANCHORS = 2")),
    )
    assert (
        "MNIST: batches of 24 instead of 128; 2 + 5 epochs (pretraining + joint); "
        "7 epochs in rows without pretraining; `LSTM.forget_bias = 0.25`; "
        "3 anchors (`ANCHORS`) in r-LSTM rows." in markdown
    )
    assert "CIFAR10: batches" not in markdown


def test_the_rates_drop_is_listed_with_the_epochs_after_it(tmp_path):
    common = ("joint/Phase.decay_factor = 0.25", "joint/Phase.decay_epochs = 3")
    markdown, _ = write(
        tmp_path,
        result(R_LSTM, 0.9, flags=flags(*common, "PRETRAIN_EPOCHS = 2", "JOINT_EPOCHS = 5")),
        result(Row("mnist", "lstm"), 0.1, flags=flags(*common, "JOINT_EPOCHS = 7")),
    )
    assert "2 + 5 epochs (pretraining + joint), 2 of them after the rate's drop" in markdown
    assert "7 epochs in rows without pretraining, 4 of them after the rate's drop" in markdown
    assert "the rate is multiplied by 0.25 after 3 joint epochs" in markdown
    assert "as many as pretraining has" in markdown


def test_a_transformers_own_schedule_is_listed_beside_the_others(tmp_path):
    drop = ("joint/Phase.decay_factor = 0.25", "joint/Phase.decay_epochs = 3")
    lstm = flags("BATCH_SIZE = 32", "JOINT_EPOCHS = 10", *drop)
    own = (*drop[:1], "joint/Phase.decay_epochs = 4", "dataset.max_examples = 30000")
    transformer = flags("BATCH_SIZE = 8", "JOINT_EPOCHS = 5", *own)
    markdown, _ = write(
        tmp_path,
        result(R_LSTM, 0.9, flags=lstm, updates=1000),
        result(Row("mnist", "lstm"), 0.1, flags=lstm, updates=1000),
        result(Row("mnist", "transformer"), 0.8, flags=transformer, updates=1000),
        result(Row("mnist", "lstm", full=True), 0.7, flags=lstm, updates=1000),
    )
    assert (
        "MNIST: batches of 32 (8 in the Transformer's rows) instead of 128; 10 epochs in rows "
        "without pretraining, 7 of them after the rate's drop; 5 epochs in the Transformer's rows, "
        "1 of them after the rate's drop; the rate is multiplied by 0.25 after 3 joint "
        "epochs (by 0.25 after 4 in the Transformer's rows) instead of" in markdown
    )
    assert (
        "a fixed choice of 30,000 training examples (`dataset.max_examples`) in the Transformer's "
        "rows" in markdown
    )
    assert (
        "The Transformer's rows on MNIST train on a fixed choice of 30,000 of 60,000 examples."
        in markdown
    )
    assert (
        "MNIST: 1,000 updates of 32 sequences (8 in the Transformer's rows), in all 0.012 % to "
        "0.048 % of the paper's training sequences" in markdown
    )
    assert "80.0 against 70.0 (trained on 8,000 against 32,000) | seen |" in markdown
    assert "90.0 against 10.0 | seen |" in markdown
    assert "| MNIST | 8 to 32 | 128 | 1,000 |" in markdown
    assert "| 8,000 to 32,000 | 66,000,000 | 0.012 % to 0.048 % |" in markdown


def test_seeds_with_other_settings_are_not_averaged(tmp_path):
    first = result(R_LSTM, 0.9, flags=flags("SEED = 0"))
    write(tmp_path, first, result(R_LSTM, 0.8, 1, flags=flags("SEED = 1")))
    other = result(R_LSTM, 0.8, 1, flags=flags("SEED = 1", "BATCH_SIZE = 3"))
    with pytest.raises(ModelError, match=rf"{R_LSTM.id}.* seed 1 .* seed 0 .*BATCH_SIZE = 3"):
        report.write([first, other], tmp_path)


def test_figure_5_counts_joint_updates_of_all_seeds(tmp_path):
    row = Row("cifar10", "r_lstm")
    summary = results.by_row(
        [result(row, 0.5, pretraining=40), result(row, 0.7, 1, pretraining=40)], "short"
    )[row.id]
    assert summary.curve("test") == pytest.approx({60: 30.0, 160: 60.0})
    markdown, _ = write(tmp_path, *summary.runs)
    # Published 64.9 and 65.9 after 390,000.
    cells = cells_of(markdown, "r-LSTM, truncated 300", "## Figure 5")
    assert cells == ["160", "64.9", "60.0", "−4.9", "65.9", "60.0", "−5.9"]


def test_the_markdowns_drawings_lie_beside_it(tmp_path):
    markdown, _ = write(tmp_path, *every_row())
    drawings = re.findall(r"\]\((\S+\.svg)\)", markdown)
    assert len(drawings) == 5
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
    assert "90.00" in markdown
    assert "10.00" not in markdown


def test_the_budget_is_the_share_of_the_papers_updates_and_sequences(tmp_path):
    found = result(R_LSTM, 0.9, updates=51_590, flags=flags("BATCH_SIZE = 64"))
    markdown, _ = write(tmp_path, found)
    # 1,100 epochs of 469 batches of 128, or of 60,000 images.
    cells = ["64", "128", "51,590", "515,900", "10 %", "3,301,760", "66,000,000", "5 %"]
    assert cells_of(markdown, "MNIST |", "## Budget") == cells
    assert "MNIST: 51,590 updates of 64 sequences, in all 5 % of the paper's" in markdown


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
    with pytest.raises(ModelError, match=f"^{path} .*`t2aux reproduce`"):
        results.read(path)
    assert_one_sentence(t2aux("report", tmp_path, check=False), str(path), "`t2aux reproduce`")
    path.write_text("{")
    assert_one_sentence(t2aux("report", tmp_path, check=False), str(path), "JSON")
    results.write(path, dataclasses.replace(result(R_LSTM, 0.9), budget="long"))
    assert_one_sentence(t2aux("report", tmp_path, check=False), str(path), "'budget'", '"long"')
    none = tmp_path / "none"
    assert_one_sentence(t2aux("report", none, check=False), str(none), "--output_dir")
    assert_one_sentence(t2aux("report", check=False), "`t2aux report DIR`")


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
    with pytest.raises(ModelError, match=f"^{path} .*'{name}' .*{re.escape(json.dumps(value))}"):
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


ROOT = pathlib.Path(__file__).parents[2]
RESULTS = ROOT / "results" / "reproduce"


def test_the_committed_report_is_that_of_the_committed_results(tmp_path):
    memory = decoding_table.read_all(RESULTS)
    report.write(results.read_all(RESULTS), tmp_path, memory)
    for written in sorted(tmp_path.glob("*.md")):
        markdown = written.read_text("utf-8")
        committed = (ROOT / "docs" / written.name).read_text("utf-8")
        assert committed == markdown, "t2aux report results/reproduce --output_dir=docs"
        # Their text differs from one version of matplotlib to the next.
        drawings = set(re.findall(rf"\]\(({written.stem}-\S+\.svg)\)", markdown))
        for folder in (ROOT / "docs", tmp_path):
            assert drawings == {path.name for path in folder.glob(f"{written.stem}-*.svg")}


def test_the_rows_that_were_trained_twice_differ_by_the_noise():
    variants = json.loads((ROOT / "results" / "mnist_variants.json").read_text())
    row, accuracy = findings.CHECKED
    assert variants["checkpoint_accuracy"] == pytest.approx(accuracy / 100)
    ours = results.read(RESULTS / results.file_name(row, 0)).accuracy
    assert abs(100 * ours - accuracy) == pytest.approx(findings.NOISE_POINTS, abs=0.05)


def test_documents_are_cut_where_the_report_says():
    assert data.DBpedia().max_length == 1024


@pytest.mark.parametrize(("anchors", "reach"), deviations.REACH.items())
def test_the_mean_reach_of_several_anchors(anchors, reach):
    import tensorflow as tf

    from t2aux.training.truncation import group_anchors

    n, length = anchors
    begin = tf.function(lambda positions: group_anchors(positions, 300).begin)
    random = np.random.default_rng(0)
    reaches = []
    for _ in range(4000 // n):
        positions = random.integers(length + 1, 1024 + 1, n, dtype=np.int32)
        reaches.append(np.mean(positions - begin(tf.constant(positions)).numpy()))
    assert np.mean(reaches) == pytest.approx(reach, abs=5)


def test_reconstructions_are_in_the_report_if_there_are_some(tmp_path):
    (tmp_path / "rows").mkdir()
    measured = {
        "command": "t2aux reconstructions --model_dir=D",
        "split": "test",
        "unit": "squared distance per token",
        "verdict": "The decoder beats every guess.",
        "loss": {"mean": 0.5, "teacher_forced": 0.25},
        "about": {"mean": "the mean token", "teacher_forced": "the state"},
    }
    path = tmp_path / "reconstructions_x.json"
    path.write_text(json.dumps(measured))
    # Beside the folder of results, or in it.
    for folder in (tmp_path / "rows", tmp_path):
        found = decoding_table.read_all(folder)
        markdown, _ = write(tmp_path / "report", result(R_LSTM, 0.9), memory=found)
        assert "| the state | 0.2500 |\n| the mean token | 0.5000 |" in markdown
        assert "The decoder beats every guess." in markdown
    assert "Is the memory real?" not in write(tmp_path / "report", result(R_LSTM, 0.9))[0]
    path.write_text(json.dumps({**measured, "loss": {"mean": "low"}}))
    with pytest.raises(ModelError, match=f"^{path} .*`t2aux reconstructions`"):
        decoding_table.read_all(tmp_path)
