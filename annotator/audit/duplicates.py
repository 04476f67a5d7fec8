"""Exact and near duplicates, within a collection and across the sides of a split."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from annotator.audit.align import CLOSE_SIDE
from annotator.audit.candidates import Pairs, Views, compare_within
from annotator.audit.confirm import Look, confirm
from annotator.audit.glances import glance_at
from annotator.errors import ImageError
from annotator.images.decode import decode
from annotator.images.ref import ImageRef

LEAST_SCORE = 0.88  # of a near duplicate; docs/audit.md says what was measured
_MAYBE_EXACT = 0.999  # from here on the pixels themselves are compared


@dataclass(frozen=True)
class Duplicate:
    """Two images that are one.

    Attributes:
        row: Of the first.
        other: Of the second.
        score: 1 for exact ones, else the correlation of the fine structure.
        how: "same file", "same pixels", "changed" or "mirrored".
    """

    row: int
    other: int
    score: float
    how: str

    @property
    def exact(self) -> bool:
        """Whether not a pixel differs."""
        return self.how.startswith("same")


def find_duplicates(
    refs: Sequence[ImageRef],
    contents: Sequence[bytes],
    views: Views,
    *,
    least: float = LEAST_SCORE,
    workers: int = 1,
) -> list[Duplicate]:
    """All pairs of images that are the same file, the same pixels or the same picture.

    Of many copies of one file each is listed with the first alone.

    Args:
        refs: The images.
        contents: sha256 of each one's file.
        views: Of the images.
        least: Score of a near duplicate.
        workers: Threads.

    Returns:
        The surest first, then by row.
    """
    first_of: dict[bytes, int] = {}
    found: list[Duplicate] = []
    for row, content in enumerate(contents):
        first = first_of.setdefault(content, row)
        if first != row:
            found.append(Duplicate(first, row, 1.0, "same file"))
    rows = np.array(sorted(first_of.values()), np.int64)
    pairs = compare_within(views.take(rows), workers=workers)
    pairs = Pairs(rows[pairs.rows], rows[pairs.others], pairs.mirrored, pairs.scores)
    pairs = confirm(pairs, looking_at(refs), looking_at(refs), workers=workers)
    found += near_duplicates(pairs, least, partial(same_pixels, refs, refs))
    return sorted(found, key=lambda d: (-d.score, d.row, d.other))


def near_duplicates(
    pairs: Pairs, least: float, same: Callable[[int, int], bool]
) -> list[Duplicate]:
    """Those of `pairs` that are one picture.

    Args:
        pairs: Confirmed.
        least: Score of a near duplicate.
        same: Whether two images, by row, have the same pixels.
    """
    found = []
    for i in np.flatnonzero(pairs.scores >= least).tolist():
        row, other = int(pairs.rows[i]), int(pairs.others[i])
        mirrored, score = bool(pairs.mirrored[i]), float(pairs.scores[i])
        how = "mirrored" if mirrored else "changed"
        if score >= _MAYBE_EXACT and not mirrored and same(row, other):
            how, score = "same pixels", 1.0
        found.append(Duplicate(row, other, min(score, 1.0), how))
    return found


def looking_at(refs: Sequence[ImageRef]) -> Look:
    """The images as `confirm` looks at them."""
    return lambda row: glance_at(refs[row], CLOSE_SIDE)


def strongest_links(duplicates: Sequence[Duplicate], n: int) -> list[Duplicate]:
    """As few of them as hold together what belongs together (a maximum spanning forest).

    Args:
        duplicates: The surest first.
        n: Images.
    """
    clusters = Clusters(n)
    return [d for d in duplicates if clusters.join(d.row, d.other)]


class Clusters:
    """Disjoint sets of rows.

    Args:
        n: Rows; each is alone at first.
    """

    def __init__(self, n: int) -> None:
        self._above = list(range(n))

    def join(self, a: int, b: int) -> bool:
        """Put the sets of two rows together; whether they were apart."""
        a, b = self.of(a), self.of(b)
        self._above[max(a, b)] = min(a, b)
        return a != b

    def of(self, row: int) -> int:
        """The set of a row, by its smallest row."""
        while self._above[row] != row:
            self._above[row] = self._above[self._above[row]]
            row = self._above[row]
        return row


def same_pixels(refs: Sequence[ImageRef], others: Sequence[ImageRef], row: int, other: int) -> bool:
    """Whether image `row` of the first and image `other` of the second decode to the same."""
    try:
        a, b = decode(refs[row].read())[0], decode(others[other].read())[0]
    except (ImageError, MemoryError):
        return False
    return (a.mode, a.size) == (b.mode, b.size) and a.tobytes() == b.tobytes()


def merged_groups(
    ids: Sequence[str], groups: Mapping[str, str], duplicates: Sequence[Duplicate]
) -> list[str]:
    """A group for each image such that copies and images of one group share it; "" for none."""
    clusters = Clusters(len(ids))
    first_of: dict[str, int] = {}
    for row, id_ in enumerate(ids):
        if group := groups.get(id_, ""):
            clusters.join(first_of.setdefault(group, row), row)
    for d in duplicates:
        clusters.join(d.row, d.other)
    return [f"g{clusters.of(row)}" for row in range(len(ids))]
