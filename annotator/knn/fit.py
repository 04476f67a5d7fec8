"""Closed-form fitting of projections."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial, reduce
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from annotator.knn.projection import ROWS_AT_ONCE, Projection, standardised, unit
from index import LabelTable
from index.search.blas import one_blas_thread, workers

UNSUPERVISED = 256  # components
SUPERVISED = 256
WHITENING = 0.25  # principal components are divided by the variance to this power
_MOST_AXES = 1024  # inputs of the regression
_MOST_CONCEPTS = 1000  # outputs of the regression: the most frequent concepts
_ROWS_AT_ONCE = 2048
_FIRST_KEYS = 4
_PARTS = 2  # summed at once, each in memory of its own


@dataclass(frozen=True)
class Sums:
    """Sums over rows of their principal coordinates t and concept indicators y.

    Attributes:
        n: Number of rows.
        t: float64[r].
        tt: float32[r, r], the sum of t t'.
        y: float64[c].
        ty: float32[r, c], the sum of t y'.
    """

    n: int
    t: NDArray[np.float64]
    tt: NDArray[np.float32]
    y: NDArray[np.float64]
    ty: NDArray[np.float32]

    def __add__(self, other: Sums) -> Sums:
        return Sums(
            self.n + other.n,
            self.t + other.t,
            self.tt + other.tt,
            self.y + other.y,
            self.ty + other.ty,
        )


@dataclass(frozen=True)
class OwnRows:
    """A projection of the collection's own rows, from their principal coordinates.

    What `Projection.apply` gives of them but for rounding, for a fraction of its work: a projection
    is affine in the coordinates, which are fewer than the numbers of a vector.

    Attributes:
        coordinates: float32[n, r].
        whitening: float32[u], factors of the unsupervised components, the first coordinates.
        regression: float32[r, s], from coordinates to supervised components; None for none.
    """

    coordinates: NDArray[np.float32]
    whitening: NDArray[np.float32]
    regression: NDArray[np.float32] | None

    def apply(
        self, vectors: NDArray[np.float32], rows: NDArray[np.int64] | None = None
    ) -> NDArray[np.float32]:
        """As `Projection.apply`; `vectors` are those of the collection, and are not read."""
        rows = np.arange(len(self.coordinates)) if rows is None else rows
        width = 0 if self.regression is None else self.regression.shape[1]
        result = np.empty((len(rows), len(self.whitening) + width), np.float32)
        exact = None if self.regression is None else self.regression.astype(np.float64)
        for start in range(0, len(rows), ROWS_AT_ONCE):
            some = slice(start, start + ROWS_AT_ONCE)
            t = self.coordinates[rows[some]].astype(np.float64)
            parts = [unit(t[:, : len(self.whitening)] * self.whitening)]
            if exact is not None:
                parts.append(unit(t @ exact))
            result[some] = unit(np.hstack(parts))
        return result


class Fitter:
    """Fits projections of one collection, sharing sums over its rows.

    Args:
        vectors: float32[n, dim] of unit norm; may be memory-mapped.
        labels: Concepts of each row.
        blocks: Lengths of the parts of a vector that get equal weight: pooled layers of an encoder,
            or several encoders side by side.
        folds: int64[n], the fold of each row, for `without`; None for no folds.
        folder: For a temporary file, with folds: 4 bytes for each of up to 1,024 coordinates of a
            row. None to hold them in memory.

    Raises:
        OSError: The disk is full.
    """

    def __init__(
        self,
        vectors: NDArray[np.float32],
        labels: LabelTable,
        blocks: Sequence[int],
        folds: NDArray[np.int64] | None = None,
        folder: Path | None = None,
    ) -> None:
        self._mean, self._scale = _standardisation(vectors, blocks)
        columns = _predicted(labels)
        of_row = np.zeros(len(vectors), np.int64) if folds is None else folds
        rows = [np.flatnonzero(of_row == fold) for fold in range(int(of_row.max()) + 1)]
        with workers(_PARTS) as pool:
            found = self._principal_components(vectors, pool)
            self._centre, self._axes, self._variances = found
            shape = len(vectors), self._axes.shape[1]
            self._coordinates = None if folds is None else _room(shape, folder)
            self._folds = list(pool.map(partial(self._sum, vectors, labels, columns), rows))
        self._all = reduce(Sums.__add__, self._folds)

    def projection(
        self,
        penalty: float | None,
        without: int | None = None,
        components: int = UNSUPERVISED,
    ) -> Projection:
        """Fit a projection.

        Args:
            penalty: Ridge penalty; None for unsupervised components only.
            without: Fold whose concepts are held out. (Its vectors still contribute to the mean,
                the scale and the principal axes, which are independent of concepts.)
            components: Number of unsupervised components, at most.
        """
        unsupervised = self._axes[:, :components] * self._variances[:components] ** -WHITENING
        parts = [unsupervised]
        with one_blas_thread:  # several mostly wait for each other
            regression = self._regression(penalty, without)
            if regression is not None:
                parts.append(self._axes @ regression)
            matrix = np.hstack(parts).astype(np.float32)
            shift = (self._centre @ matrix).astype(np.float32)
        return Projection(self._mean, self._scale, matrix, shift, unsupervised.shape[1])

    def own_rows(
        self, penalty: float | None, without: int, components: int = UNSUPERVISED
    ) -> OwnRows:
        """The projection that `projection` fits, for the rows that it is fitted to.

        Raises:
            ValueError: There are no folds.
        """
        if self._coordinates is None:
            raise ValueError("coordinates of the rows are kept for cross-fitting: give folds")
        whitening = self._variances[:components] ** -WHITENING
        return OwnRows(self._coordinates, whitening, self._regression(penalty, without))

    def _regression(self, penalty: float | None, without: int | None) -> NDArray[np.float32] | None:
        """From coordinates to supervised components, float32[r, s]; None for none."""
        # Summed afresh: subtracting from a float32 sum would leave rounding errors.
        others = [sums for fold, sums in enumerate(self._folds) if fold != without]
        sums = self._all if without is None else reduce(Sums.__add__, others)
        if penalty is None or sums.ty.shape[1] == 0:
            return None
        return _regression(sums, penalty)

    def _principal_components(
        self, vectors: NDArray[np.float32], pool: ThreadPoolExecutor
    ) -> tuple[NDArray[np.float64], NDArray[np.float32], NDArray[np.float32]]:
        """Mean of z, the principal axes (float32[dim, r]) and their variances."""
        n, dim = vectors.shape
        centre = np.zeros(dim)
        for z in self._standardised(vectors, np.arange(n)):
            centre += z.sum(axis=0)
        centre /= n

        def centred(rows: NDArray[np.int64]) -> Iterator[NDArray[np.float32]]:
            for z in self._standardised(vectors, rows):
                yield (z - centre).astype(np.float32)

        def covariance_of(rows: NDArray[np.int64]) -> NDArray[np.float32]:
            covariance = np.zeros((dim, dim), np.float32)
            for part in centred(rows):
                covariance += part.T @ part / np.float32(n)
            return covariance

        if n <= dim:  # from the smaller Gram matrix
            rows = np.concatenate(list(centred(np.arange(n))))
            variances, sides = np.linalg.eigh(rows @ rows.T / np.float32(n))
        else:
            parts = pool.map(covariance_of, np.array_split(np.arange(n), _PARTS))
            variances, sides = np.linalg.eigh(reduce(np.add, parts))
        variances, sides = variances[::-1][:_MOST_AXES], sides[:, ::-1][:, :_MOST_AXES]
        kept = max(1, int((variances > 1e-5 * variances[0]).sum()))
        variances, axes = np.maximum(variances[:kept], 1e-12), sides[:, :kept]
        if n <= dim:
            axes = rows.T @ (axes / np.sqrt(n * variances))
        # Make the signs of the axes deterministic.
        axes = axes * np.where(axes[np.abs(axes).argmax(axis=0), np.arange(kept)] < 0, -1, 1)
        return centre, np.ascontiguousarray(axes, np.float32), variances.astype(np.float32)

    def _standardised(
        self, vectors: NDArray[np.float32], rows: NDArray[np.int64]
    ) -> Iterator[NDArray[np.float64]]:
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            some = rows[start : start + _ROWS_AT_ONCE]
            yield standardised(vectors[some], self._mean, self._scale)

    def _sum(
        self,
        vectors: NDArray[np.float32],
        labels: LabelTable,
        columns: NDArray[np.int64],
        rows: NDArray[np.int64],
    ) -> Sums:
        r, c = self._axes.shape[1], int(columns.max(initial=-1)) + 1
        t_sum, y_sum = np.zeros(r), np.zeros(c)
        tt, ty = np.zeros((r, r), np.float32), np.zeros((r, c), np.float32)
        done = 0
        for z in self._standardised(vectors, rows):
            t = (z - self._centre).astype(np.float32) @ self._axes
            if self._coordinates is not None:
                self._coordinates[rows[done : done + len(z)]] = t
            holder, column = _held(labels, columns, rows[done : done + len(z)])
            done += len(z)
            t_sum += t.sum(axis=0, dtype=np.float64)
            y_sum += np.bincount(column, minlength=c)
            tt += t.T @ t
            # Not a product with indicators, which rounds each column by its place among others.
            held, starts = np.unique(column, return_index=True)
            if len(held):
                ty[:, held] += np.add.reduceat(t[holder], starts, axis=0).T
        return Sums(len(rows), t_sum, tt, y_sum, ty)


def fit_unsupervised(
    vectors: NDArray[np.float32], blocks: Sequence[int], components: int = UNSUPERVISED
) -> Projection:
    """Fit a projection without any concept.

    Args:
        vectors: float32[n, dim] of unit norm, as the encoder made them; may be memory-mapped.
        blocks: As for `Fitter`.
        components: As for `Fitter.projection`.
    """
    unlabelled = LabelTable.from_sets([()] * len(vectors))
    return Fitter(vectors, unlabelled, blocks).projection(None, components=components)


def _room(shape: tuple[int, int], folder: Path | None) -> NDArray[np.float32]:
    """Room for numbers: float32, in memory, or in a file of a folder that has no name there.

    Raises:
        OSError: The disk is full.
    """
    if folder is None or 0 in shape:
        return np.empty(shape, np.float32)
    with tempfile.TemporaryFile(dir=folder) as file:
        os.posix_fallocate(file.fileno(), 0, 4 * shape[0] * shape[1])  # or writing may kill us
        return np.memmap(file, np.float32, "w+", shape=shape)


def _standardisation(
    vectors: NDArray[np.float32], blocks: Sequence[int]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and scale for equal variance of all features of a block, and of all blocks.

    Raises:
        ValueError: The block lengths do not sum to the length of a vector.
    """
    n, dim = vectors.shape
    if sum(blocks) != dim:
        raise ValueError(f"blocks of {sum(blocks)} numbers, vectors of {dim}")
    total, squares = np.zeros(dim), np.zeros(dim)
    for start in range(0, n, _ROWS_AT_ONCE):
        part = vectors[start : start + _ROWS_AT_ONCE].astype(np.float64)
        total += part.sum(axis=0)
        squares += (part**2).sum(axis=0)
    mean = total / n
    deviation = np.sqrt(np.maximum(squares / n - mean**2, 0.0))
    length = np.repeat(np.asarray(blocks, np.float64), blocks)
    varies = deviation > 1e-7  # smaller deviations are float32 rounding
    scale = np.where(varies, 1.0 / np.sqrt(length) / np.where(varies, deviation, 1.0), 0.0)
    return mean.astype(np.float32), scale.astype(np.float32)


