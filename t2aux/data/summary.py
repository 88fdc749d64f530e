"""A summary of a data set for the terminal, and a picture of a few of its sequences."""

from __future__ import annotations

import os
import pathlib
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from absl import logging

from t2aux import text_tables
from t2aux.data import baselines, checks
from t2aux.data.pixels import picture
from t2aux.data.split import Split
from t2aux.errors import FileError, listing, shorten
from t2aux.files import atomic_write
from t2aux_ondevice.preprocessing import DatasetInfo

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import SubFigure

PICTURE_SUFFIXES = (".png", ".pdf", ".svg")
_SHOWN_CHARACTERS = 40
_SHOWN_CLASSES = 10
_SHOWN_VECTOR_CHANNELS = 20
_TEXT_COLUMNS, _TEXT_LINES = 120, 4
_GREY_CURVE = ("#3b4a6b",)
_COLOUR_CURVES = ("#c0392b", "#27864a", "#2b62b0")
_ACCENT = "#b5542b"


def summarise(splits: Mapping[str, Split]) -> str:
    """Describes the splits of one data set.

    Args:
        splits: The splits by their names.

    Returns:
        Several lines of text: the kind of sequences, the lengths, the range of the values, the
        memory, and the number of examples of each class in each split.
    """
    info = next(iter(splits.values())).info
    counts = [split.counts() for split in splits.values()]
    rows = [
        ("examples", *(f"{len(split):,}" for split in splits.values())),
        *(
            (f"length, {what}", *(f"{function(s.lengths):,.0f}" for s in splits.values()))
            for what, function in (("shortest", np.min), ("mean", np.mean), ("longest", np.max))
        ),
        *_ranges(splits),
        ("memory, MB", *(f"{split.nbytes / 1e6:,.1f}" for split in splits.values())),
    ]
    if info.tokens == "characters":
        unknown = (_share_of_unknown(split) for split in splits.values())
        rows.append(("unknown characters, %", *(f"{100 * share:.2f}" for share in unknown)))
    ending = "class" if info.num_classes == 1 else "classes"
    rows.append((f"{info.num_classes} {ending}", *("" for _ in splits)))
    rows += [
        (f"  {name}", *(f"{count[label]:,}" for count in counts))
        for label, name in enumerate(info.classes)
    ]
    return "\n".join([*_describe(info), "", text_tables.table([("", *splits), *rows])])


def brief(splits: Mapping[str, Split]) -> list[str]:
    """Describes the splits of one data set in a few lines for a log, including notes.

    Args:
        splits: As for `summarise`. Sequences in shards are not read.
    """
    info = next(iter(splits.values())).info
    lines = _describe(info)
    for name, split in splits.items():
        lengths = split.lengths
        line = f"{name}: {len(split):,} examples, length {lengths.min():,}"
        if lengths.max() > lengths.min():
            line += f" to {lengths.max():,} (mean {lengths.mean():,.0f})"
        if (span := split.value_range()) is not None:
            line += f", values {span[0]:.4g} to {span[1]:.4g}"
        lines.append(line)
    counts = [split.counts() for split in splits.values()]
    classes = (
        f"{name} ({', '.join(f'{count[label]:,}' for count in counts)})"
        for label, name in enumerate(info.classes)
    )
    listed = (" and " if len(splits) < 3 else ", ").join(splits)
    lines.append(
        f"{info.num_classes:,} classes ({listed} examples): {listing(classes, _SHOWN_CLASSES)}"
    )
    label, share = baselines.majority(counts[-1])
    lines.append(
        f"majority class of {list(splits)[-1]}: {shorten(info.classes[label])!r}, "
        f"{100 * share:.2f} % of the examples"
    )
    return lines + [f"Note: {note}" for note in notes(splits)]


def log_summary(splits: Mapping[str, Split]) -> None:
    """Writes `brief` to the log, with the notes as warnings."""
    for line in brief(splits):
        write = logging.warning if line.startswith("Note: ") else logging.info
        write("%s", line)


