"""The linear map from the encoder's vectors to those that the index holds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from annotator.errors import AnnotatorError

ARRAYS = "projection."  # what the names of its arrays in an index begin with
_ROWS_AT_ONCE = 4096


@dataclass(frozen=True)
class Projection:
    """Standardisation, then unsupervised and supervised components side by side.

    A vector x becomes z = (x - mean) * scale, brought to unit norm. The unsupervised components are
    z's principal components, mildly whitened; the supervised ones are what a ridge regression
    predicts of the concepts. Each part is brought to unit norm and they count the same, so the
    similarity of two images is the mean of how alike they look and how alike their predicted
    concepts are, and neighbours stay neighbours that a person can look at.

    Attributes:
        mean: float32[dim].
        scale: float32[dim]; 0 for numbers that do not vary.
        matrix: float32[dim, out].
        shift: float32[out]: the mean of z times `matrix`.
        unsupervised: How many columns, the first ones, are unsupervised components.

    Raises:
        AnnotatorError: The arrays do not fit together.
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
        """float32[n, dim] of unit norm, or those `rows` of it, to float32[n, out] of unit norm.

        Computed in float64, so that which vectors share a call leaves no trace in the result.
        """
        parts = list(self.in_parts(vectors, rows))
        return np.concatenate(parts) if parts else np.zeros((0, len(self.shift)), np.float32)

    def in_parts(
        self, vectors: NDArray[np.float32], rows: NDArray[np.int64] | None = None
    ) -> Iterator[NDArray[np.float32]]:
        """As `apply`, some rows at a time, for vectors that are mapped from disk."""
        matrix = self._exact_matrix
        for start in range(0, len(vectors if rows is None else rows), _ROWS_AT_ONCE):
            some = slice(start, start + _ROWS_AT_ONCE)
            z = standardised(vectors[some if rows is None else rows[some]], self.mean, self.scale)
            projected = z @ matrix - self.shift
            parts = [projected[:, columns] for columns in self._parts]
            joined = np.hstack([unit(part) for part in parts])
            yield unit(joined).astype(np.float32)

    def similarity_as_sum(
        self, vector: NDArray[np.float32], others: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The products of one vector, projected, with others as sums over the vector's numbers.

        All steps but the norms are affine, and the norms are fixed numbers once the vector is
        known. So product[i] = weights[i] @ vector + constant[i], exactly: what the subtraction of
        the means leaves is the constant.

        Args:
            vector: float32[dim], of unit norm.
            others: float64[m, out]: what `apply` gave, or weighted sums of that.

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
        """The columns of the unsupervised and, if there are any, of the supervised components."""
        edges = (0, self.unsupervised, len(self.shift))
        return [slice(a, b) for a, b in pairwise(edges) if a < b]

    @cached_property
    def _exact_matrix(self) -> NDArray[np.float64]:
        return self.matrix.astype(np.float64)

    def to_arrays(self) -> dict[str, NDArray[np.generic]]:
        """Its arrays by name, for an index."""
        return {
            f"{ARRAYS}mean": self.mean,
            f"{ARRAYS}scale": self.scale,
            f"{ARRAYS}matrix": self.matrix,
            f"{ARRAYS}shift": self.shift,
            f"{ARRAYS}looks": np.array([self.unsupervised], np.int64),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.generic]]) -> Projection | None:
        """The reverse of `to_arrays`; None if `arrays` holds no projection.

        Raises:
            AnnotatorError: Parts are missing or do not fit together.
        """
        found = {n.removeprefix(ARRAYS): a for n, a in arrays.items() if n.startswith(ARRAYS)}
        if not found:
            return None
        try:
            unsupervised = int(found.pop("looks")[0])
            return cls(**found, unsupervised=unsupervised)  # type: ignore[arg-type]
        except (KeyError, TypeError, IndexError, ValueError, OverflowError) as error:
            raise AnnotatorError(
                "The index's projection is damaged.", "Build the index again."
            ) from error


def standardised(
    vectors: NDArray[np.float32], mean: NDArray[np.float32], scale: NDArray[np.float32]
) -> NDArray[np.float64]:
    """float64[n, dim]: (vector - mean) * scale, brought to unit norm."""
    return unit((vectors.astype(np.float64) - mean) * scale)


def unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Each row divided by its norm; a row of zeros, which has no direction, gets the first axis."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    result = vectors / np.where(norms > 0, norms, 1.0)
    result[norms[:, 0] == 0, 0] = 1.0
    return result
