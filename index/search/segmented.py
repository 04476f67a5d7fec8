"""Several indexes searched as one, without the rows that were removed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from index.errors import IndexProblem
from index.rows import Neighbors
from index.search.base import VectorIndex, check_search, no_neighbors, ranked

_MORE = 16  # rows beyond k that a part is asked for where some of its rows were removed


class SegmentedIndex:
    """The rows of several indexes after each other, numbered without those that were removed.

    Args:
        parts: With vectors of one length, at least one.
        live: bool[n] for all rows of the parts: False for those that were removed.

    Attributes:
        parts: As given.

    Raises:
        IndexProblem: `live` does not have one entry a row.
    """

    def __init__(self, parts: Sequence[VectorIndex], live: NDArray[np.bool_]) -> None:
        self.parts = tuple(parts)
        self._starts = np.cumsum([0, *(len(part) for part in parts)])
        if live.shape != (self._starts[-1],):
            raise IndexProblem(f"{self._starts[-1]} rows but {len(live)} entries of which live.")
        self._live = live
        self._number = np.cumsum(live) - 1
        self._counts = [int(part.sum()) for part in np.split(live, self._starts[1:-1])]
        self.kind = parts[0].kind

    @property
    def dim(self) -> int:
        """Length of the vectors."""
        return self.parts[0].dim

    def __len__(self) -> int:
        return sum(self._counts)

    def search(self, queries: NDArray[np.float32], k: int) -> Neighbors:
        """The k nearest live rows of each query float32[q, dim] of unit norm.

        Raises:
            IndexProblem: As `VectorIndex.search`.
        """
        queries = check_search(queries, self.dim, k)
        k = min(k, len(self))
        if k == 0 or len(queries) == 0:
            return no_neighbors(len(queries), k)
        rows, found, of = [], [], []
        everyone = np.arange(len(queries))
        for part, start, count in zip(
            self.parts, self._starts[:-1].tolist(), self._counts, strict=True
        ):
            live = self._live[start : start + len(part)]
            more = _MORE if count < len(part) else 0
            for r, s, o in _live_ones(part, live, queries, everyone, min(k, count), more):
                rows.append(r + start)
                found.append(s)
                of.append(o)
        best = ranked(
            np.concatenate(rows), np.concatenate(found), np.concatenate(of), len(queries), k
        )
        return Neighbors(self._number[best.rows], best.similarities)


def _live_ones(
    part: VectorIndex,
    live: NDArray[np.bool_],
    queries: NDArray[np.float32],
    of: NDArray[np.int64],
    k: int,
    more: int,
) -> list[tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.int64]]]:
    """At least the k nearest live rows of a part, as rows, similarities and queries.

    At first a part is asked for k and some `more`. Whoever has too many removed rows among the
    nearest asks for twice as many.
    """
    result = []
    asked = min(k + more, len(part))
    while k and len(of):
        found = part.search(queries[of], asked)
        kept = live[found.rows]
        enough = (kept.sum(axis=1) >= k) | (found.rows.shape[1] >= len(part))
        kept &= enough[:, None]
        place, _ = np.nonzero(kept)
        result.append((found.rows[kept], found.similarities[kept], of[place]))
        of = of[~enough]
        asked = min(2 * asked, len(part))
    return result
