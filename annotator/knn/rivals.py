"""What competed with the chosen concepts of an image: runners-up, and rivals that exclude them."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from annotator.evaluation.measures import group_numbers
from annotator.knn.decision import Decision
from index import LabelTable

LEAST_SHARE = 0.1  # of the vote, for a concept to be considered
MOST_CONSIDERED = 10  # concepts of an image
RIVAL_SHARE = 0.25  # of the vote, for a rival to cast doubt (docs/doubt.md)

_LEAST_EXPECTED = 5.0  # joint cases of a pair that is tested
_MOST_LIFT = 0.02  # of a pair that excludes each other: wrong labels are not held against it
_LEVEL = 0.01  # probability that any pair is taken for exclusive by chance


class Exclusions:
    """Tells which concepts of an index exclude each other: frequent, and hardly ever together.

    With n cases, of which w_a and w_b have the concepts a and b, e = w_a w_b / n joint cases are
    expected if they are independent. If j are seen, the Chernoff bound on the lower tail

        P(J <= j) <= exp(-(e - j + j ln(j / e)))

    (Mitzenmacher and Upfal 2017, "Probability and Computing", theorem 4.5; for j = 0 it is the
    Poisson probability exp(-e)) is the bound on the p-value of a one-sided test, which is taken at
    the level 0.01 for all pairs with e >= 5 together (Bonferroni). A pair that passes excludes each
    other if its lift j / e is 0.02 at most.

    Images of one patient are no independent cases: each group counts as one case, of which each
    image is an equal part. The bound holds for such sums of parts, too.

    A pair is tested when it is first asked for, since few ever compete.

    Args:
        labels: Labels of n images.
        parts: float64[n], what part of a case each image is (`parts_of_cases`); None for a whole.
    """

    def __init__(self, labels: LabelTable, parts: NDArray[np.float64] | None = None) -> None:
        self._labels = labels
        self._parts = np.ones(len(labels)) if parts is None else parts
        self._position = {cui: j for j, cui in enumerate(labels.cuis)}
        self._cases = float(self._parts.sum())
        self._rows = np.repeat(np.arange(len(labels), dtype=np.int32), labels.sizes)
        held = np.bincount(labels.indices, self._parts[self._rows], len(labels.cuis))
        self._weights = held.astype(np.float64)
        self._tested = _pairs(self._weights, _LEAST_EXPECTED * self._cases)
        self._rows_of: dict[int, NDArray[np.int32]] = {}
        self._known: dict[tuple[int, int], bool] = {}

    def exclude(self, one: str, other: str) -> bool:
        """Whether two concepts exclude each other; False for a concept that no image has."""
        a, b = self._position.get(one), self._position.get(other)
        if a is None or b is None or a == b:
            return False
        pair = (min(a, b), max(a, b))
        if pair not in self._known:
            self._known[pair] = self._test(*pair)
        return self._known[pair]

    def _test(self, a: int, b: int) -> bool:
        expected = float(self._weights[a] * self._weights[b]) / max(self._cases, 1.0)
        if expected < _LEAST_EXPECTED:
            return False
        holders = self._holders(b)
        joint = float(self._parts[holders[self._holds(a)[holders]]].sum())
        if joint > _MOST_LIFT * expected:
            return False
        log_p = joint - expected - (joint * math.log(joint / expected) if joint else 0.0)
        return log_p <= math.log(_LEVEL / self._tested)

    def _holders(self, j: int) -> NDArray[np.int32]:
        """Rows with concept j, ascending."""
        if j not in self._rows_of:
            self._rows_of[j] = self._rows[np.flatnonzero(self._labels.indices == j)]
        return self._rows_of[j]

    def _holds(self, j: int) -> NDArray[np.bool_]:
        """bool[n], which rows have concept j."""
        holds = np.zeros(len(self._labels), bool)
        holds[self._holders(j)] = True
        return holds


def parts_of_cases(groups: Sequence[str]) -> NDArray[np.float64]:
    """What part of a case each image is, float64[n]: its group is one; "" for none."""
    numbers = group_numbers(groups)
    return 1.0 / np.bincount(numbers)[numbers] if len(numbers) else np.zeros(0)


def considered(decision: Decision, implied: Collection[str] = ()) -> dict[str, float]:
    """Concepts that were voted for and not chosen, with their share of the vote, highest first.

    Args:
        decision: On an image.
        implied: Concepts that are not chosen because chosen ones imply them, to be left out.

    Returns:
        Those with a share of 0.1 at least, at most 10; equal ones in the order of the concepts.
    """
    enough = np.flatnonzero(decision.shares >= LEAST_SHARE)
    best = enough[np.argsort(-decision.shares[enough], kind="stable")]
    concepts = ((decision.vocabulary[decision.candidates[i]], i) for i in best.tolist())
    left_out = {*decision.cuis, *implied}
    rest = [(concept, i) for concept, i in concepts if concept not in left_out]
    return {concept: float(decision.shares[i]) for concept, i in rest[:MOST_CONSIDERED]}


def rivals(
    decision: Decision, considered: Mapping[str, float], exclusions: Exclusions
) -> dict[str, str]:
    """The strongest rival of each chosen concept that has one: it excludes the concept.

    Args:
        decision: On an image.
        considered: As from `considered`.
        exclusions: Which concepts exclude each other.

    Returns:
        Rival by chosen concept; chosen ones can be rivals of each other.
    """
    shares = {**dict(zip(decision.cuis, decision.scores.tolist(), strict=True)), **considered}
    strong = sorted((c for c in shares if shares[c] >= RIVAL_SHARE), key=lambda c: -shares[c])
    found = {}
    for concept in decision.cuis:
        rival = next((other for other in strong if exclusions.exclude(concept, other)), None)
        if rival is not None:
            found[concept] = rival
    return found


def _pairs(weights: NDArray[np.float64], least: float) -> int:
    """Number of pairs whose product is at least `least`; at least 1."""
    ascending = np.sort(weights)
    below = np.searchsorted(ascending, least / np.maximum(ascending, 1e-12), side="left")
    pairs = int((len(ascending) - below).sum()) - int((ascending**2 >= least).sum())
    return max(pairs // 2, 1)