def notes(splits: Mapping[str, Split]) -> list[str]:
    """Returns the notes on the splits of one data set, one sentence each.

    Args:
        splits: "train", "validation" and "test", or some of them.
    """
    found = [note for split in splits.values() for note in split.notes]
    if "train" in splits:
        train = splits["train"]
        sequences = train.fingerprints()
        found += checks.contradictory(sequences, train.labels)
        for name in ("validation", "test"):
            if name in splits:
                other = splits[name]
                divided = train.division is not None and other.division is not None
                found += checks.repeated(sequences, other.fingerprints(), name, divided=divided)
                spans = train.value_range(), other.value_range()
                if None not in spans:
                    found += checks.beyond(*spans, name)
    return list(dict.fromkeys(found))


def draw_sequences(split: Split, path: str | os.PathLike[str], count: int = 4) -> None:
    """Draws a few sequences of different classes, as the classifier reads them.

    Images are drawn with a strip and a curve of their pixels in the order of the steps; texts, as
    their first characters; vectors, as they are stored, with a line for each channel.

    Args:
        split: The split to draw.
        path: The picture to write: .png, .pdf or .svg.
        count: The maximum number of sequences.

    Raises:
        UserError: The suffix is not supported, or the file can't be written.
    """
    from matplotlib.figure import Figure  # Slow to import; pyplot's global state is not needed.

    path = pathlib.Path(path)
    if path.suffix.lower() not in PICTURE_SUFFIXES:
        raise FileError(
            f"Can't draw {path}: give a name that ends in {' or '.join(PICTURE_SUFFIXES)}."
        )
    present = np.unique(split.labels)
    places = np.linspace(0, len(present) - 1, min(count, len(present))).round().astype(int)
    indices = [int((split.labels == label).argmax()) for label in present[places]]
    info = split.info
    figure = Figure(figsize=(10, 0.7 + 1.75 * len(indices)), dpi=150, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.12, h_pad=0.08)
    figure.suptitle(_title(info), fontsize=12)
    parts = np.atleast_1d(figure.subfigures(len(indices), 1))
    draw = {"image": _draw_image, "text": _draw_text, "vectors": _draw_vectors}[info.kind]
    for part, index in zip(parts, indices, strict=True):
        axis = draw(part, split, index)
        if axis is not None:
            axis.tick_params(labelsize=7, colors="#555555")
            axis.spines[["top", "right"]].set_visible(False)
            axis.set_xlabel("step", fontsize=8, color="#555555")
    if info.kind == "vectors":
        lines, names = axis.get_legend_handles_labels()
        title = "channel" if len(lines) == info.channels else f"channel\n(of {info.channels})"
        figure.legend(lines, names, title=title, loc="outside right upper", fontsize=7)
    with atomic_write(path, "wb") as file, warnings.catch_warnings():
        # Characters that are missing in the font are drawn as boxes, which is good enough.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(file, format=path.suffix[1:].lower())


def _describe(info: DatasetInfo) -> list[str]:
    if info.kind == "image":
        colours = "grey" if info.channels == 1 else "RGB"
        order = "raster order"
        border = f" and a border of {info.border}" if info.border else ""
        if info.permutation_seed is not None:
            first = ", ".join(map(str, info.permutation[:5]))
            order = f"permuted with seed {info.permutation_seed} (pixels {first}, ...)"
        lines = [
            f"{info.name}: {colours} images of {info.side} x {info.side}{border}, one pixel a step",
            f"order of the pixels: {order}",
        ]
    elif info.is_text:
        limit = "" if info.max_length is None else f", cut at {info.max_length:,}"
        lines = [f"{info.name}: texts, one of {info.vocabulary_size} {info.tokens} a step{limit}"]
        if info.vocabulary is not None:
            shown = "".join(info.vocabulary[1 : _SHOWN_CHARACTERS + 1])
            lines.append(f"most frequent characters: {shown!r}")
    else:
        plural = "s" if info.channels != 1 else ""
        lines = [f"{info.name}: sequences of real vectors of {info.channels} channel{plural}"]
        if info.mean is not None:
            numbers = zip(info.mean, info.deviation, strict=True)
            shown = listing(f"{mean:.4g} \N{PLUS-MINUS SIGN} {s:.4g}" for mean, s in numbers)
            lines.append(f"normalised in the network; mean and standard deviation: {shown}")
    return lines


