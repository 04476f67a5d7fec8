"""Which images of a collection an image comes from: copies, close ones, and the most similar."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from annotator.audit.candidates import Views, compare_across
from annotator.audit.confirm import Look, confirm
from annotator.audit.duplicates import near_duplicates
from index import FlatIndex

Flag = Literal["copy", "close", "source"]

SOURCES = 5  # of each image
_CLOSE = 0.99  # share of the collection's images that are less similar to their nearest one


@dataclass(frozen=True)
class Source:
    """An image that another one may come from.

    Attributes:
        row: Of the source.
        correlation: Of the fine structure, where the pixels were compared and fit; else 0.
        similarity: Of the encoder's vectors, -1..1.
        closeness: The share of the collection's own images that are less similar than that to
            their nearest other image; 0..1.
        flag: "copy" where the pixels agree, "close" where it is more similar than the
            collection's images are to each other, else "source".
        how: "changed", "mirrored", "same pixels" for a copy; else empty.
    """

    row: int
    correlation: float
    similarity: float
    closeness: float
    flag: Flag
    how: str

    @property
    def score(self) -> float:
        """The correlation of a copy, the closeness of any other."""
        return self.correlation if self.flag == "copy" else self.closeness


def find_sources(
    views: Views,
    collection: Views,
    looks: tuple[Look, Look],
    same: Callable[[int, int], bool],
    *,
    least: float,
    k: int = SOURCES,
    workers: int = 1,
) -> list[list[Source]]:
    """For each image its most likely sources: copies first, then by similarity.

    Args:
        views: Of the images.
        collection: Of the images that they may come from.
        looks: Larger pictures of both, by row, for a closer look.
        same: Whether the pixels of an image and of one of the collection are the same.
        least: Correlation of a copy.
        k: Sources of each image.
        workers: Threads.
    """
    index = FlatIndex(np.ascontiguousarray(collection.looks))
    own = _nearest_other(index, collection.looks)
    found = index.search(np.ascontiguousarray(views.looks), min(k, len(collection)))
    pairs = compare_across(views, collection, workers=workers)
    pairs = confirm(pairs, *looks, workers=workers)
    fits: list[dict[int, tuple[float, str]]] = [{} for _ in range(len(views))]
    for d in near_duplicates(pairs, least, same):
        fits[d.row][d.other] = (d.score, d.how)
    result = []
    for i, fit in enumerate(fits):
        similarity = dict(zip(found.rows[i].tolist(), found.similarities[i].tolist(), strict=True))
        for other in fit.keys() - similarity.keys():
            similarity[other] = float(views.looks[i] @ collection.looks[other])
        sources = [
            _source(other, fit.get(other, (0.0, "")), value, own)
            for other, value in similarity.items()
        ]
        sources.sort(key=lambda s: (s.flag != "copy", -s.correlation, -s.similarity, s.row))
        result.append(sources[:k])
    return result


def _source(
    row: int, fit: tuple[float, str], similarity: float, own: NDArray[np.float64]
) -> Source:
    closeness = float(np.searchsorted(own, similarity) / len(own)) if len(own) else 0.0
    flag: Flag = "copy" if fit[0] else "close" if closeness >= _CLOSE else "source"
    return Source(row, fit[0], similarity, closeness, flag, fit[1])


def _nearest_other(index: FlatIndex, looks: NDArray[np.float32]) -> NDArray[np.float64]:
    """float64[n], ascending: each image's similarity to the nearest other one."""
    if len(looks) < 2:
        return np.zeros(0)
    found = index.search(np.ascontiguousarray(looks), 2)
    # Of two equal vectors either may come first; both are 1 then.
    other = np.where(found.rows[:, 0] == np.arange(len(looks)), 1, 0)
    return np.sort(np.take_along_axis(found.similarities, other[:, None], 1)[:, 0]).astype(float)
