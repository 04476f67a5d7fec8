"""The linear map from the encoder's vectors to those that the index holds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from annotator.errors import AnnotatorError

ARRAYS = "projection."  # what the names of its arrays in an index begin with
_ROWS_AT_ONCE = 4096


@dataclass(frozen=True)
class Projection:
    """Standardise, then look from two sides: how an image looks, and which concepts that means.

    A vector x becomes z = (x - mean) * scale, brought to unit norm. The first part, the "looks", is
    z's principal components, mildly whitened; its second part, the "meaning", is what a ridge
    regression predicts of the concepts. Each part is brought to unit norm and they count the same,
    so the similarity of two images is the mean of their similarities in looks and in meaning, and
    neighbours stay neighbours that a person can look at.

    Attributes:
        mean: float32[dim].
        scale: float32[dim]; 0 for numbers that do not vary.
        matrix: float32[dim, out].
        shift: float32[out]: the mean of z times `matrix`.
        looks: Columns of the first part.

    Raises:
        AnnotatorError: The arrays do not fit together.
    """

    mean: NDArray[np.float32]
    scale: NDArray[np.float32]
    matrix: NDArray[np.float32]
    shift: NDArray[np.float32]
    looks: int

    def __post_init__(self) -> None:
        dim, out = self.mean.size, self.shift.size
        arrays = (self.mean, self.scale, self.matrix, self.shift)
        fits = (
            [a.shape for a in arrays] == [(dim,), (dim,), (dim, out), (out,)]
            and 0 < self.looks <= out
            and all(a.dtype == np.float32 and np.isfinite(a).all() for a in arrays)
        )
        if not fits:
            raise AnnotatorError("The projection's arrays do not fit together.")

    @property
    def dim(self) -> int:
        """Length of the vectors that it takes."""
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
        """What `apply` gives, some rows at a time, for vectors that are mapped from disk."""
        matrix = self._exact_matrix
        for start in range(0, len(vectors if rows is None else rows), _ROWS_AT_ONCE):
            part = slice(start, start + _ROWS_AT_ONCE)
            z = standardised(vectors[part if rows is None else rows[part]], self.mean, self.scale)
            projected = z @ matrix - self.shift
            sides = [projected[:, : self.looks], projected[:, self.looks :]]
            joined = np.hstack([unit(side) for side in sides if side.shape[1]])
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
        sides = [slice(0, self.looks), slice(self.looks, len(self.shift))]
        sides = [side for side in sides if side.stop > side.start]
        weights, constant = np.zeros((len(others), self.dim)), np.zeros(len(others))
        for side in sides:
            theirs = others[:, side] / np.sqrt(len(sides))
            norm = np.linalg.norm(projected[side])
            if norm == 0:  # no direction: `unit` gives it the first axis
                constant += theirs[:, 0]
                continue
            theirs /= norm
            constant -= theirs @ self.shift[side]
            if length == 0:
                constant += theirs @ matrix[0, side]
                continue
            towards = theirs @ matrix[:, side].T * self.scale / length
            weights += towards
            constant -= towards @ self.mean
        return weights, constant

    @cached_property
    def _exact_matrix(self) -> NDArray[np.float64]:
        return self.matrix.astype(np.float64)

    def to_arrays(self) -> dict[str, NDArray[np.generic]]:
        """Its fields by name, for an index."""
        arrays = {f"{ARRAYS}{f.name}": np.asarray(getattr(self, f.name)) for f in fields(self)}
        return arrays | {f"{ARRAYS}looks": np.array([self.looks], np.int64)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.generic]]) -> Projection | None:
        """What `to_arrays` gave, or None if `arrays` holds no projection.

        Raises:
            AnnotatorError: Parts are missing or do not fit together.
        """
        found = {n.removeprefix(ARRAYS): a for n, a in arrays.items() if n.startswith(ARRAYS)}
        if not found:
            return None
        try:
            looks = int(found.pop("looks")[0])
            return cls(**found, looks=looks)  # type: ignore[arg-type]
        except (KeyError, TypeError, IndexError, ValueError, OverflowError) as error:
            raise AnnotatorError(
                "The index's projection is damaged.", "Build the index again."
            ) from error


def standardised(
    vectors: NDArray[np.float32], mean: NDArray[np.float32], scale: NDArray[np.float32]
) -> NDArray[np.float64]:
    """float64[n, dim]: less the mean, times the scale, of unit norm."""
    return unit((vectors.astype(np.float64) - mean) * scale)


def unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Each row divided by its norm; a row of zeros, which has no direction, gets the first axis."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    result = vectors / np.where(norms > 0, norms, 1.0)
    result[norms[:, 0] == 0, 0] = 1.0
    return result
