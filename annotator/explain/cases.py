"""Nearest cases of an image, and the directions attributed by explanations."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from annotator.annotation import Annotation
from annotator.knn.neighbors import MORE, copies
from annotator.pipeline import Annotator

SEEN = 200  # nearest cases considered for a contrast
COMPARED = 50  # maximum number of cases with, and without, the concept


@dataclass(frozen=True)
class LabelledVectors:
    """Cases of the index, most similar to the image first.

    Attributes:
        cuis: Concepts of each case.
        vectors: float64[m, out].
    """

    cuis: tuple[frozenset[str], ...]
    vectors: NDArray[np.float64]

    def has(self, cui: str) -> NDArray[np.bool_]:
        """Mask of the cases with a concept, bool[m]."""
        return np.array([cui in cuis for cuis in self.cuis], bool)


@dataclass(frozen=True)
class Contrast:
    """Mean of the nearest cases with a concept minus mean of the nearest cases without it.

    Attributes:
        vector: float64[out]; the mean of no cases is 0.
        cases_with: Number of cases with the concept, at most `COMPARED`.
        cases_without: Number of cases without it, at most `COMPARED`.
    """

    vector: NDArray[np.float64]
    cases_with: int
    cases_without: int

    @property
    def compares(self) -> bool:
        """Whether there are cases of both kinds."""
        return self.cases_with > 0 and self.cases_without > 0


@dataclass(frozen=True)
class Neighborhood:
    """Annotation of an image with its nearest cases.

    Attributes:
        annotation: As from `Annotator.stream`, where the image itself does not vote.
        nearest: The `SEEN` nearest cases.
    """

    annotation: Annotation
    nearest: LabelledVectors

    def contrast(self, cui: str) -> Contrast:
        """The contrast between the nearest cases with a concept and those without it."""
        has = self.nearest.has(cui)
        sides = [np.flatnonzero(side)[:COMPARED] for side in (has, ~has)]
        means = [self.nearest.vectors[rows].sum(axis=0) / max(1, len(rows)) for rows in sides]
        return Contrast(means[0] - means[1], len(sides[0]), len(sides[1]))


def find_neighborhood(
    annotator: Annotator, image_id: str, vector: NDArray[np.float32]
) -> Neighborhood:
    """Search and decide for the vector float32[dim] of one image.

    Where the index has the image itself (`Annotation.same_image`), that case is left out: it would
    explain everything by itself.
    """
    found = annotator.search(
        vector[None], max(SEEN + MORE, annotator.needed(annotator.voting, True))
    )
    (annotation,) = annotator.decide([image_id], found, exclude_self=True)
    same = copies(found.neighbors, annotator.metadata.fingerprint.asked_precision)
    nearest = found.neighbors.without(same, SEEN)
    rows = nearest.rows[0][nearest.similarities[0] > -np.inf]
    cuis = tuple(frozenset(found.cases.labels.row(row)) for row in rows.tolist())
    vectors = found.cases.vectors(rows).astype(np.float64)
    return Neighborhood(annotation, LabelledVectors(cuis, vectors))
