"""Approximate search by FAISS: a structure finds candidates, which are then compared in full."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from index.backends.exact import ranked, similarities
from index.backends.flat import MARGIN, FlatIndex
from index.backends.library import import_faiss
from index.backends.protocol import Neighbors, check_search, check_vectors, no_neighbors
from index.backends.reader import RowReader
from index.errors import IndexProblem

ApproximateKind = Literal["hnsw", "ivf", "compressed"]

TUNED_K = 50  # neighbours that effort and width are chosen for
_QUERIES_AT_ONCE = 256


class ApproximateIndex:
    """Candidates from a FAISS structure, then full comparison with the vectors themselves.

    - "hnsw": a graph of neighbours (Malkov and Yashunin 2018) over vectors of 8 bits a number;
    - "ivf": inverted lists (Sivic and Zisserman 2003) of vectors of 1 bit a number (RaBitQ, Gao and
      Long 2024);
    - "compressed": the same with 4 bits a number, which are enough to rank by: the vectors are read
      for the k that are returned alone.

    Where a structure finds fewer than k rows for a query, all rows are compared instead.

    Args:
        kind: One of these.
        structure: A FAISS index of `vectors`, in their order.
        vectors: float32[n, dim], each of unit norm, C-contiguous; may be mapped from disk.
        effort: How many lists ("ivf", "compressed") or candidates ("hnsw") a search visits.
        width: How many times k (at least 50) candidates are compared in full.

    Raises:
        IndexProblem: The structure is not one of these vectors.
    """

    def __init__(
        self,
        kind: ApproximateKind,
        structure: Any,
        vectors: NDArray[np.float32],
        *,
        effort: int,
        width: int,
    ) -> None:
        check_vectors(vectors)
        if (structure.ntotal, structure.d) != vectors.shape:
            raise IndexProblem(
                f"The structure for searching holds {structure.ntotal} rows of {structure.d} "
                f"dimensions, the vectors are {vectors.shape[0]} of {vectors.shape[1]}."
            )
        self.kind: str = kind
        self._faiss = import_faiss()
        self._structure = structure
        self._vectors = vectors
        self._flat = FlatIndex(vectors)
        self._width = width
        # What is for collections larger than memory must not map them into it, row by row.
        mapped = kind == "compressed" and isinstance(vectors, np.memmap)
        self._reader = RowReader(vectors) if mapped else None  # type: ignore[arg-type]
        set_effort(structure, effort)

    @property
    def dim(self) -> int:
        """Length of the vectors."""
        return int(self._vectors.shape[1])

    def __len__(self) -> int:
        return len(self._vectors)

    def search(self, queries: NDArray[np.float32], k: int) -> Neighbors:
        """About the k nearest rows of each query float32[q, dim] of unit norm.

        Their similarities are exact, and do not depend on the other queries of the call.

        Raises:
            IndexProblem: As `VectorIndex.search`.
        """
        queries = check_search(queries, self.dim, k)
        k = min(k, len(self))
        if k == 0 or len(queries) == 0:
            return no_neighbors(len(queries), k)
        rows = np.empty((len(queries), k), np.int64)
        found = np.empty((len(queries), k), np.float32)
        for start in range(0, len(queries), _QUERIES_AT_ONCE):
            some = slice(start, start + _QUERIES_AT_ONCE)
            part = self._search(queries[some], k)
            rows[some], found[some] = part.rows, part.similarities
        return Neighbors(rows, found)

    def _search(self, queries: NDArray[np.float32], k: int) -> Neighbors:
        width = max(k, TUNED_K) * self._width + MARGIN
        candidates = self._structure.search(queries, min(width, len(self)))[1]
        there = candidates >= 0  # FAISS's "none" is -1, which Python would take for the last row
        few = np.flatnonzero(there.sum(axis=1) < k)
        if len(few):
            whole = self._flat.search(queries[few], k)
            candidates[few, :k], candidates[few, k:] = whole.rows, -1
            there = candidates >= 0
        of = np.nonzero(there)[0]
        rows = candidates[there]
        if self._reader is not None:
            exact = similarities(self._reader.read(rows), np.arange(len(rows)), queries, of)
        else:
            exact = similarities(self._vectors, rows, queries, of)
        return ranked(rows, exact, of, len(queries), k)


def set_effort(structure: Any, effort: int) -> None:
    """How much of a FAISS index its searches visit from now on."""
    faiss = import_faiss()
    try:
        lists = faiss.extract_index_ivf(structure)
        lists.nprobe = min(effort, lists.nlist)
    except RuntimeError:  # no inverted lists
        faiss.downcast_index(structure).hnsw.efSearch = effort
