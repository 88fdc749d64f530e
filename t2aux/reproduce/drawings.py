"""The figures, measured points beside the published ones, as SVG."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Mapping, Sequence
from typing import Any

Points = Mapping[float, float]


@dataclasses.dataclass(frozen=True)
class Curve:
    """A curve of a figure.

    Attributes:
        name: For the legend.
        measured: Abscissa to ordinate.
        published: The same, of the paper.
    """

    name: str
    measured: Points
    published: Points


@dataclasses.dataclass(frozen=True)
class Panel:
    """One pair of axes."""

    title: str
    x: str
    y: str
    curves: Sequence[Curve]


def draw(panels: Sequence[Panel]) -> str:
    """Draws panels side by side; solid lines are measured, dashed ones published."""
    figure, axes = _figure(len(panels))
    for panel, axis in zip(panels, axes, strict=True):
        for i, curve in enumerate(panel.curves):
            color = f"C{i}"
            if curve.measured:
                points = sorted(curve.measured.items())
                axis.plot(*zip(*points, strict=True), "o-", color=color, label=curve.name)
            if curve.published:
                points = sorted(curve.published.items())
                label = None if curve.measured else f"{curve.name} (paper)"
                axis.plot(
                    *zip(*points, strict=True),
                    "x--",
                    color=color,
                    alpha=0.6,
                    label=label,
                )
        axis.set_title(panel.title)
        axis.set_xlabel(panel.x)
        axis.set_ylabel(panel.y)
        axis.grid(alpha=0.3)
        if any(curve.measured or curve.published for curve in panel.curves):
            axis.legend(fontsize=8)
    return _svg(figure)


def draw_bars(
    names: Sequence[str], measured: Sequence[float | None], published: Sequence[float], x: str
) -> str:
    """Draws pairs of horizontal bars."""
    figure, (axis,) = _figure(1)
    places = range(len(names))
    axis.barh([p - 0.2 for p in places], published, 0.38, label="paper", color="C7", alpha=0.6)
    there = [
        (p + 0.2, value) for p, value in zip(places, measured, strict=True) if value is not None
    ]
    if there:
        axis.barh(*zip(*there, strict=True), 0.38, label="measured", color="C0")
    axis.set_yticks(list(places), names)
    axis.invert_yaxis()
    axis.set_xlabel(x)
    axis.grid(alpha=0.3, axis="x")
    axis.legend(fontsize=8)
    return _svg(figure)


def _figure(panels: int) -> tuple[Any, Sequence[Any]]:
    # Not pyplot, which keeps state and looks for a display.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1.2 + 4.6 * panels, 4.2), layout="constrained")
    return figure, figure.subplots(1, panels, squeeze=False)[0]


def _svg(figure: Any) -> str:
    import matplotlib

    buffer = io.StringIO()
    # The same figure gives the same file, and text that can be read as text.
    with matplotlib.rc_context({"svg.hashsalt": "t2aux", "svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]
