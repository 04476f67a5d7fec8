"""Vectors that lie as the features of real radiographs do, queries, and their exact neighbours.

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

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.index_latency.recall import exact_neighbours

Floats = NDArray[np.float32]

QUERIES = 1000
MOST_K = 50
VERSION = 1  # of what the same size gives

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
        dim: Length of a vector.
        n: Rows that the index will have: says how many clusters there are.
        seed: Of everything.
    """

    def __init__(self, dim: int, n: int, seed: int = 0) -> None:
        rng = np.random.default_rng([seed, dim, n])
        self._seed, self._dim = seed, dim
        turned = np.linalg.qr(rng.standard_normal((dim, dim)))[0]
        self._rotation = turned.astype(np.float32)
        wide, self._local = _spectrum(dim, *_WIDE), _spectrum(dim, *_LOCAL)
        clusters = max(_LEAST_CLUSTERS, int(n / _ROWS_A_CLUSTER))
        mean = rng.standard_normal(dim).astype(np.float32) * wide
        mean *= np.sqrt(_MEAN) / np.linalg.norm(mean)
        sources = rng.standard_normal((_SOURCES, dim), np.float32) * (wide * np.sqrt(_SOURCE))
        of = rng.integers(0, _SOURCES, clusters)
        centres = rng.standard_normal((clusters, dim), np.float32)
        centres *= wide * np.sqrt(_CLUSTER)
        self._centres = (centres + sources[of] + mean).astype(np.float32)
        self._noise = np.sqrt(rng.uniform(*_NOISE, clusters)).astype(np.float32)
        sizes = rng.pareto(_PARETO, clusters) + 0.3
        self._until = np.cumsum(sizes / sizes.sum())

    def chunks(self, n: int, stream: int = 0) -> Iterator[Floats]:
        """n rows, float32[m, dim] of unit norm at a time.

        Args:
            n: Rows in all.
            stream: Another one gives other rows of the same distribution: queries, for example.
        """
        for number in range(-(-n // _ROWS_AT_ONCE)):
            rng = np.random.default_rng([self._seed, 7, stream, number])
            m = min(_ROWS_AT_ONCE, n - number * _ROWS_AT_ONCE)
            of = np.searchsorted(self._until, rng.random(m))
            of = np.minimum(of, len(self._centres) - 1)
            rows = rng.standard_normal((m, self._dim), np.float32)
            rows *= self._local
            rows *= self._noise[of][:, None]
            rows += self._centres[of]
            rows = rows @ self._rotation
            rows /= np.linalg.norm(rows, axis=1, keepdims=True)
            yield rows


def _spectrum(dim: int, offset: float, power: float) -> Floats:
    """float32[dim]: standard deviations along the axes, whose squares add up to 1."""
    variances = (np.arange(dim) + offset) ** -power
    deviations: Floats = np.sqrt(variances / variances.sum()).astype(np.float32)
    return deviations


@dataclass(frozen=True)
class Dataset:
    """The data of one size.

    Attributes:
        name: Changes with the vectors.
        vectors_path: Of float32[n, dim].
        queries_path: Of float32[1000, dim].
        vectors: float32[n, dim], mapped from disk.
        queries: float32[1000, dim], of the same distribution.
        exact: float64[1000, 50], similarities of the exact neighbours, the nearest first.
    """

    name: str
    vectors_path: Path
    queries_path: Path
    vectors: Floats
    queries: Floats
    exact: NDArray[np.float64]


def prepare(work: Path, n: int, dim: int) -> Dataset:
    """The data of a size, from the folder `work` or made now; memory does not grow with n."""
    name = f"{n}x{dim}-v{VERSION}"
    folder = work / "data" / name
    done = folder / "exact.npy"
    if not done.exists():
        folder.mkdir(parents=True, exist_ok=True)
        synthetic = Synthetic(dim, n)
        vectors = np.lib.format.open_memmap(folder / "vectors.npy", "w+", np.float32, (n, dim))
        start = 0
        for rows in synthetic.chunks(n):
            vectors[start : start + len(rows)] = rows
            start += len(rows)
        vectors.flush()
        queries = next(synthetic.chunks(QUERIES, stream=1))
        np.save(folder / "queries.npy", queries)
        exact = exact_neighbours(vectors, queries, min(MOST_K, n))[1]
        np.save(folder / "exact.tmp.npy", exact)
        (folder / "exact.tmp.npy").replace(done)
    vectors_path, queries_path = folder / "vectors.npy", folder / "queries.npy"
    mapped = np.load(vectors_path, mmap_mode="r")
    return Dataset(name, vectors_path, queries_path, mapped, np.load(queries_path), np.load(done))
