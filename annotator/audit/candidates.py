"""Candidate pairs of one picture: the nearest images by vector and by pixels, then verified.

Candidates are compared at 64 x 64 pixels; those that fit well once more at 128 x 128.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from annotator.audit.align import fit_closely, fit_pairs
from annotator.knn.fit import fit_unsupervised
from annotator.knn.projection import Projection
from index import FlatIndex
from index.progress import track, track_rows

PROMISING = 0.8  # correlation at 64 x 64 pixels from which a pair is verified
_BY_VECTOR, _BY_PIXELS = 10, 5  # neighbours that are compared
_COARSE_SIDE = 16  # pixels
_LEAST_FITTED = 500  # images; with fewer, whitening makes all images equally unlike each other
_SEARCHED_AT_ONCE = 4096
_FITTED_AT_ONCE = 8192
_VERIFIED_AT_ONCE = 64


@dataclass(frozen=True)
class Views:
    """Images as they are compared with each other.

    Attributes:
        vectors: float32[n, dim] of unit norm, projected.
        thumbnails: uint8[n, 64, 64], grey.
        load: A row's thumbnail, uint8[128, 128].
    """

    vectors: NDArray[np.float32]
    thumbnails: NDArray[np.uint8]
    load: Callable[[int], NDArray[np.uint8]]

    def __len__(self) -> int:
        return len(self.vectors)

    def take(self, rows: NDArray[np.int64]) -> Views:
        """Some of the images, in that order."""
        return Views(
            self.vectors[rows], self.thumbnails[rows], lambda row: self.load(int(rows[row]))
        )


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
        """Some of the pairs, in that order."""
        return Pairs(self.rows[which], self.others[which], self.mirrored[which], self.scores[which])


def unsupervised_projection(
    vectors: NDArray[np.float32], blocks: tuple[int, ...]
) -> Projection | None:
    """A projection fitted without any concept; None for too few images.

    Args:
        vectors: float32[n, dim] of unit norm, as the encoder made them; may be mapped from disk.
        blocks: Of the encoder.
    """
    if len(vectors) < _LEAST_FITTED:
        return None
    return fit_unsupervised(vectors, blocks)


def compare_within(views: Views, *, workers: int) -> Pairs:
    """Each image and the most similar ones of the same collection; every pair once."""
    keys = _nearest(views, views, 1)
    # A pair once, whichever of the two found the other.
    rows, others = np.minimum(keys[:, 0], keys[:, 1]), np.maximum(keys[:, 0], keys[:, 1])
    keys = np.unique(np.stack([rows, others, keys[:, 2]], axis=1)[rows != others], axis=0)
    return _compared(views, views, keys, workers)


def compare_across(views: Views, collection: Views, *, workers: int) -> Pairs:
    """Each image of `views` (rows) and the most similar ones of `collection` (others)."""
    keys = np.unique(_nearest(views, collection, 0), axis=0)
    return _compared(views, collection, keys, workers)


def verify_pairs(pairs: Pairs, first: Views, second: Views, *, workers: int) -> Pairs:
    """The promising ones of `pairs`, with their correlation at 128 x 128 pixels.

    Args:
        pairs: Compared at 64 x 64 pixels.
        first: Images of `pairs.rows`.
        second: Images of `pairs.others`.
        workers: Threads.
    """
    kept = pairs.take(np.flatnonzero(pairs.scores >= PROMISING))
    starts = range(0, len(kept.rows), _VERIFIED_AT_ONCE)

    def verified(start: int) -> NDArray[np.float32]:
        part = kept.take(np.arange(start, min(start + _VERIFIED_AT_ONCE, len(kept.rows))))
        # Neighbouring pairs share their first image: each is decoded once.
        pictures = {row: first.load(row) for row in np.unique(part.rows).tolist()}
        others = {row: second.load(row) for row in np.unique(part.others).tolist()}
        a = np.stack([pictures[row] for row in part.rows.tolist()])
        b = np.stack([others[row] for row in part.others.tolist()])
        return fit_closely(a, np.where(part.mirrored[:, None, None], b[:, :, ::-1], b))

    with ThreadPoolExecutor(max(1, workers), thread_name_prefix="verify") as pool:
        found = pool.map(verified, starts)
        total = len(kept.rows)
        scores = list(track(found, total=total, label="Verifying", unit="pairs", size=len))
    joined = np.concatenate([np.zeros(0, np.float32), *scores])
    return Pairs(kept.rows, kept.others, kept.mirrored, joined)


def _compared(first: Views, second: Views, keys: NDArray[np.int64], workers: int) -> Pairs:
    scores = np.zeros(len(keys), np.float32)
    for part in track_rows(len(keys), _FITTED_AT_ONCE, label="Comparing", unit="pairs"):
        rows, others, mirrored = keys[part, 0], keys[part, 1], keys[part, 2].astype(bool)
        scores[part] = fit_pairs(
            first.thumbnails, second.thumbnails, rows, others, mirrored, workers=workers
        )
    every = Pairs(keys[:, 0], keys[:, 1], keys[:, 2].astype(bool), scores)
    # Of a pair that was tried both ways round, the better one.
    order = np.lexsort((every.mirrored, -scores, every.others, every.rows))
    pair = every.rows[order] * max(len(second), 1) + every.others[order]
    return every.take(order[np.insert(np.diff(pair) != 0, 0, True)] if len(order) else order)


def _nearest(views: Views, collection: Views, more: int) -> NDArray[np.int64]:
    """int64[p, 3]: row, row of the collection, and 1 for pairs to be tried mirrored.

    An encoder hardly tells an image from its mirror image, so its neighbours are tried both ways;
    the pixels are searched as they are and mirrored.
    """
    by_vector = _search(collection.vectors, views.vectors, _BY_VECTOR + more)
    pixels = _coarse(collection.thumbnails)
    as_is = _search(pixels, _coarse(views.thumbnails), _BY_PIXELS + more)
    turned = _search(pixels, _coarse(views.thumbnails[:, :, ::-1]), _BY_PIXELS + more)
    keys = []
    for found, mirrored in ((by_vector, 0), (by_vector, 1), (as_is, 0), (turned, 1)):
        rows = np.repeat(np.arange(len(found)), found.shape[1])
        keys.append(np.stack([rows, found.ravel(), np.full(len(rows), mirrored)], axis=1))
    return np.concatenate(keys)


def _search(
    vectors: NDArray[np.float32], queries: NDArray[np.float32], k: int
) -> NDArray[np.int64]:
    index = FlatIndex(np.ascontiguousarray(vectors))
    k = min(k, len(vectors))
    parts = [
        index.search(np.ascontiguousarray(queries[i : i + _SEARCHED_AT_ONCE]), k).rows
        for i in range(0, len(queries), _SEARCHED_AT_ONCE)
    ]
    return np.concatenate(parts)


def _coarse(thumbnails: NDArray[np.uint8]) -> NDArray[np.float32]:
    """float32[n, 256]: 16 x 16 pixels, less their mean, of unit norm."""
    n, side = len(thumbnails), thumbnails.shape[1]
    block = side // _COARSE_SIDE
    small = np.empty((n, _COARSE_SIDE * _COARSE_SIDE), np.float32)
    for start in range(0, n, _SEARCHED_AT_ONCE):
        part = thumbnails[start : start + _SEARCHED_AT_ONCE]
        means = part.reshape(-1, _COARSE_SIDE, block, _COARSE_SIDE, block).mean(axis=(2, 4))
        small[start : start + len(part)] = means.reshape(len(part), -1)
    small -= small.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(small, axis=1, keepdims=True)
    flat = norms[:, 0] < 1e-3
    small /= np.where(norms > 0, norms, 1)
    small[flat] = 0
    small[flat, 0] = 1  # a picture of one colour has no direction
    return small
