"""Out-of-sample neighbour lists for tuning, across patients."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from annotator.errors import AnnotatorError
from annotator.evaluation.measures import group_numbers
from annotator.knn.neighbors import nearest_of_other_groups
from index import FlatIndex, Neighbors, StoredIndex
from index.progress import track
from index.protocols import Index
from index.search.blas import workers

FOLDS = 5
MOST_NEIGHBORS = 100
LEAST_IMAGES = 50  # for tuning; with fewer, noise dominates
ARRAYS = "tuning."  # prefix of the array names in an index
_MOST_IMAGES = 5000  # annotated for the estimate; a standard error of about 0.003
_SEARCHED_AT_ONCE = 256


class Projects(Protocol):
    """Interface of projections of an index's rows; `Projection.apply` says what it does."""

    def apply(
        self, vectors: NDArray[np.float32], rows: NDArray[np.int64] | None = None
    ) -> NDArray[np.float32]: ...


@dataclass(frozen=True)
class NeighborLists:
    """Neighbour lists of some rows of an index, without rows of their own group.

    Attributes:
        queries: int64[q], rows of the queries.
        found: Their neighbours, padded with similarity -inf.
        groups: int64[q], the group of each query; None if each is its own, or nobody knows any more
            (an index of an earlier version).
    """

    queries: NDArray[np.int64]
    found: Neighbors
    groups: NDArray[np.int64] | None = None

    @property
    def group_of_each(self) -> NDArray[np.int64]:
        """The group of each query, int64[q]; each is its own where they are not known."""
        return self.queries if self.groups is None else self.groups

    def take(self, kept: NDArray[np.int64]) -> NeighborLists:
        """Some of the lists, by position."""
        groups = None if self.groups is None else self.groups[kept]
        return NeighborLists(self.queries[kept], self.found.take(kept), groups)

    def to_arrays(self) -> dict[str, NDArray[np.generic]]:
        """Arrays by name, to store in an index."""
        arrays: dict[str, NDArray[np.generic]] = {
            f"{ARRAYS}queries": self.queries,
            f"{ARRAYS}rows": self.found.rows.astype(np.int32),
            f"{ARRAYS}similarities": self.found.similarities,
        }
        if self.found.evidence is not None:
            arrays[f"{ARRAYS}evidence"] = self.found.evidence
        if self.groups is not None:
            arrays[f"{ARRAYS}groups"] = self.groups
        return arrays

    def renumbered(
        self, number: Callable[[NDArray[np.int64]], NDArray[np.int64]]
    ) -> NeighborLists | None:
        """Renumber the lists after rows were removed; None if none is left.

        Args:
            number: Function from old to new row numbers, -1 for removed rows.
        """
        queries, rows = number(self.queries), number(self.found.rows)
        renumbered = replace(self.found, rows=np.maximum(rows, 0))
        found = renumbered.without(rows < 0, rows.shape[1])
        kept = np.flatnonzero((queries >= 0) & np.isfinite(found.similarities[:, 0]))
        return NeighborLists(queries, found, self.groups).take(kept) if len(kept) else None

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.generic]], n: int) -> NeighborLists | None:
        """Inverse of `to_arrays`; None if `arrays` has no lists.

        Args:
            arrays: Arrays of an index.
            n: Number of rows of the index when they were written.

        Raises:
            AnnotatorError: Inconsistent arrays.
        """
        if f"{ARRAYS}queries" not in arrays:
            return None
        try:
            queries = np.asarray(arrays[f"{ARRAYS}queries"], np.int64)
            rows = np.asarray(arrays[f"{ARRAYS}rows"], np.int64)
            similarities = np.asarray(arrays[f"{ARRAYS}similarities"], np.float32)
            given = arrays.get(f"{ARRAYS}evidence")
            evidence = None if given is None else np.asarray(given, np.float32)
            own = arrays.get(f"{ARRAYS}groups")
            groups = None if own is None else np.asarray(own, np.int64)
            fits = (
                rows.ndim == 2
                and rows.size > 0
                and rows.shape == similarities.shape
                and rows.shape[:1] == queries.shape
                and all(a.min() >= 0 and a.max() < n for a in (queries, rows))
                and bool(np.isfinite(similarities[:, 0]).all())
                and (groups is None or groups.shape == queries.shape)
                and (evidence is None or evidence.shape == rows.shape)
                and (evidence is None or bool(np.isfinite(evidence).all()))
            )
        except (KeyError, TypeError, ValueError):
            fits = False
        if not fits:
            raise AnnotatorError(
                "The neighbour lists of the index are damaged.", "Build the index again."
            )
        return cls(queries, Neighbors(rows, similarities, evidence), groups)


def stored_lists(stored: Index) -> NeighborLists | None:
    """Read the lists stored in an index, by current row numbers; None without lists.

    Raises:
        AnnotatorError: The lists are inconsistent with the index.
    """
    written = len(stored) + stored.manifest.removed
    lists = NeighborLists.from_arrays(stored.arrays, written)
    lists = lists.renumbered(stored.renumber) if lists is not None else None
    if lists is None or lists.groups is not None or not isinstance(stored, StoredIndex):
        return lists
    # Written by an earlier version, whose lists do not say the groups.
    groups = stored.columns.get("groups")
    return replace(lists, groups=group_numbers(groups)[lists.queries]) if groups else lists