def _predicted(labels: LabelTable) -> NDArray[np.int64]:
    """Column of each concept in the regression, -1 for those left out; int64[len(cuis)].

    Concepts of a single image or of all images are uninformative.
    """
    counts = labels.frequencies
    useful = np.flatnonzero((counts > 1) & (counts < len(labels)))
    kept = useful[np.argsort(labels.ranks[useful])[:_MOST_CONCEPTS]]
    columns = np.full(len(counts), -1, np.int64)
    columns[kept] = np.arange(len(kept))
    return columns


def _held(
    labels: LabelTable, columns: NDArray[np.int64], rows: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Which of the rows hold concepts of which columns, by column and row: two of int64[m]."""
    sizes = labels.sizes[rows]
    starts = np.repeat(labels.indptr[rows] - np.cumsum(sizes) + sizes, sizes)
    column = columns[labels.indices[starts + np.arange(len(starts))]]
    row = np.repeat(np.arange(len(rows)), sizes)
    order = np.argsort(column, kind="stable")
    order = order[column[order] >= 0]
    return row[order], column[order]


def _by_sums(sums: Sums) -> NDArray[np.int64]:
    """Order of the concepts by their frequency and sums, int64[c]; a few sums tell most apart."""
    keys = np.vstack([-sums.y[None], sums.ty[:_FIRST_KEYS]])
    order = np.lexsort(keys[::-1])
    if (np.diff(keys[:, order]) == 0).all(axis=0).any():
        order = np.lexsort((*sums.ty[::-1], -sums.y))
    return order


def _regression(sums: Sums, penalty: float) -> NDArray[np.float32]:
    """Ridge regression of the concepts on the principal coordinates, float32[r, at most 256].

    W minimises sum |W'(t - mean) - (y - mean)|^2 + penalty |W|^2 (Hoerl and Kennard 1970). With
    more than 256 concepts, the predictions are rotated to their principal axes, which preserves
    inner products, and truncated. The concepts are in an order of their sums, not of their ids, so
    that it is rounded alike by whatever ids they go.
    """
    mean = sums.t / sums.n
    gram = sums.tt - sums.n * np.outer(mean, mean)
    gram[np.diag_indices_from(gram)] += penalty
    order = _by_sums(sums)
    ty, y = sums.ty[:, order], sums.y[order]
    weights = np.linalg.solve(gram, ty - np.outer(mean, y))
    if weights.shape[1] > SUPERVISED:
        axes = np.linalg.eigh(weights.T @ weights)[1][:, ::-1][:, :SUPERVISED]
        weights = weights @ axes
    return weights.astype(np.float32)
