"""What every kind of vector index can do. Similarity is cosine: inner product of unit vectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from index.errors import IndexProblem


@dataclass(frozen=True)
class Neighbors:
    """The rows most similar to each query, most similar first, equal ones by row.

    Attributes:
        rows: int64[q, k]. Never -1: an index with fewer than k rows returns fewer columns.
        similarities: float32[q, k], cosine.
    """

    rows: NDArray[np.int64]
    similarities: NDArray[np.float32]

    def take(self, queries: slice | Sequence[int] | NDArray[np.int64]) -> Neighbors:
        """Those of some of the queries."""
        return Neighbors(self.rows[queries], self.similarities[queries])

    def without(self, left_out: NDArray[np.bool_], k: int) -> Neighbors:
        """The first k neighbours of each query that are not left out, bool[q, found].

        Where fewer remain, the rest have a similarity of -inf.
        """
        similarities = np.where(left_out, -np.inf, self.similarities).astype(np.float32)
        order = np.argsort(left_out, axis=1, kind="stable")[:, :k]
        return Neighbors(
            np.take_along_axis(self.rows, order, axis=1),
            np.take_along_axis(similarities, order, axis=1),
        )


class VectorIndex(Protocol):
    """What every kind of index can do.

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
    """Refuse what FAISS would read wrongly.

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
    """What is found where there are no rows (k is 0) or no queries."""
    return Neighbors(np.empty((queries, k), np.int64), np.empty((queries, k), np.float32))


def not_finite() -> IndexProblem:
    """What is wrong with vectors of which no similarity can be told."""
    return IndexProblem("The index holds vectors that are not finite.", "Build the index again.")
