"""Relevance of items to a query, by the concepts that they share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np


class SharedConcepts(Mapping[str, Mapping[str, float]]):
    """The relevant items of each query: the F1 (Dice) of its and their sets of concepts, 0..1.

    Items that share nothing are left out, and so is the query's own image. Queries without concepts
    are left out, since nothing says what is similar to them.

    Args:
        queries: The concepts of each query.
        items: The concepts of everything that could be found.
    """

    def __init__(
        self, queries: Mapping[str, Iterable[str]], items: Mapping[str, Iterable[str]]
    ) -> None:
        self._queries = {query: set(cuis) for query, cuis in queries.items() if cuis}
        self._items = list(items)
        self._sizes = np.array([len(set(cuis)) for cuis in items.values()])
        holders: dict[str, list[int]] = {}
        for row, cuis in enumerate(items.values()):
            for cui in set(cuis):
                holders.setdefault(cui, []).append(row)
        self._holders = {cui: np.array(rows) for cui, rows in holders.items()}

    def __getitem__(self, query: str) -> dict[str, float]:
        cuis = self._queries[query]
        shared = np.zeros(len(self._items))
        for cui in cuis & self._holders.keys():
            shared[self._holders[cui]] += 1
        rows = np.flatnonzero(shared)
        f1 = 2 * shared[rows] / (self._sizes[rows] + len(cuis))
        found = {self._items[row]: value for row, value in zip(rows, f1.tolist(), strict=True)}
        found.pop(query, None)
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self._queries)

    def __len__(self) -> int:
        return len(self._queries)
