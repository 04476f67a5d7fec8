"""Synthetic vectors that lie as the features of real radiographs do.

Uniform or Gaussian vectors mislead: all rows are about equally far from each other, which no
approximate search copes with, and no axis carries more than another, which real features differ in
widely. Here a vector is

    mean direction + one of 32 sources + centre of its cluster + local noise,

each with an energy and a spectrum (how fast the variance falls along the principal axes), turned at
random and brought to unit norm. Clusters differ in size (Pareto) and in how much noise their rows
have. The constants were fitted to features of EfficientNet-Lite0 (1,280 numbers) of 2,863 public
radiological images, so that the spectrum, the similarity of random pairs and that of the nearest
rows agree.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from functools import partial

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from annotator.images.ordered_map import in_threads

Floats = NDArray[np.float32]

VERSION = 1  # of what the same seed gives

# A spectrum falls like (i + offset)^-power.
_WIDE = (1.226, 1.38)
_LOCAL = (23.494, 1.299)
_MEAN, _SOURCE, _CLUSTER = 0.317, 0.091, 0.268  # energies
_NOISE = (0.063, 0.371)  # least and most energy of a cluster's local noise
_SOURCES = 32
_ROWS_A_CLUSTER = 44.231
_LEAST_CLUSTERS = 8
_PARETO = 1.5
_ROWS_AT_ONCE = 65536


class Synthetic:
    """A distribution of vectors, the same for the same arguments.

    Args:
        dim: Numbers of a vector.
        n: Rows that the index will have: says how many clusters there are.
        seed: Of everything.

    Attributes:
        clusters: How many there are.
    """

    def __init__(self, dim: int, n: int, seed: int = 0) -> None:
        rng = np.random.default_rng([seed, dim, n])
        self._seed, self._dim = seed, dim
        turned = np.linalg.qr(rng.standard_normal((dim, dim)))[0]
        self._rotation = turned.astype(np.float32)
        wide, self._local = _spectrum(dim, *_WIDE), _spectrum(dim, *_LOCAL)
        self.clusters = clusters_for(n)
        mean = rng.standard_normal(dim).astype(np.float32) * wide
        mean *= np.sqrt(_MEAN) / np.linalg.norm(mean)
        sources = rng.standard_normal((_SOURCES, dim), np.float32) * (wide * np.sqrt(_SOURCE))
        of = rng.integers(0, _SOURCES, self.clusters)
        centres = rng.standard_normal((self.clusters, dim), np.float32)
        centres *= wide * np.sqrt(_CLUSTER)
        self._centres = (centres + sources[of] + mean).astype(np.float32)
        self._noise = np.sqrt(rng.uniform(*_NOISE, self.clusters)).astype(np.float32)
        sizes = rng.pareto(_PARETO, self.clusters) + 0.3
        self._until = np.cumsum(sizes / sizes.sum())

    def chunks(self, n: int, stream: int = 0) -> Iterator[tuple[Floats, NDArray[np.int32]]]:
        """n rows, some at a time: float32[m, dim] of unit norm, and the cluster of each, int32[m].

        Args:
            n: Rows in all.
            stream: Another one gives other rows of the same distribution: queries, for example.
        """
        workers = len(os.sched_getaffinity(0))
        # A core a chunk: most of it is drawing numbers, which one core does for itself.
        work = partial(self._chunk, n, stream)
        chunks = range(-(-n // _ROWS_AT_ONCE))
        made = in_threads(work, chunks, workers=workers, waiting=workers + 1)
        with threadpool_limits(1), contextlib.closing(made):
            yield from made

    def _chunk(self, n: int, stream: int, number: int) -> tuple[Floats, NDArray[np.int32]]:
        rng = np.random.default_rng([self._seed, 7, stream, number])
        m = min(_ROWS_AT_ONCE, n - number * _ROWS_AT_ONCE)
        of = np.searchsorted(self._until, rng.random(m))
        of = np.minimum(of, self.clusters - 1)
        rows = rng.standard_normal((m, self._dim), np.float32)
        rows *= self._local
        rows *= self._noise[of][:, None]
        rows += self._centres[of]
        rows = rows @ self._rotation
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        return rows, of.astype(np.int32)


def clusters_for(n: int) -> int:
    """How many clusters n rows have."""
    return max(_LEAST_CLUSTERS, int(n / _ROWS_A_CLUSTER))


def _spectrum(dim: int, offset: float, power: float) -> Floats:
    """float32[dim]: standard deviations along the axes, whose squares add up to 1."""
    variances = (np.arange(dim) + offset) ** -power
    deviations: Floats = np.sqrt(variances / variances.sum()).astype(np.float32)
    return deviations


class SyntheticLabels:
    """Which concepts the rows have: a set of each cluster, and some of each row's own.

    Frequencies fall like those of a real vocabulary (Zipf).

    Args:
        clusters: How many there are.
        seed: Of everything.
        concepts: Size of the vocabulary.
    """

    def __init__(self, clusters: int, seed: int = 0, concepts: int = 2000) -> None:
        rng = np.random.default_rng([seed, 11, clusters])
        self._seed = seed
        frequency = 1 / np.arange(1, concepts + 1)
        self._until = np.cumsum(frequency / frequency.sum())
        counts = rng.integers(1, 9, clusters)
        drawn = self._draw(rng, int(counts.sum()))
        ends = np.cumsum(counts)
        self._sets = [
            frozenset(drawn[end - count : end].tolist())
            for end, count in zip(ends.tolist(), counts.tolist(), strict=True)
        ]

    def of_cluster(self, cluster: int) -> frozenset[int]:
        """The concepts that all rows of a cluster have."""
        return self._sets[cluster]

    def own(self, start: int, m: int) -> NDArray[np.int32]:
        """int32[m, 2]: what rows from `start` have besides; -1 for nothing."""
        rng = np.random.default_rng([self._seed, 13, start])
        own = self._draw(rng, 2 * m).reshape(m, 2)
        own[rng.integers(0, 3, m)[:, None] <= np.arange(2)] = -1
        return own

    def _draw(self, rng: np.random.Generator, n: int) -> NDArray[np.int32]:
        drawn = np.searchsorted(self._until, rng.random(n))
        return np.minimum(drawn, len(self._until) - 1).astype(np.int32)
