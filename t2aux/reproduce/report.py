"""The report: each table and figure with published and measured numbers side by side.

The text is in results.md.jinja; other modules make the tables, numbers and drawings.
"""

from __future__ import annotations

import pathlib
import re
from collections.abc import Sequence
from typing import Any

from t2aux.reproduce import (
    decoding_table,
    deviations,
    document,
    figures,
    findings,
    published,
    results,
    tables,
    wording,
)
from t2aux.reproduce.document import Table
from t2aux.reproduce.experiments import EXPERIMENTS, Experiment
from t2aux.reproduce.results import Result
from t2aux.reproduce.rows import BUDGETS
from t2aux.reproduce.wording import DATA_SETS, MISSING, PAPER_BATCH, Rows


def write(
    measured: Sequence[Result], folder: pathlib.Path, memory: Sequence[dict[str, Any]] = ()
) -> list[pathlib.Path]:
    """Writes results.md (with SVG drawings beside it) and results.html.

    They report on the largest budget of the results. Each smaller budget has results_BUDGET.md and
    .html. Only the claims at the beginning of results.md cover all budgets.

    Args:
        measured: The results, of any budgets.
        folder: The folder, which is created if needed.
        memory: The results of `t2aux reconstructions`, from `decoding_table.read_all`.

    Returns:
        The paths, those of the largest budget first.

    Raises:
        UserError: A file can't be written.
    """
    budgets = sorted({result.budget for result in measured}, key=BUDGETS.index, reverse=True)
    by_budget = {budget: results.by_row(measured, budget) for budget in budgets}
    names = {budget: f"results_{budget}" if i else "results" for i, budget in enumerate(budgets)}
    written = []
    for budget, rows in by_budget.items():
        is_first = names[budget] == "results"
        compared = by_budget if is_first else {budget: rows}
        found = findings.of_budgets({b: r for b, r in compared.items() if b != "smoke"})
        values = _values(budget, rows, found, memory if is_first else ())
        others = {b: f"{names[b]}.md" for b in budgets if b != budget}
        written += document.write(
            folder, names[budget], "results.md.jinja", others=others, **values
        )
    return written


def _values(
    budget: str, rows: Rows, found: list[findings.Finding], memory: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """The variables of the template for a budget's report."""
    runs = [run for summary in rows.values() for run in summary.runs]
    shown, before = [], set()
    for experiment in EXPERIMENTS.values():
        # Rows of an experiment above do not make a section of their own.
        own = set(experiment.rows) - before or set(experiment.rows)
        before |= own
        cells = [cell for cell in experiment.cells if cell.row in own]
        if any(tables.shown(cell, experiment.measure, rows) for cell in cells):
            shown.append(experiment)
    claims = [claim for claim in found if claim.verdict != findings.NOT_RUN]
    # Older results say "1 cores".
    machines = {re.sub(r"\b1 cores", "1 core", run.hardware) for run in runs if run.hardware}
    return {
        "budget": budget,
        "rows": rows,
        "experiments": shown,
        "missing": [wording.title(e) for e in EXPERIMENTS.values() if e not in shown],
        "found": found,
        "claims": claims,
        "has_plateau": any(c.family == "truncated" and c.claim.startswith("MNIST") for c in claims),
        "seeds": wording.span({len(summary.runs) for summary in rows.values()}),
        "from_folder": tables.from_folder(rows),
        "memory": memory,
        "hardware": sorted(machines),
        "versions": sorted({v for run in runs if (v := run.versions.get("tensorflow"))}),
        "dates": sorted({run.finished for run in runs if run.finished}),
        "budget_table": _budget_table(rows),
        "choices": _choices(rows),
        "command": _command,
        "runs_table": _runs_table,
        "decoding_table": decoding_table,
        "deviations": deviations,
        "figures": figures,
        "findings": findings,
        "published": published,
        "tables": tables,
        "wording": wording,
    }


def _budget_table(rows: Rows) -> Table:
    """The share of the paper's training that the rows of each data set had."""
    lines = []
    for dataset, paper in DATA_SETS.items():
        runs = wording.runs_of(dataset, rows)
        if not runs:
            continue
        updates, total = {run.planned or run.updates for run in runs}, tables.paper_updates(dataset)
        lines.append(
            [
                paper.title,
                wording.span({wording.batch(run) for run in runs}),
                f"{PAPER_BATCH}",
                wording.span(updates),
                f"{total:,}" if total else "not given",
                wording.percent(max(updates) / total) if total else MISSING,
                wording.span(tables.seen(dataset, rows)),
                f"{paper.epochs * paper.examples:,}" if paper.epochs else "not given",
                tables.shares_seen(dataset, rows) or MISSING,
            ]
        )
    return Table(
        ["data", "here", "paper", *["here", "paper", "share"] * 2],
        lines,
        [("batch", 2), ("updates", 3), ("training sequences", 3)],
    )


def _choices(rows: Rows) -> list[str]:
    """Sentences on the data sets of which only a part was used for training."""
    found = []
    for dataset, paper in DATA_SETS.items():
        groups = wording.grouped(
            wording.rows_of(dataset, rows),
            lambda summary: summary.runs[0].parameters.get("dataset.max_examples"),
        )
        for count, some in groups.items():
            if count is not None and not wording.stand_in(dataset, rows):
                who = wording.whose(some) if len(groups) > 1 else "all rows"
                text = f"train on a fixed choice of {int(count):,} of {paper.examples:,} examples"
                found.append((paper.title, f"{who[0].upper()}{who[1:]} on {{}} {text}."))
    return [text.format(titles) for text, titles in wording.merged(found)]


def _command(experiment: Experiment, budget: str, rows: Rows) -> str:
    """The command that trains an experiment's rows."""
    measured = [rows[row.id] for row in experiment.rows if row.id in rows]
    seeds = sorted({run.seed for summary in measured for run in summary.runs})
    flags = [f"--budget={budget}", *([] if budget == "smoke" else ["--data_dir=DATA"])]
    if seeds != [0]:
        flags.append(f"--seeds={','.join(map(str, seeds))}")
    return f"t2aux reproduce {experiment.name} {' '.join(flags)} --output_dir=RUNS"


def _runs_table(dataset: str, rows: Rows) -> Table:
    """A table of all runs on a data set, one per line."""
    summaries, names = wording.rows_of(dataset, rows), wording.names()
    is_error, order = dataset == "dbpedia", list(names)
    measure = "test error, %" if is_error else "test accuracy, %"
    return Table(
        ["row", "seed", measure, "updates", "min", "s a step", "peak MiB"],
        [
            [
                names.get(row, row),
                f"{run.seed}",
                wording.number(100 * (1 - run.accuracy if is_error else run.accuracy), 2),
                f"{run.updates:,}" + (f" of {run.planned:,}" if run.planned else ""),
                f"{run.seconds / 60:,.1f}",
                f"{run.seconds_per_step:.3f}" if run.seconds_per_step else MISSING,
                f"{run.peak_mib:,.0f}" if run.peak_mib else MISSING,
            ]
            for row in sorted(summaries, key=lambda row: order.index(row) if row in names else 0)
            for run in summaries[row].runs
        ],
    )
