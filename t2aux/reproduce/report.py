"""The report: each table and figure with the published numbers beside the measured ones."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Sequence

from t2aux.reproduce import drawings, published, results
from t2aux.reproduce.document import Block, Drawing, Heading, Items, Paragraph, Table
from t2aux.reproduce.document import write as write_document
from t2aux.reproduce.experiments import EXPERIMENTS, Cell, Experiment
from t2aux.reproduce.results import Result, Summary
from t2aux.reproduce.rows import BUDGETS

_MISSING = "–"
_UNFINISHED = (
    "A number at so many updates is that of a row which is not finished: not to be compared."
)
_DATASETS = {
    "mnist": "MNIST",
    "pmnist": "pMNIST",
    "cifar10": "CIFAR10",
    "stanford_dogs": "StanfordDogs",
    "dbpedia": "DBpedia",
}
# The paper's updates of a row, from its epochs, batch and training set; it is silent on DBpedia's.
_PAPER_UPDATES = {
    "mnist": 1100 * 469,
    "pmnist": 1100 * 469,
    "cifar10": 1100 * 391,
    "stanford_dogs": 120 * 1172,
}
_STAND_INS = {
    "digits": "scikit-learn's 8 x 8 digits, resized where the row has a side",
    "docstrings": "docstrings of Python's standard library, by package",
    "debian_sections": "descriptions of Debian packages, by section",
}
# Rows that vary what others share, and settings that are no part of a recipe.
_VARIED = r"_without_|_\d+x\d+|_bptt\d+|_side\d+"
_NOT_THE_RECIPE = (
    r"SEED|SIDE|BATCH_SIZE|(PRETRAIN|JOINT)_EPOCHS|CHRONO_STEPS|SUPERVISED_BPTT|"
    r"load\.(?!max_examples)|train\.(?!optimizer)|joint/Phase\.auxiliary"
)
_DECISIONS = (
    "The paper leaves much open; these are our readings, and each is a gin parameter: the token "
    "loss is the squared error for pixels; anchors are uniform over the positions that leave room "
    "for a segment, drawn anew for every batch and shared by it; the segment of r-LSTM begins "
    "anywhere before the anchor; reversed reconstruction emits it from its end; auxiliary layers "
    "have the main network's 128 cells; decoders are cut where the auxiliary BPTT ends; gradients "
    "are clipped at a global norm of 1.",
    'Figure 6\'s "predict future" is read as an extra p-type loss beside the r-type one, and its '
    "full setting has it.",
    "The Transformer of comparable size is a plain pre-norm encoder of half a million weights.",
    "r-LSTM 1x600 and its like: the gradient of every anchor goes back 300 steps.",
    "Seconds and memory are this machine's and this code's: they compare rows, not papers.",
)


def write(found: Sequence[Result], folder: pathlib.Path) -> list[pathlib.Path]:
    """Writes results.md (with SVG drawings beside it) and results.html.

    Args:
        found: The results, of any budgets; the largest budget that is there is reported on.
        folder: Made where needed.

    Returns:
        The two paths.

    Raises:
        UserError: They can't be written.
    """
    return write_document(blocks(found), folder, "results")


def blocks(found: Sequence[Result]) -> list[Block]:
    """The report as a document."""
    budget = max({result.budget for result in found}, key=BUDGETS.index)
    rows = results.by_row(found, budget)
    made: list[Block] = [
        Heading("The paper's numbers beside ours", 1),
        Paragraph(
            "Trinh, Dai, Luong and Le (ICML 2018) train an LSTM on very long sequences with "
            "truncated backpropagation, and add an auxiliary loss at random anchors: r-LSTM "
            "reconstructs a segment of the past, p-LSTM predicts the future. Here is every table "
            "and figure of theirs, the published number beside the measured one. A dash is a "
            "number that is not there: not published, or not run."
        ),
        *_budget(budget, rows),
    ]
    for experiment in EXPERIMENTS.values():
        if any(cell.row and cell.row.id in rows for cell in experiment.cells):
            made += _section(experiment, rows)
    made += [
        Heading("What deviates from the paper"),
        Items([*_stand_ins(rows), *(_recipes(rows) if budget == "short" else ()), *_DECISIONS]),
        Heading("The runs"),
        _runs(rows),
    ]
    return made


def _budget(budget: str, rows: dict[str, Summary]) -> list[Block]:
    lines = []
    for dataset, paper in {**_PAPER_UPDATES, "dbpedia": None}.items():
        updates = sorted(
            {
                run.planned or run.updates
                for row, summary in rows.items()
                for run in summary.runs
                if row.startswith(f"{dataset}/")
            }
        )
        if updates:
            span = f"{updates[0]:,}"
            if len(updates) > 1:
                span += f" to {updates[-1]:,}"
            share = f"{100 * updates[-1] / paper:.2g} %" if paper else _MISSING
            total = f"{paper:,}" if paper else "silent"
            lines.append([_dataset(dataset), span, total, share])
    text = {
        "paper": "The budget is the paper's own schedule.",
        "short": "The budget is `short`: a small part of the paper's updates, the same for every "
        "row of a data set. So the differences between rows are to be read, not the last "
        "percent. Epochs are given as pretraining + joint; rows with nothing to pretrain have as "
        "many in all.",
        "smoke": "The budget is `smoke`: seconds a row, on tiny stand-ins. It shows that "
        "everything runs; the numbers mean nothing.",
    }[budget]
    return [
        Heading("Budget"),
        Paragraph(text),
        Table(["data", "updates here", "in the paper", "share"], lines),
    ]


def _section(experiment: Experiment, rows: dict[str, Summary]) -> list[Block]:
    number = experiment.name.removeprefix("table").removeprefix("figure")
    kind = "Table" if experiment.name.startswith("table") else "Figure"
    heading = Heading(f"{kind} {number}. {experiment.title}")
    if experiment.name == "figure5":
        return [heading, *_figure5(experiment, rows)]
    made: list[Block] = [heading, _table(experiment, rows)]
    if experiment.name == "figure3":
        made += _figure3(experiment, rows)
    elif experiment.name == "figure4":
        made.append(_figure4(experiment, rows))
    elif experiment.name == "figure6":
        made.append(_figure6(experiment, rows))
    return made


def value(cell: Cell, measure: str, rows: dict[str, Summary]) -> float | None:
    """A cell's measured number, in the table's own measure; None: not run, or not to its end.

    Args:
        cell: The cell.
        measure: The experiment's.
        rows: What was measured.
    """
    summary = _finished(cell, rows)
    if summary is None or measure != "lost" or cell.column != "lost":
        return _number(summary, measure)
    full = _finished(EXPERIMENTS["figure6"].cells[0], rows)
    return full.mean - summary.mean if full else None


def _finished(cell: Cell, rows: dict[str, Summary]) -> Summary | None:
    summary = rows.get(cell.row.id) if cell.row else None
    return summary if summary and summary.finished else None


def _number(summary: Summary | None, measure: str) -> float | None:
    if summary is None:
        return None
    return 100 - summary.mean if measure == "error" else summary.mean


def _table(experiment: Experiment, rows: dict[str, Summary]) -> Table:
    cells = experiment.cells
    columns = list(dict.fromkeys(cell.column for cell in cells))
    if experiment.name == "figure6":
        columns = ["lost"]
    header = [""]
    for column in columns:
        name = "" if column in ("accuracy", "lost") else f"{_column(column)}, "
        header += [f"{name}paper", "here", "difference"]
    lines = []
    for line in dict.fromkeys(cell.line for cell in cells):
        texts = [line]
        for column in columns:
            cell = next(
                (
                    c
                    for c in cells
                    if c.line == line and (c.column == column or experiment.name == "figure6")
                ),
                None,
            )
            texts += _texts(cell, experiment.measure, rows)
        lines.append(texts)
    spread = "± is the standard deviation over seeds, n their number." if _several(rows) else ""
    caption = {
        "accuracy": "Accuracy on the test set, %.",
        "error": "Error on the test set, %.",
        "lost": "Points of accuracy lost without each part; in the first line, the accuracy, %.",
    }[experiment.measure]
    shown = any(" at " in text for _, *texts in lines for text in texts)
    unfinished = _UNFINISHED if shown else ""
    return Table(header, lines, " ".join(filter(None, (caption, spread, unfinished))))


def _several(rows: dict[str, Summary]) -> bool:
    return any(len(summary.runs) > 1 for summary in rows.values())


def _texts(cell: Cell | None, measure: str, rows: dict[str, Summary]) -> list[str]:
    if cell is None:
        return [_MISSING] * 3
    ours = value(cell, measure, rows)
    paper = _MISSING if cell.published is None else f"{cell.published:g}"
    summary = rows.get(cell.row.id) if cell.row else None
    if summary and not summary.finished and cell.column != "lost":
        at = max(run.updates for run in summary.runs)
        return [paper, f"{_number(summary, measure):.1f} at {at:,}", _MISSING]
    if ours is None:
        return [paper, _MISSING, _MISSING]
    here = f"{ours:.1f}"
    if summary.spread is not None:
        here += f" ± {summary.spread:.1f} (n {len(summary.runs)})"
    if cell.published is None:
        return [paper, here, _MISSING]
    return [paper, here, f"{ours - cell.published:+.1f}"]


def _column(column: str | int) -> str:
    return _dataset(column) if isinstance(column, str) else f"{column:,}"


def _dataset(name: str) -> str:
    return _DATASETS.get(name, name)


def _curves(experiment: Experiment, rows: dict[str, Summary]) -> list[drawings.Curve]:
    made = []
    for line in dict.fromkeys(cell.line for cell in experiment.cells):
        cells = [cell for cell in experiment.cells if cell.line == line]
        ours = {c.column: value(c, experiment.measure, rows) for c in cells}
        made.append(
            drawings.Curve(
                line,
                {x: y for x, y in ours.items() if y is not None},
                {c.column: c.published for c in cells if c.published is not None},
            )
        )
    return made


def _figure3(experiment: Experiment, rows: dict[str, Summary]) -> list[Block]:
    timed, peaks, lines = [], [], []
    names = list(dict.fromkeys(cell.line for cell in experiment.cells))
    keys = dict(zip(names, published.FIGURE_3_ACCURACY, strict=True))
    for name in names:
        cells = [c for c in experiment.cells if c.line == name and c.row.id in rows]
        runs = {c.column: rows[c.row.id] for c in cells}
        paper = published.FIGURE_3_SECONDS.get(keys[name], {})
        seconds = {x: run.seconds_per_step for x, run in runs.items() if run.seconds_per_step}
        memory = {x: run.peak_mib for x, run in runs.items() if run.peak_mib}
        timed.append(drawings.Curve(name, seconds, {x: y for x, y in paper.items() if y}))
        peaks.append(drawings.Curve(name, memory, {}))
        lines += [
            [
                f"{name}, {length:,}",
                f"{paper[length]:g}" if paper.get(length) else _MISSING,
                f"{seconds[length]:.3f}" if length in seconds else _MISSING,
                f"{memory[length]:,.0f}" if length in memory else _MISSING,
            ]
            for length in runs
        ]
    length = "sequence length"
    panels = [
        drawings.Panel("Accuracy", length, "%", _curves(experiment, rows)),
        drawings.Panel("Time", length, "seconds a batch", timed),
        drawings.Panel("Memory", length, "MiB, whole process", peaks),
    ]
    return [
        Drawing(
            "figure3",
            drawings.draw(panels),
            "Figure 3. Solid: measured here; dashed: published, read off a plot "
            f"({published.FIGURE_ERROR['figure3']}), on other hardware and batches of 128.",
        ),
        Table(
            ["", "paper, s a batch", "here, s a batch", "here, MiB"],
            lines,
            "Time a training batch and peak memory of the whole training process.",
        ),
    ]


def _figure4(experiment: Experiment, rows: dict[str, Summary]) -> Drawing:
    panel = drawings.Panel("CIFAR10", "supervised BPTT steps", "%", _curves(experiment, rows))
    return Drawing(
        "figure4",
        drawings.draw([panel]),
        "Figure 4. The fewer steps the supervised gradient goes back, the more rests on the "
        "auxiliary loss. Solid: measured here; dashed: published "
        f"({published.FIGURE_ERROR['figure4']}).",
    )


def _figure5(experiment: Experiment, rows: dict[str, Summary]) -> list[Block]:
    keys = dict(
        zip(dict.fromkeys(c.line for c in experiment.cells), published.FIGURE_5, strict=True)
    )
    panels, lines = [], []
    for which, index in (("train", 0), ("test", 1)):
        curves = []
        for line, key in keys.items():
            row = next(c.row for c in experiment.cells if c.line == line)
            ours = rows[row.id].curve(which) if row.id in rows else {}
            paper = {x: both[index] for x, both in published.FIGURE_5[key].items()}
            curves.append(drawings.Curve(line, ours, paper))
            if ours:
                at, accuracy = list(ours.items())[-1]
                lines.append([f"{line}, {which}", f"{at:,}", f"{accuracy:.1f}"])
        panels.append(drawings.Panel(f"{which} accuracy", "joint updates", "%", curves))
    caption = (
        "Figure 5. Accuracy against updates of the joint phase. Solid: measured here; dashed: "
        f"published ({published.FIGURE_ERROR['figure5']})."
    )
    return [
        Drawing("figure5", drawings.draw(panels), caption),
        Table(["", "joint updates", "%"], lines, "Where the measured curves end."),
    ]


def _figure6(experiment: Experiment, rows: dict[str, Summary]) -> Drawing:
    cells = experiment.cells[1:]
    svg = drawings.draw_bars(
        [cell.line for cell in cells],
        [value(cell, experiment.measure, rows) for cell in cells],
        [cell.published for cell in cells],
        "points of accuracy lost",
    )
    return Drawing("figure6", svg, "Figure 6. What r-LSTM loses on CIFAR10 without each part.")


def _stand_ins(rows: dict[str, Summary]) -> list[str]:
    pairs = {
        (row.partition("/")[0], run.stand_in)
        for row, summary in rows.items()
        for run in summary.runs
        if run.stand_in
    }
    return [
        f"In place of {_dataset(dataset)}: {_STAND_INS.get(stand_in, stand_in)}."
        for dataset, stand_in in sorted(pairs)
    ]


def _recipes(rows: dict[str, Summary]) -> list[str]:
    """What the runs set, by data set, as their own flags say: epochs, and what rows agree on."""
    texts = []
    for dataset in _DATASETS:
        own = {row: s for row, s in rows.items() if row.startswith(f"{dataset}/")}
        # Rows that vary a setting or turn a part off tell nothing of what the others share.
        plain = {row: s for row, s in own.items() if not re.search(_VARIED, row)} or own
        settings = {row: _settings(summary.runs[0]) for row, summary in plain.items()}
        values: dict[str, dict[str, str]] = {}
        for row, some in settings.items():
            for name, setting in some.items():
                values.setdefault(name, {})[row] = setting
        epochs = sorted({_epochs(some) for some in settings.values()})
        shared = []
        for name, by_row in values.items():
            if len(set(by_row.values())) == 1 and not re.match(_NOT_THE_RECIPE, name):
                row, setting = next(iter(by_row.items()))
                lone = len(by_row) == 1 < len(settings)
                only = f" in {row.partition('/')[2]}" if lone else ""
                shared.append(f"`{name} = {setting}`{only}")
        if own:
            parts = [" or ".join(epochs), *shared]
            texts.append(f"{_dataset(dataset)}: {'; '.join(parts)}.")
    return texts


def _settings(run: Result) -> dict[str, str]:
    """The gin parameters of a run, by name."""
    matches = (re.fullmatch(r"--gin_param=([\w./]+) = (.*)", flag) for flag in run.flags)
    return {match[1]: match[2] for match in matches if match}


def _epochs(settings: dict[str, str]) -> str:
    text = f"{settings.get('JOINT_EPOCHS', '?')} epochs in batches of "
    text += settings.get("BATCH_SIZE", "128")
    before = settings.get("PRETRAIN_EPOCHS")
    return f"{before} + {text}" if before else text


def _runs(rows: dict[str, Summary]) -> Table:
    lines = []
    for row, summary in rows.items():
        for run in summary.runs:
            lines.append(
                [
                    f"{row}, seed {run.seed}",
                    f"{100 * run.accuracy:.2f}",
                    f"{run.updates:,}" + (f" of {run.planned:,}" if run.planned else ""),
                    f"{run.seconds / 60:.1f}",
                    f"{run.seconds_per_step:.3f}" if run.seconds_per_step else _MISSING,
                    f"{run.peak_mib:,.0f}" if run.peak_mib else _MISSING,
                ]
            )
    places = sorted({run.hardware for s in rows.values() for run in s.runs if run.hardware})
    return Table(
        ["row", "test accuracy, %", "updates", "minutes", "s a step", "peak MiB"],
        lines,
        f"Training time without evaluations. Run on {'; '.join(places)}." if places else "",
    )
