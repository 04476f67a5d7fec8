"""Rows that a search found, and the nearest ones without an image itself and its group."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from index.cases import Rows, SearchResult
from index.search.base import Neighbors

Find = Callable[[NDArray[np.float32], int], SearchResult]

_SEARCHED_AT_ONCE = 256
_MORE = 20  # neighbours beyond k, to leave out some
_LARGEST_GROUP = 1000  # that a search looks past


@dataclass(frozen=True)
class Case:
    """A case of the index.

    Attributes:
        image_id: Of the index.
        score: What it was found by: similarity (cosine, -1..1), or share of the votes (0..1).
        cuis: Its concepts.
        caption: Empty if the index has none.
    """

    image_id: str
    score: float
    cuis: tuple[str, ...]
    caption: str = ""


@dataclass(frozen=True)
class Ranking:
    """What was found for one query.

    Attributes:
        query: Id of the image, or the text.
        cases: The most similar first.
        error: Why there are none, if the image could not be used.
    """

    query: str
    cases: tuple[Case, ...]
    error: str | None = None


def case_of(cases: Rows, row: int, score: float) -> Case:
    """A row as a case."""
    captions = cases.columns.get("captions")
    return Case(cases.ids[row], score, cases.labels.row(row), captions[row] if captions else "")


def cases_of(found: SearchResult) -> list[tuple[Case, ...]]:
    """The neighbours of each query, most similar first."""
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


def nearest_others(
    find: Find,
    vectors: NDArray[np.float32],
    ids: Sequence[str],
    groups: Sequence[str],
    k: int,
) -> Iterator[SearchResult]:
    """The k nearest rows of each vector that are another image, of another group; 256 at a time.

    Where there are fewer, the rest have a similarity of -inf.

    Args:
        find: `Index.find` or `Annotator.search`.
        vectors: float32[q, dim] of unit norm, as `find` wants them.
        ids: Of the queries: rows with these ids are left out; "" for none.
        groups: Of the queries: rows of these groups are left out; "" for none.
        k: At least 1.

    Raises:
        IndexProblem: As `find`.
    """
    for start in range(0, len(vectors), _SEARCHED_AT_ONCE):
        part = slice(start, start + _SEARCHED_AT_ONCE)
        more = _MORE if any(groups[part]) else 1
        while True:
            found = find(vectors[part], k + more)
            left = left_out(found, ids[part], groups[part], k)
            enough = bool(np.isfinite(left.neighbors.similarities).all())
            if enough or more >= _LARGEST_GROUP or found.neighbors.rows.shape[1] < k + more:
                break
            more = min(8 * more, _LARGEST_GROUP)
        yield left


def left_out(
    found: SearchResult, ids: Sequence[str], groups: Sequence[str], k: int
) -> SearchResult:
    """The first k of what was found without each query itself and its group."""
    cases, rows = found.cases, found.neighbors.rows
    theirs = cases.columns.get("groups") if any(groups) else None
    own = np.array(
        [
            [
                cases.ids[row] == id_ or (theirs is not None and group and theirs[row] == group)
                for row in of_one
            ]
            for of_one, id_, group in zip(rows.tolist(), ids, groups, strict=True)
        ],
        bool,
    ).reshape(rows.shape)
    similarities = np.where(own, -np.inf, found.neighbors.similarities).astype(np.float32)
    order = np.argsort(similarities == -np.inf, axis=1, kind="stable")[:, :k]
    return SearchResult(
        Neighbors(
            np.take_along_axis(rows, order, axis=1),
            np.take_along_axis(similarities, order, axis=1),
        ),
        cases,
    )
