"""Neighbours of queries: those of other groups, and as cases to show.

How well an image's neighbours speak for it is only told by other images of other groups (patients,
studies, figures): its own copy, or another view of its patient, would always agree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from index.rows import Neighbors, Rows, SearchResult
from index.search.base import VectorIndex

Find = Callable[[NDArray[np.float32], int], SearchResult]

LARGEST_GROUP = 1000  # that a search looks past
_SEARCHED_AT_ONCE = 256
_MORE = 20  # neighbours beyond k, to leave out some


@dataclass(frozen=True)
class Case:
    """A row of an index that was found.

    Attributes:
        image_id: Of the index.
        score: What it was found by: similarity (cosine, -1..1), or share of the votes (0..1).
        cuis: Its concepts.
        caption: Empty if the index has none.
        weight: Its share of the vote on a query's concepts, 0..1; 0 where it had no vote.
    """

    image_id: str
    score: float
    cuis: tuple[str, ...]
    caption: str = ""
    weight: float = 0.0

    @property
    def similarity(self) -> float:
        """The score of a case that is a neighbour."""
        return self.score


@dataclass(frozen=True)
class Ranking:
    """The cases that were found for one query.

    Attributes:
        query: Id of the image, or the text.
        cases: The most similar first.
        error: Why there are none, if the image could not be used.
    """

    query: str
    cases: tuple[Case, ...]
    error: str | None = None


def case_of(rows: Rows, row: int, score: float, weight: float = 0.0) -> Case:
    """A row as a case."""
    captions = rows.columns.get("captions")
    caption = captions[row] if captions else ""
    return Case(rows.ids[row], score, rows.labels.row(row), caption, weight)


def cases_of(found: SearchResult) -> list[tuple[Case, ...]]:
    """The neighbours of each query as cases, most similar first."""
    return [
        tuple(
            case_of(found.cases, row, similarity)
            for row, similarity in zip(rows, similarities, strict=True)
            if similarity > -np.inf
        )
        for rows, similarities in zip(
            found.neighbors.rows.tolist(), found.neighbors.similarities.tolist(), strict=True
        )
    ]


def nearest_of_other_groups(
    index: VectorIndex,
    index_groups: NDArray[np.int64],
    vectors: NDArray[np.float32],
    groups: NDArray[np.int64],
    k: int,
    most: int = LARGEST_GROUP,
) -> Neighbors:
    """The k nearest rows of each vector that belong to another group, by the groups' numbers.

    Where there are fewer, the rest have a similarity of -inf.

    Args:
        index: What is searched.
        index_groups: int64[len(index)], the group of each of its rows.
        vectors: float32[q, dim] of unit norm, q at least 1.
        groups: int64[q], the group of each vector.
        k: At least 1.
        most: Rows of the own group that the search looks past.
    """
    own = np.unique(groups)
    largest = int(np.bincount(index_groups, minlength=int(own.max()) + 1)[own].max())
    found = index.search(vectors, min(k + min(largest, most), len(index)))
    return found.without(index_groups[found.rows] == groups[:, None], k)


def nearest_others(
    find: Find,
    vectors: NDArray[np.float32],
    ids: Sequence[str],
    groups: Sequence[str],
    k: int,
    *,
    more: int | None = None,
) -> Iterator[SearchResult]:
    """The k nearest rows of each vector that are another image, of another group; 256 at a time.

    The same for an index on disk or on a server, which knows ids and groups as text. Where there
    are fewer than k, the rest have a similarity of -inf.

    Args:
        find: `Index.find` or `Annotator.search`.
        vectors: float32[q, dim] of unit norm, as `find` wants them.
        ids: Of the queries: rows with these ids are left out; "" for none.
        groups: Of the queries: rows of these groups are left out; "" for none.
        k: At least 1.
        more: Neighbours beyond k that are searched for at first, before it turns out that more are
            left out; None for 20, or 1 without groups.

    Raises:
        IndexProblem: As `find`.
    """
    for start in range(0, len(vectors), _SEARCHED_AT_ONCE):
        part = slice(start, start + _SEARCHED_AT_ONCE)
        beyond = more or (_MORE if any(groups[part]) else 1)
        while True:
            found = find(vectors[part], k + beyond)
            others = found.neighbors.without(_own(found, ids[part], groups[part]), k)
            enough = bool(np.isfinite(others.similarities).all())
            if enough or beyond >= LARGEST_GROUP or found.neighbors.rows.shape[1] < k + beyond:
                break
            beyond = min(8 * beyond, LARGEST_GROUP)
        yield SearchResult(others, found.cases)


def _own(found: SearchResult, ids: Sequence[str], groups: Sequence[str]) -> NDArray[np.bool_]:
    """bool[q, found]: which rows are each query itself, or of its group."""
    cases, rows = found.cases, found.neighbors.rows
    theirs = cases.columns.get("groups") if any(groups) else None
    own = [
        [
            cases.ids[row] == id_ or (theirs is not None and group and theirs[row] == group)
            for row in of_one
        ]
        for of_one, id_, group in zip(rows.tolist(), ids, groups, strict=True)
    ]
    return np.array(own, bool).reshape(rows.shape)
