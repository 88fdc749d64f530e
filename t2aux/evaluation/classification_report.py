"""An evaluation for people: a table for the terminal, and the confusion matrix as a picture."""

from __future__ import annotations

import os

import numpy as np

from t2aux import files
from t2aux.training.scores import Evaluation

# With more classes than these the table shows the worst, and the picture no numbers.
_TABLE_CLASSES = 30
_WORST = 20
_NUMBERED_CLASSES = 20
_NAME_WIDTH = 28


def table(evaluation: Evaluation) -> str:
    """A table by class, at most 80 columns wide.

    With more than 30 classes it shows the 20 with the lowest F1.
    """
    scores = evaluation.by_class()
    chosen = list(scores)
    heading = "class"
    if len(chosen) > _TABLE_CLASSES:
        chosen = sorted(chosen, key=lambda name: scores[name]["f1"])[:_WORST]
        heading = f"the {_WORST} worst of {len(scores)} classes"
    width = min(max(map(len, [heading, *chosen])), _NAME_WIDTH)
    lines = [f"{heading:{width}} {'precision':>10} {'recall':>8} {'F1':>8} {'examples':>9}"]
    for name in chosen:
        row = scores[name]
        short = name if len(name) <= width else name[: width - 1] + "…"
        lines.append(
            f"{short:{width}} {100 * row['precision']:9.1f}% {100 * row['recall']:7.1f}% "
            f"{100 * row['f1']:7.1f}% {row['examples']:9d}"
        )
    lines.append(
        f"\naccuracy {100 * evaluation.accuracy:.2f} %   loss {evaluation.loss:.4f}   "
        f"{evaluation.examples} examples"
    )
    return "\n".join(lines)


def draw_confusion(evaluation: Evaluation, path: str | os.PathLike[str], title: str) -> None:
    """Draws the confusion matrix into a PNG file.

    Colours are shares of the true class; with up to 20 classes the counts stand in the cells.

    Args:
        evaluation: The evaluation.
        path: The file.
        title: Above the picture.

    Raises:
        UserError: The file can't be written.
    """
    # Takes a second to import, and only pictures need it.
    from matplotlib.figure import Figure

    counts = evaluation.confusion
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    size = len(counts)
    inches = min(max(3.5 + 0.42 * size, 4.5), 14)
    figure = Figure(figsize=(inches + 1, inches), layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=axes, shrink=0.8, label="share of the true class")
    axes.set_title(f"{title}: {100 * evaluation.accuracy:.2f} %")
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    font = 9 if size <= _TABLE_CLASSES else 5
    turn = 90 if max(map(len, evaluation.classes)) > 3 else 0
    axes.set_xticks(range(size), evaluation.classes, rotation=turn, fontsize=font)
    axes.set_yticks(range(size), evaluation.classes, fontsize=font)
    if size <= _NUMBERED_CLASSES:
        for true in range(size):
            for predicted in range(size):
                if counts[true, predicted]:
                    colour = "white" if shares[true, predicted] > 0.5 else "black"
                    axes.text(
                        predicted,
                        true,
                        int(counts[true, predicted]),
                        ha="center",
                        va="center",
                        color=colour,
                        fontsize=8,
                    )
    with files.atomic_write(path, "wb") as file:
        figure.savefig(file, format="png", dpi=150)
