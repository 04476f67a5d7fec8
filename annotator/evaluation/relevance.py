"""How relevant items are to a query: as judged, or by the concepts that they share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Judged:
    """The relevance of one query's items.

    Attributes:
        found: float64[m], of the items that were found, best first; 0 for those not known.
        all: float64[n], of all items, in any order.
        unknown: Number of items found of which nothing is known.
    """

    found: NDArray[np.float64]
    all: NDArray[np.float64]
    unknown: int


class Relevance(Protocol):
    """What is relevant to which query."""

    @property
    def queries(self) -> Sequence[str]:
        """The queries of which something is known."""
        ...

    def judge(self, query: str, found: Sequence[str]) -> Judged:
        """Judge what was found for one of `queries`."""
        ...


class Judgements:
    """Relevance as judged, such as in TREC's qrels; what is not judged is not relevant.

    Args:
        judged: Relevance by item, by query; below 0 counts as 0.
    """

    def __init__(self, judged: Mapping[str, Mapping[str, float]]) -> None:
        self._judged = judged
        self.queries = tuple(judged)

    def judge(self, query: str, found: Sequence[str]) -> Judged:
        """As in `Relevance`."""
        known = self._judged[query]
        gains = [max(known.get(item, 0.0), 0.0) for item in found]
        every = [max(relevance, 0.0) for relevance in known.values()]
        unknown = sum(item not in known for item in found)
        return Judged(np.array(gains, np.float64), np.array(every, np.float64), unknown)


class SharedConcepts:
    """Relevance by concepts: the F1 (Dice) of the query's and the item's sets, 0..1.

    A query's own image is never one of its items, and passed over where it was found. Queries
    without concepts are left out, since nothing says what is like them.

    Args:
        concepts: The concepts of each query.
        items: The concepts of everything that could be found.
    """

    def __init__(
        self, concepts: Mapping[str, Iterable[str]], items: Mapping[str, Iterable[str]]
    ) -> None:
        self._concepts = {query: frozenset(cuis) for query, cuis in concepts.items()}
        self.queries = tuple(query for query, cuis in self._concepts.items() if cuis)
        self._row = {item: i for i, item in enumerate(items)}
        holders: dict[str, list[int]] = {}
        sizes = np.zeros(len(self._row))
        for i, cuis in enumerate(items.values()):
            held = frozenset(cuis)
            sizes[i] = len(held)
            for cui in held:
                holders.setdefault(cui, []).append(i)
        self._sizes = sizes
        self._holders = {cui: np.array(rows, np.int64) for cui, rows in holders.items()}

    def judge(self, query: str, found: Sequence[str]) -> Judged:
        """As in `Relevance`."""
        cuis = self._concepts[query]
        shared = np.zeros(len(self._sizes))
        for cui in cuis & self._holders.keys():
            shared[self._holders[cui]] += 1
        relevance = 2 * shared / (self._sizes + len(cuis))
        rows = [self._row.get(item, -1) for item in found if item != query]
        gains = np.array([relevance[row] if row >= 0 else 0.0 for row in rows], np.float64)
        own = self._row.get(query)
        every = relevance if own is None else np.delete(relevance, own)
        return Judged(gains, every, rows.count(-1))
