"""The tables of results: published and measured numbers, and times."""

from __future__ import annotations

import math
from collections.abc import Iterable

from t2aux.reproduce import wording
from t2aux.reproduce.document import Table
from t2aux.reproduce.experiments import EXPERIMENTS, Cell, Experiment
from t2aux.reproduce.results import Summary
from t2aux.reproduce.wording import DATA_SETS, MISSING, PAPER_BATCH, Rows

# Transposed tables: conditions are columns, so that the many values that vary are lines.
_TURNED = ("table6", "figure3", "figure4", "truncation")
_VARIES = {"table6": "n x l", "figure3": "length", "figure4": "steps", "truncation": "steps"}
_DIGITS = {"table4": 2, "figure3": 2, "figure6": 2}


def digits(experiment: Experiment) -> int:
    """The number of decimals of an experiment's numbers, both published and measured."""
    return _DIGITS.get(experiment.name, 1)


def finished(cell: Cell, rows: Rows) -> Summary | None:
    """The summary of a cell's row, if it is finished."""
    summary = rows.get(cell.row.id) if cell.row else None
    return summary if summary and summary.finished else None


def value(cell: Cell, measure: str, rows: Rows) -> float | None:
    """A cell's measured number in the table's measure; None if it was not run to the end.

    Args:
        cell: The cell.
        measure: The measure of the experiment.
        rows: The measured rows.
    """
    summary = finished(cell, rows)
    if summary is None or measure != "lost" or cell.column != "lost":
        return None if summary is None else _in_measure(summary, measure)
    full = finished(EXPERIMENTS["figure6"].cells[0], rows)
    return full.mean - summary.mean if full else None


def spread(cell: Cell, measure: str, rows: Rows) -> float | None:
    """The standard deviation of `value` over seeds; None if unknown.

    For a difference, those of both rows are added in quadrature.
    """
    some = [finished(cell, rows)]
    if measure == "lost" and cell.column == "lost":
        some.append(finished(EXPERIMENTS["figure6"].cells[0], rows))
    spreads = [summary.spread if summary else None for summary in some]
    return None if None in spreads else math.hypot(*spreads)


def _in_measure(summary: Summary, measure: str) -> float:
    return 100 - summary.mean if measure == "error" else summary.mean


def shown(cell: Cell, measure: str, rows: Rows) -> bool:
    """Whether a cell has a measured number, even of an unfinished row."""
    if measure == "lost" and cell.column == "lost":
        return value(cell, measure, rows) is not None
    return bool(cell.row) and cell.row.id in rows


def here(cell: Cell, experiment: Experiment, rows: Rows) -> str:
    """A cell's measured number as text."""
    measure = experiment.measure
    if not shown(cell, measure, rows):
        return MISSING
    summary, many = rows[cell.row.id], digits(experiment)
    if not summary.finished and cell.column != "lost":
        run = summary.runs[0]
        text = wording.number(_in_measure(summary, measure), many)
        return f"{text} after {run.updates:,} of {run.planned:,}"
    text = wording.number(value(cell, measure, rows), many)
    error = spread(cell, measure, rows)
    if error is None:
        return text
    return f"{text} ± {wording.number(error, many)}"


def results_table(experiment: Experiment, rows: Rows) -> Table:
    """The published numbers, the measured ones, their differences and times."""
    turned = experiment.name in _TURNED
    cells = {}
    for cell in experiment.cells:
        # The full setting of Figure 6 is shown below the table.
        if experiment.measure != "lost" or cell.column == "lost":
            line, column = (cell.column, cell.line) if turned else (cell.line, cell.column)
            cells.setdefault(line, {})[column] = cell
    columns = list(dict.fromkeys(column for line in cells.values() for column in line))
    lines = []
    for line, by_column in cells.items():
        if any(
            cell.published is not None or shown(cell, experiment.measure, rows)
            for cell in by_column.values()
        ):
            texts = [f"{line:,}" if isinstance(line, int) else line]
            for column in columns:
                dataset = _dataset(experiment, column)
                texts += _texts(by_column.get(column), experiment, rows, dataset)
            lines.append(texts)
    header, groups = [_VARIES.get(experiment.name, "")], []
    for column in columns:
        names = _names(experiment, rows, _dataset(experiment, column), alone=len(columns) == 1)
        header += names
        groups.append((_group(column), len(names)))
    return Table(header, lines, groups if len(columns) > 1 else ())


def _dataset(experiment: Experiment, column: str | int) -> str:
    return column if column in DATA_SETS else next(c.row.dataset for c in experiment.cells if c.row)


