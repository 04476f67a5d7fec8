"""Decision rules from a posterior to sets of concepts: expected F1, threshold, top-r, macro F1.

With a hierarchy, sets are closed over ancestors, and the expected F1 is the hierarchical one.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from annotator.knn.expected_f1 import DECIMALS, best_sets
from annotator.knn.posterior import Posterior, Votes, count_votes
from annotator.knn.voting import Voting, frequency_bands
from index import LabelTable

MOST_CUIS = 100  # limit of the task per image
_MOST = 0.5 - 10.0**-DECIMALS  # share of the vote
_IMAGES_AT_ONCE = 128  # bounds the memory of the padded tables, which stay in the cache


@dataclass(frozen=True)
class Decision:
    """Concepts chosen for one image.

    Attributes:
        cuis: Chosen CUIs, by descending score, then by `LabelTable.ranks`. With a hierarchy, those
            of the chosen set that are told (`Closing`); of equal scores, those with fewer ancestors
            first.
        scores: float64[len(cuis)], share of the neighbours' votes, 0..1.
        expected_f1: Expected F1 of this set under the posterior, 0..1; with a hierarchy, expected
            hierarchical F1.
        candidates: int64[c], all concepts with a vote, as positions in the vocabulary.
        shares: float64[c], share of the votes of each candidate, 0..1.
        vocabulary: All concepts, ascending.
    """

    cuis: tuple[str, ...]
    scores: NDArray[np.float64]
    expected_f1: float
    candidates: NDArray[np.int64]
    shares: NDArray[np.float64]
    vocabulary: tuple[str, ...]

    def by_concept(self) -> dict[str, float]:
        """The share of each candidate by its concept, where it is not zero."""
        pairs = zip(self.candidates.tolist(), self.shares.tolist(), strict=True)
        return {self.vocabulary[j]: share for j, share in pairs if share > 0}


@dataclass(frozen=True)
class Closing:
    """How label sets were closed over the ancestors of their concepts.

    Of a chosen set, the most specific concepts are told: its closure is theirs. Telling their
    ancestors as well changes nothing in the hierarchical score, but the official one counts those
    that are labels of their own. So ancestors are told, too, that most of the vote names.

    Attributes:
        ancestors: Row j has the ancestors of concept j of the closed sets' vocabulary, which is
            also its own.
        named: The sets before they were closed, over the same vocabulary.
    """

    ancestors: LabelTable
    named: LabelTable

    def shares(self, posterior: Posterior, votes: Votes) -> NDArray[np.float64]:
        """Share of the votes of cases that name a candidate themselves, float64[c].

        Args:
            posterior: Posterior over the closed sets.
            votes: Its votes.
        """
        own = count_votes(Posterior(posterior.rows, posterior.weights, self.named))
        width = len(self.ancestors)
        shares = np.zeros(len(votes.candidate_cui))
        keys = votes.candidate_image * width + votes.candidate_cui
        shares[np.searchsorted(keys, own.candidate_image * width + own.candidate_cui)] = own.scores
        return shares


def choose_concepts(
    posterior: Posterior, voting: Voting, closing: Closing | None = None
) -> list[Decision]:
    """Choose the concepts of each image, at most 100 (the limit of the task).

    With a hierarchy, the label sets of the posterior are closed over ancestors, and so is each
    chosen set, whatever the decider: if concept a is an ancestor of concept j, every neighbour with
    j has a, too. Hence P[a, s] >= P[j, s] for each size s of a label set, the score of a is at
    least that of j, and Δ[a, m] >= Δ[j, m] (see `_optimal_size`). The concepts with the m largest
    values are thus closed over ancestors if of equal values those with fewer ancestors go first,
    as a has fewer than j. With "macro-f1", which asks more votes for a frequent concept, the
    ancestors of what is chosen come with it.

    The hierarchical F1 of two sets is the F1 of their closures, and a closed set is told by its
    most specific concepts. As the decider "expected-f1" finds the best one of all sets, and this
    set is closed, it is the best one of the closed sets: no concepts have a higher expected
    hierarchical F1.

    Args:
        posterior: Posterior of q images.
        voting: Decider with its parameter, and `min_score`.
        closing: How the label sets of the posterior were closed (`LabelTable.closed`); None without
            a hierarchy.
    """
    decisions: list[Decision] = []
    for start in range(0, len(posterior), _IMAGES_AT_ONCE):
        block = slice(start, start + _IMAGES_AT_ONCE)
        part = Posterior(posterior.rows[block], posterior.weights[block], posterior.labels)
        votes = count_votes(part)
        above = None if closing is None else _Above.of(votes, closing, part)
        decisions += decide_votes(votes, posterior.labels, voting, above)
    return decisions


def decide_votes(
    votes: Votes, labels: LabelTable, voting: Voting, above: _Above | None = None
) -> list[Decision]:
    """Choose the concepts of each image by its votes, as `choose_concepts` does by a posterior.

    Args:
        votes: Votes on q images, few enough for tables of all their candidates.
        labels: The vocabulary of the votes, with the ranks that break ties.
        voting: As for `choose_concepts`.
        above: Ancestors of the candidates; None without a hierarchy.
    """
    q, scores = len(votes.empty), votes.scores
    order = choose_candidates(votes, scores, labels, voting, above)
    is_chosen = np.zeros(len(scores), bool)
    is_chosen[order] = True
    if above is not None:
        is_chosen |= above.among(order)
    size = np.bincount(votes.candidate_image[is_chosen], minlength=q)
    expected = votes.expected_f1(is_chosen, size)
    bounds = np.searchsorted(votes.candidate_image[order], np.arange(q + 1))
    all_bounds = np.searchsorted(votes.candidate_image, np.arange(q + 1))
    return [
        Decision(
            cuis=tuple(labels.cuis[j] for j in votes.candidate_cui[order[start:end]]),
            scores=scores[order[start:end]],
            expected_f1=float(expected[i]),
            candidates=votes.candidate_cui[all_bounds[i] : all_bounds[i + 1]],
            shares=scores[all_bounds[i] : all_bounds[i + 1]],
            vocabulary=labels.cuis,
        )
        for i, (start, end) in enumerate(pairwise(bounds))
    ]


def choose_candidates(
    votes: Votes,
    scores: NDArray[np.float64],
    labels: LabelTable,
    voting: Voting,
    above: _Above | None = None,
) -> NDArray[np.int64]:
    """The candidates whose concepts are told, int64[m], by image, best first.

    Args:
        votes: As for `decide_votes`.
        scores: `votes.scores`.
        labels: As for `decide_votes`.
        voting: As for `choose_concepts`.
        above: As for `decide_votes`.
    """
    depth = np.zeros(len(scores), np.int64) if above is None else above.depth
    if voting.decider in ("threshold", "macro-f1"):
        chosen = np.flatnonzero(scores >= _least(votes, labels, voting) - 10.0**-DECIMALS)
    else:
        if voting.decider == "expected-f1":
            size, values = best_sets(votes, MOST_CUIS if above is None else None)
        else:
            values, size = scores, _top_r_size(votes, scores, voting.top_r)
        if above is not None:
            values = above.at_least_those_below(np.round(values, DECIMALS))
        within = _within_reach(votes, values, size)
        chosen = _best_first(votes, labels, values, within, size, depth)
    chosen = chosen[scores[chosen] >= voting.min_score - 10.0**-DECIMALS]
    told = np.sort(chosen)
    if above is not None:
        told = told[(above.named[told] >= _MOST) | ~above.among(told)[told]]
    return _best_first(votes, labels, scores, told, MOST_CUIS, depth)


def _least(votes: Votes, labels: LabelTable, voting: Voting) -> NDArray[np.float64] | float:
    """Minimum share of the votes of each candidate, float64[c], or of all."""
    if voting.decider == "threshold":
        return voting.threshold
    if voting.macro_thresholds is None:
        raise ValueError("the decider macro-f1 has no macro_thresholds: they are set by tuning")
    bands = frequency_bands(labels.frequencies[votes.candidate_cui])
    return np.array(voting.macro_thresholds)[bands]


@dataclass(frozen=True)
class _Above:
    """The ancestors of candidates, which are candidates of the same image.

    Attributes:
        depth: int64[c], number of ancestors of each candidate.
        below: int64[p], a candidate for each of its ancestors, ascending.
        above: int64[p], the ancestors.
        named: float64[c], share of the votes of cases that name a candidate themselves.
    """

    depth: NDArray[np.int64]
    below: NDArray[np.int64]
    above: NDArray[np.int64]
    named: NDArray[np.float64]

    @classmethod
    def of(cls, votes: Votes, closing: Closing, posterior: Posterior) -> _Above:
        ancestors = closing.ancestors
        depth = ancestors.sizes[votes.candidate_cui]
        below = np.repeat(np.arange(len(depth)), depth)
        start = votes.candidate_image * len(ancestors)
        above = ancestors.indices[ancestors.entries(votes.candidate_cui)]
        place = np.searchsorted(start + votes.candidate_cui, start[below] + above)
        return cls(depth, below, place, closing.shares(posterior, votes))

    def at_least_those_below(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Values of which rounding has not put a concept above its ancestor."""
        raised = values.copy()
        np.maximum.at(raised, self.above, values[self.below])
        return raised

    def among(self, candidates: NDArray[np.int64]) -> NDArray[np.bool_]:
        """bool[c]: whether a candidate is an ancestor of one of `candidates`."""
        is_one = np.zeros(len(self.depth), bool)
        is_one[candidates] = True
        found = np.zeros(len(self.depth), bool)
        found[self.above[is_one[self.below]]] = True
        return found


