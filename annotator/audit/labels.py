"""Concepts that an image's neighbours contradict: likely label errors.

An image whose concepts are wrong looks like images that have others. So each image is judged by
the cases of other groups alone, through a projection that has not seen its concepts, as confident
learning judges a label by out-of-sample probabilities (Northcutt, Jiang and Chuang 2021), with the
task's metric for a set of concepts in place of a probability for a single class.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from annotator.knn.cross_validation import (
    LEAST_IMAGES,
    NeighborLists,
    cross_fitted,
    group_folds,
    group_numbers,
)
from annotator.knn.decision import choose_concepts
from annotator.knn.fit import Fitter
from annotator.knn.posterior import Posterior, count_votes, weigh
from annotator.knn.voting import Voting
from index import LabelTable

LEAST_DOUBT = 0.25
_PENALTY = 1.0  # of the regression; what tuning chooses on most collections
_JUDGED_AT_ONCE = 512


@dataclass(frozen=True)
class Doubt:
    """One image whose concepts are doubtful.

    Attributes:
        row: Of the image.
        score: The F1 that its neighbours expect of the best set of concepts, less what they expect
            of those that it has; 0..1.
        lacks: Concepts of that best set that it does not have, with their share of the votes.
        holds: Concepts that it has and that set has not, with their share of the votes.
    """

    row: int
    score: float
    lacks: tuple[tuple[str, float], ...]
    holds: tuple[tuple[str, float], ...]


def lists_within(
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
    lists = cross_fitted(fitter, vectors, numbers, folds, _PENALTY, queries=every)
    return lists if len(lists.queries) >= LEAST_IMAGES else None


def doubtful(
    lists: NeighborLists,
    known: LabelTable,
    concepts: Sequence[Sequence[str]],
    *,
    voting: Voting | None = None,
    least: float = LEAST_DOUBT,
) -> list[Doubt]:
    """The images whose concepts their neighbours contradict, the most doubtful first.

    Args:
        lists: Neighbours of images.
        known: Concepts of the neighbours.
        concepts: CUIs of each image that `lists.queries` may name.
        voting: How the neighbours vote; None for the default.
        least: The least doubt.
    """
    voting = voting or Voting()
    doubts: list[Doubt] = []
    for start in range(0, len(lists.queries), _JUDGED_AT_ONCE):
        part = slice(start, start + _JUDGED_AT_ONCE)
        posterior = weigh(lists.found.take(part), known, voting)
        decisions = choose_concepts(posterior, voting)
        rows = lists.queries[part].tolist()
        given = [tuple(dict.fromkeys(concepts[row])) for row in rows]
        expected = expected_f1(posterior, given)
        shares = _shares(posterior)
        for i, (row, decision) in enumerate(zip(rows, decisions, strict=True)):
            score = float(decision.expected_f1 - expected[i])
            if score < least:
                continue
            votes = shares[i]
            doubts.append(
                Doubt(
                    row,
                    score,
                    tuple((c, votes[c]) for c in decision.cuis if c not in given[i]),
                    tuple((c, votes.get(c, 0.0)) for c in given[i] if c not in decision.cuis),
                )
            )
    return sorted(doubts, key=lambda doubt: (-doubt.score, doubt.row))


def expected_f1(posterior: Posterior, given: Sequence[Sequence[str]]) -> NDArray[np.float64]:
    """float64[q]: the F1 that the neighbours expect of a set of concepts given for each image.

    Args:
        posterior: Of q images.
        given: q sets of CUIs; those that no neighbour knows count as wrong.
    """
    cuis, votes = posterior.labels.cuis, count_votes(posterior)
    position = {cui: j for j, cui in enumerate(cuis)}
    keys = [
        i * max(len(cuis), 1) + position[cui]
        for i, row in enumerate(given)
        for cui in row
        if cui in position
    ]
    candidates = votes.candidate_image * max(len(cuis), 1) + votes.candidate_cui
    is_given = np.isin(candidates, np.array(keys, np.int64))
    return votes.expected_f1(is_given, np.array([len(row) for row in given], np.int64))


def _shares(posterior: Posterior) -> list[dict[str, float]]:
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
