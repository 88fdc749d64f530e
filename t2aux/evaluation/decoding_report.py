"""Reports on reconstructions: a table, pictures beside their originals, and texts."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from t2aux import files, text_tables
from t2aux.evaluation.decoding import ABOUT, Measured, Sample
from t2aux_ondevice.preprocessing import DatasetInfo

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# The colour of pixels of an image that are not in a segment.
_NO_SEGMENT = (0.80, 0.86, 0.93)
_SHOWN_CHANNELS = 8


def table(measured: Measured) -> str:
    """A table of each predictor's loss and of what it uses; at most 100 columns wide."""
    unit = "nats" if measured.info.is_text else "squared"
    rows = [
        [name, f"{loss:.5f}", f"{100 * measured.accuracy.get(name, 0):.1f}%", ABOUT[name]]
        for name, loss in measured.loss.items()
    ]
    header = ["per token", unit, "right", "from"]
    if not measured.accuracy:
        header, rows = header[:2] + header[3:], [row[:2] + row[3:] for row in rows]
    shown = text_tables.table(rows, header, left=(0, len(header) - 1))
    return f"{shown}\n\n{measured.tokens:,} tokens predicted"


def draw_samples(
    info: DatasetInfo, samples: Sequence[Sample], path: str | os.PathLike[str], title: str
) -> None:
    """Draws originals beside reconstructions into a PNG file.

    Images are drawn whole, with the segments' pixels in their places beside them. Other sequences
    are drawn as strips of the segments, one row per channel, from the first step to the last.

    Args:
        info: The data, which must not be text.
        samples: The samples to draw.
        path: The file.
        title: The title of the picture.

    Raises:
        UserError: The file can't be written.
    """
    # The import takes a second, and only pictures need it.
    from matplotlib.figure import Figure

    if info.kind == "image":
        size = (0.6 + 1.5 * len(samples), 5.4)
        columns, rows, draw = len(samples), 3, _draw_image
    else:
        size = (9, 0.6 + 1.5 * len(samples))
        columns, rows, draw = 1, 2 * len(samples), _draw_strips
    figure = Figure(figsize=size, dpi=150, layout="constrained")
    figure.suptitle(title, fontsize=10)
    axes = figure.subplots(rows, columns, squeeze=False)
    for i, sample in enumerate(samples):
        draw(info, sample, axes[:, i] if info.kind == "image" else axes[2 * i : 2 * i + 2, 0])
    if info.kind == "image":
        for axis, name in zip(axes[:, 0], ("whole", "original", "reconstruction"), strict=True):
            axis.set_ylabel(name, fontsize=8)
    _save(figure, path)


def draw_by_step(measured: Measured, path: str | os.PathLike[str], title: str) -> None:
    """Draws each predictor's loss against the token's position in the segment, as a PNG file.

    Raises:
        UserError: The file can't be written.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), dpi=150, layout="constrained")
    axis = figure.add_subplot()
    for name, values in measured.by_step.items():
        main = name == "reconstruction"
        axis.plot(np.arange(1, len(values) + 1), values, label=name, linewidth=1.8 if main else 0.9)
    axis.set_title(title, fontsize=10)
    axis.set_xlabel("token of the segment, in the order of emission")
    axis.set_ylabel("cross-entropy, nats" if measured.info.is_text else "squared distance")
    axis.set_ylim(bottom=0)
    axis.legend(fontsize=7)
    _save(figure, path)


def write_texts(
    measured: Measured, samples: Sequence[Sample], path: str | os.PathLike[str], title: str
) -> None:
    """Writes texts beside their reconstructions, and the table, as Markdown.

    Segments are shown in the order of the text, with the given token in brackets and the most
    likely token for each predicted one.

    Raises:
        UserError: The file can't be written.
    """
    lines = [f"# {title}", "", *_fenced(table(measured).splitlines())]
    for sample in samples:
        lines += ["", f"## Sequence {sample.index}: {sample.loss:.3f} nats per token", ""]
        shown = []
        for positions, predicted in zip(sample.positions, sample.reconstruction, strict=True):
            given = measured.info.text(sample.sequence[positions[:1]])
            backwards = positions[0] > positions[-1]
            for name, ids in (
                ("original", sample.sequence[positions[1:]]),
                ("reconstruction", predicted),
            ):
                text = measured.info.text(ids[::-1] if backwards else ids)
                text = f"{text}[{given}]" if backwards else f"[{given}]{text}"
                shown.append(f"{min(positions):>5}  {name:14}  {text}")
        lines += _fenced(shown)
    with files.atomic_write(path) as file:
        file.write("\n".join(lines) + "\n")


def _draw_image(info: DatasetInfo, sample: Sample, axes: Sequence[Axes]) -> None:
    side = math.isqrt(len(sample.sequence))
    place = np.arange(side * side) if info.permutation is None else info.permutation
    whole = np.empty((side * side, 3))
    whole[place] = sample.sequence
    original, reconstruction = np.tile(np.array(_NO_SEGMENT), (2, side * side, 1))
    for positions, predicted in zip(sample.positions, sample.reconstruction, strict=True):
        given = sample.sequence[positions[:1]]
        original[place[positions]] = sample.sequence[positions]
        reconstruction[place[positions]] = np.concatenate([given, np.clip(predicted, 0, 1)])
    for axis, pixels in zip(axes, (whole, original, reconstruction), strict=True):
        axis.imshow(pixels.reshape(side, side, 3))
        axis.set_xticks([])
        axis.set_yticks([])
    axes[0].set_title(f"no. {sample.index}", fontsize=8)
    axes[2].set_xlabel(f"{sample.loss:.4f} a pixel", fontsize=8)


def _draw_strips(info: DatasetInfo, sample: Sample, axes: Sequence[Axes]) -> None:
    del info
    # Consecutive segments, each from its first step to its last.
    rows = {"original": [], "reconstruction": []}
    for positions, predicted in zip(sample.positions, sample.reconstruction, strict=True):
        order = np.argsort(positions)
        true = sample.sequence[positions]
        rows["original"].append(true[order])
        rows["reconstruction"].append(np.concatenate([true[:1], predicted])[order])
    true = np.concatenate(rows["original"])
    for axis, (name, parts) in zip(axes, rows.items(), strict=True):
        axis.imshow(
            np.concatenate(parts)[:, :_SHOWN_CHANNELS].T,
            cmap="gray",
            vmin=true.min(),
            vmax=true.max(),
            aspect="auto",
            interpolation="nearest",
        )
        axis.set_xticks([])
        axis.set_yticks([])
        axis.set_ylabel(name, fontsize=6)
    axes[0].set_title(f"no. {sample.index}, {sample.loss:.4f} a token", fontsize=8)


def _fenced(lines: Sequence[str]) -> list[str]:
    return ["````text", *lines, "````"]


def _save(figure: Figure, path: str | os.PathLike[str]) -> None:
    with files.atomic_write(path, "wb") as file:
        figure.savefig(file, format="png")
