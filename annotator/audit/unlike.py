"""Images that resemble no other: a photograph among radiographs, a form, a broken export."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from annotator.progress import Progress, silent
from annotator.tune.neighbours import group_numbers, leave_one_group_out
from index import FlatIndex

_FENCE = 3.0  # interquartile ranges; Tukey's outer fence


@dataclass(frozen=True)
class Stranger:
    """An image that is far from all others.

    Attributes:
        row: Of the image.
        similarity: To the nearest image of another group, -1..1.
        threshold: Below which an image counts as a stranger.
    """

    row: int
    similarity: float
    threshold: float


def strangers(
    rows: Sequence[int], nearest: NDArray[np.float64], typical: NDArray[np.float64]
) -> list[Stranger]:
    """Those whose nearest similarity lies far below what is typical, the strangest first.

    Args:
        rows: Of the images.
        nearest: float64[n], each one's similarity to its nearest.
        typical: float64[m], such similarities of images that belong there.
    """
    low, high = np.quantile(typical, (0.25, 0.75))
    threshold = float(low - _FENCE * (high - low))
    found = [
        Stranger(row, float(similarity), threshold)
        for row, similarity in zip(rows, nearest, strict=True)
        if similarity < threshold
    ]
    return sorted(found, key=lambda s: (s.similarity, s.row))


def nearest_within(
    looks: NDArray[np.float32], groups: Sequence[str], *, progress: Progress = silent
) -> tuple[list[int], NDArray[np.float64]]:
    """Rows that have a neighbour of another group, and their similarity to the nearest one.

    Args:
        looks: float32[n, dim] of unit norm.
        groups: Of each row; an empty one is a group of its own.
        progress: Told about the work.
    """
    lists = leave_one_group_out(
        FlatIndex(looks),
        looks,
        group_numbers(groups),
        queries=np.arange(len(looks)),
        progress=progress,
    )
    return lists.queries.tolist(), lists.found.similarities[:, 0].astype(np.float64)
