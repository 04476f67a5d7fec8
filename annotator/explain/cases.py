"""The cases of an index near an image, and the directions that explanations attribute."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from annotator.pipeline import Annotation, Annotator
from index.rows import SearchResult

SEEN = 200  # nearest cases among which those with and without a concept are sought
COMPARED = 50  # of each


@dataclass(frozen=True)
class LabelledVectors:
    """Cases of the index, most similar to the image first.

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
        vector: float64[out]; the mean of no cases is 0.
        cases_with: How many have the concept, at most `COMPARED`.
        cases_without: How many do not, at most `COMPARED`.
    """

    vector: NDArray[np.float64]
    cases_with: int
    cases_without: int


@dataclass(frozen=True)
class Neighborhood:
    """An image's annotation and the cases near it.

    Attributes:
        annotation: As from `Annotator.annotate`.
        voters: The cases that voted, as in `annotation.neighbors`.
        nearest: The `SEEN` nearest.
    """

    annotation: Annotation
    voters: LabelledVectors
    nearest: LabelledVectors

    def vote(self, cui: str) -> NDArray[np.float64]:
        """The vote for a concept as a vector, float64[out].

        Its product with the image's vector is the weighted sum of the similarities of the voters
        with the concept.
        """
        weights = np.array([neighbor.weight for neighbor in self.annotation.neighbors])
        vote: NDArray[np.float64] = (weights * self.voters.has(cui)) @ self.voters.vectors
        return vote

    def contrast(self, cui: str) -> Contrast:
        """The contrast between the nearest cases with a concept and those without it."""
        has = self.nearest.has(cui)
        sides = [np.flatnonzero(side)[:COMPARED] for side in (has, ~has)]
        means = [self.nearest.vectors[rows].sum(axis=0) / max(1, len(rows)) for rows in sides]
        return Contrast(means[0] - means[1], len(sides[0]), len(sides[1]))


def find_neighborhood(
    annotator: Annotator, image_id: str, vector: NDArray[np.float32]
) -> Neighborhood:
    """Search and decide for one image's vector float32[dim]."""
    voters = annotator.search(vector[None])
    nearest = annotator.search(vector[None], SEEN)
    (annotation,) = annotator.decide([image_id], voters)
    return Neighborhood(annotation, _labelled(voters), _labelled(nearest))


def _labelled(found: SearchResult) -> LabelledVectors:
    """The cases found for the first query."""
    rows, cases = found.neighbors.rows[0], found.cases
    cuis = tuple(frozenset(cases.labels.row(row)) for row in rows.tolist())
    return LabelledVectors(cuis, cases.vectors(rows).astype(np.float64))
