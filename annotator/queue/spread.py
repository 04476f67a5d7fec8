"""Images that stand for others: facility location over a graph of likeness.

Of near-copies one tells what the others would. So a set of images is worth what it stands for,

    f(S) = sum over images j of value_j · max over i in S of likeness_ij,

a weighted facility location. f is monotone and submodular: the greedy choice reaches at least
1 - 1/e of the best set of its size (Nemhauser, Wolsey and Fisher 1978), and a gain that was
computed before bounds the gain of now, so that few are computed anew (Minoux 1978, "Accelerated
greedy algorithms for maximizing submodular set functions").
"""

from __future__ import annotations

import heapq
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from index import FlatIndex, VectorIndex
from index.progress import track
from index.search.build import build_files, open_files

REACH = 50  # images that one may stand for it
MOST_COMPARED = 20_000  # images that are all compared with each other
_RECALL = 0.9  # of the 50 nearest of more
_SEARCHED_AT_ONCE = 1024


@dataclass(frozen=True)
class Likeness:
    """How much images stand for each other: a sparse matrix, by column.

    Attributes:
        starts: int64[n + 1], where the entries of each image begin.
        images: int64[e], for which images it stands; itself among them.
        values: float64[e], how much, above 0 and at most 1; 1 for itself.
    """

    starts: NDArray[np.int64]
    images: NDArray[np.int64]
    values: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.starts) - 1

    def close_ones(self, least: float) -> NDArray[np.int64]:
        """For how many other images each one stands by at least this much, int64[n]."""
        close = np.concatenate([[0], np.cumsum(self.values >= least)])
        return np.asarray(close[self.starts[1:]] - close[self.starts[:-1]] - 1, np.int64)

    @classmethod
    def of(cls, vectors: NDArray[np.float32], sharpness: float) -> Likeness:
        """exp(sharpness · (similarity - 1)) of each image to its 50 nearest, and 0 to all others.

        Memory grows with the number of images, not with its square: they are searched in blocks. Of
        more than 20,000 images at least nine in ten of the 50 are found (`IvfIndex`, which is the
        same for the same vectors), since time would grow with the square, too.

        Args:
            vectors: float32[n, dim] of unit norm.
            sharpness: At least 0.
        """
        n = len(vectors)
        if not n:
            return cls(np.zeros(1, np.int64), np.zeros(0, np.int64), np.zeros(0))
        index = _searchable(np.ascontiguousarray(vectors))
        width = min(REACH + 1, n)
        rows = np.empty((n, width), np.int32)
        similarities = np.empty((n, width), np.float32)
        blocks = [slice(i, i + _SEARCHED_AT_ONCE) for i in range(0, n, _SEARCHED_AT_ONCE)]
        for block in track(blocks, total=len(blocks), label="Comparing", unit="blocks"):
            found = index.search(np.array(vectors[block]), width)
            rows[block], similarities[block] = found.rows, found.similarities
        own = np.arange(n, dtype=np.int32)[:, None]
        similarities[rows == own] = 1.0
        # Of many copies of an image, it may not be among its own nearest.
        missing = ~(rows == own).any(axis=1)
        rows[missing, -1], similarities[missing, -1] = own[missing, 0], 1.0
        order = np.argsort(rows.ravel(), kind="stable")
        counts = np.bincount(rows.ravel(), minlength=n)
        values = np.exp(sharpness * (np.minimum(similarities.ravel()[order], 1.0) - 1.0))
        return cls(
            np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            order // width,
            values.astype(np.float64),
        )


def _searchable(vectors: NDArray[np.float32]) -> VectorIndex:
    if len(vectors) <= MOST_COMPARED:
        return FlatIndex(vectors)
    with tempfile.TemporaryDirectory() as folder:
        found = build_files("ivf", vectors, Path(folder), target_recall=_RECALL)
        return open_files("ivf", vectors, Path(folder), found)


def choose_spread(
    values: NDArray[np.float64],
    likeness: Likeness,
    budget: int,
    *,
    weights: NDArray[np.float64] | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Choose images one by one, each the one that adds most to what those before stand for.

    Args:
        values: float64[n], at least 0: what each image is worth that is stood for.
        likeness: Of the n images.
        budget: Number of images to choose, at least 0.
        weights: float64[n], at least 0, by which what an image adds is multiplied; None for 1.

    Returns:
        int64[m], the chosen images in their order, and float64[m], what each added. Images that
        add nothing are left out; of equal ones the first comes first.
    """
    n = len(values)
    weights = np.ones(n) if weights is None else weights
    covered = np.zeros(n)

    def gain(i: int) -> float:
        entries = slice(likeness.starts[i], likeness.starts[i + 1])
        images = likeness.images[entries]
        more = np.maximum(likeness.values[entries] - covered[images], 0.0)
        return float(weights[i] * (values[images] @ more))

    heap = [(-gain(i), i) for i in range(n)]
    heapq.heapify(heap)
    order: list[int] = []
    gains: list[float] = []
    while heap and len(order) < budget:
        _, i = heapq.heappop(heap)
        now = (-gain(i), i)
        if heap and now > heap[0]:
            heapq.heappush(heap, now)
            continue
        if now[0] >= 0:
            break
        order.append(i)
        gains.append(-now[0])
        entries = slice(likeness.starts[i], likeness.starts[i + 1])
        images = likeness.images[entries]
        covered[images] = np.maximum(covered[images], likeness.values[entries])
    return np.array(order, np.int64), np.array(gains, np.float64)