def _top_r_size(votes: Votes, scores: NDArray[np.float64], top_r: int | None) -> NDArray[np.int64]:
    """`top_r`, or the rounded mean number of concepts, the sum of all scores; int64[q]."""
    q = len(votes.empty)
    if top_r is not None:
        return np.full(q, top_r)
    mean = np.round(np.bincount(votes.candidate_image, scores, q), DECIMALS)
    size: NDArray[np.int64] = np.floor(mean + 0.5).astype(np.int64)
    return size


def _within_reach(
    votes: Votes, values: NDArray[np.float64], size: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Preselect candidates for sorting: all that reach the `size[i]`-th largest value of their
    image.
    """
    q, values = len(size), np.round(values, DECIMALS)
    place = _places(votes, q)
    table = np.full((q, int(place[1].max(initial=0)) + 1), -np.inf)
    table[place] = values
    table.sort(axis=1)
    size = np.minimum(size, table.shape[1])
    least = np.where(size > 0, table[np.arange(q), -size], np.inf)
    return np.flatnonzero(values >= least[votes.candidate_image])


def _places(votes: Votes, q: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Row and column of each candidate in a table with a row for each of q images."""
    counts = np.bincount(votes.candidate_image, minlength=q)
    starts = np.cumsum(counts) - counts
    column = np.arange(len(votes.candidate_image)) - starts[votes.candidate_image]
    return votes.candidate_image, column


def _best_first(
    votes: Votes,
    labels: LabelTable,
    values: NDArray[np.float64],
    candidates: NDArray[np.int64],
    most: NDArray[np.int64] | int,
    depth: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Sort `candidates` by image, value, depth (0 without a hierarchy) and rank (frequency first);
    at most `most` per image.
    """
    image, rank = (
        votes.candidate_image[candidates],
        labels.ranks[votes.candidate_cui[candidates]],
    )
    value = np.round(values[candidates], DECIMALS)
    order = np.lexsort((rank, depth[candidates], -value, image))
    counts = np.bincount(image, minlength=len(votes.empty))
    place = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    return candidates[order[place < np.repeat(np.broadcast_to(most, len(counts)), counts)]]
