"""Neighbours of queries across groups, and cases to show.

Labels are only validated by neighbours of other groups (patients, studies, figures): a copy of the
image, or another view of the same patient, would always agree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from index.rows import Neighbors, Rows, SearchResult
from index.search.base import VectorIndex

if TYPE_CHECKING:
    from annotator.errors import ImageError
    from annotator.images.notes import Note

Find = Callable[[NDArray[np.float32], int], SearchResult]

LARGEST_GROUP = 1000  # maximum number of skipped rows of the own group
_SEARCHED_AT_ONCE = 256
MORE = 20  # neighbours beyond k, to allow for exclusions
# Rounding of the similarity of an image to itself, by the precision of its encoder: either engine
# may have encoded it (docs/encoder.md, "Engines").
_SAME = {"fp32": 1e-5, "bf16": 5e-4}


@dataclass(frozen=True)
class Case:
    """Retrieved row of an index.

    Attributes:
        image_id: Image id.
        score: Similarity (cosine, -1..1), or share of the votes (0..1).
        cuis: Concepts.
        caption: Caption; "" if the index has none.
        weight: Share of the vote on a query's concepts, 0..1; 0 without a vote.
        inferred: Concepts that it votes for although they are not among its labels, since its own
            neighbours fill them in (`annotator.knn.incomplete`).
    """

    image_id: str
    score: float
    cuis: tuple[str, ...]
    caption: str = ""
    weight: float = 0.0
    inferred: tuple[str, ...] = ()

    @property
    def similarity(self) -> float:
        """Score of a case that is a neighbour."""
        return self.score


@dataclass(frozen=True)
class Ranking:
    """Retrieved cases of one query.

    Attributes:
        query: Image id, or the text.
        cases: Cases, most similar first.
        error: Why the image could not be used, or None.
        notes: What was done to the picture that its file did not ask for, as stable codes.
    """

    query: str
    cases: tuple[Case, ...]
    error: ImageError | None = None
    notes: tuple[Note, ...] = ()


def case_of(rows: Rows, row: int, score: float, weight: float = 0.0) -> Case:
    """Make a case of a row."""
    captions = rows.columns.get("captions")
    caption = captions[row] if captions else ""
    return Case(rows.ids[row], score, rows.labels.row(row), caption, weight)


def cases_of(found: SearchResult) -> list[tuple[Case, ...]]:
    """Make cases of the neighbours of each query, most similar first."""
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


def copies(neighbors: Neighbors, precision: Literal["fp32", "bf16"]) -> NDArray[np.bool_]:
    """Mask of neighbours that are the query itself: of similarity 1 within rounding, bool[q, k].

    Args:
        neighbors: Of q queries.
        precision: Of their encoder.
    """
    return neighbors.similarities >= 1 - _SAME[precision]


def nearest_of_other_groups(
    index: VectorIndex,
    index_groups: NDArray[np.int64],
    vectors: NDArray[np.float32],
    groups: NDArray[np.int64],
    k: int,
    most: int = LARGEST_GROUP,
) -> Neighbors:
    """Find the k nearest rows of other groups for each vector, by group number.

    If there are fewer, the rest have similarity -inf.

    Args:
        index: Index to search.
        index_groups: int64[len(index)], the group of each row of the index.
        vectors: float32[q, dim] of unit norm, q at least 1.
        groups: int64[q], the group of each vector.
        k: Number of neighbours, at least 1.
        most: Maximum number of skipped rows of the own group.
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
    """Find the k nearest rows of other images and groups for each vector; 256 at a time.

    Works for any `Index`, with ids and groups as text. If there are fewer than k, the rest have
    similarity -inf.

    Args:
        find: `Index.find` or `Annotator.search`.
        vectors: float32[q, dim] of unit norm, for `find`.
        ids: Ids of the queries, whose rows are excluded; "" for none.
        groups: Groups of the queries, whose rows are excluded; "" for none.
        k: Number of neighbours, at least 1.
        more: Neighbours beyond k in the first search, which is repeated with more if too many are
            excluded; None for 20, or 1 without groups.

    Raises:
        IndexProblem: As `find`.
    """
    for start in range(0, len(vectors), _SEARCHED_AT_ONCE):
        part = slice(start, start + _SEARCHED_AT_ONCE)
        beyond = more or (MORE if any(groups[part]) else 1)
        while True:
            found = find(vectors[part], k + beyond)
            others = found.neighbors.without(_own(found, ids[part], groups[part]), k)
            enough = bool(np.isfinite(others.similarities).all())
            if enough or beyond >= LARGEST_GROUP or found.neighbors.rows.shape[1] < k + beyond:
                break
            beyond = min(8 * beyond, LARGEST_GROUP)
        yield SearchResult(others, found.cases)


def _own(found: SearchResult, ids: Sequence[str], groups: Sequence[str]) -> NDArray[np.bool_]:
    """Mask of rows that are the query itself or of its group, bool[q, found]."""
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
