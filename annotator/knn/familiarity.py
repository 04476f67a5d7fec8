"""Familiarity: whether an image is as near to those of the index as these are to each other.

The similarity to the nearest case says little by itself: where cases are dense, a stranger is
nearer to them than a regular image is to its neighbours where they are sparse. The local outlier
factor (Breunig, Kriegel, Ng and Sander 2000, "LOF: identifying density-based local outliers",
SIGMOD) compares an image with its neighbours instead. docs/unfamiliar.md has what was measured.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from annotator.knn.cross_validation import NeighborLists, stored_lists
from annotator.knn.posterior import LEAST_DISTANCE, distances
from index import FlatIndex, Neighbors
from index.sampling import sample_rows

if TYPE_CHECKING:
    from annotator.indexing.metadata import IndexMetadata
    from index import StoredIndex

NEIGHBORS = 20  # that an image is compared with
UNFAMILIAR = 0.05  # below it, an image is said to be unlike those of the index
_QUANTILES = 101
_MOST_IMAGES = 2000  # behind the quantiles

Vectors = Callable[[NDArray[np.int64]], NDArray[np.float32]]


class OutlierFactor:
    """Mean distance of an image to its 20 nearest cases, in units of that of these to theirs.

    It is about 1 for an image among others, and the larger, the further out it is. Distances are
    sqrt(2 - 2s) of the similarity s; their means stand for the densities of the local outlier
    factor.

    Of cases that have a neighbour list (all, in an index of up to 5,000 images), the mean distance
    to theirs is known; of others, it is the mean of the 20 nearest ones that have one.

    Args:
        lists: Neighbour lists of the index, from `annotator.knn.cross_validation`: their images see
            others as a new image does, through a projection that has not seen their concepts.
        vectors: Function from rows int64[m] to their vectors float32[m, dim] of unit norm.
    """

    def __init__(self, lists: NeighborLists, vectors: Vectors) -> None:
        self._lists, self._vectors = lists, vectors
        self._listed = _mean_distance(lists.found)

    def __call__(self, neighbors: Neighbors) -> NDArray[np.float64]:
        """The outlier factor of q images, float64[q]; infinite without neighbours.

        Args:
            neighbors: Of the images. The first 20 count, those of similarity -inf do not.
        """
        rows = neighbors.rows[:, :NEIGHBORS]
        there = np.isfinite(neighbors.similarities[:, :NEIGHBORS])
        needed, position = np.unique(rows, return_inverse=True)
        theirs = _mean(self._of_cases(needed)[position.reshape(rows.shape)], there)
        return np.asarray(_mean_distance(neighbors) / np.where(there[:, 0], theirs, 1.0))

    def quantiles(self) -> tuple[float, ...]:
        """The 101 percentiles of the factor of the images that have lists, ascending."""
        some = sample_rows(len(self._lists.queries), _MOST_IMAGES)
        factors = self(self._lists.found.take(some))
        found = np.quantile(factors, np.linspace(0, 1, _QUANTILES))
        return tuple(np.round(found, 6).tolist())

    def _of_cases(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Mean distance of cases to their nearest ones, float64[m]."""
        queries = self._lists.queries
        at = np.minimum(np.searchsorted(queries, rows), len(queries) - 1)
        found = self._listed[at]
        unlisted = np.flatnonzero(queries[at] != rows)
        if len(unlisted):
            nearest = self._index.search(self._vectors(rows[unlisted]), NEIGHBORS).rows
            found[unlisted] = self._listed[nearest].mean(axis=1)
        return found

    @cached_property
    def _index(self) -> FlatIndex:
        """Of the cases that have lists."""
        return FlatIndex(self._vectors(self._lists.queries))


def familiarity_of_cases(stored: StoredIndex, metadata: IndexMetadata) -> NDArray[np.float64]:
    """Share of an index's images that are further out than each of them, float64[n].

    nan for images without neighbour lists, and where the index was not tuned.

    Args:
        stored: Open index.
        metadata: Of it.
    """
    shares = np.full(len(stored), np.nan)
    lists = stored_lists(stored)
    if lists is not None and len(lists.queries) and metadata.outlier_factors is not None:
        factors = OutlierFactor(lists, stored.vectors)(lists.found)
        shares[lists.queries] = 1 - share_below(factors, np.array(metadata.outlier_factors))
    return shares


def share_below(values: NDArray[np.float64], quantiles: NDArray[np.float64]) -> NDArray[np.float64]:
    """Share of a sample that is below each value, float64[q] in 0..1, by the sample's quantiles.

    Args:
        values: float64[q].
        quantiles: float64[m], ascending, evenly spaced from 0 to 1.
    """
    return np.asarray(np.interp(values, quantiles, np.linspace(0, 1, len(quantiles))))


def _mean_distance(neighbors: Neighbors) -> NDArray[np.float64]:
    """Mean distance to the first 20 neighbours, float64[q]; infinite without any."""
    similarities = neighbors.similarities[:, :NEIGHBORS].astype(np.float64)
    there = np.isfinite(similarities)
    mean = np.maximum(_mean(distances(similarities), there), LEAST_DISTANCE)
    return np.where(there.any(axis=1), mean, np.inf)


def _mean(values: NDArray[np.float64], there: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Mean of each row, float64[q], over what is there, bool[q, k]; 0 where nothing is."""
    total = np.where(there, values, 0.0).sum(axis=1)
    return np.asarray(total / np.maximum(there.sum(axis=1), 1))
