"""Approximate search: FAISS inverted lists find candidates, which are then compared in full."""

from __future__ import annotations

import math
import os
import weakref
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from index.errors import IndexProblem
from index.progress import track_rows
from index.rows import Neighbors
from index.sampling import sample_rows
from index.search.base import (
    ROUNDING,
    ArrayIndex,
    check_ann,
    import_faiss,
    not_finite,
    ranked,
    similarities,
)
from index.search.blas import faiss_threads
from index.search.flat import MARGIN, FlatIndex

IvfKind = Literal["ivf", "compressed"]

TUNED_K = 50  # neighbours that nprobe and k_factor are tuned for
_BATCH = 256
_ROWS_AT_ONCE = 32768
_LEAST_LIST = 40  # rows a list, or training warns that they are too few
_TRAINED = 64  # rows a list that it is trained on
_PROBES = 200
_K_FACTORS: Mapping[IvfKind, tuple[int, ...]] = {"ivf": (2, 4, 8, 16), "compressed": (1, 2, 4)}
# Cost of a visited row and of a candidate in nanoseconds, measured and rounded. Only the ratio
# matters.
_COSTS: Mapping[IvfKind, tuple[float, float]] = {
    "ivf": (30.0, 1500.0),
    "compressed": (40.0, 5000.0),
}


class IvfIndex(ArrayIndex):
    """Candidates from a FAISS index, then full comparison with the vectors themselves.

    - "ivf": inverted lists (Sivic and Zisserman 2003) of vectors of 1 bit a number (RaBitQ, Gao and
      Long 2024);
    - "compressed": the same with 4 bits a number, which rank well enough that the vectors are read
      for hardly more than the k rows that are returned.

    Where fewer than k candidates are found for a query, all rows are compared instead. The
    similarities are exact.

    Args:
        kind: One of these.
        ann: A FAISS index of `vectors`, in their order.
        vectors: float32[n, dim], each of unit norm, C-contiguous; may be mapped from disk.
        nprobe: Inverted lists that a search visits.
        k_factor: How many times k (at least 50) candidates are compared in full.

    Raises:
        IndexProblem: `ann` does not hold these vectors.
    """

    def __init__(
        self,
        kind: IvfKind,
        ann: Any,
        vectors: NDArray[np.float32],
        *,
        nprobe: int,
        k_factor: int,
    ) -> None:
        super().__init__(vectors)
        check_ann(ann, vectors)
        self.kind: str = kind
        self._ann = ann
        self._flat = FlatIndex(vectors)
        self._k_factor = k_factor
        # A collection larger than memory must not be mapped into it, row by row.
        mapped = kind == "compressed" and isinstance(vectors, np.memmap)
        self._reader = RowReader(vectors) if mapped else None  # type: ignore[arg-type]
        set_nprobe(ann, nprobe)

    def _batch_size(self, k: int) -> int:
        return _BATCH

    def _search(self, queries: NDArray[np.float32], k: int) -> Neighbors:
        # More threads than queries gain nothing, and wait for each other where cores are shared.
        with faiss_threads(len(queries)):
            return self._searched(queries, k)

    def _searched(self, queries: NDArray[np.float32], k: int) -> Neighbors:
        wanted = min(candidates_for(k, self._k_factor), len(self))
        candidates = self._ann.search(queries, wanted)[1]
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


