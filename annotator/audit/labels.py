"""Likely label errors: concepts that an image's neighbours contradict.

An image whose concepts are wrong looks like images that have others. So each image is judged by
the cases of other groups alone, through a projection that has not seen its concepts, as confident
learning judges a label by out-of-sample probabilities (Northcutt, Jiang and Chuang 2021), with the
task's metric for a set of concepts in place of a probability for a single class.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from annotator.audit.findings import Finding
from annotator.audit.inputs import AuditInput, AuditLabels, ReferenceIndex
from annotator.evaluation.measures import group_numbers
from annotator.indexing.metadata import IndexMetadata
from annotator.knn.cross_validation import (
    LEAST_IMAGES,
    NeighborLists,
    cross_fitted,
    group_folds,
)
from annotator.knn.decision import choose_concepts
from annotator.knn.fit import Fitter
from annotator.knn.neighbors import nearest_others
from annotator.knn.posterior import Posterior, count_votes, weigh
from annotator.knn.voting import Voting
from index import LabelTable, Neighbors
from index.rows import SearchResult

if TYPE_CHECKING:
    from annotator.encoders.embedder import Embedder

MIN_SCORE = 0.25  # of a label issue
_PENALTY = 1.0  # of the regression; what tuning chooses on most collections
_JUDGED_AT_ONCE = 512
_MORE = 50  # neighbours beyond those that vote, to leave out the image's own


@dataclass(frozen=True)
class LabelIssue:
    """An image whose concepts are doubtful.

    Attributes:
        row: Of the image.
        score: Expected F1 of the best set of concepts, less that of the given set; 0..1.
        missing: Concepts of the best set that are not given, with their share of the votes.
        unexpected: Given concepts that the best set lacks, with their share of the votes.
        best: The best set, with the share of the votes of each concept; best first.
    """

    row: int
    score: float
    missing: tuple[tuple[str, float], ...]
    unexpected: tuple[tuple[str, float], ...]
    best: tuple[tuple[str, float], ...] = ()


def check_labels(
    data: AuditInput,
    labels: AuditLabels,
    groups: Sequence[str],
    embedder: Embedder,
    index: ReferenceIndex | None,
) -> tuple[list[Finding], list[str]]:
    """Images with doubtful concepts; notes where there is too little to judge by.

    Args:
        data: The images.
        labels: Their concepts, if there are any.
        groups: Of each image, duplicates merged: they do not judge each other.
        embedder: The encoder. If it was fitted to labels, perhaps to these, what it learnt of them
            is left out where the images judge each other: it would defend their errors.
        index: Judges the concepts; None if the images judge each other.
    """
    if labels.concepts is None:
        return [], []
    ids = data.ids
    rows = np.array([row for row, id_ in enumerate(ids) if id_ in labels.concepts], np.int64)
    sets = [labels.concepts[ids[row]] for row in rows]
    vectors = data.vectors if len(rows) == len(ids) else data.vectors[rows]
    if index is None:
        blocks: Sequence[int] = embedder.blocks
        if embedder.fitted is not None:
            columns, blocks = embedder.fitted.general(blocks)
            vectors = vectors[:, columns]
        neighbors = neighbors_within(vectors, sets, [groups[row] for row in rows], blocks=blocks)
        known, voting = LabelTable.from_sets(sets), Voting()
    else:
        labelled = [ids[row] for row in rows]
        of_ids = [labels.groups.get(id_, "") for id_ in labelled]
        known, voting = index.stored.labels, IndexMetadata.of(index.stored).voting
        neighbors = neighbors_in_index(index, vectors, labelled, of_ids, voting.k)
    if neighbors is None:
        return [], [
            f"Concepts were not checked: that takes {LEAST_IMAGES} images with concepts, of "
            "several groups."
        ]
    issues = find_label_issues(neighbors, known, sets, voting)
    return [_finding(issue, ids[rows[issue.row]], labels) for issue in issues], []


def neighbors_within(
    vectors: NDArray[np.float32],
    concepts: Sequence[Sequence[str]],
    groups: Sequence[str],
    *,
    blocks: Sequence[int],
) -> NeighborLists | None:
    """Each image's neighbours of other groups; None with too few images to judge by.

    Args:
        vectors: float32[n, dim] of unit norm, as the encoder made them; may be mapped from disk.
        concepts: CUIs of each row.
        groups: Of each row; an empty one is a group of its own.
        blocks: Of the encoder.
    """
    if len(vectors) < LEAST_IMAGES:
        return None
    numbers = group_numbers(groups)
    folds = group_folds(numbers)
    fitter = Fitter(vectors, LabelTable.from_sets(concepts), blocks, folds)
    every = np.arange(len(vectors))
    lists = cross_fitted(partial(fitter.own_rows, _PENALTY), vectors, numbers, folds, queries=every)
    return lists if len(lists.queries) >= LEAST_IMAGES else None


def neighbors_in_index(
    index: ReferenceIndex,
    vectors: NDArray[np.float32],
    ids: Sequence[str],
    groups: Sequence[str],
    k: int,
) -> NeighborLists | None:
    """Each image's neighbours in an index, without itself and its group; None if none is left.

    Args:
        index: May hold the images, too.
        vectors: float32[n, dim], as the encoder made them.
        ids: Of the images.
        groups: Of the images; "" for none.
        k: Neighbours of each image.
    """
    projection = index.projection

    def find(queries: NDArray[np.float32], k: int) -> SearchResult:
        queries = np.array(queries)
        return index.stored.find(projection.apply(queries) if projection else queries, k)

    found = [part.neighbors for part in nearest_others(find, vectors, ids, groups, k, more=_MORE)]
    if not found:
        return None
    joined = Neighbors(
        np.concatenate([neighbors.rows for neighbors in found]),
        np.concatenate([neighbors.similarities for neighbors in found]),
    )
    kept = np.flatnonzero(np.isfinite(joined.similarities[:, 0]))
    return NeighborLists(kept, joined.take(kept)) if len(kept) else None


def find_label_issues(
    neighbors: NeighborLists,
    known: LabelTable,
    concepts: Sequence[Sequence[str]],
    voting: Voting,
    *,
    min_score: float = MIN_SCORE,
) -> list[LabelIssue]:
    """The images whose concepts their neighbours contradict, the most doubtful first.

    Args:
        neighbors: Of the images.
        known: Concepts of the neighbours.
        concepts: CUIs of each image that `neighbors.queries` may name.
        voting: How the neighbours vote.
        min_score: Least score of an issue.
    """
    issues: list[LabelIssue] = []
    for start in range(0, len(neighbors.queries), _JUDGED_AT_ONCE):
        part = slice(start, start + _JUDGED_AT_ONCE)
        posterior = weigh(neighbors.found.take(part), known, voting)
        decisions = choose_concepts(posterior, voting)
        rows = neighbors.queries[part].tolist()
        given = [tuple(dict.fromkeys(concepts[row])) for row in rows]
        expected = expected_f1(posterior, given)
        shares = _vote_shares(posterior)
        for i, (row, decision) in enumerate(zip(rows, decisions, strict=True)):
            score = float(decision.expected_f1 - expected[i])
            if score < min_score:
                continue
            missing = tuple((c, shares[i][c]) for c in decision.cuis if c not in given[i])
            unexpected = tuple(
                (c, shares[i].get(c, 0.0)) for c in given[i] if c not in decision.cuis
            )
            best = tuple(zip(decision.cuis, decision.scores.tolist(), strict=True))
            issues.append(LabelIssue(row, score, missing, unexpected, best))
    return sorted(issues, key=lambda issue: (-issue.score, issue.row))


def expected_f1(posterior: Posterior, given: Sequence[Sequence[str]]) -> NDArray[np.float64]:
    """float64[q]: the F1 that the neighbours expect of a set of concepts given for each image.

    Args:
        posterior: Of q images.
        given: q sets of CUIs; those that no neighbour knows count as wrong.
    """
    votes, cuis = count_votes(posterior), posterior.labels.cuis
    sets = [set(row) for row in given]
    candidates = zip(votes.candidate_image.tolist(), votes.candidate_cui.tolist(), strict=True)
    is_given = np.array([cuis[cui] in sets[image] for image, cui in candidates], bool)
    return votes.expected_f1(is_given, np.array([len(row) for row in given], np.int64))


def _vote_shares(posterior: Posterior) -> list[dict[str, float]]:
    """For each image the share of the votes of each concept that got one."""
    votes = count_votes(posterior)
    shares: list[dict[str, float]] = [{} for _ in range(len(posterior))]
    cuis = posterior.labels.cuis
    for image, cui, score in zip(
        votes.candidate_image.tolist(),
        votes.candidate_cui.tolist(),
        votes.scores.tolist(),
        strict=True,
    ):
        shares[image][cuis[cui]] = score
    return shares


def describe_issue(issue: LabelIssue, named: Callable[[str], str]) -> str:
    """What an image lacks and holds, in words.

    Args:
        issue: Of the image.
        named: Function from a CUI to how it is told.
    """
    parts = []
    for word, concepts in (("lacks", issue.missing), ("holds", issue.unexpected)):
        if concepts:
            votes = (f"{named(cui)} ({share:.0%} of votes)" for cui, share in concepts)
            parts.append(f"{word} {', '.join(votes)}")
    return "; ".join(parts)


def _finding(issue: LabelIssue, image_id: str, labels: AuditLabels) -> Finding:
    return Finding("label", image_id, "", issue.score, describe_issue(issue, labels.named))
