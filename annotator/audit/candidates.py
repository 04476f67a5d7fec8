"""Which pairs of images are worth laying over each other: the nearest ones, seen in two ways."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from annotator.audit.align import fit_pairs
from annotator.knn.fit import Fitter
from annotator.knn.projection import Projection
from index import FlatIndex, LabelTable
from index.progress import track

BY_LOOKS, BY_PIXELS = 10, 5  # neighbours that are compared
_COARSE = 16  # pixels of the side of what is compared by pixels
_LEAST_FITTED = 500  # images; with fewer, whitening makes all images equally unlike each other
_LOOKED_UP_AT_ONCE = 4096
_FITTED_AT_ONCE = 8192


@dataclass(frozen=True)
class Views:
    """Images as an audit compares them.

    Attributes:
        looks: float32[n, dim] of unit norm: the encoder's vectors, or what `looks_of` made of them.
        glances: uint8[n, 64, 64].
    """

    looks: NDArray[np.float32]
    glances: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.looks)

    def take(self, rows: NDArray[np.int64]) -> Views:
        """Those of some rows."""
        return Views(self.looks[rows], self.glances[rows])


@dataclass(frozen=True)
class Pairs:
    """Pairs of images and how well they fit on each other.

    Attributes:
        rows: int64[p].
        others: int64[p].
        mirrored: bool[p], whether the second is laid over the first as its mirror image.
        scores: float32[p], correlation of the fine structure (`align.fit_pairs`).
    """

    rows: NDArray[np.int64]
    others: NDArray[np.int64]
    mirrored: NDArray[np.bool_]
    scores: NDArray[np.float32]

    def take(self, which: NDArray[np.int64]) -> Pairs:
        """Some of them, in that order."""
        return Pairs(self.rows[which], self.others[which], self.mirrored[which], self.scores[which])


def looks_projection(vectors: NDArray[np.float32], blocks: tuple[int, ...]) -> Projection | None:
    """A projection fitted to how images look, without any concept; None for too few images.

    Args:
        vectors: float32[n, dim] of unit norm, as the encoder made them; may be mapped from disk.
        blocks: Of the encoder.
    """
    if len(vectors) < _LEAST_FITTED:
        return None
    return Fitter(vectors, LabelTable.from_sets([()] * len(vectors)), blocks).projection(None)


def compare_within(views: Views, *, workers: int) -> Pairs:
    """Each image with those of the same collection that are most similar; every pair once."""
    keys = _keys(_nearest(views, views, 1), len(views))
    # A pair once, whichever of the two found the other.
    rows, others = np.minimum(keys[:, 0], keys[:, 1]), np.maximum(keys[:, 0], keys[:, 1])
    keys = np.unique(np.stack([rows, others, keys[:, 2]], axis=1)[rows != others], axis=0)
    return _compared(views, views, keys, workers)


def compare_across(views: Views, sources: Views, *, workers: int) -> Pairs:
    """Each image of `views` (rows) with those of `sources` (others) that are most similar."""
    keys = np.unique(_keys(_nearest(views, sources, 0), len(sources)), axis=0)
    return _compared(views, sources, keys, workers)


def _compared(
    first: Views,
    second: Views,
    keys: NDArray[np.int64],
    workers: int,
) -> Pairs:
    scores = np.zeros(len(keys), np.float32)
    starts = range(0, len(keys), _FITTED_AT_ONCE)
    for start in track(starts, total=len(starts), label="Comparing"):
        part = slice(start, start + _FITTED_AT_ONCE)
        rows, others, mirrored = keys[part, 0], keys[part, 1], keys[part, 2].astype(bool)
        scores[part] = fit_pairs(
            first.glances, second.glances, rows, others, mirrored, workers=workers
        )
    every = Pairs(keys[:, 0], keys[:, 1], keys[:, 2].astype(bool), scores)
    # Of a pair that was tried both ways round, the better one.
    order = np.lexsort((every.mirrored, -scores, every.others, every.rows))
    pair = every.rows[order] * max(len(second), 1) + every.others[order]
    return every.take(order[np.insert(np.diff(pair) != 0, 0, True)] if len(order) else order)


def _nearest(
    views: Views, sources: Views, more: int
) -> list[tuple[NDArray[np.int64], tuple[bool, ...]]]:
    """Neighbour lists int64[n, k], each with the ways round that its pairs are tried in.

    An encoder hardly tells an image from its mirror image, so its neighbours are tried both ways;
    the pixels are looked up as they are and mirrored.
    """
    pixels, own = _coarse(sources.glances), _coarse(views.glances)
    turned = _coarse(views.glances[:, :, ::-1])
    return [
        (_search(sources.looks, views.looks, BY_LOOKS + more), (False, True)),
        (_search(pixels, own, BY_PIXELS + more), (False,)),
        (_search(pixels, turned, BY_PIXELS + more), (True,)),
    ]


def _search(
    vectors: NDArray[np.float32], queries: NDArray[np.float32], k: int
) -> NDArray[np.int64]:
    index = FlatIndex(np.ascontiguousarray(vectors))
    k = min(k, len(vectors))
    parts = [
        index.search(np.ascontiguousarray(queries[i : i + _LOOKED_UP_AT_ONCE]), k).rows
        for i in range(0, len(queries), _LOOKED_UP_AT_ONCE)
    ]
    return np.concatenate(parts)


def _keys(lists: list[tuple[NDArray[np.int64], tuple[bool, ...]]], n: int) -> NDArray[np.int64]:
    """int64[p, 3]: row, other row, mirrored."""
    keys = []
    for found, ways in lists:
        rows = np.repeat(np.arange(len(found)), found.shape[1])
        for mirrored in ways:
            keys.append(np.stack([rows, found.ravel(), np.full(len(rows), int(mirrored))], axis=1))
    return np.concatenate(keys)


def _coarse(glances: NDArray[np.uint8]) -> NDArray[np.float32]:
    """float32[n, 256]: 16 x 16 pixels, less their mean, of unit norm."""
    n, side = len(glances), glances.shape[1]
    block = side // _COARSE
    small = np.empty((n, _COARSE * _COARSE), np.float32)
    for start in range(0, n, _LOOKED_UP_AT_ONCE):
        part = glances[start : start + _LOOKED_UP_AT_ONCE]
        means = part.reshape(-1, _COARSE, block, _COARSE, block).mean(axis=(2, 4))
        small[start : start + len(part)] = means.reshape(len(part), -1)
    small -= small.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(small, axis=1, keepdims=True)
    flat = norms[:, 0] < 1e-3
    small /= np.where(norms > 0, norms, 1)
    small[flat] = 0
    small[flat, 0] = 1  # a picture of one colour has no direction
    return small
