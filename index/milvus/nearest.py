"""Searching the rows of one version, whatever comes to and goes from its collection meanwhile."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from index.errors import IndexProblem, IndexUnreachable
from index.milvus.kinds import EXACT, search_params
from index.milvus.rows import SUMMARY, count, read_summary
from index.milvus.server import Server

MOST_K = 16384  # neighbours that Milvus gives
_AT_ONCE = 256  # queries in a message


class Case(NamedTuple):
    """A row that was found: its image's id, and its CUIs in one text."""

    id: str
    cuis: str


@dataclass(frozen=True)
class Nearest:
    """The nearest rows of some queries, most similar first, equally similar ones by row.

    Attributes:
        rows: int64[q, w], as they were numbered when they were written. Where fewer than w were
            found, the rest repeat the first one with similarity -inf.
        similarities: float32[q, w].
        cases: What each of the rows is.
    """

    rows: NDArray[np.int64]
    similarities: NDArray[np.float32]
    cases: Mapping[int, Case]


class Searcher:
    """Searches the rows of one version.

    Rows of an addition that has not ended, or that came after the version was opened, are no
    neighbours, and neither are those that were removed and not yet deleted. Such rows are rare, so
    the server is asked to leave them out only once one was found.

    Args:
        server: To talk to.
        collection: Of the rows.
        manifest: Of the version.
        removed: int64[r], ascending: rows that were removed.
    """

    def __init__(
        self,
        server: Server,
        collection: str,
        manifest: Mapping[str, Any],
        removed: NDArray[np.int64],
    ) -> None:
        self._server = server
        self._collection = collection
        self._n, self._stored = int(manifest["n"]), int(manifest["stored"])
        self._params = manifest["search"]["params"]
        self._is_exact = manifest["index_type"] in EXACT
        self._removed = removed
        self._condition = ""

    def nearest(self, queries: NDArray[np.float32], k: int) -> Nearest:
        """The k nearest rows of each of the queries, float32[q, dim]; all if there are fewer.

        Raises:
            IndexUnreachable: The server is away, or does not have all rows at hand yet.
            IndexProblem: It refuses.
        """
        k = min(k, self._n, MOST_K)
        cases: dict[int, Case] = {}
        parts = [
            self._several(queries[start : start + _AT_ONCE], k, cases)
            for start in range(0, len(queries), _AT_ONCE)
        ]
        width = max((rows.shape[1] for rows, _ in parts), default=0)
        rows = np.full((len(queries), width), -1, np.int64)
        similarities = np.full((len(queries), width), -np.inf, np.float32)
        start = 0
        for some, theirs in parts:
            place = slice(start, start + len(some))
            rows[place, : some.shape[1]] = some
            similarities[place, : some.shape[1]] = theirs
            start += len(some)
        if not cases and len(queries):
            raise IndexProblem(
                f"{self._server.address}: the rows of this version were all removed meanwhile.",
                "Open the index again.",
            )
        rows = np.where(rows < 0, next(iter(cases), 0), rows)
        return Nearest(rows, similarities, cases)

    def _several(
        self, queries: NDArray[np.float32], k: int, cases: dict[int, Case]
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Rows and similarities, [q, k or fewer], ordered; -1 and -inf where there are none."""
        most = min(self._n, MOST_K)
        # One more than wanted shows whether equally similar ones were left out: which of them the
        # server gives is not said, here it is the first rows.
        limit = min(k + 1, most)
        rows, similarities = self._live(queries, limit, cases)
        while rows.shape[1] > k and limit < most:
            last = similarities[:, -1]
            tied = np.flatnonzero((similarities[:, k - 1] == last) & np.isfinite(last))
            if len(tied) == 0:
                break
            limit = min(4 * limit + 16, most)
            more, theirs = self._live(queries[tied], limit, cases)
            wider = [(0, 0), (0, max(0, more.shape[1] - rows.shape[1]))]
            rows = np.pad(rows, wider, constant_values=-1)
            similarities = np.pad(similarities, wider, constant_values=-np.inf)
            rows[tied, : more.shape[1]] = more
            similarities[tied, : more.shape[1]] = theirs
        return rows[:, :k], similarities[:, :k]

    def _live(
        self, queries: NDArray[np.float32], limit: int, cases: dict[int, Case]
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """As many of the nearest as `limit` says, ordered."""
        rows, similarities = self._ask(queries, limit, cases)
        if not self._condition and self._has_others(rows):
            condition = f"row < {self._stored}"
            if len(self._removed):
                condition += f" and row not in {self._removed.tolist()}"
            self._condition = condition
            rows, similarities = self._ask(queries, limit, cases)
        order = np.lexsort((rows, -similarities))
        return np.take_along_axis(rows, order, 1), np.take_along_axis(similarities, order, 1)

    def _has_others(self, rows: NDArray[np.int64]) -> bool:
        """Whether there are rows that do not belong to the version."""
        if rows.size and int(rows.max()) >= self._stored:
            return True
        return len(self._removed) > 0 and bool(np.isin(rows, self._removed).any())

    def _ask(
        self, queries: NDArray[np.float32], limit: int, cases: dict[int, Case]
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """What the server finds, as it comes."""

        def search(client: Any, seconds: float) -> list[list[dict[str, Any]]]:
            found: list[list[dict[str, Any]]] = client.search(
                self._collection,
                data=list(queries),
                limit=limit,
                filter=self._condition,
                output_fields=[SUMMARY],
                search_params=search_params(self._params, limit),
                # What was changed seconds ago may be missed; what was built is all there.
                consistency_level="Bounded",
                timeout=seconds,
            )
            least = limit if self._is_exact else 1
            if any(len(hits) < least for hits in found):
                self._check_that_all_are_there()
            return found

        found = self._server.patiently(search)
        width = max(map(len, found), default=0)
        rows = np.full((len(queries), width), -1, np.int64)
        similarities = np.full((len(queries), width), -np.inf, np.float32)
        row_of: dict[str, int] = {}  # of this answer alone: in another an id may be of another row
        for i, hits in enumerate(found):
            similarities[i, : len(hits)] = [hit["distance"] for hit in hits]
            for hit in hits:
                if (id_ := hit["id"]) not in row_of:
                    row_of[id_], cuis = read_summary(hit["entity"][SUMMARY])
                    cases[row_of[id_]] = Case(id_, cuis)
            rows[i, : len(hits)] = [row_of[hit["id"]] for hit in hits]
        return rows, similarities

    def _check_that_all_are_there(self) -> None:
        """That few were found because there are few; after the server's start some rows may be
        loaded before others.
        """
        found = count(self._server, self._collection)
        where = f"{self._server.address}: {self._collection}"
        if found >= self._n:
            raise IndexUnreachable(
                f"{where} gives only a part of its rows.",
                "The server may still be loading them: try again later.",
            )
        if found == 0:
            raise IndexProblem(f"{where} has no rows left.", "Open the index again.")
