"""The cases near a picture, as explaining it needs them: the one place that asks the index."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from annotator.images.ref import ImageRef
from annotator.images.thumbnails import make_thumbnails
from annotator.pipeline import Annotation, Annotator
from index.rows import SearchResult

SEEN = 200  # nearest cases among which those with and without a concept are sought
COMPARED = 50  # of each


@dataclass(frozen=True)
class Cases:
    """Cases of the index, most similar to the picture first.

    Attributes:
        cuis: The concepts of each.
        vectors: float64[m, out].
    """

    cuis: tuple[frozenset[str], ...]
    vectors: NDArray[np.float64]

    def has(self, cui: str) -> NDArray[np.bool_]:
        """bool[m]: which of them have a concept."""
        return np.array([cui in cuis for cuis in self.cuis], bool)


@dataclass(frozen=True)
class Contrast:
    """The mean of the nearest cases with a concept, less that of the nearest without it.

    Attributes:
        vector: float64[out]; a mean of no cases is 0.
        cases_with: How many there are with it, at most `COMPARED`.
        cases_without: How many without it.
    """

    vector: NDArray[np.float64]
    cases_with: int
    cases_without: int


@dataclass(frozen=True)
class Near:
    """A picture's annotation and the cases near it.

    Attributes:
        annotation: What `annotate` says of the picture.
        voters: The cases that voted, as in `annotation.neighbors`.
        nearest: The `SEEN` nearest.
    """

    annotation: Annotation
    voters: Cases
    nearest: Cases

    def vote(self, cui: str) -> NDArray[np.float64]:
        """float64[out]: the vote for a concept as a vector. Its product with the picture's is the
        sum of the similarities of the cases that voted for it, each times its weight.
        """
        weights = np.array([neighbor.weight for neighbor in self.annotation.neighbors])
        vote: NDArray[np.float64] = (weights * self.voters.has(cui)) @ self.voters.vectors
        return vote

    def contrast(self, cui: str) -> Contrast:
        """What tells the cases with a concept from those without it."""
        has = self.nearest.has(cui)
        sides = [np.flatnonzero(side)[:COMPARED] for side in (has, ~has)]
        means = [self.nearest.vectors[rows].sum(axis=0) / max(1, len(rows)) for rows in sides]
        return Contrast(means[0] - means[1], len(sides[0]), len(sides[1]))


def find_near(annotator: Annotator, image_id: str, vector: NDArray[np.float32]) -> Near:
    """Search and decide for one picture's vector float32[dim]."""
    found = annotator.search(vector[None])
    (annotation,) = annotator.decide([image_id], found)
    return Near(annotation, _cases(found), _cases(annotator.search(vector[None], SEEN)))


def small_pictures(
    annotator: Annotator, ids: Sequence[str], images: Mapping[str, ImageRef]
) -> dict[str, bytes]:
    """Small JPEGs of cases by id: the index's own, or made from `images`; b"" without either."""
    pictures = {id_: annotator.stored.thumbnail_of(id_) or b"" for id_ in ids}
    lacking = [id_ for id_ in ids if not pictures[id_] and id_ in images]
    made = make_thumbnails([images[id_] for id_ in lacking], workers=1)
    return pictures | dict(zip(lacking, made, strict=True))


def _cases(found: SearchResult) -> Cases:
    """What was found for the first query."""
    rows, cases = found.neighbors.rows[0], found.cases
    cuis = tuple(frozenset(cases.labels.row(row)) for row in rows.tolist())
    return Cases(cuis, cases.vectors(rows).astype(np.float64))
