"""The figures: drawings of measured and published points, and their tables."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from t2aux.reproduce import drawings, published, tables, wording
from t2aux.reproduce.document import Table
from t2aux.reproduce.experiments import Cell, Experiment
from t2aux.reproduce.results import Summary
from t2aux.reproduce.wording import MISSING, Rows

_Points = Mapping[int, float | None]
_SPLITS = ("train", "test")
# The last update of the paper's curves in Figure 5.
LAST_UPDATE = max(next(iter(published.FIGURE_5.values())))


def figure3(experiment: Experiment, rows: Rows) -> str:
    """Accuracy, time and memory against the length."""
    accuracy = _curves(experiment, rows)
    length, percent = "sequence length", "test accuracy, %"
    other = wording.stand_in("stanford_dogs", rows)
    panels = [drawings.Panel("Accuracy", length, percent, accuracy)]
    if other:
        # A different task with a different chance level is not comparable, so it has its own axes.
        paper = [dataclasses.replace(curve, measured={}, spread={}) for curve in accuracy]
        here = [dataclasses.replace(curve, published={}) for curve in accuracy]
        panels = [
            drawings.Panel("Accuracy in the paper, 120 dog breeds", length, percent, paper),
            drawings.Panel(f"Accuracy here, {other.title}", length, percent, here),
        ]
    paper, seconds, memory = _costs(experiment, rows)
    time = [
        drawings.Curve(name, seconds[name], {x: y for x, y in paper[name].items() if y})
        for name in paper
    ]
    peaks = [drawings.Curve(name, points, {}) for name, points in memory.items()]
    return drawings.draw(
        [
            *panels,
            drawings.Panel("Time", length, "seconds a training batch", time, y_scale="log"),
            drawings.Panel("Memory", length, "peak MiB of the process", peaks, y_scale="log"),
        ]
    )


def costs(experiment: Experiment, rows: Rows) -> tuple[Table, Table]:
    """Figure 3's seconds per training batch, and peak memory in MiB, by length."""
    paper, seconds, memory = _costs(experiment, rows)
    lengths = list(next(iter(published.FIGURE_3_SECONDS.values())))

    def lines(columns: Sequence[_Points], digits: int) -> list[list[str]]:
        return [
            [f"{x:,}", *(wording.number(c[x], digits) if c.get(x) else MISSING for c in columns)]
            for x in lengths
        ]

    both = [points for name in paper for points in (paper[name], seconds[name])]
    header = ["length", *["paper", "here"] * len(paper)]
    return (
        Table(header, lines(both, 2), [(name, 2) for name in paper]),
        Table(["length", *paper], lines(list(memory.values()), 0)),
    )


def _costs(experiment: Experiment, rows: Rows) -> tuple[dict[str, _Points], ...]:
    """The paper's seconds, our seconds and our memory, each by line and length."""
    keys = dict(zip(experiment.lines, published.FIGURE_3_ACCURACY, strict=True))
    return (
        {name: published.FIGURE_3_SECONDS.get(key, {}) for name, key in keys.items()},
        _measured(experiment, rows, lambda summary: summary.seconds_per_step),
        _measured(experiment, rows, lambda summary: summary.peak_mib),
    )


def _measured(
    experiment: Experiment, rows: Rows, of: Callable[[Summary], float | None]
) -> dict[str, dict[int, float]]:
    """Measurements other than the accuracy, by line and length."""
    found: dict[str, dict[int, float]] = {name: {} for name in experiment.lines}
    for cell in experiment.cells:
        if cell.row.id in rows and of(rows[cell.row.id]):
            found[cell.line][cell.column] = of(rows[cell.row.id])
    return found


def _curves(experiment: Experiment, rows: Rows) -> list[drawings.Curve]:
    measure = experiment.measure

    def points(cells: Sequence[Cell], of: Callable[[Cell], float | None]) -> dict[int, float]:
        return {cell.column: y for cell in cells if (y := of(cell)) is not None}

    return [
        drawings.Curve(
            line,
            points(cells, lambda cell: tables.value(cell, measure, rows)),
            points(cells, lambda cell: cell.published),
            points(cells, lambda cell: tables.spread(cell, measure, rows)),
        )
        for line, cells in experiment.lines.items()
    ]


_STEPS = "supervised BPTT, steps (not to scale)"


def figure4(experiment: Experiment, rows: Rows) -> str:
    """Accuracy against the steps of supervised BPTT."""
    curves = _curves(experiment, rows)
    panel = drawings.Panel("CIFAR10", _STEPS, "test accuracy, %", curves, x_scale="categories")
    return drawings.draw([panel])


def truncation(experiment: Experiment, rows: Rows) -> str:
    """Accuracy against the supervised BPTT, with an auxiliary loss and without."""
    panels = []
    for title, is_chrono in (("forget bias 1", False), ("chrono initialisation", True)):
        curves = [c for c in _curves(experiment, rows) if ("chrono" in c.name) == is_chrono]
        title, y = f"MNIST, {title}", "test accuracy, %"
        panels.append(drawings.Panel(title, _STEPS, y, curves, x_scale="categories"))
    return drawings.draw(panels)


def figure5(experiment: Experiment, rows: Rows) -> str:
    """Accuracy against updates, on the training set and on the test set."""
    panels = []
    for index, split in enumerate(_SPLITS):
        curves = []
        for name, (summary, paper) in _learning(experiment, rows).items():
            theirs = {x: both[index] for x, both in paper.items()}
            ours, spread = summary.curve(split), summary.curve_spread(split)
            curves.append(drawings.Curve(name, ours, theirs, spread))
        title = f"{split} accuracy, %"
        panels.append(drawings.Panel(f"CIFAR10, {split}", "joint updates", title, curves, "log"))
    return drawings.draw(panels)


def ends(experiment: Experiment, rows: Rows) -> Table:
    """The accuracies at the ends of the curves of Figure 5."""
    lines = []
    for name, (summary, paper) in _learning(experiment, rows).items():
        cells, updates = [], MISSING
        for split, theirs in zip(_SPLITS, paper[LAST_UPDATE], strict=True):
            ours, here = summary.curve(split), [MISSING, MISSING]
            if ours:
                last = max(ours)
                updates = f"{last:,}"
                here = [wording.number(ours[last]), wording.signed(ours[last] - theirs)]
            cells += [wording.number(theirs), *here]
        lines.append([name, updates, *cells])
    header = ["", "joint updates here", *["paper", "here", "difference"] * 2]
    return Table(header, lines, [("", 1), *((split, 3) for split in _SPLITS)])


def _learning(experiment: Experiment, rows: Rows) -> dict[str, tuple[Summary, dict]]:
    """The lines of Figure 5: measured results, and the paper's accuracies by updates."""
    row_of = {cell.line: cell.row.id for cell in experiment.cells}
    return {
        name: (rows.get(row, Summary([])), paper)
        for (name, row), paper in zip(row_of.items(), published.FIGURE_5.values(), strict=True)
    }


def figure6(experiment: Experiment, rows: Rows) -> str:
    """The points of accuracy that are lost without each part."""
    measure, (_, *cells) = experiment.measure, experiment.cells
    bars = []
    for cell in cells:
        error = tables.spread(cell, measure, rows)
        bars.append((cell.line, tables.value(cell, measure, rows), error, cell.published))
    return drawings.draw_bars(bars, "points of test accuracy lost")


def has_parts(experiment: Experiment, rows: Rows) -> bool:
    """Whether there are results on the contributions of the parts in Figure 6."""
    _, *cells = experiment.cells
    return any(tables.value(cell, experiment.measure, rows) is not None for cell in cells)
