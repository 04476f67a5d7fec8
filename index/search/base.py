"""Interface and shared parts of vector indexes. Similarity is the inner product of unit vectors.

Every kind of index finds candidates in its own way and leaves their similarities and order to
`similarities` and `ranked`, so that all kinds give the same neighbours with the same similarities,
bit for bit, for the candidates that they share.
"""

from __future__ import annotations

import importlib.metadata
from abc import ABC, abstractmethod
from functools import cache
from types import ModuleType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from index.distribution import pip_install
from index.errors import IndexProblem
from index.rows import Neighbors

_FAISS_WHEELS = ("faiss-cpu", "faiss-gpu", "faiss-gpu-cuvs")
# Bound on the rounding difference between two sums of the same inner product of unit vectors.
ROUNDING = 1e-5


class VectorIndex(Protocol):
    """An index of vectors.

    Attributes:
        kind: Its name in the manifest and for `--index-type`.
    """

    kind: str

    @property
    def dim(self) -> int:
        """Length of the vectors."""
        ...

    def __len__(self) -> int: ...

    def search(self, queries: NDArray[np.float32], k: int) -> Neighbors:
        """The k nearest rows of each query float32[q, dim] of unit norm.

        Raises:
            IndexProblem: Queries of another length or not of unit norm; k below 1; vectors that are
                not finite.
        """
        ...


def check_vectors(vectors: NDArray[np.float32]) -> None:
    """Refuse an array that FAISS would read wrongly.

    Raises:
        IndexProblem: Not one C-contiguous float32[n, dim].
    """
    if vectors.ndim != 2 or vectors.dtype != np.float32 or not vectors.flags.c_contiguous:
        raise IndexProblem("Vectors must be one C-contiguous float32 array of two dimensions.")


def check_search(queries: NDArray[np.float32], dim: int, k: int) -> NDArray[np.float32]:
    """The queries of a search, C-contiguous.

    Raises:
        IndexProblem: They are not float32[q, dim] of unit norm, or k is below 1.
    """
    check_unit(queries, dim, "queries")
    if k < 1:
        raise IndexProblem(f"k must be at least 1, not {k}.")
    return np.ascontiguousarray(queries)


def check_unit(vectors: NDArray[np.float32], dim: int | None, what: str) -> None:
    """Refuse vectors that are not float32[n, dim] of unit norm.

    Raises:
        IndexProblem: They are not; says which row.
    """
    if vectors.dtype != np.float32 or vectors.ndim != 2:
        raise IndexProblem(
            f"The {what} must be float32[n, dim], not {vectors.dtype}{vectors.shape}."
        )
    if dim is not None and vectors.shape[1] != dim:
        raise IndexProblem(f"The {what} have {vectors.shape[1]} dimensions, the index has {dim}.")
    norms = np.einsum("nd,nd->n", vectors, vectors)
    bad = np.flatnonzero(~(np.abs(norms - 1) < 1e-3))
    if len(bad):
        raise IndexProblem(
            f"The {what} must be of unit norm; row {bad[0]} has norm {np.sqrt(norms[bad[0]]):.4g}.",
            "Divide each vector by its norm; a norm of nan is a vector that is not finite.",
        )


def no_neighbors(queries: int, k: int) -> Neighbors:
    """An empty result: there are no rows (k is 0) or no queries."""
    return Neighbors(np.empty((queries, k), np.int64), np.empty((queries, k), np.float32))


def not_finite() -> IndexProblem:
    """The error about vectors that have no similarity to anything."""
    return IndexProblem("The index holds vectors that are not finite.", "Build the index again.")


