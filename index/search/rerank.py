"""Similarities that do not depend on what else is computed, and the order that follows from them.

Every kind of index finds candidates in its own way and leaves their order to this module, so that
all of them give the same neighbours with the same similarities, bit for bit, for the candidates
that they share.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from index.search.base import Neighbors
from index.search.library import import_faiss

# Two ways to add up the same inner product differ by less than this.
ROUNDING = 1e-5


def similarities(
    vectors: NDArray[np.float32],
    rows: NDArray[np.int64],
    queries: NDArray[np.float32],
    of: NDArray[np.int64],
) -> NDArray[np.float32]:
    """float32[p]: the inner product of vectors[rows[i]] and queries[of[i]], pair by pair.

    Each pair is added up by itself in a fixed order, as a matrix product would not: a pair has the
    same similarity in whatever company. On one thread if the caller asked FAISS for one.

    Args:
        vectors: float32[n, dim], C-contiguous.
        rows: int64[p], within n.
        queries: float32[q, dim], C-contiguous.
        of: int64[p], within q.
    """
    result = np.empty(len(rows), np.float32)
    if len(rows) == 0:
        return result
    faiss = import_faiss()
    rows, of = np.ascontiguousarray(rows), np.ascontiguousarray(of)
    for values, n in ((rows, len(vectors)), (of, len(queries))):
        if values.min() < 0 or values.max() >= n:  # FAISS would read elsewhere in memory
            raise IndexError(f"a row outside 0..{n - 1}")
    faiss.pairwise_indexed_inner_product(
        vectors.shape[1],
        len(rows),
        faiss.swig_ptr(vectors),
        faiss.swig_ptr(rows),
        faiss.swig_ptr(queries),
        faiss.swig_ptr(of),
        faiss.swig_ptr(result),
    )
    return result


def ranked(
    rows: NDArray[np.int64],
    found: NDArray[np.float32],
    of: NDArray[np.int64],
    queries: int,
    k: int,
) -> Neighbors:
    """The k best pairs of each query, most similar first, equal ones by row.

    Args:
        rows: int64[p].
        found: float32[p], their similarities.
        of: int64[p], which query; each has at least k pairs.
        queries: How many there are.
        k: How many pairs of each are kept.
    """
    # One whole number a pair, whose order is that of the queries and, within one, of the
    # similarities: float32 without its sign has the order of its bits.
    bits = (found + np.float32(0)).view(np.int32).astype(np.int64)
    keys = (of << 33) - np.where(bits < 0, -(2**31) - bits, bits)
    order = np.argsort(keys)
    same = np.diff(keys[order]) == 0
    if same.any():
        tied = np.flatnonzero(np.append(same, False) | np.append(False, same))
        some = order[tied]
        order[tied] = some[np.lexsort((rows[some], keys[some]))]
    starts = np.searchsorted(of[order], np.arange(queries))
    best = order[starts[:, None] + np.arange(k)]
    return Neighbors(rows[best], found[best])
