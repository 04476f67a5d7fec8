"""Methods that decide from nearest neighbours, tuned by leaving out one group each.

Where a recipe has parameters to tune, each training image is annotated from all others that belong
to another group, and the parameters with the highest mean F1 are taken (the first of equal ones).
Above 5,000 training images a seeded sample of 5,000 is annotated, still from all others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix  # type: ignore[import-untyped]

from annotator.errors import AnnotatorError
from annotator.knn.cross_validation import rows_for_tuning
from annotator.knn.neighbors import nearest_of_other_groups
from benchmarks.quality.data import Data
from benchmarks.quality.labels import Vocabulary, f1_of_rows
from index import FlatIndex

Parameters = Mapping[str, float]


@dataclass(frozen=True)
class Near:
    """The neighbours of q images, and the labels of the n training images.

    Attributes:
        rows: int64[q, k], most similar first.
        similarities: float32[q, k], cosine.
        labels: Sparse float32[n, c].
    """

    rows: NDArray[np.int64]
    similarities: NDArray[np.float32]
    labels: Any

    def first(self, k: float) -> Near:
        """The k nearest of them."""
        return Near(self.rows[:, : int(k)], self.similarities[:, : int(k)], self.labels)

    def votes(self, weights: NDArray[Any] | None = None) -> NDArray[np.float32]:
        """float32[q, c]: the sum of the weights [q, k] of the neighbours with each concept."""
        q, k = self.rows.shape
        if weights is None:
            weights = np.ones((q, k), np.float32)
        voters = csr_matrix(
            (weights.ravel().astype(np.float32), self.rows.ravel(), np.arange(q + 1) * k),
            shape=(q, self.labels.shape[0]),
        )
        votes: NDArray[np.float32] = (voters @ self.labels).toarray()
        return votes

    def mean_size(self) -> NDArray[np.int64]:
        """int64[q]: the neighbours' mean number of concepts, rounded."""
        sizes = np.diff(self.labels.indptr)
        rounded: NDArray[np.int64] = np.floor(sizes[self.rows].mean(axis=1) + 0.5).astype(np.int64)
        return rounded


Recipe = Callable[[Near, Parameters], NDArray[np.bool_]]


class NeighbourMethod:
    """A recipe from neighbours to concepts.

    Args:
        name: For the table.
        recipe: From neighbours and parameters to bool[q, c].
        grid: The parameters to choose from, each with its "k"; a single one is taken as it is.
    """

    def __init__(self, name: str, recipe: Recipe, grid: Sequence[Parameters]) -> None:
        self.name = name
        self.chosen: dict[str, Any] = dict(grid[0])
        self._recipe, self._grid = recipe, grid

    def fit(self, train: Data) -> None:
        """Index the training vectors, and choose the parameters."""
        self._vocabulary = Vocabulary(train.labels)
        self._labels = self._vocabulary.matrix(train.labels)
        self._index = FlatIndex(train.vectors())
        if len(self._grid) == 1:
            return
        rows = rows_for_tuning(len(train))
        k = int(max(parameters["k"] for parameters in self._grid))
        near = foreign_neighbours(train, self._labels, k, rows)
        truth = self._labels[rows].toarray() > 0
        f1 = [f1_of_rows(truth, self._recipe(near, p)).mean() for p in self._grid]
        best = int(np.argmax(np.round(f1, 9)))
        self.chosen = {**self._grid[best], "f1_on_training_side": round(float(f1[best]), 4)}

    def predict(self, test: Data) -> list[set[str]]:
        """Search and decide."""
        found = self._index.search(test.vectors(), int(self.chosen["k"]))
        near = Near(found.rows, found.similarities, self._labels)
        return self._vocabulary.sets(self._recipe(near, self.chosen))


def foreign_neighbours(train: Data, labels: Any, k: int, rows: NDArray[np.int64]) -> Near:
    """The k nearest training images of `rows` that belong to another group than each.

    Fewer than k where some row has fewer of them.

    Args:
        train: n images.
        labels: Sparse float32[n, c].
        k: At least 1.
        rows: int64[q].

    Raises:
        AnnotatorError: All images are of one group.
    """
    vectors, groups = train.vectors(), train.groups
    available = len(groups) - int(np.bincount(groups).max())
    if available == 0:
        raise AnnotatorError("All training images are of one group: nothing can be tuned on them.")
    found = nearest_of_other_groups(
        FlatIndex(vectors), groups, vectors[rows], groups[rows], min(k, available), len(groups)
    )
    return Near(found.rows, found.similarities, labels)
