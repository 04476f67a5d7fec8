"""What all indexes over one array of vectors share: checks, sizes, and searching in batches."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.errors import IndexProblem
from index.search.base import Neighbors, check_search, check_vectors, no_neighbors


class OverVectors(ABC):
    """An index over vectors that stay where they are.

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
        at_once = self._at_once(k)
        parts = [
            self._search(queries[start : start + at_once], k)
            for start in range(0, len(queries), at_once)
        ]
        return Neighbors(
            np.concatenate([part.rows for part in parts]),
            np.concatenate([part.similarities for part in parts]),
        )

    @abstractmethod
    def _at_once(self, k: int) -> int:
        """How many queries `_search` takes at the most."""

    @abstractmethod
    def _search(self, queries: NDArray[np.float32], k: int) -> Neighbors:
        """Of at least one query, C-contiguous; k is from 1 to n."""


def check_structure(structure: Any, vectors: NDArray[np.float32]) -> None:
    """Refuse a FAISS index that is not one of these vectors.

    Raises:
        IndexProblem: It holds other ones.
    """
    if (structure.ntotal, structure.d) != vectors.shape:
        raise IndexProblem(
            f"The structure for searching holds {structure.ntotal} rows of {structure.d} "
            f"dimensions, the vectors are {vectors.shape[0]} of {vectors.shape[1]}."
        )
