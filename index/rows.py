"""Rows of an index with what belongs to them, and search results that refer to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from index.labels import LabelTable


class Rows(Protocol):
    """Rows of an index with their data: all rows, or search results."""

    @property
    def ids(self) -> Sequence[str]:
        """Image id of each row."""
        ...

    @property
    def labels(self) -> LabelTable:
        """CUIs of each row."""
        ...

    @property
    def columns(self) -> Mapping[str, Sequence[str]]:
        """Further text of each row by column name ("captions", "groups")."""
        ...

    def vectors(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """float32[m, dim]: the vectors of some rows."""
        ...

    def thumbnail(self, row: int) -> bytes | None:
        """The thumbnail of a row, a JPEG; None where there is none."""
        ...


class RowSubset:
    """Subset of rows.

    Args:
        rows: All rows.
        chosen: int64[m], positions of the subset.
    """

    def __init__(self, rows: Rows, chosen: NDArray[np.int64]) -> None:
        self._rows = rows
        self._chosen = chosen

    @cached_property
    def ids(self) -> Sequence[str]:
        return [self._rows.ids[row] for row in self._chosen.tolist()]

    @cached_property
    def labels(self) -> LabelTable:
        return self._rows.labels.take(self._chosen)

    @cached_property
    def columns(self) -> Mapping[str, Sequence[str]]:
        chosen = self._chosen.tolist()
        return {name: [of[row] for row in chosen] for name, of in self._rows.columns.items()}

    def vectors(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """float32[m, dim]: the vectors of some of these rows."""
        return self._rows.vectors(self._chosen[rows])

    def thumbnail(self, row: int) -> bytes | None:
        """The thumbnail of a row, a JPEG; None where there is none."""
        return self._rows.thumbnail(int(self._chosen[row]))


@dataclass(frozen=True)
class Neighbors:
    """The rows most similar to each query, most similar first, equal ones by row.

    Attributes:
        rows: int64[q, k]. Never -1: an index with fewer than k rows returns fewer columns.
        similarities: float32[q, k], cosine.
        evidence: float32[q, k], what a classifier says for each neighbour's labels, as a
            log-likelihood up to a constant for each query; None without a classifier.
    """

    rows: NDArray[np.int64]
    similarities: NDArray[np.float32]
    evidence: NDArray[np.float32] | None = None

    def take(self, queries: slice | Sequence[int] | NDArray[np.int64]) -> Neighbors:
        """Select the neighbours of some of the queries."""
        evidence = None if self.evidence is None else self.evidence[queries]
        return Neighbors(self.rows[queries], self.similarities[queries], evidence)

    def without(self, left_out: NDArray[np.bool_], k: int) -> Neighbors:
        """The first k neighbours of each query that are not left out, bool[q, found].

        Where fewer remain, the rest have a similarity of -inf.
        """
        similarities = np.where(left_out, -np.inf, self.similarities).astype(np.float32)
        order = np.argsort(left_out, axis=1, kind="stable")[:, :k]
        return Neighbors(
            np.take_along_axis(self.rows, order, axis=1),
            np.take_along_axis(similarities, order, axis=1),
            None if self.evidence is None else np.take_along_axis(self.evidence, order, axis=1),
        )


@dataclass(frozen=True)
class SearchResult:
    """The neighbours of some queries.

    Attributes:
        neighbors: Their rows in `cases`, with similarities.
        cases: Rows that were searched.
    """

    neighbors: Neighbors
    cases: Rows

    def take(self, queries: Sequence[int]) -> SearchResult:
        """The neighbours of some of the queries."""
        return SearchResult(self.neighbors.take(queries), self.cases)
