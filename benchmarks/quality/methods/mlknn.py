"""MLkNN (Zhang and Zhou 2007, "ML-KNN: a lazy learning approach to multi-label learning")."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.quality.data import Data
from benchmarks.quality.labels import Vocabulary, f1_of_rows, group_folds, sample_of_groups
from benchmarks.quality.methods.neighbours import Near, foreign_neighbours
from index import FlatIndex

KS = (1, 3, 5, 7, 10, 15, 20, 30, 50)
_SAMPLED = 10_000  # training images that folds are made of, at most


class MLkNN:
    """For each concept, the maximum a posteriori decision from the number of neighbours with it.

    Smoothing s = 1. A training image's neighbours are of other groups than its own; k is the one
    with the highest F1 over five group-aware folds, where a fold is decided by the tables of the
    other folds.
    """

    name = "MLkNN"

    def __init__(self) -> None:
        self.chosen: dict[str, Any] = {}

    def fit(self, train: Data) -> None:
        """Count the neighbours' concepts, choose k, make the tables."""
        self._vocabulary = Vocabulary(train.labels)
        self._labels = self._vocabulary.matrix(train.labels)
        self._index = FlatIndex(train.vectors())
        rows = sample_of_groups(train.groups, _SAMPLED)
        near = foreign_neighbours(train, self._labels, max(KS), rows)
        truth = self._labels[rows].toarray() > 0
        best = -1.0
        for k in (k for k in KS if k <= near.rows.shape[1]):
            counts = near.first(k).votes().astype(np.int64)
            f1 = np.zeros(len(rows))
            for fitted, held in group_folds(train.groups[rows]):
                tables = joint_tables(counts[fitted], truth[fitted], k)
                f1[held] = f1_of_rows(truth[held], decide(counts[held], *tables))
            if f1.mean() > best + 1e-9:
                best = float(f1.mean())
                self.chosen = {"k": k}
                self._tables = joint_tables(counts, truth, k)
        self.chosen["f1_on_training_side"] = round(best, 4)

    def predict(self, test: Data) -> list[set[str]]:
        """Search, count, decide."""
        found = self._index.search(test.vectors(), self.chosen["k"])
        counts = Near(found.rows, found.similarities, self._labels).votes().astype(np.int64)
        return self._vocabulary.sets(decide(counts, *self._tables))


def joint_tables(
    counts: NDArray[np.int64], truth: NDArray[np.bool_], k: int, smoothing: float = 1.0
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Joint probabilities, prior times likelihood.

    Args:
        counts: int64[n, c], how many of the k neighbours have each concept.
        truth: bool[n, c], whether the image itself has it.
        k: Number of neighbours.
        smoothing: s of the paper.

    Returns:
        Two float64[k + 1, c] by number of neighbours: with the concept, and without.
    """
    n, c = truth.shape
    prior = (smoothing + truth.sum(axis=0)) / (2 * smoothing + n)
    joint = []
    for has, p in ((truth, prior), (~truth, 1 - prior)):
        table = np.zeros((k + 1, c))
        row, column = np.nonzero(has)
        np.add.at(table, (counts[row, column], column), 1.0)
        likelihood = (smoothing + table) / (smoothing * (k + 1) + table.sum(axis=0))
        joint.append(p * likelihood)
    return joint[0], joint[1]


def decide(
    counts: NDArray[np.int64], has: NDArray[np.float64], lacks: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """bool[q, c]: the concepts that are more likely there than not, given counts int64[q, c]."""
    column = np.arange(counts.shape[1])
    chosen: NDArray[np.bool_] = has[counts, column] > lacks[counts, column]
    return chosen
