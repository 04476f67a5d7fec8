"""Groups (patients, studies) that have images on more than one side of a split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Straddling:
    """A group with images on several sides.

    Attributes:
        group: Its name.
        first: An image of the side that has most of it.
        other: An image of another side.
        sides: Number of images by side, the largest first.
        share: Of its images that are not on the side that has most; 0..1.
    """

    group: str
    first: str
    other: str
    sides: tuple[tuple[str, int], ...]
    share: float


def straddling(
    ids: Sequence[str], groups: Mapping[str, str], sides: Mapping[str, str]
) -> list[Straddling]:
    """Groups on more than one side, those with most images on a wrong side first.

    Args:
        ids: Of the images.
        groups: By id; an image without one belongs to none.
        sides: By id; an image without one is on none.
    """
    members: dict[str, list[str]] = {}
    for id_ in ids:
        if groups.get(id_) and sides.get(id_):
            members.setdefault(groups[id_], []).append(id_)
    found = []
    for group, of_group in members.items():
        counts = sorted(Counter(sides[i] for i in of_group).items(), key=lambda c: (-c[1], c[0]))
        if len(counts) < 2:
            continue
        first = next(i for i in of_group if sides[i] == counts[0][0])
        other = next(i for i in of_group if sides[i] != counts[0][0])
        share = 1 - counts[0][1] / len(of_group)
        found.append(Straddling(group, first, other, tuple(counts), share))
    return sorted(found, key=lambda s: (-sum(n for _, n in s.sides[1:]), s.group))
