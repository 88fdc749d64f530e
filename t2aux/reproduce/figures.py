"""The figures: drawings of the measured points among the published ones, and their tables."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

from t2aux.reproduce import drawings, published, tables, wording
from t2aux.reproduce.document import Block, Drawing, Paragraph, Table
from t2aux.reproduce.experiments import Cell, Experiment
from t2aux.reproduce.results import Summary
from t2aux.reproduce.wording import MISSING, PAPER_BATCH, Rows

_STYLES = "Solid: measured here; dashed: the paper's"


def figure3(experiment: Experiment, rows: Rows) -> list[Block]:
    """Accuracy, time and memory against the length."""
    keys = dict(zip(_lines(experiment), published.FIGURE_3_ACCURACY, strict=True))
    paper = {name: published.FIGURE_3_SECONDS.get(key, {}) for name, key in keys.items()}
    accuracy = _curves(experiment, rows)
    seconds = _measured(experiment, rows, lambda summary: summary.seconds_per_step)
    memory = _measured(experiment, rows, lambda summary: summary.peak_mib)
    length, percent = "sequence length", "test accuracy, %"
    other = wording.stand_in("stanford_dogs", rows)
    if other is None:
        panels = [drawings.Panel("Accuracy", length, percent, accuracy)]
        data = ""
    else:
        # Another task at another level of chance is not comparable, so not in the same axes.
        panels = [
            drawings.Panel(
                "Accuracy in the paper, 120 dog breeds",
                length,
                percent,
                [dataclasses.replace(curve, measured={}, spread={}) for curve in accuracy],
            ),
            drawings.Panel(
                f"Accuracy here, {other.title}",
                length,
                percent,
                [dataclasses.replace(curve, published={}) for curve in accuracy],
            ),
        ]
        data = f" The paper's accuracies are of StanfordDogs, ours of {other.text}: two tasks."
    size, others = wording.batches("stanford_dogs", rows)
    batches = f"{size} sequences here{others}"
    timed = [
        drawings.Curve(name, seconds[name], {x: y for x, y in paper[name].items() if y})
        for name in keys
    ]
    panels += [
        drawings.Panel("Time", length, "seconds a training batch", timed, y_scale="log"),
        drawings.Panel(
            "Memory", length, "peak MiB of the process", _unpublished(memory), y_scale="log"
        ),
    ]
    caption = (
        f"Figure 3. {_STYLES}, read off a plot ({published.FIGURE_ERROR['figure3']}).{data} "
        f"A batch is {batches} and {PAPER_BATCH} there, on other hardware."
        f"{_bars(experiment, rows)}"
    )
    return [
        Drawing("figure3", drawings.draw(panels), caption),
        *_cost_tables(paper, seconds, memory, batches),
    ]


def _cost_tables(paper: dict, seconds: dict, memory: dict, batches: str) -> list[Block]:
    """Time and memory by length, a table each."""
    lengths = list(next(iter(published.FIGURE_3_SECONDS.values())))
    times, peaks = [], []
    for length in lengths:
        times.append([f"{length:,}"])
        peaks.append([f"{length:,}"])
        for name in paper:
            times[-1] += [
                _or_missing(paper[name], length, 2),
                _or_missing(seconds[name], length, 2),
            ]
            peaks[-1].append(_or_missing(memory[name], length, 0))
    return [
        Table(
            ["length", *["paper", "here"] * len(paper)],
            times,
            f"Seconds a training batch: {batches}, {PAPER_BATCH} in the paper.",
            [(name, 2) for name in paper],
        ),
        Table(
            ["length", *paper],
            peaks,
            "Peak memory of the whole training process, MiB; ours alone. Seconds and memory of a "
            "Transformer's step at all eight lengths, measured without training it, are in "
            "`results/figure3_transformer.json`.",
        ),
    ]


def _or_missing(points: Mapping[int, float | None], length: int, many: int) -> str:
    return wording.number(points[length], many) if points.get(length) else MISSING


def _lines(experiment: Experiment) -> list[str]:
    return list(dict.fromkeys(cell.line for cell in experiment.cells))


def _bars(experiment: Experiment, rows: Rows) -> str:
    """What error bars are, where there are some."""
    if any(tables.spread(cell, experiment.measure, rows) is not None for cell in experiment.cells):
        return " Error bars are standard deviations over seeds."
    return ""


def _measured(
    experiment: Experiment, rows: Rows, of: Callable[[Summary], float | None]
) -> dict[str, dict[int, float]]:
    """What was measured beside the accuracy, by line and length."""
    found: dict[str, dict[int, float]] = {name: {} for name in _lines(experiment)}
    for cell in experiment.cells:
        if cell.row.id in rows and of(rows[cell.row.id]):
            found[cell.line][cell.column] = of(rows[cell.row.id])
    return found


def _unpublished(measured: dict[str, dict[int, float]]) -> list[drawings.Curve]:
    return [drawings.Curve(name, points, {}) for name, points in measured.items()]


def _curves(experiment: Experiment, rows: Rows) -> list[drawings.Curve]:
    made = []
    for line in _lines(experiment):
        cells = [cell for cell in experiment.cells if cell.line == line]
        made.append(
            drawings.Curve(
                line,
                _known(cells, tables.value, experiment, rows),
                {c.column: c.published for c in cells if c.published is not None},
                _known(cells, tables.spread, experiment, rows),
            )
        )
    return made


def _known(
    cells: list[Cell],
    of: Callable[[Cell, str, Rows], float | None],
    experiment: Experiment,
    rows: Rows,
) -> dict[int, float]:
    every = {cell.column: of(cell, experiment.measure, rows) for cell in cells}
    return {x: y for x, y in every.items() if y is not None}


def figure4(experiment: Experiment, rows: Rows) -> list[Block]:
    """Accuracy against the steps of supervised BPTT."""
    panel = drawings.Panel(
        "CIFAR10",
        "supervised BPTT, steps (not to scale)",
        "test accuracy, %",
        _curves(experiment, rows),
        x_scale="categories",
    )
    caption = (
        f"Figure 4. {_STYLES}, read off a plot ({published.FIGURE_ERROR['figure4']}). In the paper "
        "accuracy falls slowly down to 50 steps, and with 1 step or none the auxiliary losses keep "
        f"much of it.{_bars(experiment, rows)}"
    )
    return [Drawing("figure4", drawings.draw([panel]), caption)]


def truncation(experiment: Experiment, rows: Rows) -> list[Block]:
    """Accuracy against the supervised BPTT, with an auxiliary loss and without."""
    panels = []
    curves = _curves(experiment, rows)
    for title, is_chrono in (("Forget bias 1", False), ("Chrono initialisation", True)):
        panels.append(
            drawings.Panel(
                f"MNIST, {title[0].lower()}{title[1:]}",
                "supervised BPTT, steps (not to scale)",
                "test accuracy, %",
                [curve for curve in curves if ("chrono" in curve.name) == is_chrono],
                x_scale="categories",
            )
        )
    caption = (
        "The fewer steps the supervised gradient goes back, the more the loss must teach. "
        f"The gradient of the auxiliary loss goes back 300 steps.{_bars(experiment, rows)}"
    )
    return [Drawing("truncation", drawings.draw(panels), caption)]


def figure5(experiment: Experiment, rows: Rows) -> list[Block]:
    """Accuracy against updates, on the training and on the test set."""
    row_of = {cell.line: cell.row.id for cell in experiment.cells}
    keys = dict(zip(row_of, published.FIGURE_5, strict=True))
    ends = max(next(iter(published.FIGURE_5.values())))
    panels = []
    lines = {name: [name, MISSING] for name in keys}
    for which, index in (("train", 0), ("test", 1)):
        curves = []
        for name, key in keys.items():
            summary = rows.get(row_of[name])
            ours = summary.curve(which) if summary else {}
            paper = {x: both[index] for x, both in published.FIGURE_5[key].items()}
            spreads = summary.curve_spread(which) if summary else {}
            curves.append(drawings.Curve(name, ours, paper, spreads))
            lines[name] += [wording.number(paper[ends]), MISSING, MISSING]
            if ours:
                at = max(ours)
                lines[name][1] = f"{at:,}"
                lines[name][-2:] = [
                    wording.number(ours[at]),
                    wording.signed(ours[at] - paper[ends]),
                ]
        title = f"{which} accuracy, %"
        panels.append(drawings.Panel(f"CIFAR10, {which}", "joint updates", title, curves, "log"))
    batches = wording.listed(
        sorted({str(wording.batch(run)) for run in wording.runs_of("cifar10", rows)}), "or"
    )
    caption = (
        f"Figure 5. Accuracy against updates of the joint phase. {_STYLES}, read off a plot "
        f"({published.FIGURE_ERROR['figure5']}). An update is of {batches} sequences here and of "
        f"{PAPER_BATCH} there. Training accuracies here are those of the batches just trained on, "
        f"with DropConnect.{_bars(experiment, rows)}"
    )
    return [
        Drawing("figure5", drawings.draw(panels), caption),
        Table(
            ["", "joint updates here", *["paper", "here", "difference"] * 2],
            list(lines.values()),
            f"Accuracy, %, where the curves end: the paper's after {ends:,} updates of "
            f"{PAPER_BATCH}, ours after so many of {batches}. {tables.budgets(['cifar10'], rows)}",
            [("", 1), ("train", 3), ("test", 3)],
        ),
    ]


def figure6(experiment: Experiment, rows: Rows) -> list[Block]:
    """The points that are lost without each part."""
    full, *cells = experiment.cells
    measure = experiment.measure
    made: list[Block] = [Paragraph(f"The full setting: {tables.here(full, experiment, rows)} %.")]
    measured = [tables.value(cell, measure, rows) for cell in cells]
    if all(value is None for value in measured):
        return made
    svg = drawings.draw_bars(
        [cell.line for cell in cells],
        measured,
        [tables.spread(cell, measure, rows) for cell in cells],
        [cell.published for cell in cells],
        "points of test accuracy lost",
    )
    caption = (
        "Figure 6. What r-LSTM loses on CIFAR10 without each part; a bar to the left is a gain. "
        f"The paper's were {published.FIGURE_ERROR['figure6']}.{_bars(experiment, rows)}"
    )
    return [*made, Drawing("figure6", svg, caption)]