def _ranges(splits: Mapping[str, Split]) -> list[tuple[str, ...]]:
    """Returns the rows with the smallest and the largest values; none for texts."""
    if next(iter(splits.values())).info.is_text:
        return []
    spans = []
    for split in splits.values():
        span = split.value_range()
        if span is None:  # Shards that were written without it.
            values = checks.ValueRange()
            for part, _ in split.chunks():
                values.add(part)
            span = float(values.least.min()), float(values.largest.max())
        spans.append(span)
    return [
        ("value, smallest", *(f"{least:.4g}" for least, _ in spans)),
        ("value, largest", *(f"{largest:.4g}" for _, largest in spans)),
    ]


def _share_of_unknown(split: Split) -> float:
    unknown = total = 0
    for ids, _ in split.chunks():
        unknown += int((ids == 0).sum())
        total += len(ids)
    return unknown / total


def _title(info: DatasetInfo) -> str:
    order = "" if info.permutation_seed is None else ", permuted"
    return _describe(info)[0].replace(": ", " \N{EN DASH} ", 1) + order


def _draw_image(part: SubFigure, split: Split, index: int) -> Axes:
    info = split.info
    sequence = split.example(index)
    grid = part.add_gridspec(2, 2, width_ratios=[1, 6], height_ratios=[1, 4], hspace=0.05)
    image = part.add_subplot(grid[:, 0])
    image.imshow(_colours(picture(info, sequence)), cmap="gray", vmin=0, vmax=1)
    image.set_title(_class_name(split, index), fontsize=9, color=_ACCENT)
    image.axis("off")
    curve = part.add_subplot(grid[1, 1])
    colours = _GREY_CURVE if info.channels == 1 else _COLOUR_CURVES
    thin = 0.9 if len(sequence) <= 1024 else 0.4
    for channel, colour in enumerate(colours):
        curve.plot(sequence[:, channel], color=colour, linewidth=thin, alpha=0.85)
    curve.set_xlim(-0.5, len(sequence) - 0.5)
    curve.set_ylim(-0.05, 1.05)
    curve.set_yticks([0, 0.5, 1])
    strip = part.add_subplot(grid[0, 1], sharex=curve)
    strip.imshow(
        _colours(sequence[np.newaxis]),
        cmap="gray",
        vmin=0,
        vmax=1,
        aspect="auto",
        extent=(-0.5, len(sequence) - 0.5, 0, 1),
    )
    strip.axis("off")
    return curve


def _draw_text(part: SubFigure, split: Split, index: int) -> None:
    info = split.info
    ids = split.example(index)
    shown = info.text(ids)[: _TEXT_COLUMNS * _TEXT_LINES]
    axis = part.add_subplot()
    axis.axis("off")
    axis.set_title(
        f"{_class_name(split, index)}  \N{MIDDLE DOT}  {len(ids):,} {info.tokens}",
        fontsize=9,
        loc="left",
        color=_ACCENT,
    )
    for line, start in enumerate(range(0, len(shown), _TEXT_COLUMNS)):
        height = 1 - (line + 0.5) / _TEXT_LINES
        style = {"family": "monospace", "va": "center", "transform": axis.transAxes}
        axis.text(0, height, f"{start:>4}", fontsize=7, color="#999999", **style)
        row = shown[start : start + _TEXT_COLUMNS]
        # parse_math: a text with two dollar signs is not a formula.
        axis.text(0.04, height, row, fontsize=9, color="#222222", parse_math=False, **style)


def _draw_vectors(part: SubFigure, split: Split, index: int) -> Axes:
    import matplotlib

    axis = part.add_subplot()
    colours = matplotlib.colormaps["tab10" if split.info.channels <= 10 else "tab20"]
    # A curve of one step would not be visible.
    style = {"linewidth": 0.9, "marker": "." if split.lengths[index] == 1 else None}
    for channel, values in enumerate(split.example(index).T[:_SHOWN_VECTOR_CHANNELS]):
        axis.plot(values, color=colours(channel), label=str(channel), **style)
    axis.set_ylabel("value", fontsize=8, color="#555555")
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.set_title(f"class {_class_name(split, index)}", fontsize=9, loc="left", color=_ACCENT)
    axis.margins(x=0)
    return axis


def _class_name(split: Split, index: int) -> str:
    return shorten(split.info.classes[split.labels[index]], 24)


def _colours(pixels: np.ndarray) -> np.ndarray:
    """Drops the channel axis of grey pixels, as imshow requires."""
    return pixels[..., 0] if pixels.shape[-1] == 1 else pixels
