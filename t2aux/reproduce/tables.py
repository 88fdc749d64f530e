"""The tables of results: the published number beside the measured one, and its time."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from t2aux.reproduce import wording
from t2aux.reproduce.document import Table
from t2aux.reproduce.experiments import EXPERIMENTS, Cell, Experiment
from t2aux.reproduce.results import Summary
from t2aux.reproduce.wording import DATA_SETS, MISSING, PAPER_BATCH, Rows

# Tables whose conditions stand side by side, so that the many values of what varies are lines.
_TURNED = ("table6", "figure3", "figure4", "truncation")
_VARIES = {"table6": "n x l", "figure3": "length", "figure4": "steps", "truncation": "steps"}
_DIGITS = {"table4": 2, "figure3": 2, "figure6": 2}
_MEASURE = {
    "accuracy": "Accuracy on the test set, %",
    "error": "Error on the test set, %",
    "lost": "Points of accuracy on the test set that are lost without each part",
}


def digits(experiment: Experiment) -> int:
    """The decimals of its numbers, published and measured alike."""
    return _DIGITS.get(experiment.name, 1)


def finished(cell: Cell, rows: Rows) -> Summary | None:
    """What was measured of a cell's row, if it is finished."""
    summary = rows.get(cell.row.id) if cell.row else None
    return summary if summary and summary.finished else None


def value(cell: Cell, measure: str, rows: Rows) -> float | None:
    """A cell's measured number, in the table's own measure; None: not run, or not to its end.

    Args:
        cell: The cell.
        measure: The experiment's.
        rows: What was measured.
    """
    summary = finished(cell, rows)
    if summary is None or measure != "lost" or cell.column != "lost":
        return None if summary is None else _in_measure(summary, measure)
    full = finished(EXPERIMENTS["figure6"].cells[0], rows)
    return full.mean - summary.mean if full else None


def spread(cell: Cell, measure: str, rows: Rows) -> float | None:
    """The standard deviation of `value` over seeds; None: not known.

    That of a difference is both rows' in quadrature.
    """
    some = [finished(cell, rows)]
    if measure == "lost" and cell.column == "lost":
        some.append(finished(EXPERIMENTS["figure6"].cells[0], rows))
    spreads = [summary.spread if summary else None for summary in some]
    return None if None in spreads else math.hypot(*spreads)


def _in_measure(summary: Summary, measure: str) -> float:
    return 100 - summary.mean if measure == "error" else summary.mean


def shown(cell: Cell, measure: str, rows: Rows) -> bool:
    """Whether a cell has a number of ours, be it of an unfinished row."""
    if measure == "lost" and cell.column == "lost":
        return value(cell, measure, rows) is not None
    return bool(cell.row) and cell.row.id in rows


def here(cell: Cell, experiment: Experiment, rows: Rows) -> str:
    """A cell's measured number, in words."""
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
        # The full setting of Figure 6 is told below the table.
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
    return Table(
        header,
        lines,
        _caption(experiment, rows, lines),
        groups if len(columns) > 1 else (),
    )


def _dataset(experiment: Experiment, column: str | int) -> str:
    return column if column in DATA_SETS else next(c.row.dataset for c in experiment.cells if c.row)


def _group(column: str | int) -> str:
    return DATA_SETS[column].title if column in DATA_SETS else str(column)


def _timed(experiment: Experiment) -> bool:
    # Figure 3's columns are many, and its times have a table of their own.
    return experiment.name != "figure3"


def _names(experiment: Experiment, rows: Rows, dataset: str, *, alone: bool) -> list[str]:
    other = wording.stand_in(dataset, rows)
    if other is None:
        names = ["paper", "here", "difference"]
    else:
        # Numbers of different data have no difference.
        paper = f"paper: {DATA_SETS[dataset].title}" if alone else "paper"
        names = [paper, f"here: {other.title}"]
    return names + ["min"] * _timed(experiment)


def _texts(cell: Cell | None, experiment: Experiment, rows: Rows, dataset: str) -> list[str]:
    compared = wording.stand_in(dataset, rows) is None
    if cell is None:
        return [MISSING] * (2 + compared + _timed(experiment))
    many, paper = digits(experiment), cell.published
    texts = [
        MISSING if paper is None else wording.number(paper, many),
        here(cell, experiment, rows),
    ]
    if compared:
        ours = value(cell, experiment.measure, rows)
        known = ours is not None and paper is not None
        texts.append(wording.signed(ours - paper, many) if known else MISSING)
    if _timed(experiment):
        there = shown(cell, experiment.measure, rows)
        texts.append(f"{rows[cell.row.id].minutes:,.0f}" if there else MISSING)
    return texts


