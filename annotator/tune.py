"""Voting parameters chosen on the index itself, by leave-one-group-out."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from annotator.progress import Progress, silent
from annotator.score.evaluation import bootstrap_interval
from annotator.score.scorers import image_f1
from annotator.vote.voting import Voting
from index import LabelTable, Neighbors, VectorIndex

KS = (5, 10, 20, 50, 100)
BETAS = (8.0, 16.0, 24.0, 32.0, 48.0, 64.0, 96.0, 128.0)
LEAST_IMAGES = 100  # with fewer, chance decides more than the parameters do
_MOST_IMAGES = 5000  # annotated for the estimate; a standard error of 0.003 or so
_LARGEST_GROUP = 1000  # neighbours of the own group that a search looks past
_SEARCHED_AT_ONCE = 256


@dataclass(frozen=True)
class Tuned:
    """What tuning chose, and how good it is on images that the index does not hold.

    Attributes:
        voting: The parameters with the highest mean F1.
        f1: That F1, each image annotated by images of other groups.
        interval: Its 95% bootstrap interval.
        images: How many were annotated for it.
        grid: F1 of every pair of k and beta.
    """

    voting: Voting
    f1: float
    interval: tuple[float, float]
    images: int
    grid: Sequence[Mapping[str, float]]

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types, for the index's manifest."""
        return asdict(self)


def tune(
    index: VectorIndex,
    vectors: NDArray[np.float32],
    concepts: Sequence[Sequence[str]],
    groups: Sequence[str],
    *,
    voting: Voting | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> Tuned | None:
    """Choose k and beta so that rows are best annotated by rows of other groups.

    No validation split is needed. Of more than 5,000 rows, 5,000 drawn with `seed` are annotated;
    all of them vote. The best of a grid flatters itself a little; with 40 pairs and hundreds of
    images that is less than the interval's width.

    Args:
        index: Holds `vectors`.
        vectors: float32[n, dim], of unit norm.
        concepts: CUIs of each row.
        groups: Patient, study or figure of each row; an empty one is a group of its own.
        voting: What is not tuned (the decider and its parameters).
        seed: Of the draw.
        progress: Told about every annotated row.

    Returns:
        None if fewer than 100 rows could be annotated.
    """
    numbers = group_numbers(groups)
    n = len(vectors)
    queries = np.arange(n)
    if n > _MOST_IMAGES:
        queries = np.sort(np.random.default_rng(seed).choice(n, _MOST_IMAGES, replace=False))
    neighbors = _of_other_groups(index, vectors, queries, numbers, progress)
    usable = np.isfinite(neighbors.similarities[:, 0]) if neighbors.rows.size else np.zeros(0, bool)
    if usable.sum() < LEAST_IMAGES:
        return None
    neighbors = Neighbors(neighbors.rows[usable], neighbors.similarities[usable])
    truth = [concepts[row] for row in queries[usable]]
    labels = LabelTable.from_sets(concepts)
    scores: dict[tuple[int, float], NDArray[np.float64]] = {}
    for k, beta in itertools.product(KS, BETAS):
        _, decisions = replace(voting or Voting(), k=k, beta=beta).decide(neighbors, labels)
        pairs = zip(truth, decisions, strict=True)
        scores[k, beta] = np.array([_image_score(t, d.cuis) for t, d in pairs])
    k, beta = max(scores, key=lambda pair: (round(float(scores[pair].mean()), 12), pair))
    return Tuned(
        voting=replace(voting or Voting(), k=k, beta=beta),
        f1=float(scores[k, beta].mean()),
        interval=bootstrap_interval(scores[k, beta].tolist()),
        images=len(truth),
        grid=[
            {"k": k, "beta": beta, "f1": round(float(values.mean()), 6)}
            for (k, beta), values in scores.items()
        ],
    )


def group_numbers(groups: Sequence[str]) -> NDArray[np.int64]:
    """int64[n]: equal for rows of one group; rows without a group are each their own."""
    named = {group: i for i, group in enumerate(sorted({g for g in groups if g}))}
    alone = itertools.count(len(named))
    return np.array([named[g] if g else next(alone) for g in groups], np.int64)


def _image_score(truth: Sequence[str], run: Sequence[str]) -> float:
    """The task's score of one image: F1, and 1 where there is nothing to find and nothing found."""
    return image_f1(set(truth), run) if truth or run else 1.0


def _of_other_groups(
    index: VectorIndex,
    vectors: NDArray[np.float32],
    queries: NDArray[np.int64],
    groups: NDArray[np.int64],
    progress: Progress,
) -> Neighbors:
    """The nearest rows of each query row that belong to another group.

    Where there are too few, the rest have similarity -inf, which is no vote.
    """
    largest = int(np.bincount(groups).max(initial=0))
    searched = min(max(KS) + min(largest, _LARGEST_GROUP), len(vectors))
    rows = np.empty((len(queries), min(max(KS), searched)), np.int64)
    similarities = np.empty(rows.shape, np.float32)
    for start in progress(range(len(queries)), total=len(queries), label="Tuning"):
        if start % _SEARCHED_AT_ONCE:
            continue  # done with the block that it belongs to
        block = queries[start : start + _SEARCHED_AT_ONCE]
        found = index.search(np.array(vectors[block]), searched)
        own = groups[found.rows] == groups[block][:, None]
        similarity = np.where(own, -np.inf, found.similarities).astype(np.float32)
        order = np.argsort(own, axis=1, kind="stable")[:, : rows.shape[1]]
        part = slice(start, start + len(block))
        rows[part] = np.take_along_axis(found.rows, order, axis=1)
        similarities[part] = np.take_along_axis(similarity, order, axis=1)
    return Neighbors(rows, similarities)
