"""From an index to a map of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from annotator.errors import AnnotatorError
from annotator.map.colour import Colouring, by_concept, by_value, find_concepts
from annotator.map.layout import Layout, pca, umap
from annotator.map.points import Points, read_points
from annotator.tables.formats import read_column
from index.protocols import Index

Method = Literal["pca", "umap"]

DEFAULT_LIMIT = 5000


@dataclass(frozen=True)
class Map:
    """Everything that a picture or a page of an index shows.

    Attributes:
        title: Of the index.
        points: What is drawn.
        layout: Where.
        colouring: In which colours.
    """

    title: str
    points: Points
    layout: Layout
    colouring: Colouring

    @property
    def counted(self) -> str:
        """How many images of how many."""
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
        stored: The index.
        title: Its name.
        method: How many dimensions become two.
        color: "concept", "group", or "FILE" or "FILE:COLUMN" with a value for each image.
        concepts: With `color` "concept", CUIs or names; without, the telling ones are chosen.
        limit: The most points; more images are sampled.
        seed: Of the sample and of UMAP.

    Raises:
        AnnotatorError: The index lies on a server, there is nothing to colour by, an unknown
            concept, umap-learn is missing, or a file cannot be read.
    """
    if color == "concept":
        chosen = find_concepts(concepts, stored.concepts, stored.names) if concepts else None
    points = read_points(stored, limit=limit, seed=seed)
    if color == "concept":
        colouring = by_concept(points.labels, points.name, chosen)
    else:
        colouring = _by_value(points, color)
    blocks = partial(points.blocks)
    layout = pca(blocks) if method == "pca" else umap(blocks, seed=seed)
    return Map(title, points, layout, colouring)


def _by_value(points: Points, color: str) -> Colouring:
    if color == "group":
        groups = points.texts("groups")
        if groups is None:
            raise AnnotatorError(
                "The index knows no groups.",
                "`annotator build-index --groups` keeps them; or give --color FILE:COLUMN.",
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