def _caption(experiment: Experiment, rows: Rows, lines: Sequence[Sequence[str]]) -> str:
    datasets = list(dict.fromkeys(cell.row.dataset for cell in experiment.cells if cell.row))
    texts = [f"{_MEASURE[experiment.measure]}{_time_words(experiment, rows)}."]
    if any("±" in text for line in lines for text in line):
        of = ", the full setting's in quadrature" if experiment.measure == "lost" else ""
        texts.append(f"±: the standard deviation over {_seeds(experiment, rows)} seeds{of}.")
    if any(" after " in text for line in lines for text in line[1:]):
        texts.append(
            "A number after so many updates of all is that of a row which is not finished: not to "
            "be compared."
        )
    if experiment.measure != "lost":
        texts += _chances(datasets, rows)
    texts.append(budgets(datasets, rows))
    texts += [
        "CIFAR10's images were read from a folder, here JPEG files, which are slightly lossy."
        for dataset in datasets
        if dataset == "cifar10" and from_folder(rows)
    ]
    return " ".join(filter(None, texts))


def _seeds(experiment: Experiment, rows: Rows) -> str:
    counts = {
        len(rows[cell.row.id].runs)
        for cell in experiment.cells
        if cell.row and spread(cell, experiment.measure, rows) is not None
    }
    return wording.span(counts)


def _time_words(experiment: Experiment, rows: Rows) -> str:
    if _timed(experiment):
        return "; min: minutes of training, of one seed"
    times = [
        rows[cell.row.id].minutes
        for cell in experiment.cells
        if shown(cell, experiment.measure, rows)
    ]
    return f"; training took {wording.minutes(times)} a seed"


def _chances(datasets: Iterable[str], rows: Rows) -> list[str]:
    by_text: dict[str, list[str]] = {}
    for dataset in datasets:
        other = wording.stand_in(dataset, rows)
        title = DATA_SETS[dataset].title
        if wording.runs_of(dataset, rows):
            by_text.setdefault(DATA_SETS[dataset].chance, []).append(title)
        if other and other.chance:
            by_text.setdefault(other.chance, []).append(f"the {other.title}")
    return [f"On {wording.listed(titles)} {text}." for text, titles in by_text.items()]


def from_folder(rows: Rows) -> bool:
    """Whether CIFAR10 was read from a folder of images, and not from its own lossless files."""
    return any(
        run.parameters.get("train.data") == "@image_folder()"
        for run in wording.runs_of("cifar10", rows)
    )


def budgets(datasets: Iterable[str], rows: Rows) -> str:
    """How much of the paper's training data sets' rows got, in sentences."""
    by_text: dict[str, list[str]] = {}
    for dataset in datasets:
        runs = wording.runs_of(dataset, rows)
        if runs:
            run = max(runs, key=lambda run: run.planned or run.updates)
            size, others = wording.batches(dataset, rows)
            text = f"{run.planned or run.updates:,} updates of {size} sequences{others}"
            shares = shares_seen(dataset, rows)
            if shares:
                text += f", in all {shares} of the paper's training sequences"
            by_text.setdefault(text, []).append(wording.title_of(dataset, rows))
    return " ".join(f"{wording.listed(titles)}: {text}." for text, titles in by_text.items())


def seen(dataset: str, rows: Rows) -> set[int]:
    """The training sequences, with repetitions, that whole rows of a data set are trained on."""
    return {wording.sequences(run) for run in wording.runs_of(dataset, rows)}


def shares_seen(dataset: str, rows: Rows) -> str | None:
    """`seen` over the paper's, the least to the largest; None: the paper is silent."""
    paper, found = DATA_SETS[dataset], seen(dataset, rows)
    if not paper.epochs:
        return None
    ends = [wording.percent(n / (paper.epochs * paper.examples)) for n in (min(found), max(found))]
    return " to ".join(dict.fromkeys(ends))


def paper_updates(dataset: str) -> int | None:
    """The paper's updates of a row, from its epochs, batch and training set; None: it is silent."""
    paper = DATA_SETS[dataset]
    return paper.epochs * math.ceil(paper.examples / PAPER_BATCH) if paper.epochs else None