class ArrayIndex(ABC):
    """Base of the indexes over one array of vectors, which stays where it is.

    Args:
        vectors: float32[n, dim], each of unit norm, C-contiguous; may be mapped from disk.

    Raises:
        IndexProblem: They have another layout.
    """

    def __init__(self, vectors: NDArray[np.float32]) -> None:
        check_vectors(vectors)
        self._vectors = vectors

    @property
    def dim(self) -> int:
        """Length of the vectors."""
        return int(self._vectors.shape[1])

    def __len__(self) -> int:
        return len(self._vectors)

    def search(self, queries: NDArray[np.float32], k: int) -> Neighbors:
        """The k nearest rows of each query float32[q, dim] of unit norm, as the class says.

        Raises:
            IndexProblem: As `VectorIndex.search`.
        """
        queries = check_search(queries, self.dim, k)
        k = min(k, len(self))
        if k == 0 or len(queries) == 0:
            return no_neighbors(len(queries), k)
        size = self._batch_size(k)
        parts = [
            self._search(queries[start : start + size], k) for start in range(0, len(queries), size)
        ]
        return Neighbors(
            np.concatenate([part.rows for part in parts]),
            np.concatenate([part.similarities for part in parts]),
        )

    @abstractmethod
    def _batch_size(self, k: int) -> int:
        """Maximum number of queries per call of `_search`."""

    @abstractmethod
    def _search(self, queries: NDArray[np.float32], k: int) -> Neighbors:
        """Search for at least one query, C-contiguous, with k from 1 to n."""


def check_ann(ann: Any, vectors: NDArray[np.float32]) -> None:
    """Refuse a FAISS index of other vectors.

    Raises:
        IndexProblem: The number or the length of its vectors differs.
    """
    if (ann.ntotal, ann.d) != vectors.shape:
        raise IndexProblem(
            f"The FAISS index holds {ann.ntotal} rows of {ann.d} dimensions, the vectors are "
            f"{vectors.shape[0]} of {vectors.shape[1]}."
        )


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

    Raises:
        IndexProblem: A row that there is not: the structure that found it is damaged.
    """
    result = np.empty(len(rows), np.float32)
    if len(rows) == 0:
        return result
    faiss = import_faiss()
    rows, of = np.ascontiguousarray(rows), np.ascontiguousarray(of)
    for values, n in ((rows, len(vectors)), (of, len(queries))):
        if values.min() < 0 or values.max() >= n:  # FAISS would read elsewhere in memory
            raise IndexProblem(
                f"The search structure names a row outside of 0..{n - 1}.", "Build the index again."
            )
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

    Raises:
        IndexProblem: One has fewer: the structure that found them is damaged.
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
    if np.any(np.diff(starts, append=len(order)) < k):
        raise IndexProblem(
            "The search structure does not find enough rows: it is damaged.",
            "Build the index again.",
        )
    best = order[starts[:, None] + np.arange(k)]
    return Neighbors(rows[best], found[best])


@cache
def import_faiss() -> ModuleType:
    """FAISS, loaded when it is first needed.

    faiss-cpu and faiss-gpu both install the package `faiss`: whichever came last has overwritten
    parts of the other, which ends in missing symbols or in a silent fall-back to the CPU. Looked
    up once: that takes longer than many a search.

    Raises:
        IndexProblem: Neither or both are installed, or the installed one does not load.
    """
    present = [name for name in _FAISS_WHEELS if _is_installed(name)]
    if len(present) > 1:
        raise IndexProblem(
            f"{' and '.join(present)} are both installed, and each overwrites the other's files.",
            f"pip uninstall {' '.join(present)}, then install one: "
            f"{pip_install('cpu')} or {pip_install('gpu')}.",
        )
    try:
        import faiss
    except (
        ImportError,
        AttributeError,
        OSError,
        RuntimeError,
    ) as error:  # half-installed
        reason = f" does not load: {error}" if present else " is not installed."
        hint = (
            "faiss-gpu needs the CUDA 12 runtime, cuBLAS and cuRAND; without a GPU: "
            f"pip uninstall faiss-gpu, then {pip_install('cpu')}."
            if present and present != ["faiss-cpu"]
            else f"{pip_install('cpu')}, or {pip_install('gpu')}."
        )
        raise IndexProblem(f"FAISS{reason}", hint) from error
    module: ModuleType = faiss
    return module


def _is_installed(distribution: str) -> bool:
    try:
        importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
