"""Approximate search by FAISS: a structure finds candidates, which are then compared in full."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from index.search.base import Neighbors
from index.search.flat import MARGIN, FlatIndex
from index.search.library import import_faiss
from index.search.over_vectors import OverVectors, check_structure
from index.search.reader import RowReader
from index.search.rerank import ranked, similarities

ApproximateKind = Literal["hnsw", "ivf", "compressed"]

TUNED_K = 50  # neighbours that effort and width are chosen for
_QUERIES_AT_ONCE = 256


class ApproximateIndex(OverVectors):
    """Candidates from a FAISS structure, then full comparison with the vectors themselves.

    - "hnsw": a graph of neighbours (Malkov and Yashunin 2018) over vectors of 8 bits a number;
    - "ivf": inverted lists (Sivic and Zisserman 2003) of vectors of 1 bit a number (RaBitQ, Gao and
      Long 2024);
    - "compressed": the same with 4 bits a number, which are enough to rank by: the vectors are read
      for the k that are returned alone.

    Where a structure finds fewer than k rows for a query, all rows are compared instead. The
    similarities are exact.

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
        super().__init__(vectors)
        check_structure(structure, vectors)
        self.kind: str = kind
        self._structure = structure
        self._flat = FlatIndex(vectors)
        self._width = width
        # What is for collections larger than memory must not map them into it, row by row.
        mapped = kind == "compressed" and isinstance(vectors, np.memmap)
        self._reader = RowReader(vectors) if mapped else None  # type: ignore[arg-type]
        set_effort(structure, effort)

    def _at_once(self, k: int) -> int:
        return _QUERIES_AT_ONCE

    def _search(self, queries: NDArray[np.float32], k: int) -> Neighbors:
        wanted = min(candidates_for(k, self._width), len(self))
        candidates = self._structure.search(queries, wanted)[1]
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


def candidates_for(k: int, width: int) -> int:
    """How many candidates of a structure are compared in full for k neighbours."""
    return max(k, TUNED_K) * width + MARGIN


def set_effort(structure: Any, effort: int) -> None:
    """How much of a FAISS index its searches visit from now on."""
    faiss = import_faiss()
    try:
        lists = faiss.extract_index_ivf(structure)
        lists.nprobe = min(effort, lists.nlist)
    except RuntimeError:  # no inverted lists
        faiss.downcast_index(structure).hnsw.efSearch = effort
