"""The set of concepts with the highest expected F1 under the votes of neighbours."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from annotator.knn.posterior import Votes

DECIMALS = 12  # smaller differences are ties
_SLACK = 1e-9  # far above the rounding of a sum, far below what sizes differ by
_GRID = (0.5, 1.0, 2.0, 4.0, 8.0)  # sizes that are tried first, in mean sizes of a label set
_IMAGES_OF_A_TABLE = 16  # with about as many candidates and sizes


def best_sets(
    votes: Votes, most: int | None = None
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Maximise the expected F1 under the posterior exactly.

    With P[j, s] the weight of neighbours with concept j and s concepts in all, concept j in a set
    of size m contributes Δ[j, m] = Σ_s P[j, s] · 2 / (s + m). The best set of size m consists of
    the m largest Δ[·, m] and has the expected F1 E_m, their sum; the empty set has p0.
    (Dembczynski, Waegeman, Cheng, Hüllermeier 2011, "An exact algorithm for F-measure
    maximization"; Waegeman et al. 2014.)

    Sizes are not capped at that of the largest neighbour: of {a} and {b} at one half each, {a, b}
    has 2/3 and {a} 1/2.

    Args:
        votes: Votes of q images.
        most: Maximum size of a set; None for any.

    Returns:
        The size m of the best set of each image, int64[q], and Δ[j, m] of each candidate,
        float64[c], whose m largest make up the set; 0 for candidates that `_narrow` leaves out.
    """
    if len(votes.candidate_cui) == 0:
        return np.zeros(len(votes.empty), np.int64), np.zeros(0)
    return _compare(votes, _narrow(votes, most))


@dataclass(frozen=True)
class _Left:
    """What may be best.

    Attributes:
        candidates: int64[k], ascending.
        first: int64[q], the smallest size of a set.
        last: int64[q], the largest one.
    """

    candidates: NDArray[np.int64]
    first: NDArray[np.int64]
    last: NDArray[np.int64]


def _narrow(votes: Votes, most: int | None) -> _Left:
    """Leave out sizes and candidates that cannot be those of the best set.

    E_m is computed for a grid of sizes, which bounds it for all others, since Δ falls with m and is
    convex in it: between neighbours a < b of the grid it is below the chord, so that with C_a[m]
    the sum of the m largest Δ[·, a]

        E_m <= (C_a[m] (b - m) + C_b[m] (m - a)) / (b - a).

    Outside the grid, Δ[j, m] (s + m) is at most Δ[j, b] (s + b) for m below b and the smallest s,
    or for m above b and the largest s.

    A size is left out if its bound is below the best value of the grid. A candidate is if it
    cannot reach the m largest Δ[·, m] for any size that is left: if its Δ at the grid's size below
    them is less than the m-th largest one at the grid's size above, for the largest m that is left.

    Args:
        votes: Votes of q images, on at least one candidate.
        most: As for `best_sets`.
    """
    q, image = len(votes.empty), votes.candidate_image
    counts = np.bincount(image, minlength=q)
    width = int(counts.max())
    limit = width if most is None else min(width, most)
    place = np.arange(len(image)) + (np.arange(q) * width - np.cumsum(counts) + counts)[image]
    cell = place[votes.vote_candidate]
    smallest, largest = int(votes.vote_size.min()), int(votes.vote_size.max())
    usual = float(votes.vote_weight.sum()) / q
    grid = np.unique([min(max(1, round(part * usual)), limit) for part in _GRID])
    delta = np.empty((len(grid), q * width))  # padded with zeros, which add nothing to a sum
    top = np.empty((len(grid), q, limit))  # the largest first
    for i, size in enumerate(grid.tolist()):
        factor = 2.0 / (np.arange(largest + 1) + size)
        delta[i] = np.bincount(cell, votes.vote_weight * factor[votes.vote_size], q * width)
        top[i] = np.sort(delta[i].reshape(q, width), axis=1)[:, : -limit - 1 : -1]
    sums = top.cumsum(axis=2)
    found = sums[np.arange(len(grid)), :, grid - 1].max(axis=0)

    m = np.arange(1, limit + 1)
    is_below, is_above = m < grid[0], m > grid[-1]
    below = np.maximum(np.searchsorted(grid, m, side="right") - 1, 0)
    above = np.minimum(np.searchsorted(grid, m), len(grid) - 1)
    a, b = grid[below], grid[above]
    part = (m - a) / np.maximum(b - a, 1)
    share_a = np.where(is_above, (largest + a) / (largest + m), 1 - part)
    share_b = np.where(is_below, (smallest + b) / (smallest + m), part)
    bound = np.where(is_below, 0.0, share_a) * sums[below, :, m - 1].T
    bound += np.where(is_above, 0.0, share_b) * sums[above, :, m - 1].T
    left = (bound >= np.maximum(found, votes.empty)[:, None] - _SLACK) & (m <= counts[:, None])
    first, last = left.argmax(axis=1), limit - 1 - left[:, ::-1].argmax(axis=1)

    needed = top[above[last], np.arange(q), last]
    needed *= np.where(is_above, (smallest + grid[-1]) / (smallest + m), 1.0)[last]
    needed = np.where(left.any(axis=1), needed - _SLACK, np.inf)
    reached = delta[below[first][image], place]
    reached *= np.where(is_below, share_b, 1.0)[first][image]
    candidates = np.flatnonzero((reached >= needed[image]) & (reached > 0))
    return _Left(candidates, m[first], m[last])


