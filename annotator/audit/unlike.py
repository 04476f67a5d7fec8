"""Images that resemble no others: a photograph among radiographs, a form, a broken export.

What counts is the distance to the fifth nearest image (Ramaswamy, Rastogi and Shim 2000), so that a
few strangers of one kind do not vouch for each other, of the encoder's vectors as they are: the
projection drops what no image of the collection has, and with it what is strange.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from annotator.knn.cross_validation import group_numbers
from annotator.knn.neighbors import nearest_of_other_groups
from index import FlatIndex
from index.progress import track
from index.rows import sample_rows

_FENCE = 3.0  # interquartile ranges; Tukey's outer fence
_RANK = 5  # which nearest image counts
_OWN = 30  # images of the own group that are looked past
_MOST_COMPARED = 10_000  # images; of more, evenly spaced ones
_SEARCHED_AT_ONCE = 1024


@dataclass(frozen=True)
class Stranger:
    """An image that is far from all others.

    Attributes:
        row: Of the image.
        distance: To the fifth nearest image of another group, of unit vectors; 0..2.
        threshold: Above which an image counts as a stranger.
    """

    row: int
    distance: float
    threshold: float


def strangers(distances: NDArray[np.float64], typical: NDArray[np.float64]) -> list[Stranger]:
    """Those far beyond what is typical, the strangest first.

    Args:
        distances: float64[n], of each image; NaN where there is none.
        typical: float64[m], of images that belong there.
    """
    known = typical[np.isfinite(typical)]
    if not len(known):
        return []
    low, high = np.quantile(known, (0.25, 0.75))
    threshold = float(high + _FENCE * (high - low))
    found = [
        Stranger(row, float(distances[row]), threshold)
        for row in np.flatnonzero(distances > threshold).tolist()
    ]
    return sorted(found, key=lambda s: (-s.distance, s.row))


def distances_within(vectors: NDArray[np.float32], groups: Sequence[str]) -> NDArray[np.float64]:
    """float64[n]: each image's distance to its fifth nearest of another group; NaN without one.

    Args:
        vectors: float32[n, dim] of unit norm, as the encoder made them; may be mapped from disk.
        groups: Of each row; an empty one is a group of its own.
    """
    every = evenly(len(vectors))
    numbers = group_numbers(groups)
    return distances_to(vectors[every], vectors, numbers[every], numbers)


def distances_to(
    known: NDArray[np.float32],
    vectors: NDArray[np.float32],
    known_groups: NDArray[np.int64],
    groups: NDArray[np.int64],
) -> NDArray[np.float64]:
    """float64[n]: as `distances_within`, to other images.

    Args:
        known: float32[m, dim] of unit norm.
        vectors: float32[n, dim] of unit norm.
        known_groups: int64[m].
        groups: int64[n], by the same numbers.
    """
    index = FlatIndex(np.ascontiguousarray(known))
    distances = np.full(len(vectors), np.nan)
    starts = range(0, len(vectors), _SEARCHED_AT_ONCE)
    for start in track(starts, total=len(starts), label="Strangers"):
        part = slice(start, start + _SEARCHED_AT_ONCE)
        found = nearest_of_other_groups(
            index, known_groups, np.array(vectors[part]), groups[part], _RANK, _OWN
        )
        similarity = found.similarities.astype(np.float64)
        count = np.isfinite(similarity).sum(axis=1)
        rank = np.minimum(_RANK, np.maximum(count, 1)) - 1
        nearest = np.sqrt(np.maximum(2 - 2 * similarity[np.arange(len(rank)), rank], 0))
        distances[part] = np.where(count > 0, nearest, np.nan)
    return distances


def evenly(n: int) -> NDArray[np.int64]:
    """int64: all rows, or 10,000 evenly spaced ones."""
    return sample_rows(n, _MOST_COMPARED)
