"""Calibration: what shares of the vote and expected F1 have been worth on images of known concepts.

The neighbour lists of an index annotate its own images by those of other groups. There, of the
concepts with a share of 0.8, some part is right, and images with an expected F1 of 0.8 have some
mean F1. Isotonic regression makes curves of this: the more votes, the higher the probability.
docs/reliability.md has what was measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from annotator.evaluation.official_f1 import image_score
from annotator.evaluation.reliability import binned
from annotator.knn.cross_validation import NeighborLists
from annotator.knn.decision import choose_concepts
from annotator.knn.posterior import weigh
from annotator.knn.voting import Voting
from index import LabelTable

LEAST_IMAGES = 100  # with fewer, a curve is mostly noise
_MOST_POINTS = 30
_DECIMALS = 6


@dataclass(frozen=True)
class Curve:
    """A non-decreasing map from 0..1 to 0..1: straight lines between points, level beyond them.

    Attributes:
        x: Where the points are, strictly ascending; at least one.
        y: Values there, ascending.

    Raises:
        ValueError: The points are not such.
    """

    x: tuple[float, ...]
    y: tuple[float, ...]

    def __post_init__(self) -> None:
        x, y = np.asarray(self.x, np.float64), np.asarray(self.y, np.float64)
        fits = x.ndim == 1 and x.shape == y.shape and len(x) > 0
        fits = fits and bool((np.diff(x) > 0).all() and (np.diff(y) >= 0).all())
        if not (fits and all(a[0] >= 0 and a[-1] <= 1 for a in (x, y))):
            raise ValueError("the points of a calibration curve ascend within 0..1")

    def __call__(self, values: ArrayLike) -> NDArray[np.float64]:
        """The values of the curve, float64 in the shape of `values`."""
        return np.asarray(np.interp(np.asarray(values, np.float64), self.x, self.y))

    @classmethod
    def fit(
        cls,
        predicted: NDArray[np.float64],
        observed: NDArray[np.float64],
        weights: NDArray[np.float64] | None = None,
    ) -> Curve:
        """Fit a curve by isotonic regression.

        The pairs are averaged in at most 30 bins of about equal size first, so that no point of the
        curve rests on a few of them. Bins whose means descend are pooled (`isotonic`), and each
        pool is one point, at its mean prediction (centred isotonic regression, Oron and Flournoy
        2017): what differs before, differs after, except beyond the outermost points.

        Args:
            predicted: float64[n] in 0..1, n at least 1.
            observed: float64[n] in 0..1.
            weights: As for `binned`.
        """
        rounded = np.round(predicted, _DECIMALS)
        bins = binned(rounded, observed, _MOST_POINTS, weights=weights)
        counts = np.array([each.count for each in bins], np.float64)
        x, y = (
            np.array([getattr(each, name) for each in bins]) for name in ("predicted", "observed")
        )
        starts = isotonic(y, counts)
        pooled = np.add.reduceat(counts, starts)
        points = (np.add.reduceat(values * counts, starts) / pooled for values in (x, y))
        return cls(*(tuple(np.round(np.clip(p, 0, 1), _DECIMALS).tolist()) for p in points))

    def to_list(self) -> list[list[float]]:
        """The points, as plain JSON types."""
        return [list(point) for point in zip(self.x, self.y, strict=True)]

    @classmethod
    def from_list(cls, points: Any) -> Curve:
        """Inverse of `to_list`.

        Raises:
            TypeError, ValueError: They are not points of a curve.
        """
        x, y = zip(*points, strict=True)
        return cls(tuple(map(float, x)), tuple(map(float, y)))


def isotonic(values: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.int64]:
    """Pool adjacent violators: the pools whose weighted means are the least-squares fit of all
    non-decreasing sequences (Barlow, Bartholomew, Bremner and Brunk 1972, "Statistical inference
    under order restrictions", section 1.2).

    Args:
        values: float64[n], n at least 1.
        weights: float64[n], positive.

    Returns:
        int64[m], where each pool starts; their means ascend strictly.
    """
    pools: list[tuple[int, float, float]] = []  # start, sum, weight
    for start, (value, weight) in enumerate(zip(values.tolist(), weights.tolist(), strict=True)):
        pool = (start, value * weight, weight)
        while pools and pools[-1][1] * pool[2] >= pool[1] * pools[-1][2]:
            before = pools.pop()
            pool = (before[0], before[1] + pool[1], before[2] + pool[2])
        pools.append(pool)
    return np.array([start for start, _, _ in pools], np.int64)


@dataclass(frozen=True)
class Calibration:
    """What the numbers of one vote are worth.

    It holds for the vote, that is the index and the voting parameters, that it was made with.

    Attributes:
        images: Number of images behind it.
        score: From the share of the vote of a concept to the probability that it is right.
        expected_f1: From the expected F1 of a set under the vote to the F1 that comes out.
    """

    images: int
    score: Curve
    expected_f1: Curve

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, for the manifest of the index."""
        return {
            "images": self.images,
            "score": self.score.to_list(),
            "expected_f1": self.expected_f1.to_list(),
        }

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Calibration:
        """Inverse of `to_dict`.

        Raises:
            KeyError, TypeError, ValueError: It is not a calibration.
        """
        curves = (Curve.from_list(fields[name]) for name in ("score", "expected_f1"))
        return cls(int(fields["images"]), *curves)


def calibrate(lists: NeighborLists, labels: LabelTable, voting: Voting) -> Calibration | None:
    """Calibrate a vote on neighbour lists; None with fewer than 100 images or without a concept.

    All concepts with a vote count, chosen or not. Most have next to none, so the bins of the curve
    have about equal sums of votes.

    Args:
        lists: From `annotator.knn.cross_validation`: no image is annotated by its own group.
        labels: Concepts of the index rows.
        voting: Voting parameters.
    """
    if len(lists.queries) < LEAST_IMAGES:
        return None
    scores: list[float] = []
    right: list[bool] = []
    expected: list[float] = []
    f1: list[float] = []
    decisions = choose_concepts(weigh(lists.found, labels, voting), voting)
    for row, decision in zip(lists.queries.tolist(), decisions, strict=True):
        truth = set(labels.row(row))
        shares = decision.by_concept()
        scores += shares.values()
        right += [cui in truth for cui in shares]
        expected.append(decision.expected_f1)
        f1.append(image_score(truth, decision.cuis))
    if not scores:
        return None
    votes = np.array(scores)
    return Calibration(
        images=len(f1),
        score=Curve.fit(votes, np.array(right, np.float64), weights=votes),
        expected_f1=Curve.fit(np.array(expected), np.array(f1)),
    )
