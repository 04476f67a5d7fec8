"""Projection from the encoder's space to the space of the index."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from annotator.errors import AnnotatorError

ARRAYS = "projection."  # prefix of the array names in an index
ROWS_AT_ONCE = 512  # bounds the memory of float64


@dataclass(frozen=True)
class Projection:
    """Standardisation, followed by unsupervised and supervised components side by side.

    A vector x is standardised to z = (x - mean) * scale and normalised. The unsupervised components
    are its principal components, mildly whitened; the supervised ones are the concepts predicted by
    a ridge regression. Both parts are normalised and have equal weight, so the similarity of two
    images is the mean of their similarities in appearance and in predicted concepts, and neighbours
    remain visually similar.

    Attributes:
        mean: float32[dim].
        scale: float32[dim]; 0 for constant features.
        matrix: float32[dim, out].
        shift: float32[out]: the mean of z times `matrix`.
        unsupervised: Number of unsupervised components, which are the first columns.

    Raises:
        AnnotatorError: Inconsistent arrays.
    """

    mean: NDArray[np.float32]
    scale: NDArray[np.float32]
    matrix: NDArray[np.float32]
    shift: NDArray[np.float32]
    unsupervised: int

    def __post_init__(self) -> None:
        dim, out = self.mean.size, self.shift.size
        arrays = (self.mean, self.scale, self.matrix, self.shift)
        fits = (
            [a.shape for a in arrays] == [(dim,), (dim,), (dim, out), (out,)]
            and 0 < self.unsupervised <= out
            and all(a.dtype == np.float32 and np.isfinite(a).all() for a in arrays)
        )
        if not fits:
            raise AnnotatorError("The projection's arrays do not fit together.")

    @property
    def dim(self) -> int:
        """Length of the encoder's vectors."""
        return len(self.mean)

    def apply(
        self, vectors: NDArray[np.float32], rows: NDArray[np.int64] | None = None
    ) -> NDArray[np.float32]:
        """Project float32[n, dim] of unit norm, or `rows` of it, to float32[n, out] of unit norm.

        Computed in float64, so that the result does not depend on the other vectors of the call.
        """
        parts = list(self.in_parts(vectors, rows))
        return np.concatenate(parts) if parts else np.zeros((0, len(self.shift)), np.float32)

    def in_parts(
        self, vectors: NDArray[np.float32], rows: NDArray[np.int64] | None = None
    ) -> Iterator[NDArray[np.float32]]:
        """Apply block by block, for memory-mapped vectors."""
        matrix = self._exact_matrix
        for start in range(0, len(vectors if rows is None else rows), ROWS_AT_ONCE):
            some = slice(start, start + ROWS_AT_ONCE)
            z = standardised(vectors[some if rows is None else rows[some]], self.mean, self.scale)
            projected = z @ matrix - self.shift
            parts = [projected[:, columns] for columns in self._parts]
            joined = np.hstack([unit(part) for part in parts])
            yield unit(joined).astype(np.float32)

    def similarity_as_sum(
        self, vector: NDArray[np.float32], others: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Write the products of a projected vector with others as affine forms of the raw vector.

        All steps but the normalisations are affine, and the norms are constants for a given vector.
        So product[i] = weights[i] @ vector + constant[i], exactly; the constant comes from the
        subtracted means.

        Args:
            vector: float32[dim], of unit norm.
            others: float64[m, out]: results of `apply`, or weighted sums of them.

        Returns:
            Weights float64[m, dim] and constants float64[m].
        """
        z = (vector.astype(np.float64) - self.mean) * self.scale
        length = np.linalg.norm(z)
        matrix = self._exact_matrix
        projected = unit(z[None])[0] @ matrix - self.shift
        weights, constant = np.zeros((len(others), self.dim)), np.zeros(len(others))
        for part in self._parts:
            theirs = others[:, part] / np.sqrt(len(self._parts))
            norm = np.linalg.norm(projected[part])
            if norm == 0:  # no direction: `unit` gives it the first axis
                constant += theirs[:, 0]
                continue
            theirs /= norm
            constant -= theirs @ self.shift[part]
            if length == 0:
                constant += theirs @ matrix[0, part]
                continue
            towards = theirs @ matrix[:, part].T * self.scale / length
            weights += towards
            constant -= towards @ self.mean
        return weights, constant

    @property
    def _parts(self) -> list[slice]:
        """Columns of the unsupervised and, if any, the supervised components."""
        edges = (0, self.unsupervised, len(self.shift))
        return [slice(a, b) for a, b in pairwise(edges) if a < b]

    @cached_property
    def _exact_matrix(self) -> NDArray[np.float64]:
        return self.matrix.astype(np.float64)

    def to_arrays(self) -> dict[str, NDArray[np.generic]]:
        """Arrays by name, to store in an index."""
        return {
            f"{ARRAYS}mean": self.mean,
            f"{ARRAYS}scale": self.scale,
            f"{ARRAYS}matrix": self.matrix,
            f"{ARRAYS}shift": self.shift,
            f"{ARRAYS}looks": np.array([self.unsupervised], np.int64),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.generic]]) -> Projection | None:
        """Inverse of `to_arrays`; None if `arrays` has no projection.

        Raises:
            AnnotatorError: Missing or inconsistent arrays.
        """
        found = {n.removeprefix(ARRAYS): a for n, a in arrays.items() if n.startswith(ARRAYS)}
        if not found:
            return None
        try:
            unsupervised = int(found.pop("looks")[0])
            return cls(**found, unsupervised=unsupervised)  # type: ignore[arg-type]
        except (KeyError, TypeError, IndexError, ValueError, OverflowError) as error:
            raise AnnotatorError(
                "The projection of the index is damaged.", "Build the index again."
            ) from error


def standardised(
    vectors: NDArray[np.float32], mean: NDArray[np.float32], scale: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Standardise to (vector - mean) * scale and normalise; float64[n, dim]."""
    return unit((vectors.astype(np.float64) - mean) * scale)


def unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Normalise each row; a row of zeros becomes the first axis."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    result = vectors / np.where(norms > 0, norms, 1.0)
    result[norms[:, 0] == 0, 0] = 1.0
    return result
