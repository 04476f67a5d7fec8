"""What a fitted encoder knows of the collection that it was fitted to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from annotator.errors import AnnotatorError

SEEN_BY_ALL, NEW = -1, -2  # instead of a branch's number
KEY_BYTES = 16
ARRAYS = "fitted."  # prefix of the array names in an index


@dataclass(frozen=True)
class Fitted:
    """What a fitted encoder knows of the collection that it was fitted to.

    It has K branches, networks that were each fine-tuned without one fold of the groups. Their
    features are blocks of the encoder's vectors, of which each has a linear classifier, its head.

    Attributes:
        columns: First column and end of each branch's block in the encoder's vector, of K branches.
        concepts: c concepts that the heads were trained on.
        weights: float32[K, length, c], of each branch's head, for its block of unit norm.
        biases: float32[K, c].
        contents: uint8[m, 16], first half of the sha256 of each file that it was fitted to, sorted.
        folds: int16[m]: the branch that has not seen this image's group; -1 if all have.

    Raises:
        ValueError: Inconsistent or not finite.
    """

    columns: tuple[tuple[int, int], ...]
    concepts: tuple[str, ...]
    weights: NDArray[np.float32]
    biases: NDArray[np.float32]
    contents: NDArray[np.uint8]
    folds: NDArray[np.int16]

    def __post_init__(self) -> None:
        shapes = [(end - start, len(self.concepts)) for start, end in self.columns]
        fits = (
            len(shapes) > 0
            and [head.shape for head in self.weights] == shapes
            and self.biases.shape == (len(shapes), len(self.concepts))
            and self.contents.shape == (len(self.folds), KEY_BYTES)
            and bool(np.isfinite(self.weights).all() and np.isfinite(self.biases).all())
        )
        if not fits:
            raise ValueError(
                "the heads, branches and folds of a fitted encoder do not fit together"
            )

    def within(self, start: int) -> Fitted:
        """The same for a longer vector, which holds this one from `start` on."""
        return replace(self, columns=tuple((a + start, b + start) for a, b in self.columns))

    def general(self, blocks: Sequence[int]) -> tuple[NDArray[np.int64], list[int]]:
        """Columns and blocks of the encoder's vector that are not of its branches.

        Args:
            blocks: Of the encoder.

        Returns:
            int64[dim of the encoder before it was fitted], and lengths of blocks.
        """
        ends = np.cumsum(blocks).tolist()
        pairs = [(end - length, end) for end, length in zip(ends, blocks, strict=True)]
        kept = [pair for pair in pairs if pair not in self.columns]
        columns = np.concatenate([np.arange(start, end) for start, end in kept])
        return columns, [end - start for start, end in kept]

    def folds_of(self, contents: NDArray[np.uint8]) -> NDArray[np.int16]:
        """The branch that has not seen each image's group.

        Args:
            contents: uint8[n, 32], sha256 of each image's file.

        Returns:
            int16[n]; `SEEN_BY_ALL` (-1), or `NEW` (-2) for images that it was not fitted to.
        """
        found = np.full(len(contents), NEW, np.int16)
        if len(self.contents):
            known, wanted = _keys(self.contents), _keys(contents)
            place = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
            same = known[place] == wanted
            found[same] = self.folds[place[same]]
        return found

    def log_odds(self, vectors: NDArray[np.float32], branch: int) -> NDArray[np.float32]:
        """Log-odds of each concept under the head of one branch.

        Args:
            vectors: float32[n, dim], from the encoder.
            branch: 0 to K - 1.

        Returns:
            float32[n, c].
        """
        start, end = self.columns[branch]
        block = vectors[:, start:end]
        unit = block / np.maximum(np.linalg.norm(block, axis=1, keepdims=True), 1e-12)
        odds: NDArray[np.float32] = unit @ self.weights[branch] + self.biases[branch]
        return odds

    def to_arrays(self) -> dict[str, NDArray[np.generic]]:
        """Arrays by name, to store in an index."""
        return {
            f"{ARRAYS}columns": np.array(self.columns, np.int64),
            f"{ARRAYS}concepts": np.frombuffer("\n".join(self.concepts).encode(), np.uint8),
            f"{ARRAYS}weights": self.weights,
            f"{ARRAYS}biases": self.biases,
            f"{ARRAYS}contents": self.contents,
            f"{ARRAYS}folds": self.folds,
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.generic]]) -> Fitted | None:
        """Inverse of `to_arrays`; None if `arrays` has none.

        Raises:
            AnnotatorError: Missing or inconsistent arrays.
        """
        if f"{ARRAYS}weights" not in arrays:
            return None
        try:
            columns = np.asarray(arrays[f"{ARRAYS}columns"], np.int64)
            weights = np.asarray(arrays[f"{ARRAYS}weights"], np.float32)
            biases = np.asarray(arrays[f"{ARRAYS}biases"], np.float32)
            contents = np.asarray(arrays[f"{ARRAYS}contents"], np.uint8)
            folds = np.asarray(arrays[f"{ARRAYS}folds"], np.int16)
            text = np.asarray(arrays[f"{ARRAYS}concepts"], np.uint8).tobytes().decode()
            concepts = tuple(text.split("\n"))
            pairs = tuple((start, end) for start, end in columns.tolist())
            return cls(pairs, concepts, weights, biases, contents, folds)
        except (KeyError, TypeError, ValueError) as error:
            raise AnnotatorError(
                "What the index holds of its fitted encoder is damaged.", "Build the index again."
            ) from error


def common_folds(sets: NDArray[np.int64], folds: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
    """The branch that has seen no member of a set.

    Args:
        sets: int64[n], number of the set of each image: its group, or its file.
        folds: int[n], of each image, as `Fitted.folds_of` gives them.

    Returns:
        int64[number of sets]; `SEEN_BY_ALL` where members have different branches, `NEW` where all
        are new.
    """
    old = folds != NEW
    lowest = np.full(sets.max(initial=-1) + 1, np.iinfo(np.int64).max)
    highest = np.full(len(lowest), NEW)
    np.minimum.at(lowest, sets[old], folds[old])
    np.maximum.at(highest, sets[old], folds[old])
    agreed = np.where(lowest == highest, lowest, SEEN_BY_ALL)
    return np.where(highest == NEW, NEW, agreed)


def _keys(contents: NDArray[np.uint8]) -> NDArray[np.void]:
    """The first `KEY_BYTES` bytes of each row as one value that can be compared."""
    return np.ascontiguousarray(contents[:, :KEY_BYTES]).view(f"V{KEY_BYTES}").ravel()
