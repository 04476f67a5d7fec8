"""The concepts of each row of an index, as a compressed sparse table."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from index.errors import IndexProblem
from index.sampling import sample_rows

SAMPLE = 64  # rows of `LabelTable.sample`
_ROWS_AT_ONCE = 1 << 16  # bounds the memory of `LabelTable.closed`


@dataclass(frozen=True)
class LabelTable:
    """CUIs of each row, in compressed sparse row format.

    Attributes:
        indptr: int64[n + 1]; row i has indices[indptr[i]:indptr[i + 1]].
        indices: int32[nnz]; positions in `cuis`, ascending and unique within a row.
        cuis: The vocabulary, ascending.

    Raises:
        IndexProblem: Inconsistent arrays.
    """

    indptr: NDArray[np.int64]
    indices: NDArray[np.int32]
    cuis: tuple[str, ...]

    def __post_init__(self) -> None:
        if (self.indptr.dtype, self.indptr.ndim) != (np.dtype(np.int64), 1) or (
            self.indices.dtype,
            self.indices.ndim,
        ) != (np.dtype(np.int32), 1):
            raise IndexProblem("The label table is damaged: its arrays are not int64[n], int32[n].")
        problem = ""
        if len(self.indptr) == 0 or self.indptr[0] != 0 or self.indptr[-1] != len(self.indices):
            problem = "its row pointers do not span its entries"
        elif np.any(np.diff(self.indptr) < 0):
            problem = "its row pointers decrease"
        elif len(self.indices) and not (
            self.indices.min() >= 0 and self.indices.max() < len(self.cuis)
        ):
            problem = "it refers to a concept outside its vocabulary"
        elif any(a >= b for a, b in pairwise(self.cuis)):
            problem = "its vocabulary is not ascending"
        elif np.any(np.diff(self.indices)[~_row_starts(self.indptr, len(self.indices))] <= 0):
            problem = "a row's concepts are not ascending"
        if problem:
            raise IndexProblem(f"The label table is damaged: {problem}.")

    @classmethod
    def from_sets(
        cls, sets: Sequence[Collection[str]], cuis: tuple[str, ...] | None = None
    ) -> LabelTable:
        """Build from each row's CUIs; repeats within a row count once.

        Args:
            sets: CUIs of each row.
            cuis: The vocabulary, ascending; None for the CUIs of the rows.
        """
        if cuis is None:
            cuis = tuple(sorted({cui for row in sets for cui in row}))
        position = {cui: j for j, cui in enumerate(cuis)}
        rows = [sorted({position[cui] for cui in row}) for row in sets]
        indptr = np.zeros(len(rows) + 1, np.int64)
        np.cumsum([len(row) for row in rows], out=indptr[1:])
        indices = np.fromiter((j for row in rows for j in row), np.int32, int(indptr[-1]))
        return cls(indptr, indices, cuis)

    @classmethod
    def joined(cls, tables: Sequence[LabelTable]) -> LabelTable:
        """Concatenate tables, over their joint vocabulary."""
        cuis = tuple(sorted({cui for table in tables for cui in table.cuis}))
        position = {cui: j for j, cui in enumerate(cuis)}
        indices, sizes = [np.empty(0, np.int32)], [np.empty(0, np.int64)]
        for table in tables:
            # Both vocabularies ascend, so a row's concepts still do.
            moved = np.array([position[cui] for cui in table.cuis], np.int32)
            indices.append(moved[table.indices])
            sizes.append(table.sizes)
        indptr = np.concatenate([[0], np.cumsum(np.concatenate(sizes))]).astype(np.int64)
        return cls(indptr, np.concatenate(indices), cuis)

    def take(self, rows: NDArray[np.int64]) -> LabelTable:
        """Select rows, int64[m], with the vocabulary reduced to their concepts."""
        sizes = self.sizes[rows]
        indptr = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        indices = self.indices[self.entries(rows)]
        used = np.bincount(indices, minlength=len(self.cuis)) > 0
        moved = (np.cumsum(used) - 1).astype(np.int32)
        cuis = tuple(cui for cui, kept in zip(self.cuis, used.tolist(), strict=True) if kept)
        return LabelTable(indptr, moved[indices], cuis)

    def only(self, cuis: Collection[str]) -> LabelTable:
        """The same rows with these concepts alone."""
        wanted = set(cuis)
        kept = np.array([cui in wanted for cui in self.cuis], bool)
        entries = kept[self.indices] if len(self.indices) else np.zeros(0, bool)
        before = np.concatenate([[0], np.cumsum(entries)]).astype(np.int64)
        moved = (np.cumsum(kept) - 1).astype(np.int32)
        return LabelTable(
            before[self.indptr],
            moved[self.indices[entries]],
            tuple(cui for cui in self.cuis if cui in wanted),
        )

    def replaced(self, rows: Mapping[int, Collection[str]]) -> LabelTable:
        """The same rows, some of them with other concepts, over the vocabulary of the result."""
        table = self.including({cui for cuis in rows.values() for cui in cuis})
        position = {cui: j for j, cui in enumerate(table.cuis)}
        new = {row: sorted({position[cui] for cui in cuis}) for row, cuis in rows.items()}
        sizes = table.sizes.copy()
        sizes[list(new)] = list(map(len, new.values()))
        indptr = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        pieces, start = list[NDArray[np.int32]](), 0
        for row in sorted(new):
            pieces += table.indices[start : table.indptr[row]], np.array(new[row], np.int32)
            start = int(table.indptr[row + 1])
        indices = np.concatenate([*pieces, table.indices[start:]])
        changed = LabelTable(indptr, indices, table.cuis)
        return changed if changed.frequencies.all() else changed.take(np.arange(len(self)))

    def closed(self, ancestors: Callable[[str], Collection[str]]) -> LabelTable:
        """The same rows, each with the ancestors of its concepts, too.

        Args:
            ancestors: The concepts above one; those above them are among them.
        """
        closures = LabelTable.from_sets([{cui, *ancestors(cui)} for cui in self.cuis])
        width = max(len(closures.cuis), 1)
        indices, sizes = [np.empty(0, np.int32)], [np.zeros(1, np.int64)]
        for start in range(0, len(self), _ROWS_AT_ONCE):
            pointers = self.indptr[start : start + _ROWS_AT_ONCE + 1]
            concepts = self.indices[pointers[0] : pointers[-1]].astype(np.int64)
            row = np.repeat(np.arange(len(pointers) - 1), np.diff(pointers))
            row = np.repeat(row, closures.sizes[concepts])
            entries = np.unique(row * width + closures.indices[closures.entries(concepts)])
            indices.append((entries % width).astype(np.int32))
            sizes.append(np.bincount(entries // width, minlength=len(pointers) - 1))
        indptr = np.cumsum(np.concatenate(sizes), dtype=np.int64)
        return LabelTable(indptr, np.concatenate(indices), closures.cuis)

    def including(self, cuis: Collection[str]) -> LabelTable:
        """The same rows over a vocabulary that has these concepts, too."""
        joint = tuple(sorted({*self.cuis, *cuis}))
        if joint == self.cuis:
            return self
        position = {cui: j for j, cui in enumerate(joint)}
        # Both vocabularies ascend, so a row's concepts still do.
        moved = np.array([position[cui] for cui in self.cuis], np.int32)
        return LabelTable(self.indptr, moved[self.indices], joint)

    def __len__(self) -> int:
        return len(self.indptr) - 1

    def entries(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Positions in `indices` of the entries of some rows, one row after the other; int64[m]."""
        sizes = self.sizes[rows]
        starts = self.indptr[rows] - (np.cumsum(sizes) - sizes)
        entries: NDArray[np.int64] = np.arange(sizes.sum()) + np.repeat(starts, sizes)
        return entries

    def row(self, i: int) -> tuple[str, ...]:
        """The CUIs of row i, ascending."""
        cuis, entries = self.cuis, self.indices[self.indptr[i] : self.indptr[i + 1]].tolist()
        return tuple([cuis[j] for j in entries])

    def holders(self, cui: str) -> NDArray[np.int64]:
        """Rows with a CUI, which need not be in the vocabulary; int64[m], ascending."""
        j = bisect.bisect_left(self.cuis, cui)
        if j == len(self.cuis) or self.cuis[j] != cui:
            return np.zeros(0, np.int64)
        return np.searchsorted(self.indptr, np.flatnonzero(self.indices == j), side="right") - 1

    @cached_property
    def sizes(self) -> NDArray[np.int64]:
        """Number of CUIs of each row, int64[n]."""
        return np.diff(self.indptr)

    @cached_property
    def sample(self) -> NDArray[np.int64]:
        """Fixed, evenly spaced sample of rows, int64[m]."""
        return sample_rows(len(self), SAMPLE)

    @cached_property
    def frequencies(self) -> NDArray[np.int64]:
        """Number of rows with each CUI, int64[len(cuis)]."""
        return np.bincount(self.indices, minlength=len(self.cuis))

    @cached_property
    def ranks(self) -> NDArray[np.int64]:
        """Rank of each concept by falling frequency, then by its rows, int64[len(cuis)].

        Rows compare as lists do. So an order by rank is the same by whatever ids the concepts go;
        only those with the very same rows are in the order of their ids.
        """
        rows = np.repeat(np.arange(len(self)), self.sizes)
        first = np.zeros(len(self.cuis), np.int64)
        first[self.indices[::-1]] = rows[::-1]
        order = np.lexsort((first, -self.frequencies))
        same = np.zeros(len(order) + 1, bool)  # as the one before
        same[1:-1] = (np.diff(first[order]) == 0) & (np.diff(self.frequencies[order]) == 0)
        starts = np.flatnonzero(~same[:-1] & same[1:])
        ends = np.flatnonzero(same[:-1] & ~same[1:]) + 1
        tied = np.zeros(len(order), bool)
        tied[order[same[:-1] | same[1:]]] = True
        entries = np.flatnonzero(tied[self.indices])
        entries = entries[np.argsort(self.indices[entries], kind="stable")]
        bounds = np.searchsorted(self.indices[entries], np.arange(len(order) + 1))
        for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
            order[start:end] = sorted(
                order[start:end].tolist(),
                key=lambda j: (rows[entries[bounds[j] : bounds[j + 1]]].tolist(), j),
            )
        ranks = np.empty_like(order)
        ranks[order] = np.arange(len(order))
        return ranks


def _row_starts(indptr: NDArray[np.int64], nnz: int) -> NDArray[np.bool_]:
    """bool[nnz - 1]: whether entry i + 1 begins a new row, so that i and i + 1 do not compare."""
    starts = np.zeros(max(nnz, 1), bool)
    inner = indptr[1:-1]
    starts[inner[inner < nnz]] = True
    return starts[1:]
