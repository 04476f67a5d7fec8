"""Incomplete labels: the neighbours of a case fill in what its own labels may lack.

Where annotators named some of what is on an image and left out the rest, a missing label votes
against a concept that is there. So each case votes with its labels and with those that its own
neighbours choose for it: the set with the highest expected F1 under their vote, its own group left
out. Each case is filled in once, by the labels that were given, not by what was filled in before.
docs/incomplete.md has what was measured.

What is filled in for an image depends on its neighbours' labels, so that in an estimate an image
would see its own labels again, in what they brought its neighbours. Therefore groups are dealt to
five folds, and for each fold it is kept which concepts are filled in without it: an image of a fold
is annotated by cases that were filled in without that fold.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from annotator.errors import AnnotatorError
from annotator.knn.cross_validation import NeighborLists
from annotator.knn.decision import choose_concepts
from annotator.knn.neighbors import Find, nearest_of_other_groups, nearest_others
from annotator.knn.posterior import weigh
from annotator.knn.voting import Voting
from index import FlatIndex, LabelTable, Neighbors, StoredIndex
from index.progress import track
from index.protocols import Index

COLUMN = "inferred"  # of an index: what is filled in for each row
FOLDS = 5

_EVERY = (1 << FOLDS + 1) - 1  # bit f: without fold f; the last one: by all neighbours
_BY_ALL = FOLDS
_MOST_SEARCHED = 100_000  # rows; more are dealt to parts, or the work would be quadratic
_ROWS_AT_ONCE = 256


def infer_labels(
    project: Callable[[NDArray[np.int64]], NDArray[np.float32]],
    labels: LabelTable,
    groups: NDArray[np.int64],
    folds: NDArray[np.int64],
    voting: Voting,
) -> list[str]:
    """Infer what the labels of each row of an index may lack, from its neighbours of other groups.

    Of more than 100,000 rows, each is filled in by those of its part, at most that many.

    Args:
        project: Function from row numbers to vectors of the index, float32[m, dim] of unit norm.
        labels: Labels of the n rows.
        groups: int64[n], from `group_numbers`.
        folds: int64[n], from `folds_of`.
        voting: Voting parameters.

    Returns:
        Text of `COLUMN` of each row.
    """
    n, texts = len(labels), [""] * len(labels)
    number = -(-n // _MOST_SEARCHED)
    for rows in (np.arange(part, n, number) for part in range(number)):
        vectors = project(rows)
        index = FlatIndex(vectors)
        starts = range(0, len(rows), _ROWS_AT_ONCE)
        blocks = [slice(start, start + _ROWS_AT_ONCE) for start in starts]
        for block in track(blocks, total=len(blocks), label="Filling in", unit="blocks"):
            own = rows[block]
            found = nearest_of_other_groups(
                index, groups[rows], vectors[block], groups[own], 2 * voting.k
            )  # twice as many, for a fold to be left out
            found = replace(found, rows=rows[found.rows])
            inferred = _inferred(found, labels, folds, voting)
            for row, bits in zip(own.tolist(), inferred, strict=True):
                texts[row] = _written(bits, labels.row(row))
    return texts


def _inferred(
    found: Neighbors, labels: LabelTable, folds: NDArray[np.int64], voting: Voting
) -> list[dict[str, int]]:
    """Concepts that the neighbours of each of q rows choose, with the bits of `_EVERY`."""
    bits: list[dict[str, int]] = [{} for _ in found.rows]
    for bit in (*range(FOLDS), _BY_ALL):
        others = found.without(folds[found.rows] == bit, voting.k)
        decisions = choose_concepts(weigh(others, labels, voting), voting)
        for own, decision in zip(bits, decisions, strict=True):
            for cui in decision.cuis:
                own[cui] = own.get(cui, 0) | 1 << bit
    return bits


def _written(bits: dict[str, int], given: Sequence[str]) -> str:
    """Text of a row: concepts, each with its bits unless it has all."""
    return ";".join(
        cui if bits[cui] == _EVERY else f"{cui}|{bits[cui]}"
        for cui in sorted(bits)
        if cui not in given
    )


def inferred_of(text: str, fold: int = _BY_ALL) -> list[str]:
    """Concepts that are filled in for a row.

    Args:
        text: Of `COLUMN`.
        fold: Fold whose labels are left out; by default none is.
    """
    entries = (entry.partition("|") for entry in text.split(";") if entry)
    return [cui for cui, _, bits in entries if not bits or int(bits) >> fold & 1]


def filled_in(labels: LabelTable, texts: Sequence[str], fold: int = _BY_ALL) -> LabelTable:
    """The labels of n rows with what is filled in.

    Args:
        labels: Labels of the rows. Concepts that are not in their vocabulary are not filled in.
        texts: Text of `COLUMN` of each row.
        fold: As for `inferred_of`.
    """
    position = {cui: j for j, cui in enumerate(labels.cuis)}
    width = max(len(position), 1)
    added = [
        row * width + position[cui]
        for row, text in enumerate(texts)
        for cui in inferred_of(text, fold)
        if cui in position
    ]
    given = np.repeat(np.arange(len(labels)), labels.sizes) * width + labels.indices
    entries = np.union1d(given, np.array(added, np.int64))
    sizes = np.bincount(entries // width, minlength=len(labels))
    indptr = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    return LabelTable(indptr, (entries % width).astype(np.int32), labels.cuis)


def folds_of(ids: Sequence[str], groups: Sequence[str] | None) -> NDArray[np.int64]:
    """Fold of each image, int64[n], by its group, or by its id if it has none.

    It depends on these alone: images that are added or removed move no other.
    """
    names = ids if groups is None else [g or id_ for g, id_ in zip(groups, ids, strict=True)]
    return np.array([zlib.crc32(name.encode()) % FOLDS for name in names], np.int64)


def with_filled_in(
    lists: NeighborLists, labels: LabelTable, texts: Sequence[str], folds: NDArray[np.int64]
) -> tuple[NeighborLists, LabelTable]:
    """Neighbour lists whose neighbours vote with what was filled in without the query's fold.

    The queries keep the labels that were given: what comes out is compared with those.

    Args:
        lists: Of an index of n rows.
        labels: Labels of the rows, as given.
        texts: Text of `COLUMN` of each row.
        folds: int64[n], from `folds_of`.

    Returns:
        The lists, and the labels that belong to them.
    """
    by_fold = [filled_in(labels, texts, fold) for fold in range(FOLDS)]
    joined = LabelTable.joined([labels, *by_fold])
    start = len(labels) * (1 + folds[lists.queries])
    found = replace(lists.found, rows=lists.found.rows + start[:, None])
    whole = filled_in(labels, texts)
    return replace(lists, found=found), _Versions(joined.indptr, joined.indices, joined.cuis, whole)


def voters(
    lists: NeighborLists, labels: LabelTable, stored: Index, voting: Voting
) -> tuple[NeighborLists, LabelTable]:
    """The lists of an index with the labels that vote in them.

    Args:
        lists: From `stored_lists`.
        labels: Labels of the rows, as given, or some of their concepts.
        stored: The index.
        voting: Says whether something is filled in.
    """
    if not voting.assume_incomplete:
        return lists, labels
    texts = texts_of(stored)
    assert isinstance(stored, StoredIndex)
    folds = folds_of(stored.ids, stored.columns.get("groups"))
    return with_filled_in(lists, labels, texts, folds)


def texts_of(stored: Index) -> Sequence[str]:
    """Text of `COLUMN` of each row of an index.

    Raises:
        AnnotatorError: It has none.
    """
    texts = stored.columns.get(COLUMN) if isinstance(stored, StoredIndex) else None
    if texts is None:
        raise AnnotatorError(
            "Nothing was filled in for the labels of the index.",
            "Build it with --assume-incomplete, or leave assume_incomplete out of the voting.",
        )
    return texts


def infer_later(
    find: Find,
    vectors: NDArray[np.float32],
    given: LabelTable,
    groups: Sequence[str],
    ids: Sequence[str],
    voting: Voting,
) -> list[str]:
    """What the labels of rows that are added to an index may lack, by the vote of its cases.

    Args:
        find: `Index.find` of the index before.
        vectors: float32[m, dim] of unit norm, of the rows, in the space of the index.
        given: Their labels.
        groups: Their groups, whose cases do not vote; "" for none.
        ids: Their ids, whose cases do not vote.
        voting: Voting parameters.

    Returns:
        Text of `COLUMN` of each.
    """
    texts: list[str] = []
    for found in nearest_others(find, vectors, ids, groups, voting.k):
        decisions = choose_concepts(weigh(found.neighbors, found.cases.labels, voting), voting)
        for decision in decisions:
            bits = dict.fromkeys(decision.cuis, _EVERY)
            texts.append(_written(bits, given.row(len(texts))))
    return texts


@dataclass(frozen=True)
class _Versions(LabelTable):
    """Labels of the same rows several times over: as given, then filled in without each fold.

    Attributes:
        whole: Filled in by all; frequencies are of these.
    """

    whole: LabelTable

    def including(self, cuis: Collection[str]) -> LabelTable:
        """As `LabelTable.including`."""
        joint = super().including(cuis)
        whole = self.whole.including(cuis)
        return _Versions(joint.indptr, joint.indices, joint.cuis, whole)

    @cached_property
    def sample(self) -> NDArray[np.int64]:
        """As `LabelTable.sample`, of the rows as given."""
        return self.whole.sample

    @cached_property
    def frequencies(self) -> NDArray[np.int64]:
        """As `LabelTable.frequencies`, of each row once."""
        return self.whole.frequencies

    @cached_property
    def ranks(self) -> NDArray[np.int64]:
        """As `LabelTable.ranks`, of each row once."""
        return self.whole.ranks
