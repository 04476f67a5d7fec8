"""Retrieval with LDA topics of the neighbours' concepts (the recipe of Zhang et al., 2018)."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index import FlatIndex
from quality_rows.data import Data
from quality_rows.labels import Vocabulary, f1_of_rows, top
from quality_rows.neighbours import Near, foreign_neighbours, tuning_rows

TOPICS = (10, 20, 40)
KS = (5, 10, 20, 50, 100)
COUNT_SHARES = (0.0, 0.25, 0.5, 0.75, 0.9)


class Topics:
    """The neighbours' concepts, ranked by a probability that topics have smoothed.

    The recipe ("retrieve similar images, cluster their concepts by topic modelling, choose") is not
    given in full; it is read so. Each training label set is a document and each CUI a word of a
    latent Dirichlet allocation. Document i, with s_i words and the topic mixture theta_i, expects
    s_i * sum over topics t of theta_i[t] * phi_t[c] words c. A concept's score is the mean over the
    k neighbours of share * [c in Y_i] + (1 - share) * that expectation. Of the concepts that some
    neighbour has, the r with the highest score are taken, where r is the neighbours' mean number of
    concepts. Topics, k and share are tuned; the topics are those of all training label sets.
    """

    name = "kNN with LDA topics"

    def __init__(self) -> None:
        self.chosen: dict[str, Any] = {}

    def fit(self, train: Data) -> None:
        """Fit one topic model for each number of topics, and choose."""
        self._vocabulary = Vocabulary(train.labels)
        self._labels = self._vocabulary.matrix(train.labels)
        vectors = train.vectors()
        self._index = FlatIndex(vectors)
        models = {n: self._model(n) for n in TOPICS}
        rows = tuning_rows(len(train))
        near = foreign_neighbours(vectors, train.groups, self._labels, max(KS), rows)
        truth = self._labels[rows].toarray() > 0
        best = -1.0
        for n, k in product(TOPICS, KS):
            counted, expected = _scores(near.first(k), *models[n])
            size = near.first(k).mean_size()
            for share in COUNT_SHARES:
                f1 = float(f1_of_rows(truth, _choose(counted, expected, share, size)).mean())
                if f1 > best + 1e-9:
                    best = f1
                    self.chosen = {"topics": n, "k": k, "count_share": share}
        self._mixtures, self._words = models[self.chosen["topics"]]
        self.chosen["f1_on_training_side"] = round(best, 4)

    def predict(self, test: Data) -> list[set[str]]:
        """Search, score, rank."""
        found = self._index.search(test.vectors(), self.chosen["k"])
        near = Near(found.rows, found.similarities, self._labels)
        counted, expected = _scores(near, self._mixtures, self._words)
        share = self.chosen["count_share"]
        return self._vocabulary.sets(_choose(counted, expected, share, near.mean_size()))

    def _model(self, n: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """theta * s, float64[images, n], and phi, float64[n, c]."""
        from sklearn.decomposition import LatentDirichletAllocation

        model = LatentDirichletAllocation(n, learning_method="batch", random_state=0)
        sizes = np.diff(self._labels.indptr)
        mixtures = model.fit_transform(self._labels) * sizes[:, None]
        return mixtures, model.components_ / model.components_.sum(axis=1, keepdims=True)


def _scores(
    near: Near, mixtures: NDArray[np.float64], words: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Two float64[q, c]: the share of the neighbours with a concept, and what topics expect."""
    counted = near.votes() / near.rows.shape[1]
    return counted.astype(np.float64), mixtures[near.rows].mean(axis=1) @ words


def _choose(
    counted: NDArray[np.float64],
    expected: NDArray[np.float64],
    share: float,
    size: NDArray[np.int64],
) -> NDArray[np.bool_]:
    scores = share * counted + (1 - share) * expected
    held = counted > 0
    return top(np.where(held, scores, -1.0), size) & held
