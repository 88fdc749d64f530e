"""An evaluation as a table for the terminal and a picture of the confusion matrix."""

from __future__ import annotations

import os

import numpy as np

from t2aux import files
from t2aux.errors import shorten
from t2aux.text_tables import table as text_table
from t2aux.training.scores import Evaluation

# With more classes, the table shows those with the lowest F1, and the picture has no numbers.
_TABLE_CLASSES = 30
_WORST = 20
_NUMBERED_CLASSES = 20
_NAME_WIDTH = 28


def table(evaluation: Evaluation) -> str:
    """A table by class, at most 80 columns wide.

    With more than 30 classes it shows the 20 with the lowest F1.
    """
    scores = evaluation.by_class()
    chosen, heading = list(scores), "class"
    if len(chosen) > _TABLE_CLASSES:
        chosen = sorted(chosen, key=lambda name: scores[name]["f1"])[:_WORST]
        heading = f"the {_WORST} worst of {len(scores)} classes"
    rows = [
        [
            shorten(name, _NAME_WIDTH),
            *(f"{100 * scores[name][key]:.1f}%" for key in ("precision", "recall", "f1")),
            scores[name]["examples"],
        ]
        for name in chosen
    ]
    return (
        f"{text_table(rows, [heading, 'precision', 'recall', 'F1', 'examples'])}\n\n"
        f"accuracy {100 * evaluation.accuracy:.2f} %   loss {evaluation.loss:.4f}   "
        f"{evaluation.examples} examples"
    )


def draw_confusion(evaluation: Evaluation, path: str | os.PathLike[str], title: str) -> None:
    """Draws the confusion matrix into a PNG file.

    Colours are shares of the true class; with up to 20 classes, the cells also show the counts.

    Args:
        evaluation: The evaluation.
        path: The file.
        title: The title of the picture.

    Raises:
        UserError: The file can't be written.
    """
    # These imports take a second, and only pictures need them.
    from matplotlib.figure import Figure
    from sklearn.metrics import ConfusionMatrixDisplay

    counts = evaluation.confusion
    size = len(counts)
    inches = min(max(3.5 + 0.42 * size, 4.5), 14)
    figure = Figure(figsize=(inches + 1, inches), layout="constrained")
    axes = figure.add_subplot()
    display = ConfusionMatrixDisplay(
        counts / np.maximum(counts.sum(axis=1, keepdims=True), 1), display_labels=evaluation.classes
    )
    display.plot(
        ax=axes,
        cmap="Blues",
        include_values=size <= _NUMBERED_CLASSES,
        xticks_rotation=90 if max(map(len, evaluation.classes)) > 3 else 0,
        im_kw={"vmin": 0, "vmax": 1},
        colorbar=False,
    )
    if display.text_ is not None:
        for text, count in zip(display.text_.flat, counts.flat, strict=True):
            text.set(text=str(count) if count else "", fontsize=8)
    figure.colorbar(display.im_, ax=axes, shrink=0.8, label="share of the true class")
    axes.tick_params(labelsize=9 if size <= _TABLE_CLASSES else 5)
    axes.set(
        title=f"{title}: {100 * evaluation.accuracy:.2f} %",
        xlabel="predicted class",
        ylabel="true class",
    )
    with files.atomic_write(path, "wb") as file:
        figure.savefig(file, format="png", dpi=150)
