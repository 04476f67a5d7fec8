"""Colours of a map: the category of each point, and the colour and form of each category."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from annotator.concepts.lookup import find_concept
from annotator.errors import AnnotatorError
from annotator.map.discriminative_concepts import discriminative_concepts, rarest
from index.labels import LabelTable

MOST = 8  # categories; more colours are not distinguishable
REST = -1  # points without a category


Point = tuple[float, float]


class Mark(NamedTuple):
    """Marker of a category.

    Attributes:
        colour: Colour on a light background.
        dark: Colour on a dark background.
        form: Corners of a polygon around (0, 0), y upwards, with a radius of about 1.
    """

    colour: str
    dark: str
    form: tuple[Point, ...]


def _regular(corners: int, turn: float, size: float, inner: float = 1.0) -> tuple[Point, ...]:
    """Regular polygon, or a star with every other corner scaled by `inner`."""
    angles = [math.radians(turn + 360 * i / corners) for i in range(corners)]
    reach = [size * (inner if i % 2 else 1) for i in range(corners)]
    return tuple(
        (round(far * math.cos(angle), 3), round(far * math.sin(angle), 3))
        for far, angle in zip(reach, angles, strict=True)
    )


_CIRCLE = _regular(20, 0, 1.0)

# The colour-blind safe palette of Okabe and Ito (2008), with black replaced by the text colour.
MARKS = (
    Mark("#0072b2", "#3d9bdc", _CIRCLE),
    Mark("#e69f00", "#e69f00", _regular(3, 90, 1.35)),
    Mark("#009e73", "#00b585", _regular(4, 45, 1.3)),
    Mark("#cc79a7", "#d98cb8", _regular(4, 0, 1.3)),
    Mark("#d55e00", "#ee7519", _regular(3, -90, 1.35)),
    Mark("#56b4e9", "#8fd0f7", _regular(6, 30, 1.15)),
    Mark("#1b2530", "#e5eaef", _regular(8, 0, 1.5, 0.4)),
    Mark("#f0e442", "#f0e442", _regular(10, 90, 1.5, 0.5)),
)
REST_MARK = Mark("#a9b1b9", "#57626d", _CIRCLE)
EDGE = ("#3c4650", "#0c1116")  # around each point, on a light and a dark background


@dataclass(frozen=True)
class Category:
    """Category of points with one colour.

    Attributes:
        label: Name of the concept, or the value.
        cui: CUI of the concept; "" for a value.
        points: Number of points with the colour.
        held: Number of points with the concept or value; some may have the colour of a rarer one.
    """

    label: str
    cui: str
    points: int
    held: int


@dataclass(frozen=True)
class Colouring:
    """Categories, and the category of each point.

    Attributes:
        by: Attribute shown by colour, such as "concept".
        rule: Explanation of the colours, as a sentence.
        categories: Categories, at most `MOST`, largest first.
        of: int64[n]: the category of each point, or `REST`.
        rest: Label of the points without a category.
    """

    by: str
    rule: str
    categories: tuple[Category, ...]
    of: NDArray[np.int64]
    rest: str


def by_concept(
    labels: LabelTable,
    name: Callable[[str], str],
    chosen: Sequence[str] | None = None,
) -> Colouring:
    """Colour each point by its rarest concept among the chosen ones.

    Args:
        labels: Concepts of each point.
        name: Function from CUI to name, "" if it has none.
        chosen: CUIs, at most `MOST`; None chooses the most discriminative ones.
    """
    cuis = list(discriminative_concepts(labels, MOST) if chosen is None else chosen)
    position = {cui: j for j, cui in enumerate(labels.cuis)}
    held = [int(labels.frequencies[position[cui]]) if cui in position else 0 for cui in cuis]
    winner = rarest(labels, [position.get(cui, -1) for cui in cuis])
    counts = np.bincount(winner[winner >= 0], minlength=len(cuis)).tolist()
    order = sorted(range(len(cuis)), key=lambda j: (-counts[j], cuis[j]))
    moved = np.empty(len(cuis) + 1, np.int64)
    moved[order], moved[REST] = np.arange(len(cuis)), REST
    categories = [Category(name(cuis[j]), cuis[j], counts[j], held[j]) for j in order]
    rule = "A point has the colour of the rarest of these concepts that the image has."
    if len(cuis) == 1:
        rule = "Coloured points are the images that have the concept."
    rest = "none of these" if len(cuis) != 1 else "without it"
    return Colouring("concept", rule, tuple(categories), moved[winner], rest)


def by_value(values: Sequence[str], by: str) -> Colouring:
    """Colour each point by its value, the most frequent values only.

    Args:
        values: Value of each point, "" if it has none.
        by: Name of the attribute, such as "source".
    """
    counts = Counter(value for value in values if value)
    ranked = sorted(counts, key=lambda value: (-counts[value], value))
    shown, others = ranked[:MOST], len(ranked[MOST:])
    place = {value: j for j, value in enumerate(shown)}
    rest = f"{others} other values" if others else "no value"
    if others and "" in values:
        rest += " or none"
    return Colouring(
        by,
        f"A point has the colour of its {by}.",
        tuple(Category(value, "", counts[value], counts[value]) for value in shown),
        np.array([place.get(value, REST) for value in values], np.int64),
        rest,
    )


def find_concepts(
    given: Sequence[str], concepts: Mapping[str, int], names: Mapping[str, str]
) -> list[str]:
    """Resolve CUIs and names of concepts to CUIs.

    Args:
        given: CUIs or names, also several in one text with commas between.
        concepts: Number of images with each CUI of the index.
        names: Name of each CUI that has one.

    Raises:
        AnnotatorError: An unknown concept, an ambiguous name, or more than `MOST`.
    """
    called = {name.casefold() for name in names.values()}
    found: dict[str, None] = {}
    for text in given:
        whole = text.strip().casefold() in called  # names may contain commas
        for part in [text] if whole else text.split(","):
            if part.strip():
                found[find_concept(part, concepts, names)] = None
    if not 0 < len(found) <= MOST:
        raise AnnotatorError(
            f"--concepts names {len(found)} concepts.", f"Give 1 to {MOST}: one colour each."
        )
    return list(found)
