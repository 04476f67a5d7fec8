"""What the images are worth that nobody reviews: "review these n, and the rest has F1 at least x".

The least sure images are reviewed first, by their expected F1 e. Of an image, what is lost if those
with e < t are reviewed is L(t) = (1 - F1) for e >= t, and 0 else: it falls with t and is at most
1, so that the bound of `annotator.knn.guarantees` holds for it (conformal risk control): with R(t)
its mean over n patients of the index, whose concepts are known, another patient is expected to lose
at most b(t) = (n R(t) + 1) / (n + 1). Of m images of which r are left, these have a mean F1 of at
least 1 - b(t) · m / r.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from annotator.evaluation.official_f1 import image_score
from annotator.knn.calibration import Curve
from annotator.knn.cross_validation import MOST_NEIGHBORS, stored_lists
from annotator.knn.decision import choose_concepts
from annotator.knn.guarantees import group_weights, posterior_of_others, risk_bounds
from annotator.knn.incomplete import voters
from annotator.knn.voting import Voting
from index.protocols import Index

SHARES = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7)  # of the images, that are reviewed


@dataclass(frozen=True)
class Left:
    """What is left when the least sure images are reviewed.

    Attributes:
        reviewed: Number of images that are reviewed, those of the lowest expected F1.
        below: Their expected F1 is below this.
        expected: Mean expected F1 of the rest.
        rest: F1 that the rest has at least on average, for patients like those of the index.
        whole: F1 that all images have at least, if the reviewed ones are right.
    """

    reviewed: int
    below: float
    expected: float
    rest: float
    whole: float


@dataclass(frozen=True)
class Lost:
    """What the images of an index would have lost, by their expected F1.

    Attributes:
        expected: float64[q], expected F1 of each image by others of the index, ascending.
        lost: float64[q], what is lost on average over groups by it and all surer ones.
        groups: Number of groups.
    """

    expected: NDArray[np.float64]
    lost: NDArray[np.float64]
    groups: int

    @classmethod
    def of(cls, stored: Index, voting: Voting, calibration: Curve | None) -> Lost | None:
        """Measure it on the neighbour lists of an index; None if it has none, or too short ones.

        Args:
            stored: Open index.
            voting: Voting parameters.
            calibration: Of expected F1; None for that of the votes.
        """
        lists = stored_lists(stored)
        if lists is None or voting.k > MOST_NEIGHBORS:
            return None
        lists, known = voters(lists, stored.labels, stored, voting)
        decisions = choose_concepts(posterior_of_others(lists, known, voting), voting)
        expected = np.array([decision.expected_f1 for decision in decisions])
        if calibration is not None:
            expected = calibration(expected)
        f1 = [
            image_score(set(stored.labels.row(row)), decision.cuis)
            for row, decision in zip(lists.queries.tolist(), decisions, strict=True)
        ]
        losses = group_weights(lists.group_of_each) * (1 - np.array(f1))
        order = np.argsort(expected, kind="stable")
        return cls(
            expected[order],
            np.cumsum(losses[order][::-1])[::-1],
            len(np.unique(lists.group_of_each)),
        )

    def at(self, threshold: float) -> float:
        """Bound on what a patient loses by images with an expected F1 of at least `threshold`."""
        first = int(np.searchsorted(self.expected, threshold, side="left"))
        risk = self.lost[first] if first < len(self.lost) else 0.0
        return float(risk_bounds(np.array(risk), self.groups))

    def curve(self, expected: NDArray[np.float64]) -> list[Left]:
        """What is left of some images after the least sure ones are reviewed.

        Args:
            expected: float64[m], expected F1 of each, calibrated alike; m at least 1.
        """
        ordered, m = np.sort(expected), len(expected)
        found: dict[int, Left] = {}
        for share in SHARES:
            threshold = ordered[min(int(share * m), m - 1)]
            # Equal ones are left together.
            reviewed = int(np.searchsorted(ordered, threshold, side="left"))
            bound = self.at(threshold)
            rest = max(0.0, 1 - bound * m / (m - reviewed))
            mean = float(ordered[reviewed:].mean())
            found[reviewed] = Left(reviewed, float(threshold), mean, rest, 1 - bound)
        return list(found.values())
