"""The report: each table and figure with the published numbers beside the measured ones."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Callable, Sequence
from typing import Any

from t2aux.reproduce import decoding_table, deviations, figures, findings, results, tables, wording
from t2aux.reproduce.document import Block, Heading, Items, Paragraph, Table
from t2aux.reproduce.document import write as write_document
from t2aux.reproduce.experiments import EXPERIMENTS, Experiment
from t2aux.reproduce.results import Result
from t2aux.reproduce.rows import BUDGETS
from t2aux.reproduce.wording import DATA_SETS, MISSING, PAPER_BATCH, Rows

_BUDGETS = {
    "paper": "The budget is the paper's own schedule.",
    "short": "The budget is `short`: a small part of the paper's updates, the same for every row "
    "of a data set. So the differences between rows are to be read, not the last percent.",
    "smoke": "The budget is `smoke`: seconds a row, on tiny stand-ins. It shows that everything "
    "runs; the numbers mean nothing.",
}
_NOTES = {
    "table3": "Its rows are Table 2's, trained once.",
    "figure4": "Its rows of 300 steps are Table 2's, r-LSTM's of 1 step and 0 steps Table 6's.",
    "truncation": "Not in the paper. Its rows of 300 steps are Table 2's.",
    "figure5": "Its rows are Table 2's, trained once.",
}
_DRAWN: dict[str, Callable[[Experiment, Rows], list[Block]]] = {
    "figure3": figures.figure3,
    "figure4": figures.figure4,
    "truncation": figures.truncation,
    "figure5": figures.figure5,
    "figure6": figures.figure6,
}


def write(
    found: Sequence[Result], folder: pathlib.Path, memory: Sequence[dict[str, Any]] = ()
) -> list[pathlib.Path]:
    """Writes results.md (with SVG drawings beside it) and results.html.

    Args:
        found: The results, of any budgets; the largest budget that is there is reported on.
        folder: Made where needed.
        memory: What `t2aux reconstructions` measured, as `reconstructions.read_all` gives it.

    Returns:
        The two paths.

    Raises:
        UserError: They can't be written.
    """
    return write_document(blocks(found, memory), folder, "results")


def blocks(found: Sequence[Result], memory: Sequence[dict[str, Any]] = ()) -> list[Block]:
    """The report as a document."""
    budget = max({result.budget for result in found}, key=BUDGETS.index)
    rows = results.by_row(found, budget)
    there = [experiment for experiment in EXPERIMENTS.values() if _is_there(experiment, rows)]
    missing = [wording.title(e) for e in EXPERIMENTS.values() if e not in there]
    made: list[Block] = [
        Heading("The paper's numbers beside ours", 1),
        Paragraph(
            "Trinh, Dai, Luong and Le (ICML 2018) train an LSTM on very long sequences with "
            "truncated backpropagation, and add an auxiliary loss at random anchors: r-LSTM "
            "reconstructs a segment of the past, p-LSTM predicts the future. Here is every table "
            "and figure of theirs that has numbers, the published one beside the measured one; "
            "their Table 5 and footnote 4 were not found. A dash is a number that is not there: "
            "not published, or not run."
            + (f" Nothing was run for {wording.listed(missing)}." if missing else "")
        ),
        *(findings.blocks(rows) if budget != "smoke" else ()),
        *_budget(budget, rows),
    ]
    for experiment in there:
        made += _section(experiment, budget, rows)
    made += decoding_table.blocks(memory)
    made += [
        Heading("What deviates from the paper"),
        Items(deviations.texts(budget, rows)),
        *_runs(rows),
    ]
    return made


def _is_there(experiment: Experiment, rows: Rows) -> bool:
    return any(tables.shown(cell, experiment.measure, rows) for cell in experiment.cells)


def _budget(budget: str, rows: Rows) -> list[Block]:
    lines = []
    for dataset, paper in DATA_SETS.items():
        runs = wording.runs_of(dataset, rows)
        if not runs:
            continue
        updates, total = {run.planned or run.updates for run in runs}, tables.paper_updates(dataset)
        of_all = paper.epochs * paper.examples if paper.epochs else None
        lines.append(
            [
                paper.title,
                wording.span({wording.batch(run) for run in runs}),
                f"{PAPER_BATCH}",
                wording.span(updates),
                f"{total:,}" if total else "silent",
                wording.percent(max(updates) / total) if total else MISSING,
                wording.span(tables.seen(dataset, rows)),
                f"{of_all:,}" if of_all else "silent",
                tables.shares_seen(dataset, rows) or MISSING,
            ]
        )
    return [
        Heading("Budget"),
        Paragraph(_BUDGETS[budget]),
        Paragraph(_seeds(rows)),
        Table(
            ["data", "here", "paper", *["here", "paper", "share"] * 2],
            lines,
            "Of one row. The training sequences are those seen, again and again: updates times "
            "batch here, epochs times training set in the paper, all phases together."
            + _choices(rows),
            [("batch", 2), ("updates", 3), ("training sequences", 3)],
        ),
    ]


def _choices(rows: Rows) -> str:
    """Of which data sets only a part is trained on."""
    told: dict[str, list[str]] = {}
    for dataset, paper in DATA_SETS.items():
        if wording.stand_in(dataset, rows):
            continue
        groups = wording.grouped(
            wording.rows_of(dataset, rows),
            lambda summary: summary.runs[0].parameters.get("dataset.max_examples"),
        )
        for count, some in groups.items():
            if count is not None:
                who = wording.whose(some) if len(groups) > 1 else "all rows"
                text = f"train on a fixed choice of {int(count):,} of {paper.examples:,} examples"
                told.setdefault(f"{who[0].upper()}{who[1:]} on {{}} {text}.", []).append(
                    paper.title
                )
    return "".join(" " + text.format(wording.listed(titles)) for text, titles in told.items())


def _seeds(rows: Rows) -> str:
    counts = {len(summary.runs) for summary in rows.values()}
    text = (
        "One seed a row."
        if counts == {1}
        else f"{wording.span(counts)} seeds a row; numbers are their means."
    )
    row, other = findings.CHECKED
    if row in rows and rows[row].finished and len(rows[row].runs) == 1:
        run = rows[row].runs[0]
        ours = 100 * run.accuracy
        text += (
            f" {_name(row)} with seed {run.seed} was trained on two versions of the code and ended "
            f"at {wording.number(ours)} and {wording.number(other)} % "
            "(`results/mnist_variants.json`): with one seed, differences of a point are within "
            "the noise."
        )
    return text


def _name(row: str) -> str:
    dataset = DATA_SETS[row.partition("/")[0]].title
    return f"{dataset}'s {wording.names().get(row, row)}"


def _section(experiment: Experiment, budget: str, rows: Rows) -> list[Block]:
    note = _NOTES.get(experiment.name)
    made: list[Block] = [
        Heading(f"{wording.title(experiment)}. {experiment.title}"),
        *([Paragraph(note)] if note else []),
        Paragraph(_command(experiment, budget, rows)),
    ]
    if experiment.name != "figure5":
        made.append(tables.results_table(experiment, rows))
    if experiment.name in _DRAWN:
        made += _DRAWN[experiment.name](experiment, rows)
    return made


def _command(experiment: Experiment, budget: str, rows: Rows) -> str:
    seeds = sorted(
        {
            run.seed
            for cell in experiment.cells
            if cell.row and cell.row.id in rows
            for run in rows[cell.row.id].runs
        }
    )
    flags = [f"--budget={budget}", *([] if budget == "smoke" else ["--data_dir=DATA"])]
    if seeds != [0]:
        flags.append(f"--seeds={','.join(map(str, seeds))}")
    return f"`t2aux reproduce {experiment.name} {' '.join(flags)} --output_dir=RUNS`"


def _runs(rows: Rows) -> list[Block]:
    runs = [run for summary in rows.values() for run in summary.runs]
    # Older results say "1 cores".
    places = sorted({re.sub(r"\b1 cores", "1 core", run.hardware) for run in runs if run.hardware})
    dates = sorted({run.finished for run in runs if run.finished})
    versions = sorted({v for run in runs if (v := run.versions.get("tensorflow"))})
    text = "Minutes are of training steps alone, without evaluations."
    if places:
        text += f" Run on {'; '.join(places)}"
        text += f", TensorFlow {', '.join(versions)}" if versions else ""
        text += f", {' to '.join(dict.fromkeys((dates[0], dates[-1])))}." if dates else "."
    made: list[Block] = [Heading("The runs"), Paragraph(text)]
    names = wording.names()
    for dataset in DATA_SETS:
        own = {row: s for row, s in rows.items() if row.startswith(f"{dataset}/")}
        if own:
            ordered = sorted(own, key=lambda row: list(names).index(row) if row in names else 0)
            is_error = dataset == "dbpedia"
            made += [
                Heading(wording.title_of(dataset, rows), 3),
                Table(
                    [
                        "row",
                        "seed",
                        "test error, %" if is_error else "test accuracy, %",
                        "updates",
                        "min",
                        "s a step",
                        "peak MiB",
                    ],
                    [
                        _run(names.get(row, row), run, is_error)
                        for row in ordered
                        for run in own[row].runs
                    ],
                ),
            ]
    return made


def _run(name: str, run: Result, is_error: bool) -> list[str]:
    accuracy = 100 * run.accuracy
    return [
        name,
        f"{run.seed}",
        wording.number(100 - accuracy if is_error else accuracy, 2),
        f"{run.updates:,}" + (f" of {run.planned:,}" if run.planned else ""),
        f"{run.seconds / 60:,.1f}",
        f"{run.seconds_per_step:.3f}" if run.seconds_per_step else MISSING,
        f"{run.peak_mib:,.0f}" if run.peak_mib else MISSING,
    ]
