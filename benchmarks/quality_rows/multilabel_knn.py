"""The multi-label kNN methods of the literature: scikit-learn's, MLkNN, BRkNN-a and BRkNN-b."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from index import FlatIndex
from quality_rows.data import Data
from quality_rows.labels import Vocabulary, f1_of_rows, group_folds, sample_of_groups, top
from quality_rows.neighbours import Near, NeighbourRow, Parameters, foreign_neighbours
from quality_rows.published import by_mean_size

KS = (1, 3, 5, 7, 10, 15, 20, 30, 50)
_SAMPLED = 10_000  # training images that folds are made of, at most


class DistanceWeighted:
    """scikit-learn's `KNeighborsClassifier(weights="distance")`; k by five group-aware folds."""

    name = "scikit-learn kNN, distance weights"

    def __init__(self) -> None:
        self.chosen: dict[str, Any] = {}

    def fit(self, train: Data) -> None:
        """Choose k, then take in the whole training side."""
        self._vocabulary = Vocabulary(train.labels)
        labels = self._vocabulary.matrix(train.labels).toarray().astype(np.int8)
        vectors = train.vectors()
        rows = sample_of_groups(train.groups, _SAMPLED)
        f1 = {k: np.zeros(len(rows)) for k in KS}
        for fitted, held in group_folds(train.groups[rows]):
            for k in KS:
                model = _classifier(min(k, len(fitted)))
                model.fit(vectors[rows[fitted]], labels[rows[fitted]])
                chosen = _as_matrix(model.predict(vectors[rows[held]]))
                f1[k][held] = f1_of_rows(labels[rows[held]] > 0, chosen)
        k = max(KS, key=lambda k: (round(f1[k].mean(), 9), -k))
        self.chosen = {"k": k, "f1_on_training_side": round(float(f1[k].mean()), 4)}
        self._model = _classifier(min(k, len(vectors))).fit(vectors, labels)

    def predict(self, test: Data) -> list[set[str]]:
        """Whatever the classifier says."""
        return self._vocabulary.sets(_as_matrix(self._model.predict(test.vectors())))


class MLkNN:
    """MLkNN (Zhang and Zhou 2007, "ML-KNN: a lazy learning approach to multi-label learning").

    For each concept, the maximum a posteriori decision from the number of neighbours that have it,
    with smoothing s = 1. A training image's neighbours are of other groups than its own; k is the
    one with the highest F1 over five group-aware folds, where a fold is decided by the tables of
    the other folds.
    """

    name = "MLkNN"

    def __init__(self) -> None:
        self.chosen: dict[str, Any] = {}

    def fit(self, train: Data) -> None:
        """Count the neighbours' concepts, choose k, make the tables."""
        self._vocabulary = Vocabulary(train.labels)
        self._labels = self._vocabulary.matrix(train.labels)
        vectors = train.vectors()
        self._index = FlatIndex(vectors)
        rows = sample_of_groups(train.groups, _SAMPLED)
        near = foreign_neighbours(vectors, train.groups, self._labels, max(KS), rows)
        truth = self._labels[rows].toarray() > 0
        best = -1.0
        for k in (k for k in KS if k <= near.rows.shape[1]):
            counts = near.first(k).votes().astype(np.int64)
            f1 = np.zeros(len(rows))
            for fitted, held in group_folds(train.groups[rows]):
                tables = mlknn_tables(counts[fitted], truth[fitted], k)
                f1[held] = f1_of_rows(truth[held], mlknn_decide(counts[held], *tables))
            if f1.mean() > best + 1e-9:
                best = float(f1.mean())
                self.chosen = {"k": k}
                self._tables = mlknn_tables(counts, truth, k)
        self.chosen["f1_on_training_side"] = round(best, 4)

    def predict(self, test: Data) -> list[set[str]]:
        """Search, count, decide."""
        found = self._index.search(test.vectors(), self.chosen["k"])
        counts = Near(found.rows, found.similarities, self._labels).votes().astype(np.int64)
        return self._vocabulary.sets(mlknn_decide(counts, *self._tables))


def mlknn_tables(
    counts: NDArray[np.int64], truth: NDArray[np.bool_], k: int, smoothing: float = 1.0
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The joint probabilities of MLkNN, prior times likelihood.

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


def mlknn_decide(
    counts: NDArray[np.int64], has: NDArray[np.float64], lacks: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """bool[q, c]: the concepts that are more likely there than not, given counts int64[q, c]."""
    column = np.arange(counts.shape[1])
    chosen: NDArray[np.bool_] = has[counts, column] > lacks[counts, column]
    return chosen


def brknn_a() -> NeighbourRow:
    """BRkNN-a (Spyromitros, Tsoumakas and Vlahavas 2008, "An empirical study of lazy multilabel
    classification algorithms"): the concepts that more than half of the k neighbours have; if there
    is none, the one that most have.
    """
    return NeighbourRow("BRkNN-a", by_majority, [{"k": k} for k in KS])


def brknn_b() -> NeighbourRow:
    """BRkNN-b (same paper): the s concepts that most neighbours have, where s is the neighbours'
    mean number of concepts, rounded. The recipe of 2019 is the same with more values of k.
    """
    return NeighbourRow("BRkNN-b", by_mean_size, [{"k": k} for k in KS])


def by_majority(near: Near, parameters: Parameters) -> NDArray[np.bool_]:
    """bool[q, c] of BRkNN-a."""
    near = near.first(parameters["k"])
    votes = near.votes()
    chosen = votes > near.rows.shape[1] / 2
    return np.where(chosen.any(axis=1, keepdims=True), chosen, top(votes, 1) & (votes > 0))


def _classifier(k: int) -> Any:
    from sklearn.neighbors import KNeighborsClassifier

    return KNeighborsClassifier(k, weights="distance", algorithm="brute")


def _as_matrix(predicted: Any) -> NDArray[np.bool_]:
    """bool[n, c], also of a single concept, which scikit-learn returns as a vector."""
    matrix = np.asarray(predicted) > 0
    return matrix if matrix.ndim == 2 else matrix[:, None]
