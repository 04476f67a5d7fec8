"""What the colours of a map mean: each point belongs to one category, or to none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from annotator.errors import AnnotatorError
from annotator.map.telling import rarest, telling
from annotator.tables.concept_names import find_concept
from index.labels import LabelTable

MOST = 8  # more colours are not told apart
REST = -1


@dataclass(frozen=True)
class Category:
    """One colour.

    Attributes:
        label: What it stands for.
        cui: Its concept, if it stands for one.
        points: How many points have the colour.
        held: How many points have the concept or the value; some may have a rarer one's colour.
    """

    label: str
    cui: str
    points: int
    held: int


@dataclass(frozen=True)
class Colouring:
    """The categories, and which point is in which.

    Attributes:
        by: What they are, such as "concept".
        rule: How a point comes to its colour, as a sentence.
        categories: At most `MOST`, largest first.
        of: int64[n]: the category of each point; -1 for none.
        rest: What the points without a category are.
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
    """Give each point the colour of the rarest that it has of some concepts.

    Args:
        labels: The concepts of each point.
        name: Name of a CUI; empty where it has none.
        chosen: CUIs, at most `MOST`; None chooses the `telling` ones.
    """
    cuis = list(telling(labels, MOST) if chosen is None else chosen)
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
    """Give each point the colour of its value; the most frequent values have one.

    Args:
        values: Of each point; empty where it has none.
        by: What the values are, such as "source".
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
    """The CUIs that a user means by CUIs or names, one a text or several with commas between.

    Args:
        given: The texts.
        concepts: In how many images each CUI of the index occurs.
        names: Name of each CUI that has one.

    Raises:
        AnnotatorError: There is no such concept, a name is that of several, or there are too many.
    """
    called = {name.casefold() for name in names.values()}
    found: dict[str, None] = {}
    for text in given:
        whole = text.strip().casefold() in called  # names hold commas, too
        for part in [text] if whole else text.split(","):
            if part.strip():
                found[find_concept(part, concepts, names)] = None
    if not 0 < len(found) <= MOST:
        raise AnnotatorError(
            f"--concepts names {len(found)} concepts.", f"Give 1 to {MOST}: one colour each."
        )
    return list(found)
