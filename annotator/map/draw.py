"""A map as a picture."""

from __future__ import annotations

import io
import textwrap
from typing import Any

import numpy as np

from annotator.map.colour import REST as NONE
from annotator.map.colour import Category
from annotator.map.make import Map
from annotator.map.style import EDGE, MARKS, REST, Mark

_WIDEST = 34  # characters of a label in the legend
_LARGEST = 36.0  # square points of a mark


def draw_map(drawn: Map) -> bytes:
    """A map as a PNG; the same map gives the same bytes under the same version of matplotlib."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 7), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    colouring = drawn.colouring
    size = max(10.0, min(_LARGEST, 24000 / len(drawn.points)))
    rest = int(np.sum(colouring.of == NONE))
    lines = []
    if rest:  # drawn first, so below the others, and named last
        lines = [(_scatter(axes, drawn, NONE, REST, size * 0.6), f"{colouring.rest} ({rest:,})")]
    named = [
        (_scatter(axes, drawn, number, MARKS[number], size), _label(category))
        for number, category in enumerate(colouring.categories)
    ]
    lines = named + lines
    legend = figure.legend(
        [handle for handle, _ in lines],
        [str(i) for i in range(len(lines))],
        loc="outside right upper",
        title=f"by {colouring.by}",
        frameon=False,
        alignment="left",
        fontsize=9,
        markerscale=(_LARGEST / size) ** 0.5,
        labelspacing=0.8,
    )
    for written, (_, label) in zip(legend.get_texts(), lines, strict=True):
        written.set_text(label)
    for written in (legend.get_title(), *legend.get_texts()):
        written.set_parse_math(False)  # names hold dollars
    axes.set_title(f"{drawn.title}: {drawn.counted}", loc="left", fontsize=11, parse_math=False)
    axes.set(xlabel=drawn.layout.axes[0], ylabel=drawn.layout.axes[1], xticks=[], yticks=[])
    axes.set_aspect("equal", adjustable="datalim")
    axes.spines[["top", "right"]].set_visible(False)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=110, metadata={"Software": None})
    return file.getvalue()


def _label(category: Category) -> str:
    name = textwrap.shorten(category.label or category.cui, _WIDEST, placeholder="…")
    of = f" of {category.held:,}" if category.held != category.points else ""
    cui = f"\n{category.cui}" if category.cui and category.label else ""
    return f"{name} ({category.points:,}{of}){cui}"


def _scatter(axes: Any, drawn: Map, category: int, mark: Mark, size: float) -> Any:
    shown = drawn.layout.positions[drawn.colouring.of == category]
    form = np.array(mark.form)
    size *= float(np.abs(form).max()) ** 2  # matplotlib scales each form to the same width
    return axes.scatter(
        shown[:, 0], shown[:, 1], s=size, c=mark.colour, marker=form,
        alpha=0.85, linewidths=0.3, edgecolors=EDGE[0],
    )  # fmt: skip
