"""Exact search by FAISS over vectors that stay where they are."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from index.rows import Neighbors
from index.search.base import (
    ROUNDING,
    ArrayIndex,
    import_faiss,
    not_finite,
    ranked,
    similarities,
)

# FAISS finds candidates; which of those that are equal up to rounding it finds depends on the other
# queries of the call. So this many are found beyond k, and where even the last of them is no more
# than rounding less similar than the k-th, all rows are compared instead.
MARGIN = 16
_BATCH = 1024


class FlatIndex(ArrayIndex):
    """Exact search by FAISS over vectors that stay where they are, memory-mapped if on disk.

    The order and the similarities of a query do not depend on the other queries of the call: FAISS
    finds the candidates, whose similarities are then computed again, one by one. Rows with the same
    vector have the same similarity, and the first of them comes first.

    Args:
        vectors: float32[n, dim], each of unit norm, C-contiguous.
    """

    kind = "flat"

    def __init__(self, vectors: NDArray[np.float32]) -> None:
        super().__init__(vectors)
        self._faiss = import_faiss()

    def _batch_size(self, k: int) -> int:
        return _BATCH

    def _search(self, queries: NDArray[np.float32], k: int) -> Neighbors:
        width = min(k + MARGIN, len(self))
        approximate, found = self._faiss.knn(
            queries, self._vectors, width, metric=self._faiss.METRIC_INNER_PRODUCT
        )
        if found.min() < 0:  # FAISS's "none", which Python would take for the last row
            raise not_finite()
        of = np.repeat(np.arange(len(queries)), width)
        rows = found.ravel()
        result = ranked(rows, similarities(self._vectors, rows, queries, of), of, len(queries), k)
        if width < len(self):
            unsure = approximate[:, -1] > result.similarities[:, -1] - ROUNDING
            for i in np.flatnonzero(unsure):
                whole = self._compare_all(queries[i : i + 1], k)
                result.rows[i], result.similarities[i] = whole.rows[0], whole.similarities[0]
        return result

    def _compare_all(self, query: NDArray[np.float32], k: int) -> Neighbors:
        rows, of = np.arange(len(self)), np.zeros(len(self), np.int64)
        return ranked(rows, similarities(self._vectors, rows, query, of), of, 1, k)
