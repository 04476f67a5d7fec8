"""Decision rules from a posterior to sets of concepts: expected F1, threshold and top-r."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from annotator.knn.posterior import Posterior, Votes, count_votes
from annotator.knn.voting import Voting
from index import LabelTable

MOST_CUIS = 100  # limit of the task per image
_DECIMALS = 12  # smaller differences are ties
_IMAGES_AT_ONCE = 256  # bounds the memory of the padded tables


@dataclass(frozen=True)
class Decision:
    """Concepts chosen for one image.

    Attributes:
        cuis: Chosen CUIs, by descending score, then by `LabelTable.ranks`.
        scores: float64[len(cuis)], share of the neighbours' votes, 0..1.
        expected_f1: Expected F1 of this set under the posterior, 0..1.
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


def choose_concepts(posterior: Posterior, voting: Voting) -> list[Decision]:
    """Choose the concepts of each image, at most 100 (the limit of the task).

    Args:
        posterior: Posterior of q images.
        voting: Decider with its parameter, and `min_score`.
    """
    decisions: list[Decision] = []
    for start in range(0, len(posterior), _IMAGES_AT_ONCE):
        block = slice(start, start + _IMAGES_AT_ONCE)
        part = Posterior(posterior.rows[block], posterior.weights[block], posterior.labels)
        decisions += decide_votes(count_votes(part), posterior.labels, voting)
    return decisions


def decide_votes(votes: Votes, labels: LabelTable, voting: Voting) -> list[Decision]:
    """Choose the concepts of each image by its votes, as `choose_concepts` does by a posterior.

    Args:
        votes: Votes on q images, few enough for tables of all their candidates.
        labels: The vocabulary of the votes, with the ranks that break ties.
        voting: As for `choose_concepts`.
    """
    q, scores = len(votes.empty), votes.scores
    if voting.decider == "threshold":
        chosen = np.flatnonzero(scores >= voting.threshold - 10.0**-_DECIMALS)
    else:
        if voting.decider == "expected-f1":
            values, size = _optimal_size(votes, q)
        else:
            values, size = scores, _top_r_size(votes, scores, voting.top_r)
        within = _within_reach(votes, values, size)
        chosen = _best_first(votes, labels, values, within, size)
    chosen = chosen[scores[chosen] >= voting.min_score - 10.0**-_DECIMALS]
    order = _best_first(votes, labels, scores, np.sort(chosen), MOST_CUIS)
    is_chosen = np.zeros(len(scores), bool)
    is_chosen[order] = True
    image = votes.candidate_image[order]
    expected = votes.expected_f1(is_chosen, np.bincount(image, minlength=q))
    bounds = np.searchsorted(image, np.arange(q + 1))
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


def _optimal_size(votes: Votes, q: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Maximise the expected F1 under the posterior exactly: the size m of the best set for each of
    q images, and Δ[j, m] of each candidate, float64[c], whose m largest make up the set.

    With P[j, s] the weight of neighbours with concept j and s concepts in all, concept j in a set
    of size m contributes Δ[j, m] = Σ_s P[j, s] · 2 / (s + m). The best set of size m consists of
    the m largest Δ[·, m] and has the expected F1 E_m, their sum; the empty set has p0.
    (Dembczynski, Waegeman, Cheng, Hüllermeier 2011, "An exact algorithm for F-measure
    maximization"; Waegeman et al. 2014.)

    Sizes are not capped at that of the largest neighbour: of {a} and {b} at one half each, {a, b}
    has 2/3 and {a} 1/2. But a set of size m shares at most min(s, m) concepts with a neighbour of
    size s, so E_m <= Σ_s P(s) · 2 min(s, m) / (s + m); sizes with a bound below the best value
    found are skipped.
    """
    best, size = np.full(q, -1.0), np.zeros(q, np.int64)
    c = len(votes.candidate_cui)
    if c == 0:
        return np.zeros(0), size
    counts = np.bincount(votes.candidate_image, minlength=q)
    m_max = min(int(counts.max()), MOST_CUIS)
    sizes, column = np.unique(votes.vote_size, return_inverse=True)
    cell = votes.vote_candidate * len(sizes) + column
    weight = np.bincount(cell, votes.vote_weight, c * len(sizes)).reshape(c, -1)  # P[j, s]
    cell = votes.candidate_image[votes.vote_candidate] * len(sizes) + column
    # Each neighbour of size s casts s votes.
    share = np.bincount(cell, votes.vote_weight / votes.vote_size, q * len(sizes)).reshape(q, -1)
    every_m = np.arange(1, m_max + 1)
    best_f1 = 2.0 * np.minimum(sizes[:, None], every_m) / (sizes[:, None] + every_m)
    bound = share @ best_f1 + 10.0**-_DECIMALS * m_max  # rounding error of E_m
    bound[every_m > counts[:, None]] = -1.0  # no set of that size

    empty = np.round(votes.empty, _DECIMALS)
    place = _places(votes, q)
    delta = np.zeros((q, int(counts.max())))  # padded with zeros, which add nothing to a sum
    for m in every_m:
        images = np.flatnonzero(bound[:, m - 1] >= np.maximum(best, empty))
        if len(images) == 0:
            continue
        delta[place] = np.round(weight @ (2.0 / (sizes + m)), _DECIMALS)
        largest = np.partition(delta[images], -m, axis=1)[:, -m:]
        earned = np.round(largest.sum(axis=1), _DECIMALS)
        better = earned > best[images]
        best[images[better]], size[images[better]] = earned[better], m
    size[best < empty] = 0
    return np.einsum("cs,cs->c", weight, 2.0 / (sizes + size[votes.candidate_image, None])), size


def _top_r_size(votes: Votes, scores: NDArray[np.float64], top_r: int | None) -> NDArray[np.int64]:
    """`top_r`, or the rounded mean number of concepts, the sum of all scores; int64[q]."""
    q = len(votes.empty)
    if top_r is not None:
        return np.full(q, top_r)
    mean = np.round(np.bincount(votes.candidate_image, scores, q), _DECIMALS)
    size: NDArray[np.int64] = np.floor(mean + 0.5).astype(np.int64)
    return size


def _within_reach(
    votes: Votes, values: NDArray[np.float64], size: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Preselect candidates for sorting: all that reach the `size[i]`-th largest value of their
    image.
    """
    q, values = len(size), np.round(values, _DECIMALS)
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
) -> NDArray[np.int64]:
    """Sort `candidates` by image, value and rank (frequency first); at most `most` per image."""
    image, rank = (
        votes.candidate_image[candidates],
        labels.ranks[votes.candidate_cui[candidates]],
    )
    order = np.lexsort((rank, -np.round(values[candidates], _DECIMALS), image))
    counts = np.bincount(image, minlength=len(votes.empty))
    place = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    return candidates[order[place < np.repeat(np.broadcast_to(most, len(counts)), counts)]]