def _compare(votes: Votes, left: _Left) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Compare the sets that are left, as `best_sets`.

    P[j, s] is laid out in tables of images, sizes s and candidates, each for some images that have
    about as much left.
    """
    q = len(votes.empty)
    size, values = np.zeros(q, np.int64), np.zeros(len(votes.candidate_cui))
    image = votes.candidate_image[left.candidates]
    counts = np.bincount(image, minlength=q)
    sizes = np.flatnonzero(np.bincount(votes.vote_size))
    column = np.cumsum(np.bincount(sizes)) - 1
    order = np.argsort(counts * (left.last - left.first + 1), kind="stable")
    order = order[counts[order] > 0]
    tables = [order[i : i + _IMAGES_OF_A_TABLE] for i in range(0, len(order), _IMAGES_OF_A_TABLE)]
    width = np.zeros(q, np.int64)
    for images in tables:
        width[images] = counts[images].max()
    start = np.zeros(q, np.int64)  # of each image in a row of all candidates, padded
    start[order] = np.cumsum(width[order]) - width[order]
    total = int(width.sum())
    slot = start[image] + np.arange(len(image)) - (np.cumsum(counts) - counts)[image]
    # Votes for the other candidates are counted in a cell of their own, the last one.
    cell, step = np.full(len(values), total * len(sizes)), np.zeros(len(values), np.int64)
    cell[left.candidates] = start[image] * (len(sizes) - 1) + slot
    step[left.candidates] = width[image]
    cell = cell[votes.vote_candidate] + step[votes.vote_candidate] * column[votes.vote_size]
    weight = np.bincount(cell, votes.vote_weight, total * len(sizes) + 1)

    value = np.zeros(total)
    for images in tables:
        n, wide = len(images), int(width[images[0]])
        begin, each = int(start[images[0]]), np.arange(n)
        table = weight[begin * len(sizes) : (begin + n * wide) * len(sizes)]
        first, last = left.first[images, None], left.last[images, None]
        m = first + np.arange(int((last - first).max()) + 1)
        delta = 2.0 / (sizes + m[:, :, None]) @ table.reshape(n, len(sizes), wide)
        delta = np.round(delta, DECIMALS)
        largest = np.sort(delta, axis=2)
        largest *= np.arange(wide) >= wide - m[:, :, None]
        earned = np.round(largest.sum(axis=2), DECIMALS)
        earned[m > last] = 0.0
        best = earned.argmax(axis=1)
        highest, empty = earned[each, best], np.round(votes.empty[images], DECIMALS)
        size[images] = np.where((highest > 0) & (highest >= empty), m[each, best], 0)
        value[begin : begin + n * wide] = delta[each, best].ravel()
    values[left.candidates] = value[slot]
    return size, values
