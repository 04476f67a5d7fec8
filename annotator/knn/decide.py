"""Posterior to CUI sets: three deciders, the one that aims at the metric first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from annotator.knn.posterior import Posterior, Votes, cast

Decider = Literal["expected-f1", "threshold", "top-r"]

MOST_CUIS = 100  # the task's limit for one image
_DECIMALS = 12  # sums of weights that differ by less are ties
_IMAGES_AT_ONCE = 256  # bounds the memory of the padded tables


@dataclass(frozen=True)
class Decision:
    """The concepts chosen for one image.

    Attributes:
        cuis: Chosen CUIs, highest score first, then the more frequent in the index, then by CUI.
        scores: float64[len(cuis)], each one's share of the neighbours' votes, 0..1.
        expected_f1: The F1 to be expected of this set if the neighbours' label sets are
            distributed like the true one; 0..1.
    """

    cuis: tuple[str, ...]
    scores: NDArray[np.float64]
    expected_f1: float


def decide(
    posterior: Posterior,
    decider: Decider = "expected-f1",
    *,
    threshold: float = 0.35,
    top_r: int | None = None,
    min_score: float = 0.0,
) -> list[Decision]:
    """Choose each image's concepts.

    Args:
        posterior: Of q images.
        decider: "expected-f1" takes the set with the highest expected F1; "threshold" the concepts
            with at least `threshold` of the votes; "top-r" the `top_r` with the most votes.
        threshold: For "threshold", 0..1.
        top_r: For "top-r"; None for the neighbours' weighted mean number of concepts, rounded (the
            recipe of AUEB's submissions of 2019 and 2020, there with equal weights).
        min_score: Concepts with a smaller share of the votes are dropped at the end, whichever
            decider chose them.

    Returns:
        One decision an image. At most 100 concepts each, as the task allows.

    Raises:
        ValueError: Unknown decider.
    """
    if decider not in get_args(Decider):
        raise ValueError(f"unknown decider {decider!r}; one of {', '.join(get_args(Decider))}")
    decisions: list[Decision] = []
    for start in range(0, len(posterior), _IMAGES_AT_ONCE):
        block = slice(start, start + _IMAGES_AT_ONCE)
        part = Posterior(posterior.rows[block], posterior.weights[block], posterior.labels)
        decisions += _decide_block(part, decider, threshold, top_r, min_score)
    return decisions


def _decide_block(
    posterior: Posterior, decider: Decider, threshold: float, top_r: int | None, min_score: float
) -> list[Decision]:
    votes = cast(posterior)
    scores = votes.scores
    if decider == "expected-f1":
        chosen = _by_expected_f1(votes, posterior)
    elif decider == "threshold":
        chosen = scores >= threshold - 10.0**-_DECIMALS
    else:
        chosen = _top_r(votes, posterior, top_r)
    chosen &= scores >= min_score - 10.0**-_DECIMALS
    order = _best_first(votes, posterior, scores, np.flatnonzero(chosen), MOST_CUIS)
    expected = _expected_f1(votes, posterior, order)
    bounds = np.searchsorted(votes.candidate_image[order], np.arange(len(posterior) + 1))
    cuis = posterior.labels.cuis
    return [
        Decision(
            cuis=tuple(cuis[j] for j in votes.candidate_cui[order[start:end]]),
            scores=scores[order[start:end]],
            expected_f1=float(value),
        )
        for start, end, value in zip(bounds[:-1], bounds[1:], expected, strict=True)
    ]


def _by_expected_f1(votes: Votes, posterior: Posterior) -> NDArray[np.bool_]:
    """bool[c]: the set that maximises the expected F1 under the posterior, exactly.

    With P[j, s] the weight of the neighbours that hold concept j and s concepts in all, concept j
    in a set of size m earns Δ[j, m] = Σ_s P[j, s] · 2 / (s + m). The best set of size m is that of
    the m largest Δ[·, m], with the expected F1 E_m, their sum; the empty set earns p0.
    (Dembczynski, Waegeman, Cheng, Hüllermeier 2011, "An exact algorithm for F-measure
    maximization"; Waegeman et al. 2014.)

    Sizes are not capped at that of the largest neighbour: of {a} and {b} at one half each, {a, b}
    earns 2/3 and {a} 1/2. But a set of size m shares at most min(s, m) concepts with a neighbour of
    size s, so E_m <= Σ_s P(s) · 2 min(s, m) / (s + m), and a size whose bound is below what another
    one earns is passed over.
    """
    q, c = len(posterior), len(votes.candidate_cui)
    if c == 0:
        return np.zeros(0, bool)
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
    bound = share @ best_f1 + 10.0**-_DECIMALS * m_max  # what rounding may add to E_m
    bound[every_m > counts[:, None]] = -1.0  # no set of that size

    empty = np.round(votes.empty, _DECIMALS)
    best, size = np.full(q, -1.0), np.zeros(q, np.int64)
    place = _place(votes, q)
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
    at_size = np.einsum("cs,cs->c", weight, 2.0 / (sizes + size[votes.candidate_image, None]))
    return _top(votes, posterior, at_size, size)


def _top_r(votes: Votes, posterior: Posterior, top_r: int | None) -> NDArray[np.bool_]:
    if top_r is None:
        mean = (posterior.weights * posterior.labels.sizes[posterior.rows]).sum(axis=1)
        size = np.floor(mean + 0.5).astype(np.int64)
    else:
        size = np.full(len(posterior), top_r)
    return _top(votes, posterior, votes.scores, size)


def _expected_f1(
    votes: Votes, posterior: Posterior, chosen: NDArray[np.int64]
) -> NDArray[np.float64]:
    """float64[q]: Σ_i w_i · F1(chosen set, label set of neighbour i); two empty sets agree."""
    q = len(posterior)
    m = np.bincount(votes.candidate_image[chosen], minlength=q)
    is_chosen = np.zeros(len(votes.candidate_cui), bool)
    is_chosen[chosen] = True
    hit = is_chosen[votes.vote_candidate]
    image = votes.candidate_image[votes.vote_candidate[hit]]
    gain = votes.vote_weight[hit] * 2.0 / (votes.vote_size[hit] + m[image])
    earned = np.bincount(image, gain, q)
    return np.where(m == 0, votes.empty, earned)


def _top(
    votes: Votes, posterior: Posterior, values: NDArray[np.float64], size: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """bool[c]: the `size[i]` candidates of each image i that come first in `_best_first`."""
    q = len(posterior)
    values = np.round(values, _DECIMALS)
    # Only candidates that reach the last value taken need to be put in order.
    place = _place(votes, q)
    table = np.full((q, int(place[1].max(initial=0)) + 1), -np.inf)
    table[place] = values
    table.sort(axis=1)
    size = np.minimum(size, table.shape[1])
    least = np.where(size > 0, table[np.arange(q), -size], np.inf)
    reach = np.flatnonzero(values >= least[votes.candidate_image])
    chosen = np.zeros(len(values), bool)
    chosen[_best_first(votes, posterior, values, reach, size)] = True
    return chosen


def _place(votes: Votes, q: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Row and column of each candidate in a table with a row for each of q images."""
    counts = np.bincount(votes.candidate_image, minlength=q)
    starts = np.cumsum(counts) - counts
    column = np.arange(len(votes.candidate_image)) - starts[votes.candidate_image]
    return votes.candidate_image, column


def _best_first(
    votes: Votes,
    posterior: Posterior,
    values: NDArray[np.float64],
    candidates: NDArray[np.int64],
    most: NDArray[np.int64] | int,
) -> NDArray[np.int64]:
    """`candidates` by image, then value, training frequency and CUI; at most `most` an image."""
    image, cui = votes.candidate_image[candidates], votes.candidate_cui[candidates]
    frequency = posterior.labels.frequencies[cui]
    # The vocabulary ascends, so its positions order as the CUIs do.
    order = np.lexsort((cui, -frequency, -np.round(values[candidates], _DECIMALS), image))
    counts = np.bincount(image, minlength=len(posterior))
    place = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    return candidates[order[place < np.repeat(np.broadcast_to(most, len(counts)), counts)]]
