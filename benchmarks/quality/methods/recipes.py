"""The simple answers, the kNN recipes that participants of ImageCLEF published, and BRkNN."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.quality.data import Data
from benchmarks.quality.labels import Vocabulary, f1_of_rows, top
from benchmarks.quality.methods.neighbours import Near, NeighbourMethod, Parameters

_MOST_CUIS = 100  # the task's limit for one image
_FEW_K = (1, 3, 5, 7, 10, 15, 20, 30, 50)


class MostFrequent:
    """The r most frequent concepts for every image; r has the highest mean F1 in training."""

    name = "most frequent concepts"

    def __init__(self) -> None:
        self.chosen: dict[str, Any] = {}

    def fit(self, train: Data) -> None:
        """Count, and try every r."""
        self._vocabulary = Vocabulary(train.labels)
        truth = self._vocabulary.matrix(train.labels).toarray() > 0
        columns = np.arange(len(self._vocabulary))
        sizes = range(1, min(len(columns), _MOST_CUIS) + 1)
        f1 = [f1_of_rows(truth, np.broadcast_to(columns < r, truth.shape)).mean() for r in sizes]
        self.chosen = {"r": sizes[int(np.argmax(f1))]}

    def predict(self, test: Data) -> list[set[str]]:
        """The same for each image."""
        return [set(self._vocabulary.cuis[: self.chosen["r"]]) for _ in test.ids]


def nearest() -> NeighbourMethod:
    """1-NN: the label set of the most similar image."""
    return NeighbourMethod("1-NN", lambda near, _: near.first(1).votes() > 0, [{"k": 1}])


def top_r() -> NeighbourMethod:
    """The recipe of AUEB in 2019 and 2020: the r concepts that most of the k neighbours have, where
    r is the neighbours' mean number of concepts; k of 1 to 200.
    """
    grid = [{"k": k} for k in range(1, 201)]
    return NeighbourMethod("kNN, top r by count (2019)", by_mean_size, grid)


def relative_drop() -> NeighbourMethod:
    """A recipe of 2024: k = 33, scores are sums of cosine similarities, at most four concepts, and
    none after a relative drop. Read as: stop before the first concept whose score is less than a
    fraction of the one before it. The fraction was not published and is tuned.
    """
    grid = [{"k": 33, "fraction": f / 20} for f in range(21)]
    return NeighbourMethod("kNN, relative drop (2024)", until_drop, grid)


def rank_weights() -> NeighbourMethod:
    """A recipe of 2024: of k = 50 neighbours the i-th has the weight k + 1 - i; concepts with at
    least t = 0.35 of the total weight.
    """
    return NeighbourMethod("kNN, rank weights (2024)", by_rank, [{"k": 50, "threshold": 0.35}])


def rank_weights_tuned() -> NeighbourMethod:
    """The same with k and t tuned."""
    ks = (3, 5, 10, 20, 30, 50, 75, 100, 150, 200)
    grid = [{"k": k, "threshold": t / 50} for k in ks for t in range(5, 36)]
    return NeighbourMethod("kNN, rank weights, tuned", by_rank, grid)


def brknn_a() -> NeighbourMethod:
    """BRkNN-a (Spyromitros, Tsoumakas and Vlahavas 2008, "An empirical study of lazy multilabel
    classification algorithms"): the concepts that more than half of the k neighbours have; if there
    is none, the one that most have.
    """
    return NeighbourMethod("BRkNN-a", by_majority, [{"k": k} for k in _FEW_K])


def brknn_b() -> NeighbourMethod:
    """BRkNN-b (same paper): the s concepts that most neighbours have, where s is the neighbours'
    mean number of concepts, rounded. The recipe of 2019 is the same with more values of k.
    """
    return NeighbourMethod("BRkNN-b", by_mean_size, [{"k": k} for k in _FEW_K])


def by_mean_size(near: Near, parameters: Parameters) -> NDArray[np.bool_]:
    """bool[q, c]: the concepts that most neighbours have, as many as these have on average."""
    near = near.first(parameters["k"])
    return top(near.votes(), near.mean_size())


def by_majority(near: Near, parameters: Parameters) -> NDArray[np.bool_]:
    """bool[q, c] of BRkNN-a."""
    near = near.first(parameters["k"])
    votes = near.votes()
    chosen = votes > near.rows.shape[1] / 2
    return np.where(chosen.any(axis=1, keepdims=True), chosen, top(votes, 1) & (votes > 0))


def until_drop(near: Near, parameters: Parameters) -> NDArray[np.bool_]:
    """bool[q, c] of `relative_drop`."""
    near = near.first(parameters["k"])
    scores = near.votes(np.maximum(near.similarities, 0.0))
    four = -np.sort(-scores, axis=1)[:, :4]
    stays = four[:, 1:] >= parameters["fraction"] * four[:, :-1]
    stays &= four[:, 1:] > 0
    size = 1 + np.cumprod(stays, axis=1).sum(axis=1)
    return top(scores, np.where(four[:, 0] > 0, size, 0))


def by_rank(near: Near, parameters: Parameters) -> NDArray[np.bool_]:
    """bool[q, c] of `rank_weights`."""
    near = near.first(parameters["k"])
    q, k = near.rows.shape
    weights = np.broadcast_to(np.arange(k, 0, -1.0) / (k * (k + 1) / 2), (q, k))
    chosen: NDArray[np.bool_] = near.votes(weights) >= parameters["threshold"] - 1e-6
    return chosen
