"""Exact search by a scan of short vectors that bounds every similarity from above.

Turned to its principal axes, a vector x of unit norm is (a, b), where the few numbers of `a` carry
most of it. Then, by Cauchy and Schwarz, q.x = qa.a + qb.b <= qa.a + |qb||b|, which is one inner
product of (qa, |qb|) and (a, |b|): a matrix product over a fraction of the numbers bounds the
similarity of every row. Rows whose bound does not reach the k-th best similarity that is known
already are left out, the few others are compared in full. So the result is that of comparing all
rows, always; how few are compared in full depends on the vectors, and `fit_axes` measures it.

The bound is that of FEXIPRO (Li, Chan, Yiu and Mamoulis, SIGMOD 2017), made a matrix product.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import cached_property
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from index.errors import IndexProblem
from index.rows import Neighbors
from index.search.base import (
    ROUNDING,
    ArrayIndex,
    import_faiss,
    not_finite,
    ranked,
    similarities,
)
from index.search.blas import one_blas_thread
from index.search.scan_table import ScanTable

T = TypeVar("T")
Floats = NDArray[np.float32]

_BATCH = 256
_BOUNDS_AT_ONCE = 2**20  # float32: what a core's cache holds
_SAMPLE = (8192, 65536)  # least and most rows that tell what is to be reached
_BLOCK = 16  # rows that stand behind one bound where the highest bounds are looked for
_SEEDS = 3  # times as many rows as needed have the highest bounds and are compared in full
_FEW_ROWS = 2048  # are not worth a second thread
_ALL_SET = np.uint64(0x0101010101010101)  # eight bool


class ScanIndex(ArrayIndex):
    """Exact search: a scan of short vectors, then full comparison of the rows that may belong.

    Rows are spread over the threads that FAISS may use (OMP_NUM_THREADS), for a lone query too.

    Args:
        vectors: float32[n, dim], each of unit norm, C-contiguous; may be mapped from disk.
        table: Of these vectors.

    Raises:
        IndexProblem: The table is not one of these vectors.
    """

    kind = "scan"

    def __init__(self, vectors: Floats, table: ScanTable) -> None:
        super().__init__(vectors)
        if (len(table.table), len(table.axes)) != vectors.shape:
            raise IndexProblem("The table for scanning is not of these vectors.")
        self._table = table
        self._faiss = import_faiss()
        self._threads = int(self._faiss.omp_get_max_threads())
        self._sample = _Sample(table.table)

    def _batch_size(self, k: int) -> int:
        return _BATCH

    def _search(self, queries: Floats, k: int) -> Neighbors:
        # With its own threads sharing the rows, each product has one.
        with one_blas_thread if self._threads > 1 else nullcontext():
            return _Scan(self, queries, k).run()

    def _in_parallel(self, work: Callable[..., T], start: int, stop: int, given: object) -> list[T]:
        """Results of `work(from, to, given)` for equal parts of the rows from start to stop."""
        parts = self._threads if stop - start > _FEW_ROWS else 1
        if parts == 1:
            return [work(start, stop, given)]
        edges = [start + (stop - start) * part // parts for part in range(parts + 1)]
        return list(self._pool.map(work, edges[:-1], edges[1:], [given] * parts))

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        # A thread's share is one thread's work: FAISS would start others for it.
        return ThreadPoolExecutor(
            self._threads, "scan", initializer=self._faiss.omp_set_num_threads, initargs=(1,)
        )


class _Pairs(NamedTuple):
    """Rows that were compared in full with a query: int64[p], int64[p], float32[p]."""

    rows: NDArray[np.int64]
    of: NDArray[np.int64]
    found: Floats

    def best(self, queries: int, k: int) -> Neighbors:
        """The k best of each query."""
        return ranked(self.rows, self.found, self.of, queries, k)


class _Scan:
    """One pass of at most 256 queries over the table."""

    def __init__(self, index: ScanIndex, queries: Floats, k: int) -> None:
        self._index, self._queries, self._k = index, queries, k
        self._short = np.ascontiguousarray(index._table.shorten(queries).T)

    def run(self, rank: int | None = None) -> Neighbors:
        """The neighbours of all queries.

        Args:
            rank: Sample rank whose similarity becomes the pruning threshold. None picks a rank
                that only rarely leaves fewer than k rows; those queries are scanned again with
                rank=k.
        """
        table, sample, k = self._index._table.table, self._index._sample, self._k
        n, q = len(table), len(self._queries)
        if n * q <= _BOUNDS_AT_ONCE or _SEEDS * k > len(sample.rows):
            bounds = self._index._in_parallel(self._bounds, 0, n, table)
            least = self._reached(bounds, np.arange(n), k)
            found = [self._compare(part, rows, least) for part, rows in bounds]
            return _joined(found).best(q, k)
        rank = rank or _rank_in_sample(len(sample.rows) / n, k)
        bounds = self._index._in_parallel(self._bounds, 0, len(sample.rows), sample.table)
        least = self._reached(bounds, sample.rows, rank)
        pairs = _joined(self._index._in_parallel(self._of_rows, 0, n, least))
        few = np.flatnonzero(np.bincount(pairs.of, minlength=q) < k)
        if len(few) and rank < k:
            again = _Scan(self._index, self._queries[few], k).run(rank=k)
            kept = ~np.isin(pairs.of, few)
            pairs = _joined(
                [
                    _Pairs(pairs.rows[kept], pairs.of[kept], pairs.found[kept]),
                    _Pairs(again.rows.ravel(), np.repeat(few, k), again.similarities.ravel()),
                ]
            )
        return pairs.best(q, k)

    def _bounds(self, start: int, stop: int, table: Floats) -> tuple[Floats, NDArray[np.int64]]:
        """float32[m, q] and the places of these rows in `table`."""
        return table[start:stop] @ self._short, np.arange(start, stop)

    def _reached(
        self,
        bounds: Sequence[tuple[Floats, NDArray[np.int64]]],
        rows: NDArray[np.int64],
        rank: int,
    ) -> Floats:
        """float32[q]: a tight lower bound on each query's rank-th best similarity among some rows.

        Args:
            bounds: Upper bounds of their similarities.
            rows: int64[m], the rows.
            rank: At most m.
        """
        highest = [_block_maxima(part) for part, _ in bounds]
        blocks, wanted = sum(map(len, highest)), _SEEDS * rank
        least = np.full(len(self._queries), -np.inf, np.float32)
        if wanted <= blocks:
            joined = np.ascontiguousarray(np.concatenate(highest).T)
            least = np.partition(joined, blocks - wanted, axis=1)[:, blocks - wanted]
        found = [self._compare(part, rows[places], least, True) for part, places in bounds]
        return _joined(found).best(len(self._queries), rank).similarities[:, -1]

    def _of_rows(self, start: int, stop: int, least: Floats) -> _Pairs:
        """Rows from `start` to `stop` whose similarity may be `least`."""
        table = self._index._table.table
        tile = max(_BOUNDS_AT_ONCE // len(self._queries), 1)
        shape = min(tile, stop - start), len(self._queries)
        bounds, below = np.empty(shape, np.float32), np.empty(shape, bool)
        found = []
        for low in range(start, stop, tile):
            some = table[low : min(low + tile, stop)]
            np.matmul(some, self._short, out=bounds[: len(some)])
            rows = np.arange(low, low + len(some))
            found.append(self._compare(bounds[: len(some)], rows, least, below=below))
        return _joined(found)

    def _compare(
        self,
        bounds: Floats,
        rows: NDArray[np.int64],
        least: Floats,
        unchecked: bool = False,
        below: NDArray[np.bool_] | None = None,
    ) -> _Pairs:
        """Compare in full those `rows` whose bounds reach `least`.

        Args:
            bounds: float32[m, q].
            rows: int64[m].
            least: float32[q].
            unchecked: Keep also those whose similarity turns out to be less.
            below: bool[m or more, q] to work in; fresh memory costs as much as the comparison.
        """
        least = least - np.float32(ROUNDING)
        if below is None:
            below = np.empty(bounds.shape, bool)
        # NaN is compared, too.
        place, of = _not_set(np.less(bounds, least, out=below[: len(bounds)]))
        row = rows[place]
        found = similarities(self._index._vectors, row, self._queries, of)
        if not np.isfinite(found).all():
            raise not_finite()
        if unchecked:
            return _Pairs(row, of, found)
        kept = found >= least[of]
        return _Pairs(row[kept], of[kept], found[kept])


class _Sample:
    """Some rows of a table, spread evenly."""

    def __init__(self, table: Floats) -> None:
        least, most = _SAMPLE
        wanted = min(max(len(table) // 8, least), most)
        self.rows = np.arange(0, len(table), max(1, len(table) // wanted))
        self.table = np.ascontiguousarray(table[self.rows])


def _rank_in_sample(share: float, k: int) -> int:
    """The sample rank whose similarity at least k of all rows reach, in all but rare cases.

    The rank of the k-th best of all in the sample is about binomial, with mean share * k; three
    standard deviations more are asked for.
    """
    mean = share * k
    return min(k, math.ceil(mean + 3 * math.sqrt(mean) + 4))


def _joined(pairs: Sequence[_Pairs]) -> _Pairs:
    return _Pairs(*(np.concatenate(parts) for parts in zip(*pairs, strict=True)))


def _block_maxima(bounds: Floats) -> Floats:
    """float32[m // 16, q]: the largest bound of every 16 rows."""
    whole = len(bounds) // _BLOCK * _BLOCK
    maxima: Floats = bounds[:whole].reshape(-1, _BLOCK, bounds.shape[1]).max(axis=1)
    return maxima


def _not_set(mask: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Row and column, int64[p] each, of every element of a C-contiguous mask that is not set."""
    flat = mask.reshape(-1)
    whole = len(flat) // 8 * 8
    # Nearly all are set: eight of them are looked at together.
    words = np.flatnonzero(flat[:whole].view(np.uint64) != _ALL_SET)
    within = np.flatnonzero(~flat[:whole].reshape(-1, 8)[words].reshape(-1))
    places = words[within >> 3] * 8 + (within & 7)
    places = np.concatenate([places, whole + np.flatnonzero(~flat[whole:])])
    rows, columns = np.divmod(places, mask.shape[1])
    return rows, columns
