"""Projection of a fitted encoder's vectors: its general features beside those of its branches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from annotator.errors import AnnotatorError
from annotator.knn.projection import ROWS_AT_ONCE, Projection, unit

ARRAYS = "joint."  # prefix of the array names in an index

Columns = NDArray[np.int64]


@dataclass(frozen=True)
class JointProjection:
    """Projections of parts of a vector, side by side.

    Each part of a vector is projected to unit norm on its own and scaled by the root of its share,
    so the similarity of two images is the mean of the parts' similarities, weighted by the shares.

    Attributes:
        dim: Length of the encoder's vectors.
        columns: Columns of the vector in each part, int64[any].
        parts: The projection of each part.
        shares: Share of each part in a similarity; they sum to 1.

    Raises:
        AnnotatorError: Inconsistent parts.
    """

    dim: int
    columns: tuple[Columns, ...]
    parts: tuple[Projection, ...]
    shares: tuple[float, ...]

    def __post_init__(self) -> None:
        fits = (
            len(self.columns) == len(self.parts) == len(self.shares) > 0
            and all(len(c) == p.dim for c, p in zip(self.columns, self.parts, strict=True))
            and all(c.min() >= 0 and c.max() < self.dim for c in self.columns)
            and all(0 <= share <= 1 for share in self.shares)
            and abs(sum(self.shares) - 1) < 1e-6
        )
        if not fits:
            raise AnnotatorError("The parts of the projection do not fit together.")

    def apply(
        self, vectors: NDArray[np.float32], rows: NDArray[np.int64] | None = None
    ) -> NDArray[np.float32]:
        """As `Projection.apply`."""
        blocks = list(self.in_parts(vectors, rows))
        width = sum(len(part.shift) for part in self.parts)
        return np.concatenate(blocks) if blocks else np.zeros((0, width), np.float32)

    def in_parts(
        self, vectors: NDArray[np.float32], rows: NDArray[np.int64] | None = None
    ) -> Iterator[NDArray[np.float32]]:
        """As `Projection.in_parts`."""
        for start in range(0, len(vectors if rows is None else rows), ROWS_AT_ONCE):
            some = slice(start, start + ROWS_AT_ONCE)
            block = vectors[some if rows is None else rows[some]]
            projected = [
                np.sqrt(share) * part.apply(block[:, columns]).astype(np.float64)
                for columns, part, share in self._weighed
            ]
            yield unit(np.hstack(projected)).astype(np.float32)

    def similarity_as_sum(
        self, vector: NDArray[np.float32], others: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """As `Projection.similarity_as_sum`."""
        weights, constant = np.zeros((len(others), self.dim)), np.zeros(len(others))
        start = 0
        for columns, part, share in self._weighed:
            theirs = others[:, start : start + len(part.shift)] * np.sqrt(share)
            weights[:, columns], own = part.similarity_as_sum(vector[columns], theirs)
            constant += own
            start += len(part.shift)
        return weights, constant

    @cached_property
    def _weighed(self) -> Sequence[tuple[Columns, Projection, float]]:
        return list(zip(self.columns, self.parts, self.shares, strict=True))

    def to_arrays(self) -> dict[str, NDArray[np.generic]]:
        """Arrays by name, to store in an index; those of the first part as it stores them alone."""
        arrays: dict[str, NDArray[np.generic]] = {
            f"{ARRAYS}dim": np.array([self.dim], np.int64),
            f"{ARRAYS}shares": np.array(self.shares, np.float64),
        }
        for i, (columns, part) in enumerate(zip(self.columns, self.parts, strict=True)):
            own = {"columns": columns, **part.to_arrays()}
            arrays |= {f"{ARRAYS}{i}.{name}": array for name, array in own.items()}
        return arrays

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.generic]]) -> JointProjection | None:
        """Inverse of `to_arrays`; None if `arrays` has none.

        Raises:
            AnnotatorError: Missing or inconsistent arrays.
        """
        if f"{ARRAYS}shares" not in arrays:
            return None
        try:
            dim = int(arrays[f"{ARRAYS}dim"][0])
            shares = tuple(np.asarray(arrays[f"{ARRAYS}shares"], np.float64).tolist())
            columns, parts = [], []
            for i in range(len(shares)):
                prefix = f"{ARRAYS}{i}."
                own = {n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)}
                columns.append(np.asarray(own.pop("columns"), np.int64))
                part = Projection.from_arrays(own)
                if part is None:
                    raise KeyError(prefix)
                parts.append(part)
            return cls(dim, tuple(columns), tuple(parts), shares)
        except (KeyError, TypeError, IndexError, ValueError) as error:
            raise AnnotatorError(
                "The projection of the index is damaged.", "Build the index again."
            ) from error


def stored_projection(
    arrays: Mapping[str, NDArray[np.generic]],
) -> Projection | JointProjection | None:
    """The projection among the arrays of an index; None if it has none.

    Raises:
        AnnotatorError: Missing or inconsistent arrays.
    """
    return JointProjection.from_arrays(arrays) or Projection.from_arrays(arrays)
