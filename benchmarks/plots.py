"""Bars with intervals, and panels of lines: all pictures of the benchmarks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

OURS, OTHER = "#1f5f99", "#9aa5b1"
COLOURS = (
    *("#1f5f99", "#d9480f", "#2b8a3e", "#7048a8", "#f08c00", "#12a5a5"),
    *("#343a40", "#e377a2", "#868e96", "#66a80f", "#6aaed6", "#9c6fd6"),
)
_MARKERS = "osD^vXP*<>hp"


@dataclass(frozen=True)
class Line:
    """One line of a panel.

    Attributes:
        label: The same in all panels, which share a legend.
        x: Values along the x axis.
        y: As many along the y axis.
        ours: Whether it is the product's: solid and thick.
    """

    label: str
    x: Sequence[float]
    y: Sequence[float]
    ours: bool = False


@dataclass(frozen=True)
class Panel:
    """Lines over the same axes.

    Attributes:
        title: Above the panel.
        x: Label of the x axis.
        y: Label of the y axis.
        lines: In the order of the legend.
        x_ticks: Labels by value.
        options: For `Axes.set`, such as `xscale`.
    """

    title: str
    x: str
    y: str
    lines: Sequence[Line]
    x_ticks: Mapping[float, str] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)


def plot_bars(
    names: Sequence[str],
    values: Sequence[float],
    intervals: Sequence[Sequence[float]],
    ours: Sequence[bool],
    x: str,
    path: Path,
) -> None:
    """Horizontal bars with intervals and figures, the first at the top.

    Args:
        names: Of the bars.
        values: 0..1.
        intervals: Lower and upper end of each.
        ours: Which are the product's.
        x: Label of the x axis.
        path: Of the PNG.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.5, 0.34 * len(names) + 1.2), layout="constrained")
    axes = figure.subplots()
    spread = [
        [value - low for value, (low, _) in zip(values, intervals, strict=True)],
        [high - value for value, (_, high) in zip(values, intervals, strict=True)],
    ]
    colours = [OURS if own else OTHER for own in ours]
    axes.barh(range(len(names)), values, xerr=spread, color=colours, height=0.7, ecolor="#333333")
    for y, (value, (_, high)) in enumerate(zip(values, intervals, strict=True)):
        axes.text(high + 0.01, y, f"{value:.3f}", va="center", fontsize=9)
    axes.set_yticks(range(len(names)), names)
    axes.set(xlim=(0, 1.08), xlabel=x)
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150, metadata={"Software": None})


def plot_lines(panels: Sequence[Panel], path: Path, columns: int = 2) -> None:
    """Panels of lines with one legend beside them, as a PNG at `path`."""
    from matplotlib.figure import Figure

    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(5.2 * columns + 2.4, 4.1 * rows), layout="constrained")
    labels = list(dict.fromkeys(line.label for panel in panels for line in panel.lines))
    handles: dict[str, Any] = {}
    for axes, panel in zip(
        figure.subplots(rows, columns, squeeze=False).flat, panels, strict=False
    ):
        for line in panel.lines:
            number = labels.index(line.label)
            colour, marker = COLOURS[number % len(COLOURS)], _MARKERS[number % len(_MARKERS)]
            style = {"linestyle": "-" if line.ours else "--", "linewidth": 2 if line.ours else 1.2}
            (handles[line.label],) = axes.plot(
                line.x, line.y, color=colour, marker=marker, markersize=5, **style
            )
        axes.set(xlabel=panel.x, ylabel=panel.y, **panel.options)
        if panel.x_ticks:
            axes.set_xticks(list(panel.x_ticks), list(panel.x_ticks.values()))
            axes.set_xticks([], minor=True)
        axes.set_title(panel.title, fontsize=10)
        axes.grid(True, color="#e3e6ea", linewidth=0.7)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in figure.axes[len(panels) :]:
        axes.set_visible(False)
    figure.legend(
        [handles[label] for label in labels], labels, loc="outside right upper", frameon=False
    )
    figure.savefig(path, dpi=130, metadata={"Software": None})