def _group(column: str | int) -> str:
    return DATA_SETS[column].title if column in DATA_SETS else str(column)


def is_timed(experiment: Experiment) -> bool:
    """Whether the table has a column of minutes."""
    # Figure 3 has many columns, and its times have a separate table.
    return experiment.name != "figure3"


def _is_published(experiment: Experiment) -> bool:
    """Whether the experiment is also in the paper."""
    return any(cell.published is not None for cell in experiment.cells)


def _names(experiment: Experiment, rows: Rows, dataset: str, *, alone: bool) -> list[str]:
    other = wording.stand_in(dataset, rows)
    if not _is_published(experiment):
        names = ["here"]
    elif other is None:
        names = ["paper", "here", "difference"]
    else:
        # Numbers on different data are not subtracted.
        paper = f"paper: {DATA_SETS[dataset].title}" if alone else "paper"
        names = [paper, f"here: {other.title}"]
    return names + ["min"] * is_timed(experiment)


def _texts(cell: Cell | None, experiment: Experiment, rows: Rows, dataset: str) -> list[str]:
    if cell is None:
        return [MISSING] * len(_names(experiment, rows, dataset, alone=True))
    many, paper = digits(experiment), cell.published
    texts = [here(cell, experiment, rows)]
    if _is_published(experiment):
        texts.insert(0, MISSING if paper is None else wording.number(paper, many))
    if _is_published(experiment) and wording.stand_in(dataset, rows) is None:
        ours = value(cell, experiment.measure, rows)
        known = ours is not None and paper is not None
        texts.append(wording.signed(ours - paper, many) if known else MISSING)
    if is_timed(experiment):
        is_shown = shown(cell, experiment.measure, rows)
        texts.append(f"{rows[cell.row.id].minutes:,.0f}" if is_shown else MISSING)
    return texts


def seeds(experiment: Experiment, rows: Rows) -> str | None:
    """The numbers of seeds of rows with several seeds; None without such rows."""
    counts = {
        len(rows[cell.row.id].runs)
        for cell in experiment.cells
        if cell.row and spread(cell, experiment.measure, rows) is not None
    }
    return wording.span(counts) if counts else None


def training_time(experiment: Experiment, rows: Rows) -> str:
    """The range of minutes that rows took."""
    return wording.minutes(rows[row.id].minutes for row in experiment.rows if row.id in rows)


def chances(datasets: Iterable[str], rows: Rows) -> str:
    """Sentences on the results of guessing on data sets."""
    found = []
    for dataset in datasets:
        other = wording.stand_in(dataset, rows)
        if wording.runs_of(dataset, rows):
            found.append((DATA_SETS[dataset].title, DATA_SETS[dataset].chance))
        if other and other.chance:
            found.append((f"the {other.title}", other.chance))
    return " ".join(f"On {titles} {text}." for text, titles in wording.merged(found))


def from_folder(rows: Rows) -> bool:
    """Whether CIFAR10 was read from a folder of images, instead of its own lossless files."""
    return any(
        run.parameters.get("train.data") == "@image_folder()"
        for run in wording.runs_of("cifar10", rows)
    )


def budgets(datasets: Iterable[str], rows: Rows) -> str:
    """Sentences on the share of the paper's training that the rows of data sets had."""
    found = []
    for dataset in datasets:
        runs = wording.runs_of(dataset, rows)
        if runs:
            size, others = wording.batches(dataset, rows)
            updates = max(run.planned or run.updates for run in runs)
            text = f"{updates:,} updates of {size} sequences{others}"
            if shares := shares_seen(dataset, rows):
                text += f", in all {shares} of the paper's training sequences"
            found.append((wording.title_of(dataset, rows), text))
    return " ".join(f"{titles}: {text}." for text, titles in wording.merged(found))


def seen(dataset: str, rows: Rows) -> set[int]:
    """The numbers of training sequences, with repetitions, of complete rows of a data set."""
    return {wording.sequences(run) for run in wording.runs_of(dataset, rows)}


def shares_seen(dataset: str, rows: Rows) -> str | None:
    """The range of `seen` as shares of the paper's number; None if the paper does not give it."""
    paper, found = DATA_SETS[dataset], seen(dataset, rows)
    if not paper.epochs:
        return None
    ends = [wording.percent(n / (paper.epochs * paper.examples)) for n in (min(found), max(found))]
    return " to ".join(dict.fromkeys(ends))


def paper_updates(dataset: str) -> int | None:
    """The paper's updates per row, from epochs, batch and training set; None if not given."""
    paper = DATA_SETS[dataset]
    return paper.epochs * math.ceil(paper.examples / PAPER_BATCH) if paper.epochs else None
