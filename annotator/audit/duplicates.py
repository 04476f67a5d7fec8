"""Exact and near duplicates within a collection, and leaks across the sides of a split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from annotator.audit.candidates import Pairs, Views, compare_within, verify_pairs
from annotator.audit.findings import Finding, Kind
from annotator.audit.inputs import AuditLabels
from annotator.errors import ImageError
from annotator.images.decode import decode
from annotator.images.ref import ImageRef

MIN_CORRELATION = 0.88  # of a near duplicate; docs/audit.md says what was measured
_MAYBE_EXACT = 0.999  # correlation from which the pixels themselves are compared


@dataclass(frozen=True)
class Duplicate:
    """A pair of images that are the same picture.

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
    threshold: float = MIN_CORRELATION,
    workers: int = 1,
) -> list[Duplicate]:
    """All pairs of images that are the same file, the same pixels or the same picture.

    Of many copies of one file each is listed with the first alone.

    Args:
        refs: The images.
        contents: sha256 of each file.
        views: Of the images.
        threshold: Least correlation of a near duplicate.
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
    unique = views.take(rows)
    pairs = verify_pairs(compare_within(unique, workers=workers), unique, unique, workers=workers)
    pairs = Pairs(rows[pairs.rows], rows[pairs.others], pairs.mirrored, pairs.scores)
    found += near_duplicates(pairs, threshold, partial(same_pixels, refs, refs))
    return sorted(found, key=lambda d: (-d.score, d.row, d.other))


def near_duplicates(
    pairs: Pairs, threshold: float, same: Callable[[int, int], bool]
) -> list[Duplicate]:
    """Those of `pairs` that are the same picture.

    Args:
        pairs: Verified.
        threshold: Least correlation.
        same: Whether two images, by row, have the same pixels.
    """
    found = []
    for i in np.flatnonzero(pairs.scores >= threshold).tolist():
        row, other = int(pairs.rows[i]), int(pairs.others[i])
        mirrored, score = bool(pairs.mirrored[i]), float(pairs.scores[i])
        how = "mirrored" if mirrored else "changed"
        if score >= _MAYBE_EXACT and not mirrored and same(row, other):
            how, score = "same pixels", 1.0
        found.append(Duplicate(row, other, min(score, 1.0), how))
    return found


def same_pixels(refs: Sequence[ImageRef], others: Sequence[ImageRef], row: int, other: int) -> bool:
    """Whether image `row` of the first and image `other` of the second decode to the same."""
    try:
        a, b = (
            decode(ref.read(), allow_blank=True).frames[0] for ref in (refs[row], others[other])
        )
    except (ImageError, MemoryError):
        return False
    return (a.mode, a.size) == (b.mode, b.size) and a.tobytes() == b.tobytes()


def duplicate_findings(
    duplicates: Sequence[Duplicate], ids: Sequence[str], labels: AuditLabels
) -> list[Finding]:
    """Every pair that leaks across the split; of the others a spanning forest of each cluster.

    Pairs within one known group come last: a split by group keeps them together.
    """
    spanning = {(d.row, d.other) for d in strongest_links(duplicates, len(ids))}
    findings, known = list[Finding](), list[Finding]()
    for d in duplicates:
        a, b = ids[d.row], ids[d.other]
        sides = labels.sides.get(a, ""), labels.sides.get(b, "")
        leaks = "" not in sides and sides[0] != sides[1]
        if not leaks and (d.row, d.other) not in spanning:
            continue
        details = [d.how]
        if leaks:
            details.append(f"{sides[0]} and {sides[1]}")
        group = labels.groups.get(a, "")
        same_group = group != "" and group == labels.groups.get(b, "")
        if same_group:
            details.append(f"both of group {group}")
        concepts = labels.concepts or {}
        if a in concepts and b in concepts and set(concepts[a]) != set(concepts[b]):
            differ = sorted(set(concepts[a]) ^ set(concepts[b]))
            details.append(f"concepts differ: {', '.join(map(labels.named, differ))}")
        kind: Kind = "leak" if leaks else "exact" if d.exact else "near"
        finding = Finding(kind, a, b, d.score, "; ".join(details))
        (known if same_group else findings).append(finding)
    return findings + known


def group_leaks(
    ids: Sequence[str], groups: Mapping[str, str], sides: Mapping[str, str]
) -> list[Finding]:
    """Groups on more than one side of a split, those with most images on a wrong side first.

    The score of a group is the share of its images that are not on the side that has most.

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
        detail = f"group {group}: " + ", ".join(f"{n} in {side}" for side, n in counts)
        score = 1 - counts[0][1] / len(of_group)
        wrong = len(of_group) - counts[0][1]
        found.append((-wrong, group, Finding("straddle", first, other, score, detail)))
    return [finding for *_, finding in sorted(found, key=lambda f: f[:2])]


class Clusters:
    """Disjoint sets of rows (union-find).

    Args:
        n: Rows; each is alone at first.
    """

    def __init__(self, n: int) -> None:
        self._parent = list(range(n))

    def join(self, a: int, b: int) -> bool:
        """Merge the sets of two rows; whether they were apart."""
        a, b = self.of(a), self.of(b)
        self._parent[max(a, b)] = min(a, b)
        return a != b

    def of(self, row: int) -> int:
        """The set of a row, by its smallest row."""
        while self._parent[row] != row:
            self._parent[row] = self._parent[self._parent[row]]
            row = self._parent[row]
        return row


def strongest_links(duplicates: Sequence[Duplicate], n: int) -> list[Duplicate]:
    """A maximum spanning forest: the fewest pairs that connect the same clusters.

    Args:
        duplicates: The surest first.
        n: Images.
    """
    clusters = Clusters(n)
    return [d for d in duplicates if clusters.join(d.row, d.other)]


def merged_groups(
    ids: Sequence[str], groups: Mapping[str, str], duplicates: Sequence[Duplicate]
) -> list[str]:
    """A group for each image such that duplicates and images of one group share it."""
    clusters = Clusters(len(ids))
    first_of: dict[str, int] = {}
    for row, id_ in enumerate(ids):
        if group := groups.get(id_, ""):
            clusters.join(first_of.setdefault(group, row), row)
    for d in duplicates:
        clusters.join(d.row, d.other)
    return [f"g{clusters.of(row)}" for row in range(len(ids))]
