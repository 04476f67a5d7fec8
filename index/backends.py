"""Vector indexes behind one protocol. Similarity is cosine: inner product of unit vectors."""

from __future__ import annotations

import importlib.metadata
from dataclasses import dataclass
from types import ModuleType
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from index.errors import IndexProblem

# FAISS finds candidates; which of those that are equal up to rounding it finds depends on the other
# queries of the call. So this many are found beyond k, and where even the last of them is no more
# than this much less similar than the k-th, all rows are compared instead.
_MARGIN = 16
_ROUNDING = 1e-5
_QUERIES_AT_ONCE = 1024


@dataclass(frozen=True)
class Neighbors:
    """The rows most similar to each query, most similar first, equal ones by row.

    Attributes:
        rows: int64[q, k]. Never -1: an index with fewer than k rows returns fewer columns.
        similarities: float32[q, k], cosine.
    """

    rows: NDArray[np.int64]
    similarities: NDArray[np.float32]


class VectorIndex(Protocol):
    """What every kind of index can do.

    Attributes:
        kind: Its name in the manifest.
    """

    kind: str

    @property
    def dim(self) -> int:
        """Length of the vectors."""
        ...

    def __len__(self) -> int: ...

    def search(self, queries: NDArray[np.float32], k: int) -> Neighbors:
        """The k nearest rows of each query float32[q, dim] of unit norm."""
        ...


class FlatIndex:
    """Exact search by FAISS over vectors that stay where they are, memory-mapped if on disk.

    Args:
        vectors: float32[n, dim], each of unit norm, C-contiguous.
    """

    kind = "flat"

    def __init__(self, vectors: NDArray[np.float32]) -> None:
        if vectors.ndim != 2 or vectors.dtype != np.float32 or not vectors.flags.c_contiguous:
            raise IndexProblem("Vectors must be one C-contiguous float32 array of two dimensions.")
        self._vectors = vectors
        self._faiss = import_faiss()

    @property
    def dim(self) -> int:
        """Length of the vectors."""
        return int(self._vectors.shape[1])

    def __len__(self) -> int:
        return len(self._vectors)

    def search(self, queries: NDArray[np.float32], k: int) -> Neighbors:
        """The k nearest rows of each query float32[q, dim] of unit norm.

        The order and the similarities of a query do not depend on the other queries of the call:
        FAISS finds the candidates, whose similarities are then computed again, one by one. Rows
        with the same vector have the same similarity, and the first of them comes first.

        Raises:
            IndexProblem: Queries of another length or not of unit norm; k below 1; vectors that are
                not finite.
        """
        check_unit(queries, self.dim, "queries")
        if k < 1:
            raise IndexProblem(f"k must be at least 1, not {k}.")
        k = min(k, len(self))
        rows = np.empty((len(queries), k), np.int64)
        similarities = np.empty((len(queries), k), np.float32)
        if k == 0:
            return Neighbors(rows, similarities)
        queries = np.ascontiguousarray(queries)
        for start in range(0, len(queries), _QUERIES_AT_ONCE):
            approximate, found = self._faiss.knn(
                queries[start : start + _QUERIES_AT_ONCE],
                self._vectors,
                min(k + _MARGIN, len(self)),
                metric=self._faiss.METRIC_INNER_PRODUCT,
            )
            if found.min() < 0:  # FAISS's "none", which Python would take for the last row
                raise IndexProblem(
                    "The index holds vectors that are not finite.", "Build the index again."
                )
            for i, (candidates, least) in enumerate(
                zip(found, approximate[:, -1], strict=True), start
            ):
                rows[i], similarities[i] = _rank(
                    self._vectors[candidates], candidates, queries[i], k
                )
                if len(candidates) < len(self) and least > similarities[i, -1] - _ROUNDING:
                    rows[i], similarities[i] = _rank(
                        self._vectors, np.arange(len(self)), queries[i], k
                    )
        return Neighbors(rows, similarities)


def _rank(
    vectors: NDArray[np.float32], rows: NDArray[np.int64], query: NDArray[np.float32], k: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The k of `rows` whose `vectors` are most similar to `query`, equal ones by row."""
    # einsum adds up each row by itself in a fixed order; a matrix product would not.
    exact = np.einsum("kd,d->k", vectors, query)
    reach = np.flatnonzero(exact >= np.partition(exact, -k)[-k])
    order = reach[np.lexsort((rows[reach], -exact[reach]))[:k]]
    return rows[order], exact[order]


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


def import_faiss() -> ModuleType:
    """FAISS, or an error that says what to install.

    faiss-cpu and faiss-gpu both install the package `faiss`: whichever came last has overwritten
    parts of the other, which ends in missing symbols or in a silent fall-back to the CPU.

    Raises:
        IndexProblem: Neither or both are installed, or the installed one does not load.
    """
    present = [name for name in ("faiss-cpu", "faiss-gpu") if _is_installed(name)]
    if len(present) == 2:
        raise IndexProblem(
            "faiss-cpu and faiss-gpu are both installed, and each overwrites the other's files.",
            "pip uninstall faiss-cpu faiss-gpu, then install one: "
            'pip install "annotator[cpu]" or pip install "annotator[gpu]".',
        )
    try:
        import faiss
    except (ImportError, AttributeError, OSError) as error:  # what a half-installed one raises
        reason = f" does not load: {error}" if present else " is not installed."
        hint = (
            "faiss-gpu needs the CUDA 12 runtime, cuBLAS and cuRAND; without a GPU: "
            'pip uninstall faiss-gpu, then pip install "annotator[cpu]".'
            if "faiss-gpu" in present
            else 'pip install "annotator[cpu]" (or "annotator[gpu]").'
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
