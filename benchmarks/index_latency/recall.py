"""Exact neighbours, computed apart from every system that is measured, and recall by distance."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

# Rows whose similarity differs by no more than this are as near as each other: float32 inner
# products of unit vectors are not more exact.
TIE = 1e-6
_ROWS_AT_ONCE = 32768
_BEYOND = 16  # rows kept beyond k, since float32 finds them and float64 ranks them


def exact_neighbours(
    vectors: Floats, queries: Floats, k: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The k nearest rows of each query, and their similarities in double precision.

    Args:
        vectors: float32[n, dim] of unit norm; may be mapped from disk, and is read once.
        queries: float32[q, dim] of unit norm.
        k: At most n.

    Returns:
        int64[q, k] and float64[q, k], most similar first, equal ones by row.
    """
    keep = min(k + _BEYOND, len(vectors))
    best = np.empty((len(queries), 0), np.float32)
    rows = np.empty((len(queries), 0), np.int64)
    for start in range(0, len(vectors), _ROWS_AT_ONCE):
        found = queries @ np.asarray(vectors[start : start + _ROWS_AT_ONCE]).T
        numbers = np.broadcast_to(np.arange(start, start + found.shape[1]), found.shape)
        best, rows = np.hstack([best, found]), np.hstack([rows, numbers])
        kept = np.argpartition(-best, min(keep, best.shape[1]) - 1, axis=1)[:, :keep]
        best, rows = np.take_along_axis(best, kept, 1), np.take_along_axis(rows, kept, 1)
    rows.sort(axis=1)
    exact = similarities(vectors, queries, rows)
    order = np.argsort(-exact, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(rows, order, 1), np.take_along_axis(exact, order, 1)


def similarities(vectors: Floats, queries: Floats, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """float64[q, k]: inner products of queries float32[q, dim] and their rows int64[q, k].

    A row of -1 (nothing found) has a similarity of minus infinity.
    """
    result = np.empty(rows.shape)
    for i, some in enumerate(rows):
        result[i] = vectors[np.maximum(some, 0)].astype(np.float64) @ queries[i].astype(np.float64)
    result[rows < 0] = -np.inf
    return result


def recall(
    rows: NDArray[np.int64], found: NDArray[np.float64], exact: NDArray[np.float64]
) -> float:
    """The mean share of the k places whose row is as near as the k-th nearest, at least.

    By distance: where several rows are equally near, it does not matter which of them are found. A
    row that is returned twice counts once.

    Args:
        rows: int64[q, k], what a system found; -1 for nothing.
        found: float64[q, k], their similarities, computed again.
        exact: float64[q, k], those of the nearest, most similar first.
    """
    good = (found >= exact[:, -1:] - TIE) & (rows >= 0)
    order = np.argsort(rows, axis=1, kind="stable")
    ordered = np.take_along_axis(rows, order, 1)
    good = np.take_along_axis(good, order, 1)
    good[:, 1:] &= ordered[:, 1:] != ordered[:, :-1]
    return float(good.sum(axis=1).mean() / exact.shape[1])
