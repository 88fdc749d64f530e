"""The figures with measured and published points, as SVG."""

from __future__ import annotations

import dataclasses
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

Points = Mapping[float, float]


@dataclasses.dataclass(frozen=True)
class Curve:
    """A curve of a figure.

    Attributes:
        name: The name in the legend.
        measured: The measured points, from abscissa to ordinate.
        published: The paper's points.
        spread: The error bars of measured points, if any.
    """

    name: str
    measured: Points
    published: Points
    spread: Points = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Panel:
    """One pair of axes.

    Attributes:
        title: The title of the panel.
        x: The name of the abscissa.
        y: The name of the ordinate, with its unit.
        curves: The curves, colored by their order.
        x_scale: The scale of the abscissa; "categories" spaces the points evenly, in descending
            order.
        y_scale: The scale of the ordinate.
    """

    title: str
    x: str
    y: str
    curves: Sequence[Curve]
    x_scale: Literal["linear", "log", "categories"] = "linear"
    y_scale: Literal["linear", "log"] = "linear"


def draw(panels: Sequence[Panel]) -> str:
    """Draws panels, two side by side; solid lines are measured, dashed ones published."""
    columns = min(2, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure, axes = _figure(rows, columns)
    for panel, axis in zip(panels, axes, strict=False):
        _draw(panel, axis)
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    return _svg(figure)


def _draw(panel: Panel, axis: Any) -> None:
    every = sorted(
        {x for curve in panel.curves for x in (*curve.measured, *curve.published)}, reverse=True
    )
    # The abscissas of the points.
    place = {x: i if panel.x_scale == "categories" else x for i, x in enumerate(every)}
    for i, curve in enumerate(panel.curves):
        for points, style, faint in ((curve.measured, "o-", 1.0), (curve.published, "x--", 0.6)):
            # A logarithmic axis can't show measurements before the first update.
            some = sorted((x, y) for x, y in points.items() if x > 0 or panel.x_scale != "log")
            if some:
                axis.errorbar(
                    [place[x] for x, _ in some],
                    [y for _, y in some],
                    [curve.spread.get(x, 0) for x, _ in some] if points is curve.measured else None,
                    fmt=style,
                    markersize=5,
                    capsize=3,
                    color=f"C{i}",
                    alpha=faint,
                )
    axis.set_title(panel.title)
    axis.set_xlabel(panel.x)
    axis.set_ylabel(panel.y)
    axis.grid(alpha=0.3)
    if panel.x_scale == "categories":
        axis.set_xticks(range(len(every)), [f"{x:,}" for x in every])
    elif panel.x_scale == "log":
        _logarithmic(axis, "x")
    if panel.y_scale == "log":
        _logarithmic(axis, "y")
    _legend(panel, axis)


def _logarithmic(axis: Any, which: str) -> None:
    """Sets a logarithmic scale with numbers written in full, a few in each decade."""
    from matplotlib import ticker

    getattr(axis, f"set_{which}scale")("log")
    lines, (low, high) = getattr(axis, f"{which}axis"), getattr(axis, f"get_{which}lim")()
    lines.set_major_locator(ticker.LogLocator(subs=(1,) if high / low > 100 else (1, 3)))
    lines.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:,.10g}"))
    lines.set_minor_formatter(ticker.NullFormatter())


def _legend(panel: Panel, axis: Any) -> None:
    """Adds legends: colors for conditions, line styles for measured and published numbers."""
    from matplotlib.lines import Line2D

    shown = [(i, c) for i, c in enumerate(panel.curves) if c.measured or c.published]
    if not shown:
        return
    handles = [Line2D([], [], color=f"C{i}", linewidth=3, label=c.name) for i, c in shown]
    if any(c.measured for _, c in shown):
        handles.append(Line2D([], [], color="0.3", marker="o", linestyle="-", label="here"))
    if any(c.published for _, c in shown):
        handles.append(Line2D([], [], color="0.3", marker="x", linestyle="--", label="paper"))
    axis.legend(handles=handles, fontsize=8)


def draw_bars(bars: Sequence[tuple[str, float | None, float | None, float]], x: str) -> str:
    """Draws pairs of horizontal bars, with the published one above.

    Args:
        bars: The name, the measured value and its error bar, which may be missing, and the
            published value of each pair.
        x: The name of the abscissa.
    """
    names, measured, spread, published = zip(*bars, strict=True)
    figure, (axis,) = _figure(1, 1)
    places = range(len(names))
    axis.barh([p - 0.2 for p in places], published, 0.38, label="paper", color="C7", alpha=0.6)
    known = [
        (place + 0.2, value, error or 0)
        for place, value, error in zip(places, measured, spread, strict=True)
        if value is not None
    ]
    if known:
        at, values, errors = zip(*known, strict=True)
        axis.barh(at, values, 0.38, xerr=errors, capsize=3, label="here", color="C0")
    axis.set_yticks(list(places), names)
    axis.invert_yaxis()
    axis.set_xlabel(x)
    axis.grid(alpha=0.3, axis="x")
    axis.legend(fontsize=8)
    return _svg(figure)


def _figure(rows: int, columns: int) -> tuple[Any, Sequence[Any]]:
    # Not pyplot, which keeps state and looks for a display.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1.2 + 4.9 * columns, 4.1 * rows), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False).flatten()


def _svg(figure: Any) -> str:
    import matplotlib

    buffer = io.StringIO()
    # Makes the file reproducible, and keeps text as text.
    with matplotlib.rc_context({"svg.hashsalt": "t2aux", "svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]