class RowReader:
    """Reads single rows of a file of vectors without mapping it.

    A mapped row brings the pages around it into the process's memory, where they stay: some hundred
    queries would make as much of a large file resident as the machine has. Reading leaves nothing
    behind but what the system caches as it sees fit.

    Args:
        vectors: float32[n, dim], mapped from a file.

    Raises:
        OSError: The file is not there any more.
    """

    def __init__(self, vectors: np.memmap[tuple[int, ...], np.dtype[np.float32]]) -> None:
        self._dim, self._offset = vectors.shape[1], vectors.offset
        self._file = os.open(str(vectors.filename), os.O_RDONLY)
        weakref.finalize(self, os.close, self._file)

    def read(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """float32[m, dim] for rows int64[m].

        Raises:
            IndexProblem: The file has become shorter.
        """
        size = 4 * self._dim
        result = np.empty((len(rows), self._dim), np.float32)
        for place, row in enumerate(rows.tolist()):
            data = os.pread(self._file, size, self._offset + row * size)
            if len(data) != size:
                raise IndexProblem(
                    f"The vectors end before row {row}.", "Restore the index from a copy."
                )
            result[place] = np.frombuffer(data, "<f4")
        return result


def lists_for(n: int) -> int:
    """Number of inverted lists for n rows: about their square root, a power of two."""
    return int(max(1, min(2 ** round(math.log2(max(math.sqrt(n), 1))), n // _LEAST_LIST, 8192)))


def candidates_for(k: int, k_factor: int) -> int:
    """Number of candidates that are compared in full for k neighbours."""
    return max(k, TUNED_K) * k_factor + MARGIN


def set_nprobe(ann: Any, nprobe: int) -> None:
    """Set how many inverted lists the searches of a FAISS index visit from now on."""
    lists = import_faiss().extract_index_ivf(ann)
    lists.nprobe = min(nprobe, lists.nlist)


def train(factory: str, vectors: NDArray[np.float32]) -> Any:
    """A FAISS index with trained inverted lists and no rows, in the same state each time.

    Args:
        factory: FAISS's description of the index, with inverted lists.
        vectors: float32[n, dim], of which a sample is used.

    Raises:
        IndexProblem: They are not finite.
    """
    faiss = import_faiss()
    n, dim = vectors.shape
    ann = faiss.index_factory(dim, factory, faiss.METRIC_INNER_PRODUCT)
    lists = faiss.extract_index_ivf(ann)
    lists.cp.max_points_per_centroid = _TRAINED
    lists.cp.min_points_per_centroid = 1
    wanted = max(_TRAINED * lists.nlist, 65536)
    sample = np.ascontiguousarray(vectors[:: max(1, n // wanted)])
    if not np.isfinite(sample).all():
        raise not_finite()
    ann.train(sample)
    return ann


def build_ivf(kind: IvfKind, vectors: NDArray[np.float32]) -> Any:
    """The FAISS index of an `IvfIndex`, with all rows."""
    bits = {"ivf": "RaBitQfs", "compressed": "RaBitQfs4"}[kind]
    # A random rotation spreads what the bits have to say evenly over the numbers.
    ann = train(f"RR{vectors.shape[1]},IVF{lists_for(len(vectors))},{bits}", vectors)
    for part in track_rows(len(vectors), _ROWS_AT_ONCE, label="Indexing", unit="vectors"):
        ann.add(np.ascontiguousarray(vectors[part]))
    return ann


def tune(kind: IvfKind, ann: Any, vectors: NDArray[np.float32], target: float) -> dict[str, Any]:
    """The cheapest nprobe and k_factor that reach a recall, on rows of the index itself.

    Args:
        kind: Of the index.
        ann: As `build_ivf` returns.
        vectors: float32[n, dim].
        target: Share of the 50 nearest that a search is to find.

    Returns:
        Search parameters as the manifest holds them: "effort" is nprobe, "width" is k_factor.
    """
    n = len(vectors)
    k = min(TUNED_K, max(n - 1, 1))
    probes = sample_rows(n, _PROBES)
    queries = np.ascontiguousarray(vectors[probes])
    # A row finds itself: it is left out on both sides.
    exact = FlatIndex(vectors).search(queries, min(k + 1, n))
    kth = exact.similarities[:, -1] - ROUNDING
    lists = lists_for(n)
    row_cost, pair_cost = _COSTS[kind]
    # A quarter of the way from the target to everything: new images are harder than these.
    aim = target + 0.25 * (1 - target)
    trials: list[tuple[float, int, int, float]] = []
    for nprobe in _powers_to(lists):
        reached = any(recall >= aim for _, _, _, recall in trials)
        set_nprobe(ann, nprobe)
        widest = min(candidates_for(TUNED_K, max(_K_FACTORS[kind])), n)
        found = ann.search(queries, widest)[1]
        of, place = np.nonzero(found >= 0)
        few = np.bincount(of, minlength=len(probes)) < k  # for these a search compares all rows
        rows = found[of, place]
        good = similarities(vectors, rows, queries, of) >= kth[of]
        good &= rows != probes[of]
        for k_factor in _K_FACTORS[kind]:
            seen = good & (place < candidates_for(TUNED_K, k_factor))
            hits = np.minimum(np.bincount(of[seen], minlength=len(probes)), k)
            hits[few] = k
            cost = nprobe * (n / lists) * row_cost + k_factor * TUNED_K * pair_cost
            trials.append((cost, nprobe, k_factor, float(hits.mean()) / k))
        if reached or trials[-1][3] >= 1.0:
            break  # one list more might do with fewer candidates, two will not
    enough = [trial for trial in trials if trial[3] >= aim]
    _, nprobe, k_factor, recall = (
        min(enough) if enough else max(trials, key=lambda t: (t[3], -t[0]))
    )
    return {
        "effort": nprobe,
        "width": k_factor,
        "target_recall": target,
        "recall": round(recall, 4),
    }


def _powers_to(most: int) -> list[int]:
    """Powers of two below `most`, and `most`."""
    return sorted({min(2**i, most) for i in range(most.bit_length() + 1)})
