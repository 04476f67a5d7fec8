"""scikit-learn's `KNeighborsClassifier(weights="distance")`; k by five group-aware folds."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.quality.data import Data
from benchmarks.quality.labels import Vocabulary, f1_of_rows, group_folds, sample_of_groups

KS = (1, 3, 5, 7, 10, 15, 20, 30, 50)
_SAMPLED = 10_000  # training images that folds are made of, at most


class DistanceWeighted:
    """The classifier on a matrix of concepts."""

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


def _classifier(k: int) -> Any:
    from sklearn.neighbors import KNeighborsClassifier

    return KNeighborsClassifier(k, weights="distance", algorithm="brute")


def _as_matrix(predicted: Any) -> NDArray[np.bool_]:
    """bool[n, c], also of a single concept, which scikit-learn returns as a vector."""
    matrix = np.asarray(predicted) > 0
    return matrix if matrix.ndim == 2 else matrix[:, None]