def rows_for_tuning(n: int, seed: int = 0) -> NDArray[np.int64]:
    """Rows annotated for tuning, int64[q]: all of them, or 5,000 drawn with `seed`."""
    if n <= _MOST_IMAGES:
        return np.arange(n)
    return np.sort(np.random.default_rng(seed).choice(n, _MOST_IMAGES, replace=False))


def group_folds(groups: NDArray[np.int64], folds: int = FOLDS, seed: int = 0) -> NDArray[np.int64]:
    """Assign whole groups to folds of about equal size; int64[n], the fold of each row.

    Greedy: groups in descending size (ties in random order) go to the smallest fold.
    """
    sizes = np.bincount(groups)
    order = np.random.default_rng(seed).permutation(len(sizes))
    order = order[np.argsort(-sizes[order], kind="stable")]
    of_group, rows = np.zeros(len(sizes), np.int64), np.zeros(folds, np.int64)
    for group in order:
        of_group[group] = rows.argmin()
        rows[of_group[group]] += sizes[group]
    return of_group[groups]


def leave_one_group_out(vectors: NDArray[np.float32], groups: NDArray[np.int64]) -> NeighborLists:
    """Neighbour lists of the vectors among themselves, across groups.

    Args:
        vectors: float32[n, dim], of unit norm.
        groups: From `group_numbers`.
    """
    queries, index = rows_for_tuning(len(vectors)), FlatIndex(vectors)
    blocks = _blocks(queries)
    parts = [
        nearest_of_other_groups(
            index, groups, np.array(vectors[block]), groups[block], MOST_NEIGHBORS
        )
        for block in track(blocks, total=len(queries), label="Tuning", size=len)
    ]
    return _usable(queries, parts, groups)


def cross_fitted(
    project: Callable[[int], Projects | None],
    vectors: NDArray[np.float32],
    groups: NDArray[np.int64],
    folds: NDArray[np.int64],
    *,
    queries: NDArray[np.int64] | None = None,
    evidence: Callable[[Neighbors, NDArray[np.int64], int], Neighbors] | None = None,
    at_once: int = 1,
) -> NeighborLists:
    """Neighbour lists by cross-fitting: projections are fitted without the queries' concepts.

    The rows of one fold are annotated by those of the other folds, which are projected as in the
    final index, by what was fitted to their own concepts.

    Args:
        project: Function from a fold to the projection that was fitted without its concepts; None
            for the identity.
        vectors: float32[n, dim] of unit norm, from the encoder.
        groups: From `group_numbers`.
        folds: From `group_folds`; rows of fold -1 only annotate, since everything has seen them.
        queries: int64[q], the query rows in order; None for `rows_for_tuning`.
        evidence: Function from neighbours, the rows of the queries and their fold to the
            neighbours with evidence; None for none.
        at_once: Number of folds at once, each on a thread and in memory of its own. `project` and
            `evidence` are then called from several threads.
    """
    queries = rows_for_tuning(len(vectors)) if queries is None else queries
    number = int(folds.max(initial=-1)) + 1

    def lists_of(fold: int) -> tuple[NDArray[np.int64], list[Neighbors]]:
        own = queries[folds[queries] == fold]
        others = np.flatnonzero(folds != fold)
        if not len(own) or not len(others):
            return own[:0], []
        projection = project(fold)
        index = FlatIndex(projected_rows(vectors, projection, others))
        parts = []
        for block in _blocks(own):
            queried = projected_rows(vectors, projection, block)
            found = nearest_of_other_groups(
                index, groups[others], queried, groups[block], MOST_NEIGHBORS
            )
            found = Neighbors(others[found.rows], found.similarities)
            parts.append(found if evidence is None else evidence(found, block, fold))
        return own, parts

    with contextlib.ExitStack() as stack:
        apply = stack.enter_context(workers(at_once)).map if at_once > 1 else map
        found = apply(lists_of, range(number))
        done = list(track(found, total=number, label="Tuning", unit="folds"))
    order = [own for own, _ in done]
    parts = [part for _, some in done for part in some]
    return _usable(np.concatenate(order) if order else queries[:0], parts, groups)


def projected_rows(
    vectors: NDArray[np.float32],
    projection: Projects | None,
    rows: NDArray[np.int64],
) -> NDArray[np.float32]:
    """Some rows as they are in the index, float32[m, out]; None for the identity."""
    return np.array(vectors[rows]) if projection is None else projection.apply(vectors, rows)


def _blocks(rows: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    return [rows[i : i + _SEARCHED_AT_ONCE] for i in range(0, len(rows), _SEARCHED_AT_ONCE)]


def _usable(
    queries: NDArray[np.int64], parts: Sequence[Neighbors], groups: NDArray[np.int64]
) -> NeighborLists:
    """Non-empty lists, in the order of their rows."""
    width = min((part.rows.shape[1] for part in parts), default=0)
    if not width:
        none = np.zeros((0, 0))
        return NeighborLists(queries[:0], Neighbors(none.astype(np.int64), none.astype(np.float32)))
    rows = np.concatenate([part.rows[:, :width] for part in parts])
    similarities = np.concatenate([part.similarities[:, :width] for part in parts])
    evidence = [part.evidence[:, :width] for part in parts if part.evidence is not None]
    found = Neighbors(rows, similarities, np.concatenate(evidence) if evidence else None)
    keep = np.flatnonzero(np.isfinite(similarities[:, 0]))
    keep = keep[np.argsort(queries[keep], kind="stable")]
    return NeighborLists(queries, found, groups[queries]).take(keep)
