"""Make a map of the images of an index, and draw it."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from annotator.errors import AnnotatorError
from annotator.map.colouring import (
    EDGE,
    MARKS,
    REST,
    REST_MARK,
    Category,
    Colouring,
    Mark,
    by_concept,
    by_value,
    find_concepts,
)
from annotator.map.layout import Layout, pca, umap
from annotator.map.points import Points, read_points
from annotator.tables.formats import read_column
from index.protocols import Index

Method = Literal["pca", "umap"]

DEFAULT_LIMIT = 5000  # points
_WIDEST = 34  # characters of a label in the legend
_LARGEST = 36.0  # square points of a mark


@dataclass(frozen=True)
class Map:
    """Map of images, for a picture or a page.

    Attributes:
        title: Name of the index.
        points: Images.
        layout: Positions of the points.
        colouring: Colours of the points.
    """

    title: str
    points: Points
    layout: Layout
    colouring: Colouring

    @property
    def counted(self) -> str:
        """Number of images shown, in words."""
        drawn, total = len(self.points), self.points.total
        return f"{drawn:,} of {total:,} images" if drawn < total else f"{total:,} images"


def make_map(
    stored: Index,
    title: str,
    *,
    method: Method = "pca",
    color: str = "concept",
    concepts: Sequence[str] = (),
    limit: int = DEFAULT_LIMIT,
    seed: int = 0,
) -> Map:
    """Lay out the images of an index by their vectors, and colour them.

    Args:
        stored: Open index.
        title: Name of the index.
        method: Dimensionality reduction.
        color: "concept", "group", or "FILE" or "FILE:COLUMN" with a value for each image.
        concepts: With `color` "concept": CUIs or names; empty for the most discriminative ones.
        limit: Maximum number of points; larger indexes are sampled at random.
        seed: Random seed of sampling and UMAP.

    Raises:
        AnnotatorError: The index is on a server, has no such attribute or concept, umap-learn is
            missing, or a file cannot be read.
    """
    if color == "concept":
        chosen = find_concepts(concepts, stored.concepts, stored.names) if concepts else None
    points = read_points(stored, limit=limit, seed=seed)
    if color == "concept":
        colouring = by_concept(points.labels, points.name, chosen)
    else:
        colouring = _by_value(points, color)
    layout = pca(points.blocks) if method == "pca" else umap(points.blocks, seed=seed)
    return Map(title, points, layout, colouring)


def draw_map(drawn: Map) -> bytes:
    """Draw a map as a PNG, reproducible with the same version of matplotlib."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 7), layout="constrained")
    axes = figure.subplots()
    colouring = drawn.colouring
    size = max(10.0, min(_LARGEST, 24000 / len(drawn.points)))
    rest = int(np.sum(colouring.of == REST))
    lines = []
    if rest:  # drawn below the others, and last in the legend
        lines = [
            (_scatter(axes, drawn, REST, REST_MARK, size * 0.6), f"{colouring.rest} ({rest:,})")
        ]
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
        written.set_parse_math(False)  # names may contain dollar signs
    axes.set_title(f"{drawn.title}: {drawn.counted}", loc="left", fontsize=11, parse_math=False)
    axes.set(xlabel=drawn.layout.axes[0], ylabel=drawn.layout.axes[1], xticks=[], yticks=[])
    axes.set_aspect("equal", adjustable="datalim")
    axes.spines[["top", "right"]].set_visible(False)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=110, metadata={"Software": None})
    return file.getvalue()


def _by_value(points: Points, color: str) -> Colouring:
    if color == "group":
        groups = points.texts("groups")
        if groups is None:
            raise AnnotatorError(
                "The index has no groups.",
                "Rebuild it with --groups, or give --color FILE:COLUMN.",
            )
        return by_value(groups, "group")
    values = read_column(color)
    found = [values.get(id_, "") for id_ in points.ids]
    if not any(found):
        raise AnnotatorError(
            f"{color} has a value for none of the {len(points):,} images.",
            f"Its first column has to hold ids such as {points.ids[0]!r}; "
            f"it holds such as {next(iter(values), '')!r}.",
        )
    path, _, column = color.rpartition(":")
    by = column if path and not Path(color).exists() else Path(color).stem
    return by_value(found, by.strip())


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
