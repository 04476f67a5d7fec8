"""What a search found, with what the index knows of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from index.labels import LabelTable
from index.search.base import Neighbors


class Rows(Protocol):
    """Rows of an index and what belongs to them: all of it, or those that a search found."""

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
        """The small picture of a row, a JPEG; None where there is none."""
        ...


class RowSubset:
    """Some rows of other cases.

    Args:
        cases: All of them.
        rows: int64[m], which.
    """

    def __init__(self, cases: Rows, rows: NDArray[np.int64]) -> None:
        self._cases = cases
        self._rows = rows

    @cached_property
    def ids(self) -> Sequence[str]:
        """Image id of each row."""
        return [self._cases.ids[row] for row in self._rows.tolist()]

    @cached_property
    def labels(self) -> LabelTable:
        """CUIs of each row."""
        return self._cases.labels.take(self._rows)

    @cached_property
    def columns(self) -> Mapping[str, Sequence[str]]:
        """Further text of each row by column name."""
        rows = self._rows.tolist()
        return {name: [of[row] for row in rows] for name, of in self._cases.columns.items()}

    def vectors(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """float32[m, dim]: the vectors of some rows."""
        return self._cases.vectors(self._rows[rows])

    def thumbnail(self, row: int) -> bytes | None:
        """The small picture of a row, a JPEG; None where there is none."""
        return self._cases.thumbnail(int(self._rows[row]))


def spread(n: int, most: int) -> NDArray[np.int64]:
    """int64[min(n, most)]: some of n places, ascending and spread evenly over them."""
    return np.linspace(0, n - 1, min(n, most)).astype(np.int64)


@dataclass(frozen=True)
class SearchResult:
    """The neighbours of some queries.

    Attributes:
        neighbors: Rows of `cases`.
        cases: What they are.
    """

    neighbors: Neighbors
    cases: Rows

    def take(self, queries: Sequence[int]) -> SearchResult:
        """The neighbours of some of the queries."""
        return SearchResult(self.neighbors.take(queries), self.cases)
