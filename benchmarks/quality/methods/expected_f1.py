"""The sets with the highest expected F1, from marginal probabilities."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from benchmarks.quality.labels import top

_IMAGES_AT_ONCE = 64  # bounds the memory of the distributions


def expected_f1_sets(
    probabilities: NDArray[np.floating], most: int = 256
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """The sets with the highest expected F1 if concepts occur independently of each other.

    The best set of size k is that of the k most probable concepts, so only k is to be found. With
    S the number of true concepts among the first k and T that among the others,
    E_k = sum over i and j of P(S = i) P(T = j) 2i / (k + i + j). P(S) is a Poisson-binomial
    distribution, built up by dynamic programming; s(k, a) = E[1 / (a + T)] obeys
    s(k - 1, a) = p_k s(k, a + 1) + (1 - p_k) s(k, a) with s(n, a) = 1 / a, which makes it exact in
    O(n^2) an image (Ye, Chai, Lee, Chieu 2012, "Optimizing F-measures: a tale of two approaches",
    algorithm 1). The empty set earns the probability that there is no concept.

    Args:
        probabilities: float[n, c].
        most: Concepts of an image that are considered, the most probable ones; the others count as
            absent. Exact for vocabularies up to this size.

    Returns:
        bool[n, c] and float64[n], the sets and their expected F1.
    """
    chosen = np.zeros(probabilities.shape, bool)
    expected = np.zeros(len(probabilities))
    for start in range(0, len(probabilities), _IMAGES_AT_ONCE):
        block = slice(start, start + _IMAGES_AT_ONCE)
        part = probabilities[block].astype(np.float64)
        earned = _expected_of_sizes(-np.sort(-part, axis=1)[:, :most])
        size = np.argmax(np.round(earned, 12), axis=1)
        chosen[block] = top(part, size)
        expected[block] = np.take_along_axis(earned, size[:, None], axis=1)[:, 0]
    return chosen, expected


def _expected_of_sizes(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """float64[q, n + 1]: E_k for k = 0..n, of descending probabilities float64[q, n]."""
    q, n = p.shape
    counts = [np.ones((q, 1))]  # counts[k][:, i] = P(S = i) among the first k
    for k in range(n):
        grown = np.zeros((q, k + 2))
        grown[:, :-1] = counts[k] * (1 - p[:, k, None])
        grown[:, 1:] += counts[k] * p[:, k, None]
        counts.append(grown)
    earned = np.zeros((q, n + 1))
    inverse = np.broadcast_to(1.0 / np.arange(1, 2 * n + 1), (q, 2 * n))  # s(k, a) at a - 1
    for k in range(n, 0, -1):
        i = np.arange(1, k + 1)
        earned[:, k] = (2 * i * counts[k][:, 1:] * inverse[:, k + i - 1]).sum(axis=1)
        p_k = p[:, k - 1, None]
        inverse = p_k * inverse[:, 1:] + (1 - p_k) * inverse[:, :-1]
    earned[:, 0] = np.prod(1 - p, axis=1)
    return earned
